"""S3 event records (AWS, MinIO, Ceph, RustFS, LocalStack) and EventBridge to CloudEvents.

Mapping: CloudEvents "Amazon S3" adapter, with these decisions. `subject` is the decoded key (usable
in prefix and suffix filters; the raw key stays in the data). `type` never contains the `s3:` prefix
some producers put into eventName. `id` is request id and host id plus a digest of key, version and
sequencer, because one request can create several records (DeleteObjects).
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from events import event as events
from events.errors import InvalidEvent
from events.event import Event

from . import keys

TYPE_PREFIX = "com.amazonaws.s3."

_REASONS = {
    "PutObject": "Put",
    "POST Object": "Post",
    "CopyObject": "Copy",
    "CompleteMultipartUpload": "CompleteMultipartUpload",
}
_NAMES = {
    "Object Tags Added": "ObjectTagging:Put",
    "Object Tags Deleted": "ObjectTagging:Delete",
    "Object ACL Updated": "ObjectAcl:Put",
    "Object Restore Initiated": "ObjectRestore:Post",
    "Object Restore Completed": "ObjectRestore:Completed",
    "Object Restore Expired": "ObjectRestore:Delete",
    "Object Storage Class Changed": "LifecycleTransition",
    "Object Access Tier Changed": "IntelligentTiering",
}
"""EventBridge's detail-types beside Object Created and Object Deleted, and S3's names for them."""

_NOT_CREATED = {
    "ObjectCreated:PutTagging": "ObjectTagging:Put",
    "ObjectCreated:DeleteTagging": "ObjectTagging:Delete",
    "ObjectCreated:PutRetention": "ObjectRetention:Put",
    "ObjectCreated:PutLegalHold": "ObjectLegalHold:Put",
}
"""What MinIO files under ObjectCreated although no content is new; a trigger that tags its input
would wake itself for ever."""


def event_name(name: str) -> str:
    """An eventName without the `s3:` that MinIO and old Ceph releases put in front; in S3's words
    where MinIO has others."""
    name = name.removeprefix("s3:")
    return _NOT_CREATED.get(name, name)


def from_record(record: Any) -> Event:
    """One element of `Records`. Raises `InvalidEvent` naming the missing member."""
    name = event_name(_text(record, "eventName"))
    source = _text(record, "eventSource", default="aws:s3")
    bucket = _text(record, "s3", "bucket", "name")
    raw_key = _text(record, "s3", "object", "key")
    if not name or not bucket or not raw_key:
        raise InvalidEvent("an S3 record needs eventName, s3.bucket.name and s3.object.key")
    region = _text(record, "awsRegion", default="")
    object_ = record["s3"]["object"]
    responses = record.get("responseElements")
    responses = responses if isinstance(responses, dict) else {}
    transport = ".".join(
        str(responses[part]) for part in ("x-amz-request-id", "x-amz-id-2") if responses.get(part)
    )
    time = _text(record, "eventTime", default="")
    identity = (bucket, raw_key, _identity(object_), name, "" if transport else time)
    return events.make_json(
        id=f"{transport}.{_digest(*identity)}" if transport else _digest(*identity, size=32),
        source=f"{source}.{region}.{bucket}",
        type=TYPE_PREFIX + name,
        subject=_subject(keys.decode(raw_key, source), raw_key),
        time=time if events.is_timestamp(time) else None,
        value=record,
    )


def from_event_bridge(envelope: Mapping[str, Any]) -> Event:
    """An EventBridge `aws.s3` event, re-shaped into the same CloudEvent as a record; keys are
    raw."""
    detail = envelope["detail"]
    detail_type = str(envelope.get("detail-type"))
    name = _event_bridge_name(detail_type, detail)
    bucket = _text(detail, "bucket", "name")
    key = _text(detail, "object", "key")
    region = _text(envelope, "region", default="")
    time = _text(envelope, "time", default="")
    object_ = detail["object"]
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws.s3",
        "awsRegion": region,
        "eventTime": time,
        "eventName": name,
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": bucket},
            "object": {
                "key": key,
                "size": object_.get("size"),
                "eTag": object_.get("etag"),
                "versionId": object_.get("version-id"),
                "sequencer": object_.get("sequencer"),
            },
        },
        "eventBridge": envelope,
    }
    return events.make_json(
        id=_text(envelope, "id", default="")
        or _digest(bucket, key, _identity(object_), name, time),
        source=f"aws:s3.{region}.{bucket}",
        type=TYPE_PREFIX + name,
        subject=_subject(key),
        time=time if events.is_timestamp(time) else None,
        value=record,
    )


def _subject(*spellings: str) -> str | None:
    """The first spelling of the key that an attribute may hold: keys may have line breaks."""
    return next((text for text in spellings if events.is_text(text)), None)


def _event_bridge_name(detail_type: str, detail: Mapping[str, Any]) -> str:
    """S3's own event name for an EventBridge event. Raises `InvalidEvent` for other services'."""
    reason = _text(detail, "reason", default="")
    if detail_type == "Object Created":
        return f"ObjectCreated:{_REASONS.get(reason, reason.replace(' ', '') or 'Put')}"
    if detail_type == "Object Deleted":
        kind = "LifecycleExpiration" if reason == "Lifecycle Expiration" else "ObjectRemoved"
        marker = detail.get("deletion-type") == "Delete Marker Created"
        return f"{kind}:{'DeleteMarkerCreated' if marker else 'Delete'}"
    if detail_type not in _NAMES:
        raise InvalidEvent(f"EventBridge detail-type {detail_type!r} is not an S3 object event")
    return _NAMES[detail_type]


def is_test_message(body: Mapping[str, Any]) -> bool:
    """`s3:TestEvent`, sent when a notification is configured: flat, no Records. Acknowledge,
    ignore."""
    return body.get("Event") == "s3:TestEvent"


def is_event_bridge(body: Mapping[str, Any]) -> bool:
    return isinstance(body.get("detail"), dict) and "detail-type" in body


def is_record(body: Mapping[str, Any]) -> bool:
    return isinstance(body.get("s3"), dict) and "eventName" in body


def _identity(object_: Any) -> str:
    """Version, then entity tag, then sequencer: what tells two uploads of one key apart."""
    if not isinstance(object_, dict):
        return ""
    names = ("versionId", "version-id", "eTag", "etag", "sequencer")
    return "|".join(str(object_[name]) for name in names if object_.get(name))


def _digest(*parts: str, size: int = 16) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:size]


def _text(value: Any, *path: str, default: str | None = None) -> str:
    for index, name in enumerate(path):
        if not isinstance(value, dict) or value.get(name) is None:
            if default is not None:
                return default
            raise InvalidEvent(f"the S3 record has no {'.'.join(path[: index + 1])}")
        value = value[name]
    if not isinstance(value, str):
        raise InvalidEvent(f"{'.'.join(path)} of the S3 record must be a string")
    return value
