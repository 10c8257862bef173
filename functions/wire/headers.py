"""Header names and response lines every HTTP speaker of ours agrees on.

Names are bytes, as they travel. Facts from RFC 9110 (fields), RFC 9112 (HTTP/1.1) and, for the
canonical spelling, Go's `net/textproto` (KServe's router shows it to users' patterns).
"""

import functools
from collections.abc import Iterable

Headers = list[tuple[bytes, bytes]]
"""Fields in order of arrival: (name as sent, value without surrounding blanks)."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields that belong to one connection and are never forwarded (RFC 9110 7.6.1), in lower case."""

FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding", b"trailer", b"connection"})
"""Fields that the HTTP layer writes itself; no caller may add them."""

REASONS: dict[int, bytes] = {
    100: b"Continue",
    101: b"Switching Protocols",
    200: b"OK",
    201: b"Created",
    202: b"Accepted",
    203: b"Non-Authoritative Information",
    204: b"No Content",
    205: b"Reset Content",
    206: b"Partial Content",
    300: b"Multiple Choices",
    301: b"Moved Permanently",
    302: b"Found",
    303: b"See Other",
    304: b"Not Modified",
    307: b"Temporary Redirect",
    308: b"Permanent Redirect",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    406: b"Not Acceptable",
    408: b"Request Timeout",
    409: b"Conflict",
    410: b"Gone",
    411: b"Length Required",
    412: b"Precondition Failed",
    413: b"Content Too Large",
    414: b"URI Too Long",
    415: b"Unsupported Media Type",
    416: b"Range Not Satisfiable",
    417: b"Expectation Failed",
    418: b"I'm a teapot",
    422: b"Unprocessable Content",
    425: b"Too Early",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    499: b"Client Closed Request",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
    507: b"Insufficient Storage",
}
"""Reason phrases; a status without one is sent as `HTTP/1.1 299 Status`."""


@functools.lru_cache(512)
def lower_text(name: bytes) -> str:
    """A field's name as text in lower case."""
    return name.decode("latin-1").lower()


def status_line(status: int) -> bytes:
    """`HTTP/1.1 200 OK` and its line end."""
    return b"HTTP/1.1 %d %s\r\n" % (status, REASONS.get(status, b"Status"))


def canonical(name: bytes) -> bytes:
    """The spelling Go gives a field name: `x-request-ID` -> `X-Request-Id`."""
    return b"-".join(part.capitalize() for part in name.split(b"-"))


def first(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first value of a field (`name` in lower case), None when it is absent."""
    for key, value in headers:
        if key.lower() == name:
            return value
    return None


def join(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Field lines as sent. Raises ValueError for a name or value that would break the framing."""
    lines = []
    for name, value in headers:
        if b"\r" in value or b"\n" in value or b"\0" in value or not name or b":" in name:
            raise ValueError(f"not a header field: {name!r}")
        lines.append(b"%s: %s\r\n" % (name, value))
    return b"".join(lines)
