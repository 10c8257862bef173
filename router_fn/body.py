"""Bodies as bytes: what they are, and the few ways in which a graph reshapes them.

Nothing is decoded to objects unless a JSONPath asks for it: parts are cut out of the text and put
together again, so numbers, escapes and spacing of what is passed on stay as they were.
Source: KServe InferenceGraph (spec 2.3) for `predictions_to_instances` and `stitch`; the Open
Inference Protocol v2 for `outputs_to_inputs`; `pick` and `collect` are ours.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from router_fn import gjson
from router_fn.errors import RequestFailed
from router_fn.gjson import validity
from router_fn.gjson.modifiers import items, raw
from router_fn.gjson.values import QUOTE, Span, number_of, parse, string_of

_BLANKS: Final = b" \t\n\r"
_BRACE: Final = b"{"


class PickError(RequestFailed):
    """The part of a body that a step asks for is not there."""


# --- is it JSON? ------------------------------------------------------------------------------

_accelerated: Callable[[bytes], object] | None = None
_refused: tuple[type[Exception], ...] = ()


def preload() -> None:
    """Load the accelerator of `is_json` now; otherwise the first body pays for it (about 10 ms)."""
    global _accelerated, _refused
    if _accelerated is not None or validity.COMPILED:
        return
    try:
        import msgspec
    except ImportError:
        _accelerated, _refused = _check, (ValueError,)
    else:
        # A raw decoder checks the text and builds nothing. It takes what Go takes, except for
        # surrogate escapes without partner and deep nesting, which is why a refusal is looked at
        # a second time.
        _accelerated = msgspec.json.Decoder(msgspec.Raw).decode
        _refused = (msgspec.DecodeError, RecursionError)


def _check(body: bytes) -> None:
    raise ValueError


def is_json(body: bytes) -> bool:
    """Whether Go's json.Valid holds: one value, 10,000 containers deep at most, UTF-8 or not."""
    if _accelerated is None:
        preload()
        assert _accelerated is not None
    try:
        _accelerated(body)
    except _refused:
        return _looks_like_json(body) and validity.is_valid(body)
    return True


_START: Final = frozenset(b'{["-0123456789tfn')
_first = re.compile(rb"[ \t\n\r]*+(.)", re.S).match


def _looks_like_json(body: bytes) -> bool:
    """Rules out most text that is not JSON by its first character."""
    found = _first(body)
    return found is not None and found[1][0] in _START


def is_object_or_null(body: bytes) -> bool:
    """Whether an Ensemble takes the body as a member: a JSON object, or null."""
    found = _first(body)
    if found is None:
        return False
    if found[1] == _BRACE:
        return is_json(body)
    return found[1] == b"n" and body.strip(_BLANKS) == b"null"


if not TYPE_CHECKING and validity.COMPILED:  # faster still, and needs no second look
    is_json, is_object_or_null = validity.is_valid, validity.is_object_or_null

# --- chaining ---------------------------------------------------------------------------------

# What may be too large for a float64; each hit is then looked at one by one.
_suspicious = re.compile(rb"[0-9]{300}|[eE]\+?[0-9]{2}").search
_number = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|(-?[0-9][-+.0-9eE]*+)', re.S).finditer
_INFINITE: Final = (float("inf"), float("-inf"))


def predictions_to_instances(body: bytes) -> bytes:
    """`{"predictions": [...]}` as `{"instances": [...]}`: the array as it is, no other key.

    The body is returned unchanged unless it is an object with a non-empty array of predictions. As
    in KServe the key is found whatever its case and the last of several counts; `instances` that
    are no array, or a number beyond float64 in either, also leave the body unchanged.
    """
    if not is_json(body):
        return body
    document = parse(body)
    if document is None or body[document[1]] != _BRACE[0]:
        return body
    chosen: dict[str, Span | None] = {}
    for key, value in items(document):
        name = _folded(key)
        if name in ("predictions", "instances"):
            first = body[value[1]]
            if first == 0x6E:  # null is no value, and clears an earlier one
                chosen[name] = None
            elif first == 0x5B and not _overflows(raw(value)):
                chosen[name] = value
            else:
                return body
    predictions = chosen.get("predictions")
    if predictions is None:
        return body
    array = raw(predictions)
    if not array[1:-1].strip(_BLANKS):
        return body
    return b'{"instances":' + array + b"}"


def _folded(key: Span | None) -> str:
    """A key as Go compares struct fields: ASCII case, the long s and the Kelvin sign folded."""
    if key is None or key[2] - key[1] > 64:
        return ""
    return string_of(key).decode("utf-8", "replace").replace("ſ", "s").replace("K", "k").lower()


def _overflows(array: bytes) -> bool:
    if not _suspicious(array):
        return False
    return any(found[1] and number_of(found[1]) in _INFINITE for found in _number(array))


def outputs_to_inputs(body: bytes) -> bytes:
    """A V2 response as the next V2 request: `outputs` become `inputs`, the tensors as they are.

    `id` is kept, so that a chain of models logs one request; `model_name`, `model_version` and the
    response's `parameters` are dropped. Without a non-empty array of outputs the body is unchanged.
    """
    if not is_json(body):
        return body
    document = parse(body)
    if document is None or body[document[1]] != _BRACE[0]:
        return body
    kept: dict[bytes, bytes] = {}
    for key, value in items(document):
        if key is not None:
            name = string_of(key)
            if name in (b"id", b"outputs"):
                kept[name] = raw(value)
    outputs = kept.get(b"outputs", b"")
    if outputs[:1] != b"[" or not outputs[1:-1].strip(_BLANKS):
        return body
    request_id = kept.get(b"id", b"")
    head = b'{"id":' + request_id + b"," if request_id[:1] == b'"' else b"{"
    return head + b'"inputs":' + outputs + b"}"


# --- putting together -------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _key(name: str) -> bytes:
    return json.dumps(name, ensure_ascii=False).encode("utf-8", "replace") + b":"


def stitch(members: Iterable[tuple[str, bytes]]) -> bytes:
    """One JSON object of named JSON texts, each byte for byte (white space around it trimmed).

    Keys keep their order; a repeated name keeps its first place and takes the last value, as when a
    Go map is filled. The members must be JSON.
    """
    texts: dict[str, bytes] = {}
    for name, body in members:
        texts[name] = body
    return (
        b"{" + b",".join([_key(name) + body.strip(_BLANKS) for name, body in texts.items()]) + b"}"
    )


def collect(members: Sequence[tuple[str, bytes]]) -> bytes:
    """As `stitch`, for answers of any kind: what is not JSON becomes a string, nothing null."""
    return stitch([(name, _as_json(body)) for name, body in members])


def _as_json(body: bytes) -> bytes:
    if not body.strip(_BLANKS):
        return b"null"
    if is_json(body):
        return body
    return json.dumps(body.decode("utf-8", "replace"), ensure_ascii=False).encode()


# --- taking apart -----------------------------------------------------------------------------

_SEGMENT = re.compile(
    r"\.(?P<name>[^\s.\[\]*?()@$'\"|,:\\]+)|\[(?P<index>[0-9]+)\]"
    r"|\[(?P<quoted>'[^'\\]*'|\"[^\"\\]*\")\]"
)


def pick(path: str) -> Callable[[bytes], bytes]:
    """A function that cuts the part at `path` out of a JSON body.

    `a.b`, `$.a.b`, `$.a[0]`, `$.a.0` and `$['a']` take a slice of the text as it stands. Any other
    text is a JSONPath: one match is passed on re-encoded, several as an array.
    The function raises `PickError` if the body is not JSON or has nothing there; `pick` itself
    raises ValueError for a JSONPath that cannot be parsed.
    """
    if path in ("", "$"):
        return _whole
    if not path.startswith("$"):
        path = f"$.{path}"
    segments = _plain_segments(path)
    if segments is not None:
        return _slicer(path, segments)
    from router_fn import jsonpath

    return _jsonpath_picker(path, jsonpath.compile_jsonpath(path))


def _whole(body: bytes) -> bytes:
    return body


def _plain_segments(path: str) -> list[str] | None:
    if not path.startswith("$"):
        return None
    segments: list[str] = []
    at = 1
    while at < len(path):
        found = _SEGMENT.match(path, at)
        if found is None:
            return None
        segments.append(found["name"] or found["index"] or found["quoted"][1:-1])
        at = found.end()
    return segments


_SPECIAL = re.compile(rb"[^a-zA-Z0-9_\-\x80-\xff ]")


def _slicer(path: str, segments: Sequence[str]) -> Callable[[bytes], bytes]:
    if "" in segments:
        raise ValueError(f"{path!r} has an empty key")
    escaped = b".".join(_SPECIAL.sub(rb"\\\g<0>", segment.encode()) for segment in segments)
    compiled = gjson.Path(escaped)

    def cut(body: bytes) -> bytes:
        if not is_json(body):
            raise PickError(f"nothing can be picked at {path}: the body is not JSON")
        found = gjson.find(body, compiled)
        if found is None:
            raise PickError(f"the body has nothing at {path}")
        return raw(found)

    return cut


def _jsonpath_picker(path: str, compiled: Any) -> Callable[[bytes], bytes]:
    def cut(body: bytes) -> bytes:
        found: list[Any] = compiled.find(body)
        if not found:
            raise PickError(f"the body has nothing at {path}")
        value = found[0] if len(found) == 1 else found
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "replace"
        )

    return cut


__all__ = [
    "QUOTE",
    "PickError",
    "collect",
    "is_json",
    "is_object_or_null",
    "outputs_to_inputs",
    "pick",
    "predictions_to_instances",
    "preload",
    "stitch",
]
