"""Requests that the engine itself makes: broker deliveries. Through the gateway, without a socket.

They are requests like any other (they wake services, count as load, appear in the console); a URL
that is not one of this engine's services goes out as from any pod.
"""

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

from . import wire
from .exchange import Exchange
from .gateway import Gateway

MAX_ANSWER_BYTES = 16 * 1024 * 1024

Answer = tuple[int, dict[str, str], bytes]


class _Collected:
    """A Downstream that keeps the answer."""

    def __init__(self) -> None:
        self.result: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.exchange: Exchange
        self._status = 0
        self._headers: dict[str, str] = {}
        self._chunks: list[bytes] = []
        self._size = 0

    def send_head(self, status: int, headers: wire.Headers) -> None:
        if status >= 200:
            self._status = status
            self._headers = {
                name.decode("latin-1"): value.decode("latin-1") for name, value in headers
            }

    def send_body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_ANSWER_BYTES:
            self._fail(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
        else:
            self._chunks.append(data)

    def send_end(self, trailers: wire.Headers) -> None:
        if not self.result.done():
            self.result.set_result((self._status, self._headers, b"".join(self._chunks)))

    def can_append(self) -> bool:
        return False

    def abort(self) -> None:
        self._fail("the answer broke off")

    def pause_request(self) -> None:
        """The whole body is in memory already."""

    def resume_request(self) -> None:
        """See `pause_request`."""

    def switch(self, exchange: Exchange) -> None:
        self._fail("the receiver switched protocols")

    def _fail(self, why: str) -> None:
        if not self.result.done():
            self.result.set_exception(OSError(why))


async def request(
    gateway: Gateway,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    timeout_s: float | None = None,
) -> Answer:
    """One request. Raises OSError or TimeoutError when there is no answer, ValueError for a bad
    URL."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.netloc:
        raise ValueError(f"{url}: only http:// URLs can be called from here")
    host = parts.netloc.rpartition("@")[2].encode()
    authority, port = wire.split_authority(host)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii() or any(character <= " " for character in target):
        raise ValueError(f"{url}: spaces and other special characters must be percent-encoded")
    if any("\r" in value or "\n" in value for value in headers.values()):
        raise ValueError("header values are single lines")
    made = wire.Request(
        method.encode(),
        target.encode("ascii", "strict"),
        authority,
        [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
        host,
        content_length=len(body),
        peer="127.0.0.1",
        port=port,
        absolute=True,
    )
    collected = _Collected()
    exchange = collected.exchange = Exchange(made, collected, asyncio.get_running_loop())
    gateway.handle(exchange)
    if body:
        exchange.request_body(body)
    exchange.request_end()
    try:
        if timeout_s is None:
            return await collected.result
        async with asyncio.timeout(timeout_s):
            return await collected.result
    finally:
        exchange.client_gone()  # does nothing once the answer is complete
