"""CESQL's types, casts and built-in functions, as a table. Pure.

A function gets values already cast to its parameter types and returns `(value, error kind or
None)`. Source: CloudEvents SQL expression language 1.0, sections 3.3 (types), 3.4 (casting), 3.5
(functions).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Value = str | int | bool
Kind = Literal["parse", "math", "cast", "missingAttribute", "missingFunction", "functionEvaluation"]
Outcome = tuple[Value, Kind | None]

MAX_INT = 2**31 - 1
MIN_INT = -(2**31)
ZERO: dict[type, Value] = {str: "", int: 0, bool: False}
"""What an operation of this type yields beside its error."""

_INTEGER = re.compile(r"[+-]?[0-9]+\Z")


def cast(value: Value, to: type, *, explicit: bool = False) -> Outcome:
    """`value` as `to`; integers become booleans only when asked by name (BOOL), not implicitly."""
    if type(value) is to:
        return value, None
    if to is str:
        return ("true" if value else "false") if isinstance(value, bool) else str(value), None
    if to is int:
        if isinstance(value, bool):
            return int(value), None
        if isinstance(value, str) and _INTEGER.match(value) and len(value) < 16:
            number = int(value)
            if MIN_INT <= number <= MAX_INT:
                return number, None
        return 0, "cast"
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true", None
    if explicit and isinstance(value, int):
        return value != 0, None
    return False, "cast"


@dataclass(frozen=True, slots=True)
class Function:
    """One signature: parameter types (None: any), what repeats after them, the result's type."""

    parameters: tuple[type | None, ...]
    result: type
    call: Callable[[Sequence[Value]], Outcome]
    repeats: type | None = None


def _abs(args: Sequence[Value]) -> Outcome:
    number = int(args[0])
    return (MAX_INT, "math") if number == MIN_INT else (abs(number), None)


def _left(args: Sequence[Value]) -> Outcome:
    text, count = str(args[0]), int(args[1])
    return (text, "functionEvaluation") if count < 0 else (text[:count], None)


def _right(args: Sequence[Value]) -> Outcome:
    text, count = str(args[0]), int(args[1])
    if count < 0:
        return text, "functionEvaluation"
    return (text[-count:] if count else ""), None


def _substring(args: Sequence[Value]) -> Outcome:
    text, position = str(args[0]), int(args[1])
    length = int(args[2]) if len(args) == 3 else len(text)
    if abs(position) > len(text) or length < 0:
        return "", "functionEvaluation"
    if position == 0:
        return "", None
    start = position - 1 if position > 0 else len(text) + position
    return text[start : start + length], None


FUNCTIONS: dict[str, tuple[Function, ...]] = {
    "INT": (Function((None,), int, lambda a: cast(a[0], int)),),
    "BOOL": (Function((None,), bool, lambda a: cast(a[0], bool, explicit=True)),),
    "STRING": (Function((None,), str, lambda a: cast(a[0], str)),),
    "IS_INT": (Function((None,), bool, lambda a: (cast(a[0], int)[1] is None, None)),),
    "IS_BOOL": (
        Function((None,), bool, lambda a: (cast(a[0], bool, explicit=True)[1] is None, None)),
    ),
    "ABS": (Function((int,), int, _abs),),
    "LENGTH": (Function((str,), int, lambda a: (len(str(a[0])), None)),),
    "CONCAT": (Function((), str, lambda a: ("".join(map(str, a)), None), repeats=str),),
    "CONCAT_WS": (
        Function((str,), str, lambda a: (str(a[0]).join(map(str, a[1:])), None), repeats=str),
    ),
    "LOWER": (Function((str,), str, lambda a: (str(a[0]).lower(), None)),),
    "UPPER": (Function((str,), str, lambda a: (str(a[0]).upper(), None)),),
    "TRIM": (Function((str,), str, lambda a: (str(a[0]).strip(), None)),),
    "LEFT": (Function((str, int), str, _left),),
    "RIGHT": (Function((str, int), str, _right),),
    "SUBSTRING": (
        Function((str, int), str, _substring),
        Function((str, int, int), str, _substring),
    ),
}
"""Name -> signatures, told apart by the number of arguments."""


def find(name: str, count: int) -> Function | None:
    """The signature of `name` that takes `count` arguments; None: no such function."""
    for function in FUNCTIONS.get(name, ()):
        fixed = len(function.parameters)
        if count == fixed or (function.repeats is not None and count >= fixed):
            return function
    return None
