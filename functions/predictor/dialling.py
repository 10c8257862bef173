"""Getting a connection: names, TCP, proxies, TLS; and saying why there is none."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

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
        what = "TLS connection" if target.tls else "connection"
        raise Unreachable(f"no {what} within {CONNECT_S:g} s", retryable=True) from None
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


class _Connecting(asyncio.Protocol):
    """Waits for a proxy's answer to CONNECT. (Not a stream: a StreamWriter closes its transport
    when it is collected, which here goes on without it.)"""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._read = b""

    def data_received(self, data: bytes) -> None:
        self._read += data
        if not self.answer.done() and (b"\r\n\r\n" in self._read or len(self._read) > 8192):
            self.answer.set_result(self._read)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_result(b"")


async def _tunnelled(
    target: Target, proxy: tuple[str, int], protocol: P, context: ssl.SSLContext | None
) -> P:
    """CONNECT through an HTTP proxy, TLS inside where there is a context."""
    loop = asyncio.get_running_loop()
    plain, connecting = await loop.create_connection(_Connecting, *proxy)
    place = target.address.encode()
    plain.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (place, place))
    try:
        answer = await connecting.answer
        if not answer.startswith((b"HTTP/1.1 2", b"HTTP/1.0 2")):
            said = answer[9:12].decode("ascii", "replace") or "no proper answer"
            raise OSError(f"the proxy {proxy[0]}:{proxy[1]} refused a tunnel ({said})")
        transport: asyncio.Transport | None = plain
        if context is not None:
            transport = await loop.start_tls(plain, protocol, context, server_hostname=target.host)
    except BaseException:
        plain.abort()
        raise
    assert transport is not None
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
