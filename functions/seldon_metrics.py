"""Metrics that user classes report, as Prometheus series with Seldon's names and labels (spec
section 4): counters as `<key>_total`, gauges as they are called, timers (milliseconds) as
histograms in seconds; and the counters of feedback.

Reported on model threads, hence the lock. With several workers the numbers of all are added up
(gauges: the last one counts), so there is no label `worker_id`.
"""

import logging
import re
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

logger = logging.getLogger(__name__)

MAX_SERIES: Final = 2000
"""User tags are labels: more series than this are not kept, and a warning says so once."""

BUCKETS: Final = tuple(0.001 * (30 / 0.001) ** (n / 49) for n in range(50))
"""Of timers, in seconds: fifty from 1 ms to 30 s, evenly on a logarithmic scale."""

Labels = tuple[tuple[str, str], ...]
_UNFIT = re.compile(r"[^a-zA-Z0-9_:]")


class _Timer:
    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0


class UserMetrics:
    """The series of one unit."""

    def __init__(
        self,
        *,
        deployment: str = "",
        predictor: str = "",
        predictor_version: str = "",
        unit: str = "",
        image: str = "",
    ) -> None:
        name, _, version = image.rpartition(":")
        self._labels: Labels = (
            ("deployment_name", deployment),
            ("model_name", unit),
            ("model_image", name or image),
            ("model_version", version if name else ""),
            ("predictor_name", predictor),
            ("predictor_version", predictor_version),
            ("seldon_deployment_name", deployment),
            ("image_name", name or image),
            ("image_version", version if name else ""),
        )
        self._lock = threading.Lock()
        self._numbers: dict[tuple[str, str, Labels], float] = {}
        """(name, counter or gauge, labels) -> value."""
        self._timers: dict[tuple[str, Labels], _Timer] = {}
        self._full = False

    def observe(self, method: str, metrics: Sequence[Mapping[str, Any]]) -> None:
        """Count what a call reported."""
        if not metrics:
            return
        with self._lock:
            for metric in metrics:
                own = tuple(
                    (_word(str(key)), str(value))
                    for key, value in sorted((metric.get("tags") or {}).items())
                )
                labels = (*self._labels, ("method", method), *own)
                self._observe(_word(metric["key"]), metric["type"], float(metric["value"]), labels)

    def _observe(self, name: str, kind: str, value: float, labels: Labels) -> None:
        if kind == "TIMER":
            timer = self._timers.get((name, labels))
            if timer is None:
                if not self._has_room():
                    return
                timer = self._timers[name, labels] = _Timer()
            timer.counts[bisect_left(BUCKETS, value / 1000)] += 1
            timer.total += value / 1000
            return
        key = (f"{name}_total", "counter", labels) if kind == "COUNTER" else (name, "gauge", labels)
        if key not in self._numbers and not self._has_room():
            return
        before = self._numbers.get(key, 0.0) if kind == "COUNTER" else 0.0
        self._numbers[key] = before + value

    def rewarded(self, reward: float) -> None:
        """A feedback has come."""
        with self._lock:
            labels = (*self._labels, ("method", "feedback"))
            for name, value in (("feedback", 1.0), ("feedback_reward", reward)):
                if value:
                    self._observe(f"seldon_api_model_{name}", "COUNTER", value, labels)

    def _has_room(self) -> bool:
        if len(self._numbers) + len(self._timers) < MAX_SERIES:
            return True
        if not self._full:
            self._full = True
            logger.warning("user metrics: more than %d series, no further ones", MAX_SERIES)
        return False

    # --- out -----------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """For the other workers of this server."""
        with self._lock:
            return {
                "numbers": [[*key, value] for key, value in self._numbers.items()],
                "timers": [
                    [name, labels, timer.counts, timer.total]
                    for (name, labels), timer in self._timers.items()
                ],
            }

    def add(self, numbers: Mapping[str, Any]) -> None:
        """Add another process's numbers, as `to_json` wrote them."""
        for name, kind, raw, value in numbers["numbers"]:
            key = (name, kind, tuple(map(tuple, raw)))
            before = self._numbers.get(key, 0.0) if kind == "counter" else 0.0
            self._numbers[key] = before + value
        for name, raw, counts, total in numbers["timers"]:
            timer = self._timers.setdefault((name, tuple(map(tuple, raw))), _Timer())
            timer.counts = [a + b for a, b in zip(timer.counts, counts, strict=True)]
            timer.total += total

    def lines(self) -> Iterable[str]:
        """The text format."""
        said = ""
        for (name, kind, labels), value in sorted(self._numbers.items()):
            if name != said:
                yield f"# TYPE {name} {kind}\n"
                said = name
            yield f"{name}{_text(labels)} {value:g}\n"
        for (name, labels), timer in sorted(self._timers.items(), key=lambda item: item[0]):
            if name != said:
                yield f"# TYPE {name} histogram\n"
                said = name
            running = 0
            for bound, count in zip((*BUCKETS, None), timer.counts, strict=True):
                running += count
                le = "+Inf" if bound is None else f"{bound:.6g}"
                yield f"{name}_bucket{_text((*labels, ('le', le)))} {running}\n"
            yield f"{name}_sum{_text(labels)} {timer.total!r}\n"
            yield f"{name}_count{_text(labels)} {running}\n"


def _word(text: str) -> str:
    """A name that Prometheus takes."""
    word = _UNFIT.sub("_", text)
    return f"_{word}" if not word or word[0].isdigit() else word


def _text(labels: Labels) -> str:
    escaped = (
        (k, v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for k, v in labels
    )
    return "{" + ",".join(f'{key}="{value}"' for key, value in escaped) + "}"
