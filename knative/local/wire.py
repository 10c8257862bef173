"""HTTP messages as the gateway handles them: parsed heads, header rules, small answers. Pure.

Header names are lower-case bytes inside the gateway; bodies are never looked at. What is dropped
and added
on the way to a pod follows Knative's ingress, activator and queue-proxy (spec sections 2.6 and
2.7).
"""

import http
import json
import os
from dataclasses import dataclass
from typing import TypeAlias

Headers: TypeAlias = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    (
        b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate",
        b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    )
)  # fmt: skip
_NOT_FORWARDED = HOP_BY_HOP | {
    b"http2-settings",
    b"knative-serving-namespace",
    b"knative-serving-revision",
    b"k-proxy-request",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"content-length",
    b"host",
}
"""Hop-by-hop, Knative-internal, or written anew by `forwarded_head`."""

REASONS = {status.value: status.phrase.encode() for status in http.HTTPStatus}

PROBE_AGENTS = (b"kube-probe/", b"Knative-Activator-Probe", b"Knative-Autoscaler-Probe")


@dataclass(slots=True)
class Request:
    """A request head. `target` is in origin form; `authority` is lower case, without port."""

    method: bytes
    target: bytes
    authority: str
    headers: Headers
    host: bytes = b""
    """The Host header as sent (or the authority of an absolute target)."""
    content_length: int | None = None
    chunked: bool = False
    upgrade: bytes = b""
    """Value of `Upgrade` when the client asks for one, such as `websocket`."""
    peer: str = ""
    scheme: bytes = b"http"
    port: int = 80
    absolute: bool = False
    """The client uses us as its proxy."""
    http2: bool = False

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.content_length)

    def header(self, name: bytes) -> bytes:
        """First value of a header, or empty."""
        for key, value in self.headers:
            if key == name:
                return value
        return b""


def is_probe(request: Request) -> bool:
    """Knative's probe traffic: by user agent or by `K-Network-Probe`; it is not counted as load."""
    for name, value in request.headers:
        if name == b"k-network-probe":
            return True
        if name == b"user-agent" and value.startswith(PROBE_AGENTS):
            return True
    return False


def split_authority(authority: bytes) -> tuple[str, int]:
    """`Name.NS.svc:8080` -> (`name.ns.svc`, 8080); port 80 when there is none. Raises
    ValueError."""
    text = authority.decode("ascii").lower()
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    number = int(port) if port else 80
    if not 0 < number < 65536:
        raise ValueError("port out of range")
    return host.rstrip("."), number


def new_traceparent() -> bytes:
    """A W3C trace context for a request that has none: it ties the steps of a graph together."""
    raw = os.urandom(24).hex()
    return f"00-{raw[:32]}-{raw[32:]}-00".encode()


def trace_id(request: Request) -> bytes:
    """The 32 hex digits that all requests of one trace share; empty when there is no trace."""
    parts = request.header(b"traceparent").split(b"-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else b""


def forwarded_headers(request: Request, *, activator: bool, keep_te: bool = False) -> Headers:
    """Headers for the pod, all but Host and framing."""
    connection: set[bytes] = set()
    forwarded_for = b""
    forwarded = False
    for name, value in request.headers:
        if name == b"connection":
            connection.update(token.strip().lower() for token in value.split(b","))
        elif name == b"x-forwarded-for":
            forwarded_for = value
        elif name == b"forwarded":
            forwarded = True
    dropped = _NOT_FORWARDED | connection if connection else _NOT_FORWARDED
    result = [item for item in request.headers if item[0] not in dropped]
    peer = request.peer.encode()
    result.append((b"x-forwarded-for", forwarded_for + b", " + peer if forwarded_for else peer))
    result.append((b"x-forwarded-proto", request.scheme))
    if not forwarded:
        quoted = b'"[' + peer + b']"' if b":" in peer else peer
        result.append((b"forwarded", b"for=" + quoted + b";proto=" + request.scheme))
    if activator:
        result.append((b"k-proxy-request", b"activator"))
    if keep_te and request.header(b"te"):
        result.append((b"te", b"trailers"))
    return result


def request_head(request: Request, *, activator: bool) -> bytes:
    """The head that a pod gets over HTTP/1.1, framing included."""
    headers = forwarded_headers(request, activator=activator)
    if request.upgrade:
        headers.append((b"connection", b"Upgrade"))
        headers.append((b"upgrade", request.upgrade))
    if request.chunked:
        headers.append((b"transfer-encoding", b"chunked"))
    elif request.content_length is not None:
        headers.append((b"content-length", b"%d" % request.content_length))
    first = b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (request.method, request.target, request.host)
    return encode_head(first, headers)


def h2_head(request: Request, *, activator: bool) -> Headers:
    """The same for HTTP/2: pseudo-headers first, `te: trailers` kept for gRPC."""
    headers = forwarded_headers(request, activator=activator, keep_te=True)
    if request.content_length is not None:
        headers.append((b"content-length", b"%d" % request.content_length))
    return [
        (b":method", request.method),
        (b":scheme", request.scheme),
        (b":authority", request.host),
        (b":path", request.target),
        *headers,
    ]


def encode_head(first_line: bytes, headers: Headers) -> bytes:
    """First line and headers, with the empty line."""
    lines = b"".join([b"%b: %b\r\n" % item for item in headers])
    return b"%b%b\r\n" % (first_line, lines)


def status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, REASONS.get(status, b"Status"))


def error_body(status: int, message: str, **details: object) -> bytes:
    """The gateway's own errors: `{"error": "...", "from": "turnout gateway", ...}`."""
    body = {"error": message, "from": "turnout gateway", "status": status, **details}
    return json.dumps(body, ensure_ascii=False).encode() + b"\n"
