"""Calls of one step over HTTP: request heads prepared, answers understood. The transport behind the
engine.

A `Call` is the `Wait` that the engine awaits and the `Receiver` that a connection reports to. What
varies from request to request is small: the forwarded headers and the length. So the head of a
request to a target is built once per distinct client head (`Incoming.prefixes`) and only the length
is added per call.
"""

from collections.abc import Callable

from functions.wire.headers import HOP_BY_HOP, Headers, canonical, join
from functions.wire.http1 import Exchange
from functions.wire.http1_head import RequestHead, ResponseHead
from router_fn.calls_core import CallCore
from router_fn.errors import UpstreamError
from router_fn.pool import Origin, Pool
from router_fn.replies import STREAMED
from router_fn.upstream import UpstreamConnection
from router_fn.urls import Url, resolve

MAX_REQUESTS = 10
"""Requests one call may take, redirects included (Go's limit)."""

MAX_KEPT_HEADS = 64
"""Ready request heads per distinct client head: enough for a graph's steps and the lengths one
client repeats."""

_REDIRECTS_TO_GET = frozenset({301, 302, 303})
_REDIRECTS = _REDIRECTS_TO_GET | {307, 308}
_SENSITIVE = frozenset({b"authorization", b"cookie", b"cookie2", b"www-authenticate"})
"""Not taken along to another host by a redirect (as Go does)."""
_NEVER_FORWARDED = HOP_BY_HOP | {b"host", b"content-length", b"expect"}

_STREAM_TYPES = (
    b"text/event-stream",
    b"application/x-ndjson",
    b"application/jsonl",
    b"application/json-seq",
    b"application/stream+json",
    b"multipart/x-mixed-replace",
)
"""Media types that only make sense piece by piece; everything else is read whole, as KServe does.
"""


class Incoming:
    """What the router derives from the headers that go upstream; shared by all heads that forward
    the same, and kept with each head (`RequestHead.context`)."""

    __slots__ = (
        "default_type",
        "defaults",
        "direct",
        "forwarded",
        "headers",
        "heads",
        "inflates",
        "prefixes",
    )

    def __init__(self, selected: Headers) -> None:
        self.headers: Headers = [
            (canonical(name), value)
            for name, value in selected
            if name.lower() not in _NEVER_FORWARDED
        ]
        names = {name for name, _ in self.headers}
        self.default_type = b"Content-Type" not in names
        self.inflates = b"Accept-Encoding" not in names
        defaults: Headers = []
        if b"User-Agent" not in names:
            defaults.append((b"User-Agent", b"turnout-router"))
        if self.inflates:
            defaults.append((b"Accept-Encoding", b"gzip"))
        self.defaults = defaults
        self.forwarded = join(defaults + self.headers)
        self.prefixes: dict[Target, bytes] = {}
        self.heads: dict[tuple[Target, int], bytes] = {}
        self.direct: dict[int, bytes] = {}
        """The heads of a one-step graph's only target, by length."""


def accepts_events(head: RequestHead) -> bool:
    """The client would take its answer piece by piece."""
    return any(
        name.lower() == b"accept" and b"text/event-stream" in value.lower()
        for name, value in head.headers
    )


class Target:
    """One upstream URL of the graph."""

    __slots__ = ("idle", "origin", "pool", "stream", "timeout_s", "url")

    def __init__(self, pool: Pool, url: Url, timeout_s: float | None, stream: str = "Auto") -> None:
        self.pool = pool
        self.url = url
        self.origin = pool.origin(url)
        self.idle = self.origin.idle
        self.timeout_s = timeout_s
        self.stream = stream

    def prefix(self, incoming: Incoming) -> bytes:
        """The request head without its length and the empty line."""
        prefix = incoming.prefixes.get(self)
        if prefix is None:
            prefix = make_head(b"POST", self.url, self.origin, incoming.forwarded)
            if incoming.default_type:
                prefix += b"Content-Type: application/json\r\n"
            incoming.prefixes[self] = prefix
        return prefix

    def head(self, incoming: Incoming, length: int) -> bytes:
        """The whole request head for a body of this length, kept for the next of its kind."""
        head = b"%bContent-Length: %d\r\n\r\n" % (self.prefix(incoming), length)
        if len(incoming.heads) < MAX_KEPT_HEADS:
            incoming.heads[self, length] = head
        return head


def make_head(method: bytes, url: Url, origin: Origin, fields: bytes) -> bytes:
    """Request line, Host and the given field lines."""
    where = str(url) if origin.absolute_form else url.target
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b" % (
        method,
        where.encode(),
        url.authority.encode(),
        fields,
    )


class Call(CallCore):
    """One call of one target: what is not on the way of every call; that is in the core."""

    stream_fields: Callable[[ResponseHead], bytes] | None = None
    """Further field lines of the client's answer, should this one be streamed to it."""
    _url: Url | None = None  # a redirect's own target
    _origin: Origin | None = None  # and where that is
    _requests = 1

    @property
    def inflates(self) -> bool:
        return self.incoming.inflates

    def _start_timer(self, limit: float) -> None:
        self._timer = self.target.pool.loop.call_later(limit, self._timed_out, limit)

    # --- the connection's side (Outgoing) --------------------------------------------------------

    def _transmit_unusual(self, connection: UpstreamConnection) -> None:
        if self._message is not None:
            connection.begin(self, *self._message)
            return
        prefix = self.target.prefix(self.incoming)
        head = b"%b%bContent-Length: %d\r\n\r\n" % (prefix, self.extra_head, len(self.body))
        connection.begin(self, head, self.body)

    def failed(self, error: UpstreamError) -> None:
        self._connection = None
        if self._timer is not None:
            self._timer.cancel()
        stream_to = self._stream_to
        if stream_to is not None and stream_to.started:
            stream_to.drop()  # half an answer is out: the client must see that it is not whole
            self.resolve(STREAMED)
        else:
            self.fail(error)

    def unsent(self) -> None:
        self._connection = None
        (self._origin or self.target.origin).send(self)

    def wants_stream(self, head: ResponseHead) -> bool:
        exchange = self._stream_to
        if exchange is None or not exchange.open or head.status in _REDIRECTS:
            return False
        mode = self.target.stream
        if mode != "Always" and not (
            mode == "Auto"
            and (
                head.media_type.lower().startswith(_STREAM_TYPES)
                or (head.chunked and accepts_events(exchange.head))
            )
        ):
            return False
        if self._timer is not None:
            self._timer.cancel()
        fields = self.stream_fields(head) if self.stream_fields is not None else b""
        exchange.start(head.status, head.media_type, fields)
        exchange.on_drained = self._drained
        return True

    def take_over(self, connection: UpstreamConnection, stream_to: Exchange) -> None:
        """Continue what somebody else began on this connection."""
        self._connection = connection
        self._stream_to = stream_to
        connection.hand_over(self)

    def stream_data(self, data: bytes) -> None:
        exchange, connection = self._stream_to, self._connection
        assert exchange is not None
        exchange.send(data)
        if exchange.backed_up and connection is not None:
            connection.pause()

    def stream_end(self) -> None:
        self._connection = None
        assert self._stream_to is not None
        self._stream_to.finish()
        self.resolve(STREAMED)

    def _drained(self) -> None:
        if self._connection is not None:
            self._connection.resume()

    # --- giving up -------------------------------------------------------------------------------

    def cancel(self) -> None:
        super().cancel()
        self._release()

    def _release(self) -> None:
        self.cancelled = True
        if self._timer is not None:
            self._timer.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()

    def _timed_out(self, limit: float) -> None:
        self._release()
        self.failed(UpstreamError(f"gave no whole answer within {limit:g} s", kind="timeout"))

    # --- redirects -------------------------------------------------------------------------------

    def _redirect(self, status: int, head: ResponseHead) -> bool:
        """Follow it, as Go's client does. False: there is no Location, so it is an answer."""
        if status not in _REDIRECTS:
            return False
        location = next((v for k, v in head.headers if k.lower() == b"location"), b"")
        if not location:
            return False
        try:
            url = resolve(self._url or self.target.url, location.decode("latin-1"))
        except ValueError as error:
            self.failed(UpstreamError(f"redirected to nowhere: {error}", kind="redirect"))
            return True
        if self._requests >= MAX_REQUESTS:
            self.failed(UpstreamError(f"stopped after {MAX_REQUESTS} redirects", kind="redirect"))
            return True
        self._requests += 1
        self._url = url
        fields = self.incoming.headers
        if url.host != self.target.url.host:
            fields = [(k, v) for k, v in fields if k.lower() not in _SENSITIVE]
        keeps_body = status not in _REDIRECTS_TO_GET and (
            self._message is None or not self._message[0].startswith(b"GET ")
        )
        body = self.body if keeps_body else b""
        defaults = list(self.incoming.defaults)
        if self.incoming.default_type and keeps_body:
            defaults.append((b"Content-Type", b"application/json"))
        origin = self.target.pool.origin(url)
        message = make_head(b"POST" if keeps_body else b"GET", url, origin, join(defaults + fields))
        if keeps_body:
            message += b"Content-Length: %d\r\n" % len(body)
        self._message = (message + b"\r\n", body)
        self._origin = origin
        origin.send(self)
        return True
