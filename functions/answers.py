"""Model results and faults -> HTTP answers, for every HTTP protocol that speaks `{"error":
...}`."""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import jsonio
from .errors import FunctionsError, UpstreamStatus
from .wire import headers as wire_headers

if TYPE_CHECKING:
    from .buffers import Buffer

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"
BYTES = b"application/octet-stream"


class Answer:
    """Status, body, content type and further header fields of one answer."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        status: int,
        body: bytes,
        content_type: bytes = JSON,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers


class Pieces:
    """An `Answer` whose body is in several buffers, large ones among them."""

    __slots__ = ("content_type", "headers", "pieces", "status")

    def __init__(
        self,
        status: int,
        pieces: "Sequence[Buffer]",
        content_type: bytes,
        headers: Mapping[str, str] | None,
    ) -> None:
        """The buffers are sent later: nobody may change them."""
        self.status = status
        self.pieces = pieces
        self.content_type = content_type
        self.headers = headers

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


class Stream:
    """An answer made of pieces: an iterator or async iterator of str or bytes."""

    __slots__ = ("content_type", "headers", "pieces")

    def __init__(self, pieces: Any, headers: Mapping[str, str]) -> None:
        self.pieces = pieces
        self.headers = headers
        self.content_type = headers.get("content-type", "text/plain; charset=utf-8").encode(
            "latin-1"
        )


def from_result(
    result: Any, response_headers: dict[str, str], status: int = 200
) -> Answer | Stream:
    """What a V1 model returned, as it goes out.

    dict and list -> JSON; str and bytes -> raw; (async) iterators -> a stream; arrays and tensors
    -> `{"predictions": ...}`. Raises TypeError for what has no JSON form.
    """
    if isinstance(result, (dict, list)):
        return Answer(status, jsonio.dumps(result), JSON, response_headers or None)
    if isinstance(result, str):
        return _raw(status, result.encode(), TEXT, response_headers)
    if isinstance(result, (bytes, bytearray, memoryview)):
        return _raw(status, bytes(result), BYTES, response_headers)
    if hasattr(result, "__aiter__") or inspect.isgenerator(result):
        return Stream(result, response_headers)
    if hasattr(result, "tolist") or hasattr(result, "columns"):
        result = {"predictions": result}
    return Answer(status, jsonio.dumps(result), JSON, response_headers or None)


def _raw(status: int, body: bytes, default_type: bytes, response_headers: dict[str, str]) -> Answer:
    for name in list(response_headers):
        if name.lower() == "content-type":
            default_type = response_headers.pop(name).encode("latin-1")
    return Answer(status, body, default_type, response_headers or None)


def from_error(error: FunctionsError) -> Answer:
    """The flat envelope `{"error": "<text>"}` with the fault's own status; a predictor's own error
    goes out as it came."""
    if isinstance(error, UpstreamStatus):
        if error.body is not None:
            content_type = error.content_type.encode("latin-1", "replace")
            return Answer(error.http_status(), error.body, content_type, error.response_headers())
        return Answer(
            error.http_status(), jsonio.dumps({"error": error.text}), JSON, error.response_headers()
        )
    return Answer(
        error.http_status(), jsonio.dumps({"error": str(error)}), JSON, error.response_headers()
    )


_BREAKS = re.compile(rb"[\r\n\0]")
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_OURS = wire_headers.FRAMING | wire_headers.HOP_BY_HOP | {b"content-type", b"date"}


def field_lines(headers: Mapping[str, str]) -> bytes:
    """Header fields as they are written; what would break the framing or is ours to write is
    dropped."""
    kept = []
    for name, value in headers.items():
        field = name.encode("latin-1", "replace")
        text = str(value).encode("latin-1", "replace")
        lower = field.lower()
        if lower in _OURS or not _TOKEN.fullmatch(lower) or _BREAKS.search(text):
            continue
        kept.append((field, text))
    return wire_headers.join(kept)
