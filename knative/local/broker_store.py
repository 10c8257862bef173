"""Accepted events and their deliveries in SQLite: what has been accepted survives kill -9.

Theory of operation. One thread owns the database. Callers hand it small functions; it runs whatever
has gathered since the last commit in one transaction, commits, and only then resolves their
futures. So a burst of a thousand events costs a few commits, and an accepted event is on disk (WAL)
before its sender hears 202. A delivery row exists from acceptance until it succeeded or died; what
is in flight is known to the dispatchers only, so whatever was in flight at a crash is delivered
again.

    event     one row an event, kept while a delivery or a dead letter refers to it
    delivery  one row an event and trigger: attempt, due, target (subscriber or dead letter sink)
    dead      what nobody could deal with, newest `max_dead`, for people and for replay
"""

import asyncio
import json
import queue
import sqlite3
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from events.event import Event

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]

BATCH = 512
"""Pieces of work in one transaction; more wait for the next."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY, broker TEXT NOT NULL, attributes TEXT NOT NULL, data BLOB,
    headers TEXT NOT NULL, accepted REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS delivery (
    id INTEGER PRIMARY KEY, event INTEGER NOT NULL, trigger TEXT NOT NULL,
    due REAL NOT NULL, attempt INTEGER NOT NULL, failure TEXT
);
CREATE INDEX IF NOT EXISTS delivery_due ON delivery (trigger, due, id);
CREATE INDEX IF NOT EXISTS delivery_event ON delivery (event);
CREATE TABLE IF NOT EXISTS dead (
    id INTEGER PRIMARY KEY, event INTEGER NOT NULL, trigger TEXT NOT NULL, at REAL NOT NULL,
    failure TEXT NOT NULL, delivered INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS dead_event ON dead (event);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One delivery to make. `failure` set: to the dead letter sink, because of this."""

    id: int
    event_id: int
    event: Event
    headers: Mapping[str, str]
    attempt: int
    failure: dict[str, Any] | None
    accepted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadRow:
    """One dead letter. `delivered`: the dead letter sink took it."""

    id: int
    event: Event
    trigger: str
    at: float
    failure: dict[str, Any]
    delivered: bool


class StoreError(OSError):
    """The database does not take writes (disk full, file gone); nothing was accepted."""


class Store:
    """All methods are coroutines of the loop that called `start`."""

    def __init__(self, path: Path, *, durable: bool = False, max_dead: int = 10_000) -> None:
        self._path = path
        self._durable = durable
        self._max_dead = max_dead
        self._work: queue.SimpleQueue[tuple[Work, asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._database: sqlite3.Connection | None = None

    async def start(self) -> None:
        """Open, and put back whatever the last run had in flight. Raises `StoreError`."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="broker-store")
        self._thread.start()
        await opened

    async def stop(self) -> None:
        """Finish what was handed in, then close."""
        if self._thread is not None:
            self._work.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    # --- what the broker asks for -----------------------------------------------------------------
    async def accept(
        self,
        broker: str,
        event: Event,
        headers: Mapping[str, str],
        triggers: Sequence[str],
        now: float,
        *,
        instead_of: int | None = None,
    ) -> None:
        """Keep an event and one delivery for each trigger; `instead_of`: the delivery it replies
        to."""

        def work(database: sqlite3.Connection) -> None:
            if triggers:
                cursor = database.execute(
                    "INSERT INTO event (broker, attributes, data, headers, accepted)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (broker, json.dumps(event.attributes), event.data, json.dumps(headers), now),
                )
                database.executemany(
                    "INSERT INTO delivery (event, trigger, due, attempt) VALUES (?, ?, ?, 0)",
                    [(cursor.lastrowid, trigger, now) for trigger in triggers],
                )
            if instead_of is not None:
                _finish(database, instead_of)

        await self._do(work)

    async def take(
        self, trigger: str, limit: int, now: float, in_flight: Collection[int], *, in_order: bool
    ) -> tuple[list[Row], float | None]:
        """Due deliveries of a trigger that are not in flight (in order: only the oldest); and,
        when there are none, when the next one is due (None: nothing waits)."""

        def work(database: sqlite3.Connection) -> tuple[list[Row], float | None]:
            order = "id" if in_order else "due, id"
            found = database.execute(
                f"SELECT id, due FROM delivery WHERE trigger = ? ORDER BY {order} LIMIT ?",  # noqa: S608
                (trigger, limit + len(in_flight)),
            ).fetchall()
            free = [(row_id, due) for row_id, due in found if row_id not in in_flight][:limit]
            rows = [_row(database, row_id) for row_id, due in free if due <= now]
            return rows, free[0][1] if free and not rows else None

        return await self._do(work)

    async def finish(self, delivery: int) -> None:
        """The delivery succeeded."""
        await self._do(lambda database: _finish(database, delivery))

    async def retry(
        self, delivery: int, due: float, attempt: int, failure: Mapping[str, Any] | None
    ) -> None:
        """Try again at `due`; with a failure: to the dead letter sink."""
        text = None if failure is None else json.dumps(failure)
        await self._do(
            lambda database: database.execute(
                "UPDATE delivery SET due = ?, attempt = ?, failure = ? WHERE id = ?",
                (due, attempt, text, delivery),
            )
        )

    async def bury(
        self, row: Row, trigger: str, at: float, failure: Mapping[str, Any], *, delivered: bool
    ) -> None:
        """The delivery is over without success; keep the event for people."""

        def work(database: sqlite3.Connection) -> None:
            database.execute(
                "INSERT INTO dead (event, trigger, at, failure, delivered) VALUES (?, ?, ?, ?, ?)",
                (row.event_id, trigger, at, json.dumps(failure), delivered),
            )
            _finish(database, row.id)
            extra = database.execute(
                "SELECT id, event FROM dead ORDER BY id DESC LIMIT -1 OFFSET ?", (self._max_dead,)
            ).fetchall()
            for dead_id, event_id in extra:
                database.execute("DELETE FROM dead WHERE id = ?", (dead_id,))
                _forget(database, event_id)

        await self._do(work)

    async def dead(self, limit: int) -> list[DeadRow]:
        """Dead letters, newest first."""

        def work(database: sqlite3.Connection) -> list[DeadRow]:
            found = database.execute(
                "SELECT dead.id, trigger, at, failure, delivered, attributes, data FROM dead"
                " JOIN event ON event.id = dead.event ORDER BY dead.id DESC LIMIT ?",
                (limit,),
            )
            return [
                DeadRow(
                    id=row[0],
                    trigger=row[1],
                    at=row[2],
                    failure=json.loads(row[3]),
                    delivered=bool(row[4]),
                    event=Event(attributes=json.loads(row[5]), data=row[6]),
                )
                for row in found
            ]

        return await self._do(work)

    async def replay(self, dead: int | None, now: float) -> list[str]:
        """Deliver a dead letter (None: all of them) to its trigger again; returns the triggers."""

        def work(database: sqlite3.Connection) -> list[str]:
            found = database.execute(
                "SELECT id, event, trigger FROM dead WHERE ? IS NULL OR id = ? ORDER BY id",
                (dead, dead),
            ).fetchall()
            for dead_id, event_id, trigger in found:
                database.execute(
                    "INSERT INTO delivery (event, trigger, due, attempt) VALUES (?, ?, ?, 0)",
                    (event_id, trigger, now),
                )
                database.execute("DELETE FROM dead WHERE id = ?", (dead_id,))
            return [trigger for _, _, trigger in found]

        return await self._do(work)

    async def pending(self, limit: int) -> list[tuple[str, Row, float]]:
        """(trigger, delivery, due) of what waits or is under way, oldest first."""

        def work(database: sqlite3.Connection) -> list[tuple[str, Row, float]]:
            found = database.execute(
                "SELECT id, trigger, due FROM delivery ORDER BY id LIMIT ?", (limit,)
            ).fetchall()
            return [(trigger, _row(database, row_id), due) for row_id, trigger, due in found]

        return await self._do(work)

    async def counts(self) -> dict[str, int]:
        """Deliveries not yet made, by trigger."""
        return await self._do(
            lambda database: dict(
                database.execute(
                    "SELECT trigger, count(*) FROM delivery GROUP BY trigger"
                ).fetchall()
            )
        )

    async def drop(self, trigger: str) -> None:
        """A trigger was deleted: its deliveries go with it."""

        def work(database: sqlite3.Connection) -> None:
            found = database.execute("SELECT id FROM delivery WHERE trigger = ?", (trigger,))
            for (row_id,) in found.fetchall():
                _finish(database, row_id)

        await self._do(work)

    # --- the thread -------------------------------------------------------------------------------
    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        assert self._loop is not None, "start() comes first"
        future: asyncio.Future[T] = self._loop.create_future()
        self._work.put((work, future))
        return await future

    def _run(self, opened: "asyncio.Future[None]") -> None:
        assert self._loop is not None
        try:
            database = self._open()
        except (sqlite3.Error, OSError) as error:
            failure = StoreError(f"cannot open {self._path}: {error}")
            self._loop.call_soon_threadsafe(opened.set_exception, failure)
            return
        self._loop.call_soon_threadsafe(opened.set_result, None)
        try:
            while self._run_batch(database):
                pass
        finally:
            database.close()

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        database.execute("PRAGMA journal_mode=WAL")
        # NORMAL survives the death of every process; FULL also a power cut, for a sync a commit.
        database.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'NORMAL'}")
        _drop_old_marks(database)
        database.executescript(_SCHEMA)
        return database

    def _run_batch(self, database: sqlite3.Connection) -> bool:
        """Run what has gathered in one transaction; False: asked to stop."""
        batch = [self._work.get()]
        while len(batch) < BATCH and batch[-1] is not None:
            try:
                batch.append(self._work.get_nowait())
            except queue.Empty:
                break
        items = [item for item in batch if item is not None]
        results: list[Any] = []
        error: StoreError | None = None
        try:
            database.execute("BEGIN IMMEDIATE")
            results = [work(database) for work, _ in items]
            database.execute("COMMIT")
        except sqlite3.Error as caught:
            error = StoreError(f"{self._path}: {caught}")
            if database.in_transaction:
                database.execute("ROLLBACK")
        assert self._loop is not None
        futures = [future for _, future in items]
        self._loop.call_soon_threadsafe(_resolve, futures, results, error)
        return batch[-1] is not None


def _drop_old_marks(database: sqlite3.Connection) -> None:
    """Databases of earlier versions marked in the table what was in flight."""
    columns = {row[1] for row in database.execute("PRAGMA table_info(delivery)")}
    if "taken" in columns:
        database.execute("DROP INDEX IF EXISTS delivery_next")
        database.execute("ALTER TABLE delivery DROP COLUMN taken")


def _resolve(
    futures: list["asyncio.Future[Any]"], results: list[Any], error: StoreError | None
) -> None:
    for index, future in enumerate(futures):
        if future.cancelled():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(results[index])


def _row(database: sqlite3.Connection, row_id: int) -> Row:
    found = database.execute(
        "SELECT event.id, attributes, data, headers, attempt, failure, accepted FROM delivery"
        " JOIN event ON event.id = delivery.event WHERE delivery.id = ?",
        (row_id,),
    ).fetchone()
    return Row(
        id=row_id,
        event_id=found[0],
        event=Event(attributes=json.loads(found[1]), data=found[2]),
        headers=json.loads(found[3]),
        attempt=found[4],
        failure=None if found[5] is None else json.loads(found[5]),
        accepted=found[6],
    )


def _finish(database: sqlite3.Connection, delivery: int) -> None:
    found = database.execute(
        "DELETE FROM delivery WHERE id = ? RETURNING event", (delivery,)
    ).fetchone()
    if found is not None:
        _forget(database, found[0])


def _forget(database: sqlite3.Connection, event: int) -> None:
    """Delete an event nothing refers to any more."""
    database.execute(
        "DELETE FROM event WHERE id = ?1"
        " AND NOT EXISTS (SELECT 1 FROM delivery WHERE event = ?1)"
        " AND NOT EXISTS (SELECT 1 FROM dead WHERE event = ?1)",
        (event,),
    )
