"""What a fetch is asked for and what it reports: destinations, their sources, reports."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from . import sha256
from .errors import DestinationError, InvalidUri
from .records import Record
from .settings import Settings
from .uri import Uri, apply_mirrors, parse


class Report(Record):
    """What a fetch did for one destination."""

    sources: tuple[str, ...]
    """Without secrets."""
    dest: str
    outcome: str
    """`fetched`, `complete` (nothing to do) or `provided` (read-only, not ours)."""
    files: int
    bytes: int
    """Size of the published tree."""
    bytes_fetched: int
    """Bytes that came from the source in this run; over all destinations of the run."""
    seconds: float
    retries: int = 0
    cache_hits: int = 0
    """Files that came from the node cache."""

    @property
    def mb_per_s(self) -> float:
        return self.bytes_fetched / self.seconds / 1e6 if self.seconds else 0.0


class Destination:
    """One directory and what goes into it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uris: list[Uri] = []

    @property
    def shown(self) -> tuple[str, ...]:
        return tuple(uri.shown for uri in self.uris)

    def identity(self, settings: Settings) -> str:
        parts = [[uri.identity for uri in self.uris]]
        parts += [list(settings.allow_patterns), list(settings.ignore_patterns)]
        parts.append([str(settings.unpack), settings.local_mode])
        return sha256.hexdigest(json.dumps(parts).encode())[:32]


def plan(pairs: Sequence[tuple[str | Path, str | Path]], settings: Settings) -> list[Destination]:
    """Parse everything before anything is touched."""
    destinations: dict[str, Destination] = {}
    for given, dest in pairs:
        source = os.fspath(given)
        if not str(dest):
            raise InvalidUri(repr(str(dest)), "the destination is empty; name a directory")
        real = os.path.realpath(dest)
        if os.path.dirname(real) == real:
            raise DestinationError(real, "the root directory is no destination")
        above = os.path.dirname(real)
        while not os.path.lexists(above):
            above = os.path.dirname(above)
        if not os.path.isdir(above):
            raise DestinationError(real, f"{above} is a file, not a directory")
        destination = destinations.setdefault(real, Destination(Path(real)))
        uri = parse(apply_mirrors(source, settings.mirrors))
        if uri.provider == "local":
            here = os.path.realpath(uri.path)
            if real.startswith(here.rstrip("/") + "/"):
                raise DestinationError(real, f"lies inside its own source {uri.shown}")
        destination.uris.append(uri)
    return list(destinations.values())
