"""An HTTP/1.1 server for asyncio loops: the hot path of the router and of the model server.

    def handler(exchange: Exchange) -> None:
        exchange.respond(200, b'{"predictions": [1]}', b"application/json")

    server = Server(handler, Limits(max_body_bytes=1 << 20))
    await server.listen(host, port)        # or sockets=[...] given by a process manager
    ...
    await server.drain(timeout_s=30)       # finish what is under way, then close

**The handler** is called on the loop, once per request, when the whole request has arrived:
`exchange.head` (method, target, headers; shared and read-only, see `RequestHead`), `exchange.body`
(bytes). It must answer exactly once, now or later, with `respond(...)`, or `start(...)` followed by
`send(...)` and `finish()` for a stream. It must not block; work goes to a thread, a task (`spawn`
runs a coroutine as a handler) or callbacks. `exchange.on_abort` is called, once, if the client goes
away or the time is up before the answer is complete; answering afterwards is allowed and does
nothing.

**Inside the server**, so that no handler needs to care: strict parsing and refusal of smuggling
(`http1_head`), limits of head (431), target (414) and body (413), time limits against slow clients
(408 or a dropped connection), chunked bodies in and out, Expect: 100-continue, keep-alive,
pipelining (one at a time, in order), HEAD, HTTP/1.0, back pressure, half-closed clients, and the
drain.

Time is coarse (`TICK_S`): one timer per server looks at all connections, none is armed per request.
"""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from functions.wire import headers as wire_headers
from functions.wire.http1_connection import Connection, Exchange, Limits, logger
from functions.wire.http1_core import ServerCore
from functions.wire.http1_head import HeadCache, RequestHead

__all__ = ["Connection", "Exchange", "Handler", "Limits", "Server", "http_date", "spawn"]

TICK_S = 0.1
"""Seconds between two looks at the clock; every time limit is late by up to two of these."""


class Handler(Protocol):
    """What a server calls for every request; see the module's docstring."""

    def __call__(self, exchange: "Exchange", /) -> None: ...


class Server(ServerCore):
    """Listening sockets, their connections, and the clock of all.

    `make_exchange`: a subclass of Exchange lets a handler keep its own state in the one object per
    request.
    """

    def __init__(
        self,
        handler: Handler,
        limits: Limits | None = None,
        make_exchange: "Callable[[Connection, RequestHead, bytes], Exchange]" = Exchange,
        *,
        takes_cut_bodies: bool = False,
        takes_views: Callable[[RequestHead], bool] | None = None,
    ) -> None:
        self.heads: HeadCache[RequestHead] = HeadCache()
        super().__init__(handler, make_exchange, self.heads.heads)
        self.takes_cut_bodies = takes_cut_bodies
        """A client that stops sending in the middle of a body is answered by what has arrived, as
        by a Go handler that ignores the read error; by default its connection is closed."""
        self.takes_views = takes_views
        """Of which requests the handler takes a large body as a read-only memoryview as well as in
        bytes."""
        self.limits = limits or Limits()
        self.connections: set[Connection] = set()
        self.now = time.monotonic()
        self._date = b""
        self._date_second = 0
        self._servers: list[asyncio.Server] = []
        self._timer: asyncio.TimerHandle | None = None
        self._settled: asyncio.Event | None = None

    @property
    def ports(self) -> list[int]:
        return [s.getsockname()[1] for server in self._servers for s in server.sockets]

    async def listen(
        self,
        host: str | Sequence[str] | None = None,
        port: int | None = None,
        *,
        sockets: Iterable[socket.socket] = (),
        backlog: int = 1024,
    ) -> None:
        """Start serving on host and port, or on sockets that are already bound. Raises OSError."""
        loop = asyncio.get_running_loop()
        for sock in sockets:
            sock.setblocking(False)
            self._servers.append(
                await loop.create_server(lambda: Connection(self), sock=sock, backlog=backlog)
            )
        if port is not None:
            self._servers.append(
                await loop.create_server(lambda: Connection(self), host, port, backlog=backlog)
            )
        self._tick()

    async def adopt(self, sock: socket.socket) -> None:
        """Serve a connection that was accepted elsewhere."""
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: Connection(self), sock)

    def make_prefix(self, status: int, content_type: bytes) -> bytes:
        """Status line, Date and Content-Type (when there is one) of an answer."""
        second = int(time.time())
        if second != self._date_second:
            self._date_second = second
            self._date = b"Date: %s\r\n" % http_date(second)
            self.answers.clear()
        prefix = wire_headers.status_line(status) + self._date
        if content_type:
            prefix += b"Content-Type: %s\r\n" % content_type
        return prefix

    def make_answer(self, status: int, content_type: bytes, length: int) -> bytes:
        """A whole head for a body of this length, kept for the next of its kind."""
        head = self.make_prefix(status, content_type)
        head += b"Content-Length: %d\r\n\r\n" % length
        if len(self.answers) < 256:
            self.answers[status, content_type, length] = head
        return head

    def finished(self, connection: Connection) -> None:
        """A request ended without an answer: its client is gone."""
        self.in_flight -= 1
        if self.draining:
            self.settled()

    def settled(self) -> None:
        if self._settled is not None and self.in_flight == 0:
            self._settled.set()

    async def drain(self, timeout_s: float) -> bool:
        """Stop listening, let requests under way finish, close. False if some had to be cut off."""
        self.draining = True
        self._settled = asyncio.Event()
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.close_if_idle()
        finished = True
        if self.in_flight:
            try:
                await asyncio.wait_for(self._settled.wait(), timeout_s)
            except TimeoutError:
                finished = False
        await asyncio.sleep(0)  # the last answers leave the process before their connections close
        for connection in list(self.connections):
            connection.close() if finished else connection.drop()
        if self._timer is not None:
            self._timer.cancel()
        return finished

    def _tick(self) -> None:
        now = self.now = time.monotonic()
        if int(time.time()) != self._date_second:
            self.answers.clear()
        for connection in list(self.connections):
            connection.tick(now)
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(second: int) -> bytes:
    """IMF-fixdate (RFC 9110 5.6.7); spelled out because `email.utils` costs a dozen imports."""
    t = time.gmtime(second)
    day, month = _DAYS[t.tm_wday], _MONTHS[t.tm_mon - 1]
    text = (
        f"{day}, {t.tm_mday:02d} {month} {t.tm_year} {t.tm_hour:02d}:{t.tm_min:02d}:"
        f"{t.tm_sec:02d} GMT"
    )
    return text.encode()


def spawn(handler: Callable[[Exchange], Awaitable[None]]) -> Handler:
    """Make a handler of a coroutine function: one task per request, cancelled when the client
    goes."""
    tasks: set[asyncio.Task[None]] = set()

    async def run(exchange: Exchange) -> None:
        try:
            await handler(exchange)
        except Exception:
            logger.exception("a request failed")
            exchange.respond(500, b'{"error":"internal error"}', b"application/json")

    def start(exchange: Exchange) -> None:
        task = asyncio.get_running_loop().create_task(run(exchange))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        exchange.on_abort = task.cancel

    return start
