"""When to try again, how long to wait, when to give up. Pure but for the waiting itself."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping

from .errors import DeadlineExceeded, Relocated, StorageError, Throttled

RETRY_AFTER_MAX_S = 300.0
"""A server may ask for this long; more would be a failure in disguise."""
TOTAL_ATTEMPTS_FACTOR = 25
"""Even with progress each time, `attempts` × this many tries of one range are the end."""

THROTTLED_PATIENCE = 4
"""A server that asks for patience is alive: so many times more attempts."""
MAX_RELOCATIONS = 20
"""Redirects and renewals of one range; more is a loop."""

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524})
"""Statuses worth another try."""
THROTTLING = frozenset({429, 503, 509})


def jitter() -> float:
    """Uniform in [0, 1]; `random` would cost more to import than the rest of this module."""
    return int.from_bytes(os.urandom(2)) / 0xFFFF


class Control:
    """What all threads of a fetch share: the stop flag, the deadline, the throttling gate."""

    def __init__(
        self, *, attempts: int, back_off_s: float, back_off_max_s: float, deadline_s: float = 0.0
    ) -> None:
        self._attempts = attempts
        self._local = threading.local()
        self.back_off_s = back_off_s
        self.back_off_max_s = back_off_max_s
        self.deadline_s = deadline_s
        self._ends = time.monotonic() + deadline_s if deadline_s else None
        self._open_at = 0.0
        self.stopped = threading.Event()
        self.retries = 0

    @property
    def attempts(self) -> int:
        return int(getattr(self._local, "attempts", self._attempts))

    @contextlib.contextmanager
    def impatient(self, attempts: int) -> Iterator[None]:
        """Fewer attempts for what this thread does inside."""
        self._local.attempts = min(attempts, self._attempts)
        try:
            yield
        finally:
            del self._local.attempts

    def remaining_s(self) -> float | None:
        """Seconds to the deadline; None without one."""
        return None if self._ends is None else self._ends - time.monotonic()

    def check(self, state: str = "waiting") -> None:
        """Raise if the deadline has passed or the fetch was stopped."""
        if self.stopped.is_set():
            raise Cancelled
        left = self.remaining_s()
        if left is not None and left <= 0:
            raise DeadlineExceeded(self.deadline_s, state)

    def gate(self) -> None:
        """Before a request: wait while a server asked everybody to slow down."""
        wait = self.closed_for_s()
        if wait > 0:
            self.sleep(wait * (1 + jitter() * 0.25))

    def closed_for_s(self) -> float:
        """How long the gate stays closed; 0 or less: it is open."""
        return self._open_at - time.monotonic()

    def slow_down(self, wait_s: float) -> None:
        wait_s = min(wait_s, RETRY_AFTER_MAX_S)
        self._open_at = max(self._open_at, time.monotonic() + wait_s)

    def sleep(self, seconds: float) -> None:
        left = self.remaining_s()
        self.stopped.wait(seconds if left is None else max(0.0, min(seconds, left)))
        self.check("waiting to try again")


class Cancelled(StorageError):
    """Another thread's failure (or a signal) ended the fetch; never shown."""

    def __init__(self) -> None:
        super().__init__("cancelled")


class Retry:
    """Counts the tries of one range. `failed` waits, or raises the error it was given."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._fruitless = 0
        self._total = 0
        self._relocations = 0

    def failed(self, error: StorageError, *, progressed: bool = False) -> None:
        control = self._control
        control.check(str(error))
        if not error.retryable:
            raise error
        if isinstance(error, Relocated):
            self._relocations += 1
            if self._relocations > MAX_RELOCATIONS:
                raise error
            return
        self._total += 1
        self._fruitless = 0 if progressed else self._fruitless + 1
        exhausted = self._total >= control.attempts * TOTAL_ATTEMPTS_FACTOR
        patience = THROTTLED_PATIENCE if isinstance(error, Throttled) else 1
        if self._fruitless >= control.attempts * patience or exhausted:
            raise error
        control.retries += 1
        if isinstance(error, Throttled):
            own = self._delay(
                max(1, self._fruitless)
            )  # `Retry-After: 0` is no invitation to hammer
            asked = max(own, error.wait_s or 0.0)
            control.slow_down(asked)
            control.gate()
        elif not progressed:
            control.sleep(self._delay(self._fruitless))

    def _delay(self, attempt: int) -> float:
        """Full jitter: anything between half and the whole of an exponentially growing step."""
        control = self._control
        step = min(control.back_off_max_s, control.back_off_s * 2.0 ** min(attempt - 1, 30))
        return step * (0.5 + jitter() / 2)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """`Retry-After` in seconds, from its number or date form; None when absent or unreadable."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text)
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
