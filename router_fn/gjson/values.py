"""JSON values as byte ranges: finding their ends, and reading the few that a query compares.

Nothing here builds a tree. A value is a range of a buffer, its type is told by its first byte.
The rules are those of GJSON 1.18.0, which reads leniently: on a valid document they are the rules
of JSON, on other text (the content of a string after `@fromstr`, a literal after `!`) they decide
what a path finds. Every function is total, and linear in the range that it looks at.

Vocabulary: a *span* is `(buffer, start, end)`; an absent value is None.
"""

import re
from typing import Final

Span = tuple[bytes, int, int]

QUOTE: Final = 0x22
MINUS: Final = 0x2D
OBJECT: Final = 0x7B
ARRAY: Final = 0x5B
END_ARRAY: Final = 0x5D
LETTER_F: Final = 0x66
LETTER_N: Final = 0x6E
LETTER_T: Final = 0x74
LETTER_U: Final = 0x75

# What may begin a value; everything else is passed over while one is looked for.
_START: Final = rb'"{\[ntf+\-0-9iIN'
_TEXT: Final = rb'[^"\\]*+(?:\\.[^"\\]*+)*+'
_NUMBER: Final = rb"(?:[+\-0-9iIN]|n(?!u))[^\x00-\x20,\]}]*+"
_WORD: Final = rb"[tfn][a-z]*+"

# Containers nested up to this deep are skipped inside the regex engine, deeper ones by counting
# brackets one at a time. Inference bodies are rarely deeper than six.
_SHALLOW: Final = 7


def _balanced(depth: int) -> bytes:
    inner = b"" if depth == 0 else b"|" + _balanced(depth - 1)
    return rb'[{\[(](?:[^"{}\[\]()]++|"' + _TEXT + rb'"' + inner + rb")*+[}\])]"


_VALUE = re.compile(
    rb'"' + _TEXT + rb'"|' + _balanced(_SHALLOW) + b"|" + _NUMBER + b"|" + _WORD, re.S
)
_BRACKET = re.compile(rb'"' + _TEXT + rb'(?:"|\\?\Z)|[{\[(]|([}\])])', re.S)

# Group 1: the object ends here. Groups 2 and 3: the key up to its first escape, and the rest of it;
# the match ends where the key's value begins (or where the range ends).
next_member = re.compile(
    rb'[^"}]*+(?:\}()|"([^"\\]*+)((?:\\.[^"\\]*+)*+)"[^' + _START + rb"]*+)", re.S
).match
# Ends at the next element of an array, at its closing bracket, or at the end of the range.
skip_to_element = re.compile(rb"[^" + _START + rb"\]]*+").match
find_value = re.compile(rb"[" + _START + rb"]").search
find_container = re.compile(rb"[{\[]").search
_match_value = _VALUE.match


def value_end(buffer: bytes, start: int, end: int) -> int:
    """Where the value that begins at `start` ends; -1 if it is a string that never ends."""
    found = _match_value(buffer, start, end)
    if found is not None:
        return found.end()
    if buffer[start] == QUOTE:
        return -1
    return balanced_end(buffer, start, end)


def balanced_end(buffer: bytes, start: int, end: int) -> int:
    """Where the bracketed run that begins at `start` ends; brackets of all kinds count alike.

    One that never ends takes the whole range, and `end + 1` tells that a string within it is open.
    """
    depth = 1  # the first character counts as an opening bracket, whatever it is
    opener = start
    for token in _BRACKET.finditer(buffer, start + 1, end):
        opener = token.start()
        if token.lastindex:
            depth -= 1
            if depth == 0:
                return token.end()
        elif buffer[opener] != QUOTE:
            depth += 1
    if opener > start and buffer[opener] == QUOTE and value_end(buffer, opener, end) < 0:
        return end + 1
    return end


def nested_deeper(text: bytes, most: int) -> bool:
    """Whether brackets are nested more than `most` deep in `text`, which is valid JSON."""
    depth = 0
    for token in _BRACKET.finditer(text):
        if token.lastindex:
            depth -= 1
        elif text[token.start()] != QUOTE:
            depth += 1
            if depth > most:
                return True
    return False


def squash(text: bytes) -> bytes:
    """The leading string or bracketed run of `text` (which begins with a quote or a bracket)."""
    if text[:1] != b'"':
        return text[: balanced_end(text, 0, len(text))]
    found = _BRACKET.match(text)
    return text if found is None else found.group()


_NUMBER_START: Final = frozenset(b"+-0123456789iIN")
_BREAK = re.compile(rb"[\x00-\x20,\]}]")
_VISIBLE = re.compile(rb"[^\x00-\x20]")
_NOT_LETTER = re.compile(rb"[^a-z]")


def parse(text: bytes) -> Span | None:
    """The single value that a whole text holds; a container keeps what follows it."""
    found = _VISIBLE.search(text)
    if found is None:
        return None
    start, end = found.start(), len(text)
    first = text[start]
    if first in (OBJECT, ARRAY):
        return (text, start, end)
    if first == QUOTE:
        stop = value_end(text, start, end)
        return (text, start, end if stop < 0 else stop)
    if first in _NUMBER_START or (
        first == LETTER_N and start + 1 < end and text[start + 1] != LETTER_U
    ):
        stopped = _BREAK.search(text, start + 1)
    elif first in (LETTER_T, LETTER_F, LETTER_N):
        stopped = _NOT_LETTER.search(text, start + 1)
    else:
        return None
    return (text, start, stopped.start() if stopped else end)


def string_of(span: Span) -> bytes:
    """The text of a string value, escapes resolved."""
    buffer, start, end = span
    if end - start < 2 or buffer[end - 1] != QUOTE:
        inner = buffer[start + 1 : end]  # a string that was never closed
    else:
        inner = buffer[start + 1 : end - 1]
    return unescape(inner) if b"\\" in inner else inner


_PIECE = re.compile(rb"[^\\\x00-\x1f]++|\\u(.{4})|\\([^u])", re.S)
_SHORT: Final = {
    0x22: b'"',
    0x5C: b"\\",
    0x2F: b"/",
    0x62: b"\b",
    0x66: b"\f",
    0x6E: b"\n",
    0x72: b"\r",
    0x74: b"\t",
}
_REPLACEMENT: Final = "�".encode()
_HEX = re.compile(rb"[0-9a-fA-F]{4}\Z")


def _unit(digits: bytes) -> int:
    return int(digits, 16) if _HEX.match(digits) else 0


def unescape(text: bytes) -> bytes:
    """Resolve JSON escapes; reading ends at a control character or at a broken escape.

    A surrogate without its partner becomes U+FFFD, and swallows a `\\u` escape that follows it.
    """
    out: list[bytes] = []
    i, end = 0, len(text)
    while i < end:
        piece = _PIECE.match(text, i)
        if piece is None:
            break
        i = piece.end()
        if piece.lastindex is None:
            out.append(piece.group())
        elif piece.lastindex == 1:
            unit = _unit(piece.group(1))
            if 0xD800 <= unit < 0xE000:
                partner = _PIECE.match(text, i)
                low = 0
                if partner is not None and partner.lastindex == 1:
                    low = _unit(partner.group(1))
                    i = partner.end()
                if unit < 0xDC00 <= low < 0xE000:
                    unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
                    out.append(chr(unit).encode())
                else:
                    out.append(_REPLACEMENT)
            else:
                out.append(chr(unit).encode())
        else:
            short = _SHORT.get(text[i - 1])
            if short is None:
                break
            out.append(short)
    return b"".join(out)


_FLOAT = re.compile(
    rb"[+-]?(?:[0-9_]*+(?:\.[0-9_]*+)?(?:[eE][+-]?[0-9][0-9_]*+)?|(?i:inf(?:inity)?))\Z|(?i:nan)\Z"
)
_HEX_FLOAT = re.compile(
    rb"([+-]?0[xX])(_?[0-9a-fA-F_]*+(?:\.[0-9a-fA-F_]*+)?)([pP][+-]?[0-9][0-9_]*+)\Z"
)
_HEX_UNDERSCORES = re.compile(rb"(?:_?[0-9a-fA-F])*+(?:\.(?:[0-9a-fA-F](?:_?[0-9a-fA-F])*+)?)?\Z")
_EXPONENT_UNDERSCORES = re.compile(rb"[pP][+-]?[0-9](?:_?[0-9])*+\Z")


def number_of(text: bytes) -> float:
    """The float64 that Go's ParseFloat makes of a text: 0 if none, ±Inf beyond the range."""
    if _FLOAT.match(text):
        try:
            return float(text)
        except ValueError:  # no digit, or an underscore out of place
            return 0.0
    return _hex_number(text) if _HEX_FLOAT.match(text) else 0.0


def _hex_number(text: bytes) -> float:
    found = _HEX_FLOAT.match(text)
    if (
        found is None
        or not _HEX_UNDERSCORES.match(found[2])
        or not _EXPONENT_UNDERSCORES.match(found[3])
    ):
        return 0.0
    try:
        return float.fromhex(text.replace(b"_", b"").decode("ascii"))
    except ValueError:  # no digit at all
        return 0.0
    except OverflowError:
        return float("-inf") if text[:1] == b"-" else float("inf")
