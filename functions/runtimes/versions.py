"""Which version directories to serve, and when: TensorFlow Serving's source and manager, without
I/O beyond listing directories. Spec "Source -> Router/Adapter -> Manager -> Loader, version
policy".

A directory is taken once it looks complete and has not changed between two looks; TensorFlow
Serving takes it at once, so a copy in progress is loaded half.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from functions.errors import LoadFailed

Fingerprint = tuple[int, int, int]
"""(files, bytes, newest mtime in ns) of a directory tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """`latest:N`, `all`, or `specific:1,2`."""

    kind: str
    count: int = 1
    versions: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Policy":
        kind, _, rest = text.partition(":")
        try:
            if kind == "latest":
                count = int(rest or 1)
                if count >= 1:
                    return cls(kind=kind, count=count)
            elif kind == "all" and not rest:
                return cls(kind=kind)
            elif kind == "specific":
                versions = tuple(int(part) for part in rest.split(",") if part.strip())
                if versions:
                    return cls(kind=kind, versions=versions)
        except ValueError:
            pass
        raise LoadFailed(f"--version-policy {text!r}: expected latest:N, all, or specific:1,2")

    def choose(self, present: list[int]) -> set[int]:
        if self.kind == "all":
            return set(present)
        if self.kind == "specific":
            return set(self.versions) & set(present)
        return set(sorted(present)[-self.count :])


def scan(base: Path) -> dict[int, Path]:
    """Version -> directory: children whose whole name is an integer; `base` itself as version 1
    when it
    is a SavedModel. Of several spellings of one number the last in name order wins."""
    if (base / "saved_model.pb").is_file():
        return {1: base}
    found = {}
    if base.is_dir():
        for child in sorted(base.iterdir()):
            if child.is_dir() and child.name.isdecimal() and child.name.isascii():
                found[int(child.name)] = child
    return found


def fingerprint(directory: Path) -> Fingerprint:
    """Raises OSError when files vanish meanwhile."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    stats = [path.stat() for path in files]
    return len(stats), sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)


def looks_complete(directory: Path) -> bool:
    """A SavedModel has its graph, and weights if it has a variables directory at all."""
    if not (directory / "saved_model.pb").is_file():
        return False
    variables = directory / "variables"
    if not variables.is_dir():
        return True
    return (variables / "variables.index").is_file() and any(variables.glob("variables.data-*"))


class Settling:
    """Remembers fingerprints between looks: a version is settled when two looks in a row agree."""

    def __init__(self, look: Callable[[Path], Fingerprint] = fingerprint) -> None:
        self._look = look
        self._seen: dict[int, Fingerprint] = {}

    def complete(self, versions: dict[int, Path]) -> set[int]:
        """Versions that look complete now; there has been no look before."""
        self.settled(versions)
        return set(self._seen)

    def settled(self, versions: dict[int, Path]) -> set[int]:
        settled = set()
        now: dict[int, Fingerprint] = {}
        for version, directory in versions.items():
            try:
                if not looks_complete(directory):
                    continue
                now[version] = self._look(directory)
            except OSError:
                continue
            if self._seen.get(version) == now[version]:
                settled.add(version)
        self._seen = now
        return settled
