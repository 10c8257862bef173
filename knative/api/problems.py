"""What is wrong with a manifest: where (file, line, column, field path), how badly, and what to do.

Checks never stop at the first finding. A `Report` collects everything said about one document;
field paths are tuples inside (`("spec", "nodes", "root", "steps", 1)`) and text at the border
(`spec.nodes.root.steps[1]`).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

Path = tuple[str | int, ...]
"""A field path: mapping keys as str, list positions as int."""

_PLAIN_KEY = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*\Z")
_PATH_PART = re.compile(r"\[(\d+)\]|\[([^\]]*)\]|([^.\[\]]+)")


class Level(StrEnum):
    """How bad a finding is: errors stop the compilation, the others are said and passed."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One finding. `line` and `column` count from 1; 0 means unknown (no file, or the whole
    file)."""

    level: Level
    message: str
    path: str = ""
    subject: str = ""
    """The object meant, e.g. `InferenceGraph dog-breed-pipeline`; empty for a whole file."""
    file: str = ""
    line: int = 0
    column: int = 0
    rule: str = ""
    """Identifier of the lint rule that found it, empty for the grammar's own checks."""

    def __str__(self) -> str:
        """One line: `FILE:LINE:COLUMN: level: SUBJECT: PATH: MESSAGE [rule]`, empty parts left
        out."""
        place = ":".join([self.file, *(str(n) for n in (self.line, self.column) if n)])
        parts = [p for p in (place, self.level.value, self.subject, self.path) if p]
        return ": ".join([*parts, self.message]) + (f" [{self.rule}]" if self.rule else "")

    @property
    def key(self) -> tuple[str, int, int, str, str]:
        """Order of printing: by place in the input."""
        return (self.file, self.line, self.column, self.path, self.message)


class Located(Protocol):
    """Something that knows where its fields are in a file."""

    @property
    def file(self) -> str:
        """The file as the user named it."""

    def locate(self, path: Path) -> tuple[int, int]:
        """Line and column (from 1) of the deepest existing part of `path`."""

    def spelling(self, path: Path) -> str:
        """How the number, boolean or null at `path` is written in the file; empty if unknown."""


class Report:
    """Collects the findings about one document and the Knative flags it needs."""

    def __init__(self, document: Located, subject: str, *, strict: bool = False) -> None:
        self.problems: list[Problem] = []
        self.flags: dict[str, str] = {}
        """Knative feature flag -> first field path that needs it."""
        self.strict = strict
        self._document = document
        self._subject = subject

    def add(self, level: Level, path: Path, message: str, *, rule: str = "") -> None:
        """Record a finding at `path`."""
        line, column = self._document.locate(path)
        self.problems.append(
            Problem(
                level=level,
                message=message,
                path=render(path),
                subject=self._subject,
                file=self._document.file,
                line=line,
                column=column,
                rule=rule,
            )
        )

    def spelling(self, path: Path) -> str:
        """How the number, boolean or null at `path` is written; empty if unknown."""
        return self._document.spelling(path)

    def error(self, path: Path, message: str) -> None:
        """The manifest cannot be compiled as it is."""
        self.add(Level.ERROR, path, message)

    def warning(self, path: Path, message: str) -> None:
        """It compiles, but probably does not do what its author thinks."""
        self.add(Level.WARNING, path, message)

    def note(self, path: Path, message: str) -> None:
        """Worth knowing; nothing to do."""
        self.add(Level.NOTE, path, message)

    def extension(self, path: Path, name: str) -> None:
        """Use of a field of ours: fine, unless the user asked to stay portable (`--strict`)."""
        if self.strict:
            self.error(path, f"{name} is an extension of Turnout; --strict refuses it")

    def need(self, flag: str, path: Path) -> None:
        """The output needs a Knative feature flag because of `path`."""
        self.flags.setdefault(flag, render(path))

    @property
    def failed(self) -> bool:
        """Whether any finding is an error."""
        return any(p.level is Level.ERROR for p in self.problems)


def render(path: Path) -> str:
    """`("a", "b", 1, "x.y/z")` -> `a.b[1][x.y/z]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.match(part):
            text += f".{part}" if text else part
        else:
            text += f"[{part}]"
    return text


def parse(text: str) -> Path:
    """The reverse of `render`, for paths that reach us as text from another unit's checker."""
    parts: list[str | int] = []
    for index, quoted, name in _PATH_PART.findall(text):
        parts.append(int(index) if index else (quoted or name))
    return tuple(parts)


def listing(problems: Iterable[Problem]) -> str:
    """All findings, one a line, in file order."""
    return "\n".join(str(p) for p in sorted(problems, key=lambda p: p.key))


def suggest(word: str, known: Iterable[str]) -> str:
    """` (did you mean "x"?)` when something similar is known, else empty."""
    import difflib  # only when there is something to complain about

    lowered = {name.lower(): name for name in sorted(known)}
    close = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return f' (did you mean "{lowered[close[0]]}"?)' if close else ""
