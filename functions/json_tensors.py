"""Large JSON tensors: their numbers go from the text into a buffer, without a Python object each.

`"data"` arrays are cut out of the document's text and a placeholder is put in their place; orjson
parses the rest, and simdjson each array. JSON is compositional: when the placeholder turns up as
the data of an input, the text that was cut out is exactly that input's value. Whenever anything is
unusual (a placeholder elsewhere, an array that is not plain numbers nested as the shape says, text
that is no JSON) the ordinary path decides, with its own errors.

simdjson is imported at the first large document; without it, or numpy, nothing is cut out.
"""

import os
import re
import threading
from typing import Any

import orjson

from .wire import v2

MIN_BYTES = 16384
"""Shorter documents are parsed whole: a list of a few thousand numbers is as quick."""

MIN_ARRAY_BYTES = 4096
"""Shorter arrays stay in the document."""

MAX_INNER_ARRAYS = 10000
"""Arrays with more arrays inside are left to the ordinary path: each is looked at."""

KEEP_PARSER_BYTES = 16 << 20
"""A parser keeps the memory of its largest text; after a larger one it is thrown away."""

_OPEN = re.compile(rb'"data"[ \t\r\n]*:[ \t\r\n]*\[')
_MARK = f"turnout:{os.urandom(16).hex()}:"
"""Nobody outside this process knows it, so it is in no document but by our own hand."""

_KINDS = {
    "INT8": "i", "INT16": "i", "INT32": "i", "INT64": "i",
    "UINT8": "i", "UINT16": "i", "UINT32": "i", "UINT64": "u",
    "FP32": "d", "FP64": "d",
}  # fmt: skip
"""Datatype -> what simdjson makes of the numbers: int64, uint64 or double."""

_DTYPES = {"i": "<i8", "u": "<u8", "d": "<f8"}

_local = threading.local()
_simdjson: Any = None
_missing = False


class Numbers:
    """An input's data: an array of the right datatype and shape, and how it was sent."""

    __slots__ = ("array", "nested")

    def __init__(self, array: Any, nested: bool) -> None:
        self.array = array
        self.nested = nested


def parse(body: bytes) -> tuple[Any, dict[int, Numbers]] | None:
    """A request document without its large arrays, and these by their input's position; None: parse
    it whole.

    Raises InvalidRequest for numbers out of range or too many for the shape, as `tensors` does.
    """
    if len(body) < MIN_BYTES or not _ready():
        return None
    spans = _spans(body)
    if not spans:
        return None
    view = memoryview(body)
    pieces: list[bytes | memoryview] = []
    at = 0
    for index, (start, end) in enumerate(spans):
        pieces += (view[at:start], f'["{_MARK}{index}"]'.encode())
        at = end
    pieces.append(view[at:])
    try:
        document = orjson.loads(b"".join(pieces))
        places = _placeholders(document)
        if sorted(places) != list(range(len(spans))):
            return None
        converted = {}
        for index, place in places.items():
            start, end = spans[index]
            entry = document["inputs"][place]
            numbers = _numbers(body, start, end, entry)
            if numbers is None:
                entry["data"] = orjson.loads(view[start:end])
            else:
                converted[place] = numbers
    except orjson.JSONDecodeError:
        return None
    return document, converted


def _ready() -> bool:
    global _simdjson, _missing
    if _simdjson is None and not _missing:
        try:
            import numpy  # noqa: F401
            import simdjson
        except ImportError:
            _missing = True
        else:
            _simdjson = simdjson
    return not _missing


def _spans(body: bytes) -> list[tuple[int, int]]:
    """Where the long arrays under a key `data` are; linear in the body's length."""
    found: list[tuple[int, int]] = []
    at = 0
    while (at := body.find(b'"data"', at)) >= 0:
        match = _OPEN.match(body, at)
        at += 6
        if match is None:
            continue
        start = match.end() - 1
        # Numbers, commas and brackets only: the array ends before the next quote or brace, and in
        # an object nothing but a comma can stand between them.
        bound = body.find(b'"', start)
        bound = len(body) if bound < 0 else bound
        for brace in (b"}", b"{"):
            closer = body.find(brace, start, bound)
            bound = bound if closer < 0 else closer
        end = body.rfind(b"]", start, bound) + 1
        if end - start >= MIN_ARRAY_BYTES:
            found.append((start, end))
            at = end
    return found


def _placeholders(document: Any) -> dict[int, int]:
    """Number of an array cut out -> position of the input whose data it is."""
    inputs = document.get("inputs") if type(document) is dict else None
    found = {}
    for place, entry in enumerate(inputs if type(inputs) is list else ()):
        data = entry.get("data") if type(entry) is dict else None
        if type(data) is list and len(data) == 1 and type(data[0]) is str:
            mark, _, index = data[0].rpartition(":")
            if mark + ":" == _MARK:
                found[int(index)] = place
    return found


def _numbers(body: bytes, start: int, end: int, entry: dict[str, Any]) -> Numbers | None:
    """None: not plain numbers of the input's datatype, or not nested exactly as its shape says."""
    name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
    if type(name) is not str or type(datatype) is not str or type(shape) is not list:
        return None
    kind = _KINDS.get(datatype)
    if kind is None:
        return None
    try:
        v2.check_shape(shape, "")
    except v2.Malformed:
        return None
    nested = body.find(b"[", start + 1, end) >= 0
    if nested:
        arrays = _arrays_in(shape)
        if arrays > MAX_INNER_ARRAYS or arrays != body.count(b"[", start, end):
            return None
    from . import tensors

    parser = getattr(_local, "parser", None) or _simdjson.Parser()
    _local.parser = None
    array = parsed = None
    try:
        parsed = parser.parse(memoryview(body)[start:end])
        if not nested or _is_regular(parsed, shape, 0):
            array = tensors.from_buffer(parsed.as_buffer(of_type=kind), _DTYPES[kind])
    except (ValueError, TypeError):
        return None
    finally:
        parsed = None  # a parser is used again only when nothing points into its last document
        if end - start <= KEEP_PARSER_BYTES:
            _local.parser = parser
    if array is None:
        return None
    return Numbers(tensors.narrow(name, datatype, shape, array), nested)


def _arrays_in(shape: list[int]) -> int:
    """How many arrays a value nested as `shape` is made of."""
    total = level = 1
    for size in shape[:-1]:
        level *= size
        total += level
    return total


def _is_regular(value: Any, shape: list[int], depth: int) -> bool:
    """Every array has the length its dimension says. The innermost hold no further arrays: their
    number has been counted."""
    if not isinstance(value, _simdjson.Array) or len(value) != shape[depth]:
        return False
    if depth == len(shape) - 1:
        return True
    return all(_is_regular(inner, shape, depth + 1) for inner in value)
