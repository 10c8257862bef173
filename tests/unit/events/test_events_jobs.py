"""Asynchronous requests: which ones ask for it, and the life of a job."""

import json
import threading
import time
from collections.abc import Mapping
from typing import Any, cast

import pytest

from events import codec, jobs, spec
from events.errors import DeliveryFailed
from events.gate import Gate
from events.http import Answer, Client
from events.jobs import MAX_STARTS, Jobs
from events.journal import MemoryJournal
from tests.fakes_events import FakeClient, predictions
from tests.unit.events.test_events_sink import SPEC

PREFER = {"prefer": "respond-async"}


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ([("Prefer", "respond-async")], True),
        ([("prefer", "Respond-Async")], True),
        ([("Prefer", "wait=5, respond-async")], True),
        ([("Prefer", "respond-async;foo=bar")], True),
        ([("Prefer", "respond-async"), ("Prefer", "wait=5")], True),
        ([("Prefer", "wait=5"), ("Prefer", "respond-async")], True),
        ([("Prefer", "return=minimal")], False),
        ([("Prefer", "not-respond-async")], False),
        ([("Prefer", "respond-asynchronously")], False),
        ([], False),
    ],
)
def test_prefer(headers: list[tuple[str, str]], wanted: bool) -> None:
    assert jobs.wants_async(codec.lower(headers)) is wanted


class GatedClient(FakeClient):
    """Answers when told to."""

    def __init__(self, *script: Answer | Exception) -> None:
        super().__init__(*script)
        self.go = threading.Event()
        self.go.set()

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Answer:
        assert self.go.wait(10)
        return super().post(url, headers, body, timeout_s)


class Desk:
    """Jobs of one sink, with a clock to turn."""

    def __init__(self, *script: Answer | Exception, **changes: Any) -> None:
        self.spec = spec.parse({**SPEC, **changes})
        self.client = GatedClient(*script)
        self.now = 0.0
        self.journal = MemoryJournal(ttl_s=60, max_entries=100, clock=lambda: self.now)
        self.jobs = self.make()

    def make(self, client: FakeClient | None = None) -> Jobs:
        return Jobs(
            self.spec,
            client=cast("Client", client or self.client),
            journal=self.journal,
            gate=Gate(2, 2),
            clock=lambda: self.now,
        )

    def submit(self, body: bytes = b"{}", **headers: str) -> str:
        status, fields, answer = self.jobs.submit({**PREFER, **headers}, body)
        assert status == 202, answer
        assert fields["location"] == json.loads(answer)["url"]
        assert fields["preference-applied"] == "respond-async"
        assert fields["turnout-job"] == "running"
        return fields["location"].rpartition("/")[2]

    def end(self, job: str) -> tuple[int, dict[str, str], bytes]:
        deadline = time.monotonic() + 10
        while (found := self.jobs.answer(job))[1]["turnout-job"] == "running":
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return found


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (Answer(200, {"content-type": "image/png"}, b"\x89PNG\xff"), 200, b"\x89PNG\xff"),
        (Answer(204, {}, b""), 204, b""),
        (predictions(b'{"error": "bad input"}', 400), 400, b'{"error": "bad input"}'),
        (Answer(404, {"content-type": "text/plain"}, b"no model"), 404, b"no model"),
        (predictions(b"busy", 503), 503, b"busy"),
    ],
)
def test_the_graphs_own_answer_waits(answer: Answer, status: int, body: bytes) -> None:
    desk = Desk(answer)
    found = desk.end(desk.submit())
    assert (found[0], found[2], found[1]["turnout-job"]) == (status, body, "done")
    assert found[1].get("content-type") == answer.headers.get("content-type")


def test_a_graph_that_cannot_be_reached_is_asked_again_and_then_a_502() -> None:
    desk = Desk(DeliveryFailed("refused"), predictions(b"1"))
    assert desk.end(desk.submit())[2] == b"1"
    gone = Desk(DeliveryFailed("refused"))
    assert gone.end(gone.submit())[0] == 502
    assert len(gone.client.calls) == 2


def test_credentials_are_neither_kept_nor_passed_on() -> None:
    desk = Desk()
    desk.client.go.clear()
    job = desk.submit(b"{}", authorization="Bearer secret", cookie="secret", accept="a/b")
    kept = desk.journal.kept(job)
    assert kept is not None
    assert b"secret" not in kept
    desk.client.go.set()
    desk.end(job)
    assert desk.client.calls[0][1] == {"accept": "a/b"}


def test_a_key_is_one_job_for_one_body() -> None:
    desk = Desk()
    first = desk.submit(b"1", **{"idempotency-key": "k"})
    assert desk.end(first)[0] == 200
    assert desk.submit(b"1", **{"idempotency-key": "k"}) == first
    status, _, answer = desk.jobs.submit({**PREFER, "idempotency-key": "k"}, b"2")
    assert (status, len(desk.client.calls)) == (422, 1)
    assert b"another body" in answer
    waiting = {"prefer": "respond-async, wait=5", "idempotency-key": "k"}
    assert desk.jobs.submit(waiting, b"1")[0] == 200
    other = Desk(name="another")  # the same key at another trigger is another job
    assert other.submit(b"1", **{"idempotency-key": "k"}) != first


def test_what_is_deleted_stays_deleted() -> None:
    desk = Desk()
    desk.client.go.clear()
    job = desk.submit()
    assert desk.jobs.forget(job)[0] == 204
    desk.client.go.set()
    deadline = time.monotonic() + 10
    while desk.jobs._running:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert desk.jobs.answer(job)[0] == 404
    assert desk.jobs.forget(job)[0] == desk.jobs.forget("../x")[0] == 404
    assert desk.jobs.answer(job)[1]["turnout-job"] == "unknown"


def test_answers_are_kept_for_their_time_and_a_running_job_for_its_own() -> None:
    desk = Desk(asyncTtlSeconds=10, deadlineSeconds=100)
    desk.client.go.clear()
    job = desk.submit()
    desk.now = 50  # longer than answers are kept, but it is still running
    assert desk.jobs.answer(job)[0] == 202
    desk.client.go.set()
    assert desk.end(job)[0] == 200
    desk.now = 59
    assert desk.jobs.answer(job)[0] == 200
    desk.now = 61
    assert desk.jobs.answer(job)[1]["turnout-job"] == "unknown"


def test_a_job_whose_process_died_is_started_again_but_not_for_ever() -> None:
    desk = Desk()
    desk.client.go.clear()
    job = desk.submit()
    clients = [desk.client]
    for start in range(2, MAX_STARTS + 2):
        clients.append(GatedClient())
        clients[-1].go.clear()
        desk.jobs = desk.make(clients[-1])  # another process
        assert desk.jobs.answer(job)[0] == 202  # the first one may be alive still
        desk.now += desk.spec.deadline_s + 10
        found = desk.jobs.answer(job)
        assert found[0] == (202 if start <= MAX_STARTS else 500)
    assert b"processes ended" in found[2]
    for client in clients:
        client.go.set()


def test_too_many_are_told_to_come_back() -> None:
    desk = Desk(concurrency={"max": 1, "waiting": 1})
    desk.client.go.clear()
    names = [desk.submit(), desk.submit()]
    status, fields, _ = desk.jobs.submit(PREFER, b"{}")
    assert (status, fields["retry-after"]) == (429, "1")
    desk.client.go.set()
    assert [desk.end(name)[0] for name in names] == [200, 200]
