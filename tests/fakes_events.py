"""Notification bodies of every producer, as seen or documented; stand-ins for what a sink talks
to."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote_plus

from events.errors import ObjectGone, Refused
from events.event import Event
from events.http import Answer
from events.names import AllowList
from events.objects import Stored
from events.sources import normalise

KEY = "this im + age blah.txt"
AWS_KEY = "this+im+%2B+age+blah.txt"


def aws_record(key: str = AWS_KEY, **changes: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-01-02T03:04:05.678Z",
        "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "AIDAJDPLRKLG7UEXAMPLE"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {"x-amz-request-id": "REQ", "x-amz-id-2": "HOST"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "cfg",
            "bucket": {"name": "mnist", "arn": "arn:aws:s3:::mnist"},
            "object": {"key": key, "size": 324, "eTag": "ebed", "sequencer": "0055AED6DCD90281E5"},
        },
    }
    record.update(changes)
    return record


def records(*items: dict[str, Any]) -> dict[str, Any]:
    return {"Records": list(items) or [aws_record()]}


def sns(message: Any, **changes: Any) -> dict[str, Any]:
    return {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": "arn:aws:sns:us-west-2:123456789012:MyTopic",
        "Subject": "Amazon S3 Notification",
        "Message": message if isinstance(message, str) else json.dumps(message),
        "Timestamp": "2026-01-02T03:04:05.678Z",
        "SignatureVersion": "1",
        "Signature": "x",
        "SigningCertURL": "https://sns.us-west-2.amazonaws.com/cert.pem",
        **changes,
    }


def minio(key: str = "a%2Fb%3Ac.log", name: str = "s3:ObjectCreated:Put") -> dict[str, Any]:
    record = aws_record(
        key,
        eventSource="minio:s3",
        awsRegion="",
        eventName=name,
        responseElements={"x-amz-request-id": "17", "x-minio-deployment-id": "d"},
    )
    return {"EventName": name, "Key": "mnist/a/b:c.log", "Records": [record]}


def ceph(key: str = "a+b %41.png", name: str = "ObjectCreated:Put") -> dict[str, Any]:
    return records(
        aws_record(key, eventSource="ceph:s3", awsRegion="zg", eventName=name, eventId="1.2.3")
    )


def event_bridge(key: str = "a+b:%41.png", **changes: Any) -> dict[str, Any]:
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": "111122223333",
        "time": "2026-01-02T03:04:05Z",
        "region": "ca-central-1",
        "resources": ["arn:aws:s3:::mnist"],
        "detail": {
            "version": "0",
            "bucket": {"name": "mnist"},
            "object": {
                "key": key,
                "size": 5,
                "etag": "b1946ac9",
                "sequencer": "00617F08299329D189",
            },
            "request-id": "N4N7GDK58NMKJ12R",
            "reason": "PutObject",
        },
        **changes,
    }


TEST_EVENT = {
    "Service": "Amazon S3",
    "Event": "s3:TestEvent",
    "Time": "2026-01-02T03:04:05.678Z",
    "Bucket": "mnist",
    "RequestId": "R",
    "HostId": "H",
}


def seaweed_entry(name: str, *, fid: int = 2, tags: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "chunks": [
            {
                "size": 100,
                "modified_ts_ns": 1795252160030182109,
                "e_tag": "rtVj7K+0vMVlTFl6QhVHsg==",
                "fid": {"volume_id": 4, "file_key": fid, "cookie": 3169884255},
            }
        ],
        "attributes": {
            "file_size": 100,
            "mtime": 1795252160,
            "mime": "text/x",
            "md5": "rtVj7K+0vMVlTFl6QhVHsg==",
        },
        "extended": {
            "Seaweed-X-Amz-ETag": "YWVkNTYzZWNhZmI0YmNjNTY1NGM1OTdhNDIxNTQ3YjI=",
            **(tags or {}),
        },
    }


def seaweed(
    path: str = "mnist/a/b:c +%41.log", kind: str = "create", **message: Any
) -> dict[str, Any]:
    name = path.rpartition("/")[2]
    return {
        "event_type": kind,
        "key": f"/buckets/{path}",
        "message": message
        or {"new_entry": seaweed_entry(name), "new_parent_path": "/buckets/mnist"},
    }


SEAWEED_DIRECTORY = {
    "event_type": "create",
    "key": "/buckets/mnist/a",
    "message": {
        "new_entry": {
            "name": "a",
            "is_directory": True,
            "attributes": {"mtime": 1795252160, "ctime": -62135596800, "mtime_ns": 30389783},
        },
        "new_parent_path": "/buckets/mnist",
    },
}


# --- stand-ins for what a sink talks to -----------------------------------------------------------
class FakeClient:
    """Answers from a script (the last entry for ever); remembers (url, headers, body, timeout)."""

    def __init__(self, *script: Answer | Exception) -> None:
        self.script: list[Answer | Exception] = list(script) or [predictions()]
        self.calls: list[tuple[str, dict[str, str], bytes, float]] = []

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Answer:
        self.calls.append((url, dict(headers), body, timeout_s))
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, Exception):
            raise step
        return step


def predictions(body: bytes = b'{"predictions": [{"classes": 5}]}', status: int = 200) -> Answer:
    return Answer(status, {"content-type": "application/json"}, body)


class FakeStore:
    """Buckets in a dict, with the semantics `objects.ObjectStore` promises; remembers
    operations."""

    def __init__(self, allowed: AllowList | None = None) -> None:
        self.objects: dict[tuple[str, str], Stored] = {}
        self.tagged: dict[tuple[str, str], dict[str, str]] = {}
        self.has_credentials = True
        self.log: list[str] = []
        self.fail: dict[str, Exception] = {}
        self._allowed = allowed
        self._count = 0

    def load(self, bucket: str, key: str, body: bytes = b"x", **more: Any) -> Stored:
        etag = more.pop("etag", hashlib.md5(body, usedforsecurity=False).hexdigest())
        values = {"content_type": "image/png", "metadata": {}, "size": len(body), **more}
        stored = Stored(bucket=bucket, key=key, etag=etag, body=body, **values)
        self.objects[bucket, key] = stored
        return stored

    def get(self, bucket: str, key: str, **limits: Any) -> Stored:
        self._start("get", bucket, key)
        found = self._find(bucket, key, limits.get("etag"))
        most = limits.get("max_bytes")
        if most is not None and found.size > most:
            raise Refused(f"{found.size} bytes; the limit is {most}")
        return found

    def head(self, bucket: str, key: str, **which: Any) -> Stored:
        self._start("head", bucket, key)
        return replace(self._find(bucket, key, which.get("etag")), body=b"")

    def put(
        self,
        bucket: str,
        key: str,
        body: bytes,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
        *,
        only_new: bool = False,
        if_etag: str | None = None,
    ) -> str:
        self._start("put", bucket, key)
        present = self.objects.get((bucket, key))
        if only_new and present is not None:
            raise ObjectGone("there is one already")
        if if_etag is not None and (present is None or present.etag != if_etag):
            raise ObjectGone("another one is there")
        self._count += 1
        stored = self.load(
            bucket,
            key,
            body,
            content_type=content_type,
            metadata=dict(metadata or {}),
            etag=f"e{self._count}",
        )
        return stored.etag

    def copy(self, source: Stored, bucket: str, key: str, metadata: Mapping[str, str]) -> None:
        self._start("copy", bucket, key)
        found = self._find(source.bucket, source.key, source.etag)
        merged = {**found.metadata, **metadata}
        self.objects[bucket, key] = replace(found, bucket=bucket, key=key, metadata=merged)

    def delete(self, bucket: str, key: str) -> None:
        self._start("delete", bucket, key)
        self.objects.pop((bucket, key), None)

    def tags(self, bucket: str, key: str, version_id: str | None) -> dict[str, str]:
        self._start("tags", bucket, key)
        return dict(self.tagged.get((bucket, key), {}))

    def set_tags(
        self, bucket: str, key: str, tags: Mapping[str, str], version_id: str | None
    ) -> None:
        self._start("set_tags", bucket, key)
        self.tagged[bucket, key] = dict(tags)

    def presign(self, bucket: str, key: str, version_id: str | None, expires_s: float) -> str:
        return f"https://signed/{bucket}/{key}?e={expires_s:g}"

    def _start(self, operation: str, bucket: str, key: str) -> None:
        if self._allowed is not None:
            self._allowed.require(bucket)
        self.log.append(f"{operation} {bucket}/{key}")
        if operation in self.fail:
            raise self.fail[operation]

    def _find(self, bucket: str, key: str, etag: str | None) -> Stored:
        found = self.objects.get((bucket, key))
        if found is None:
            raise ObjectGone(f"no object {bucket}/{key}")
        if etag is not None and found.etag != etag:
            raise ObjectGone("replaced meanwhile")
        return found


def object_event(
    key: str = "a.png", *, name: str = "ObjectCreated:Put", bucket: str = "mnist", **more: Any
) -> Event:
    """The CloudEvent of an upload, as the adapter makes it."""
    record = aws_record(quote_plus(key, safe="/"), eventName=name)
    record["s3"]["bucket"]["name"] = bucket
    record["s3"]["object"] |= {
        "eTag": more.pop("etag", None),
        "sequencer": more.pop("sequencer", None),
    }
    record |= more
    return normalise({}, json.dumps(record).encode()).events[0]
