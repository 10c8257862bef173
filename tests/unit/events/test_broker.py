"""The local broker on a temporary database with a scripted subscriber; no sockets."""

import asyncio
import base64
import contextlib
import json
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from events import codec
from events import event as events
from knative.local import broker_rules as rules
from knative.local.broker import RECENT, BrokerService
from knative.local.broker_store import Store, StoreError

Reply = tuple[int, Mapping[str, str], bytes]
DONE: Reply = (204, {}, b"")


class Subscriber:
    """Answers from a script, one entry a request, the last one for ever; remembers requests."""

    def __init__(self, *script: Reply | Exception) -> None:
        self.script = list(script) or [DONE]
        self.calls: list[tuple[str, dict[str, str], bytes]] = []

    async def __call__(
        self, url: str, headers: dict[str, str], body: bytes, timeout_s: float, /
    ) -> Reply:
        self.calls.append((url, dict(headers), body))
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, Exception):
            raise step
        return step


def broker(name: str = "default", **spec: Any) -> dict[str, Any]:
    annotations = {rules.CLASS_ANNOTATION: spec.pop("broker_class", rules.DEFAULT_CLASS)}
    metadata = {"name": name, "namespace": "ns", "annotations": annotations}
    return {"kind": "Broker", "metadata": metadata, "spec": spec}


def trigger(name: str = "t", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ns", "annotations": spec.pop("annotations", {})}
    return {
        "kind": "Trigger",
        "metadata": metadata,
        "spec": {
            "broker": "default",
            "subscriber": {"ref": {"kind": "Service", "name": name}, "uri": "/in"},
            **spec,
        },
    }


FAST = {"retry": 2, "backoffPolicy": "linear", "backoffDelay": "PT0.001S"}
DEAD = {"deadLetterSink": {"uri": "http://dead/letters"}}


def message(id: str = "1", **more: Any) -> tuple[list[tuple[str, str]], bytes]:
    event = events.make(id=id, source="/s", type="t", data=b'{"n": 1.10}', **more)
    headers, body = codec.encode_binary(event.with_attributes(datacontenttype="application/json"))
    return list(headers.items()), body


async def until(condition: Callable[[], Any], what: str = "") -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError(f"did not happen: {what}")


def run(
    tmp_path: Path,
    subscriber: Subscriber,
    objects: list[dict[str, Any]],
    scenario: Callable[[BrokerService], Awaitable[None]],
    **options: Any,
) -> None:
    async def main() -> None:
        service = BrokerService(tmp_path / "events.sqlite", objects, subscriber, **options)
        await service.start()
        try:
            await scenario(service)
        finally:
            await service.stop(drain_s=1)

    asyncio.run(main())


async def post(service: BrokerService, id: str = "1", **more: Any) -> int:
    headers, body = message(id, **more)
    return (await service.handle("POST", "/ns/default", headers, body))[0]


def test_an_accepted_event_reaches_every_matching_trigger(tmp_path: Path) -> None:
    subscriber = Subscriber()
    other = trigger("no", filters=[{"exact": {"type": "other"}}])

    async def scenario(service: BrokerService) -> None:
        assert await post(service) == 202
        await until(lambda: service.stats["delivered"] == 2)
        assert service.depth() == {"ns/a": 0, "ns/b": 0, "ns/no": 0}

    run(tmp_path, subscriber, [broker(), trigger("a"), trigger("b"), other], scenario)
    assert sorted(call[0] for call in subscriber.calls) == [
        "http://a.ns.svc.cluster.local/in",
        "http://b.ns.svc.cluster.local/in",
    ]
    _, headers, body = subscriber.calls[0]
    assert body == b'{"n": 1.10}'
    assert headers["Prefer"] == "reply"
    assert headers["Kn-Namespace"] == "ns"
    assert f"ce-{rules.TTL}" not in headers
    assert f"ce-{rules.ARRIVAL}" in headers


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("OPTIONS", "/ns/default", {}, b"", 200),
        ("GET", "/ns/default", {}, b"", 405),
        ("POST", "/", {}, b"", 404),
        ("POST", "/ns", {}, b"", 400),
        ("POST", "/ns/default/more", {}, b"", 400),
        ("POST", "/ns/unknown", {}, b"", 404),
        ("POST", "/ns/default", {"Content-Type": "application/json"}, b"{}", 400),
        ("POST", "/ns/default", {"ce-id": "1"}, b"", 400),
        ("POST", "/ns/default", {"Content-Type": "application/cloudevents+json"}, b"{", 400),
        ("POST", "/ns/default", {"Content-Type": "application/cloudevents-batch+json"}, b"[]", 400),
        ("POST", "/ns/default", {"Content-Type": "application/json"}, b"x" * 2000, 413),
    ],
)
def test_ingress_statuses(
    tmp_path: Path, method: str, path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    async def scenario(service: BrokerService) -> None:
        found, fields, _ = await service.handle(method, path, headers.items(), body)
        assert found == status
        if method == "OPTIONS":
            assert fields["WebHook-Allowed-Origin"] == "*"
            assert fields["WebHook-Allowed-Rate"] == "*"

    run(tmp_path, Subscriber(), [broker(), trigger()], scenario, max_event_bytes=1000)


@pytest.mark.parametrize(
    ("value", "after"),
    [(None, 10), (10, 9), (1, 0), ("XYZ", 10), (0, 0), ("10", 9), (-5, 0)],
)
def test_hop_counter(value: Any, after: int) -> None:
    assert rules.next_ttl(value, default=10) == after


def test_an_event_that_has_hopped_enough_is_refused(tmp_path: Path) -> None:
    async def scenario(service: BrokerService) -> None:
        assert await post(service, knativebrokerttl=1) == 400
        assert await post(service, knativebrokerttl=2) == 202

    run(tmp_path, Subscriber(), [broker(), trigger()], scenario)


def test_a_reply_enters_the_broker_and_circles_end(tmp_path: Path) -> None:
    reply = events.make(id="r", source="/r", type="t", data=None)
    headers, body = codec.encode_binary(reply)
    subscriber = Subscriber((200, headers, body))

    async def scenario(service: BrokerService) -> None:
        assert await post(service, knativebrokerttl=4) == 202
        # 4 -> 3 on entry; replies get 2 and 1; the next would be 0 and its cause is a dead letter.
        await until(lambda: service.stats["dead"] == 1)
        assert service.stats["replied"] == 2
        (dead,) = await service.dead()
        assert dead["failure"]["code"] == 400

    run(tmp_path, subscriber, [broker(delivery={"retry": 1}), trigger()], scenario)
    assert len(subscriber.calls) == 3


@pytest.mark.parametrize(
    ("answer", "attempts"),
    [
        ((200, {}, b""), 1),
        ((202, {"content-type": "text/plain"}, b"accepted"), 1),
        ((204, {}, b""), 1),
        ((200, {"content-type": "application/json"}, b'{"predictions": [1]}'), 3),
        ((200, {"content-type": "application/cloudevents+json"}, b"{"), 3),
        ((400, {}, b"no"), 1),
        ((401, {}, b""), 1),
        ((403, {}, b""), 1),
        ((404, {}, b""), 3),
        ((408, {}, b""), 3),
        ((409, {}, b""), 3),
        ((422, {}, b""), 1),
        ((429, {}, b""), 3),
        ((500, {}, b""), 3),
        ((503, {}, b""), 3),
        ((301, {}, b""), 1),
        (ConnectionRefusedError("refused"), 3),
        (TimeoutError(), 3),
    ],
)
def test_retry_table(tmp_path: Path, answer: Any, attempts: int) -> None:
    subscriber = Subscriber(answer)

    async def scenario(service: BrokerService) -> None:
        await post(service)
        await until(lambda: service.stats["dead"] + service.stats["delivered"] == 1)

    run(tmp_path, subscriber, [broker(delivery=FAST), trigger()], scenario)
    assert len(subscriber.calls) == attempts


def test_kafka_sends_a_bare_answer_straight_to_the_dead(tmp_path: Path) -> None:
    subscriber = Subscriber((200, {"content-type": "application/json"}, b"{}"))

    async def scenario(service: BrokerService) -> None:
        await post(service)
        await until(lambda: service.stats["dead"] == 1)

    run(tmp_path, subscriber, [broker(delivery=FAST, broker_class="Kafka"), trigger()], scenario)
    assert len(subscriber.calls) == 1


def test_a_dead_letter_says_where_what_and_why(tmp_path: Path) -> None:
    subscriber = Subscriber((422, {}, b"x" * 3000), DONE)

    async def scenario(service: BrokerService) -> None:
        await post(service)
        await until(lambda: service.stats["dead"] == 1)
        (dead,) = await service.dead()
        assert dead["delivered"] is True
        assert dead["event"]["id"] == "1"

    run(tmp_path, subscriber, [broker(), trigger(delivery={**FAST, **DEAD})], scenario)
    (_, (url, headers, body)) = subscriber.calls
    assert url == "http://dead/letters"
    assert body == b'{"n": 1.10}'
    assert headers["ce-knativeerrordest"] == "http://t.ns.svc.cluster.local/in"
    assert headers["ce-knativeerrorcode"] == "422"
    assert base64.b64decode(headers["ce-knativeerrordata"]) == b"x" * 1024


def test_no_response_counts_as_500_for_the_dead_letter(tmp_path: Path) -> None:
    subscriber = Subscriber(OSError("gone"), DONE)

    async def scenario(service: BrokerService) -> None:
        await post(service)
        await until(lambda: service.stats["dead"] == 1)

    block = {"retry": 0, **DEAD}
    run(tmp_path, subscriber, [broker(), trigger(delivery=block)], scenario)
    assert subscriber.calls[1][1]["ce-knativeerrorcode"] == "500"


def test_the_dead_letter_sink_is_retried_too_and_replay_brings_it_back(tmp_path: Path) -> None:
    subscriber = Subscriber((400, {}, b""), (500, {}, b""), (500, {}, b""), (500, {}, b""), DONE)

    async def scenario(service: BrokerService) -> None:
        await post(service)
        await until(lambda: service.stats["dead"] == 1)
        (dead,) = await service.dead()
        assert dead["delivered"] is False
        assert await service.replay(dead["id"]) == 1
        await until(lambda: service.stats["delivered"] == 1)
        assert await service.dead() == []
        assert await service.pending() == []

    run(tmp_path, subscriber, [broker(), trigger(delivery={**FAST, **DEAD})], scenario)
    assert [url for url, _, _ in subscriber.calls].count("http://dead/letters") == 3


def test_accepted_events_survive_the_process(tmp_path: Path) -> None:
    down = Subscriber(OSError("down"))
    slow = {"retry": 5, "backoffPolicy": "linear", "backoffDelay": "PT0.001S"}

    async def accept(service: BrokerService) -> None:
        for index in range(20):
            assert await post(service, str(index)) == 202

    never = {"retry": 1000, "backoffPolicy": "linear", "backoffDelay": "PT0.05S"}
    run(tmp_path, down, [broker(delivery=never), trigger()], accept)
    up = Subscriber()

    async def rest(service: BrokerService) -> None:
        await until(lambda: service.stats["delivered"] == 20)

    run(tmp_path, up, [broker(delivery=slow), trigger()], rest)
    ids = {headers["ce-id"] for _, headers, _ in up.calls}
    assert ids == {str(index) for index in range(20)}


def test_a_queue_of_an_earlier_version_is_delivered(tmp_path: Path) -> None:
    """Earlier versions marked in the table what was in flight."""
    with contextlib.closing(sqlite3.connect(tmp_path / "events.sqlite")) as database:
        database.executescript(
            """
            CREATE TABLE event (id INTEGER PRIMARY KEY, broker TEXT NOT NULL,
              attributes TEXT NOT NULL, data BLOB, headers TEXT NOT NULL, accepted REAL NOT NULL);
            CREATE TABLE delivery (id INTEGER PRIMARY KEY, event INTEGER NOT NULL,
              trigger TEXT NOT NULL, taken INTEGER NOT NULL, due REAL NOT NULL,
              attempt INTEGER NOT NULL, failure TEXT);
            CREATE INDEX delivery_next ON delivery (trigger, taken, due, id);
            INSERT INTO event VALUES (1, 'ns/default',
              '{"specversion": "1.0", "id": "old", "source": "/s", "type": "t"}', x'31', '{}', 1);
            INSERT INTO delivery VALUES (1, 1, 'ns/t', 1, 1, 0, NULL);
            """
        )
    subscriber = Subscriber()

    async def scenario(service: BrokerService) -> None:
        assert await post(service, "new") == 202
        await until(lambda: service.stats["delivered"] == 2)

    run(tmp_path, subscriber, [broker(), trigger()], scenario)
    assert {headers["ce-id"] for _, headers, _ in subscriber.calls} == {"old", "new"}


def test_only_so_many_recent_events_are_remembered(tmp_path: Path) -> None:
    async def scenario(service: BrokerService) -> None:
        for index in range(RECENT + 20):
            assert await post(service, str(index)) == 202
        await until(lambda: service.stats["delivered"] == RECENT + 20)
        recent = service.recent()
        assert [entry["event"]["id"] for entry in recent[:2]] == ["219", "218"]
        assert len(recent) == RECENT == len(service._recent_by_id)
        assert {entry["triggers"]["ns/t"] for entry in recent} == {"delivered"}

    run(tmp_path, Subscriber(), [broker(), trigger()], scenario)


def test_ordered_triggers_never_overtake(tmp_path: Path) -> None:
    subscriber = Subscriber((503, {}, b""), (503, {}, b""), DONE)
    ordered = {rules.ORDER_ANNOTATION: "ordered"}

    async def scenario(service: BrokerService) -> None:
        for index in range(10):
            await post(service, str(index))
        await until(lambda: service.stats["delivered"] == 10)

    objects = [broker(delivery=FAST), trigger(annotations=ordered)]
    run(tmp_path, subscriber, objects, scenario)
    ids = [headers["ce-id"] for _, headers, _ in subscriber.calls]
    assert ids == ["0", "0", "0", *map(str, range(1, 10))]


def test_in_flight_is_bounded_and_a_full_queue_pushes_back(tmp_path: Path) -> None:
    release = asyncio.Event
    state = {"now": 0, "most": 0}

    class Slow(Subscriber):
        gate: Any = None

        async def __call__(
            self, url: str, headers: dict[str, str], body: bytes, timeout_s: float, /
        ) -> Reply:
            self.gate = self.gate or release()
            state["now"] += 1
            state["most"] = max(state["most"], state["now"])
            await self.gate.wait()
            state["now"] -= 1
            return DONE

    slow = Slow()

    async def scenario(service: BrokerService) -> None:
        statuses = [await post(service, str(index)) for index in range(12)]
        assert statuses == [202] * 10 + [503] * 2
        await until(lambda: state["now"] == 4)
        slow.gate.set()
        await until(lambda: service.stats["delivered"] == 10)
        assert await post(service, "again") == 202

    options = {"max_pending": 10, "max_in_flight": 4}
    run(tmp_path, slow, [broker(), trigger()], scenario, **options)
    assert state["most"] == 4


def test_a_long_queue_is_read_for_several_deliveries_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscriber, count, looks = Subscriber(), 400, 0
    plain = Store.take

    async def take(store: Store, *args: Any, **more: Any) -> Any:
        nonlocal looks
        looks += 1
        return await plain(store, *args, **more)

    async def fill(service: BrokerService) -> None:
        for number in range(count):
            assert await post(service, str(number)) == 202
        await until(lambda: subscriber.calls, "a first delivery")

    async def drain(service: BrokerService) -> None:
        await until(lambda: service.stats["delivered"] == count, "every delivery")
        assert len(subscriber.calls) == count

    class Asleep(Subscriber):
        async def __call__(self, *args: Any) -> Reply:
            self.calls.append(args)
            await asyncio.sleep(60)
            return DONE

    subscriber = Asleep()
    run(tmp_path, subscriber, [broker(), trigger()], fill, max_in_flight=16)
    subscriber = Subscriber()
    monkeypatch.setattr(Store, "take", take)
    run(tmp_path, subscriber, [broker(), trigger()], drain, max_in_flight=16)
    assert looks <= count / 4 + 20


def test_a_trigger_that_goes_takes_its_deliveries_along(tmp_path: Path) -> None:
    subscriber = Subscriber(OSError("down"))
    never = {"retry": 1000, "backoffPolicy": "linear", "backoffDelay": "PT10M"}

    async def scenario(service: BrokerService) -> None:
        await post(service)
        await until(lambda: service.stats["retried"] >= 1)
        await service.update([broker(), trigger("other")])
        assert await service.pending() == []
        assert service.depth() == {"ns/other": 0}
        subscriber.script = [DONE]
        await post(service, "2")
        await until(lambda: service.stats["delivered"] == 1)

    run(tmp_path, subscriber, [broker(delivery=never), trigger()], scenario)


def test_json_format_and_forwarded_headers(tmp_path: Path) -> None:
    subscriber = Subscriber()

    async def scenario(service: BrokerService) -> None:
        headers, body = message()
        extra = [("X-Request-Id", "r1"), ("Knative-X", "k"), ("Cookie", "secret")]
        await service.handle("POST", "/ns/default", headers + extra, body)
        await until(lambda: service.stats["delivered"] == 1)

    objects = [broker(delivery={**FAST, "format": "json"}), trigger()]
    run(tmp_path, subscriber, objects, scenario)
    _, headers, body = subscriber.calls[0]
    assert headers["x-request-id"] == "r1"
    assert headers["knative-x"] == "k"
    assert "cookie" not in {name.lower() for name in headers}
    assert headers["content-type"] == "application/cloudevents+json"
    assert json.loads(body)["data"] == {"n": 1.1}


def test_a_full_disk_refuses_and_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knative.local.broker_dispatch.STORE_PAUSE_S", 0.01)
    subscriber = Subscriber()

    async def scenario(service: BrokerService) -> None:
        async def limit(pages: int) -> None:
            await service._store._do(lambda d: d.execute(f"PRAGMA max_page_count={pages}"))

        (used,) = await service._store._do(lambda d: d.execute("PRAGMA page_count").fetchone())
        await limit(used)
        big = "x" * 60_000
        headers, _ = message("big")
        status, fields, body = await service.handle("POST", "/ns/default", headers, big.encode())
        assert status == 503
        assert "full" in body.decode()
        assert fields["Retry-After"]
        await limit(1_000_000)
        status, _, _ = await service.handle("POST", "/ns/default", headers, big.encode())
        assert status == 202
        await until(lambda: service.stats["delivered"] == 1)

    run(tmp_path, subscriber, [broker(), trigger()], scenario)


def test_a_delivery_that_cannot_be_settled_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("knative.local.broker_dispatch.STORE_PAUSE_S", 0.01)
    subscriber = Subscriber()

    async def scenario(service: BrokerService) -> None:
        finish = service._store.finish
        failures = [StoreError("disk full"), StoreError("disk full")]

        async def flaky(delivery: int) -> None:
            if failures:
                raise failures.pop()
            await finish(delivery)

        monkeypatch.setattr(service._store, "finish", flaky)
        await post(service)
        await until(lambda: service.stats["delivered"] == 1)

    run(tmp_path, subscriber, [broker(), trigger()], scenario)
    assert len(subscriber.calls) == 3


def test_a_path_that_cannot_be_opened_is_an_error_with_a_name(tmp_path: Path) -> None:
    (tmp_path / "events.sqlite").mkdir()
    with pytest.raises(StoreError, match="cannot open"):
        run(tmp_path, Subscriber(), [broker()], lambda service: asyncio.sleep(0))


def test_recent_events_say_how_far_they_got(tmp_path: Path) -> None:
    async def scenario(service: BrokerService) -> None:
        await post(service)
        await until(lambda: service.stats["delivered"] == 1)
        (entry,) = service.recent()
        assert entry["event"]["id"] == "1"
        assert entry["triggers"] == {"ns/t": "delivered"}

    run(tmp_path, Subscriber(), [broker(), trigger()], scenario)


@pytest.mark.parametrize(
    ("destination", "url"),
    [
        ({"uri": "http://x/y"}, "http://x/y"),
        ({"ref": {"kind": "Service", "name": "s"}}, "http://s.ns.svc.cluster.local/"),
        (
            {"ref": {"kind": "Service", "name": "s"}, "uri": "a/b"},
            "http://s.ns.svc.cluster.local/a/b",
        ),
        (
            {"ref": {"kind": "Service", "name": "s", "namespace": "o"}, "uri": "/a"},
            "http://s.o.svc.cluster.local/a",
        ),
        (
            {"ref": {"kind": "Broker", "name": "b"}},
            "http://broker-ingress.knative-eventing.svc.cluster.local/ns/b",
        ),
    ],
)
def test_destinations(destination: Any, url: str) -> None:
    assert rules.url_of(destination, "ns") == url


def test_a_relative_uri_needs_a_ref() -> None:
    with pytest.raises(ValueError, match="Trigger ns/t"):
        rules.parse_objects([trigger(subscriber={"uri": "/x"})])
