"""The sink with scripted neighbours: what it calls, files, replies, and what happens twice."""

import base64
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from events import event as events
from events import spec
from events.errors import DeliveryFailed, Forbidden, NoBucket, TryAgain
from events.http import Answer, Client
from events.journal import Journal, MemoryJournal
from events.lineage import MADE_BY
from events.objects import ObjectStore
from events.outcome import Outcome
from events.sink import Sink
from tests.fakes_events import FakeClient, FakeStore, aws_record, object_event, predictions

SPEC: dict[str, Any] = {
    "name": "digits",
    "source": {"s3": {"bucket": "mnist", "suffix": ".png"}},
    "target": {"url": "http://graph/v1/models/m:predict"},
    "request": {"object": "base64"},
    "result": {
        "reply": {"type": "digit.classified"},
        "write": {"bucket": "answers", "key": "{object.key}.json"},
        "move": {"bucket": "digit-{$.predictions[0].classes}"},
    },
}


def journal() -> MemoryJournal:
    return MemoryJournal(ttl_s=60, max_entries=1000)


class World:
    """A sink and everything around it."""

    def __init__(
        self, changes: dict[str, Any] | None = None, *answers: Any, memory: Journal | None = None
    ) -> None:
        self.spec = spec.parse({**SPEC, **(changes or {})})
        self.client = FakeClient(*answers)
        self.store = FakeStore(self.spec.allowed_buckets())
        self.journal = memory or journal()
        self.sink = self.make()

    def make(self) -> Sink:
        return Sink(
            self.spec,
            client=cast("Client", self.client),
            store=cast("ObjectStore", self.store),
            journal=self.journal,
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        )

    def upload(self, key: str = "a.png", body: bytes = b"PNG", **more: Any) -> Outcome:
        self.store.load("mnist", key, body)
        return self.sink.handle(object_event(key, **more))


def test_a_digit_is_classified_filed_and_answered_for() -> None:
    world = World()
    outcome = world.upload("in/a b.png")
    assert (outcome.status, outcome.kind) == (200, "replied")
    url, headers, body, _ = world.client.calls[0]
    assert url == "http://graph/v1/models/m:predict"
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {"instances": [{"data": base64.b64encode(b"PNG").decode()}]}
    assert set(world.store.objects) == {
        ("digit-5", "in/a b.png"),
        ("answers", "in/a b.png.json"),
    }
    written = world.store.objects["answers", "in/a b.png.json"]
    assert json.loads(written.body)["answer"] == {"predictions": [{"classes": 5}]}
    assert written.metadata[MADE_BY] == "default/digits"


def test_the_reply_names_its_cause() -> None:
    world = World()
    cause = object_event("a.png").with_attributes(traceparent="00-abc-def-01")
    world.store.load("mnist", "a.png")
    reply = world.sink.handle(cause).reply
    assert reply is not None
    assert reply.type == "digit.classified"
    assert reply.subject == "a.png"
    assert reply.data == b'{"predictions": [{"classes": 5}]}'
    assert reply.attributes["causationid"] == cause.id
    assert reply.attributes["causationsource"] == cause.source
    assert reply.attributes["traceparent"] == "00-abc-def-01"
    assert world.client.calls[0][1]["traceparent"] == "00-abc-def-01"


def test_the_answers_digits_survive() -> None:
    world = World(
        {}, predictions(b'{"predictions": [{"classes": 5, "p": 0.10000000000000000555}]}')
    )
    world.upload()
    assert b"0.10000000000000000555" in world.store.objects["answers", "a.png.json"].body


def test_a_redelivered_event_repeats_nothing_and_gets_the_recorded_reply() -> None:
    world = World()
    first = world.upload()
    before = list(world.store.log)
    second = world.sink.handle(object_event("a.png"))
    assert second.kind == "duplicate"
    assert second.status == 200
    assert second.reply == first.reply
    assert world.store.log == before
    assert len(world.client.calls) == 1


def test_the_same_upload_under_another_transport_id_is_a_duplicate() -> None:
    world = World()
    world.upload(sequencer="0A")
    other = object_event("a.png", sequencer="0A", responseElements={"x-amz-request-id": "OTHER"})
    assert world.sink.handle(other).kind == "duplicate"


def test_concurrent_deliveries_of_one_event_run_once() -> None:
    entered, leave = threading.Event(), threading.Event()
    world = World()

    class Slow(FakeClient):
        def post(self, *args: Any) -> Answer:
            entered.set()
            assert leave.wait(10)
            return super().post(*args)

    world.client = Slow()
    world.sink = world.make()
    world.store.load("mnist", "a.png")
    results: list[Outcome] = []
    threads = [
        threading.Thread(target=lambda: results.append(world.sink.handle(object_event("a.png"))))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    assert entered.wait(10)
    leave.set()
    for thread in threads:
        thread.join(10)
    assert len(world.client.calls) == 1
    assert sorted(outcome.kind for outcome in results) == ["duplicate"] * 4 + ["replied"]
    assert len({outcome.reply.id for outcome in results if outcome.reply}) == 1


@pytest.mark.parametrize("broken", ["put", "copy", "delete"])
def test_an_interrupted_run_finishes_without_asking_the_model_again(broken: str) -> None:
    world = World()
    world.store.fail[broken] = TryAgain("S3 is away")
    assert world.upload().status == 503
    del world.store.fail[broken]
    world.client.script = [predictions(b'{"predictions": [{"classes": 7}]}')]
    outcome = world.sink.handle(object_event("a.png"))
    assert outcome.kind == "replied"
    assert len(world.client.calls) == 1  # the recorded answer decides, not a second opinion
    assert set(world.store.objects) == {("digit-5", "a.png"), ("answers", "a.png.json")}


def test_a_move_that_was_complete_is_recognised() -> None:
    memory = journal()
    world = World(memory=memory)
    done = memory.done

    def crash(*args: Any, **kwargs: Any) -> None:
        raise TryAgain("the process dies here")

    memory.done = crash  # type: ignore[method-assign]
    assert world.upload().status == 503
    memory.done = done  # type: ignore[method-assign]
    assert ("mnist", "a.png") not in world.store.objects
    assert world.sink.handle(object_event("a.png")).kind == "replied"
    assert len(world.client.calls) == 1


@pytest.mark.parametrize(
    ("answer", "status", "kind"),
    [
        (predictions(b'{"error": "not an image"}', 400), 422, "refused"),
        (predictions(b"{}", 422), 422, "refused"),
        (predictions(b'{"error": "no branch"}', 404), 422, "refused"),
        (Answer(404, {"content-type": "text/plain"}, b"404 page not found"), 503, "retry"),
        (predictions(b"{}", 401), 422, "refused"),
        (predictions(b"{}", 408), 503, "retry"),
        (predictions(b"{}", 429), 503, "retry"),
        (predictions(b"{}", 500), 503, "retry"),
        (predictions(b"{}", 503), 503, "retry"),
        (predictions(b"", 302), 422, "refused"),
        (DeliveryFailed("refused"), 503, "retry"),
        (predictions(b"not json"), 422, "refused"),
        (predictions(b'{"predictions": []}'), 422, "refused"),
        (predictions(b'{"predictions": [{"classes": "../../etc"}]}'), 422, "refused"),
        (predictions(b'{"predictions": [{"classes": {"a": 1}}]}'), 422, "refused"),
    ],
)
def test_failures_are_classified(answer: Any, status: int, kind: str) -> None:
    world = World({}, answer)
    outcome = world.upload()
    assert (outcome.status, outcome.kind) == (status, kind)
    assert outcome.reason
    assert ("mnist", "a.png") in world.store.objects
    assert all(not bucket.startswith("digit-") for bucket, _ in world.store.objects)
    if kind == "retry":
        assert outcome.retry_after_s


def test_a_failure_can_be_repaired_and_delivered_again() -> None:
    world = World({}, predictions(b"{}", 500), predictions())
    assert world.upload().status == 503
    assert world.sink.handle(object_event("a.png")).kind == "replied"


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (object_event("a.txt"), "outside"),
        (object_event("a.png", bucket="other"), "outside"),
        (object_event("a.png", name="ObjectRemoved:Delete"), "outside"),
        (object_event("a.png", name="ObjectTagging:Put"), "outside"),
        (events.make(id="1", source="s", type="t"), "not about an object"),
    ],
)
def test_what_is_not_ours_is_acknowledged_and_ignored(event: events.Event, reason: str) -> None:
    world = World()
    outcome = world.sink.handle(event)
    assert (outcome.status, outcome.kind) == (204, "ignored")
    assert reason in outcome.reason
    assert world.store.log == []
    assert world.client.calls == []


def test_directory_markers_are_ignored() -> None:
    world = World({"source": {"s3": {"bucket": "mnist"}}})
    assert world.sink.handle(object_event("folder/")).kind == "ignored"


def test_the_sinks_own_results_do_not_trigger_it() -> None:
    changes = {
        "source": {"s3": {"bucket": "mnist"}},
        "result": {"write": {"key": "{object.key}.json"}},
    }
    world = World(changes)
    assert world.upload("a.png").status == 204
    assert ("mnist", "a.png.json") in world.store.objects
    assert world.sink.handle(object_event("a.png.json")).kind == "ignored"
    assert len(world.client.calls) == 1


def test_an_older_event_of_the_same_object_is_stale() -> None:
    world = World({"result": {"reply": {"type": "t"}}})
    assert world.upload(sequencer="0B").kind == "replied"
    assert world.sink.handle(object_event("a.png", sequencer="0A")).kind == "ignored"
    assert world.sink.handle(object_event("a.png", sequencer="0C")).kind == "replied"


def test_a_missing_object_is_final_and_says_so() -> None:
    outcome = World().sink.handle(object_event("gone.png"))
    assert (outcome.status, outcome.kind) == (422, "refused")


def test_an_object_replaced_meanwhile_is_not_mistaken_for_the_one_in_the_event() -> None:
    world = World()
    world.store.load("mnist", "a.png", b"second")
    outcome = world.sink.handle(object_event("a.png", etag="first"))
    assert outcome.status == 422
    assert "replaced" in outcome.reason


def test_the_other_spelling_of_a_key_is_tried_once() -> None:
    world = World({"result": {"reply": {"type": "t"}}})
    world.store.load("mnist", "a+b.png")  # a producer that does not encode, unlike its eventSource
    record = aws_record("a+b.png", eventName="ObjectCreated:Put")
    record["s3"]["object"].pop("eTag")
    event = object_event("x.png").with_attributes(id="o")
    event = events.Event(attributes=event.attributes, data=json.dumps(record).encode())
    assert world.sink.handle(event).kind == "replied"
    assert world.store.log == ["get mnist/a b.png", "get mnist/a+b.png"]


def test_a_forbidden_bucket_is_final() -> None:
    world = World()
    world.store.fail["get"] = Forbidden("S3 does not allow this")
    assert world.upload().status == 422


def test_expired_credentials_are_worth_another_try() -> None:
    world = World()
    world.store.fail["get"] = TryAgain("the S3 credentials have expired")
    assert world.upload().status == 503


def test_an_object_over_the_limit_is_final() -> None:
    world = World({"request": {"object": "base64", "maxObjectBytes": 2}})
    assert world.upload(body=b"123").status == 422


def test_more_than_the_places_are_pushed_back() -> None:
    entered, leave = threading.Event(), threading.Event()
    world = World({"concurrency": {"max": 1, "waiting": 0}})

    class Slow(FakeClient):
        def post(self, *args: Any) -> Answer:
            entered.set()
            assert leave.wait(10)
            return super().post(*args)

    world.client = Slow()
    world.sink = world.make()
    for key in ("a.png", "b.png"):
        world.store.load("mnist", key)
    thread = threading.Thread(target=lambda: world.sink.handle(object_event("a.png")))
    thread.start()
    assert entered.wait(10)
    outcome = world.sink.handle(object_event("b.png"))
    leave.set()
    thread.join(10)
    assert (outcome.status, outcome.kind) == (429, "retry")


@pytest.mark.parametrize(
    ("request_spec", "check"),
    [
        (
            {"object": "bytes"},
            lambda call: call[2] == b"PNG" and call[1]["Content-Type"] == "image/png",
        ),
        ({"object": "text"}, lambda call: call[2] == b"PNG"),
        ({"object": "url"}, lambda call: b"https://signed/mnist/a.png?e=900" in call[2]),
        ({}, lambda call: json.loads(call[2])["eventName"] == "ObjectCreated:Put"),
        (
            {"template": {"id": "{event.id}", "name": "{object.stem}", "b": "{object.base64}"}},
            lambda call: json.loads(call[2])["b"] == "UE5H" and json.loads(call[2])["name"] == "a",
        ),
        (
            {"template": {"size": "{$.s3.object.size}"}},
            lambda call: json.loads(call[2]) == {"size": 324},
        ),
        (
            {"headers": {"X-Key": "{object.key}"}, "contentType": "application/x"},
            lambda call: call[1]["X-Key"] == "a.png" and call[1]["Content-Type"] == "application/x",
        ),
    ],
)
def test_request_forms(request_spec: Any, check: Callable[[Any], bool]) -> None:
    world = World({"request": request_spec, "result": {"reply": {"type": "t"}}})
    assert world.upload().kind == "replied"
    assert check(world.client.calls[0])


@pytest.mark.parametrize(("form", "body"), [("json", b"{"), ("text", b"\xff\xfe")])
def test_a_broken_object_is_final(form: str, body: bytes) -> None:
    world = World({"request": {"object": form}})
    assert world.upload(body=body).status == 422
    assert world.client.calls == []


def test_tags_and_copies() -> None:
    result = {
        "tag": {"digit": "{$.predictions[0].classes}"},
        "copy": {"bucket": "archive", "key": "{$.predictions[0].classes}/{object.name}"},
    }
    world = World({"result": result})
    assert world.upload("in/a.png").status == 204
    assert world.store.tagged["mnist", "in/a.png"] == {"digit": "5"}
    assert ("archive", "5/a.png") in world.store.objects
    assert ("mnist", "in/a.png") in world.store.objects


def test_a_new_upload_replaces_the_old_result_and_a_late_write_does_not() -> None:
    result = {"write": {"bucket": "answers", "key": "{object.key}.json"}}
    world = World({"result": result}, predictions(b'{"n": 1}'), predictions(b'{"n": 2}'))
    assert world.upload(sequencer="0A").status == 204
    assert world.upload(sequencer="0B").status == 204
    assert json.loads(world.store.objects["answers", "a.png.json"].body)["answer"] == {"n": 2}
    puts = [line for line in world.store.log if line.startswith("put")]
    assert len(puts) == 3  # new, new (refused: there is one), over exactly that one


def test_a_removed_object_takes_its_result_along() -> None:
    changes = {
        "source": {"s3": {"bucket": "mnist", "removed": "DeleteResult"}},
        "result": {"write": {"bucket": "answers", "key": "{object.key}.json"}},
    }
    world = World(changes)
    assert world.upload("a.png").status == 204
    assert ("answers", "a.png.json") in world.store.objects
    removed = object_event("a.png", name="ObjectRemoved:Delete", sequencer="0A")
    assert world.sink.handle(removed).kind == "ignored"  # an old version; the newest is there
    del world.store.objects["mnist", "a.png"]
    removed = object_event("a.png", name="ObjectRemoved:Delete", sequencer="0B")
    assert world.sink.handle(removed).kind == "done"
    assert ("answers", "a.png.json") not in world.store.objects
    assert len(world.client.calls) == 1
    world.store.load("answers", "b.png.json", b"somebody's own")
    assert world.sink.handle(object_event("b.png", name="ObjectRemoved:Delete")).status == 204
    assert ("answers", "b.png.json") in world.store.objects


def test_an_upload_that_arrives_during_a_move_is_not_deleted() -> None:
    world = World({"result": {"move": {"bucket": "digit-{$.predictions[0].classes}"}}})
    copy = world.store.copy

    def copy_then_upload(*arguments: Any) -> None:
        copy(*arguments)
        world.store.load("mnist", "a.png", b"NEW")

    world.store.copy = copy_then_upload  # type: ignore[method-assign]
    assert world.upload("a.png", sequencer="0A").status == 204
    assert world.store.objects["digit-5", "a.png"].body == b"PNG"
    assert world.store.objects["mnist", "a.png"].body == b"NEW"


def test_what_ceph_says_of_a_multipart_upload_that_has_begun_is_no_object() -> None:
    world = World()
    begun = object_event("a.png", name="ObjectCreated:Post")
    record = begun.json()
    record["s3"]["object"]["size"] = 0
    begun = events.make_json(
        id="1", source=begun.source, type=begun.type, value=record, subject="a.png"
    )
    outcome = world.sink.handle(begun)
    assert (outcome.kind, world.store.log) == ("ignored", [])
    assert "multipart" in outcome.reason
    assert world.upload("a.png", name="ObjectCreated:Post", sequencer="0A").kind == "replied"


def test_two_triggers_share_a_journal_and_each_does_its_work() -> None:
    memory = journal()
    result = {"write": {"key": "{object.key}.json", "bucket": "answers"}}
    one = World({"result": result}, memory=memory)
    other = World({"result": result, "name": "second"}, predictions(b"2"), memory=memory)
    other.store = one.store
    other.sink = other.make()
    assert one.upload().kind == other.sink.handle(object_event("a.png")).kind == "done"
    written = json.loads(one.store.objects["answers", "a.png.json"].body)
    assert (written["trigger"], written["answer"]) == ("second", 2)


def test_events_that_are_not_about_objects() -> None:
    changes = {
        "source": {"filters": [{"exact": {"type": "order.placed"}}]},
        "request": {"template": {"instances": ["{$.amount}"]}},
        "result": {
            "reply": {"type": "order.{$.predictions[0].classes}", "data": {"n": "{data.amount}"}}
        },
    }
    world = World(changes)
    event = events.make(
        id="1", source="/shop", type="order.placed", data=b'{"amount": 7}', subject="o-1"
    )
    outcome = world.sink.handle(event)
    assert outcome.reply is not None
    assert outcome.reply.type == "order.5"
    assert outcome.reply.json() == {"n": 7}
    assert json.loads(world.client.calls[0][2]) == {"instances": [7]}
    assert world.sink.handle(events.make(id="2", source="/shop", type="other")).kind == "ignored"


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"reply": {"type": "{$.p}"}}, "the reply would be"),
        ({"move": {"bucket": "digit-5", "key": "{$.p}"}}, "bytes long"),
        ({"move": {"bucket": "digit-{$.p}"}}, "not a bucket name"),
        ({"move": {"bucket": "digit-{$.none}"}}, "finds nothing"),
        ({"tag": {"t": "{$.none}"}}, "finds nothing"),
    ],
)
def test_what_cannot_be_done_whole_is_not_begun(result: dict[str, Any], reason: str) -> None:
    write = {"bucket": "answers", "key": "{object.key}.json"}
    world = World({"result": {**result, "write": write}}, predictions(b'{"p": ""}'))
    outcome = world.upload("a.png")
    assert (outcome.status, outcome.kind) == (422, "refused")
    assert reason in outcome.reason
    assert set(world.store.objects) == {("mnist", "a.png")}


def test_a_bucket_that_is_not_there_is_named() -> None:
    world = World()
    world.store.fail["put"] = NoBucket("there is no bucket 'answers'")
    outcome = world.upload("a.png")
    assert (outcome.status, outcome.reason) == (422, "there is no bucket 'answers'")


def test_an_answer_that_is_text_has_a_value_too() -> None:
    text = Answer(200, {"content-type": "text/plain; charset=utf-8"}, b"five")
    world = World({"result": {"copy": {"bucket": "digit-{$}"}}}, text)
    assert world.upload("a.png").status == 204
    assert ("digit-five", "a.png") in world.store.objects
    picture = Answer(200, {"content-type": "image/png"}, b"\x89PNG")
    assert World({"result": {"copy": {"bucket": "digit-{$}"}}}, picture).upload().status == 422


def test_computed_buckets_stay_inside_the_pattern() -> None:
    allowed = spec.parse(SPEC).allowed_buckets()
    assert allowed.require("digit-5") == "digit-5"
    for name in ("digit", "xdigit-5", "digit-", "digit-A", "other"):
        with pytest.raises(Forbidden):
            allowed.require(name)
