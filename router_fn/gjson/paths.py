"""GJSON path syntax: text to steps.

What a piece of a path means depends on the container that it meets, so a `Path` is read lazily
and separately for its three uses: at the start of a lookup (`head`), as a key of an object
(`object_step`) and as an index or query of an array (`array_step`). Each reading is done once.
Any text is a path; text that makes no sense simply finds nothing.

Source: GJSON 1.18.0 path syntax; the router's condition vectors pin it.
"""

import re
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

from .globs import Glob, compile_glob
from .matching import Test, ValueTest, compile_test, compile_value_test
from .plain import MAX_STEPS, PlainStep
from .values import squash, unescape

if TYPE_CHECKING:
    from .heads import Head

MODIFIERS: Final = frozenset(
    b"pretty ugly reverse this flatten join valid keys values tostr fromstr group dig".split()
)
_DOT, _PIPE, _HASH, _BACKSLASH, _QUOTE = b'.|#\\"'
_PLAIN: Final = re.compile(
    rb"""[^\x00-\x1f.|\\*?#@!\[\]{}"]++(?:\.[^\x00-\x1f.|\\*?#@!\[\]{}"]++)*+"""
)


class ObjectStep(NamedTuple):
    """A key of an object: `key`, or a glob; then `rest` (after a dot) or `pipe` (after a bar)."""

    key: bytes
    glob: Glob | None
    rest: "Path | None"
    pipe: "Path | None"


class Query(NamedTuple):
    """`#(path op value)`, and with a second hash: every match instead of the first."""

    path: "Path"
    operator: bytes
    value: bytes
    test: Test
    """Whether the value at `path` satisfies the comparison (None: there is no such value)."""
    every: bool
    value_test: ValueTest | None
    """The same for decoded values, if it can be told from them."""


class ArrayStep(NamedTuple):
    """A position (-1: none can match), or one of the forms that begin with a hash."""

    position: int
    hashed: bool  # there is a hash in it: elements are never entered by index
    counts: bool  # `#`
    each: "Path | None"  # `#.rest`
    query: Query | None
    rest: "Path | None"
    pipe: "Path | None"


class Path:
    """One path text and its readings."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"Path({self.text!r})"

    @cached_property
    def head(self) -> "Head":
        from .heads import read_head  # which needs this class

        return read_head(self)

    @cached_property
    def object_step(self) -> ObjectStep:
        return _read_object_step(self.text)

    @cached_property
    def array_step(self) -> ArrayStep:
        return _read_array_step(self.text)

    @cached_property
    def plain(self) -> tuple[PlainStep, ...]:
        """The steps of a path of keys and indexes without any special character; else empty."""
        if not _PLAIN.fullmatch(self.text):
            return ()
        parts = self.text.split(b".")
        if len(parts) > MAX_STEPS:
            return ()
        return tuple(PlainStep(part, _index(part)) for part in parts)

    @cached_property
    def split_at_pipe(self) -> "tuple[Path, Path | None]":
        """The part before the first bar outside a query, and the part after it."""
        at = _find_pipe(self.text)
        if at < 0:
            return self, None
        return Path(self.text[:at]), Path(self.text[at + 1 :])


def trim(text: bytes) -> bytes:
    """Without leading and trailing bytes up to and including the space."""
    return text.strip(_BLANKS)


_BLANKS: Final = bytes(range(0x21))


# --- keys -------------------------------------------------------------------------------------


def _read_object_step(text: bytes) -> ObjectStep:
    part = bytearray()
    wild = False
    i, end = 0, len(text)
    while i < end:
        char = text[i]
        if char == _PIPE:
            return _object_step(part, wild, None, Path(text[i + 1 :]))
        if char == _DOT:
            rest = Path(text[i + 1 :])
            if _starts_like_pipe(text, i + 1):
                return _object_step(part, wild, None, rest)
            return _object_step(part, wild, rest, None)
        if char == _BACKSLASH:
            i += 1
            if i < end:
                part.append(text[i])
        else:
            if char in b"*?":
                wild = True
            part.append(char)
        i += 1
    return _object_step(part, wild, None, None)


def _object_step(part: bytearray, wild: bool, rest: Path | None, pipe: Path | None) -> ObjectStep:
    key = bytes(part)
    return ObjectStep(key, compile_glob(key) if wild else None, rest, pipe)


def _starts_like_pipe(text: bytes, at: int) -> bool:
    """A dot before a modifier or a multipath works like a bar."""
    if at >= len(text):
        return False
    if text[at : at + 1] == b"@":
        stop = at + 1
        while stop < len(text) and text[stop] not in b".|:":
            stop += 1
        return text[at + 1 : stop] in MODIFIERS
    return text[at] in b"[{"


# --- indexes and queries ----------------------------------------------------------------------


def _read_array_step(text: bytes) -> ArrayStep:
    hashed = False
    each: Path | None = None
    query: Query | None = None
    i, end = 0, len(text)
    part = text
    rest = pipe = None
    while i < end:
        char = text[i]
        if char == _PIPE:
            part, pipe = text[:i], Path(text[i + 1 :])
            break
        if char == _DOT:
            part = text[:i]
            if not hashed and _starts_like_pipe(text, i + 1):
                pipe = Path(text[i + 1 :])
            else:
                rest = Path(text[i + 1 :])
            break
        if char == _HASH:
            hashed = True
            if i == 0 and end > 1:
                if text[1] == _DOT:
                    each = Path(text[2:])
                elif text[1] in b"[(":
                    query, stop = _read_query(text)
                    if stop < 0:
                        break
                    i = stop - 1
        i += 1
    index = -1 if hashed else _index(part)
    return ArrayStep(index, hashed, part == b"#", each, query, rest, pipe)


def _index(part: bytes) -> int:
    """An unsigned decimal; as in Go it wraps at 2**64."""
    if not part or part.strip(b"0123456789"):
        return -1
    value: int = int(part[-64:]) & 0xFFFFFFFFFFFFFFFF
    return value if value < 1 << 63 else -1


def _read_query(text: bytes) -> tuple[Query, int]:
    """Read `#(…)` or `#[…]` at the start of `text`: the query and where it ends, -1 if it does not.

    An unfinished query is one without path, operator and value; that is what it matches as, too.
    """
    i, end = 2, len(text)
    split = 0  # where operator and value begin
    depth = 1
    escapes = False
    while i < end:
        char = text[i]
        if depth == 1 and not split and char in b"!=<>%":
            split = i
        elif char == _BACKSLASH:
            i += 1
        elif char in b"[(":
            depth += 1
        elif char in b"])":
            depth -= 1
            if not depth:
                break
        elif char == _QUOTE:
            i += 1
            while i < end and text[i] != _QUOTE:
                if text[i] == _BACKSLASH:
                    escapes = True
                    i += 1
                i += 1
        i += 1
    if depth:
        return _make_query(b"", b"", b"", False), -1
    every = text[i + 1 : i + 2] == b"#"
    if not split:
        return _make_query(text[2:i], b"", b"", every), i + 1
    operator, value = _read_comparison(trim(text[split:i]))
    if len(value) >= 2 and value[0] == value[-1] == _QUOTE:
        value = value[1:-1]
        if escapes:
            value = unescape(value)
    return _make_query(text[2:split], operator, value, every), i + 1


def _make_query(path: bytes, operator: bytes, value: bytes, every: bool) -> Query:
    test, value_test = compile_test(operator, value), compile_value_test(operator, value)
    return Query(Path(trim(path)), operator, value, test, every, value_test)


def _read_comparison(text: bytes) -> tuple[bytes, bytes]:
    """Split `op value`; `==` is `=`. A lone `!` before other text is no operator at all."""
    if text[:2] == b"==":
        return b"=", trim(text[2:])
    if text[:2] in (b"!=", b"!%", b"<=", b">="):
        return text[:2], trim(text[2:])
    if text[:1] == b"!" and len(text) > 1:
        return b"", text
    return text[:1], trim(text[1:])


def _find_pipe(text: bytes) -> int:
    """Where the first bar outside queries (and outside a leading `{…}`) is, or -1."""
    if b"|" not in text:
        return -1
    end = len(text)
    if text[:1] == b"{":
        stop = 1 + len(squash(text[1:])) if end > 1 else end
        return stop if stop < end and text[stop] == _PIPE else -1
    i = 0
    while i < end:
        char = text[i]
        if char == _BACKSLASH:
            i += 1
        elif char == _PIPE:
            return i
        elif char == _DOT:
            if i == end - 1:
                return -1
            if text[i + 1] == _HASH:
                i += 2
                if i == end:
                    return -1
                if text[i] in b"[(":
                    i = _query_end(text, i)
        i += 1
    return -1


def _query_end(text: bytes, i: int) -> int:
    """The closing bracket of the kind that opens at `i`."""
    opener = text[i]
    closer = opener + (2 if opener == 0x5B else 1)
    depth = 1
    i += 1
    while i < len(text):
        char = text[i]
        if char == _BACKSLASH:
            i += 1
        elif char == opener:
            depth += 1
        elif char == closer:
            depth -= 1
            if not depth:
                break
        elif char == _QUOTE:
            i += 1
            while i < len(text) and text[i] != _QUOTE:
                i += 2 if text[i] == _BACKSLASH else 1
        i += 1
    return i
