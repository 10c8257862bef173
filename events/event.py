"""The CloudEvent as this unit holds it: context attributes and the data's bytes, untouched.

Attribute values keep CloudEvents types that matter to filters (string, integer, boolean); `time`
stays the text the producer wrote, because reformatting loses nanoseconds and offsets. No I/O here.
Source: CloudEvents 1.0.2, "Context Attributes"; limits of names from "Naming Conventions".
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .errors import InvalidEvent

AttributeValue = str | int | bool

SPEC_VERSION = "1.0"
REQUIRED = ("id", "source", "specversion", "type")
STRING_ATTRIBUTES = frozenset(
    {"id", "source", "specversion", "type", "subject", "time", "dataschema", "datacontenttype"}
)
MAX_INTEGER = 2**31 - 1
"""CloudEvents integers are 32-bit signed."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_NAME = re.compile(r"[a-z0-9]+\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}):(\d{2})(\.\d+)?([Zz]|[+-]\d{2}:\d{2})\Z"
)
_JSON_MEDIA = re.compile(r"[^/;\s]+/(?:[^/;\s]+\+)?json\s*(?:;|\Z)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One CloudEvent. `data` is the payload as on the wire; None means the event has no data."""

    attributes: Mapping[str, AttributeValue]
    data: bytes | None = None
    _json: list[Any] = field(default_factory=list, repr=False, compare=False)

    @property
    def id(self) -> str:
        return str(self.attributes["id"])

    @property
    def source(self) -> str:
        return str(self.attributes["source"])

    @property
    def type(self) -> str:
        return str(self.attributes["type"])

    @property
    def subject(self) -> str | None:
        value = self.attributes.get("subject")
        return None if value is None else str(value)

    @property
    def content_type(self) -> str | None:
        value = self.attributes.get("datacontenttype")
        return None if value is None else str(value)

    def json(self) -> Any:
        """The data as a JSON value (parsed once). Raises `InvalidEvent` if it is not JSON."""
        if not self._json:
            try:
                self._json.append(json.loads(self.data or b"null"))
            except (ValueError, RecursionError) as error:
                raise InvalidEvent(f"the event's data is not JSON: {error}") from error
        return self._json[0]

    def with_attributes(self, **changes: AttributeValue | None) -> "Event":
        """A copy with attributes replaced; None removes one."""
        merged = {**self.attributes, **changes}
        kept = {name: value for name, value in merged.items() if value is not None}
        return Event(attributes=kept, data=self.data)


def make(
    *, id: str, source: str, type: str, data: bytes | None = None, **more: AttributeValue | None
) -> Event:
    """A checked event; attributes given as None or "" are left out (CloudEvents has no empty
    ones)."""
    return Event(attributes=_attributes(id, source, type, more), data=data)


def make_json(
    *, id: str, source: str, type: str, value: Any, **more: AttributeValue | None
) -> Event:
    """The same, of a JSON value at hand: whoever asks for it need not parse the data again."""
    data = compact_json(value)
    more["datacontenttype"] = "application/json"
    return Event(attributes=_attributes(id, source, type, more), data=data, _json=[value])


def _attributes(
    id: str, source: str, type: str, more: Mapping[str, AttributeValue | None]
) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "specversion": SPEC_VERSION,
        "id": id,
        "source": source,
        "type": type,
    }
    attributes.update({name: value for name, value in more.items() if value not in (None, "")})
    return check(attributes)


def compact_json(value: Any) -> bytes:
    """Compact UTF-8 JSON."""
    return _encode(value).encode("utf-8", "replace")


def check(attributes: Mapping[str, Any]) -> dict[str, AttributeValue]:
    """Validated attributes, nulls dropped. Raises `InvalidEvent` with *all* problems in one
    message."""
    if _is_plain(attributes):
        return dict(attributes)
    problems: list[str] = []
    result: dict[str, AttributeValue] = {}
    for name, value in attributes.items():
        if value is None:  # JSON format 2.2: null is the same as absent
            continue
        problem = _check_one(name, value)
        if problem:
            problems.append(problem)
        else:
            result[name] = value
    for name in REQUIRED:
        if name not in attributes or attributes[name] is None:
            problems.append(f"required attribute {name!r} is missing")
    if problems:
        raise InvalidEvent("not a valid CloudEvent: " + "; ".join(sorted(problems)))
    return result


def _is_plain(attributes: Mapping[str, Any]) -> bool:
    """Whether everything is right at one look: the required ones and printable ASCII, as nearly
    every event has it. False says nothing; then each attribute is looked at."""
    values = attributes.values()
    try:
        text = "".join(values)
    except TypeError:  # not all are strings
        return False
    time = attributes.get("time")
    return (
        text.isascii()
        and text.isprintable()
        and "" not in values
        and _NAME.match("".join(attributes)) is not None
        and "" not in attributes
        and "data" not in attributes
        and attributes.get("specversion") == SPEC_VERSION
        and "id" in attributes
        and "source" in attributes
        and "type" in attributes
        and (time is None or is_timestamp(time))
    )


def _check_one(name: str, value: Any) -> str | None:
    if not _NAME.match(name):
        return f"attribute name {name!r} must be lower-case letters and digits only"
    if name == "data":
        return "an attribute must not be called 'data'"
    if name in STRING_ATTRIBUTES:
        if not isinstance(value, str):
            return f"attribute {name!r} must be a string, not {type(value).__name__}"
        if not value:
            return f"attribute {name!r} must not be empty"
        if name == "specversion" and value != SPEC_VERSION:
            return f"specversion {value!r} is not supported (expected {SPEC_VERSION!r})"
        if name == "time" and not is_timestamp(value):
            return f"time {value!r} is not an RFC 3339 timestamp with an offset"
    elif isinstance(value, (bool, str)):
        pass
    elif isinstance(value, int):
        if not -MAX_INTEGER - 1 <= value <= MAX_INTEGER:
            return f"attribute {name!r} is outside 32-bit integers"
    else:
        return (
            f"attribute {name!r} must be a string, integer or boolean, not {type(value).__name__}"
        )
    if isinstance(value, str) and not value.isascii() and _has_bad_code_point(value):
        return f"attribute {name!r} holds characters CloudEvents forbids"
    if isinstance(value, str) and _CONTROL.search(value):
        return f"attribute {name!r} holds control characters"
    return None


def is_text(text: str) -> bool:
    """Whether an attribute may hold it (CloudEvents type system, "String")."""
    return not _CONTROL.search(text) and (text.isascii() or not _has_bad_code_point(text))


def _has_bad_code_point(text: str) -> bool:
    """CloudEvents type system, "String": no C1 controls, surrogates or non-characters."""
    for char in text:
        code = ord(char)
        if 0x80 <= code <= 0x9F or 0xD800 <= code <= 0xDFFF or 0xFDD0 <= code <= 0xFDEF:
            return True
        if code & 0xFFFE == 0xFFFE:
            return True
    return False


def is_timestamp(text: str) -> bool:
    """RFC 3339, any number of fraction digits, leap seconds allowed."""
    found = _RFC3339.match(text)
    if found is None:
        return False
    date, minutes, seconds, _, offset = found.groups()
    if seconds == "60":
        seconds = "59"
    try:
        datetime.fromisoformat(f"{date}T{minutes}:{seconds}{offset.upper().replace('Z', '+00:00')}")
    except ValueError:
        return False
    return True


def is_json_media(content_type: str | None) -> bool:
    """Whether data of this type is a JSON value (`*/json`, `*/*+json`); absent means JSON."""
    if content_type is None or content_type == "application/json":
        return True
    return _JSON_MEDIA.match(content_type.strip()) is not None
