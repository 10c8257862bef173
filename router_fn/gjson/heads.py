"""The beginnings of GJSON paths: what is done before any key is looked up.

A path may begin with a modifier (`@keys`), a literal (`!true`), a multipath (`[a,b]`, `{x:a}`) or
`..` (JSON lines); anything else is plain. What looks like one of these but is none is a key.
"""

from typing import Final, NamedTuple

from .paths import MODIFIERS, Path
from .values import balanced_end, squash

_PIPE, _BACKSLASH, _QUOTE = b'|\\"'
_OPENERS: Final = frozenset(b"([{")
_CLOSERS: Final = frozenset(b")]}")


class Plain(NamedTuple):
    path: Path


class Lines(NamedTuple):
    """`..path`: the text is read as an array of its top-level values."""

    path: Path


class Modifier(NamedTuple):
    name: bytes
    argument: bytes
    rest: Path | None
    each: Path | None  # the argument of `@dig`


class Literal(NamedTuple):
    """`!value`"""

    text: bytes
    rest: Path | None


class Multi(NamedTuple):
    """`[a,b]` or `{x:a,y:b}`: a new document from several paths; `keys` are JSON strings."""

    opener: bytes
    members: tuple[tuple[bytes, Path], ...]
    rest: Path | None


Head = Plain | Lines | Modifier | Literal | Multi


def _rest(text: bytes) -> Path | None:
    """What follows a modifier, a literal or a multipath; anything but a dot or a bar is dropped."""
    return Path(text[1:]) if text[:1] in (b".", b"|") else None


def read_head(path: Path) -> Head:
    text = path.text
    if len(text) > 1:
        head: Head | None = None
        if text[0] == 0x40:
            head = _read_modifier(text)
        elif text[0] == 0x21:
            head = _read_literal(text)
        elif text[0] in b"[{":
            head, text = _read_multi(text)
            path = Path(text)
        if head is not None:
            return head
    if text[:2] == b"..":
        return Lines(Path(text[2:]))
    return Plain(path)


def _name_end(text: bytes, stops: bytes) -> int:
    i = 1
    while i < len(text) and text[i] not in stops:
        i += 1
    return i


def _read_modifier(text: bytes) -> Modifier | None:
    stop = _name_end(text, b":|.")
    name = text[1:stop]
    if name not in MODIFIERS:
        return None
    if text[stop : stop + 1] != b":":
        return _make_modifier(name, b"", text[stop:])
    after = text[stop + 1 :]
    argument = squash(after) if after[:1] in (b"{", b"[", b'"') else _simple_argument(after)
    return _make_modifier(name, argument, after[len(argument) :])


def _make_modifier(name: bytes, argument: bytes, tail: bytes) -> Modifier:
    each = Path(argument) if name == b"dig" else None
    return Modifier(name, argument, _rest(tail), each)


def _simple_argument(text: bytes) -> bytes:
    i = 0
    while i < len(text) and text[i] != _PIPE:
        i += len(squash(text[i:])) if text[i] in b'{["(' else 1
    return text[:i]


def _read_literal(text: bytes) -> Literal | None:
    if text[1] in b'{["+-0123456789':
        # Read like a bracketed run even if it is a string or a number: it ends at the closing
        # bracket that nothing opened, usually at the end of the path.
        stop = balanced_end(text, 1, len(text))
        return Literal(text[1:stop], _rest(text[stop:]))
    stop = _name_end(text, b"|.")
    name = text[1:stop]
    if name.lower() in (b"true", b"false", b"null", b"nan", b"inf"):
        return Literal(name, _rest(text[stop:]))
    return None


def _read_multi(text: bytes) -> tuple[Multi | None, bytes]:
    """A multipath, or what is left to look up if it is none."""
    members, tail = _read_selectors(text)
    if members is None:
        return None, b""
    if tail and tail[0] not in b".|":
        return None, tail
    opener = text[:1]
    named = tuple(
        (_key_of(name, path) if opener == b"{" else b"", Path(path)) for name, path in members
    )
    return Multi(opener, named, _rest(tail)), b""


def _read_selectors(text: bytes) -> tuple[list[tuple[bytes, bytes]] | None, bytes]:
    """Cut `[…,…]` or `{name:…,…}` into (name, path) pairs; also what follows the bracket."""
    members: list[tuple[bytes, bytes]] = []
    depth, start, colon, in_modifier = 1, 1, 0, False
    i = 1
    while i < len(text):
        char = text[i]
        if char == _BACKSLASH:
            i += 1
        elif char == 0x40:
            in_modifier = in_modifier or text[i - 1] in b".|"
        elif char == 0x3A:
            if not in_modifier and not colon and depth == 1:
                colon = i
        elif char == _QUOTE:
            i += 1
            while i < len(text) and text[i] != _QUOTE:
                i += 2 if text[i] == _BACKSLASH else 1
        elif char in _OPENERS:
            depth += 1
        elif char in _CLOSERS:
            depth -= 1
        if (char == 0x2C and depth == 1) or depth == 0:
            name = text[start:colon] if colon else b""
            members.append((name, text[colon + 1 if colon else start : i]))
            colon, start, in_modifier = 0, i + 1, False
            if depth == 0:
                return members, text[i + 1 :]
        i += 1
    return None, b""


def _key_of(name: bytes, path: bytes) -> bytes:
    """The JSON string under which a member of `{…}` is put."""
    from .modifiers import quote
    from .validity import is_valid

    if name:
        return name if name[:1] == b'"' and is_valid(name) else quote(name)
    last = _last_component(path)
    if any(char < 0x20 or char in b"[]{}()#|!" for char in last):
        return b'"_"'
    return quote(last)


def _last_component(path: bytes) -> bytes:
    for i in range(len(path) - 1, -1, -1):
        if path[i] in b"|." and not (i > 0 and path[i - 1] == _BACKSLASH):
            return path[i + 1 :]
    return path
