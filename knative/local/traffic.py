"""Which revision a request goes to: traffic percentages and tags. Pure.

A route is a list of revisions with cumulative percentages; one random number decides per request,
as Knative's ingress does. Tags are hosts of their own (`TAG-NAME.NS`), and with the header
`Knative-Serving-Tag`.
"""

import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Generic, TypeVar

SUFFIXES = (".svc.cluster.local", ".svc", "", ".localhost", ".example.com")
"""Hosts of a service are NAME.NS followed by one of these."""

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Split(Generic[R]):
    """Revisions with the percentage each gets; percentages add up to 100."""

    revisions: tuple[R, ...]
    bounds: tuple[int, ...]
    """Cumulative percentages."""

    def choose(self, roll: float) -> R:
        """`roll` in [0, 100)."""
        if len(self.revisions) == 1:
            return self.revisions[0]
        return self.revisions[bisect_right(self.bounds, roll)]


@dataclass(frozen=True, slots=True)
class Route(Generic[R]):
    """What one host leads to."""

    service: str
    split: Split[R]
    tags: Mapping[str, R]

    def choose(self, tag: str, chooser: random.Random) -> R:
        """The revision for one request; an unknown tag falls back to the split."""
        if tag and tag in self.tags:
            return self.tags[tag]
        split = self.split
        if len(split.revisions) == 1:
            return split.revisions[0]
        return split.choose(chooser.random() * 100)


def make_split(shares: Sequence[tuple[R, int]]) -> Split[R]:
    """Percentages of revisions, zero shares left out; the same revision twice is added up."""
    merged: dict[R, int] = {}
    for revision, percent in shares:
        if percent > 0:
            merged[revision] = merged.get(revision, 0) + percent
    return Split(tuple(merged), tuple(accumulate(merged.values())))


def hosts(name: str, namespace: str, tag: str = "") -> list[str]:
    """All host names of a service (or of one of its tags), lower case."""
    prefix = f"{tag}-{name}" if tag else name
    return [f"{prefix}.{namespace}{suffix}".lower() for suffix in SUFFIXES]
