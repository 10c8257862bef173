"""Field tables: what a manifest may say, what each field becomes, and the one walker that checks
it.

A kind's grammar is data: `Obj` of `Field`s of types. The same tables drive validation (`check`),
the generated documentation (`knative.api.fields_doc`) and the editors' JSON Schema
(`knative.api.json_schema`), so the three cannot drift apart.

The walker reports everything: unknown fields with a suggestion, wrong types with what to write,
fields
that Knative cannot carry with the reason, flags a field needs. It never changes the value.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from knative.api.problems import Path, Report, suggest

JSON = Any


class Verdict(StrEnum):
    """What happens to a field."""

    MAPS = "maps"
    """It reaches the output, as `Field.becomes` says."""
    IGNORED = "ignored"
    """Accepted without effect, with a warning that says why."""
    SILENT = "silent"
    """Accepted without effect and without a word (server-side bookkeeping such as `status`)."""
    REFUSED = "refused"
    """An error: Knative or Turnout cannot do it, `Field.why` says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Type:
    """Base of all types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Str(Type):
    """Text. `pattern` must match all of it; `expect` says in words what that means."""

    pattern: str = ""
    expect: str = ""
    enum: tuple[str, ...] = ()
    min_length: int = 0
    max_length: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Int(Type):
    """A whole number."""

    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Number(Type):
    """A number, whole or not."""

    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bool(Type):
    """true or false."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity(Type):
    """A Kubernetes quantity: number or text such as `500m`, `2Gi`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntOrStr(Type):
    """A whole number or text (a port number or name)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Free(Type):
    """Anything; checked elsewhere or not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Type):
    """A list of `of`; `unique` names the member field that must not repeat."""

    of: Type
    unique: str = ""
    min_items: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Type):
    """A mapping with free keys and values of one type."""

    of: Type
    key_pattern: str = ""
    key_expect: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of an object and its fate."""

    type: Type
    becomes: str = ""
    verdict: Verdict = Verdict.MAPS
    why: str = ""
    """For ignored and refused fields: the reason and the way out."""
    flag: str = ""
    """Knative feature flag the field needs."""
    required: bool = False
    extension: bool = False
    """A field of ours, not in the upstream grammar; `--strict` refuses it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obj(Type):
    """An object with known fields. `name` titles it in the documentation and the JSON Schema."""

    name: str
    fields: Mapping[str, Field] = field(default_factory=dict)
    one_of: tuple[str, ...] = ()
    """Exactly one of these fields must be present."""
    hints: Mapping[str, str] = field(default_factory=dict)
    """Unknown field -> what to say instead of "unknown field"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lazy(Type):
    """A type that is defined later or contains itself."""

    get: Callable[[], Type]


def refused(why: str, type_: Type | None = None) -> Field:
    """A known field that is an error, with the reason."""
    return Field(type=type_ or Free(), verdict=Verdict.REFUSED, why=why)


def ignored(why: str, type_: Type | None = None) -> Field:
    """A known field without effect, with the reason."""
    return Field(type=type_ or Free(), verdict=Verdict.IGNORED, why=why)


def silent(why: str) -> Field:
    """A known field nobody needs to hear about."""
    return Field(type=Free(), verdict=Verdict.SILENT, why=why)


_QUANTITY = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(m|u|n|[kMGTPE]i?|Ki|[eE][+-]?[0-9]+)?\Z")


def check(value: JSON, type_: Type, path: Path, report: Report) -> None:
    """Report everything wrong with `value` against `type_`; null is the same as absent for
    fields."""
    match type_:
        case Obj():
            _check_object(value, type_, path, report)
        case Listing():
            _check_listing(value, type_, path, report)
        case Table():
            _check_table(value, type_, path, report)
        case Str():
            _check_text(value, type_, path, report)
        case Int() | Number():
            _check_number(value, type_, path, report)
        case Bool():
            if not isinstance(value, bool):
                hint = f"; write {value} without quotes" if value in ("true", "false") else ""
                report.error(path, f"must be true or false, not {describe(value)}{hint}")
        case Quantity():
            if isinstance(value, bool) or not (
                isinstance(value, int | float)
                or (isinstance(value, str) and _QUANTITY.match(value))
            ):
                report.error(path, f"must be a quantity such as 500m or 2Gi, not {describe(value)}")
        case IntOrStr():
            if isinstance(value, bool) or not isinstance(value, int | str):
                report.error(path, f"must be a number or text, not {describe(value)}")
        case Lazy():
            check(value, type_.get(), path, report)
        case _:
            pass


def describe(value: JSON) -> str:
    """A value as a person would name it: `the number 3`, `a list`, `"x"`."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {value}"
        case str():
            return f'"{value}"' if len(value) <= 60 else f'"{value[:57]}..."'
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return type(value).__name__


def _check_object(value: JSON, type_: Obj, path: Path, report: Report) -> None:
    if not isinstance(value, dict):
        report.error(path, f"must be a mapping, not {describe(value)}")
        return
    for key, inner in value.items():
        known = type_.fields.get(key)
        here = (*path, key)
        if known is None:
            hint = type_.hints.get(key)
            report.error(here, hint or f"unknown field{suggest(key, type_.fields)}")
        elif inner is not None:
            _check_field(inner, known, here, report)
    for key, known in type_.fields.items():
        if known.required and value.get(key) is None:
            report.error(path, f"{key} is required")
    if type_.one_of:
        present = [key for key in type_.one_of if value.get(key) is not None]
        if len(present) != 1:
            given = f"not {' and '.join(present)}" if present else "none is given"
            report.error(path, f"exactly one of {', '.join(type_.one_of)} is needed; {given}")


def _check_field(value: JSON, known: Field, path: Path, report: Report) -> None:
    if known.verdict is Verdict.REFUSED:
        report.error(path, known.why)
        return
    if known.verdict is Verdict.SILENT:
        return
    if known.extension:
        report.extension(path, str(path[-1]))
    check(value, known.type, path, report)
    if known.verdict is Verdict.IGNORED:
        report.warning(path, f"has no effect: {known.why}")
    elif known.flag and value not in ({}, [], "", False):
        report.need(known.flag, path)


def _check_listing(value: JSON, type_: Listing, path: Path, report: Report) -> None:
    if not isinstance(value, list):
        report.error(path, f"must be a list, not {describe(value)}")
        return
    if len(value) < type_.min_items:
        report.error(path, f"needs at least {type_.min_items} item(s)")
    seen: dict[object, int] = {}
    for index, item in enumerate(value):
        check(item, type_.of, (*path, index), report)
        if type_.unique and isinstance(item, dict):
            name = item.get(type_.unique)
            if isinstance(name, str | int) and name != "":
                if name in seen:
                    report.error(
                        (*path, index, type_.unique),
                        f"{describe(name)} is already used by item {seen[name]}",
                    )
                seen.setdefault(name, index)


def _check_table(value: JSON, type_: Table, path: Path, report: Report) -> None:
    if not isinstance(value, dict):
        report.error(path, f"must be a mapping, not {describe(value)}")
        return
    for key, inner in value.items():
        if type_.key_pattern and not re.fullmatch(type_.key_pattern, key):
            report.error((*path, key), f"the key must be {type_.key_expect}")
        check(inner, type_.of, (*path, key), report)


def _check_text(value: JSON, type_: Str, path: Path, report: Report) -> None:
    if not isinstance(value, str):
        hint = ""
        if isinstance(value, bool | int | float):
            shown = report.spelling(path) or (
                str(value).lower() if value in (True, False) else value
            )
            hint = f'; write "{shown}" in quotes'
        report.error(path, f"must be text, not {describe(value)}{hint}")
    elif type_.enum and value not in type_.enum:
        known = ", ".join(word for word in type_.enum if word)
        hint = suggest(value, type_.enum)
        report.error(path, f"must be one of {known}, not {describe(value)}{hint}")
    elif len(value) < type_.min_length:
        report.error(path, "must not be empty")
    elif type_.max_length and len(value) > type_.max_length:
        report.error(
            path, f"is {len(value)} characters long; at most {type_.max_length} are allowed"
        )
    elif type_.pattern and not re.fullmatch(type_.pattern, value):
        report.error(path, f"must be {type_.expect}, not {describe(value)}")


def _check_number(value: JSON, type_: Int | Number, path: Path, report: Report) -> None:
    wanted = "a whole number" if isinstance(type_, Int) else "a number"
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (isinstance(type_, Int) and not whole)
    ):
        hint = (
            "; remove the quotes" if isinstance(value, str) and value.lstrip("-").isdigit() else ""
        )
        report.error(path, f"must be {wanted}, not {describe(value)}{hint}")
        return
    low, high = type_.minimum, type_.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        limits = f"{low} or more" if high is None else f"between {low} and {high}"
        report.error(path, f"must be {limits}, not {value}")
