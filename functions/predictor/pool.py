"""Connections to one predictor, kept alive and shared.

Taken last-in first-out, so that a quiet pool shrinks from its cold end. No request waits for
another one's answer: a new connection is dialled whenever none is idle, up to `max_connections`;
beyond it requests wait in order.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Sequence

from functions.buffers import Buffer

from .connection import Broken, Connection, Response
from .dialling import connect
from .target import Target

IDLE_S = 55.0
"""Shorter than what common servers allow (60 s and more), so that we close first."""

STALE_S = 1.0
"""A kept connection that is closed sooner than this after the request, without an answer, was being
closed when we wrote: the request goes out once more, on a new one."""


class Pool:
    """All connections of this process to one target. For one event loop."""

    def __init__(
        self,
        target: Target,
        *,
        context: ssl.SSLContext | None,
        max_connections: int,
        max_bytes: int,
    ) -> None:
        """`context` is needed for https targets. `max_bytes` limits the body of an answer."""
        self.target = target
        self._context = context
        self._max_connections = max_connections
        self._max_bytes = max_bytes
        self._idle: list[Connection] = []
        self._connections: set[Connection] = set()
        self._dialling = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def request(self, head: bytes, body: Sequence[Buffer]) -> Response:
        """One exchange. Raises Unreachable (nothing was sent) or Broken (something may have
        been)."""
        connection, fresh = await self._take()
        since = time.monotonic()
        try:
            return await connection.exchange(head, body)
        except Broken as broken:
            if fresh or not broken.stale or time.monotonic() - since > STALE_S:
                raise
        finally:
            self._release(connection)
        connection = await self._dial()
        try:
            return await connection.exchange(head, body)
        finally:
            self._release(connection)

    async def _take(self) -> tuple[Connection, bool]:
        """An idle connection, or a new one and True."""
        while True:
            self._drop_cold()
            while self._idle:
                connection = self._idle.pop()
                if connection.reusable:
                    return connection, False
            if len(self._connections) + self._dialling < self._max_connections:
                return await self._dial(), True
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._next()  # our turn had come: pass it on
                raise

    def _drop_cold(self) -> None:
        before = time.monotonic() - IDLE_S
        while self._idle and self._idle[0].idle_since < before:
            self._idle.pop(0).close()

    def _release(self, connection: Connection) -> None:
        if connection.reusable:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        self._next()

    def lost(self, connection: Connection) -> None:
        """The connection is closed."""
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._next()

    def _next(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def close(self) -> None:
        for connection in list(self._connections):
            connection.abort()
        self._idle.clear()

    # --- dialling ------------------------------------------------------------------------------

    async def _dial(self) -> Connection:
        target = self.target
        self._dialling += 1
        try:
            # Behind a proxy http requests name their whole URL; https goes through a tunnel.
            connection = await connect(
                target,
                lambda: Connection(self, self._max_bytes),
                self._context,
                tunnel=target.tls,
            )
        finally:
            self._dialling -= 1
        self._connections.add(connection)
        return connection
