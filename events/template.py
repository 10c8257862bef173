"""Text and JSON with placeholders: request bodies, object keys, bucket names, reply types.

A placeholder is `{PATH}`, a JSONPath (jsonpath-ng) over the documents at hand. `{$.x}` starts at
the default document (the event's data in a request, the answer in a result); `{object.key}`,
`{event.subject}`, `{answer.predictions[0]}`, `{data.x}` start at a named one. `{{` and `}}` are
literal braces. A string that is one placeholder keeps the value's JSON type; inside more text it
is written out.

Theory: a template is compiled once to literals and getters; plain paths (`a.b[0]`) never touch the
JSONPath engine, which costs 14 us a lookup. No I/O; one module of two that may import jsonpath_ng.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import Refused

ROOTS = ("event", "object", "data", "answer")
Documents = Mapping[str, Any]
Getter = Callable[[Documents], Any]

_PLAIN = re.compile(r"(?:\.[A-Za-z_][A-Za-z0-9_-]*|\[(?:\d+|'[^'\]]*'|\"[^\"\]]*\")\])*\Z")
_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]*)|\[(?:(\d+)|'([^'\]]*)'|\"([^\"\]]*)\")\]")
_MANY = re.compile(r"\*|\.\.|\[\?|:|,|\|")
"""Signs of a path that may find several values: its result is always a list."""


class TemplateError(ValueError):
    """The template cannot be compiled; the message shows which placeholder."""


class Unresolved(Refused):
    """A placeholder found nothing in this event or answer: no later attempt would."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One compiled `{...}`."""

    text: str
    root: str
    get: Getter


@dataclass(frozen=True, slots=True)
class Text:
    """A compiled string: literals and placeholders in order."""

    source: str
    parts: tuple[str | Placeholder, ...]

    def value(self, documents: Documents) -> Any:
        """The JSON value: the placeholder's own if there is nothing else, a string otherwise."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Placeholder):
            return self.parts[0].get(documents)
        return self.text(documents)

    def text(self, documents: Documents) -> str:
        """The string. Raises `Unresolved`."""
        return "".join(
            part if isinstance(part, str) else to_text(part.get(documents)) for part in self.parts
        )

    def roots(self) -> set[str]:
        """The documents it looks into."""
        return {part.root for part in self.parts if isinstance(part, Placeholder)}

    def pattern(self, wildcard: str) -> str:
        """A regular expression of everything it can become, each placeholder being `wildcard`."""
        return "".join(
            re.escape(part) if isinstance(part, str) else wildcard for part in self.parts
        )


Node = Callable[[Documents], Any]


@dataclass(frozen=True, slots=True)
class Body:
    """A compiled JSON document with placeholders in its strings."""

    build: Node
    roots: frozenset[str]
    paths: frozenset[str]
    """Texts of all placeholders, to know whether `object.base64` and the like are needed."""


def compile_text(source: str, default: str) -> Text:
    """Compile a string; `default` is the document `$` stands for. Raises `TemplateError`."""
    parts: list[str | Placeholder] = []
    literal = ""
    position = 0
    while position < len(source):
        char = source[position]
        if source[position : position + 2] in ("{{", "}}"):
            literal += char
            position += 2
        elif char == "{":
            end = _closing(source, position)
            if literal:
                parts.append(literal)
                literal = ""
            parts.append(_placeholder(source[position + 1 : end].strip(), default))
            position = end + 1
        elif char == "}":
            raise TemplateError(f"{source!r}: a single '}}' (write '}}}}' for a literal brace)")
        else:
            literal += char
            position += 1
    if literal or not parts:
        parts.append(literal)
    return Text(source, tuple(parts))


def compile_body(value: Any, default: str) -> Body:
    """Compile every string of a JSON document; keys and other values stay. Raises
    `TemplateError`."""
    roots: set[str] = set()
    paths: set[str] = set()

    def compile_node(item: Any) -> Node:
        if isinstance(item, str):
            text = compile_text(item, default)
            roots.update(text.roots())
            paths.update(part.text for part in text.parts if isinstance(part, Placeholder))
            return text.value
        if isinstance(item, Mapping):
            members = {str(name): compile_node(child) for name, child in item.items()}
            return lambda documents: {name: node(documents) for name, node in members.items()}
        if isinstance(item, list):
            nodes = [compile_node(child) for child in item]
            return lambda documents: [node(documents) for node in nodes]
        return lambda documents: item

    return Body(compile_node(value), frozenset(roots), frozenset(paths))


def to_text(value: Any) -> str:
    """How a value looks inside a text: strings bare, 5.0 as 5, everything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))  # a class label 5.0 must not make a bucket named digit-5.0
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _closing(source: str, start: int) -> int:
    """Index of the brace that ends a placeholder; braces inside quotes do not count."""
    quote = ""
    for index in range(start + 1, len(source)):
        char = source[index]
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == "}":
            return index
    raise TemplateError(f"{source!r}: a '{{' is not closed (write '{{{{' for a literal brace)")


def _placeholder(path: str, default: str) -> Placeholder:
    if path.startswith("$"):
        root, rest = default, path[1:]
    else:
        found = re.match(r"[A-Za-z]+", path)
        root = found.group() if found else ""
        rest = path[len(root) :]
        if root not in ROOTS:
            raise TemplateError(
                f"{{{path}}} must start with $ or one of {', '.join(ROOTS)} (as in {{object.key}})"
            )
    getter = _plain(rest) if _PLAIN.match(rest) else _jsonpath(path, rest)

    def get(documents: Documents) -> Any:
        if root not in documents:
            raise Unresolved(f"{{{path}}}: there is no {root} at this point")
        try:
            return getter(documents[root])
        except (LookupError, TypeError) as error:
            raise Unresolved(f"{{{path}}} finds nothing in the {root}") from error

    return Placeholder(f"{root}{rest}", root, get)


def _plain(rest: str) -> Getter:
    steps: list[str | int] = [
        int(index) if index else (name or single or double)
        for name, index, single, double in _STEP.findall(rest)
    ]

    def get(value: Any) -> Any:
        for step in steps:
            if isinstance(value, str):  # "abc"[0] is not an element
                raise LookupError(step)
            value = value[step]
        return value

    return get


def _jsonpath(path: str, rest: str) -> Getter:
    from jsonpath_ng.exceptions import JSONPathError
    from jsonpath_ng.ext import parse  # type: ignore[attr-defined, unused-ignore]

    try:
        compiled = parse("$" + rest)
    except (JSONPathError, ValueError, TypeError) as error:
        raise TemplateError(f"{{{path}}} is not a JSONPath: {error}") from error
    several = _MANY.search(rest) is not None

    def get(value: Any) -> Any:
        found = [match.value for match in compiled.find(value)]
        if several:
            return found
        if not found:
            raise LookupError(path)
        return found[0]

    return get
