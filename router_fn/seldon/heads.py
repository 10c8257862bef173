"""What a client's head means to a Seldon graph: made once per distinct head, kept with it."""

from typing import Final
from urllib.parse import unquote

from functions.wire.headers import canonical
from functions.wire.http1_head import RequestHead
from router_fn.calls import Incoming
from router_fn.seldon import payload_log
from router_fn.seldon.paths import Paths, Wanted
from router_fn.seldon.traversal import JSON

# Said per message or per hop, not forwarded with the client's other headers.
_OWN_HEADERS: Final = frozenset(
    (b"content-type", b"content-encoding", b"accept-encoding", b"seldon-puid")
)
_TRACE_HEADERS: Final = frozenset((b"traceparent", b"tracestate"))


class SeldonHead(Incoming):
    """What a distinct client head means."""

    __slots__ = (
        "content_type",
        "encoding",
        "event_version",
        "path",
        "puid",
        "skips_log",
        "trace",
        "wanted",
    )

    def __init__(self, head: RequestHead, paths: Paths, *, traced: bool = False) -> None:
        """`traced`: calls carry spans of our own instead of the client's."""
        own = _OWN_HEADERS | _TRACE_HEADERS if traced else _OWN_HEADERS
        forwarded = [
            (canonical(name), value) for name, value in head.headers if name.lower() not in own
        ]
        super().__init__(forwarded)
        self.default_type = False  # every message says its own
        self.path = head.target.partition(b"?")[0]
        path = unquote(self.path.decode("latin-1"))
        self.wanted: Wanted | int = paths.find(head.method.decode("latin-1"), path)
        self.content_type = _first(head, b"content-type") or JSON
        self.encoding = _first(head, b"content-encoding")
        self.puid = _first(head, b"seldon-puid")
        self.trace = [field for field in head.headers if field[0].lower() in _TRACE_HEADERS]
        self.skips_log = payload_log.skips(head.headers)
        self.event_version = _first(head, b"ce-specversion")

    def metadata(self, puid: bytes, fields: bytes = b"") -> list[tuple[bytes, bytes]]:
        """What a call over gRPC carries; `fields` are further lines, of a span."""
        headers = [*self.headers, (b"seldon-puid", puid)] if puid else list(self.headers)
        for line in fields.splitlines():
            name, _, value = line.partition(b": ")
            headers.append((name.lower(), value))
        return headers


def _first(head: RequestHead, name: bytes) -> bytes:
    return next((value for key, value in head.headers if key.lower() == name), b"")
