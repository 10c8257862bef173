"""All journals keep the same promises; the SQLite one also survives its process."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from events.errors import NoBucket, TryAgain
from events.journal import Journal, MemoryJournal, Order, State
from events.journal_s3 import S3Journal
from events.journal_sqlite import SqliteJournal
from events.objects import ObjectStore
from tests.fakes_events import FakeStore

Clock = Callable[[], float]


class Time:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make(kind: str, clock: Clock, tmp_path: Path, store: FakeStore | None = None) -> Journal:
    if kind == "memory":
        return MemoryJournal(ttl_s=100, max_entries=10, clock=clock)
    if kind == "sqlite":
        return SqliteJournal(tmp_path / "j.sqlite", ttl_s=100, max_entries=10, clock=clock)
    return S3Journal(
        cast("ObjectStore", store or FakeStore()),
        bucket="b",
        prefix="p/",
        ttl_s=100,
        clock=clock,
    )


@pytest.fixture(params=["memory", "sqlite", "s3"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_life_of_a_piece_of_work(kind: str, tmp_path: Path) -> None:
    journal = make(kind, Time(), tmp_path)
    assert journal.begin(["k", "alias"], 10).state is State.NEW
    assert journal.begin(["k", "alias"], 10).state is State.BUSY
    journal.answered(["k", "alias"], b"answer")
    journal.release(["k", "alias"])
    again = journal.begin(["k", "alias"], 10)
    assert (again.state, again.answer) == (State.ANSWERED, b"answer")
    journal.done(["k", "alias"], b"reply", Order(object_id="o", sequencer="0A"))
    done = journal.begin(["k", "alias"], 10)
    assert (done.state, done.reply) == (State.DONE, b"reply")
    assert journal.last_sequencer("o") == "0A"
    assert journal.last_sequencer("other") is None
    journal.close()


def test_the_shelf(kind: str, tmp_path: Path) -> None:
    clock = Time()
    journal = make(kind, clock, tmp_path)
    assert journal.kept("job") is None
    journal.keep("job", b"one", 10)
    journal.keep("job", b"two", 10)
    assert journal.kept("job") == b"two"
    clock.now += 11
    assert journal.kept("job") is None
    journal.keep("job", b"three", 10)
    journal.keep("job", b"", 10)
    assert journal.kept("job") is None
    journal.close()


def test_failing_work_without_an_answer_is_forgotten(kind: str, tmp_path: Path) -> None:
    journal = make(kind, Time(), tmp_path)
    journal.begin(["k"], 10)
    journal.release(["k"])
    assert journal.begin(["k"], 10).state is State.NEW
    journal.close()


def test_either_key_finds_the_work(kind: str, tmp_path: Path) -> None:
    journal = make(kind, Time(), tmp_path)
    journal.begin(["object", "event"], 10)
    journal.done(["object", "event"], b"r")
    assert journal.begin(["object", "another"], 10).state is State.DONE
    assert journal.begin(["renamed", "event"], 10).state is State.DONE
    journal.close()


def test_a_lease_ends_and_done_work_is_forgotten_in_time(kind: str, tmp_path: Path) -> None:
    clock = Time()
    journal = make(kind, clock, tmp_path)
    journal.begin(["k"], 10)
    clock.now += 11
    assert journal.begin(["k"], 10).state is State.NEW
    journal.done(["k"], b"r")
    clock.now += 99
    assert journal.begin(["k"], 10).state is State.DONE
    clock.now += 2
    assert journal.begin(["k"], 10).state is State.NEW
    journal.close()


def test_an_answer_outlives_the_lease(kind: str, tmp_path: Path) -> None:
    clock = Time()
    journal = make(kind, clock, tmp_path)
    journal.begin(["k"], 10)
    journal.answered(["k"], b"a")
    clock.now += 11
    found = journal.begin(["k"], 10)
    assert (found.state, found.answer) == (State.ANSWERED, b"a")
    journal.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_memory_is_bounded(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("events.journal_sqlite._TRIM_EVERY", 1)
    clock = Time()
    journal = make(kind, clock, tmp_path)
    for index in range(50):
        clock.now += 0.01
        journal.begin([str(index)], 10)
        journal.done([str(index)], b"r")
    assert journal.begin(["49"], 10).state is State.DONE
    assert journal.begin(["0"], 10).state is State.NEW
    journal.close()


def test_memory_is_bounded_in_bytes_too() -> None:
    journal = MemoryJournal(ttl_s=100, max_entries=1000, max_bytes=1000, clock=Time())
    for index in range(50):
        journal.begin([str(index)], 10)
        journal.answered([str(index)], b"a" * 50)
        journal.done([str(index)], b"r" * 100)
        journal.keep(f"job {index}", b"v" * 100, 10)
    states = [journal.begin([str(index)], 10).state for index in range(50)]
    assert states == [State.NEW] * 40 + [State.DONE] * 10
    kept = [journal.kept(f"job {index}") is not None for index in range(50)]
    assert kept == [False] * 40 + [True] * 10
    journal.done(["huge"], b"r" * 5000)
    assert journal.begin(["huge"], 10).state is State.DONE
    assert journal.begin(["49"], 10).state is State.NEW


def test_work_that_waits_to_be_finished_does_not_keep_memory_from_being_bounded() -> None:
    journal = MemoryJournal(ttl_s=100, max_entries=5, clock=Time())
    journal.begin(["waiting"], 10)
    journal.answered(["waiting"], b"a")
    journal.release(["waiting"])
    for index in range(20):
        journal.begin([str(index)], 10)
        journal.done([str(index)], b"r")
    assert journal.begin(["14"], 10).state is State.NEW
    assert journal.begin(["19"], 10).state is State.DONE


def test_a_claim_taken_over_is_a_claim() -> None:
    """After the lease of somebody who had an answer, only one may finish."""
    clock = Time()
    journal = MemoryJournal(ttl_s=100, max_entries=5, clock=clock)
    journal.begin(["k"], 10)
    journal.answered(["k"], b"a")
    clock.now += 11
    assert journal.begin(["k"], 10).state is State.ANSWERED
    assert journal.begin(["k"], 10).state is State.BUSY


@pytest.mark.parametrize("kind", ["memory", "sqlite", "s3"])
def test_one_of_many_wins(kind: str, tmp_path: Path) -> None:
    journal = make(kind, Time(), tmp_path)
    states: list[State] = []
    barrier = threading.Barrier(8)

    def claim() -> None:
        barrier.wait()
        states.append(journal.begin(["k"], 10).state)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states.count(State.NEW) == 1
    assert states.count(State.BUSY) == 7
    journal.close()


def test_two_sinks_share_a_bucket() -> None:
    store, clock = FakeStore(), Time()
    one, two = (make("s3", clock, Path(), store) for _ in range(2))
    assert one.begin(["k"], 10).state is State.NEW
    assert two.begin(["k"], 10).state is State.BUSY
    one.answered(["k"], b"a")
    clock.now += 11  # the first one died
    assert two.begin(["k"], 10).answer == b"a"
    assert one.begin(["k"], 10).state is State.BUSY
    two.done(["k"], b"r")
    assert one.begin(["k"], 10).reply == b"r"


_KILLED = """
import os, signal, sys
from pathlib import Path
from events.journal_sqlite import SqliteJournal
journal = SqliteJournal(Path(sys.argv[1]), ttl_s=1000, max_entries=10)
journal.begin(["claimed"], 1000)
journal.begin(["answered"], 1000)
journal.answered(["answered"], b"a")
journal.begin(["done"], 1000)
journal.done(["done"], b"r")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_claims_of_a_killed_process_are_orphans_at_once(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    root = Path(__file__).resolve().parents[3]
    child = subprocess.run(
        [sys.executable, "-c", _KILLED, str(path)], cwd=root, env=dict(os.environ)
    )
    assert child.returncode == -9
    journal = SqliteJournal(path, ttl_s=1000, max_entries=10)
    assert journal.begin(["claimed"], 10).state is State.NEW
    assert journal.begin(["answered"], 10).answer == b"a"
    assert journal.begin(["done"], 10).reply == b"r"
    other = SqliteJournal(path, ttl_s=1000, max_entries=10)
    assert other.begin(["claimed"], 10).state is State.BUSY
    assert len(list(tmp_path.glob("*.lock"))) == 2
    other.close()
    journal.close()
    assert list(tmp_path.glob("*.lock")) == []


def test_a_journal_without_a_bucket_says_so() -> None:
    store = FakeStore()
    store.fail["put"] = NoBucket("there is no bucket 'b'")
    journal = make("s3", Time(), Path(), store)
    with pytest.raises(TryAgain, match="no place: there is no bucket 'b'"):
        journal.begin(["k"], 10)
