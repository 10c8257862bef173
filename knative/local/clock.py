"""The one source of time, so that every rule about time runs in tests without waiting.

Engine time is monotonic: a step of the wall clock (NTP, suspend, a hand on `date`) never shortens
a timeout or sends a service to zero. Wall time is only ever shown to people.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds since an arbitrary start; never goes backwards."""

    def now(self) -> float: ...


class MonotonicClock:
    """The real one."""

    now = staticmethod(time.monotonic)


def wall_time(at: float, clock_now: float) -> float:
    """Unix seconds of the monotonic instant `at`, given the clock's present reading."""
    return time.time() - (clock_now - at)
