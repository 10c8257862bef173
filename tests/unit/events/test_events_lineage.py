"""Triggers that write what other triggers watch: the chain is counted, and a loop ends."""

import json
from typing import Any, cast

import pytest

from events import effects, lineage, spec
from events import event as events
from events.errors import Refused, TryAgain
from events.event import Event
from events.http import Client
from events.lineage import HOPS, MADE_BY
from events.objects import ObjectStore
from events.outcome import Outcome
from events.sink import Sink
from tests.fakes_events import (
    FakeClient,
    FakeStore,
    aws_record,
    ceph,
    minio,
    object_event,
    seaweed,
    seaweed_entry,
)
from tests.unit.events.test_events_sink import journal


def trigger(name: str, source: Any, result: Any, **more: Any) -> dict[str, Any]:
    target = {"url": "http://graph"}
    return {"name": name, "source": source, "target": target, "result": result, **more}


def objects(prefix: str, *names: str) -> dict[str, Any]:
    return {"s3": {"bucket": "mnist", "prefix": prefix, **({"events": [*names]} if names else {})}}


class Circle:
    """Triggers on one storage server, which tells all of them of everything that is written."""

    def __init__(self, *specs: dict[str, Any]) -> None:
        self.store = FakeStore()
        self.sinks = [self.sink(spec.parse(one)) for one in specs]
        self.calls = 0
        self.last: Outcome | None = None
        self._count = 0

    def sink(self, parsed: spec.SinkSpec) -> Sink:
        return Sink(
            parsed,
            client=cast("Client", FakeClient()),
            store=cast("ObjectStore", self.store),
            journal=journal(),
        )

    def upload(self, key: str) -> list[Outcome]:
        """What became of everything that followed from an upload, ignored things left out."""
        self.store.load("mnist", key)
        return self.run(self.event(key))

    def run(self, *first: Event) -> list[Outcome]:
        queue, outcomes = list(first), []
        while queue:
            event = queue.pop(0)
            assert len(outcomes) < 200, "the circle does not end"
            for sink in self.sinks:
                before = len(self.store.log)
                outcome = sink.handle(event)
                if outcome.kind == "ignored":
                    continue
                outcomes.append(outcome)
                for line in self.store.log[before:]:
                    operation, _, name = line.partition(" mnist/")
                    if operation in ("put", "copy"):
                        queue.append(self.event(name))
                    elif operation == "set_tags":
                        queue.append(self.event(name, "ObjectTagging:Put"))
                if outcome.reply is not None:
                    queue.append(outcome.reply)
        return outcomes

    def event(self, key: str, name: str = "ObjectCreated:Put") -> Event:
        self._count += 1
        return object_event(key, name=name, sequencer=f"{self._count:016X}")


A = trigger("a", objects("in/"), {"write": {"key": "out/{object.name}.json"}})
B = trigger("b", objects("out/"), {"write": {"key": "in/{object.name}.json"}})
COPIES = trigger("a", objects("in/"), {"copy": {"key": "out/{object.name}"}})
COPIES_BACK = trigger("b", objects("out/"), {"copy": {"key": "in/{object.name}x"}})
MOVES_BACK = trigger("b", objects("out/"), {"move": {"key": "in/{object.name}x"}})
REPLIES = trigger("a", objects("in/"), {"reply": {"type": "seen"}})
ON_REPLY = trigger(
    "b",
    {"filters": [{"exact": {"type": "seen"}}]},
    {"write": {"bucket": "mnist", "key": "in/{event.id}"}},
)
ON_REPLY_REPLIES = trigger(
    "b", {"filters": [{"exact": {"type": "seen"}}]}, {"reply": {"type": "x"}}
)
REPLIES_BACK = trigger("a", {"filters": [{"exact": {"type": "x"}}]}, {"reply": {"type": "seen"}})


@pytest.mark.parametrize(
    "pair",
    [
        (A, B),
        (COPIES, COPIES_BACK),
        (COPIES, MOVES_BACK),
        (A, COPIES_BACK),
        (REPLIES, ON_REPLY),
    ],
)
def test_a_circle_of_two_ends_with_a_reason(pair: tuple[dict[str, Any], ...]) -> None:
    outcomes = Circle(*pair).upload("in/a")
    assert len(outcomes) == 9
    assert outcomes[-1].status == 422
    assert "work of 8 triggers one after the other" in outcomes[-1].reason
    assert "maxHops is 8" in outcomes[-1].reason
    assert all(outcome.status < 300 for outcome in outcomes[:-1])


def test_the_reason_names_the_last_trigger() -> None:
    limited = [{**one, "maxHops": 2, "namespace": "shop"} for one in (A, B)]
    outcomes = Circle(*limited).upload("in/a")
    assert len(outcomes) == 3
    assert "the last one shop/b" in outcomes[-1].reason


def test_replies_that_cause_each_other_end() -> None:
    seen = events.make(id="1", source="s", type="seen")
    outcomes = Circle(ON_REPLY_REPLIES, REPLIES_BACK).run(seen)
    assert [outcome.status for outcome in outcomes] == [200] * 8 + [422]
    assert [
        outcome.reply.attributes["turnouthops"] for outcome in outcomes[:-1] if outcome.reply
    ] == [*map(str, range(1, 9))]


def test_a_chain_that_is_meant_runs_through() -> None:
    chain = [
        trigger(f"t{n}", objects(f"{n}/"), {"copy": {"key": f"{n + 1}/{{object.name}}"}})
        for n in range(8)
    ]
    circle = Circle(*chain)
    assert [outcome.status for outcome in circle.upload("0/a")] == [204] * 8
    assert circle.store.objects["mnist", "8/a"].metadata[HOPS] == "8"
    assert circle.store.objects["mnist", "8/a"].metadata[MADE_BY] == "default/t7"


def test_triggers_of_one_name_in_two_namespaces_are_two() -> None:
    pair = [{**A, "namespace": "one"}, {**B, "name": "a", "namespace": "two"}]
    outcomes = Circle(*pair).upload("in/a")
    assert len(outcomes) == 9


# --- tags -----------------------------------------------------------------------------------------
TAGGED = objects("in/", "ObjectCreated:*", "ObjectTagging:*")


def test_tags_that_are_set_already_are_left_alone() -> None:
    circle = Circle(trigger("a", objects("in/"), {"tag": {"digit": "{$.predictions[0].classes}"}}))
    circle.store.tagged["mnist", "in/a"] = {"digit": "5"}
    assert len(circle.upload("in/a")) == 1
    assert not any(line.startswith("set_tags") for line in circle.store.log)


def test_tags_do_not_wake_the_trigger_that_set_them() -> None:
    changing = trigger("a", TAGGED, {"tag": {"at": "{event.id}"}})
    circle = Circle(changing)
    # The upload, the tagging that follows from it, and nothing after that.
    assert [outcome.status for outcome in circle.upload("in/a")] == [204, 204]
    circle.store.tagged["mnist", "in/a"]["mine"] = "1"  # somebody else's change is news
    assert len(circle.run(circle.event("in/a", "ObjectTagging:Put"))) == 1


def test_triggers_that_contradict_each_others_tags_end() -> None:
    pair = [
        trigger("a", objects("in/", "ObjectTagging:*"), {"tag": {"label": "a"}}),
        trigger("b", objects("in/", "ObjectTagging:*"), {"tag": {"label": "b"}}),
    ]
    circle = Circle(*pair)
    circle.store.load("mnist", "in/a")
    outcomes = circle.run(circle.event("in/a", "ObjectTagging:Put"))
    assert 422 in [outcome.status for outcome in outcomes]


# --- where the count is found ---------------------------------------------------------------------
@pytest.mark.parametrize("where", ["minio", "ceph", "seaweedfs"])
def test_notifications_that_carry_metadata_carry_the_count(where: str) -> None:
    if where == "minio":
        body = minio()
        body["Records"][0]["s3"]["object"]["userMetadata"] = {"X-Amz-Meta-Turnout-Hops": "3"}
    elif where == "ceph":
        body = ceph()
        body["Records"][0]["s3"]["object"]["metadata"] = [
            {"key": "x-amz-meta-turnout-hops", "val": "3"},
            "rubbish",
        ]
    else:
        entry = seaweed_entry("a", tags={"X-Amz-Meta-Turnout-Hops": "Mw=="})
        body = seaweed("mnist/a", new_entry=entry)
    (event,) = events_of(body)
    assert lineage.of_event(event, event.json()) == 3
    assert lineage.of_event(event, {"Records": [event.json()]}) == 3


def events_of(body: Any) -> tuple[Event, ...]:
    from events.sources import normalise

    return normalise({}, json.dumps(body).encode()).events


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "", "9999999", "٣"])
def test_rubbish_counts_as_nothing(value: str) -> None:
    assert lineage.of_metadata({HOPS: value}) == 0
    assert lineage.of_tags({HOPS: value}) == (0, "")
    for record in (None, [], {"s3": 1}, {"s3": {"object": {"metadata": {}}}}, {"Records": []}):
        assert lineage.of_event(events.make(id="1", source="s", type="t"), record) == 0


def test_a_trigger_that_only_replies_looks_for_the_count_but_does_not_need_it() -> None:
    circle = Circle(REPLIES)
    circle.store.load("mnist", "in/a", metadata={HOPS: "8"})
    assert circle.run(circle.event("in/a"))[0].status == 422
    circle.store.load("mnist", "in/a", metadata={HOPS: "8"})
    circle.store.fail["head"] = TryAgain("S3 is away")
    assert circle.run(circle.event("in/a"))[0].status == 200
    circle.store.has_credentials = False
    circle.store.log.clear()
    assert circle.run(circle.event("in/a"))[0].status == 200
    assert circle.store.log == []


def test_an_interrupted_run_does_not_forget_the_count() -> None:
    circle = Circle(A)
    circle.store.load("mnist", "in/a", metadata={HOPS: "3", MADE_BY: "default/z"})
    circle.store.fail["put"] = TryAgain("S3 is away")
    event = circle.event("in/a")
    assert circle.sinks[0].handle(event).status == 503
    circle.store.fail.clear()
    assert circle.sinks[0].handle(event).status == 204
    assert circle.store.objects["mnist", "out/a.json"].metadata[HOPS] == "4"


def test_kept_answers_know_the_count() -> None:
    answer = effects.answer_of(b"[1]", "application/json; charset=utf-8", 3)
    assert effects.unpack(effects.pack(answer)) == answer
    of_before = effects.unpack(b"application/json\n[1]")
    assert (of_before.value, of_before.content_type, of_before.hops) == ([1], "application/json", 0)


def test_records_without_anything_count_as_nothing() -> None:
    event = object_event("a")
    assert lineage.of_event(event, aws_record()) == 0
    lineage.require(7, 8, "", "it")
    with pytest.raises(Refused, match="work of 8"):
        lineage.require(8, 8, "", "it")
