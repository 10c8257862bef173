"""What has been dealt with: the memory that makes side effects happen once.

Theory of operation. A piece of work has one or two keys (the object's identity, and source+id of
the event) and passes through three durable states:

    claimed    somebody works on it; a second delivery waits or is told to come back (409)
    answered   the model's answer is recorded: a restart repeats neither the inference nor the
    choice
               of bucket and key, it only finishes the effects (each of which can be repeated)
    done       everything happened; a redelivery gets the recorded reply and nothing else

`begin` is atomic. A claim belongs to an owner (one process run). A claim whose owner is gone may be
taken over at once if that can be known (SQLite: a file lock), otherwise when its lease ends.
Failing work is `release`d: the claim goes, a recorded answer stays.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol


class State(Enum):
    """What `begin` found."""

    NEW = "new"
    BUSY = "busy"
    ANSWERED = "answered"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Entry:
    """NEW and ANSWERED: the claim is ours now. `answer` and `reply` are whatever was recorded."""

    state: State
    answer: bytes | None = None
    reply: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Position of an event among those of the same object, where the producer tells one."""

    object_id: str
    sequencer: str


class Journal(Protocol):
    """All methods are thread-safe and may raise `TryAgain` if the store cannot be reached."""

    def begin(self, keys: Sequence[str], lease_s: float) -> Entry: ...

    def answered(self, keys: Sequence[str], answer: bytes) -> None: ...

    def done(self, keys: Sequence[str], reply: bytes, order: Order | None = None) -> None: ...

    def release(self, keys: Sequence[str]) -> None: ...

    def last_sequencer(self, object_id: str) -> str | None: ...

    def keep(self, name: str, value: bytes, ttl_s: float) -> None:
        """Keep a value for a while (answers of asynchronous requests); b"" forgets it."""

    def kept(self, name: str) -> bytes | None: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class _Row:
    state: State
    expires: float
    answer: bytes | None = None
    reply: bytes | None = None


class MemoryJournal:
    """The journal of a process that need not remember past its own end. Bounded, oldest out
    first."""

    def __init__(
        self, *, ttl_s: float, max_entries: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._clock = clock
        self._lock = threading.Lock()
        self._rows: OrderedDict[str, _Row] = OrderedDict()
        self._aliases: OrderedDict[str, str] = OrderedDict()
        self._orders: OrderedDict[str, str] = OrderedDict()
        self._shelf: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    def begin(self, keys: Sequence[str], lease_s: float) -> Entry:
        now = self._clock()
        with self._lock:
            row = self._find(keys, now)
            if row is None:
                self._rows[keys[0]] = _Row(State.BUSY, now + lease_s)
                self._remember_aliases(keys)
                return Entry(State.NEW)
            if row.state is State.DONE:
                return Entry(State.DONE, row.answer, row.reply)
            if row.state is State.BUSY:
                return Entry(State.BUSY)
            row.state, row.expires = State.BUSY, now + lease_s
            return Entry(State.ANSWERED, row.answer)

    def answered(self, keys: Sequence[str], answer: bytes) -> None:
        with self._lock:
            row = self._rows.get(self._primary(keys))
            if row is not None:
                row.answer = answer

    def done(self, keys: Sequence[str], reply: bytes, order: Order | None = None) -> None:
        with self._lock:
            primary = self._primary(keys)
            self._rows[primary] = _Row(State.DONE, self._clock() + self._ttl_s, None, reply)
            self._rows.move_to_end(primary)
            if order is not None:
                self._orders[order.object_id] = order.sequencer
                self._orders.move_to_end(order.object_id)
            self._trim()

    def release(self, keys: Sequence[str]) -> None:
        with self._lock:
            primary = self._primary(keys)
            row = self._rows.get(primary)
            if row is None or row.state is State.DONE:
                return
            if row.answer is None:
                del self._rows[primary]
            else:
                row.state, row.expires = State.ANSWERED, self._clock() + self._ttl_s

    def last_sequencer(self, object_id: str) -> str | None:
        with self._lock:
            return self._orders.get(object_id)

    def keep(self, name: str, value: bytes, ttl_s: float) -> None:
        with self._lock:
            self._shelf.pop(name, None)
            if value:
                self._shelf[name] = (self._clock() + ttl_s, value)
            while len(self._shelf) > self._max_entries:
                self._shelf.popitem(last=False)

    def kept(self, name: str) -> bytes | None:
        with self._lock:
            expires, value = self._shelf.get(name, (0.0, b""))
            return value if expires > self._clock() else None

    def close(self) -> None:
        """Nothing to give back."""

    def _primary(self, keys: Sequence[str]) -> str:
        for key in keys:
            if key in self._rows:
                return key
            if key in self._aliases and self._aliases[key] in self._rows:
                return self._aliases[key]
        return keys[0]

    def _find(self, keys: Sequence[str], now: float) -> _Row | None:
        primary = self._primary(keys)
        row = self._rows.get(primary)
        if row is not None and row.expires <= now:
            answer = row.answer if row.state is State.BUSY else None
            if answer is None:
                del self._rows[primary]
                return None
            return replace(row, state=State.ANSWERED)
        return row

    def _remember_aliases(self, keys: Sequence[str]) -> None:
        for key in keys[1:]:
            self._aliases[key] = keys[0]

    def _trim(self) -> None:
        while len(self._rows) > self._max_entries:
            oldest = next(iter(self._rows))
            if self._rows[oldest].state is not State.DONE:  # in flight: bounded by concurrency
                break
            del self._rows[oldest]
        for extra in (self._aliases, self._orders):
            while len(extra) > 2 * self._max_entries:
                extra.popitem(last=False)
