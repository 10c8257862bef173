"""The S3 door as it is for Amazon itself: boto3 without an endpoint, against moto's S3."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from events.errors import NoBucket, ObjectGone, Refused
from events.lineage import HOPS, MADE_BY
from events.names import AllowList
from events.objects import ObjectStore

MARKS = {MADE_BY: "default/t", HOPS: "1"}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        for bucket in ("mnist", "digit-5", "versions"):
            client.create_bucket(Bucket=bucket)
        on = {"Status": "Enabled"}
        client.put_bucket_versioning(Bucket="versions", VersioningConfiguration=on)
        yield client


@pytest.fixture
def store(s3: Any) -> ObjectStore:
    allowed = AllowList(["mnist", "versions", "missing"], ["digit-[a-z0-9.-]+"])
    return ObjectStore(allowed, region="us-east-1")


@pytest.mark.parametrize("key", ["this im + age blah.txt", "a/b:c.log", "ü/€😀.png", "%41"])
def test_a_key_makes_the_round_trip(store: ObjectStore, key: str) -> None:
    etag = store.put("mnist", key, b"body", "text/x", MARKS)
    found = store.get("mnist", key, etag=etag, max_bytes=4)
    assert (found.body, found.content_type, dict(found.metadata)) == (b"body", "text/x", MARKS)
    assert (found.etag, found.size) == (etag, 4)
    store.copy(found, "digit-5", key, {HOPS: "2"})
    assert store.head("digit-5", key).metadata == {**MARKS, HOPS: "2"}
    store.set_tags("mnist", key, {"a": "1"}, None)
    assert store.tags("mnist", key, None) == {"a": "1"}
    assert [one.key for one in store.listing("mnist", "")] == [key]
    assert "X-Amz-Signature=" in store.presign("mnist", key, None, 60)
    store.delete("mnist", key)
    with pytest.raises(ObjectGone):
        store.head("mnist", key)


def test_conditions_hold(store: ObjectStore) -> None:
    etag = store.put("mnist", "k", b"one", "a/b", only_new=True)
    with pytest.raises(ObjectGone):
        store.put("mnist", "k", b"two", "a/b", only_new=True)
    store.put("mnist", "k", b"three", "a/b", if_etag=etag)
    with pytest.raises(ObjectGone):
        store.put("mnist", "k", b"four", "a/b", if_etag=etag)
    with pytest.raises(ObjectGone):
        store.get("mnist", "k", etag=etag)
    with pytest.raises(Refused, match="limit is 2"):
        store.get("mnist", "k", max_bytes=2)


def test_exactly_the_version_of_the_event(store: ObjectStore, s3: Any) -> None:
    old = s3.put_object(Bucket="versions", Key="k", Body=b"old")["VersionId"]
    s3.put_object(Bucket="versions", Key="k", Body=b"new")
    found = store.get("versions", "k", version_id=old, etag="another tag does not matter")
    assert (found.body, found.version_id) == (b"old", old)
    store.copy(found, "digit-5", "k", {})
    assert store.get("digit-5", "k").body == b"old"
    with pytest.raises(ObjectGone):
        store.get("versions", "k", version_id="11111111-1111-1111-1111-111111111111")


def test_a_bucket_that_is_not_there_is_named(store: ObjectStore) -> None:
    with pytest.raises(NoBucket, match="no bucket 'missing'"):
        store.put("missing", "k", b"", "a/b")
