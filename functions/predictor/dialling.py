"""Getting a connection: names, TCP, proxies, TLS; and saying why there is none."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

from .target import Target

CONNECT_S = 10.0
"""Longest wait for a connection, TLS included; the call's deadline may be earlier."""

P = TypeVar("P", bound=asyncio.BaseProtocol)


class Unreachable(Exception):
    """No connection; nothing was sent. `retryable`: it may come up in a moment."""

    def __init__(self, reason: str, *, retryable: bool) -> None:
        super().__init__(reason)
        self.retryable = retryable


async def connect(
    target: Target, make: Callable[[], P], context: ssl.SSLContext | None, *, tunnel: bool
) -> P:
    """A connected protocol. `tunnel`: a proxy is asked to CONNECT. Raises Unreachable."""
    try:
        async with asyncio.timeout(CONNECT_S) as limit:
            return await _connect(target, make, context if target.tls else None, tunnel)
    except TimeoutError:
        if not limit.expired():
            raise
        raise Unreachable(f"no connection within {CONNECT_S:g} s", retryable=True) from None
    except ssl.SSLCertVerificationError as exc:
        raise Unreachable(_certificate_reason(exc), retryable=False) from exc
    except ssl.SSLError as exc:
        raise Unreachable(_tls_reason(exc), retryable=False) from exc
    except socket.gaierror as exc:
        raise Unreachable(
            f"its name {target.host!r} cannot be resolved ({exc.strerror})",
            retryable=exc.errno == socket.EAI_AGAIN,
        ) from exc
    except OSError as exc:
        raise Unreachable(_plain_reason(exc), retryable=True) from exc


async def _connect(
    target: Target, make: Callable[[], P], context: ssl.SSLContext | None, tunnel: bool
) -> P:
    loop = asyncio.get_running_loop()
    if target.proxy is not None and tunnel:
        return await _tunnelled(target, target.proxy, make(), context)
    host, port = target.proxy or (target.host, target.port)
    _, protocol = await loop.create_connection(make, host, port, ssl=context)
    return protocol


_writers: WeakKeyDictionary[asyncio.BaseProtocol, asyncio.StreamWriter] = WeakKeyDictionary()
"""A StreamWriter that nobody holds closes its transport (CPython 3.11.6 and later)."""


async def _tunnelled(
    target: Target, proxy: tuple[str, int], protocol: P, context: ssl.SSLContext | None
) -> P:
    """CONNECT through an HTTP proxy, TLS inside where there is a context."""
    reader, writer = await asyncio.open_connection(*proxy, limit=8192)
    place = target.address.encode()
    writer.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (place, place))
    try:
        answer = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        answer = b""
    if not answer.startswith((b"HTTP/1.1 2", b"HTTP/1.0 2")):
        writer.close()
        said = answer[9:12].decode("ascii", "replace") or "no proper answer"
        raise OSError(f"the proxy {proxy[0]}:{proxy[1]} refused a tunnel ({said})")
    transport: asyncio.BaseTransport | None = writer.transport
    if context is not None:
        transport = await asyncio.get_running_loop().start_tls(
            writer.transport, protocol, context, server_hostname=target.host
        )
    assert transport is not None
    _writers[protocol] = writer
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    return protocol


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
