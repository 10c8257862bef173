"""A small HTTP/1.1 client for moving big bodies: keep-alive, no copies, hard time limits.

Why not `requests`, `http.client` or an SDK: the bytes must land in one preallocated buffer per
thread (memory), a 100 KiB object must cost well under a millisecond of Python (2,000 of them), and
every wait must be bounded and interruptible. Measured reasons: docs/storage.md, "Speed".

A plain connection is a blocking socket with `SO_RCVTIMEO`: one `recv(MSG_WAITALL)` fills a whole
megabyte without a `poll` per packet, and returns early with what came when nothing more does.
TLS uses Python's own time-outs. `client.Client` serves all threads; each thread keeps its own
connections, so nothing is locked on the way. No retries here: `retry` and `download` decide.
"""

from __future__ import annotations

import contextlib
import socket
import time
from urllib.parse import SplitResult, unquote, urlsplit

from .errors import InvalidUri, ShortBody, Stalled, StorageError, TransferFailed
from .records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .client import Client

MAX_HEAD = 64 * 1024
"""Longest response head; S3 sends 1 KiB, signed redirects up to 4 KiB."""
MAX_DISCARD = 64 * 1024
"""Rest of a body worth reading to keep the connection; more costs more than a new connection."""
USER_AGENT = "turnout-storage-initializer"
_NO_BODY = frozenset({204, 304})


class Tls(Record):
    """How to trust an https server."""

    verify: bool = True
    ca_file: str = ""
    """Further roots beside the system's; empty: none."""


PLAIN_TRUST = Tls()


class Request:
    """One request, complete: whatever must be signed is signed.

    `target` is the origin form, quoted path and query; `where` what to call this in an error
    message (never contains secrets).
    """

    __slots__ = ("body", "headers", "host", "method", "port", "scheme", "target", "tls", "where")

    def __init__(
        self,
        *,
        scheme: str,
        host: str,
        port: int,
        target: str,
        headers: dict[str, str] | None = None,
        method: str = "GET",
        body: bytes = b"",
        tls: Tls = PLAIN_TRUST,
        where: str = "",
    ) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.target = target
        self.headers = {} if headers is None else headers
        self.method = method
        self.body = body
        self.tls = tls
        self.where = where

    @classmethod
    def to(cls, url: str, *, where: str = "", tls: Tls | None = None) -> Request:
        """From a URL, whose userinfo becomes Basic authorization. Raises InvalidUri."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as exc:
            raise InvalidUri(where or "URL", str(exc)) from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidUri(where or "URL", "not an http or https URL")
        host = parts.hostname
        if not host.isascii() or any(not 0 < len(label) < 64 for label in host.split(".")[:-1]):
            try:
                host = host.encode("idna").decode()
            except UnicodeError as exc:
                raise InvalidUri(where or "URL", f"no host name can be {host!r}: {exc}") from None
        target = _quoted(parts)
        headers = {"Authorization": basic(parts)} if parts.username else {}
        return cls(
            scheme=parts.scheme,
            host=host,
            port=port or (443 if parts.scheme == "https" else 80),
            target=target,
            headers=headers,
            tls=tls or PLAIN_TRUST,
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


class Stale(Exception):
    """A kept connection turned out to be closed before any byte of an answer."""


class Connection:
    """One socket with its read buffer. Belongs to one thread; `kill` may come from another."""

    def __init__(self, sock: socket.socket, client: Client, *, tls: bool) -> None:
        self.sock = sock
        self.client = client
        self.tls = tls
        self._buffer = bytearray(MAX_HEAD)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self.used = False
        self.where = ""
        self.key: tuple[str, str, int, Tls] | None = None
        self._broken: StorageError | None = None
        self.ends_at = 0.0
        """When reading the body is to be given up, however it comes; 0: never."""

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError as exc:
            raise self._translate(exc, "while sending") from exc

    def read_head(self) -> bytes:
        """Bytes of a response head, without the empty line. Raises Stale on a kept connection."""
        ends = 0.0
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
                    raise Stale from exc
                raise self._translate(exc, "waiting for the answer") from exc
            if count == 0:
                if self.used and self._end == 0:
                    raise Stale
                raise TransferFailed(self.where, "connection closed before an answer")
            self._end += count
            ends = self._patience(ends)

    def _patience(self, ends: float) -> float:
        """Every single byte in time is not enough: what has begun must be whole soon."""
        now = time.monotonic()
        if ends and now > ends:
            raise Stalled(self.where, f"no whole answer within {self.client.stall_s:g} s")
        return ends or now + self.client.stall_s

    def read_line(self) -> bytes:
        """One CRLF-ended line of chunked framing."""
        ends = 0.0
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
            ends = self._patience(ends)

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
                self.hold_to_speed(have, began)
        return have

    def hold_to_speed(self, have: int, began: float) -> None:
        """Raises Stalled when `have` bytes since `began` are too few, or the time is up."""
        now = time.monotonic()
        spent = now - began
        if self.ends_at and now > self.ends_at:
            raise Stalled(self.where, "the time is up")
        if spent > self.client.stall_s and have < spent * self.client.min_speed:
            raise Stalled(self.where, f"only {have} bytes in {spent:.0f} s")

    def _receive(self, view: memoryview, *, wait_all: bool) -> int:
        try:
            if wait_all and not self.tls:
                return self.sock.recv_into(view, len(view), socket.MSG_WAITALL)
            return self.sock.recv_into(view)
        except OSError as exc:
            raise self._translate(exc, "while receiving") from exc

    def _translate(self, exc: OSError, when: str) -> StorageError:
        if self.client.aborted:
            return TransferFailed(self.where, "aborted")
        if isinstance(exc, BlockingIOError | TimeoutError):
            return Stalled(self.where, f"nothing came for {self.client.stall_s:g} s {when}")
        return TransferFailed(self.where, f"connection failed {when}: {exc.strerror or exc}")

    @property
    def trouble(self) -> str:
        """What ended the connection, if it was more than its orderly end."""
        text = str(self._broken) if self._broken else ""
        return text.removeprefix(f"{self.where}: ")

    def close(self) -> None:
        self.client.forget(self)
        self.sock.close()

    def kill(self) -> None:
        """Wake a thread that is blocked in this socket."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


class Response:
    """Status, headers (lower-case names, repeats joined) and a body to be read once."""

    __slots__ = ("_conn", "_left", "chunked", "headers", "keep", "length", "status")

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
        self.keep = "keep-alive" in connection if old else "close" not in connection
        self.chunked = False
        self.length: int | None = None
        if method == "HEAD" or self.status in _NO_BODY or self.status < 200:
            self.length = 0
        elif coding := headers.get("transfer-encoding"):
            if coding.strip().lower() != "chunked":
                raise TransferFailed(conn.where, f"unknown transfer coding {coding!r}")
            self.chunked = True
        elif (text_length := headers.get("content-length")) is not None:
            sizes = {part.strip() for part in text_length.split(",")}
            size = sizes.pop()
            if sizes or not size.isascii() or not size.isdigit():
                raise TransferFailed(conn.where, f"bad Content-Length {text_length!r}")
            self.length = int(size)
        else:
            self.keep = False  # the end of the connection is the end of the body
        self._left = self.length if not self.chunked else 0

    def end_at(self, when: float) -> None:
        """Let reading raise Stalled from `when` on (monotonic seconds)."""
        self._conn.ends_at = when

    def read_into(self, view: memoryview) -> int:
        """Fill `view` as far as the body reaches; 0 at its end. A short body raises."""
        if self.chunked:
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
        done, began, where = 0, time.monotonic(), self._conn.where
        try:
            while done < len(view) and self._next_chunk():
                want = min(len(view) - done, self._left or 0)
                got = self._conn.read_into(view[done : done + want])
                done += got
                if got < want:
                    raise TransferFailed(where, self._conn.trouble or "chunked body ended early")
                self._left = (self._left or 0) - got
                if not self._left and self._conn.read_line():
                    raise TransferFailed(where, "chunk longer than announced")
                self._conn.hold_to_speed(done, began)
        except TransferFailed as exc:  # no byte that came is lost, whatever ended the body
            raise ShortBody(where, str(exc).removeprefix(f"{where}: "), done) from exc
        return done

    def _next_chunk(self) -> bool:
        """Whether bytes of a chunk are to come: the one begun, or the next one's."""
        if self._left == 0:
            line = self._conn.read_line().split(b";")[0].strip()
            if not line or line.strip(b"0123456789abcdefABCDEF"):
                raise TransferFailed(self._conn.where, f"bad chunk size {line!r}")
            self._left = int(line, 16)
            if self._left == 0:
                while self._conn.read_line():
                    pass
                self._left = None
        return self._left is not None

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
            if self.keep and not self.chunked and left is not None and left <= MAX_DISCARD:
                if left:
                    self.read_into(memoryview(bytearray(left)))
                self._conn.client.give_back(self._conn)
                return
            if self.keep and self.chunked and left is None:
                self._conn.client.give_back(self._conn)
                return
        self._conn.close()

    def discard(self) -> None:
        self._conn.close()
