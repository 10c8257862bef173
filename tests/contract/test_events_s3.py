"""The S3 door, the S3 journal and a whole sink against a real server (SeaweedFS)."""

import email.header
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from events import codec
from events.errors import Forbidden, ObjectGone, Refused, TryAgain
from events.journal import Order, State
from events.journal_s3 import S3Journal
from events.lineage import MADE_BY
from events.names import AllowList
from events.objects import ObjectStore
from tests import fakes_events as shapes
from tests import seaweed
from tests.contract.test_events import ANSWER, Upstream, running

KEYS = ["this im + age blah.txt", "a/b:c.log", "ü/€😀.png", "%41", "a'b\"c&d=e?f#g", "plain"]
SMALL = ("-master.volumeSizeLimitMB=32",)


@pytest.fixture(scope="module")
def s3() -> Iterator[seaweed.S3Server]:
    with seaweed.running(bucket="mnist", extra=SMALL) as server:
        for bucket in ("digit-5", "answers", "forbidden"):
            server.make_bucket(bucket)
        yield server


@pytest.fixture
def store(s3: seaweed.S3Server, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    for name, value in s3.environ().items():
        monkeypatch.setenv(name, value)
    return ObjectStore(
        AllowList(["mnist", "answers"], ["digit-[a-z0-9.-]+"]), endpoint_url=s3.endpoint
    )


@pytest.mark.parametrize("key", KEYS)
def test_every_key_makes_the_round_trip(store: ObjectStore, key: str) -> None:
    store.put("mnist", key, b"body", "text/x", {MADE_BY: "t"})
    found = store.get("mnist", key)
    assert (found.body, found.content_type, found.metadata[MADE_BY]) == (b"body", "text/x", "t")
    store.copy(found, "digit-5", key, {"more": "1"})
    copied = store.head("digit-5", key)
    assert copied.metadata == {MADE_BY: "t", "more": "1"}
    assert copied.content_type == "text/x"
    store.set_tags("mnist", key, {"a": "1", "b": "2"}, None)
    assert store.tags("mnist", key, None) == {"a": "1", "b": "2"}
    store.delete("mnist", key)
    store.delete("mnist", key)
    with pytest.raises(ObjectGone):
        store.get("mnist", key)


def test_metadata_beyond_ascii_survives_a_copy(store: ObjectStore) -> None:
    store.put("mnist", "noted", b"body", "text/x", {"note": "Größe €", "plain": "1"})
    store.copy(store.get("mnist", "noted"), "digit-5", "noted", {MADE_BY: "t"})
    found = store.head("digit-5", "noted").metadata
    assert (found["plain"], found[MADE_BY]) == ("1", "t")
    (decoded, charset) = email.header.decode_header(found["note"])[0]
    assert (decoded.decode(charset or "ascii"), charset) == ("Größe €", "utf-8")


def test_a_listing_names_every_object_on_all_its_pages(
    store: ObjectStore, s3: seaweed.S3Server
) -> None:
    expected = {f"listed/{key}" for key in KEYS} | {f"listed/many/{i:04d}" for i in range(1010)}
    for key in expected:
        store.put("answers", key, b"x" * 3, "text/plain")
    found = {one.key: one for one in store.listing("answers", "listed/")}
    assert found.keys() == expected
    one = found["listed/plain"]
    assert (one.size, one.etag) == (3, store.head("answers", one.key).etag)
    assert abs(one.modified_s - time.time()) < 600
    assert list(store.listing("answers", "nothing/")) == []
    with pytest.raises(Forbidden):
        list(store.listing("forbidden", ""))
    with pytest.raises(ObjectGone):
        list(store.listing("digit-absent", ""))


def test_a_replaced_object_is_not_the_same(store: ObjectStore) -> None:
    first = store.put("mnist", "changing", b"1", "text/x")
    store.put("mnist", "changing", b"2", "text/x")
    with pytest.raises(ObjectGone):
        store.get("mnist", "changing", etag=first)


def test_limits_and_the_allow_list(store: ObjectStore) -> None:
    store.put("mnist", "large", b"x" * 100, "text/x")
    with pytest.raises(Refused, match="limit"):
        store.get("mnist", "large", max_bytes=10)
    for bucket in ("forbidden", "digit-"):
        with pytest.raises(Forbidden):
            store.put(bucket, "x", b"", "text/x")


def test_a_presigned_url_works(store: ObjectStore, s3: seaweed.S3Server) -> None:
    import urllib.request

    store.put("mnist", "a b.png", b"png", "image/png")
    url = store.presign("mnist", "a b.png", None, 60)
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url  # young buckets refuse the old signature
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"png"


def test_wrong_credentials_are_final(s3: seaweed.S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**s3.environ(), "AWS_SECRET_ACCESS_KEY": "wrong"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Forbidden):
        ObjectStore(AllowList(["mnist"]), endpoint_url=s3.endpoint).get("mnist", "x")


def test_a_server_that_is_away_is_worth_another_try(
    s3: seaweed.S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environ().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TryAgain):
        ObjectStore(AllowList(["mnist"]), endpoint_url="http://127.0.0.1:9").get("mnist", "x")


def test_one_of_many_claims_wins(store: ObjectStore) -> None:
    journals = [S3Journal(store, bucket="mnist", prefix="j/", ttl_s=100) for _ in range(4)]
    states: list[State] = []
    barrier = threading.Barrier(4)

    def claim(journal: S3Journal) -> None:
        barrier.wait()
        states.append(journal.begin(["k"], 30).state)

    threads = [threading.Thread(target=claim, args=[journal]) for journal in journals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(state.name for state in states) == ["BUSY", "BUSY", "BUSY", "NEW"]


def test_the_journals_life_on_a_real_server(store: ObjectStore) -> None:
    journal = S3Journal(store, bucket="mnist", prefix="life/", ttl_s=100)
    assert journal.begin(["a", "b"], 30).state is State.NEW
    journal.answered(["a", "b"], b"answer")
    journal.release(["a", "b"])
    other = S3Journal(store, bucket="mnist", prefix="life/", ttl_s=100)
    assert other.begin(["a"], 30).answer == b"answer"
    assert journal.begin(["a", "b"], 30).state is State.BUSY
    other.done(["a"], b"reply", Order(object_id="o", sequencer="01"))
    assert journal.begin(["a", "b"], 30).reply == b"reply"
    assert journal.last_sequencer("o") == "01"


def sink_spec(url: str, **more: Any) -> str:
    return json.dumps(
        {
            "name": "digits",
            "source": {"s3": {"bucket": "mnist", "prefix": "in/", "suffix": ".png"}},
            "target": {"url": url},
            "request": {"object": "base64"},
            "result": {
                "move": {"bucket": "digit-{$.predictions[0].classes}"},
                "write": {"bucket": "answers", "key": "{object.key}.json"},
                "reply": {"type": "digit.classified"},
            },
            "dedupe": {"store": "s3", "bucket": "answers", "prefix": ".journal/"},
            **more,
        }
    )


def test_a_sink_files_what_lands_and_survives_its_own_death(
    s3: seaweed.S3Server, tmp_path: Path
) -> None:
    headers, body = codec.encode_binary(shapes.object_event("in/a +%41.png", sequencer="0A"))
    answer = (200, ANSWER[1], b'{"predictions": [{"classes": 5}]}')
    s3.put("mnist", "in/a +%41.png", b"PNG")
    with Upstream(answer) as graph:
        environ = {**s3.environ(), "SINK_SPEC": sink_spec(graph.url)}
        with running(tmp_path, "sink", **environ) as program:
            status, fields, _ = program.post(body, headers)
            assert status == 200
            assert fields["ce-type"] == "digit.classified"
            assert s3.get("digit-5", "in/a +%41.png") == b"PNG"
            assert json.loads(s3.get("answers", "in/a +%41.png.json"))["answer"]
            program.process.kill()
            program.process.wait(10)
        with running(tmp_path, "sink", **environ) as program:
            status, again, _ = program.post(body, headers)
            assert status == 200
            assert again["ce-id"] == fields["ce-id"]
            gone = codec.encode_binary(shapes.object_event("in/missing.png"))
            found, _, reason = program.post(gone[1], gone[0])
            assert found == 422
            assert b"not in bucket" in reason
    assert len(graph.calls) == 1
