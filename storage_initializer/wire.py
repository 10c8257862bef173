"""A small HTTP/1.1 client for moving big bodies: keep-alive, no copies, hard time limits.

Why not `requests`, `http.client` or an SDK: the bytes must land in one preallocated buffer per
thread (memory), a 100 KiB object must cost well under a millisecond of Python (2,000 of them), and
every wait must be bounded and interruptible. Measured reasons: docs/storage.md, "Speed".

A plain connection is a blocking socket with `SO_RCVTIMEO`: one `recv(MSG_WAITALL)` fills a whole
megabyte without a `poll` per packet, and returns early with what came when nothing more does.
TLS uses Python's own time-outs. One `Client` serves all threads; each thread keeps its own
connections, so nothing is locked on the way. No retries here: `retry` and `download` decide.
"""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from .errors import InvalidUri, Stalled, StorageError, TransferFailed

if TYPE_CHECKING:
    import ssl

MAX_HEAD = 64 * 1024
"""Longest response head; S3 sends 1 KiB, signed redirects up to 4 KiB."""
MAX_DISCARD = 64 * 1024
"""Rest of a body worth reading to keep the connection; more costs more than a new connection."""
USER_AGENT = "turnout-storage-initializer"
_NO_BODY = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class Tls:
    """How to trust an https server."""

    verify: bool = True
    ca_file: str = ""
    """Further roots beside the system's; empty: none."""


@dataclass(slots=True, kw_only=True)
class Request:
    """One request, complete: whatever must be signed is signed."""

    scheme: str
    host: str
    port: int
    target: str
    """Origin form: quoted path and query."""
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "GET"
    body: bytes = b""
    tls: Tls = Tls()
    where: str = ""
    """What to call this in an error message (never contains secrets)."""

    @classmethod
    def to(cls, url: str, *, where: str = "", tls: Tls | None = None) -> "Request":
        """From a URL, whose userinfo becomes Basic authorization. Raises InvalidUri."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as exc:
            raise InvalidUri(where or "URL", str(exc)) from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidUri(where or "URL", "not an http or https URL")
        host = (
            parts.hostname.encode("idna").decode()
            if not parts.hostname.isascii()
            else (parts.hostname)
        )
        target = _quoted(parts)
        headers = {"Authorization": basic(parts)} if parts.username else {}
        return cls(
            scheme=parts.scheme,
            host=host,
            port=port or (443 if parts.scheme == "https" else 80),
            target=target,
            headers=headers,
            tls=tls or Tls(),
            where=where or f"{parts.scheme}://{parts.hostname}{parts.path}",
        )

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"
        )


def _quoted(parts: SplitResult) -> str:
    """Path and query with what may not stand in a request line percent-encoded."""
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return "".join(
        char if "!" <= char <= "~" else "".join(f"%{byte:02X}" for byte in char.encode())
        for char in target
    )


def basic(parts: SplitResult) -> str:
    import base64

    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


class _Stale(Exception):
    """A kept connection turned out to be closed before any byte of an answer."""


class Connection:
    """One socket with its read buffer. Belongs to one thread; `kill` may come from another."""

    def __init__(self, sock: socket.socket, client: "Client", *, tls: bool) -> None:
        self.sock = sock
        self._client = client
        self._tls = tls
        self._buffer = bytearray(MAX_HEAD)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self.used = False
        self.where = ""
        self.key: tuple[str, str, int, Tls] | None = None
        self._broken: StorageError | None = None

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError as exc:
            raise self._translate(exc, "while sending") from exc

    def read_head(self) -> bytes:
        """Bytes of a response head, without the empty line. Raises _Stale on a kept connection."""
        while True:
            at = self._buffer.find(b"\r\n\r\n", self._start, self._end)
            if at >= 0:
                head = bytes(self._view[self._start : at])
                self._start = at + 4
                return head
            if self._start:
                rest = bytes(self._view[self._start : self._end])
                self._buffer[: len(rest)] = rest
                self._start, self._end = 0, len(rest)
            if self._end == len(self._buffer):
                raise TransferFailed(self.where, f"response head longer than {MAX_HEAD} bytes")
            try:
                count = self.sock.recv_into(self._view[self._end :])
            except OSError as exc:
                if self.used and self._end == 0 and isinstance(exc, ConnectionError):
                    raise _Stale from exc
                raise self._translate(exc, "waiting for the answer") from exc
            if count == 0:
                if self.used and self._end == 0:
                    raise _Stale
                raise TransferFailed(self.where, "connection closed before an answer")
            self._end += count

    def read_line(self) -> bytes:
        """One CRLF-ended line of chunked framing."""
        while True:
            at = self._buffer.find(b"\r\n", self._start, self._end)
            if at >= 0:
                line = bytes(self._view[self._start : at])
                self._start = at + 2
                return line
            if self._end - self._start > 8192:
                raise TransferFailed(self.where, "chunk header too long")
            self._compact()
            count = self._receive(self._view[self._end :], wait_all=False)
            if count == 0:
                raise TransferFailed(self.where, "connection closed inside a chunked body")
            self._end += count

    def _compact(self) -> None:
        if self._start:
            rest = bytes(self._view[self._start : self._end])
            self._buffer[: len(rest)] = rest
            self._start, self._end = 0, len(rest)

    def read_into(self, view: memoryview) -> int:
        """Fill `view`; less only when the connection ends. Raises Stalled when too slow.

        A failure after some bytes returns those; the next call raises it: no byte is lost to a
        server that resets every connection after a little.
        """
        if self._broken is not None:
            raise self._broken
        have = min(self._end - self._start, len(view))
        if have:
            view[:have] = self._view[self._start : self._start + have]
            self._start += have
        if self._start == self._end:
            self._start = self._end = 0
        began = 0.0
        while have < len(view):
            began = began or time.monotonic()
            try:
                got = self._receive(view[have:], wait_all=True)
            except TransferFailed as exc:
                if not have:
                    raise
                self._broken = exc
                break
            if got == 0:
                break
            have += got
            if have < len(view):
                spent = time.monotonic() - began
                if spent > self._client.stall_s and have < spent * self._client.min_speed:
                    raise Stalled(self.where, f"only {have} bytes in {spent:.0f} s")
        return have

    def _receive(self, view: memoryview, *, wait_all: bool) -> int:
        try:
            if wait_all and not self._tls:
                return self.sock.recv_into(view, len(view), socket.MSG_WAITALL)
            return self.sock.recv_into(view)
        except OSError as exc:
            raise self._translate(exc, "while receiving") from exc

    def _translate(self, exc: OSError, when: str) -> StorageError:
        if self._client.aborted:
            return TransferFailed(self.where, "aborted")
        if isinstance(exc, BlockingIOError | TimeoutError):
            return Stalled(self.where, f"nothing came for {self._client.stall_s:g} s {when}")
        return TransferFailed(self.where, f"connection failed {when}: {exc.strerror or exc}")

    @property
    def trouble(self) -> str:
        """What ended the connection, if it was more than its orderly end."""
        text = str(self._broken) if self._broken else ""
        return text.removeprefix(f"{self.where}: ")

    def close(self) -> None:
        self._client.forget(self)
        self.sock.close()

    def kill(self) -> None:
        """Wake a thread that is blocked in this socket."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


class Response:
    """Status, headers (lower-case names, repeats joined) and a body to be read once."""

    __slots__ = ("_chunked", "_conn", "_keep", "_left", "headers", "length", "status")

    def __init__(self, conn: Connection, head: bytes, method: str) -> None:
        self._conn = conn
        lines = head.split(b"\r\n")
        first = lines[0]
        if not (first.startswith(b"HTTP/1.") and first[8:9] == b" " and first[9:12].isdigit()):
            raise TransferFailed(conn.where, f"not an HTTP answer: {first[:40]!r}")
        self.status = int(first[9:12])
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if colon and name and not name[:1].isspace():
                key, text = name.decode("latin-1").lower(), value.strip().decode("latin-1")
                headers[key] = f"{headers[key]}, {text}" if key in headers else text
        self.headers = headers
        connection = headers.get("connection", "").lower()
        old = first.startswith(b"HTTP/1.0")
        self._keep = "keep-alive" in connection if old else "close" not in connection
        self._chunked = False
        self.length: int | None = None
        if method == "HEAD" or self.status in _NO_BODY or self.status < 200:
            self.length = 0
        elif coding := headers.get("transfer-encoding"):
            if coding.strip().lower() != "chunked":
                raise TransferFailed(conn.where, f"unknown transfer coding {coding!r}")
            self._chunked = True
        elif (text_length := headers.get("content-length")) is not None:
            sizes = {part.strip() for part in text_length.split(",")}
            size = sizes.pop()
            if sizes or not size.isascii() or not size.isdigit():
                raise TransferFailed(conn.where, f"bad Content-Length {text_length!r}")
            self.length = int(size)
        else:
            self._keep = False  # the end of the connection is the end of the body
        self._left = self.length if not self._chunked else 0

    def read_into(self, view: memoryview) -> int:
        """Fill `view` as far as the body reaches; 0 at its end. A short body raises."""
        if self._chunked:
            return self._read_chunked(view)
        if self._left is None:
            return self._conn.read_into(view)
        want = min(len(view), self._left)
        if want == 0:
            return 0
        got = self._conn.read_into(view[:want])
        self._left -= got
        if got < want:
            cause = f"body ended {self._left} bytes early (of {self.length})"
            raise ShortBody(self._conn.where, self._conn.trouble or cause, got)
        return got

    def _read_chunked(self, view: memoryview) -> int:
        done = 0
        while done < len(view):
            if not self._left:
                if self._left is None:
                    break
                line = self._conn.read_line().split(b";")[0].strip()
                try:
                    self._left = int(line, 16)
                except ValueError:
                    raise TransferFailed(self._conn.where, f"bad chunk size {line!r}") from None
                if self._left == 0:
                    while self._conn.read_line():
                        pass
                    self._left = None
                    break
            want = min(len(view) - done, self._left)
            got = self._conn.read_into(view[done : done + want])
            if got < want:
                cause = self._conn.trouble or "chunked body ended early"
                raise ShortBody(self._conn.where, cause, done + got)
            done += got
            self._left -= got
            if self._left == 0 and self._conn.read_line():
                raise TransferFailed(self._conn.where, "chunk longer than announced")
        return done

    def read(self, limit: int = 8 << 20) -> bytes:
        """The whole body, refused beyond `limit` bytes; the connection goes back or is closed."""
        out = bytearray()
        chunk = memoryview(bytearray(min(limit + 1, 65536)))
        try:
            while got := self.read_into(chunk):
                out += chunk[:got]
                if len(out) > limit:
                    raise TransferFailed(self._conn.where, f"answer longer than {limit} bytes")
        except StorageError:
            self.discard()
            raise
        self.done()
        return bytes(out)

    def done(self) -> None:
        """The body is not wanted any further: keep the connection if that is cheap."""
        with contextlib.suppress(StorageError):
            left = self._left
            if self._keep and not self._chunked and left is not None and left <= MAX_DISCARD:
                if left:
                    self.read_into(memoryview(bytearray(left)))
                self._conn._client.give_back(self._conn)
                return
            if self._keep and self._chunked and left is None:
                self._conn._client.give_back(self._conn)
                return
        self._conn.close()

    def discard(self) -> None:
        self._conn.close()


class ShortBody(TransferFailed):
    """The connection ended inside the body; `got` bytes of the last buffer are good."""

    def __init__(self, where: str, cause: str, got: int) -> None:
        super().__init__(where, cause)
        self.got = got


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
        pool: dict[tuple[str, str, int, Tls], Connection] = self._pool()
        key = (*request.origin, request.tls)
        conn = pool.pop(key, None)
        while True:
            if self.aborted:
                raise TransferFailed(request.where, "aborted")
            if conn is None:
                conn = self._connect(request)
            conn.where = request.where
            try:
                conn.send(self._head(request))
                head = conn.read_head()
                while head.startswith((b"HTTP/1.1 100", b"HTTP/1.1 103", b"HTTP/1.1 102")):
                    head = conn.read_head()
                response = Response(conn, head, request.method)
            except (_Stale, TransferFailed) as exc:
                conn.close()
                stale = isinstance(exc, _Stale) or (conn.used and not isinstance(exc, Stalled))
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

    def _head(self, request: Request) -> bytes:
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
                raise TransferFailed(request.where, f"line break in the value of header {name}")
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

    def _connect(self, request: Request) -> Connection:
        proxy = self._proxy_for(request)
        host, port = request.host, request.port
        if proxy:
            host, port = proxy.hostname or "", proxy.port or 80
        via = f" through the proxy {host}:{port}" if proxy else ""
        try:
            sock = socket.create_connection((host, port), self.connect_timeout_s)
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

        from .errors import Untrusted

        with self._lock:
            context = self._contexts.get(request.tls)
            if context is None:
                context = self._contexts[request.tls] = self._context(request.tls)
        try:
            return context.wrap_socket(sock, server_hostname=request.host)
        except ssl.SSLCertVerificationError as exc:
            raise Untrusted(request.where, request.host, exc.verify_message) from exc

    def _context(self, tls: Tls) -> "ssl.SSLContext":
        import ssl

        context = ssl.create_default_context()
        for ca_file in filter(None, (self._ca_file, tls.ca_file)):
            context.load_verify_locations(ca_file)
        if not tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _in_network(host: str, network: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
