"""The modifiers of GJSON paths (`@reverse`, `@keys:…`): text in, text out.

They run on derived documents, far from the usual path of a condition; clarity before speed.
Each is linear in its input. What they do with text that is not JSON follows GJSON 1.18.0.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Final

from .validity import is_valid
from .values import (
    ARRAY,
    END_ARRAY,
    OBJECT,
    QUOTE,
    Span,
    find_value,
    number_of,
    parse,
    skip_to_element,
    string_of,
    value_end,
)


def raw(span: Span) -> bytes:
    buffer, start, end = span
    return buffer[start:end]


def is_object(span: Span | None) -> bool:
    return span is not None and span[0][span[1]] == OBJECT


def is_array(span: Span | None) -> bool:
    return span is not None and span[0][span[1]] == ARRAY


def items(span: Span | None) -> Iterator[tuple[Span | None, Span]]:
    """(key, value) of an object, (None, value) of an array, (None, itself) of a scalar."""
    if span is None:
        return
    buffer, start, end = span
    if buffer[start] not in (OBJECT, ARRAY):
        yield None, span
        return
    keyed = buffer[start] == OBJECT
    i = start + 1
    while i < end:
        key: Span | None = None
        if keyed:
            i = buffer.find(b'"', i, end)
            stop = value_end(buffer, i, end) if i >= 0 else -1
            if stop < 0:
                return
            key = (buffer, i, stop)
            i = stop
        found = find_value(buffer, i, end)
        if found is None:
            return
        i = found.start()
        stop = value_end(buffer, i, end)
        if stop < 0:
            return
        yield key, (buffer, i, min(stop, end))
        i = stop + 1  # the comma, whatever it is


def text_of(span: Span | None) -> bytes:
    """The value as text: strings without quotes, other numbers than plain integers reformatted."""
    if span is None:
        return b""
    text = raw(span)
    first = text[0]
    if first == QUOTE:
        return string_of(span)
    if first in (OBJECT, ARRAY) or text in (b"true", b"false"):
        return text
    if first in b"tf":
        return b"true" if first == 0x74 else b"false"
    if first == 0x6E and text[1:2] in (b"u", b""):
        return b""
    if not text.removeprefix(b"-").strip(b"0123456789"):
        return text
    return format_float(number_of(text))


def format_float(value: float) -> bytes:
    """Shortest decimal digits that read back as the value, never with an exponent."""
    if value != value:
        return b"NaN"
    if value in (float("inf"), float("-inf")):
        return b"+Inf" if value > 0 else b"-Inf"
    text = format(Decimal(repr(value)), "f")
    return (text.removesuffix(".0")).encode()


_ESCAPES: Final = {
    **{code: f"\\u{code:04x}" for code in (*range(0x20), *b"<>&", 0x2028, 0x2029)},
    0x08: "\\b",
    0x0C: "\\f",
    0x0A: "\\n",
    0x0D: "\\r",
    0x09: "\\t",
    0x5C: "\\\\",
    0x22: '\\"',
    **dict.fromkeys(range(0xDC80, 0xDD00), "\\ufffd"),
}


def quote(text: bytes) -> bytes:
    """A JSON string of any bytes, HTML characters escaped; bytes that are not UTF-8: `\\ufffd`."""
    return b'"' + text.decode("utf-8", "surrogateescape").translate(_ESCAPES).encode() + b'"'


def _flag(argument: bytes, name: bytes) -> bool:
    """A boolean option of a JSON object argument; the last of several wins."""
    value = False
    for key, span in items(parse(argument)):
        if key is not None and string_of(key) == name:
            value = is_true(span)
    return value


def is_true(span: Span) -> bool:
    text = raw(span)
    if text[0] == QUOTE:
        return string_of(span).lower() in (b"1", b"t", b"true")
    return text[0] == 0x74 or (text[0] in b"+-0123456789iIN" and number_of(text) != 0)


def _reverse(text: bytes, _: bytes) -> bytes:
    span = parse(text)
    if span is None or not (is_array(span) or is_object(span)):
        return text
    members = [(raw(key) + b":" if key else b"") + raw(value) for key, value in items(span)]
    inner = b",".join(reversed(members))
    return b"[" + inner + b"]" if is_array(span) else b"{" + inner + b"}"


def _unwrap(text: bytes) -> bytes:
    text = text.strip(_BLANKS)
    return text[1:-1] if len(text) >= 2 and text[0] in b"[{" else text


_BLANKS: Final = bytes(range(0x21))
_SPACES: Final = b"\t\n\v\f\r "


def _flatten(text: bytes, argument: bytes) -> bytes:
    span = parse(text)
    if span is None or not is_array(span):
        return text
    if argument and _flag(argument, b"deep"):
        return _flatten_deep(text, span)
    out: list[bytes] = []
    for _, value in items(span):
        piece = (_unwrap(raw(value)) if is_array(value) else raw(value)).strip(_SPACES)
        if piece:
            out.append(piece)
    return b"[" + b",".join(out) + b"]"


def _flatten_deep(text: bytes, span: Span) -> bytes:
    """All that is in arrays within arrays, in one pass: they may nest ten thousand deep."""
    out: list[bytes] = []
    at, end = span[1] + 1, span[2]
    depth = 1
    while depth:
        gap = skip_to_element(text, at, end)
        at = gap.end() if gap else end
        if at >= end:
            break
        if text[at] == END_ARRAY:
            depth -= 1
            at += 1
        elif text[at] == ARRAY:
            depth += 1
            at += 1
        else:
            stop = value_end(text, at, end)
            if stop < 0:
                break
            out.append(text[at:stop])
            at = stop
    return b"[" + b",".join(out) + b"]"


def _keys(text: bytes, _: bytes) -> bytes:
    return b"[" + b",".join(raw(k) if k else b"null" for k, _v in items(parse(text))) + b"]"


def _values(text: bytes, _: bytes) -> bytes:
    span = parse(text)
    if is_array(span):
        return text
    return b"[" + b",".join(raw(value) for _k, value in items(span)) + b"]"


def _join(text: bytes, argument: bytes) -> bytes:
    span = parse(text)
    if not is_array(span):
        return text
    objects = [value for _, value in items(span) if is_object(value)]
    if argument and _flag(argument, b"preserve"):
        return b"{" + b",".join(_unwrap(raw(value)) for value in objects) + b"}"
    members: dict[bytes, tuple[Span, Span]] = {}
    for one in objects:
        for key, value in items(one):
            if key is not None:
                name = string_of(key)
                first = members[name][0] if name in members else key
                members[name] = (first, value)
    return b"{" + b",".join(raw(k) + b":" + raw(v) for k, v in members.values()) + b"}"


def _valid(text: bytes, _: bytes) -> bytes:
    return text if is_valid(text) else b""


def _tostr(text: bytes, _: bytes) -> bytes:
    return quote(text)


def _fromstr(text: bytes, _: bytes) -> bytes:
    return text_of(parse(text)) if is_valid(text) else b""


def _group(text: bytes, _: bytes) -> bytes:
    span = parse(text)
    if not is_object(span):
        return b""
    rows: list[list[bytes]] = []
    for key, value in items(span):
        if key is None or not is_array(value):
            continue
        for number, (_none, element) in enumerate(items(value)):
            if number == len(rows):
                rows.append([])
            rows[number].append(raw(key) + b":" + raw(element))
    return b"[" + b",".join(b"{" + b",".join(row) + b"}" for row in rows) + b"]"


def _this(text: bytes, _: bytes) -> bytes:
    return text


def _ugly(text: bytes, _: bytes) -> bytes:
    out: list[bytes] = []
    i, end = 0, len(text)
    while i < end:
        start = text.find(b'"', i)
        if start < 0:
            start = end
        out.append(text[i:start].translate(None, _BLANKS))
        if start == end:
            break
        stop = value_end(text, start, end)
        i = end if stop < 0 else stop
        out.append(text[start:i])
    return b"".join(out)


def _pretty(text: bytes, argument: bytes) -> bytes:
    from .pretty import Layout, TooDeep, lay_out

    options: dict[str, Any] = {}
    for key, span in items(parse(argument)):
        name = b"" if key is None else string_of(key)
        if name == b"sortKeys":
            options["sort_keys"] = is_true(span)
        elif name in (b"indent", b"prefix"):
            options[name.decode()] = _blanks_of(text_of(span))
        elif name == b"width":
            options["width"] = _whole(span)
    try:
        if is_valid(text):
            return lay_out(text, Layout(**options), lambda span: list(items(span)))
    except TooDeep:
        pass
    return _ugly(text, b"")


def _blanks_of(text: bytes) -> bytes:
    """Only white space can indent."""
    return bytes(char for char in text if char in b" \t\n\r")


def _whole(span: Span) -> int:
    text = raw(span)
    if text[:1] in (b"t",):
        return 1
    number = number_of(string_of(span) if text[0] == QUOTE else text)
    return int(number) if abs(number) < 1 << 31 else 0


FUNCTIONS: Final[dict[bytes, Callable[[bytes, bytes], bytes]]] = {
    b"this": _this,
    b"ugly": _ugly,
    b"pretty": _pretty,
    b"reverse": _reverse,
    b"flatten": _flatten,
    b"join": _join,
    b"valid": _valid,
    b"keys": _keys,
    b"values": _values,
    b"tostr": _tostr,
    b"fromstr": _fromstr,
    b"group": _group,
}
