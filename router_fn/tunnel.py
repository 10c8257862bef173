"""An https upstream behind an http proxy: CONNECT, then TLS inside. Only loaded when it is
needed."""

import asyncio
import ssl
from collections.abc import Callable

from router_fn.errors import UpstreamError
from router_fn.upstream import UpstreamConnection
from router_fn.urls import Url

_MAX_ANSWER_BYTES = 8192


class _Connecting(asyncio.Protocol):
    """Waits for a proxy's answer to CONNECT. (Not a stream: a StreamWriter closes its transport
    when it is collected, and here the transport goes on without it.)"""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._read = b""

    def data_received(self, data: bytes) -> None:
        self._read += data
        ended = self._read.endswith(b"\r\n\r\n") or len(self._read) > _MAX_ANSWER_BYTES
        if ended and not self.answer.done():
            self.answer.set_result(self._read)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_result(b"")


async def open_tunnel(
    loop: asyncio.AbstractEventLoop,
    proxy: Url,
    url: Url,
    context: ssl.SSLContext,
    make: Callable[[], UpstreamConnection],
) -> UpstreamConnection:
    """A connection to `url` through `proxy`. Raises OSError, ssl.SSLError or UpstreamError."""
    plain, connecting = await loop.create_connection(_Connecting, proxy.host, proxy.port)
    place = f"{url.host}:{url.port}".encode()
    connection = make()
    try:
        plain.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (place, place))
        _check(await connecting.answer)
        transport = await loop.start_tls(plain, connection, context, server_hostname=url.host)
    except BaseException:  # also a dial that took too long and was cancelled
        plain.abort()
        raise
    assert transport is not None
    transport.set_protocol(connection)
    connection.connection_made(transport)
    return connection


def _check(answer: bytes) -> None:
    """Raises UpstreamError unless the proxy has opened the tunnel."""
    if not answer.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")) or not answer.endswith(b"\r\n\r\n"):
        reason = "the proxy gave no proper answer"
    elif answer[9:10] != b"2":
        reason = f"the proxy refused a tunnel: {answer[9:12].decode('ascii', 'replace')}"
    else:
        return
    raise UpstreamError(reason, kind="connect", retryable=True)
