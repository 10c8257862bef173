"""Whether a value satisfies the comparison of a query.

The type of the JSON value decides how it is compared: strings as bytes (or with a glob), numbers
as float64 with whatever number the right side can be read as (0 if none), booleans with the words
true and false; null, objects and arrays satisfy no comparison. `~` before the right side compares
the truth, falsehood, nullness or presence of the value instead, and is what absent values can meet.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from .globs import compile_glob, compile_text_glob
from .values import LETTER_F, LETTER_T, QUOTE, Span, number_of, string_of

Test = Callable[[Span | None], bool]
ValueTest = Callable[[Any], bool]

_TRUE_WORDS: Final = frozenset((b"1", b"t", b"true"))
_FALSE_WORDS: Final = frozenset((b"0", b"f", b"false"))
_NUMBER_START: Final = frozenset(b"+-0123456789iIN")


def compile_test(operator: bytes, value: bytes) -> Test:
    """The comparison as a function of the value found (None: absent)."""
    if value[:1] == b"~":
        return _tilde(operator, value[1:])
    if not operator:
        return lambda span: span is not None
    on_string = _string_test(operator, value)
    on_number = _order_test(operator, number_of(value))
    if_true, if_false = _truth(operator, value)

    def test(span: Span | None) -> bool:
        if span is None:
            return False
        buffer, start, end = span
        first = buffer[start]
        if first == QUOTE:
            return on_string(string_of(span))
        if first in _NUMBER_START or (
            first == 0x6E and buffer[start + 1 : end][:1] not in (b"u", b"")
        ):
            return on_number(number_of(buffer[start:end]))
        if first == LETTER_T:
            return if_true
        return first == LETTER_F and if_false

    return test


def compile_value_test(operator: bytes, value: bytes) -> ValueTest | None:
    """As `compile_test`, for values that a JSON decoder made; None if they do not tell enough."""
    if value[:1] == b"~":
        return None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    on_number = _order_test(operator, number_of(value))
    if_true, if_false = _truth(operator, value)
    if not operator:
        return lambda _: True
    if operator == b"=":  # the most frequent one, without a call more than needed
        number = number_of(value)

        def equal(found: Any) -> bool:
            kind = type(found)
            if kind is str:
                return bool(found == text)
            if kind is int:
                return _as_float(found) == number
            if kind is float:
                return bool(found == number)
            return if_true if found is True else found is False and if_false

        return equal
    on_text = _text_test(operator, text)

    def test(found: Any) -> bool:
        kind = type(found)
        if kind is str:
            return on_text(found)
        if kind is float:
            return on_number(found)
        if kind is int:
            return on_number(_as_float(found))
        return if_true if found is True else found is False and if_false

    return test


def _as_float(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


Ordered = TypeVar("Ordered", bytes, str, float)


def _order_test(operator: bytes, value: Ordered) -> Callable[[Ordered], bool]:
    match operator:
        case b"=":
            return lambda found: found == value
        case b"!=":
            return lambda found: found != value
        case b"<":
            return lambda found: found < value
        case b"<=":
            return lambda found: found <= value
        case b">":
            return lambda found: found > value
        case b">=":
            return lambda found: found >= value
        case _:
            return lambda found: False


def _string_test(operator: bytes, value: bytes) -> Callable[[bytes], bool]:
    if operator not in (b"%", b"!%"):
        return _order_test(operator, value)
    glob = compile_glob(value)
    return glob if operator == b"%" else lambda text: not glob(text)


def _text_test(operator: bytes, value: str) -> Callable[[str], bool]:
    """As `_string_test`: characters sort as their UTF-8 does."""
    if operator not in (b"%", b"!%"):
        return _order_test(operator, value)
    glob = compile_text_glob(value)
    return glob if operator == b"%" else lambda text: not glob(text)


def _truth(operator: bytes, word: bytes) -> tuple[bool, bool]:
    """The verdicts for true and for false."""
    match operator:
        case b"=":
            return word == b"true", word == b"false"
        case b"!=":
            return word != b"true", word != b"false"
        case b">":
            return word == b"false", False
        case b">=":
            return True, False
        case b"<":
            return False, word == b"true"
        case b"<=":
            return False, True
        case _:
            return False, False


def _tilde(operator: bytes, kind: bytes) -> Test:
    predicate = _KINDS.get(kind)
    if predicate is None:
        return lambda span: False
    if_true, if_false = (True, True) if not operator else _truth(operator, b"true")
    return lambda span: if_true if predicate(span) else if_false


def _is_null(span: Span | None) -> bool:
    return span is None or (span[0][span[1]] == 0x6E and not _is_number(span))


def _is_number(span: Span) -> bool:
    buffer, start, end = span
    first = buffer[start]
    return first in _NUMBER_START or (
        first == 0x6E and buffer[start + 1 : end][:1] not in (b"u", b"")
    )


def _is_true(span: Span | None) -> bool:
    if span is None:
        return False
    first = span[0][span[1]]
    if first == QUOTE:
        return string_of(span).lower() in _TRUE_WORDS
    if _is_number(span):
        return number_of(span[0][span[1] : span[2]]) != 0
    return first == LETTER_T


def _is_false(span: Span | None) -> bool:
    if span is None:
        return True
    first = span[0][span[1]]
    if first == QUOTE:
        return string_of(span).lower() in _FALSE_WORDS
    if _is_number(span):
        return number_of(span[0][span[1] : span[2]]) == 0
    return first == LETTER_F or first == 0x6E


_KINDS: Final[dict[bytes, Test]] = {
    b"*": lambda span: span is not None,
    b"null": _is_null,
    b"true": _is_true,
    b"false": _is_false,
}
