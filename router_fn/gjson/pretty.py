"""The `@pretty` modifier: laying JSON out, as GJSON's companion `pretty` does by default.

One member or element a line, two blanks of indentation; an array without objects stays on one line
if it fits into the width. A trailing newline. What is not JSON, or nested too deeply to be read by
anybody, is only stripped of its white space.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .values import ARRAY, OBJECT, QUOTE, Span, nested_deeper, number_of, parse, string_of

MAX_NESTING: Final = 100
Items = Callable[[Span], list[tuple[Span | None, Span]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Options of the modifier."""

    width: int = 80
    prefix: bytes = b""
    indent: bytes = b"  "
    sort_keys: bool = False


class TooDeep(Exception):
    """Nested deeper than is worth laying out."""


def lay_out(text: bytes, layout: Layout, items: Items) -> bytes:
    """The text, which is valid JSON, laid out. Raises TooDeep."""
    if nested_deeper(text, MAX_NESTING):
        raise TooDeep
    span = parse(text)
    if span is None:
        return b""
    return layout.prefix + _value(span, layout, items, 0, len(layout.prefix)) + b"\n"


def _value(span: Span, layout: Layout, items: Items, depth: int, column: int) -> bytes:
    buffer, start, end = span
    if buffer[start] not in (OBJECT, ARRAY):
        return buffer[start:end]
    members = items(span)
    is_object = buffer[start] == OBJECT
    if not members:
        return b"{}" if is_object else b"[]"
    if not is_object and layout.width - column > 3:
        line = _one_line(span, items, layout.width - column)
        if line is not None:
            return line
    if is_object and layout.sort_keys:
        members.sort(key=_order)
    margin = b"\n" + layout.prefix + layout.indent * (depth + 1)
    lines: list[bytes] = []
    for key, value in members:
        name = b"" if key is None else key[0][key[1] : key[2]] + b": "
        # the line break counts as a column, except behind the blank after a comma
        at = len(margin) + len(name) - (not is_object and bool(lines))
        lines.append(margin + name + _value(value, layout, items, depth + 1, at))
    closing = b"\n" + layout.prefix + layout.indent * depth
    inner = b",".join(lines) + closing
    return b"{" + inner + b"}" if is_object else b"[" + inner + b"]"


def _one_line(span: Span, items: Items, room: int) -> bytes | None:
    """An array on one line, None if it holds an object or is too long."""
    buffer, start, end = span
    if len(buffer[start:end].translate(None, _BLANKS)) > room:
        return None  # nothing of this but blanks can be left out
    out: list[bytes] = []
    left = room - 2
    for _, value in items(span):
        buffer, start, end = value
        if buffer[start] == OBJECT:
            return None
        text: bytes | None = buffer[start:end]
        if buffer[start] == ARRAY:
            text = _one_line(value, items, left) if left > 0 else None
        if text is None:
            return None
        left -= len(text) + (2 if out else 0)
        if left < 0:
            return None
        out.append(text)
    return b"[" + b", ".join(out) + b"]"


_BLANKS: Final = b" \t\n\r"
_TYPES: Final = {0x66: 1, QUOTE: 3, 0x74: 4, ARRAY: 5, OBJECT: 5, 0x6E: 0}


def _order(member: tuple[Span | None, Span]) -> tuple[object, ...]:
    key, value = member
    assert key is not None
    return (string_of(key), *_value_order(value))


def _value_order(span: Span) -> tuple[int, float, bytes]:
    """Members of one name are sorted by their values."""
    buffer, start, end = span
    kind = _TYPES.get(buffer[start], 2)
    if kind == 2:
        return kind, number_of(buffer[start:end]), b""
    return kind, 0.0, string_of(span) if kind == 3 else buffer[start:end]
