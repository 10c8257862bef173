"""Sweeps: uploads without a notification are found, the others are left alone, nothing runs
twice."""

from collections.abc import Iterator
from typing import Any, cast

import pytest

from events import spec, storage
from events.errors import InFlight, TryAgain
from events.event import Event
from events.gate import KeyedLocks
from events.journal import Order
from events.listing import Listed
from events.objects import ObjectStore
from events.sender import Sender
from events.spec_check import check
from events.storage import digest
from events.sweep import Sweeper, event_of
from tests.fakes_events import aws_record
from tests.unit.events.test_events_sink import SPEC, World, journal

WRITTEN_S = 1_795_252_160
NANOSECOND = WRITTEN_S * 1_000_000_000 + 30_182_109
SWEPT = {**SPEC, "source": {"s3": {"bucket": "mnist", "suffix": ".png"}}}


class Bucket:
    """A listing."""

    def __init__(self, *found: Listed) -> None:
        self.found = found

    def listing(self, bucket: str, prefix: str) -> Iterator[Listed]:
        return iter(self.found)


class Broker:
    """Takes events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def send(self, event: Event) -> int:
        self.events.append(event)
        return 202


def listed(key: str = "a.png", modified_s: float = WRITTEN_S) -> Listed:
    return Listed(key=key, etag="e", size=3, modified_s=modified_s)


def sweeper(bucket: Bucket, broker: Broker, memory: Any, now: float) -> Sweeper:
    parsed = spec.parse(SWEPT)
    assert parsed.objects is not None
    return Sweeper(
        parsed.objects,
        store=cast("ObjectStore", bucket),
        journal=memory,
        sender=cast("Sender", broker),
        scope=parsed.source,
        clock=lambda: now,
    )


@pytest.mark.parametrize(
    ("key", "age_s", "published"),
    [("a.png", 60, 1), ("a.txt", 60, 0), ("a.png", 5, 0), ("a.png", 90_000, 0)],
)
def test_old_enough_young_enough_and_ours(key: str, age_s: float, published: int) -> None:
    broker = Broker()
    found = sweeper(Bucket(listed(key)), broker, journal(), WRITTEN_S + age_s).run()
    assert found.published == len(broker.events) == published


def test_what_has_been_dealt_with_is_left_alone() -> None:
    memory, broker = journal(), Broker()
    order = Order(
        object_id=digest(spec.parse(SWEPT).source, "mnist", "a.png"), sequencer=f"{NANOSECOND:016X}"
    )
    memory.done(["k"], b"", order)
    swept = sweeper(Bucket(listed()), broker, memory, WRITTEN_S + 60).run()
    assert (swept.looked_at, swept.published) == (1, 0)
    later = Bucket(listed(modified_s=WRITTEN_S + 1))  # written again afterwards
    assert sweeper(later, broker, memory, WRITTEN_S + 60).run().published == 1


def original() -> Event:
    record = aws_record("a.png", eventSource="seaweedfs:s3", responseElements=None)
    record["s3"]["object"] |= {"eTag": None, "sequencer": f"{NANOSECOND:016X}"}
    from events.sources import s3

    return s3.from_record(record)


def swept() -> Event:
    event = event_of("mnist", listed())
    record = event.json()
    record["s3"]["object"]["eTag"] = None
    from events.sources import s3

    made = s3.from_record(record)
    return made.with_attributes(sweptfrom=str(event.attributes["sweptfrom"]))


@pytest.mark.parametrize("order", ["original first", "swept first"])
def test_an_original_and_a_swept_event_run_once(order: str) -> None:
    world = World({"source": SWEPT["source"], "result": {"reply": {"type": "t"}}})
    world.store.load("mnist", "a.png")
    one, two = (original(), swept()) if order == "original first" else (swept(), original())
    assert world.sink.handle(one).kind == "replied"
    assert world.sink.handle(two).kind == "ignored"
    assert len(world.client.calls) == 1


@pytest.mark.parametrize("order", ["original first", "swept first"])
def test_a_swept_double_of_an_interrupted_run_writes_no_second_result(order: str) -> None:
    memory = journal()
    result = {"write": {"bucket": "answers", "key": "{object.key}.json"}}
    world = World({"source": SWEPT["source"], "result": result}, memory=memory)
    world.store.load("mnist", "a.png")
    one, two = (original(), swept()) if order == "original first" else (swept(), original())
    done = memory.done

    def crash(*args: Any, **kwargs: Any) -> None:
        raise TryAgain("the process dies here")

    memory.done = crash  # type: ignore[method-assign]
    assert world.sink.handle(one).status == 503
    memory.done = done  # type: ignore[method-assign]
    written = world.store.objects["answers", "a.png.json"]
    assert world.sink.handle(two).status == 204
    assert world.store.objects["answers", "a.png.json"] is written


def test_a_swept_event_is_an_object_event_like_any_other() -> None:
    event = event_of("mnist", listed("in/ü +%41.png"))
    about = storage.object_of(event)
    assert about is not None
    assert (about.bucket, about.key, about.etag) == ("mnist", "in/ü +%41.png", "e")
    assert event.source == "seaweedfs:s3..mnist"
    assert event.id == event_of("mnist", listed("in/ü +%41.png")).id


def test_a_sweep_needs_a_lasting_memory() -> None:
    value = {**SWEPT, "source": {"s3": {"bucket": "mnist", "sweep": {}}}}
    assert [path for path, _ in check(value)] == ["source.s3.sweep"]
    value["dedupe"] = {"store": "s3", "bucket": "mnist", "ttlSeconds": 3600}
    assert [path for path, _ in check(value)] == ["source.s3.sweep.maxAgeSeconds"]
    value["dedupe"] = {"store": "s3", "bucket": "mnist"}
    assert check(value) == []


def test_locks_live_only_while_they_are_wanted() -> None:
    locks = KeyedLocks()
    with locks.hold("a", 1), locks.hold("b", 1):
        pass
    with locks.hold("a", 1), pytest.raises(InFlight), locks.hold("a", 0.01):
        pass
    assert locks._locks == {}
