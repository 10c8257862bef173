"""Averages over sliding windows of one-second buckets: what the autoscaler sees of the load. Pure.

Source: spec section 2.2. A window is a ring of buckets. The linear average divides by the *valid*
buckets only: from the first write to the newest, gaps inside counting as zero, and seconds after
the newest write (silence whose numbers have not arrived yet) are left out together with the old
buckets they displace. After a full window without any write the average is 0 and history starts
afresh.
"""

import math
from typing import Literal

_PRECISION_DIGITS = 6


class Window:
    """Linear average over `length_s` seconds."""

    __slots__ = ("_buckets", "_first", "_last", "_total")

    def __init__(self, length_s: float) -> None:
        self._buckets = [0.0] * max(1, math.ceil(length_s))
        self._total = 0.0
        self._first: int | None = None
        self._last = 0

    def is_empty(self, now: float) -> bool:
        """No write within the last window."""
        return self._first is None or math.floor(now) - self._last >= len(self._buckets)

    def record(self, now: float, value: float) -> None:
        """Add `value` to the bucket of `now`; a late write is fine while its bucket is still
        inside."""
        second, size = math.floor(now), len(self._buckets)
        if self._first is None or second - self._last >= size:
            self._buckets = [0.0] * size
            self._total = 0.0
            self._first = self._last = second
        elif second > self._last:
            for stale in range(self._last + 1, second + 1):
                self._total -= self._buckets[stale % size]
                self._buckets[stale % size] = 0.0
            self._last = second
        elif self._last - second >= size:
            return
        else:
            self._first = min(self._first, second)
        self._buckets[second % size] += value
        self._total += value

    def average(self, now: float) -> float:
        """Average per second over the valid buckets, rounded to 6 digits; 0 when empty."""
        if self._first is None or self.is_empty(now):
            return 0.0
        second, size = math.floor(now), len(self._buckets)
        silence = max(0, second - self._last)
        total = self._total
        for displaced in range(self._last + 1, self._last + silence + 1):
            total -= self._buckets[displaced % size]
        valid = min(self._last - self._first + 1, size - silence)
        return round(total / valid, _PRECISION_DIGITS)


class WeightedWindow(Window):
    """Exponentially weighted: a second `k` ago counts with weight s(1-s)^k, s from `smoothing`."""

    __slots__ = ("_smoothing",)

    def __init__(self, length_s: float) -> None:
        super().__init__(length_s)
        self._smoothing = smoothing(len(self._buckets))

    def average(self, now: float) -> float:
        if self.is_empty(now):
            return 0.0
        size = len(self._buckets)
        silence = max(0, math.floor(now) - self._last)
        weight = self._smoothing * (1 - self._smoothing) ** silence
        result = 0.0
        for age in range(size - silence):
            result += self._buckets[(self._last - age) % size] * weight
            weight *= 1 - self._smoothing
        return result


def smoothing(buckets: int) -> float:
    """Coefficient that leaves 0.01 % of the weight beyond the window, but never below 0.2."""
    return max(0.2, 1.0 - math.pow(1e-4, 1 / buckets))


def make_window(length_s: float, algorithm: Literal["linear", "weighted-exponential"]) -> Window:
    """The window kind that the revision's metric-aggregation-algorithm names."""
    return WeightedWindow(length_s) if algorithm == "weighted-exponential" else Window(length_s)
