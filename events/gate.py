"""Bounded concurrency with a bounded queue; and one run per key, shared by all who ask for it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from .errors import InFlight

T = TypeVar("T")


class Gate:
    """At most `places` at once, at most `waiting` in front; who does not fit is told at once."""

    def __init__(self, places: int, waiting: int) -> None:
        self._places = places
        self._max_waiting = waiting
        self._waiting = 0
        self._taken = 0
        self._condition = threading.Condition()

    def enter(self, timeout_s: float) -> bool:
        """Take a place, waiting for one if need be; False: full, or not in time."""
        deadline = time.monotonic() + timeout_s
        with self._condition:
            if self._taken >= self._places:
                if self._waiting >= self._max_waiting:
                    return False
                self._waiting += 1
                try:
                    while self._taken >= self._places:
                        left = deadline - time.monotonic()
                        if left <= 0 or not self._condition.wait(left):
                            if self._taken < self._places:
                                break
                            return False
                finally:
                    self._waiting -= 1
            self._taken += 1
            return True

    def leave(self) -> None:
        with self._condition:
            self._taken -= 1
            self._condition.notify()

    @property
    def taken(self) -> int:
        return self._taken


class _Run(Generic[T]):
    """`finished` is there once somebody waits: nearly every run has nobody who does."""

    __slots__ = ("finished", "result")

    def __init__(self) -> None:
        self.finished: threading.Event | None = None
        self.result: T | None = None


class Once(Generic[T]):
    """Concurrent calls with the same key share one run and its result."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, _Run[T]] = {}

    def call(self, key: str, work: Callable[[], T], timeout_s: float) -> tuple[T | None, bool]:
        """(result, whether this call did the work); result None: another's run took too long."""
        with self._lock:
            run = self._runs.get(key)
            mine = run is None
            if run is None:
                run = self._runs[key] = _Run()
            elif run.finished is None:
                run.finished = threading.Event()
        if not mine:
            assert run.finished is not None
            run.finished.wait(timeout_s)
            return run.result, False
        try:
            run.result = work()
        finally:
            with self._lock:
                del self._runs[key]
            if run.finished is not None:
                run.finished.set()
        return run.result, True


class KeyedLocks:
    """A lock per key, alive only while somebody holds or wants it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def hold(self, key: str, timeout_s: float) -> Iterator[None]:
        """Raises `InFlight` if somebody else keeps it for that long."""
        with self._lock:
            lock, users = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = (lock, users + 1)
        try:
            if not lock.acquire(timeout=max(0.0, timeout_s)):
                raise InFlight("other events of the same object are still being worked on")
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._lock:
                lock, users = self._locks[key]
                if users == 1:
                    del self._locks[key]
                else:
                    self._locks[key] = (lock, users - 1)
