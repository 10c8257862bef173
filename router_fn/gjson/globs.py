"""Glob patterns of GJSON (`*`, `?`, `\\` escapes) over UTF-8 text, without backtracking.

A pattern is cut at its stars: the first piece must begin the text, the last must end it, and each
piece between is taken where it first occurs after the one before. That is enough for patterns
without other repetition, so hostile patterns such as `*a*a*a*b` cost one pass.
"""

import re
from collections.abc import Callable
from typing import Final

Glob = Callable[[bytes], bool]

_STAR: Final = "*"
_ANY: Final = "?"
_ESCAPE: Final = "\\"


def _decode(text: bytes) -> str:
    """One character per rune; as in Go, each byte that is not UTF-8 reads as U+FFFD."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return _BROKEN.sub("�", text.decode("utf-8", "surrogateescape"))


_BROKEN = re.compile("[\udc80-\udcff]")


def _pieces(pattern: str) -> list[list[str | None]] | None:
    """The runs between stars, None standing for `?`; None if the pattern can match nothing."""
    pieces: list[list[str | None]] = [[]]
    i = 0
    while i < len(pattern):
        char = pattern[i]
        if char == _STAR:
            pieces.append([])
        elif char == _ANY:
            pieces[-1].append(None)
        elif char == _ESCAPE:
            i += 1
            if i < len(pattern):
                pieces[-1].append(pattern[i])
            elif len(pieces) > 1:
                pieces[-1].append(_ESCAPE)  # a trailing backslash is literal, but only after a star
            else:
                return None
        else:
            pieces[-1].append(char)
        i += 1
    return pieces


def _finder(piece: list[str | None]) -> Callable[[str, int, int], int]:
    """A function (text, start, end) -> where the first occurrence ends, -1 if there is none."""
    width = len(piece)
    if None not in piece:
        literal = "".join(char or "" for char in piece)

        def find_literal(text: str, start: int, end: int) -> int:
            found = text.find(literal, start, end)
            return found if found < 0 else found + width

        return find_literal
    search = re.compile(_regex(piece), re.S).search

    def find(text: str, start: int, end: int) -> int:
        match = search(text, start, end)
        return -1 if match is None else match.end()

    return find


def _regex(piece: list[str | None]) -> str:
    return "".join("." if char is None else re.escape(char) for char in piece)


def compile_glob(pattern: bytes) -> Glob:
    """A predicate over whole UTF-8 texts."""
    if pattern == b"*":
        return lambda _: True
    matches = compile_text_glob(_decode(pattern))
    return lambda text: matches(_decode(text))


def compile_text_glob(pattern: str) -> Callable[[str], bool]:
    """As `compile_glob`, over texts that are decoded already."""
    pieces = _pieces(pattern)
    if pieces is None:
        return lambda _: False
    if len(pieces) == 1:
        if None not in pieces[0]:
            only = "".join(char or "" for char in pieces[0])
            return lambda text: text == only
        whole = re.compile(_regex(pieces[0]), re.S).fullmatch
        return lambda text: whole(text) is not None
    first, last = pieces[0], pieces[-1]
    if not first and not last and len(finders_of := [p for p in pieces[1:-1] if p]) == 1:
        (piece,) = finders_of
        if None not in piece:
            inner = "".join(char or "" for char in piece)
            return lambda text: inner in text
    head = re.compile(_regex(first), re.S).match
    tail = re.compile(_regex(last), re.S).match
    finders = [_finder(piece) for piece in pieces[1:-1] if piece]
    head_width, tail_width = len(first), len(last)

    def matches(text: str) -> bool:
        end = len(text) - tail_width
        if end < head_width or head(text) is None or tail(text, end) is None:
            return False
        at = head_width
        for find in finders:
            at = find(text, at, end)
            if at < 0:
                return False
        return True

    return matches
