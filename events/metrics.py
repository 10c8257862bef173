"""Counters of one process, readable as Prometheus text. No library, no labels beyond one.

Updated under one lock from many threads; a counter costs well under a microsecond.
"""

import threading
from collections import Counter, deque
from collections.abc import Iterable


class Metrics:
    """Named counters with one label value each, and a reservoir of recent durations."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._seconds: deque[float] = deque(maxlen=2048)
        self._observed = 0
        self._sum_s = 0.0

    def count(self, name: str, label: str = "", amount: int = 1) -> None:
        with self._lock:
            self._counts[name, label] += amount

    def observe(self, seconds: float) -> None:
        with self._lock:
            self._seconds.append(seconds)
            self._observed += 1
            self._sum_s += seconds

    def value(self, name: str, label: str = "") -> int:
        with self._lock:
            return self._counts[name, label]

    def text(self, gauges: Iterable[tuple[str, float]] = ()) -> str:
        """Prometheus text exposition format 0.0.4."""
        with self._lock:
            counts = sorted(self._counts.items())
            seconds = sorted(self._seconds)
            observed, sum_s = self._observed, self._sum_s
        lines: list[str] = []
        last = ""
        for (name, label), value in counts:
            full = f"{self._prefix}_{name}_total"
            if full != last:
                lines.append(f"# TYPE {full} counter")
                last = full
            lines.append(
                f'{full}{{kind="{_escape(label)}"}} {value}' if label else f"{full} {value}"
            )
        for name, number in gauges:
            lines += [f"# TYPE {self._prefix}_{name} gauge", f"{self._prefix}_{name} {number:g}"]
        if seconds:
            name = f"{self._prefix}_seconds"
            lines.append(f"# TYPE {name} summary")
            for quantile in (0.5, 0.9, 0.99):
                index = min(len(seconds) - 1, int(quantile * len(seconds)))
                lines.append(f'{name}{{quantile="{quantile}"}} {seconds[index]:.6f}')
            lines += [f"{name}_sum {sum_s:.6f}", f"{name}_count {observed}"]
        return "\n".join(lines) + "\n"


def _escape(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
