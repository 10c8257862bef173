"""Every producer's notification becomes the same CloudEvent; keys survive; rubbish is refused."""

import base64
import json
from typing import Any

import pytest

from events import storage
from events.errors import InvalidEvent
from events.sources import Notification, keys, normalise
from tests import fakes_events as shapes

JSON = {"Content-Type": "application/json"}


def read(body: Any, headers: dict[str, str] | None = None) -> Notification:
    return normalise(headers or JSON, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("body", "shape", "source", "subject"),
    [
        (shapes.records(), "records", "aws:s3.us-east-1.mnist", shapes.KEY),
        (shapes.aws_record(), "record", "aws:s3.us-east-1.mnist", shapes.KEY),
        (shapes.sns(shapes.records()), "sns+records", "aws:s3.us-east-1.mnist", shapes.KEY),
        (shapes.minio(), "records", "minio:s3..mnist", "a/b:c.log"),
        (shapes.ceph(), "records", "ceph:s3.zg.mnist", "a+b %41.png"),
        (
            shapes.ceph(name="s3:ObjectCreated:Put"),
            "records",
            "ceph:s3.zg.mnist",
            "a+b %41.png",
        ),
        (shapes.event_bridge(), "eventbridge", "aws:s3.ca-central-1.mnist", "a+b:%41.png"),
        (shapes.seaweed(), "seaweedfs", "seaweedfs:s3..mnist", "a/b:c +%41.log"),
        ({"data": shapes.minio()}, "records", "minio:s3..mnist", "a/b:c.log"),
        (
            {"Records": [{"messageId": "1", "body": json.dumps(shapes.records())}]},
            "records",
            "aws:s3.us-east-1.mnist",
            shapes.KEY,
        ),
        (
            {"Records": [{"EventSource": "aws:sns", "Sns": shapes.sns(shapes.records())}]},
            "records",
            "aws:s3.us-east-1.mnist",
            shapes.KEY,
        ),
        (
            shapes.records(shapes.aws_record("a%20b%2B.txt", eventSource="aws:s3")),
            "records",
            "aws:s3.us-east-1.mnist",
            "a b+.txt",
        ),
    ],
)
def test_every_shape_becomes_the_same_event(
    body: Any, shape: str, source: str, subject: str
) -> None:
    found = read(body)
    assert found.shape == shape
    (event,) = found.events
    assert (event.source, event.subject) == (source, subject)
    assert event.type == "com.amazonaws.s3.ObjectCreated:Put"
    assert event.content_type == "application/json"
    about = storage.object_of(event)
    assert about is not None
    assert (about.bucket, about.key) == ("mnist", subject)
    assert about.is_created


def test_the_aws_mapping() -> None:
    (event,) = read(shapes.records()).events
    assert event.attributes["time"] == "2026-01-02T03:04:05.678Z"
    assert event.id.startswith("REQ.HOST.")
    assert event.json() == shapes.aws_record()
    about = storage.object_of(event)
    assert about is not None
    assert about.raw_key == shapes.AWS_KEY
    assert (about.etag, about.sequencer, about.size) == ("ebed", "0055AED6DCD90281E5", 324)


def test_records_of_one_request_get_different_stable_ids() -> None:
    body = shapes.records(shapes.aws_record("a"), shapes.aws_record("b"), shapes.aws_record("a"))
    ids = [event.id for event in read(body).events]
    assert ids[0] == ids[2] != ids[1]
    assert ids == [event.id for event in read(body).events]


def test_without_a_request_id_the_id_is_made_of_the_object() -> None:
    one = read(shapes.records(shapes.aws_record(responseElements=None))).events[0]
    two = read(shapes.records(shapes.aws_record("other", responseElements={}))).events[0]
    assert len(one.id) == 32
    assert one.id != two.id


@pytest.mark.parametrize("body", [shapes.TEST_EVENT, shapes.sns(shapes.TEST_EVENT)])
def test_test_messages_are_taken_and_ignored(body: Any) -> None:
    assert read(body).events == ()


def test_sns_asks_for_confirmation() -> None:
    url = "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&Token=t"
    found = read(shapes.sns("hello", Type="SubscriptionConfirmation", SubscribeURL=url, Token="t"))
    assert found.handshake is not None
    assert found.handshake.url == url
    assert found.events == ()


@pytest.mark.parametrize(
    ("detail_type", "reason", "name"),
    [
        ("Object Created", "PutObject", "ObjectCreated:Put"),
        ("Object Created", "POST Object", "ObjectCreated:Post"),
        ("Object Created", "CopyObject", "ObjectCreated:Copy"),
        ("Object Created", "CompleteMultipartUpload", "ObjectCreated:CompleteMultipartUpload"),
        ("Object Deleted", "DeleteObject", "ObjectRemoved:Delete"),
        ("Object Tags Added", "", "ObjectTagging:Put"),
        ("Object Tags Deleted", "", "ObjectTagging:Delete"),
        ("Object Deleted", "Lifecycle Expiration", "LifecycleExpiration:Delete"),
        ("Object Restore Initiated", "", "ObjectRestore:Post"),
        ("Object Restore Completed", "", "ObjectRestore:Completed"),
        ("Object Restore Expired", "", "ObjectRestore:Delete"),
        ("Object ACL Updated", "", "ObjectAcl:Put"),
        ("Object Storage Class Changed", "", "LifecycleTransition"),
        ("Object Access Tier Changed", "", "IntelligentTiering"),
    ],
)
def test_event_bridge_names(detail_type: str, reason: str, name: str) -> None:
    body = shapes.event_bridge(**{"detail-type": detail_type})
    body["detail"]["reason"] = reason
    assert read(body).events[0].type == f"com.amazonaws.s3.{name}"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("s3:ObjectCreated:Put", "ObjectCreated:Put"),
        ("s3:ObjectCreated:CompleteMultipartUpload", "ObjectCreated:CompleteMultipartUpload"),
        ("s3:ObjectCreated:PutTagging", "ObjectTagging:Put"),
        ("s3:ObjectCreated:DeleteTagging", "ObjectTagging:Delete"),
        ("s3:ObjectCreated:PutRetention", "ObjectRetention:Put"),
        ("s3:ObjectCreated:PutLegalHold", "ObjectLegalHold:Put"),
    ],
)
def test_what_minio_calls_created_is_not_always_new(name: str, meant: str) -> None:
    (event,) = read(shapes.minio(name=name)).events
    assert event.type == f"com.amazonaws.s3.{meant}"
    assert event.json()["eventName"] == name
    about = storage.object_of(event.with_attributes(type=f"com.amazonaws.{name}"))
    assert about is not None
    assert about.event_name == meant


@pytest.mark.parametrize(
    ("body", "subject"),
    [
        (shapes.records(shapes.aws_record("a%0Ab+c")), "a%0Ab+c"),  # the raw text may be said
        (shapes.event_bridge("a\nb"), None),
        (shapes.ceph("a\x00b"), None),
    ],
)
def test_a_key_that_no_attribute_may_hold_is_in_the_data(body: Any, subject: str | None) -> None:
    (event,) = read(body).events
    assert event.subject == subject
    about = storage.object_of(event)
    assert about is not None
    assert about.key in ("a\nb c", "a\nb", "a\x00b")


def test_files_of_seaweedfs_that_are_no_objects_are_taken_and_ignored() -> None:
    found = read({"event_type": "create", "key": "/etc/iam/identity.json", "message": {}})
    assert (found.shape, found.events) == ("seaweedfs", ())


CREATED = {"new_entry": shapes.seaweed_entry("x"), "new_parent_path": "/buckets/mnist"}
TAGGED = shapes.seaweed_entry("x", tags={"X-Amz-Tagging-a": "Yg=="})
WRITTEN = shapes.seaweed_entry("x", fid=3)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (shapes.seaweed(), "ObjectCreated:Put"),
        (shapes.SEAWEED_DIRECTORY, None),
        (shapes.seaweed("mnist"), None),
        (shapes.seaweed("mnist/.uploads/1_2/0001.part"), None),
        (
            shapes.seaweed(kind="update", old_entry=CREATED["new_entry"], new_entry=TAGGED),
            "ObjectTagging:Put",
        ),
        (
            shapes.seaweed(kind="update", old_entry=CREATED["new_entry"], new_entry=WRITTEN),
            "ObjectCreated:Put",
        ),
        (
            shapes.seaweed(
                kind="update", old_entry=CREATED["new_entry"], new_entry=CREATED["new_entry"]
            ),
            None,
        ),
        (shapes.seaweed(kind="delete", old_entry=CREATED["new_entry"]), "ObjectRemoved:Delete"),
    ],
)
def test_seaweedfs_reports_more_than_objects(body: Any, name: str | None) -> None:
    events = read(body).events
    assert [event.type for event in events] == ([f"com.amazonaws.s3.{name}"] if name else [])


VERSION = "67135ea8de6386a3cc5327ee6551ebb3"


def versioned(kind: str = "create", **extended: str) -> dict[str, Any]:
    """As SeaweedFS 4.48 reports a version of `dir/a.png`."""
    encoded = base64.b64encode(VERSION.encode()).decode()
    tags = {"Seaweed-X-Amz-Version-Id": encoded, **extended}
    entry = shapes.seaweed_entry(f"v_{VERSION}", tags=tags)
    which = "old_entry" if kind == "delete" else "new_entry"
    path = f"mnist/dir/a.png.versions/v_{VERSION}"
    return shapes.seaweed(path, kind, **{which: entry}, new_parent_path="/buckets/mnist/dir")


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (versioned(), "ObjectCreated:Put"),
        (versioned("delete"), "ObjectRemoved:Delete"),
        (
            versioned(**{"Seaweed-X-Amz-Delete-Marker": "dHJ1ZQ=="}),
            "ObjectRemoved:DeleteMarkerCreated",
        ),
    ],
)
def test_versions_of_seaweedfs_are_versions_of_their_object(body: Any, name: str) -> None:
    (event,) = read(body).events
    about = storage.object_of(event)
    assert about is not None
    assert (event.subject, about.key) == ("dir/a.png", "dir/a.png")
    assert (about.event_name, about.version_id) == (name, VERSION)
    assert (about.sequencer is None) is name.endswith("MarkerCreated")


def test_keeping_the_books_of_versions_is_no_event() -> None:
    entry = versioned()["message"]["new_entry"]
    older = {"Seaweed-X-Amz-Noncurrent-Since-Ns": "MQ=="}
    since = {**entry, "extended": {**entry["extended"], **older}}
    update = versioned("update")
    update["message"] |= {"old_entry": entry, "new_entry": since}
    assert read(update).events == ()
    folder = {"name": "a.png.versions", "is_directory": True}
    assert read(shapes.seaweed("mnist/dir/a.png.versions", new_entry=folder)).events == ()
    marker = {"Seaweed-X-Amz-Delete-Marker": "dHJ1ZQ=="}
    assert read(versioned("delete", **marker)).events == ()
    # A key that merely looks like it.
    (event,) = read(shapes.seaweed("mnist/a.versions/v_1")).events
    assert event.subject == "a.versions/v_1"


def test_a_seaweedfs_rename_is_a_new_object_under_its_new_name() -> None:
    body = shapes.seaweed(
        "mnist/old.png",
        kind="rename",
        old_entry=shapes.seaweed_entry("old.png"),
        new_entry=shapes.seaweed_entry("new.png"),
        new_parent_path="/buckets/mnist/done",
    )
    (event,) = read(body).events
    assert event.subject == "done/new.png"
    assert event.type == "com.amazonaws.s3.ObjectCreated:Copy"


def test_two_uploads_of_the_same_bytes_are_two_objects_for_seaweedfs() -> None:
    second = shapes.seaweed()
    second["message"]["new_entry"]["chunks"][0]["modified_ts_ns"] += 1
    first, again, other = (
        storage.object_of(read(body).events[0])
        for body in (shapes.seaweed(), shapes.seaweed(), second)
    )
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.identity("t") == again.identity("t") != other.identity("t")
    assert first.identity("another trigger") != first.identity("t")


def test_ceph_speaks_cloud_events_its_own_way() -> None:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-type": "com.amazonaws.ObjectCreated:Put",
        "ce-source": "ceph:s3.zg.mnist",
        "ce-subject": "a+b%20%2541.png",
        "Content-Type": "application/json",
    }
    (event,) = read(shapes.ceph(), headers).events
    assert event.type == "com.amazonaws.s3.ObjectCreated:Put"
    assert event.subject == "a+b %41.png"


@pytest.mark.parametrize("subject", ["100%ff.png", "%C3.png", "a\x01b"])
def test_a_ceph_key_that_is_no_valid_header_is_taken_from_the_record(subject: str) -> None:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-type": "com.amazonaws.ObjectCreated:Put",
        "ce-source": "ceph:s3.zg.mnist",
        "ce-subject": subject,
        "Content-Type": "application/json",
    }
    (event,) = read(shapes.ceph("100%ff.png"), headers).events
    assert event.subject == "100%ff.png"
    with pytest.raises(InvalidEvent):
        read(shapes.ceph(), {**headers, "ce-source": "aws:s3.x.mnist"})


def test_a_bad_record_does_not_take_the_good_ones_along() -> None:
    found = read(shapes.records(shapes.aws_record("a"), {"eventName": "x"}, shapes.aws_record("b")))
    assert [event.subject for event in found.events] == ["a", "b"]
    (problem,) = found.problems
    assert problem.startswith("Records[1]: ")


def test_every_sns_envelope_inside_is_known_to_the_signature_check() -> None:
    inner = [{"Sns": shapes.sns(shapes.records(), MessageId=name)} for name in "ab"]
    assert [one["MessageId"] for one in read({"Records": inner}).sns] == ["a", "b"]


@pytest.mark.parametrize(
    "kind",
    [
        "com.amazonaws.s3.ObjectCreated:Put",
        "com.amazonaws.s3:ObjectCreated:Put",
        "com.amazonaws.ObjectCreated:Put",
    ],
)
def test_all_three_spellings_of_the_type_name_an_object(kind: str) -> None:
    assert storage.name_of(kind) == "ObjectCreated:Put"


@pytest.mark.parametrize("text", [True, False])
def test_a_queue_body_inside_a_cloud_event_is_unpacked(text: bool) -> None:
    body: Any = shapes.sns(shapes.records())
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-type": "dev.knative.eventing.aws-sqs",
        "ce-source": "dev.knative.eventing.aws-sqs-source",
        "Content-Type": "text/plain" if text else "application/json",
    }
    raw = json.dumps(body if text else json.dumps(body))
    (event,) = normalise(headers, raw.encode()).events
    assert event.subject == shapes.KEY


def test_any_other_cloud_event_passes_untouched() -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-type": "t", "ce-source": "s"}
    found = normalise({**headers, "Content-Type": "application/json"}, b'{"a": 1.10}')
    assert found.shape == "cloudevent-binary"
    assert found.events[0].data == b'{"a": 1.10}'


def test_our_own_events_are_not_wrapped_twice() -> None:
    from events import codec

    (event,) = read(shapes.minio()).events
    (again,) = normalise(*codec.encode_binary(event)).events
    assert again == event


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "empty"),
        (b"{", "not JSON"),
        (b"[1]", "not list"),
        (b"{}", "known shape"),
        (b'{"Records": [{}]}', "eventName"),
        (b'{"Records": [1]}', "eventName"),
        (b'{"Records": [{"eventName": "x", "s3": {}}]}', "s3.bucket"),
        (b'{"Records": [{"eventName": 5, "s3": {}}]}', "must be a string"),
        (b'{"event_type": "create", "key": "/buckets/b/k"}', "message"),
        (b'{"event_type": "chmod", "key": "/buckets/b/k", "message": {}}', "chmod"),
        (b'{"detail-type": "Object Restored", "detail": {}}', "Object Restored"),
        (b'{"Type": "Notification", "TopicArn": "t", "Message": "{"}', "not JSON"),
        (b'{"Type": "Surprise", "TopicArn": "t", "Message": "{}"}', "Surprise"),
        (b'{"a": "' + b"\xff" + b'"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_rubbish_is_refused_with_a_reason(body: bytes, message: str) -> None:
    with pytest.raises(InvalidEvent, match=message):
        normalise(JSON, body)


def test_endless_envelopes_are_refused() -> None:
    body: Any = shapes.records()
    for _ in range(6):
        body = shapes.sns(body)
    with pytest.raises(InvalidEvent, match="nested"):
        read(body)


@pytest.mark.parametrize(
    ("raw", "source", "key"),
    [
        ("this+im+%2B+age+blah.txt", "aws:s3", "this im + age blah.txt"),
        ("a/b%3Ac.log", "aws:s3", "a/b:c.log"),
        ("a%2Fb%3Ac.log", "minio:s3", "a/b:c.log"),
        ("%C3%BC%E2%82%AC.png", "aws:s3", "ü€.png"),
        ("%2541", "aws:s3", "%41"),
        ("%41", "ceph:s3", "%41"),
        ("a+b", "aws.s3", "a+b"),
        ("%FF", "aws:s3", "%FF"),
        ("a%20b", "other:s3", "a b"),
    ],
)
def test_keys_are_decoded_by_the_producers_rule(raw: str, source: str, key: str) -> None:
    assert keys.decode(raw, source) == key


@pytest.mark.parametrize(
    ("key", "raw", "other"),
    [("a b", "a+b", "a+b"), ("a+b", "a+b", "a b"), ("%41", "%41", "A"), ("plain", "plain", None)],
)
def test_the_other_spelling(key: str, raw: str, other: str | None) -> None:
    assert keys.other_spelling(key, raw) == other


@pytest.mark.parametrize("key", ["this im + age blah.txt", "a/b:c.log", "ü€😀", "%41", "a\\b'c"])
def test_encoding_and_decoding_agree(key: str) -> None:
    assert keys.decode(keys.encode(key), "aws:s3") == key


@pytest.mark.parametrize(
    ("sequencer", "than", "newer"),
    [
        ("02", "01", True),
        ("01", "02", False),
        ("1754D5802CCFEDA0", "1754D5802CCFEDA0", None),
        ("1a", "1A0", None),
        ("1B", "1A0", True),
        (None, "1", None),
        ("1", "", None),
    ],
)
def test_sequencers(sequencer: str | None, than: str | None, newer: bool | None) -> None:
    assert keys.is_newer(sequencer, than) is newer
