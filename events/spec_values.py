"""Checks of single values of a trigger's spec: each gives the problems of a value at a path, as
(path, message). Pure."""

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any

from . import names, template
from .errors import Refused

Problem = tuple[str, str]
Check = Callable[[Any, str], list[Problem]]

_URL = re.compile(r"https?://[^/\s?#]+[^\s]*\Z")
_EVENT_NAME = re.compile(
    r"(?:s3:)?Object(?:Created|Removed|Tagging|Restore|Acl):(?:\*|[A-Za-z]+)\Z"
)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")


def anything(value: Any, path: str) -> list[Problem]:
    """Checked elsewhere."""
    return []


def string(value: Any, path: str) -> list[Problem]:
    """A text, not empty."""
    return [] if isinstance(value, str) and value else [(path, "must be a text, not empty")]


def text_or_empty(value: Any, path: str) -> list[Problem]:
    """A text."""
    return [] if isinstance(value, str) else [(path, "must be a text")]


def one_of(*allowed: str) -> Check:
    """One of these words."""

    def run(value: Any, path: str) -> list[Problem]:
        if value in allowed:
            return []
        return [(path, f"{value!r} is not one of {', '.join(allowed)}")]

    return run


def number(low: float, high: float, *, whole: bool = True) -> Check:
    """A number in bounds, both included."""

    def run(value: Any, path: str) -> list[Problem]:
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            return [
                (
                    path,
                    f"must be a {'whole ' if whole else ''}number from {low} to {high}, "
                    f"not {value!r}",
                )
            ]
        return []

    return run


def list_of(one: Check) -> Check:
    """A list, not empty, of such values."""

    def run(value: Any, path: str) -> list[Problem]:
        if not isinstance(value, list) or not value:
            return [(path, "must be a list, not empty")]
        return [
            problem for index, item in enumerate(value) for problem in one(item, f"{path}[{index}]")
        ]

    return run


def bucket(value: Any, path: str) -> list[Problem]:
    """The name of a bucket."""
    try:
        names.bucket(value if isinstance(value, str) else "")
    except Refused:
        return [(path, f"{value!r} is not a bucket name (3-63 of a-z, 0-9, dots and dashes)")]
    return []


def event_name(value: Any, path: str) -> list[Problem]:
    """An S3 event name of objects, `*` at the end allowed."""
    if isinstance(value, str) and _EVENT_NAME.match(value):
        return []
    return [
        (path, f"{value!r} is not an S3 event name such as ObjectCreated:* or ObjectCreated:Put")
    ]


def url(value: Any, path: str) -> list[Problem]:
    """An absolute http or https URL."""
    if isinstance(value, str) and _URL.match(value):
        return []
    return [(path, f"{value!r} is not an http(s) URL")]


def text_template(default: str) -> Check:
    """A text with placeholders; `default`: the document `{$}` is."""

    def run(value: Any, path: str) -> list[Problem]:
        if not isinstance(value, str) or not value:
            return [(path, "must be a text, not empty")]
        try:
            template.compile_text(value, default)
        except template.TemplateError as error:
            return [(path, str(error))]
        return []

    return run


def document_template(default: str) -> Check:
    """Any JSON with placeholders in its texts."""

    def run(value: Any, path: str) -> list[Problem]:
        try:
            template.compile_body(value, default)
        except template.TemplateError as error:
            return [(path, str(error))]
        return []

    return run


def headers_of_templates(default: str) -> Check:
    """A map of names, such as headers have, to texts with placeholders."""

    def run(value: Any, path: str) -> list[Problem]:
        if not isinstance(value, Mapping):
            return [(path, "must be a map of name: text")]
        problems: list[Problem] = []
        for name, text in value.items():
            here = f"{path}.{name}"
            if not isinstance(name, str) or not _HEADER.match(name):
                problems.append((here, "the name must be letters, digits and dashes"))
            problems += text_template(default)(text, here)
        return problems

    return run


def mapping(known: Mapping[str, Check]) -> Check:
    """A map of these fields."""

    def run(value: Any, path: str) -> list[Problem]:
        if not isinstance(value, Mapping):
            return [(path, "must be a map")]
        return fields(value, f"{path}.", known)

    return run


def fields(value: Mapping[str, Any], prefix: str, known: Mapping[str, Check]) -> list[Problem]:
    """Problems of a map: fields nobody knows, and those of each known one."""
    problems: list[Problem] = []
    for name, item in value.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f" (expected {', '.join(known)})"
            problems.append((f"{prefix}{name}", f"unknown field{hint}"))
        elif item is not None:
            problems += known[name](item, f"{prefix}{name}")
    return problems


def reply(known: Mapping[str, Check]) -> Check:
    """A map of these fields, of which `type` must be there."""

    def run(value: Any, path: str) -> list[Problem]:
        missing = isinstance(value, Mapping) and not value.get("type")
        return mapping(known)(value, path) + ([(f"{path}.type", "is missing")] if missing else [])

    return run


def reference(value: Any, path: str) -> list[Problem]:
    """`target.ref`."""
    problems = mapping(
        {
            "kind": one_of("InferenceGraph", "InferenceService", "SeldonDeployment", "Service"),
            "name": string,
            "namespace": string,
            "apiVersion": string,
        }
    )(value, path)
    if isinstance(value, Mapping):
        problems += [
            (f"{path}.{name}", "is missing") for name in ("kind", "name") if not value.get(name)
        ]
    return problems
