"""Bytes of one YAML or JSON stream to documents: plain JSON values plus the place of every field.

Built on parser events (libyaml's when PyYAML has it), in one pass, so that positions are exact and
limits hold while reading: nesting depth, number of values after expanding aliases, stream size.
What Kubernetes would refuse or silently misread is refused here with a place: duplicate keys,
tabs, foreign tags, keys that are not text, recursive aliases.

A place is `(line, column)` for text and `(line, column, children)` for a collection, where children
maps a key or index to `((line, column) of the key, place of the value)`. Numbers, booleans and null
have no children and keep their spelling: `(line, column, {}, "1e3")`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import yaml

from knative.api import scalars
from knative.api.problems import Level, Path, Problem

JSON = Any
"""A JSON value: dict with str keys, list, str, int, float, bool or None."""

MAX_STREAM_BYTES = 32 * 1024 * 1024
"""Largest input file; 10,000 InferenceServices are about 3 MiB."""

MAX_DEPTH = 64
"""Deepest nesting; a Knative Service with every field set needs 14."""

MAX_VALUES = 2_000_000
"""Most values in one file, counted after alias expansion: a YAML bomb ends here."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_CORE_TAGS = {
    "tag:yaml.org,2002:str": str,
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
    "tag:yaml.org,2002:bool": bool,
    "tag:yaml.org,2002:null": type(None),
    "tag:yaml.org,2002:map": dict,
    "tag:yaml.org,2002:seq": list,
}


class ReadError(Exception):
    """The stream is not acceptable YAML; nothing after this place was read."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


@dataclass(slots=True)
class Document:
    """One YAML document: its value, where its parts are, and what is wrong with how it was
    written."""

    file: str
    data: JSON
    place: Any
    index: int
    problems: list[Problem] = field(default_factory=list)

    NOWHERE: ClassVar[tuple[int, int]] = (0, 0)

    def locate(self, path: Path) -> tuple[int, int]:
        """Line and column (from 1) of the key or item at `path`, or of the deepest part that
        exists."""
        place = self.place
        found: tuple[int, int] = (place[0], place[1]) if place else self.NOWHERE
        for part in path:
            if place is None or len(place) < 3 or part not in place[2]:
                break
            found, place = place[2][part]
        return found

    def spelling(self, path: Path) -> str:
        """How the number, boolean or null at `path` is written; empty for everything else."""
        place = self.place
        for part in path:
            if place is None or len(place) < 3 or part not in place[2]:
                return ""
            place = place[2][part][1]
        return str(place[3]) if place and len(place) == 4 else ""


class _Builder:
    """Turns the events of one stream into documents. One instance per stream."""

    def __init__(self, file: str, stream: str) -> None:
        self._file = file
        self._stream = stream
        self._events = yaml.parse(stream, Loader=_LOADER)
        self._values = 0
        self._problems: list[Problem] = []
        self._anchors: dict[str, tuple[JSON, Any, int] | None] = {}

    def documents(self) -> Iterator[Document]:
        """Yield each document; raises ReadError at the first syntax error."""
        index = 0
        try:
            for event in self._events:
                if isinstance(event, yaml.DocumentStartEvent):
                    self._anchors, self._problems = {}, []
                    value, place = self._node(next(self._events), 0)
                    yield Document(self._file, value, place, index, self._problems)
                    index += 1
        except yaml.MarkedYAMLError as error:
            raise _syntax_error(error, self._stream) from error
        except yaml.YAMLError as error:  # reader errors: control characters and the like
            raise ReadError(f"not readable as YAML: {error}".splitlines()[0]) from error

    def _node(self, event: Any, depth: int) -> tuple[JSON, Any]:
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        self._values += 1
        if self._values > MAX_VALUES:
            raise ReadError(f"more than {MAX_VALUES} values after expanding aliases", line, column)
        if depth > MAX_DEPTH:
            raise ReadError(f"nested more than {MAX_DEPTH} levels deep", line, column)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, line, column)
        before = self._values
        if event.anchor:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, line, column)
            plain = isinstance(value, str)
            place = (line, column) if plain else (line, column, {}, event.value)
        elif isinstance(event, yaml.MappingStartEvent):
            value, place = self._mapping(event, depth, line, column)
        else:
            value, place = self._sequence(event, depth, line, column)
        if event.anchor:
            self._anchors[event.anchor] = (value, place, self._values - before + 1)
        return value, place

    def _alias(self, event: Any, line: int, column: int) -> tuple[JSON, Any]:
        if event.anchor not in self._anchors:
            raise ReadError(f"alias *{event.anchor} has no anchor before it", line, column)
        known = self._anchors[event.anchor]
        if known is None:
            raise ReadError(f"alias *{event.anchor} contains itself", line, column)
        value, place, size = known
        self._values += size
        return value, place

    def _mapping(self, event: Any, depth: int, line: int, column: int) -> tuple[JSON, Any]:
        self._refuse_tag(event, dict, line, column)
        value: dict[str, JSON] = {}
        children: dict[str, Any] = {}
        merged: list[tuple[JSON, Any]] = []
        while not isinstance(key_event := next(self._events), yaml.MappingEndEvent):
            mark: Any = key_event.start_mark
            at = (mark.line + 1, mark.column + 1)
            if not isinstance(key_event, yaml.ScalarEvent):
                raise ReadError("a key must be plain text", *at)
            key = key_event.value
            item, place = self._node(next(self._events), depth + 1)
            if key == "<<" and key_event.implicit[0]:
                merged.append((item, place))
            elif key in value:
                first = children[key][0][0]
                self._complain(f'duplicate key "{key}" (first on line {first})', at)
            else:
                if key_event.implicit[0] and not isinstance(scalars.resolve_quietly(key), str):
                    self._warn_key(key, at)
                value[key], children[key] = item, (at, place)
        for item, place in merged:
            self._merge(value, children, item, place)
        return value, (line, column, children)

    def _merge(self, value: JSON, children: JSON, item: JSON, place: Any) -> None:
        """YAML merge key: earlier sources and the mapping's own keys win."""
        sources = (
            [(i, place[2][n][1]) for n, i in enumerate(item)]
            if isinstance(item, list)
            else [(item, place)]
        )
        for source, where in sources:
            if not isinstance(source, dict):
                raise ReadError("<< can merge mappings only", where[0], where[1])
            for key, inner in source.items():
                if key not in value:
                    value[key], children[key] = inner, where[2][key]

    def _sequence(self, event: Any, depth: int, line: int, column: int) -> tuple[JSON, Any]:
        self._refuse_tag(event, list, line, column)
        value: list[JSON] = []
        children: dict[int, Any] = {}
        while not isinstance(item_event := next(self._events), yaml.SequenceEndEvent):
            item, place = self._node(item_event, depth + 1)
            children[len(value)] = ((place[0], place[1]), place)
            value.append(item)
        return value, (line, column, children)

    def _scalar(self, event: Any, line: int, column: int) -> JSON:
        kind = _CORE_TAGS.get(event.tag) if event.tag else None
        if event.tag and event.tag != "!" and (kind is None or kind in (dict, list)):
            raise ReadError(
                f"tag {_tag(event.tag)} is not supported; write the value itself", line, column
            )
        if not event.implicit[0] and kind in (None, str):
            return event.value
        try:
            value, warning = scalars.resolve(event.value)
        except scalars.BadScalar as error:
            self._complain(str(error), (line, column))
            return None
        if warning:
            self._say(Level.WARNING, warning, (line, column))
        return value

    def _refuse_tag(self, event: Any, kind: type, line: int, column: int) -> None:
        if event.tag and event.tag != "!" and _CORE_TAGS.get(event.tag) is not kind:
            raise ReadError(f"tag {_tag(event.tag)} is not supported; remove it", line, column)

    def _warn_key(self, key: str, at: tuple[int, int]) -> None:
        self._say(Level.WARNING, f'key {key} is not text; write "{key}" in quotes', at)

    def _complain(self, message: str, at: tuple[int, int]) -> None:
        self._say(Level.ERROR, message, at)

    def _say(self, level: Level, message: str, at: tuple[int, int]) -> None:
        self._problems.append(
            Problem(level=level, message=message, file=self._file, line=at[0], column=at[1])
        )


def read(file: str, raw: bytes) -> Iterator[Document]:
    """The documents of one stream, in order; empty ones have `data` None. Raises ReadError."""
    if len(raw) > MAX_STREAM_BYTES:
        raise ReadError(f"larger than {MAX_STREAM_BYTES // 2**20} MiB; split it into several files")
    yield from _Builder(file, _decode(raw)).documents()


def _decode(raw: bytes) -> str:
    """UTF-8 (with or without BOM) or UTF-16 with BOM, as YAML 1.1 allows."""
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        raise ReadError(f"not UTF-8 text (byte 0x{raw[error.start]:02x})", line, column) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ReadError("contains a NUL byte: a binary file, not YAML", line)
    return text


def _syntax_error(error: yaml.MarkedYAMLError, stream: str) -> ReadError:
    mark = error.problem_mark or error.context_mark
    message = error.problem or str(error)
    if mark and stream.splitlines()[mark.line : mark.line + 1] and _at_tab(stream, mark):
        return ReadError("a tab cannot indent YAML; use spaces", mark.line + 1, mark.column + 1)
    if error.context and error.context not in message:
        message = f"{message} ({error.context})"
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    return ReadError(f"not valid YAML: {message}", line, column)


def _at_tab(stream: str, mark: Any) -> bool:
    return "\t" in stream.splitlines()[mark.line][mark.column : mark.column + 1]


def _tag(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")
