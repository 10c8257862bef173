"""The object a CloudEvent is about: one view over the records and types of all producers. Pure.

Accepted types: `com.amazonaws.s3.ObjectCreated:*` (ours, and the CloudEvents adapter's),
`com.amazonaws.s3:ObjectCreated:*` and `com.amazonaws.ObjectCreated:*` (Ceph, old and new).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import InvalidEvent
from .event import Event, is_json_media
from .sources import keys, s3

SWEPT_FLOOR = "sweptfrom"
"""Extension of an event a sweep made: the sequencer of the beginning of the second of the write."""

_PREFIXES = ("com.amazonaws.s3.", "com.amazonaws.s3:", "com.amazonaws.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """Which object, which version of it, and what happened to it."""

    bucket: str
    key: str
    """Decoded: what the S3 API wants."""
    raw_key: str
    """As the producer wrote it; the other spelling to try if `key` is not found."""
    event_name: str
    """`ObjectCreated:Put` ...; without any `s3:`."""
    version_id: str | None = None
    etag: str | None = None
    sequencer: str | None = None
    size: int | None = None
    content_type: str | None = None

    @property
    def is_created(self) -> bool:
        return self.event_name.startswith("ObjectCreated:")

    @property
    def is_tagging(self) -> bool:
        return self.event_name.startswith("ObjectTagging:")

    @property
    def is_removed(self) -> bool:
        return self.event_name.startswith("ObjectRemoved:")

    def identity(self, scope: str) -> str:
        """What makes two notifications speak of the same upload, whatever their transport ids.

        Bucket, key, version or entity tag, sequencer, and created/removed, for one trigger
        (`scope`: its source): hashed, so it is safe as a key of any store.
        """
        action = self.event_name.partition(":")[0]
        version = self.version_id or self.etag or ""
        return digest(scope, self.bucket, self.key, version, self.sequencer or "", action)


def digest(*parts: str) -> str:
    """A name of these parts that is fit for any store."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()


def name_of(event_type: str) -> str | None:
    """The S3 event name in a CloudEvents type; None: not a storage event."""
    for prefix in _PREFIXES:
        if event_type.startswith(prefix):
            name = s3.event_name(event_type[len(prefix) :])
            if name.startswith("Object") and ":" in name:
                return name
    return None


def object_of(event: Event) -> ObjectRef | None:
    """The object an event is about; None for an event that is not about an object.

    Raises `InvalidEvent` when the type says "object" and the data does not say which.
    """
    name = name_of(event.type)
    if name is None:
        return None
    if event.data is None or not is_json_media(event.content_type):
        raise InvalidEvent(f"an event of type {event.type} must carry its S3 record as JSON data")
    record = event.json()
    if isinstance(record, dict) and isinstance(record.get("Records"), list):
        if len(record["Records"]) != 1:  # Ceph sends one; several would need several CloudEvents
            raise InvalidEvent(f"expected one S3 record in the event, got {len(record['Records'])}")
        record = record["Records"][0]
    inside = record.get("s3") if isinstance(record, dict) else None
    inside = inside if isinstance(inside, dict) else {}
    bucket, item = inside.get("bucket"), inside.get("object")
    if not isinstance(bucket, dict) or not isinstance(item, dict):
        raise InvalidEvent("the event's S3 record has no s3.bucket and s3.object")
    raw_key = item.get("key")
    if not isinstance(bucket.get("name"), str) or not isinstance(raw_key, str) or not raw_key:
        raise InvalidEvent("the event's S3 record has no bucket name or no key")
    size = item.get("size")
    return ObjectRef(
        bucket=bucket["name"],
        key=keys.decode(raw_key, str(record.get("eventSource", ""))),
        raw_key=raw_key,
        event_name=name,
        version_id=_text(item, "versionId"),
        etag=(_text(item, "eTag") or _text(item, "etag") or "").strip('"') or None,
        sequencer=_text(item, "sequencer"),
        size=int(str(size)) if str(size).isdecimal() else None,
        content_type=_text(item, "contentType"),
    )


def _text(item: Mapping[str, Any], name: str) -> str | None:
    value = item.get(name)
    return value if isinstance(value, str) and value else None
