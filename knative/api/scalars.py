"""Plain YAML scalars to JSON values, as Kubernetes' YAML reader understands them (YAML 1.1 with
care).

`resolve` is the only entry. Values JSON cannot carry (`.inf`, `.nan`) are refused; spellings that
surprise people (`no`, `on`, `0777`, `1_000`, `12:30:45`) are resolved as Kubernetes does and
reported.
"""

import re

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_YES = frozenset({"yes", "Yes", "YES", "on", "On", "ON", "y", "Y"})
_NO = frozenset({"no", "No", "NO", "off", "Off", "OFF", "n", "N"})

_MAYBE_NUMBER = frozenset("0123456789+-.")
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_OCTAL = re.compile(r"([-+]?)0o?([0-7]+)\Z")
_HEX = re.compile(r"([-+]?)0x([0-9a-fA-F]+)\Z")
_BINARY = re.compile(r"([-+]?)0b([01]+)\Z")
_UNDERSCORED = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?\Z")
_NOT_FINITE = re.compile(r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z")

_MAX_DIGITS = 400
"""Longer numbers are text to us: converting a million digits takes minutes and means nothing."""


class BadScalar(ValueError):
    """A plain scalar that has no JSON value; the message says what to write instead."""


def resolve(text: str) -> tuple[object, str]:
    """The JSON value of a plain scalar, and a warning ("" when there is nothing to say).

    Raises BadScalar for infinities and not-a-number.
    """
    first = text[:1]
    if first not in _MAYBE_NUMBER:
        return _resolve_word(text)
    if len(text) > _MAX_DIGITS:
        return text, ""
    return _resolve_number(text)


def resolve_quietly(text: str) -> object:
    """The value without the warning; the text itself where there is no value (for mapping keys)."""
    try:
        return resolve(text)[0]
    except BadScalar:
        return text


def _resolve_word(text: str) -> tuple[object, str]:
    if text in _NULLS:
        return None, ""
    if text in _TRUE:
        return True, ""
    if text in _FALSE:
        return False, ""
    if text in _YES or text in _NO:
        value = text in _YES
        return (
            value,
            f'{text} means {str(value).lower()} here; write {str(value).lower()} or "{text}"',
        )
    return text, ""


def _resolve_number(text: str) -> tuple[object, str]:
    if _INT.match(text):
        return int(text), ""
    if match := _OCTAL.match(text):
        value = int(match[1] + match[2], 8)
        return value, f'{text} is octal ({value}); write {value}, or "{text}" for text'
    if _FLOAT.match(text):
        number = float(text)
        if number in (float("inf"), float("-inf")):
            raise BadScalar(f"{text} is too large for a number")
        return number, ""
    if match := _HEX.match(text) or _BINARY.match(text):
        base = 16 if "x" in text[:3] else 2
        return int(match[1] + match[2], base), ""
    if "_" in text and _UNDERSCORED.match(text):
        plain = text.replace("_", "")
        whole: object = int(plain) if "." not in plain else float(plain)
        return whole, f'{text} is read as the number {plain}; write {plain}, or "{text}" for text'
    if _NOT_FINITE.match(text):
        raise BadScalar(
            f'{text} cannot be carried by Kubernetes; quote it ("{text}") if text is meant'
        )
    return text, ""
