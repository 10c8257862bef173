"""Request statistics of one revision: concurrency over time, and requests per second. Pure.

Source: spec section 2.2 (activator reporter). Every second `tick` yields the average concurrency
and the number of requests of the last interval. The very first request after silence does not wait
for the tick: it is reported at once as (1, 1), so that scaling from zero starts immediately, and
that one request is discounted from the next tick. The engine sees every request itself, so nothing
is sampled or scraped.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Report:
    concurrency: float
    requests: float


class RequestStats:
    """Concurrency and request count; all times are readings of the engine's clock, in seconds."""

    __slots__ = ("_area", "_changed", "_discount", "_known", "_requests", "_started", "concurrency")

    def __init__(self, now: float) -> None:
        self.concurrency = 0
        self._area = 0.0
        self._changed = self._started = now
        self._requests = 0
        self._known = False
        self._discount = 0

    def begin(self, now: float) -> Report | None:
        """A request arrived. Returns the report to push at once when it ends a silence."""
        self._advance(now)
        self.concurrency += 1
        self._requests += 1
        if self._known:
            return None
        self._known = True
        self._discount = 1
        return Report(1.0, 1.0)

    def end(self, now: float) -> None:
        """A request is answered, or its client has gone."""
        self._advance(now)
        self.concurrency -= 1

    def tick(self, now: float) -> Report | None:
        """Report and reset the interval; None when there is nothing to say (silence goes on)."""
        if not self._known:
            return None
        self._advance(now)
        elapsed = now - self._started
        average = self._area / elapsed if elapsed > 0 else float(self.concurrency)
        concurrency = max(0.0, average - self._discount)
        requests = max(0, self._requests - self._discount)
        self._discount = 0
        self._area = 0.0
        self._started = now
        idle = self._requests == 0 and self.concurrency == 0
        self._requests = 0
        if idle:
            self._known = False
            return None
        return Report(concurrency, float(requests))

    def _advance(self, now: float) -> None:
        if now > self._changed:
            self._area += self.concurrency * (now - self._changed)
            self._changed = now
