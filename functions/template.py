"""Text and JSON with placeholders: request bodies, answers, object keys, reply types.

A placeholder is `{PATH}`, a JSONPath (jsonpath-ng) over the documents at hand. `{$.x}` starts at
the default document; `{request.id}`, `{object.key}` start at a document with that name, one of the
language's roots. `{{` and `}}` are literal braces. A string that is one placeholder keeps the
value's JSON type; inside more text it is written out.

Theory: a template is compiled once to literals and getters; plain paths (`a.b[0]`) never touch the
JSONPath engine, which costs 14 us a lookup. No I/O; one module of two that may import jsonpath_ng.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Documents = Mapping[str, Any]
Getter = Callable[[Documents], Any]

_PLAIN = re.compile(r"(?:\.[A-Za-z_][A-Za-z0-9_-]*|\[(?:\d+|'[^'\]]*'|\"[^\"\]]*\")\])*\Z")
_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]*)|\[(?:(\d+)|'([^'\]]*)'|\"([^\"\]]*)\")\]")
_MANY = re.compile(r"\*|\.\.|\[\?|:|,|\|")
"""Signs of a path that may find several values: its result is always a list."""


class TemplateError(ValueError):
    """The template cannot be compiled; the message shows which placeholder."""


class Unresolved(ValueError):
    """A placeholder found nothing in the documents of this very call."""


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
            [part if isinstance(part, str) else to_text(part.get(documents)) for part in self.parts]
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


@dataclass(frozen=True, slots=True)
class Language:
    """A use of templates: which documents a placeholder may name, and how a miss is raised."""

    roots: tuple[str, ...]
    unresolved: type[Exception] = Unresolved
    """Raised, with a text for the sender, when a placeholder finds nothing."""
    example: str = "{request.id}"
    """A good placeholder, for messages about bad ones."""

    def text(self, source: str, default: str) -> Text:
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
                parts.append(self._placeholder(source[position + 1 : end].strip(), default))
                position = end + 1
            elif char == "}":
                raise TemplateError(f"{source!r}: a single '}}' (write '}}}}' for a literal brace)")
            else:
                literal += char
                position += 1
        if literal or not parts:
            parts.append(literal)
        return Text(source, tuple(parts))

    def body(self, value: Any, default: str) -> Body:
        """Compile every string of a JSON document; keys and other values stay. Raises
        `TemplateError`."""
        roots: set[str] = set()
        paths: set[str] = set()

        def compile_node(item: Any) -> Node:
            if isinstance(item, str):
                text = self.text(item, default)
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

    def _placeholder(self, path: str, default: str) -> Placeholder:
        if path.startswith("$"):
            root, rest = default, path[1:]
        else:
            found = re.match(r"[A-Za-z]+", path)
            root = found.group() if found else ""
            rest = path[len(root) :]
            if root not in self.roots:
                raise TemplateError(
                    f"{{{path}}} must start with $ or one of {', '.join(self.roots)}"
                    f" (as in {self.example})"
                )
        getter = _plain(rest) if _PLAIN.match(rest) else _jsonpath(path, rest)

        def get(documents: Documents) -> Any:
            if root not in documents:
                raise self.unresolved(f"{{{path}}}: there is no {root} at this point")
            try:
                return getter(documents[root])
            except (LookupError, TypeError) as error:
                raise self.unresolved(f"{{{path}}} finds nothing in the {root}") from error

        return Placeholder(f"{root}{rest}", root, get)


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
    _refuse_endless(path, compiled)
    several = _MANY.search(rest) is not None

    def get(value: Any) -> Any:
        try:
            found = [match.value for match in compiled.find(value)]
        except Exception as error:  # filters compare whatever they meet, and raise as they like
            raise LookupError(path) from error
        if several:
            return found
        if not found:
            raise LookupError(path)
        return found[0]

    return get


def _refuse_endless(path: str, node: Any) -> None:
    """Python's `re`, which the library would use, can be kept busy for days by a short string of
    a client. Raises `TemplateError`."""
    from jsonpath_ng.ext.filter import Expression
    from jsonpath_ng.ext.string import Sub

    if isinstance(node, (list, tuple)):
        for item in node:
            _refuse_endless(path, item)
    elif type(node).__module__.startswith("jsonpath_ng"):
        if isinstance(node, Sub) or (isinstance(node, Expression) and node.op == "=~"):
            raise TemplateError(
                f"{{{path}}}: =~ and sub() are not offered, their time has no bound; compare with"
                " == or do it in user code"
            )
        for value in vars(node).values():
            _refuse_endless(path, value)
