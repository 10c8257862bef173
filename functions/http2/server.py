"""A gRPC server: unary methods and streams of messages, on one event loop.

    def echo(call: ServerCall, message: memoryview) -> None:
        call.respond([message])

    server = Server({b"/package.Service/Echo": Method(echo)}, Limits())
    port = await server.listen("127.0.0.1", 0)
    ...
    await server.drain(timeout_s=30)

A method is called on the loop with the whole message, a view of the buffer it was received in. It
must not block; it answers at once or later. What HTTP/2 and gRPC ask for besides is done here:
windows, deadlines, compressed requests, limits of every kind, cancelled calls, the drain.

Time is coarse (`TICK_S`): one timer looks at all connections, none is armed per call.
"""

import asyncio
import logging
import time
from collections.abc import Mapping

from functions.grpc_status import Status

from . import compression, frames
from .call import ServerCall
from .connection import MAX_FRAME_BYTES, Scratch
from .server_connection import Limits, Method, ServerConnection

__all__ = ["Limits", "Method", "Server", "ServerConnection"]

logger = logging.getLogger(__name__)

TICK_S = 0.1
"""Seconds between two looks at the clock; deadlines are late by up to so much. (Clients have clocks
of their own.)"""


class Server:
    """A listening socket, its connections, and the clock of all."""

    def __init__(self, methods: Mapping[bytes, Method], limits: Limits | None = None) -> None:
        """`methods` by path (`/package.Service/Method`)."""
        self.methods = methods
        self.limits = limits or Limits()
        self.connections: set[ServerConnection] = set()
        self.unfinished = 0
        """Bytes of requests that have begun to arrive."""
        self.draining = False
        self.scratch = Scratch()
        self.now = time.monotonic()
        self.greeting = frames.settings({
            frames.MAX_CONCURRENT_STREAMS: self.limits.max_streams,
            # Messages are limited one by one, so a stream needs no window besides.
            frames.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW,
            frames.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
            frames.MAX_HEADER_LIST_SIZE: self.limits.max_metadata_bytes,
        }) + frames.window_update(0, frames.MAX_WINDOW - frames.DEFAULT_WINDOW)  # fmt: skip
        self._listener: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._settled: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int, *, backlog: int = 1024) -> int:
        """Start serving; the port. Other processes may listen on it too. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: ServerConnection(self), host, port, backlog=backlog, reuse_port=True
        )
        self._tick()
        bound: int = self._listener.sockets[0].getsockname()[1]
        return bound

    async def drain(self, timeout_s: float) -> bool:
        """Stop listening, let calls under way finish, close. False if some had to be cut off."""
        self.draining = True
        self._settled = asyncio.Event()
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections):
            connection.begin_draining()
        finished = True
        if self.connections:
            try:
                await asyncio.wait_for(self._settled.wait(), timeout_s)
            except TimeoutError:
                finished = not any(connection.streams for connection in self.connections)
                for connection in list(self.connections):
                    connection.cut_off()
                await asyncio.sleep(0)  # what was said leaves the process
                for connection in list(self.connections):
                    connection.drop()
        if self._timer is not None:
            self._timer.cancel()
        return finished

    def settled(self) -> None:
        """A connection is gone."""
        if self._settled is not None and not self.connections:
            self._settled.set()

    def run(self, call: ServerCall, message: memoryview) -> None:
        """Hand a message to the call's method."""
        method = call.method
        assert method is not None
        call.start()
        try:
            method.handler(call, message)
        except Exception:
            logger.exception("a gRPC call failed")
            call.fail(Status.INTERNAL, "internal error")
        if method.is_stream:
            call.pause()

    def unpack(self, call: ServerCall, packed: memoryview) -> None:
        """Beside the loop: a small message may be a large one."""

        async def work() -> None:
            limit = self.limits.max_message_bytes
            try:
                message = await asyncio.to_thread(
                    compression.unpack, packed, call.head.encoding, limit
                )
            except compression.TooLarge:
                text = f"Received message larger than max (more than {limit}, unpacked)"
                call.fail(Status.RESOURCE_EXHAUSTED, text)
            except ValueError as exc:
                call.fail(Status.INTERNAL, f"the message cannot be unpacked: {exc}")
            else:
                if call.is_answered:
                    call.fail(Status.CANCELLED, "")  # nobody waits any more
                else:
                    self.run(call, message)

        call.start()
        task = asyncio.get_running_loop().create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tick(self) -> None:
        now = self.now = time.monotonic()
        for connection in list(self.connections):
            connection.tick(now)
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
