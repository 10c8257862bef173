"""Outgoing HTTP/1.1 from threads: pooled keep-alive connections, one request one attempt.

Retrying belongs to the broker, which knows how often it has tried already. One exception, because
nobody did anything wrong: a pooled connection that the other side closed meanwhile, before a byte
of an answer came back, is replaced once. Honours a forward proxy and its exceptions. Thread-safe.

Plain sockets and the wire's parsers instead of a library: an event makes three such requests, and
each costs a fifth of what it costs through urllib3. `http_async` makes the same promises on an
event loop.
"""

import base64
import functools
import select
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from functions.wire.http1_chunked import BadChunk
from functions.wire.http1_head import BadHead

from .errors import DeliveryFailed, Refused
from .http_answer import MAX_ANSWER_BYTES, Answer, AnswerReader, AnswerTooLong

__all__ = [
    "MAX_ANSWER_BYTES",
    "Answer",
    "Client",
    "ProxySettings",
    "Route",
    "encode_fields",
    "tls_context",
]

CONNECT_S = 10.0
_RECEIVE_BYTES = 65536
_MAX_ROUTES = 256
_TARGET_SAFE = "/?&=%:@!$'()*+,;~-._[]"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """The standard proxy variables, as `settings` read them."""

    http: str | None = None
    https: str | None = None
    no: str = field(default="")

    def for_url(self, url: str) -> str | None:
        """The proxy to use for a URL; None: connect directly."""
        parts = urlsplit(url)
        proxy = self.https if parts.scheme == "https" else self.http
        if not proxy or self._bypasses(parts.hostname or ""):
            return None
        return proxy

    def _bypasses(self, host: str) -> bool:
        for item in self.no.split(","):
            name = item.strip().lower().lstrip("*").lstrip(".").partition(":")[0]
            if item.strip() == "*" or (name and (host == name or host.endswith("." + name))):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Route:
    """How to reach an origin (`http://host:port`)."""

    host: str
    port: int
    """Where to connect: the origin itself, or the proxy."""
    secure: str = ""
    """The name the server's certificate must bear; empty: no TLS."""
    tunnel: str = ""
    """`host:port` to ask the proxy for, before TLS."""
    origin: str = ""
    """What the proxy wants in front of the path."""
    fields: str = ""
    """Header lines for the proxy, each with its line end."""

    @classmethod
    def to(cls, url: str, proxies: ProxySettings) -> "Route":
        """Raises ValueError for a URL without a host or with a bad port."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        if not host:
            raise ValueError(f"{url!r} has no host")
        name = host if secure else ""
        proxy = proxies.for_url(url)
        if proxy is None:
            return cls(host, port, name)
        via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        fields = ""
        if via.username is not None:
            pair = f"{unquote(via.username)}:{unquote(via.password or '')}".encode()
            fields = f"Proxy-Authorization: Basic {base64.b64encode(pair).decode()}\r\n"
        address = (via.hostname or "", via.port or 80)
        if secure:
            return cls(*address, name, f"{host}:{port}", "", fields)
        return cls(*address, "", "", f"http://{parts.netloc.rpartition('@')[2]}", fields)


@functools.lru_cache(_MAX_ROUTES)
def split_url(url: str) -> tuple[str, str]:
    """Origin (`http://host:port`) and origin-form target of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}", target_of(url)[1]


def target_of(url: str) -> tuple[str, str]:
    """Host header and origin-form target of a URL."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii() or " " in target:
        target = quote(target, safe=_TARGET_SAFE)
    return parts.netloc.rpartition("@")[2], target


def encode_fields(headers: Mapping[str, str]) -> str:
    """Header lines. Raises `Refused` for a name or value that would break out of its line."""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if text.count("\n") != len(headers) or text.count("\r") != len(headers) or "\0" in text:
        raise Refused("a request header holds a line break; check the template of its value")
    return text


class _Connection:
    """A socket, its patience, and the look at whether it is still quiet."""

    __slots__ = ("_tenths", "poll", "socket")

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.poll = select.poll()
        self.poll.register(connected, select.POLLIN | select.POLLHUP | select.POLLERR)
        self._tenths = 0
        if not isinstance(connected, ssl.SSLSocket):
            connected.settimeout(None)

    def limit(self, deadline: float) -> None:
        """Sending and receiving give up at the deadline, or a tenth of a second later, with
        TimeoutError (TLS) or BlockingIOError. Raises TimeoutError: it has passed.

        By the kernel's own limits, which stay from request to request: with Python's, each call is
        two system calls and gives the other threads two chances to take over.
        """
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if isinstance(self.socket, ssl.SSLSocket):
            self.socket.settimeout(left)
            return
        tenths = int(left * 10) + 1
        if tenths != self._tenths:
            self._tenths = tenths
            value = struct.pack("@ll", tenths // 10, tenths % 10 * 100_000)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


class _Place:
    """A route, the Host header there, and the connections that are idle."""

    __slots__ = ("host", "idle", "route")

    def __init__(self, route: Route, host: str) -> None:
        self.route = route
        self.host = host
        self.idle: deque[_Connection] = deque()


class Client:
    """A pool of connections to whatever is called."""

    def __init__(
        self,
        proxies: ProxySettings | None = None,
        *,
        connections: int = 32,
        ca_certs: str = "",
    ) -> None:
        """`connections`: kept open to one place while idle; `ca_certs`: PEM, trusted as well."""
        self._proxies = proxies or ProxySettings()
        self._connections = connections
        self._ca_certs = ca_certs
        self._places: dict[str, _Place] = {}
        self._tls: ssl.SSLContext | None = None

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Answer:
        """POST and read the whole answer, whatever its status; redirects are not followed.

        Raises `DeliveryFailed` when there is no answer (refused, reset, timed out, too large).
        """
        return self._request("POST", url, headers, body, timeout_s)

    def get(self, url: str, timeout_s: float) -> Answer:
        """GET and read the whole answer; same failures as `post`."""
        return self._request("GET", url, {}, b"", timeout_s)

    def request(
        self,
        method: str,
        origin: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
        timeout_s: float,
        *,
        most: int = MAX_ANSWER_BYTES,
    ) -> Answer:
        """Any request; `target` is quoted already (`split_url`).

        Raises OSError (TimeoutError included), ValueError for an origin that is none, BadHead,
        BadChunk, AnswerTooLong.
        """
        place = self._places.get(origin) or self._place(origin)
        route, idle = place.route, place.idle
        length = f"Content-Length: {len(body)}\r\n" if body or method not in ("GET", "HEAD") else ""
        head = (
            f"{method} {route.origin}{target} HTTP/1.1\r\nHost: {place.host}\r\n"
            f"{'' if route.tunnel else route.fields}{encode_fields(headers)}{length}\r\n"
        )
        data = head.encode("utf-8", "replace") + body
        deadline = time.monotonic() + timeout_s
        while True:
            pooled, reused = self._take(idle), True
            if pooled is None:
                pooled, reused = _Connection(self._connect(route, deadline)), False
            connection = pooled.socket
            reader = AnswerReader(most, bodiless=method == "HEAD")
            try:
                whole = _exchange(pooled, data, reader, deadline)
            except BlockingIOError as error:
                connection.close()
                raise TimeoutError from error
            except TimeoutError:
                connection.close()
                raise
            except OSError:
                connection.close()
                if reused and not reader.started:
                    continue
                raise
            except BaseException:
                connection.close()  # half an answer must not greet the next request
                raise
            if whole and reader.keep_alive and len(idle) < self._connections:
                idle.append(pooled)
            else:
                connection.close()
            return reader.answer()

    def close(self) -> None:
        """Close what is idle."""
        for place in self._places.values():
            while place.idle:
                place.idle.pop().socket.close()

    def __del__(self) -> None:
        self.close()

    def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float
    ) -> Answer:
        try:
            return self.request(method, *split_url(url), headers, body, timeout_s)
        except TimeoutError as error:
            raise DeliveryFailed(f"{_where(url)} did not answer within {timeout_s:g} s") from error
        except (OSError, ValueError, BadHead, BadChunk, AnswerTooLong) as error:
            raise DeliveryFailed(f"{_where(url)} cannot be reached: {error}") from error

    def _take(self, idle: deque[_Connection]) -> _Connection | None:
        """An idle connection that looks alive: nothing to read, not even an end."""
        while idle:
            try:
                connection = idle.pop()
            except IndexError:  # another thread was faster
                return None
            if not connection.poll.poll(0):
                return connection
            connection.socket.close()
        return None

    def _place(self, origin: str) -> _Place:
        if len(self._places) >= _MAX_ROUTES:
            self.close()
            self._places.clear()
        host = origin.partition("://")[2].rpartition("@")[2]
        place = self._places[origin] = _Place(Route.to(origin, self._proxies), host)
        return place

    def _connect(self, route: Route, deadline: float) -> socket.socket:
        patience = max(0.001, min(CONNECT_S, deadline - time.monotonic()))
        connection = socket.create_connection((route.host, route.port), patience)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if route.tunnel:
                _open_tunnel(connection, route)
            if route.secure:
                if self._tls is None:
                    self._tls = tls_context(self._ca_certs)
                return self._tls.wrap_socket(connection, server_hostname=route.secure)
        except BaseException:
            connection.close()
            raise
        return connection


def tls_context(ca_certs: str) -> ssl.SSLContext:
    """The system's trusted authorities and these. Raises `OSError` for what is no certificate."""
    context = ssl.create_default_context()
    if ca_certs:
        context.load_verify_locations(cadata=ca_certs)
    return context


def _exchange(pooled: _Connection, data: bytes, reader: AnswerReader, deadline: float) -> bool:
    """Send a request, read its answer; False: answered before all was sent.

    Raises as `Client.request`, BlockingIOError for a timeout, and ConnectionError at an early end.
    """
    pooled.limit(deadline)
    connection = pooled.socket
    broken: ConnectionError | None = None
    try:
        connection.sendall(data)
    except ConnectionError as error:  # it may have answered (413) and hung up before all was sent
        broken = error
    while True:
        received = connection.recv(_RECEIVE_BYTES)
        if not received:
            if reader.end():
                return False
            raise broken or ConnectionError("the connection was closed")
        if reader.feed(received):
            return broken is None
        pooled.limit(deadline)


def _open_tunnel(connection: socket.socket, route: Route) -> None:
    request = f"CONNECT {route.tunnel} HTTP/1.1\r\nHost: {route.tunnel}\r\n{route.fields}\r\n"
    connection.sendall(request.encode("ascii"))
    answer = b""
    while b"\r\n\r\n" not in answer:
        received = connection.recv(4096)
        answer += received
        if not received or len(answer) > _RECEIVE_BYTES:
            raise ConnectionError("the proxy closed the connection")
    status = answer.split(b" ", 2)[1:2]
    if status != [b"200"]:
        raise ConnectionError(f"the proxy refuses to connect: {answer[:100]!r}")


def _where(url: str) -> str:
    """A URL fit for logs: no query (it may carry a token), no credentials."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
