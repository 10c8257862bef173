"""How many triggers lie between an upload and what is at hand: the guard against loops.

Two triggers that write into each other's watched prefixes would keep each other busy for ever; none
of them sees that it is its own cause. So everything a sink makes says how many triggers it took:
objects in their metadata, reply events in an extension, and tags (which cannot carry metadata) in a
tag of their own. A sink refuses what `maxHops` triggers have made already. Pure.

The count of an event is the largest that anything about it says: the event itself, the record's
copy of the metadata (MinIO, Ceph, SeaweedFS send it along), the object when it is fetched.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from .errors import Refused
from .event import Event

ATTRIBUTE = "turnouthops"
"""Extension of reply events."""

MADE_BY = "turnout-trigger"
"""User metadata on everything a sink writes: NAMESPACE/NAME of the trigger that wrote it."""

HOPS = "turnout-hops"
"""User metadata on everything a sink writes; also the name of the tag that speaks for tags."""

_META = "x-amz-meta-"
_MAX_DIGITS = 6


def of_event(event: Event, record: Any = None) -> int:
    """What the event says of itself, and its S3 record of the object's metadata."""
    return max(_number(event.attributes.get(ATTRIBUTE)), of_metadata(_metadata(record)))


def of_metadata(metadata: Mapping[str, str]) -> int:
    """What an object's user metadata says (names without `x-amz-meta-`)."""
    return _number(metadata.get(HOPS))


def require(hops: int, most: int, maker: str, what: str) -> None:
    """Raises `Refused` for what has been through `most` triggers already; `maker`: the last one."""
    if hops < most:
        return
    by = f", the last one {maker}" if maker else ""
    raise Refused(
        f"{what} is the work of {hops} triggers one after the other{by}: probably a loop of "
        f"triggers that write what the others watch. maxHops is {most}; keep results out of "
        "watched prefixes, or raise it if so long a chain is meant"
    )


def tag_mark(hops: int, maker: str, tags: Mapping[str, str]) -> str:
    """The value of the tag that goes with these tags, which `maker` sets."""
    return f"{hops} {maker} {_digest(tags)}"


def of_tags(tags: Mapping[str, str]) -> tuple[int, str]:
    """(count, maker) of tags; (0, "") once anybody else has changed them since."""
    hops, _, rest = tags.get(HOPS, "").partition(" ")
    maker, _, digest = rest.partition(" ")
    return (_number(hops), maker) if digest and digest == _digest(tags) else (0, "")


def _digest(tags: Mapping[str, str]) -> str:
    lines = [f"{name}\0{value}" for name, value in sorted(tags.items()) if name != HOPS]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "replace")).hexdigest()[:12]


def _metadata(record: Any) -> dict[str, str]:
    """User metadata in an S3 record: MinIO's map, or Ceph's list of key and val."""
    if isinstance(record, dict) and isinstance(record.get("Records"), list):
        record = record["Records"][0] if record["Records"] else None
    s3 = record.get("s3") if isinstance(record, dict) else None
    item = s3.get("object") if isinstance(s3, dict) else None
    if not isinstance(item, dict):
        return {}
    given, listed = item.get("userMetadata"), item.get("metadata")
    pairs = list(given.items()) if isinstance(given, dict) else []
    if isinstance(listed, list):
        pairs += [(one.get("key"), one.get("val")) for one in listed if isinstance(one, dict)]
    return {str(name).lower().removeprefix(_META): str(value) for name, value in pairs}


def _number(value: Any) -> int:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else 0
