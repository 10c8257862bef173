"""CESQL's operators as closures over their operands: value and error, never an exception. Pure.

How errors travel is told in `cesql`, which parses; functions and casts are in `cesql_functions`.
"""

import re
from collections.abc import Callable, Mapping

from .cesql_functions import MAX_INT, MIN_INT, ZERO, Kind, Outcome, Value, cast, find

Attributes = Mapping[str, Value]
Expression = Callable[[Attributes], Outcome]


def literal(value: Value) -> Expression:
    return lambda event: (value, None)


def attribute(name: str) -> Expression:
    def run(event: Attributes) -> Outcome:
        value = event.get(name)
        return (False, "missingAttribute") if value is None else (value, None)

    return run


def _first(*errors: Kind | None) -> Kind | None:
    return next((error for error in errors if error is not None), None)


def _unary_operator(
    to: type, apply: Callable[[Value], Outcome]
) -> Callable[[Expression], Expression]:
    def make(operand: Expression) -> Expression:
        def run(event: Attributes) -> Outcome:
            value, error = operand(event)
            if error:
                return ZERO[to], error
            value, cast_error = cast(value, to)
            result, own_error = apply(value)
            return result, _first(cast_error, own_error)

        return run

    return make


def _bounded(number: int) -> Outcome:
    return (number, None) if MIN_INT <= number <= MAX_INT else (0, "math")


not_ = _unary_operator(bool, lambda value: (not value, None))
negate = _unary_operator(int, lambda value: _bounded(-int(value)))


def and_(operands: list[Expression]) -> Expression:
    def run(event: Attributes) -> Outcome:
        for operand in operands:
            value, error = operand(event)
            if not error:
                value, error = cast(value, bool)
            if error or not value:
                return False, error
        return True, None

    return run


def or_(left: Expression, right: Expression) -> Expression:
    def run(event: Attributes) -> Outcome:
        for operand in (left, right):
            value, error = operand(event)
            if not error:
                value, error = cast(value, bool)
            if error or value:
                return (False, error) if error else (True, None)
        return False, None

    return run


def xor(left: Expression, right: Expression) -> Expression:
    def run(event: Attributes) -> Outcome:
        values = []
        for operand in (left, right):
            value, error = operand(event)
            if not error:
                value, error = cast(value, bool)
            if error:
                return False, error
            values.append(value)
        return values[0] != values[1], None

    return run


def compare(operator: str, left: Expression, right: Expression) -> Expression:
    def run(event: Attributes) -> Outcome:
        a, error_a = left(event)
        if error_a:
            return False, error_a
        b, error_b = right(event)
        if error_b:
            return False, error_b
        if operator in ("=", "!=", "<>"):
            a, error = cast(a, type(b))  # the left side takes the right side's type
            return (False, error) if error else ((a == b) is (operator == "="), None)
        a, error_a = cast(a, int)
        b, error_b = cast(b, int)
        if error_a or error_b:
            return False, error_a or error_b
        x, y = int(a), int(b)
        return {"<": x < y, "<=": x <= y, ">": x > y, ">=": x >= y}[operator], None

    return run


def arithmetic(operator: str, left: Expression, right: Expression) -> Expression:
    def run(event: Attributes) -> Outcome:
        a, error_a = left(event)
        if error_a:
            return 0, error_a
        b, error_b = right(event)
        if error_b:
            return 0, error_b
        a, error_a = cast(a, int)
        b, error_b = cast(b, int)
        x, y = int(a), int(b)
        result, error = _calculate(operator, x, y)
        return result, _first(error_a, error_b, error)

    return run


def _calculate(operator: str, x: int, y: int) -> Outcome:
    if operator == "+":
        return _bounded(x + y)
    if operator == "-":
        return _bounded(x - y)
    if operator == "*":
        return _bounded(x * y)
    if y == 0:
        return 0, "math"
    quotient = abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)  # truncated, not floored
    return _bounded(quotient if operator == "/" else x - quotient * y)


def like(operand: Expression, pattern: re.Pattern[str], negated: bool) -> Expression:
    def run(event: Attributes) -> Outcome:
        value, error = operand(event)
        if error:
            return False, error
        text, _ = cast(value, str)
        return (pattern.fullmatch(str(text)) is not None) is not negated, None

    return run


def in_(operand: Expression, members: list[Expression], negated: bool) -> Expression:
    def run(event: Attributes) -> Outcome:
        value, error = operand(event)
        if error:
            return False, error
        for member in members:
            other, error = member(event)
            if not error:
                other, error = cast(other, type(value))  # members take the operand's type
            if error:
                return False, error
            if other == value:
                return not negated, None
        return negated, None

    return run


def call(name: str, arguments: list[Expression]) -> Expression:
    function = find(name, len(arguments))
    if function is None:
        return lambda event: (False, "missingFunction")
    more = len(arguments) - len(function.parameters)
    types = function.parameters + (function.repeats,) * more

    def run(event: Attributes) -> Outcome:
        values: list[Value] = []
        cast_error: Kind | None = None
        for argument, wanted in zip(arguments, types, strict=True):
            value, error = argument(event)
            if error:
                return ZERO[function.result], error
            if wanted is not None:
                value, error = cast(value, wanted)
                cast_error = cast_error or error
            values.append(value)
        result, error = function.call(values)
        return result, _first(cast_error, error)

    return run
