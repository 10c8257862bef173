"""The journal in a SQLite file: survives kill -9, shared by the processes of one machine.

Each process holds a lock on a small file of its own for as long as it lives; a claim whose owner's
lock can be had is an orphan and is taken over at once. The only module here that imports sqlite3.
"""

import fcntl
import functools
import glob
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import TryAgain
from .journal import Entry, Order, State

_SCHEMA = """
CREATE TABLE IF NOT EXISTS work (
    key TEXT PRIMARY KEY, state TEXT NOT NULL, owner TEXT NOT NULL, expires REAL NOT NULL,
    answer BLOB, reply BLOB
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS work_expires ON work (expires);
CREATE TABLE IF NOT EXISTS alias (
    key TEXT PRIMARY KEY, main TEXT NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS alias_expires ON alias (expires);
CREATE TABLE IF NOT EXISTS place (
    object TEXT PRIMARY KEY, sequencer TEXT NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS place_expires ON place (expires);
CREATE TABLE IF NOT EXISTS shelf (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS shelf_expires ON shelf (expires);
"""
_TRIM_EVERY = 512
"""Finished pieces of work between two clean-ups."""


class SqliteJournal:
    """See `Journal`. Commits survive the process (WAL, synchronous=NORMAL), not a power cut."""

    def __init__(
        self,
        path: Path,
        *,
        ttl_s: float,
        max_entries: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._clock = clock
        self._lock = threading.Lock()
        self._finished = 0
        self._claimed: dict[str, str] = {}
        """First key of what this process works on -> the key it is kept under."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._owner = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self._owner_lock = os.open(self._owner_file(self._owner), os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._owner_lock, fcntl.LOCK_EX)
        self._remove_orphans()
        self._database = sqlite3.connect(
            path, timeout=30, isolation_level=None, check_same_thread=False
        )
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.executescript(_SCHEMA)
        self._transaction = _Transaction(self._database, self._lock, path)

    def begin(self, keys: Sequence[str], lease_s: float) -> Entry:
        now = self._clock()
        with self._transaction as database:
            main, answer = keys[0], None
            # Nearly all work is new: one look at both tables says so.
            if database.execute(_known(len(keys)), (*keys, *keys)).fetchone() is not None:
                found = self._taken_over(database, keys, now)
                if isinstance(found, Entry):
                    return found
                main, answer = found
            database.execute(
                "INSERT OR REPLACE INTO work VALUES (?, 'claimed', ?, ?, ?, NULL)",
                (main, self._owner, now + lease_s, answer),
            )
            for key in keys:
                if key != main:
                    database.execute(
                        "INSERT OR REPLACE INTO alias VALUES (?, ?, ?)",
                        (key, main, now + self._ttl_s),
                    )
        self._claimed[keys[0]] = main
        return Entry(State.NEW if answer is None else State.ANSWERED, answer)

    def _taken_over(
        self, database: sqlite3.Connection, keys: Sequence[str], now: float
    ) -> Entry | tuple[str, bytes | None]:
        """What is known of these keys: done or being worked on, or else the key it is kept under
        and the answer that somebody who is gone has left."""
        main, row = self._find(database, keys)
        answer = None
        if row is not None:
            state, owner, expires, answer, reply = row
            if state == "done" and expires > now:
                return Entry(State.DONE, None, reply)
            if state == "claimed" and expires > now and not self._is_orphan(owner):
                return Entry(State.BUSY)
            if state == "done":
                answer = None
        return main, answer

    def answered(self, keys: Sequence[str], answer: bytes) -> None:
        with self._reading() as database:  # one statement is a transaction of its own
            database.execute(
                "UPDATE work SET answer = ? WHERE key = ? AND owner = ?",
                (answer, self._main(database, keys), self._owner),
            )

    def done(self, keys: Sequence[str], reply: bytes, order: Order | None = None) -> None:
        expires = self._clock() + self._ttl_s
        with self._transaction as database:
            database.execute(
                "INSERT OR REPLACE INTO work VALUES (?, 'done', '', ?, NULL, ?)",
                (self._main(database, keys), expires, reply),
            )
            if order is not None:
                database.execute(
                    "INSERT OR REPLACE INTO place VALUES (?, ?, ?)",
                    (order.object_id, order.sequencer, expires),
                )
            self._finished += 1
            if self._finished % _TRIM_EVERY == 0:
                self._trim(database)
        self._claimed.pop(keys[0], None)

    def release(self, keys: Sequence[str]) -> None:
        with self._transaction as database:
            main = self._main(database, keys)
            database.execute(
                "DELETE FROM work WHERE key = ? AND owner = ? AND state = 'claimed'"
                " AND answer IS NULL",
                (main, self._owner),
            )
            database.execute(
                "UPDATE work SET state = 'answered', owner = '', expires = ?"
                " WHERE key = ? AND owner = ? AND state = 'claimed'",
                (self._clock() + self._ttl_s, main, self._owner),
            )
        self._claimed.pop(keys[0], None)

    def last_sequencer(self, object_id: str) -> str | None:
        with self._reading() as database:
            row = database.execute(
                "SELECT sequencer FROM place WHERE object = ?", (object_id,)
            ).fetchone()
            return None if row is None else str(row[0])

    def keep(self, name: str, value: bytes, ttl_s: float) -> None:
        now = self._clock()
        with self._transaction as database:
            database.execute("DELETE FROM shelf WHERE expires < ? OR key = ?", (now, name))
            if value:
                row = (name, value, now + ttl_s)
                database.execute("INSERT INTO shelf VALUES (?, ?, ?)", row)

    def kept(self, name: str) -> bytes | None:
        with self._reading() as database:
            row = database.execute(
                "SELECT value FROM shelf WHERE key = ? AND expires > ?", (name, self._clock())
            ).fetchone()
            return None if row is None else bytes(row[0])

    def close(self) -> None:
        with self._lock:
            self._database.close()
            os.unlink(self._owner_file(self._owner))
            os.close(self._owner_lock)

    def _main(self, database: sqlite3.Connection, keys: Sequence[str]) -> str:
        """The key a piece of work is kept under; of what we claimed it is known without asking."""
        return self._claimed.get(keys[0]) or self._find(database, keys)[0]

    def _find(self, database: sqlite3.Connection, keys: Sequence[str]) -> tuple[str, Any]:
        """That key, and the row (state, owner, expires, answer, reply) if there is one."""
        some = ",".join("?" * len(keys))
        rows = {
            row[0]: row[1:]
            for row in database.execute(
                f"SELECT key, state, owner, expires, answer, reply FROM work WHERE key IN ({some})",  # noqa: S608 - question marks
                keys,
            )
        }
        aliases = {} if keys[0] in rows else self._aliases(database, keys)
        for key in keys:
            if key in rows:
                return key, rows[key]
            if key in aliases:
                main = aliases[key]
                row = database.execute(
                    "SELECT state, owner, expires, answer, reply FROM work WHERE key = ?", (main,)
                ).fetchone()
                return main, row
        return keys[0], None

    def _aliases(self, database: sqlite3.Connection, keys: Sequence[str]) -> dict[str, str]:
        some = ",".join("?" * len(keys))
        found = database.execute(f"SELECT key, main FROM alias WHERE key IN ({some})", keys)  # noqa: S608
        return dict(found.fetchall())

    def _trim(self, database: sqlite3.Connection) -> None:
        now = self._clock()
        for table in ("work", "alias", "place"):
            database.execute(f"DELETE FROM {table} WHERE expires < ?", (now,))  # noqa: S608
            (count,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
            excess = count - self._max_entries * (1 if table == "work" else 2)
            if excess > 0:
                column = "object" if table == "place" else "key"
                only = "WHERE state = 'done'" if table == "work" else ""
                database.execute(
                    f"DELETE FROM {table} WHERE {column} IN"  # noqa: S608 - names are literals above
                    f" (SELECT {column} FROM {table} {only} ORDER BY expires LIMIT ?)",
                    (excess,),
                )

    def _owner_file(self, owner: str) -> str:
        return f"{self._path}.{owner}.lock"

    def _remove_orphans(self) -> None:
        """Lock files of processes that were killed: nobody will ever need them."""
        ours = f"{glob.escape(self._path.name)}.*.lock"
        for file in self._path.parent.glob(ours):
            owner = file.name[len(self._path.name) + 1 : -len(".lock")]
            if self._is_orphan(owner):
                file.unlink(missing_ok=True)

    def _is_orphan(self, owner: str) -> bool:
        """Whether the process behind a claim is gone: nobody holds its lock any more."""
        if owner == self._owner:
            return False
        path = self._owner_file(owner)
        try:
            handle = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
        return True

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._database
            except sqlite3.Error as error:
                raise _away(self._path, error) from error


@functools.cache
def _known(count: int) -> str:
    some = ",".join("?" * count)
    return (
        f"SELECT 1 FROM work WHERE key IN ({some})"  # noqa: S608 - question marks
        f" UNION ALL SELECT 1 FROM alias WHERE key IN ({some}) LIMIT 1"
    )


class _Transaction:
    """`with` it, the database is ours alone: committed at the end, rolled back at an error.

    Raises `TryAgain` for everything that SQLite cannot do now. One object for all, as the lock
    inside lets in one at a time.
    """

    def __init__(self, database: sqlite3.Connection, lock: threading.Lock, path: Path) -> None:
        self._database = database
        self._lock = lock
        self._path = path

    def __enter__(self) -> sqlite3.Connection:
        self._lock.acquire()
        try:
            self._database.execute("BEGIN IMMEDIATE")
        except BaseException as error:
            self._lock.release()
            if isinstance(error, sqlite3.Error):
                raise _away(self._path, error) from error
            raise
        return self._database

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        try:
            self._database.execute("COMMIT" if kind is None else "ROLLBACK")
        except sqlite3.Error as failed:
            if self._database.in_transaction:  # a full disk: nothing of it must stay open
                self._database.execute("ROLLBACK")
            raise _away(self._path, failed) from failed
        finally:
            self._lock.release()
        if isinstance(error, sqlite3.Error):
            raise _away(self._path, error) from error


def _away(path: Path, error: sqlite3.Error) -> TryAgain:
    return TryAgain(f"the journal {path} is not available: {error}")
