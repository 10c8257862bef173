"""Prometheus metrics in the text format, from plain dictionaries. Written to only when METRICS_PORT
is set.

Times are seconds. Label values are step labels (`node/step`), statuses and error kinds: all from
the graph, none from clients, so the number of series is bounded.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

BUCKETS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
"""Upper bounds in seconds: from a cache hit to a cold start."""

Labels = tuple[tuple[str, str], ...]

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"


class Counter:
    """A number per label set that only grows."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.values: dict[Labels, float] = {}

    def add(self, labels: Labels, amount: float = 1) -> None:
        self.values[labels] = self.values.get(labels, 0) + amount

    def lines(self) -> Iterator[str]:
        yield from _head(self.name, self.text, "counter")
        for labels, value in self.values.items():
            yield f"{self.name}{_labels(labels)} {value:g}"


class Histogram:
    """Observations per label set, counted in buckets."""

    def __init__(self, name: str, text: str, buckets: Sequence[float] = BUCKETS) -> None:
        self.name = name
        self.text = text
        self.buckets = tuple(buckets)
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, labels: Labels, value: float) -> None:
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self.buckets) + 1)
            self._sums[labels] = 0.0
        counts[bisect_left(self.buckets, value)] += 1
        self._sums[labels] += value

    def lines(self) -> Iterator[str]:
        yield from _head(self.name, self.text, "histogram")
        for labels, counts in self._counts.items():
            total = 0
            for bound, count in zip((*self.buckets, float("inf")), counts, strict=True):
                total += count
                edge = "+Inf" if bound == float("inf") else f"{bound:g}"
                yield f"{self.name}_bucket{_labels((*labels, ('le', edge)))} {total}"
            yield f"{self.name}_sum{_labels(labels)} {self._sums[labels]:.9g}"
            yield f"{self.name}_count{_labels(labels)} {total}"


class Metrics:
    """Everything the router counts."""

    def __init__(self) -> None:
        self.requests = Counter(
            "turnout_requests_total", "Requests answered, by status (499: the client left)."
        )
        self.request_seconds = Histogram(
            "turnout_request_seconds", "Time from a whole request to its answer."
        )
        self.step_calls = Counter(
            "turnout_step_calls_total", "Calls of a step, by status or kind of error."
        )
        self.step_seconds = Histogram("turnout_step_seconds", "Time of one call of a step.")
        self.policies = Counter(
            "turnout_step_policies_total",
            "What step policies did: retries, hedges, cache_hits, mirrors.",
        )

    def render(self, gauges: Iterable[tuple[str, str, str, Labels, float]] = ()) -> bytes:
        """The text format. `gauges` are read at scrape time: (name, help, type, labels, value)."""
        out: list[str] = []
        for metric in (
            self.requests,
            self.request_seconds,
            self.step_calls,
            self.step_seconds,
            self.policies,
        ):
            out += metric.lines()
        seen: set[str] = set()
        for name, text, kind, labels, value in gauges:
            if name not in seen:
                seen.add(name)
                out += _head(name, text, kind)
            out.append(f"{name}{_labels(labels)} {value:g}")
        return ("\n".join(out) + "\n").encode()


def _head(name: str, text: str, kind: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escape(value)}"' for key, value in labels) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
