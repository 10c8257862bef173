"""Connections to one predictor, kept alive and shared.

Taken last-in first-out, so that a quiet pool shrinks from its cold end. No request waits for
another one's answer: a new connection is dialled whenever none is idle, up to `max_connections`;
beyond it requests wait in order.
"""

import asyncio
import socket
import ssl
import time
from collections import deque
from collections.abc import Sequence

from .connection import Broken, Buffer, Connection, Response
from .target import Target

IDLE_S = 55.0
"""Shorter than what common servers allow (60 s and more), so that we close first."""

CONNECT_S = 10.0
"""Longest wait for a connection, TLS included; the call's deadline may be earlier."""

STALE_S = 1.0
"""A kept connection that is closed sooner than this after the request, without an answer, was being
closed when we wrote: the request goes out once more, on a new one."""


class Unreachable(Exception):
    """No connection; nothing was sent. `retryable`: it may come up in a moment."""

    def __init__(self, reason: str, *, retryable: bool) -> None:
        super().__init__(reason)
        self.retryable = retryable


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
        self._dialling += 1
        try:
            async with asyncio.timeout(CONNECT_S) as limit:
                connection = await self._connect()
        except TimeoutError:
            if not limit.expired():
                raise
            raise Unreachable(f"no connection within {CONNECT_S:g} s", retryable=True) from None
        except ssl.SSLCertVerificationError as exc:
            raise Unreachable(_certificate_reason(exc), retryable=False) from exc
        except ssl.SSLError as exc:
            raise Unreachable(_tls_reason(exc), retryable=False) from exc
        except socket.gaierror as exc:
            again = exc.errno == socket.EAI_AGAIN
            raise Unreachable(
                f"its name {self.target.host!r} cannot be resolved ({exc.strerror})",
                retryable=again,
            ) from exc
        except OSError as exc:
            raise Unreachable(_plain_reason(exc), retryable=True) from exc
        finally:
            self._dialling -= 1
        self._connections.add(connection)
        return connection

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        target = self.target

        def make() -> Connection:
            return Connection(self, self._max_bytes)

        if target.tls and target.proxy is not None:
            return await self._tunnel(target.proxy, make())
        host, port = target.proxy or (target.host, target.port)
        context = self._context if target.tls else None
        _, connection = await loop.create_connection(make, host, port, ssl=context)
        return connection

    async def _tunnel(self, proxy: tuple[str, int], connection: Connection) -> Connection:
        """CONNECT through an HTTP proxy, TLS inside."""
        reader, writer = await asyncio.open_connection(*proxy, limit=8192)
        place = self.target.address.encode()
        writer.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (place, place))
        try:
            answer = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            answer = b""
        if not answer.startswith((b"HTTP/1.1 2", b"HTTP/1.0 2")):
            writer.close()
            said = answer[9:12].decode("ascii", "replace") or "no proper answer"
            raise OSError(f"the proxy {proxy[0]}:{proxy[1]} refused a tunnel ({said})")
        assert self._context is not None
        transport = await asyncio.get_running_loop().start_tls(
            writer.transport, connection, self._context, server_hostname=self.target.host
        )
        assert transport is not None
        transport.set_protocol(connection)
        connection.connection_made(transport)
        return connection


def _certificate_reason(exc: ssl.SSLCertVerificationError) -> str:
    hint = "" if "mismatch" in exc.verify_message else "; give its authority: --predictor-ca-file"
    return f"TLS: its certificate is not accepted ({exc.verify_message}){hint}"


def _tls_reason(exc: ssl.SSLError) -> str:
    reason = (exc.reason or str(exc)).replace("_", " ").lower()
    if "wrong version number" in reason or "record layer" in reason or "http request" in reason:
        return "TLS: it does not speak TLS on this port; give it as http://…"
    return f"TLS: {reason}"


def _plain_reason(exc: OSError) -> str:
    """`Connect call failed ('127.0.0.1', 1)` and uvloop's forms, as people know them."""
    if isinstance(exc, ConnectionRefusedError):
        return "connection refused"
    if isinstance(exc, ConnectionResetError):
        return "connection reset"
    return exc.strerror or str(exc) or type(exc).__name__
