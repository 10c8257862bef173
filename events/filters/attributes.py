"""The filter dialects of a Trigger, as tables: exact, prefix, suffix, all, any, not, cesql.

A filter has three answers. "No opinion" (an empty map or array) counts as a pass at the top but is
kept apart inside, because `not` of no opinion is no opinion, and `any` of nothing is not a failure.
A missing attribute fails a comparison; therefore `not` of it passes. Data cannot be filtered.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

from events.event import Event

from . import cesql

Predicate = Callable[[Event], bool]
Problem = tuple[str, str]


class Opinion(Enum):
    """What one filter says about one event."""

    PASS = "pass"  # noqa: S105 - an answer, not a password
    FAIL = "fail"
    NONE = "no opinion"


Compiled = Callable[[Event], Opinion]

MAPS = ("exact", "prefix", "suffix")
LISTS = ("all", "any")
DIALECTS = (*MAPS, *LISTS, "not", "cesql")
MAX_DEPTH = 32
"""Nesting of all/any/not that is still somebody's intention; deeper is refused, not recursed
into."""

_NAME = re.compile(r"[a-z][a-z0-9]*\Z")

_TESTS: dict[str, Callable[[str, str], bool]] = {
    "exact": lambda value, wanted: value == wanted,
    "prefix": lambda value, wanted: value.startswith(wanted),
    "suffix": lambda value, wanted: value.endswith(wanted),
}


def match(spec: Mapping[str, Any], event: Event) -> bool:
    """Whether a Trigger spec (`filters`, or the legacy `filter`) lets this event through."""
    return compile_filters(spec)(event)


def compile_filters(spec: Mapping[str, Any]) -> Predicate:
    """The predicate of a Trigger spec. `filters` wins over the legacy `filter` unless it is empty.

    Raises `ValueError` on the first problem; call `check` before, to show all of them.
    """
    filters = spec.get("filters")
    if filters:
        compiled = [_compile(item) for item in filters]
        return lambda event: all(one(event) is not Opinion.FAIL for one in compiled)
    legacy = (spec.get("filter") or {}).get("attributes") or {}
    wanted = [(name, str(value)) for name, value in legacy.items()]
    return lambda event: all(_legacy(event, name, value) for name, value in wanted)


def check(spec: Mapping[str, Any]) -> list[Problem]:
    """Every problem of `filters` and `filter` in a Trigger spec, as (path, message)."""
    problems: list[Problem] = []
    filters = spec.get("filters")
    if filters is not None:
        if isinstance(filters, list):
            for index, item in enumerate(filters):
                problems += _check(item, f"filters[{index}]", 0)
        else:
            problems.append(("filters", "must be a list of filters"))
    legacy = spec.get("filter")
    if legacy is not None:
        if not isinstance(legacy, Mapping):
            problems.append(("filter", "must be a map with `attributes`"))
        else:
            problems += [
                (f"filter.{key}", "unknown field (expected attributes)")
                for key in legacy
                if key != "attributes"
            ]
            problems += _check_map(legacy.get("attributes") or {}, "filter.attributes")
    return problems


def text_of(event: Event, name: str) -> str | None:
    """An attribute as the string filters compare; None when it is absent."""
    value = event.attributes.get(name)
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _legacy(event: Event, name: str, wanted: str) -> bool:
    value = text_of(event, name)
    if wanted == "":  # "the attribute must be there"
        return bool(value)
    return value == wanted


def _compile(item: Any) -> Compiled:
    problems = _check(item, "filter", 0)
    if problems:
        raise ValueError("; ".join(f"{path}: {message}" for path, message in problems))
    (dialect, value) = next(iter(item.items())) if item else ("all", [])
    if dialect in MAPS:
        return _compile_map(_TESTS[dialect], value or {})
    if dialect in LISTS:
        return _compile_list([_compile(one) for one in value or []], stop_at=dialect)
    if dialect == "not":
        inner = _compile(value or {})
        flipped = {
            Opinion.PASS: Opinion.FAIL,
            Opinion.FAIL: Opinion.PASS,
            Opinion.NONE: Opinion.NONE,
        }
        return lambda event: flipped[inner(event)]
    if not value:
        return lambda event: Opinion.NONE
    expression = cesql.parse(value)
    return lambda event: (
        Opinion.PASS if cesql.is_true(expression, event.attributes) else Opinion.FAIL
    )


def _compile_map(test: Callable[[str, str], bool], wanted: Mapping[str, str]) -> Compiled:
    if not wanted:
        return lambda event: Opinion.NONE
    pairs = tuple(wanted.items())

    def run(event: Event) -> Opinion:
        for name, text in pairs:
            value = text_of(event, name)
            if value is None or not test(value, text):
                return Opinion.FAIL
        return Opinion.PASS

    return run


def _compile_list(inner: Sequence[Compiled], *, stop_at: str) -> Compiled:
    if not inner:
        return lambda event: Opinion.NONE
    if stop_at == "all":
        return lambda event: (
            Opinion.FAIL if any(one(event) is Opinion.FAIL for one in inner) else Opinion.PASS
        )
    return lambda event: (
        Opinion.PASS if any(one(event) is not Opinion.FAIL for one in inner) else Opinion.FAIL
    )


def _check(item: Any, path: str, depth: int) -> list[Problem]:
    if depth > MAX_DEPTH:
        return [(path, f"filters are nested deeper than {MAX_DEPTH}")]
    if not isinstance(item, Mapping):
        return [(path, f"must be a map with one of {', '.join(DIALECTS)}")]
    unknown = [key for key in item if key not in DIALECTS]
    if unknown:
        return [
            (f"{path}.{key}", f"unknown dialect (expected one of {', '.join(DIALECTS)})")
            for key in unknown
        ]
    if len(item) > 1:
        return [(path, f"has {' and '.join(item)}: one item takes one dialect; nest them in `all`")]
    problems: list[Problem] = []
    for dialect, value in item.items():
        here = f"{path}.{dialect}"
        if dialect in MAPS:
            problems += _check_map(value, here)
        elif dialect in LISTS:
            if not isinstance(value, list):
                problems.append((here, "must be a list of filters"))
                continue
            for index, one in enumerate(value):
                problems += _check(one, f"{here}[{index}]", depth + 1)
        elif dialect == "not":
            problems += _check(value, here, depth + 1)
        elif not isinstance(value, str):
            problems.append((here, "must be a CESQL expression (a string)"))
        elif value:
            try:
                cesql.parse(value)
            except cesql.ParseError as error:
                problems.append((here, str(error)))
    return problems


def _check_map(value: Any, path: str) -> list[Problem]:
    if not isinstance(value, Mapping):
        return [(path, "must be a map of attribute: text")]
    problems: list[Problem] = []
    for name, text in value.items():
        if not isinstance(name, str) or not _NAME.match(name):
            problems.append(
                (
                    f"{path}.{name}",
                    "attribute names are lower-case letters and digits, letter first",
                )
            )
        elif not isinstance(text, str):
            problems.append((f"{path}.{name}", f'must be a string (write "{text}")'))
    return problems
