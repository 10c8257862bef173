"""Plain paths, keys and indexes only: the bulk of all conditions, looked up without ceremony.

`descend` finds exactly what the general walk (`evaluate`) finds. A `locator` is for valid JSON: it
reaches a top-level key in native code, so that what stands before it costs next to nothing.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from .values import (
    ARRAY,
    END_ARRAY,
    OBJECT,
    find_container,
    next_member,
    skip_to_element,
    unescape,
    value_end,
)


class PlainStep(NamedTuple):
    """A path component, as a key and as an index (-1 if it is none)."""

    key: bytes
    position: int


Steps = Sequence[PlainStep]

# Longer paths take the general walk, which does not recurse.
MAX_STEPS: Final = 32


def descend(buffer: bytes, at: int, end: int, steps: Steps, depth: int = 0) -> int:
    """Where the value at `steps[depth:]` below the container at `at` begins.

    If it is not there: the complement (`~`) of where the container ends, for the search to go on
    behind it, in case the key that led here occurs once more.
    """
    key, position = steps[depth]
    last = depth + 1 == len(steps)
    first = buffer[at]
    number = -1
    at += 1
    while True:
        if first == OBJECT:
            member = next_member(buffer, at, end)
            if member is None:
                return ~end
            at = member.end()
            if member.lastindex == 1:
                return ~at
            name = member[2]
            if member[3]:
                name = unescape(name + member[3])
            hit = name == key
        else:
            gap = skip_to_element(buffer, at, end)
            at = gap.end() if gap else end
            if at < end and buffer[at] == END_ARRAY:
                return ~(at + 1)
            number += 1
            hit = number == position
        if at >= end:
            return ~end
        if hit:
            if last:
                return at
            if buffer[at] == OBJECT or buffer[at] == ARRAY:
                found = descend(buffer, at, end, steps, depth + 1)
                if found >= 0:
                    return found
                at = ~found
                continue
        at = value_end(buffer, at, end)
        if at < 0:
            return ~end


def find_plain(buffer: bytes, start: int, end: int, steps: Steps) -> int:
    """Where the value at `steps` begins; negative if there is none."""
    container = find_container(buffer, start, end)
    return -1 if container is None else descend(buffer, container.start(), end, steps)


def is_scalar(body: bytes) -> bool:
    """Whether a valid JSON text is neither object nor array."""
    return body.lstrip(b" \t\n\r")[:1] not in (b"{", b"[")


Place = tuple[bytes, int, int]
"""A buffer, where a value begins in it (-1: there is none), and where the buffer ends."""

ABSENT: Final[Place] = (b"", -1, 0)


def locator(steps: Steps) -> Callable[[bytes], Place]:
    """A function that finds a plain path in valid JSON objects and arrays, fast."""
    if steps[0].position >= 0:  # may be an index of a top-level array
        return lambda body: _search(body, steps)
    quoted = b'"' + steps[0].key + b'"'
    in_front = re.compile(
        rb"[ \t\n\r]*+\{[ \t\n\r]*+" + re.escape(quoted) + rb"[ \t\n\r]*+:[ \t\n\r]*+"
    ).match
    below = steps[1:]
    decode: Callable[[bytes], Any] | None = None
    refused: tuple[type[Exception], ...] = ()

    def locate(body: bytes) -> Place:
        nonlocal decode, refused
        front = in_front(body)
        if front is not None:
            at, end = front.end(), len(body)
            if not below:
                return (body, at, end)
            if body[at] == OBJECT or body[at] == ARRAY:
                at = descend(body, at, end, below)
                if at >= 0:
                    return (body, at, end)
            # the key might occur once more, and lead on from there
            return _search(body, steps) if body.count(quoted) > 1 or b"\\" in body else ABSENT
        if b"\\" in body:  # keys may be spelled with escapes
            return _search(body, steps)
        occurrences = body.count(quoted)
        if occurrences != 1:
            return _search(body, steps) if occurrences else ABSENT
        if (
            decode is None
        ):  # made when first needed: it costs 10 ms that a cold start can do without
            decode, refused = _field_decoder(steps[0].key)
        try:
            field = decode(body).value
        except refused:  # no object, or something that only Go takes for JSON
            return _search(body, steps)
        if field is None:
            return ABSENT  # it is the key of something deeper, or a value
        text = bytes(field)
        if not below:
            return (text, 0, len(text))
        if text[0] != OBJECT and text[0] != ARRAY:
            return ABSENT
        return (text, descend(text, 0, len(text), below), len(text))

    return locate


def _search(body: bytes, steps: Steps) -> Place:
    if is_scalar(body):
        return ABSENT
    return (body, find_plain(body, 0, len(body), steps), len(body))


def _field_decoder(key: bytes) -> tuple[Callable[[bytes], Any], tuple[type[Exception], ...]]:
    """A native decoder that cuts one top-level field out as text and passes over the others."""
    try:
        import msgspec

        name = key.decode()
    except (ImportError, UnicodeDecodeError):
        return _refuse, (ValueError,)
    record = msgspec.defstruct(
        "Record", [("value", msgspec.Raw, msgspec.field(name=name, default=None))], gc=False
    )
    return msgspec.json.Decoder(record).decode, (msgspec.MsgspecError, RecursionError)


def _refuse(_: bytes) -> None:
    raise ValueError
