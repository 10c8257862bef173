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
from dataclasses import dataclass
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


MAX_BYTES = 64 << 20
"""What a memory journal holds of answers and replies, and as much again of asynchronous answers."""


class MemoryJournal:
    """The journal of a process that need not remember past its own end. Bounded in number and
    bytes, oldest out first."""

    def __init__(
        self,
        *,
        ttl_s: float,
        max_entries: int,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._bytes = self._shelf_bytes = 0
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
                self._bytes += len(answer) - len(row.answer or b"")
                row.answer = answer

    def done(self, keys: Sequence[str], reply: bytes, order: Order | None = None) -> None:
        with self._lock:
            primary = self._primary(keys)
            self._forget(primary)
            self._rows[primary] = _Row(State.DONE, self._clock() + self._ttl_s, None, reply)
            self._bytes += len(reply)
            if order is not None:
                self._orders[order.object_id] = order.sequencer
                self._orders.move_to_end(order.object_id)
            self._trim(primary)

    def release(self, keys: Sequence[str]) -> None:
        with self._lock:
            primary = self._primary(keys)
            row = self._rows.get(primary)
            if row is None or row.state is State.DONE:
                return
            if row.answer is None:
                self._forget(primary)
            else:
                row.state, row.expires = State.ANSWERED, self._clock() + self._ttl_s

    def last_sequencer(self, object_id: str) -> str | None:
        with self._lock:
            return self._orders.get(object_id)

    def keep(self, name: str, value: bytes, ttl_s: float) -> None:
        with self._lock:
            self._shelf_bytes -= len(self._shelf.pop(name, (0.0, b""))[1])
            if value:
                self._shelf[name] = (self._clock() + ttl_s, value)
                self._shelf_bytes += len(value)
            while len(self._shelf) > 1 and (
                len(self._shelf) > self._max_entries or self._shelf_bytes > self._max_bytes
            ):
                self._shelf_bytes -= len(self._shelf.popitem(last=False)[1][1])

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
                self._forget(primary)
                return None
            row.state = State.ANSWERED
        return row

    def _remember_aliases(self, keys: Sequence[str]) -> None:
        for key in keys[1:]:
            self._aliases[key] = keys[0]

    def _forget(self, primary: str) -> None:
        row = self._rows.pop(primary, None)
        if row is not None:
            self._bytes -= len(row.reply or b"") + len(row.answer or b"")

    def _trim(self, newest: str) -> None:
        while len(self._rows) > self._max_entries or self._bytes > self._max_bytes:
            # What is in flight stays, and is bounded by concurrency.
            rows = self._rows.items()
            oldest = next((key for key, row in rows if row.state is not State.BUSY), newest)
            if oldest == newest:
                break
            self._forget(oldest)
        for extra in (self._aliases, self._orders):
            while len(extra) > 2 * self._max_entries:
                extra.popitem(last=False)
