"""Outgoing HTTP/1.1 for the adapter's event loop: pooled keep-alive connections, one attempt each.

The same promises as `http.Client`, at a tenth of the cost: the adapter does nothing but pass events
on. A pooled connection that the other side closed meanwhile, before a byte of an answer came back,
is replaced once; event ids make that harmless. Heads and chunks are parsed by the wire's own
parsers.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

from functions.wire.http1_chunked import BadChunk, ChunkedDecoder
from functions.wire.http1_head import BadHead, ResponseHead, parse_response_head

from .errors import DeliveryFailed
from .http import MAX_ANSWER_BYTES, Answer, ProxySettings

MAX_HEAD_BYTES = 65536
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
        self._reset()

    def _reset(self) -> None:
        self._buffer = b""
        self._head: ResponseHead | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._chunks: ChunkedDecoder | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self.alive = True

    def request(self, data: bytes) -> "asyncio.Future[Answer]":
        """Send a whole request; the future fails with `_Closed`, BadHead or BadChunk."""
        assert self._transport is not None
        self._reset()
        self._future = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return self._future

    def data_received(self, data: bytes) -> None:
        if self._future is None or self._future.done():
            self.close()  # nobody asked: this connection cannot be trusted any more
            return
        try:
            self._feed(data)
        except (BadHead, BadChunk) as error:
            self._fail(error)

    def _feed(self, data: bytes) -> None:
        if self._head is None:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > MAX_HEAD_BYTES:
                    raise BadHead(502, "the answer's head is too long")
                return
            block, data = self._buffer[: end + 4], self._buffer[end + 4 :]
            head = parse_response_head(block)
            if head.status < 200:  # 100 Continue and the like: the answer is still to come
                self._buffer = b""
                if data:
                    self._feed(data)
                return
            self._head = head
            if head.status in (204, 304):
                self._finish()
                return
            self._chunks = ChunkedDecoder() if head.chunked else None
        self._body(self._head, data)

    def _body(self, head: ResponseHead, data: bytes) -> None:
        pieces = [data] if self._chunks is None else self._chunks.feed(data)
        self._pieces += pieces
        self._size += sum(map(len, pieces))
        if self._size > MAX_ANSWER_BYTES:
            raise BadHead(502, f"the answer has more than {MAX_ANSWER_BYTES} bytes")
        if self._chunks.done if self._chunks is not None else 0 <= head.length <= self._size:
            self._finish()

    def _finish(self) -> None:
        head, future = self._head, self._future
        assert head is not None
        assert future is not None
        self._future = None
        fields = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in head.headers
        }
        if not head.keep_alive:
            self.close()
        if not future.done():
            future.set_result(Answer(head.status, fields, b"".join(self._pieces)))

    def _fail(self, error: Exception) -> None:
        future, self._future = self._future, None
        self.close()
        if future is not None and not future.done():
            future.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        if self._future is None:
            return
        ends_body = self._head is not None and self._chunks is None and self._head.length < 0
        if ends_body and exc is None:
            self._finish()
        else:
            self._fail(_Closed(fresh=self._head is None and not self._buffer))

    def close(self) -> None:
        self.alive = False
        if self._transport is not None:
            self._transport.close()


class _Place:
    """Idle connections to one address and a limit on all of them."""

    def __init__(self) -> None:
        self.idle: deque[_Connection] = deque()
        self.free = asyncio.Semaphore(MAX_CONNECTIONS)


class AsyncClient:
    """POSTs from one event loop."""

    def __init__(self, proxies: ProxySettings | None = None) -> None:
        self._proxies = proxies or ProxySettings()
        self._places: dict[tuple[str, int, bool], _Place] = {}
        self._prefixes: dict[str, tuple[tuple[str, int, bool], bytes]] = {}

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float
    ) -> Answer:
        """POST and read the whole answer, whatever its status; redirects are not followed.

        Raises `DeliveryFailed` when there is no answer.
        """
        address, prefix = self._prefixes.get(url) or self._prepare(url)
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"{fields}Content-Length: {len(body)}\r\n\r\n".encode("latin-1", "replace")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(address, prefix + head + body)
        except TimeoutError as error:
            raise DeliveryFailed(f"{url} did not answer within {timeout_s:g} s") from error
        except (OSError, _Closed, BadHead, BadChunk, ssl.SSLError) as error:
            raise DeliveryFailed(f"{url} cannot be reached: {error}") from error

    async def close(self) -> None:
        """Close what is idle."""
        for place in self._places.values():
            while place.idle:
                place.idle.pop().close()
        await asyncio.sleep(0)  # the transports' own callbacks

    async def _exchange(self, address: tuple[str, int, bool], data: bytes) -> Answer:
        place = self._places.setdefault(address, _Place())
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
            return await self._run(place, await self._connect(address), data)

    async def _run(self, place: _Place, connection: _Connection, data: bytes) -> Answer:
        try:
            answer = await connection.request(data)
        except BaseException:
            connection.close()  # half an answer must not greet the next request
            raise
        if connection.alive:
            place.idle.append(connection)
        return answer

    async def _connect(self, address: tuple[str, int, bool]) -> _Connection:
        host, port, secure = address
        context = ssl.create_default_context() if secure else None
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, host, port, ssl=context)
        return connection

    def _prepare(self, url: str) -> tuple[tuple[str, int, bool], bytes]:
        """Address and the constant beginning of every request to a URL."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        proxy = None if secure else self._proxies.for_url(url)
        if proxy is not None:
            target = f"http://{parts.netloc}{target}"
            via = urlsplit(proxy)
            host, port = via.hostname or "", via.port or 80
        prefix = f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n".encode("ascii")
        self._prefixes[url] = ((host, port, secure), prefix)
        return self._prefixes[url]
