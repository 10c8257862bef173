"""An https upstream behind an http proxy: CONNECT, then TLS inside. Only loaded when it is
needed."""

import asyncio
import ssl
from collections.abc import Callable

from router_fn.errors import UpstreamError
from router_fn.upstream import UpstreamConnection
from router_fn.urls import Url

_MAX_ANSWER_BYTES = 8192


async def open_tunnel(
    loop: asyncio.AbstractEventLoop,
    proxy: Url,
    url: Url,
    context: ssl.SSLContext,
    make: Callable[[], UpstreamConnection],
) -> UpstreamConnection:
    """A connection to `url` through `proxy`. Raises OSError, ssl.SSLError or UpstreamError."""
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port, limit=_MAX_ANSWER_BYTES)
    place = f"{url.host}:{url.port}".encode()
    try:
        writer.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (place, place))
        answer = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        writer.close()
        raise UpstreamError(
            "the proxy gave no proper answer", kind="connect", retryable=True
        ) from None
    if not answer.startswith((b"HTTP/1.1 2", b"HTTP/1.0 2")):
        writer.close()
        status = answer[9:12].decode("ascii", "replace")
        raise UpstreamError(f"the proxy refused a tunnel: {status}", kind="connect", retryable=True)
    connection = make()
    transport = await loop.start_tls(
        writer.transport, connection, context, server_hostname=url.host
    )
    assert transport is not None
    transport.set_protocol(connection)
    connection.connection_made(transport)
    return connection
