"""Connections for all threads of one fetch: opening, keeping, proxying, aborting.

`socket` and `wire` are imported by the first request: a fetch of local files starts without them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from .errors import InvalidSettings, InvalidUri, Stalled, StorageError, TransferFailed, Untrusted

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    import ssl
    from typing import Any

    from .wire import Connection, Request, Response, Tls


class Client:
    """Connections for all threads of one fetch. `abort()` wakes and fails every one of them."""

    def __init__(
        self,
        *,
        connect_timeout_s: float = 15.0,
        stall_s: float = 30.0,
        min_speed: int = 1024,
        proxies: Mapping[str, str] | None = None,
        no_proxy: tuple[str, ...] = (),
        ca_file: str = "",
    ) -> None:
        self.connect_timeout_s = connect_timeout_s
        self.stall_s = stall_s
        self.min_speed = min_speed
        self._proxies = dict(proxies or {})
        self._no_proxy = no_proxy
        self._ca_file = ca_file
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: set[Connection] = set()
        self._contexts: dict[Tls, ssl.SSLContext] = {}
        self.aborted = False

    def send(self, request: Request) -> Response:
        """Send and read the response head. The caller ends with `read`, `done` or `discard`."""
        from .wire import Response, Stale

        pool: dict[tuple[str, str, int, Tls], Connection] = self._pool()
        key = (*request.origin, request.tls)
        conn = pool.pop(key, None)
        while True:
            if self.aborted:
                raise TransferFailed(request.where, "aborted")
            if conn is None:
                conn = self.connect(request)
            conn.where, conn.ends_at = request.where, 0.0
            try:
                conn.send(self.head(request))
                head = conn.read_head()
                while head.startswith((b"HTTP/1.1 100", b"HTTP/1.1 103", b"HTTP/1.1 102")):
                    head = conn.read_head()
                response = Response(conn, head, request.method)
            except (Stale, TransferFailed) as exc:
                conn.close()
                stale = isinstance(exc, Stale) or (conn.used and not isinstance(exc, Stalled))
                conn = None
                if stale and not self.aborted:
                    continue
                raise
            conn.used = True
            conn.key = key
            return response

    def _pool(self) -> dict[tuple[str, str, int, Tls], Connection]:
        pool: dict[tuple[str, str, int, Tls], Connection] | None
        pool = getattr(self._local, "pool", None)
        if pool is None:
            pool = self._local.pool = {}
        return pool

    def give_back(self, conn: Connection) -> None:
        if self.aborted:
            conn.close()
            return
        if conn.key is None:
            raise AssertionError("a connection is given back after an answer")
        old = self._pool().get(conn.key)
        if old is not None and old is not conn:
            old.close()
        self._pool()[conn.key] = conn

    def forget(self, conn: Connection) -> None:
        with self._lock:
            self._open.discard(conn)

    def abort(self) -> None:
        """Fail every request under way and to come, from any thread."""
        with self._lock:
            self.aborted = True
            for conn in self._open:
                conn.kill()

    def close(self) -> None:
        self.abort()
        with self._lock:
            for conn in list(self._open):
                conn.sock.close()
            self._open.clear()

    def head(self, request: Request) -> bytes:
        from .wire import USER_AGENT, basic

        target = request.target
        extra = ""
        proxy = self._proxy_for(request)
        if proxy and request.scheme == "http":
            target = f"http://{request.host_header}{target}"
            if proxy.username:
                extra = f"Proxy-Authorization: {basic(proxy)}\r\n"
        lines = [f"{request.method} {target} HTTP/1.1\r\nHost: {request.host_header}\r\n{extra}"]
        names = set()
        for name, value in request.headers.items():
            if "\r" in value or "\n" in value:
                raise StorageError(f"{request.where}: line break in the value of header {name}")
            names.add(name.lower())
            if name.lower() != "host":
                lines.append(f"{name}: {value}\r\n")
        if "user-agent" not in names:
            lines.append(f"User-Agent: {USER_AGENT}\r\n")
        if "accept-encoding" not in names:
            lines.append("Accept-Encoding: identity\r\n")
        if request.body or request.method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(request.body)}\r\n")
        lines.append("\r\n")
        return "".join(lines).encode("latin-1", "replace") + request.body

    def _proxy_for(self, request: Request) -> SplitResult | None:
        url = self._proxies.get(request.scheme) or self._proxies.get("all")
        if not url or self._direct(request.host, request.port):
            return None
        return urlsplit(url if "://" in url else f"http://{url}")

    def _direct(self, host: str, port: int) -> bool:
        host = host.lower()
        for entry in self._no_proxy:
            bare = entry.removeprefix("*").removeprefix(".")
            if entry == "*" or host == bare or f"{host}:{port}" == bare:
                return True
            if bare and host.endswith("." + bare):
                return True
            if "/" in bare and _in_network(host, bare):
                return True
        return False

    def connect(self, request: Request) -> Connection:
        import socket
        import struct

        from .wire import Connection

        proxy = self._proxy_for(request)
        host, port = request.host, request.port
        if proxy:
            host, port = proxy.hostname or "", proxy.port or 80
        via = f" through the proxy {host}:{port}" if proxy else ""
        try:
            address: Any = _resolvable(host), port  # typeshed knows of text only
            sock = socket.create_connection(address, self.connect_timeout_s)
        except UnicodeError as exc:  # a label of a host name that is empty or too long
            raise InvalidUri(request.where, f"no host name can be {host!r}: {exc}") from None
        except OSError as exc:
            cause = "timed out" if isinstance(exc, TimeoutError) else exc.strerror or str(exc)
            target = f"{request.host}:{request.port}{via}"
            raise TransferFailed(request.where, f"cannot connect to {target}: {cause}") from exc
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if proxy and request.scheme == "https":
                self._tunnel(sock, request, proxy)
            if request.scheme == "https":
                sock = self._secure(sock, request)
                sock.settimeout(self.stall_s)
            else:
                sock.settimeout(None)
                whole, part = divmod(self.stall_s, 1)
                limit = struct.pack("@ll", int(whole), int(part * 1e6))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        except OSError as exc:
            sock.close()
            raise TransferFailed(
                request.where, f"cannot set up the connection to {request.host}{via}: {exc}"
            ) from exc
        except StorageError:
            sock.close()
            raise
        conn = Connection(sock, self, tls=request.scheme == "https")
        with self._lock:
            self._open.add(conn)
            if self.aborted:
                conn.kill()
        return conn

    def _tunnel(self, sock: socket.socket, request: Request, proxy: SplitResult) -> None:
        """CONNECT through an http proxy; the answer has no body worth keeping."""
        from .wire import MAX_HEAD, basic

        name = f"{request.host}:{request.port}"
        extra = f"Proxy-Authorization: {basic(proxy)}\r\n" if proxy.username else ""
        sock.sendall(f"CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n{extra}\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = sock.recv(1)  # byte by byte: what follows belongs to TLS
            if not data or len(head) > MAX_HEAD:
                raise TransferFailed(request.where, "the proxy closed the connection")
            head += data
        if head[9:12] != b"200":
            line = head.split(b"\r\n")[0].decode("latin-1")
            raise TransferFailed(request.where, f"the proxy refused the tunnel: {line}")

    def _secure(self, sock: socket.socket, request: Request) -> socket.socket:
        import ssl

        with self._lock:
            context = self._contexts.get(request.tls)
            if context is None:
                context = self._contexts[request.tls] = self._context(request.tls)
        try:
            return context.wrap_socket(sock, server_hostname=request.host)
        except ssl.SSLCertVerificationError as exc:
            raise Untrusted(request.where, request.host, exc.verify_message) from exc

    def _context(self, tls: Tls) -> ssl.SSLContext:
        import ssl

        context = ssl.create_default_context()
        for ca_file in filter(None, (self._ca_file, tls.ca_file)):
            try:
                context.load_verify_locations(ca_file)
            except OSError as exc:  # ssl's errors are some, too
                problem = f"{ca_file}: expected a PEM file of certificates ({exc})"
                raise InvalidSettings([problem]) from exc
        if not tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _resolvable(host: str) -> str | bytes:
    """ASCII names as bytes: `socket` would import the IDNA codec for text (2 ms of the start)."""
    labels = host.removesuffix(".").split(".")
    if host.isascii() and all(0 < len(label) < 64 for label in labels):
        return host.encode()
    return host


def _in_network(host: str, network: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
