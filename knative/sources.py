"""Files, directories and standard input to documents. All I/O of a compilation happens here."""

import sys
from collections.abc import Sequence
from pathlib import Path

from knative.api import reader
from knative.api.problems import Level, Problem

SUFFIXES = (".yaml", ".yml", ".json")
"""What a directory given on the command line contributes, a kustomization aside."""


def read_sources(paths: Sequence[str | Path]) -> tuple[list[reader.Document], list[Problem]]:
    """All documents of all sources, and what could not be read."""
    documents: list[reader.Document] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    for path in paths:
        for file in _files(str(path), problems):
            if file in seen:
                continue  # `compile a.yaml a.yaml`, or a file and its directory
            seen.add(file)
            try:
                found = list(reader.read(file, _content(file)))
                documents += found
                if all(document.data is None for document in found):
                    problems.append(_problem(file, "no manifest in it"))
            except reader.ReadError as error:
                problems.append(_problem(file, error.message, error.line, error.column))
            except OSError as error:
                problems.append(_problem(file, _why(error)))
    return documents, problems


def _files(path: str, problems: list[Problem]) -> list[str]:
    if path == "-" or not Path(path).is_dir():
        return [path]
    files = sorted(
        str(p)
        for p in Path(path).iterdir()
        if p.suffix in SUFFIXES and p.is_file() and p.stem != "kustomization"
    )
    if not files:
        problems.append(_problem(path, f"no {', '.join(SUFFIXES)} file in this directory"))
    return files


def _content(file: str) -> bytes:
    """At most one byte more than a stream may have, so that `/dev/zero` ends too."""
    limit = reader.MAX_STREAM_BYTES + 1
    if file == "-":
        return sys.stdin.buffer.read(limit)
    with Path(file).open("rb") as stream:
        return stream.read(limit)


def _why(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "cannot be read: permission denied"
    return f"cannot be read: {error.strerror or error}"


def _problem(file: str, message: str, line: int = 0, column: int = 0) -> Problem:
    return Problem(level=Level.ERROR, message=message, file=file, line=line, column=column)
