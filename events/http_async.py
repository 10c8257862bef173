"""Outgoing HTTP/1.1 for the adapter's event loop: pooled keep-alive connections, one attempt each.

The same promises as `http.Client`, for a program that does nothing but pass events on.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping
from typing import cast

from functions.wire.http1_chunked import BadChunk
from functions.wire.http1_head import BadHead

from .errors import DeliveryFailed
from .http import Answer, ProxySettings, Route, encode_fields, target_of, tls_context
from .http_answer import AnswerReader, AnswerTooLong

MAX_CONNECTIONS = 128
"""Open at once to one place; further requests wait for one."""


class _Closed(Exception):
    """The connection ended; `fresh`: before any byte of an answer."""

    def __init__(self, fresh: bool) -> None:
        super().__init__("the connection was closed")
        self.fresh = fresh


class _Connection(asyncio.Protocol):
    """One connection; at most one request at a time."""

    def __init__(self) -> None:
        self.alive = False
        self._transport: asyncio.Transport | None = None
        self._future: asyncio.Future[Answer] | None = None
        self._reader = AnswerReader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self.alive = True

    def request(self, data: bytes, loop: asyncio.AbstractEventLoop) -> "asyncio.Future[Answer]":
        """Send a whole request; the future fails with `_Closed` or what the reader raises."""
        assert self._transport is not None
        self._reader = AnswerReader()
        self._future = future = loop.create_future()
        self._transport.write(data)
        return future

    def data_received(self, data: bytes) -> None:
        if self._future is None or self._future.done():
            self.close()  # nobody asked: this connection cannot be trusted any more
            return
        try:
            if self._reader.feed(data):
                self._finish()
        except (BadHead, BadChunk, AnswerTooLong) as error:
            self._fail(error)

    def _finish(self) -> None:
        future, self._future = self._future, None
        if not self._reader.keep_alive:
            self.close()
        if future is not None and not future.done():
            future.set_result(self._reader.answer())

    def _fail(self, error: Exception) -> None:
        future, self._future = self._future, None
        self.close()
        if future is not None and not future.done():
            future.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        if self._future is None:
            return
        if exc is None and self._reader.end():
            self._finish()
        else:
            self._fail(_Closed(fresh=not self._reader.started))

    def close(self) -> None:
        self.alive = False
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """At once: TLS would say farewell on a loop that may be about to end."""
        self.alive = False
        if self._transport is not None:
            self._transport.abort()


class _Place:
    """Idle connections by one route and a limit on all of them."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.idle: deque[_Connection] = deque()
        self.free = asyncio.Semaphore(MAX_CONNECTIONS)


class AsyncClient:
    """POSTs from one event loop."""

    def __init__(self, proxies: ProxySettings | None = None, *, ca_certs: str = "") -> None:
        self._proxies = proxies or ProxySettings()
        self._ca_certs = ca_certs
        self._places: dict[Route, _Place] = {}
        self._prepared: dict[str, tuple[_Place, str]] = {}
        self._tls: ssl.SSLContext | None = None

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float
    ) -> Answer:
        """POST and read the whole answer, whatever its status; redirects are not followed.

        Raises `DeliveryFailed` when there is no answer.
        """
        try:
            place, prefix = self._prepared.get(url) or self._prepare(url)
            head = f"{prefix}{encode_fields(headers)}Content-Length: {len(body)}\r\n\r\n"
            async with asyncio.timeout(timeout_s):
                return await self._exchange(place, head.encode("utf-8", "replace") + body)
        except TimeoutError as error:
            raise DeliveryFailed(f"{url} did not answer within {timeout_s:g} s") from error
        except (OSError, ValueError, _Closed, BadHead, BadChunk, AnswerTooLong) as error:
            raise DeliveryFailed(f"{url} cannot be reached: {error}") from error

    async def close(self) -> None:
        """Close what is idle."""
        for place in self._places.values():
            while place.idle:
                place.idle.pop().abort()
        await asyncio.sleep(0)  # the transports' own callbacks

    async def _exchange(self, place: _Place, data: bytes) -> Answer:
        async with place.free:
            while place.idle:
                connection = place.idle.pop()
                if connection.alive:
                    try:
                        return await self._run(place, connection, data)
                    except _Closed as closed:
                        if not closed.fresh:
                            raise
                        break
            return await self._run(place, await self._connect(place.route), data)

    async def _run(self, place: _Place, connection: _Connection, data: bytes) -> Answer:
        try:
            answer = await connection.request(data, asyncio.get_running_loop())
        except BaseException:
            connection.close()  # half an answer must not greet the next request
            raise
        if connection.alive:
            place.idle.append(connection)
        return answer

    async def _connect(self, route: Route) -> _Connection:
        if route.secure and self._tls is None:
            self._tls = tls_context(self._ca_certs)
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            _Connection,
            route.host,
            route.port,
            ssl=self._tls if route.secure else None,
            server_hostname=route.secure or None,
        )
        return connection

    def _prepare(self, url: str) -> tuple[_Place, str]:
        """The place and the constant beginning of every request to a URL."""
        # TLS goes straight to its server here: an adapter's sink is in the cluster.
        proxies = ProxySettings() if url.startswith("https:") else self._proxies
        route = Route.to(url, proxies)
        host, target = target_of(url)
        place = self._places.setdefault(route, _Place(route))
        prefix = f"POST {route.origin}{target} HTTP/1.1\r\nHost: {host}\r\n{route.fields}"
        self._prepared[url] = (place, prefix)
        return self._prepared[url]
