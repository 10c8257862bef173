"""HTTP/1.1 heads (request line or status line, and fields) from bytes. Strict; no I/O.

One parser for everything: a head is accepted only if the whole of it matches one regular
expression, so there is no second, laxer path. What makes it fast is memory, not shortcuts: clients
on keep-alive connections repeat themselves, and a head seen before, byte for byte, is the same head
(`HeadCache`).

Rules (RFC 9112), each of them also a defence against request smuggling:
* lines end in CR LF; a bare LF, an obsolete folded line or a blank before the colon is refused;
* at most one Content-Length, digits only; never together with Transfer-Encoding;
* Transfer-Encoding is `chunked` and nothing else, and not in HTTP/1.0;
* HTTP/1.1 requests carry exactly one Host.
"""

import re
from collections.abc import Callable
from typing import Generic, TypeVar

from functions.wire.headers import Headers

NO_LENGTH = -1
"""`length` of a message whose body is chunked, or (responses only) ends with the connection."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_FIELDS = rb"((?:" + _TOKEN + rb"++:[^\x00-\x08\x0a-\x1f\x7f]*+\r\n)*+)\r\n"
_REQUEST = re.compile(
    rb"(" + _TOKEN + rb"{1,64}+) ([\x21-\x7e\x80-\xff]++) HTTP/([0-9])\.([0-9])\r\n" + _FIELDS
)
_RESPONSE = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\x00-\x08\x0a-\x1f\x7f]*+)?\r\n" + _FIELDS
)
_FIELD = re.compile(rb"([^:\r\n]+):[ \t]*([^\r\n]*)\r\n")
_HOST = re.compile(rb"[A-Za-z0-9\-._~!$&'()*+,;=:\[\]%]*")
_MAX_LENGTH_DIGITS = 18


class BadHead(Exception):
    """The head is not acceptable; `status` is what a server answers."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class RequestHead:
    """A parsed request head. Shared by every request that repeats it: never change one.

    `context` is the one exception: a handler may keep what it derives from this head there, and
    finds it again when the same head comes back.
    """

    __slots__ = (
        "chunked",
        "context",
        "expect_continue",
        "headers",
        "keep_alive",
        "length",
        "method",
        "minor",
        "plain",
        "target",
    )

    def __init__(self, method: bytes, target: bytes, minor: int, headers: Headers) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        self.headers = headers
        self.length = 0
        self.chunked = False
        self.keep_alive = minor == 1
        self.expect_continue = False
        self.plain = False
        """HTTP/1.1, keep-alive, not HEAD: the answer needs nothing special."""
        self.context: object = None


class ResponseHead:
    """A parsed response head, shared like a request's. `length` is NO_LENGTH until-close or
    chunked."""

    __slots__ = (
        "chunked",
        "context",
        "encoding",
        "headers",
        "keep_alive",
        "length",
        "media_type",
        "status",
    )

    def __init__(self, status: int, headers: Headers) -> None:
        self.status = status
        self.headers = headers
        self.length = NO_LENGTH
        self.chunked = False
        self.keep_alive = True
        self.encoding = b""
        """Content-Encoding in lower case, empty for identity."""
        self.media_type = b""
        """Content-Type as sent."""
        self.context: object = None


def _split_fields(block: bytes) -> Headers:
    fields: Headers = _FIELD.findall(block)
    if b" \r\n" in block or b"\t\r\n" in block:
        return [(name, value.rstrip(b" \t")) for name, value in fields]
    return fields


def _parse_length(value: bytes) -> int:
    if not value.isdigit() or len(value) > _MAX_LENGTH_DIGITS:
        raise BadHead(400, "Content-Length is not a number")
    return int(value)


def _connection_words(value: bytes) -> set[bytes]:
    return {word.strip(b" \t").lower() for word in value.split(b",")}


def parse_request_head(block: bytes) -> RequestHead:
    """Parse one whole head, the empty line included. Raises BadHead (400, 417, 501, 505)."""
    match = _REQUEST.fullmatch(block)
    if match is None:
        raise BadHead(400, "the request head is malformed")
    method, target, major, minor, fields = match.groups()
    if major != b"1" or minor not in b"01":
        raise BadHead(505, "only versions 1.0 and 1.1 are spoken here")
    if method == b"CONNECT":
        raise BadHead(501, "this is no tunnel")
    head = RequestHead(method, target, int(minor), _split_fields(fields))
    _apply_request_fields(head)
    head.plain = head.keep_alive and head.minor == 1 and method != b"HEAD"
    return head


_REQUEST_NAME_LENGTHS = frozenset(
    map(len, ("host", "content-length", "transfer-encoding", "connection", "expect"))
)


def _apply_request_fields(head: RequestHead) -> None:
    hosts = 0
    length: int | None = None
    for name, value in head.headers:
        if len(name) not in _REQUEST_NAME_LENGTHS:
            continue  # most fields are not our business, and a length is read faster than a name
        match name.lower():
            case b"host":
                hosts += 1
                if _HOST.fullmatch(value) is None:
                    raise BadHead(400, "Host is malformed")
            case b"content-length":
                if length is not None:
                    raise BadHead(400, "more than one Content-Length")
                length = _parse_length(value)
            case b"transfer-encoding":
                if head.chunked or head.minor == 0:
                    raise BadHead(400, "Transfer-Encoding is not acceptable here")
                if value.lower() != b"chunked":
                    raise BadHead(501, "the only transfer coding is chunked")
                head.chunked = True
            case b"connection":
                words = _connection_words(value)
                if b"close" in words:
                    head.keep_alive = False
                elif head.minor == 0 and b"keep-alive" in words:
                    head.keep_alive = True
            case b"expect":
                if value.lower() != b"100-continue":
                    raise BadHead(417, "the only expectation is 100-continue")
                head.expect_continue = head.minor == 1
            case _:
                pass
    if hosts > 1 or (hosts == 0 and head.minor == 1):
        raise BadHead(400, "exactly one Host is needed")
    if head.chunked:
        if length is not None:
            raise BadHead(400, "both Content-Length and Transfer-Encoding")
        head.length = NO_LENGTH
    elif length is not None:
        head.length = length


_RESPONSE_NAME_LENGTHS = frozenset(
    map(
        len,
        ("content-length", "transfer-encoding", "connection", "content-encoding", "content-type"),
    )
)


def parse_response_head(block: bytes) -> ResponseHead:
    """Parse one whole head, the empty line included. Raises BadHead (502)."""
    match = _RESPONSE.fullmatch(block)
    if match is None:
        raise BadHead(502, "the response head is malformed")
    minor, status, fields = match.groups()
    head = ResponseHead(int(status), _split_fields(fields))
    head.keep_alive = minor == b"1"
    length: int | None = None
    for name, value in head.headers:
        if len(name) not in _RESPONSE_NAME_LENGTHS:
            continue
        match name.lower():
            case b"content-length":
                try:
                    this = _parse_length(value)
                except BadHead as bad:
                    raise BadHead(502, bad.reason) from None
                if length is not None and length != this:
                    raise BadHead(502, "more than one Content-Length")
                length = this
            case b"transfer-encoding":
                if value.lower() != b"chunked" or head.chunked:
                    raise BadHead(502, "the only transfer coding is chunked")
                head.chunked = True
            case b"connection":
                words = _connection_words(value)
                if b"close" in words:
                    head.keep_alive = False
                elif b"keep-alive" in words:
                    head.keep_alive = True
            case b"content-encoding":
                head.encoding = value.lower() if value.lower() != b"identity" else b""
            case b"content-type":
                head.media_type = value
            case _:
                pass
    if head.chunked:
        if length is not None:
            # RFC 9112 6.3: chunked wins, but the mix smells of smuggling: use the connection once.
            head.keep_alive = False
    elif 100 <= head.status < 200 or head.status in (204, 304):
        head.length = 0
    elif length is not None:
        head.length = length
    else:
        head.keep_alive = False
    return head


T = TypeVar("T", RequestHead, ResponseHead)


class HeadCache(Generic[T]):
    """Heads seen before, byte for byte. `get(block)` is a plain dict lookup on the hot path.

    Bounded by number and by size of a head; when full it starts afresh, which costs one parse each.
    """

    __slots__ = ("_left", "get", "heads")

    MAX_HEADS = 256
    MAX_HEAD_BYTES = 2048
    """Longer heads (cookies, tokens) are parsed each time and not kept in memory."""

    def __init__(self) -> None:
        self.heads: dict[bytes, T] = {}
        self.get: Callable[[bytes], T | None] = self.heads.get

    def put(self, block: bytes, head: T) -> None:
        if len(block) <= self.MAX_HEAD_BYTES:
            if len(self.heads) >= self.MAX_HEADS:
                self.heads.clear()
            self.heads[block] = head
