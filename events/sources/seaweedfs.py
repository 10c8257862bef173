"""SeaweedFS filer webhooks to the same CloudEvents as S3 records.

SeaweedFS has no S3 bucket notifications; its filer reports every change of every file, so this
module must also say what is *no* object event: directories, parts of multipart uploads, and
updates that touch only metadata (tagging an object is an `update` with the same chunks). Keys are
raw paths. Shapes observed on SeaweedFS 4.48; tests/unit/events/test_events_sources.py keeps them.
"""

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from events.errors import InvalidEvent
from events.event import Event

from . import s3

ROOT = "/buckets/"
SOURCE = "seaweedfs:s3"
_HIDDEN = (".uploads", ".versions", ".tmp")
"""Directories the S3 gateway keeps for itself inside a bucket."""

_VERSIONS = ".versions"
"""In a bucket with versions, version ID of KEY is the file `KEY.versions/v_ID`."""


def is_notification(body: Mapping[str, Any]) -> bool:
    """Of any file of the filer: also of those that are no S3 objects."""
    return "event_type" in body and str(body.get("key")).startswith("/")


def to_event(body: Mapping[str, Any]) -> Event | None:
    """The object event of a filer notification; None: nothing happened to an object's content."""
    if not str(body["key"]).startswith(ROOT):
        return None
    message = body.get("message")
    if not isinstance(message, dict):
        raise InvalidEvent("a SeaweedFS notification needs a `message` object")
    old, new = _entry(message, "old_entry"), _entry(message, "new_entry")
    kind = body["event_type"]
    path = str(body["key"])[len(ROOT) :]
    if kind == "rename" and new:
        parent = str(message.get("new_parent_path", "")).rstrip("/")
        path = f"{parent}/{new.get('name', '')}"[len(ROOT) :]
    bucket, _, key = path.partition("/")
    entry = new or old
    version = _extended(entry, "Seaweed-X-Amz-Version-Id")
    if version and key.endswith(f"{_VERSIONS}/v_{version}"):
        key = key.removesuffix(f"{_VERSIONS}/v_{version}")
    if not key or entry.get("is_directory") or _is_hidden(key):
        return None
    marker = _extended(entry, "Seaweed-X-Amz-Delete-Marker") == "true"
    name = _event_name(kind, old, new)
    if marker:
        name = "ObjectRemoved:DeleteMarkerCreated" if kind == "create" else None
    if name is None:
        return None
    attributes = entry.get("attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    metadata = _user_metadata(entry)
    record = {
        "eventVersion": "2.1",
        "eventSource": SOURCE,
        "awsRegion": "",
        "eventTime": _time(entry, attributes),
        "eventName": name,
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {
                "key": key,
                "size": attributes.get("file_size", 0),
                "eTag": _etag(entry, attributes),
                "contentType": attributes.get("mime"),
                **({"userMetadata": metadata} if metadata else {}),
                "versionId": version,
                # A delete carries the old entry: the same sequencer as the upload it undoes. The
                # time of a delete marker is known to the second only: not good enough for an order.
                "sequencer": None if marker else f"{_nanoseconds(entry, attributes):016X}",
            },
        },
    }
    return s3.from_record(record)


def _event_name(kind: Any, old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    if kind == "create":
        return "ObjectCreated:Put"
    if kind == "delete":
        return "ObjectRemoved:Delete"
    if kind == "rename":
        return "ObjectCreated:Copy"
    if kind != "update":
        raise InvalidEvent(f"unknown SeaweedFS event_type {kind!r}")
    if _content(old) != _content(new):
        return "ObjectCreated:Put"
    tagged = _tags(old) != _tags(new)
    return "ObjectTagging:Put" if tagged else None


def _entry(message: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    entry = message.get(name)
    return entry if isinstance(entry, dict) else {}


def _is_hidden(key: str) -> bool:
    return any(part in _HIDDEN for part in key.split("/")[:-1])


def _content(entry: Mapping[str, Any]) -> object:
    """What changes when, and only when, the bytes were written again."""
    chunks = entry.get("chunks")
    if isinstance(chunks, list) and chunks:
        return [
            (str(chunk.get("fid")) if chunk.get("fid") else chunk.get("file_id"), chunk.get("size"))
            for chunk in chunks
            if isinstance(chunk, dict)
        ]
    attributes = entry.get("attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    return (attributes.get("md5"), attributes.get("mtime"), entry.get("content"))


def _tags(entry: Mapping[str, Any]) -> dict[str, Any]:
    extended = entry.get("extended")
    if not isinstance(extended, dict):
        return {}
    return {name: value for name, value in extended.items() if name.startswith("X-Amz-Tagging")}


def _extended(entry: Mapping[str, Any], name: str) -> str | None:
    extended = entry.get("extended")
    value = extended.get(name) if isinstance(extended, dict) else None
    if not isinstance(value, str):
        return None
    try:
        return base64.b64decode(value, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None


def _user_metadata(entry: Mapping[str, Any]) -> dict[str, str]:
    """The object's `x-amz-meta-` fields, as MinIO sends them along."""
    extended = entry.get("extended")
    names = extended if isinstance(extended, dict) else {}
    found = {name: _extended(entry, name) for name in names if name.startswith("X-Amz-Meta-")}
    return {name: value for name, value in found.items() if value is not None}


def _etag(entry: Mapping[str, Any], attributes: Mapping[str, Any]) -> str | None:
    tag = _extended(entry, "Seaweed-X-Amz-ETag")
    if tag:
        return tag.strip('"')
    try:
        return base64.b64decode(str(attributes.get("md5", "")), validate=True).hex() or None
    except (binascii.Error, ValueError):
        return None


def _nanoseconds(entry: Mapping[str, Any], attributes: Mapping[str, Any]) -> int:
    """When the content was written, in ns since 1970, as exactly as the notification says."""
    chunks = entry.get("chunks")
    times = [
        int(chunk["modified_ts_ns"])
        for chunk in (chunks if isinstance(chunks, list) else [])
        if isinstance(chunk, dict) and isinstance(chunk.get("modified_ts_ns"), int)
    ]
    if times:
        return max(0, *times)
    seconds, rest = attributes.get("mtime"), attributes.get("mtime_ns")
    seconds = seconds if isinstance(seconds, int) else 0
    return max(0, seconds * 1_000_000_000 + (rest if isinstance(rest, int) else 0))


def _time(entry: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    seconds, nanoseconds = divmod(_nanoseconds(entry, attributes), 1_000_000_000)
    try:
        stamp = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return ""
    return f"{stamp.isoformat()[:19]}.{nanoseconds:09d}Z"
