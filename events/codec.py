"""CloudEvents over HTTP, both ways. The only module that imports the CloudEvents SDK.

The SDK maps headers and JSON to attributes and back; three things are ours, each because the SDK
(2.2.0) does otherwise: data stays the bytes it was (the SDK decodes and re-encodes JSON), `time`
stays the text it was (the SDK's datetime drops nanoseconds), and a missing or broken attribute is
an error (the SDK invents an `id` and lets invalid UTF-8 through).
tests/contract/test_events_codec.py holds both against each other. Source: CloudEvents 1.0.2, HTTP
protocol binding 3.1-3.3, JSON format 3.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings import http as sdk_http
from cloudevents.core.formats.json import JSONFormat

from functions.wire.headers import lower_text

from .errors import InvalidEvent, UnsupportedMedia
from .event import Event, check, is_json_media

STRUCTURED = "application/cloudevents"
STRUCTURED_JSON = "application/cloudevents+json"
BATCH = "application/cloudevents-batch"
BATCH_JSON = "application/cloudevents-batch+json"

NO_EVENT = "not a CloudEvent: neither `ce-` headers nor an application/cloudevents content type"

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
Message = tuple[dict[str, str], bytes]
"""Headers and body."""


_VERBATIM = re.compile(r"[!#$&-~]*")
"""HTTP binding 3.1.3.2: what needs no percent-encoding."""


class _Verbatim(JSONFormat):
    """The SDK's JSON format, except that data in binary mode passes through as bytes."""

    def read_data(self, body: bytes, datacontenttype: str | None) -> bytes | None:
        return body or None

    def write_data(self, data: Any, datacontenttype: str | None) -> bytes:
        return data or b""


class _View:
    """An `Event` as the SDK wants to see it."""

    __slots__ = ("_event",)

    def __init__(self, event: Event) -> None:
        self._event = event

    def get_attributes(self) -> dict[str, Any]:
        # HTTP binding 3.1.3.1 wants canonical text: "true", not Python's "True".
        return {
            name: ("true" if value else "false") if isinstance(value, bool) else value
            for name, value in self._event.attributes.items()
        }

    def get_data(self) -> bytes | None:
        return self._event.data


_FORMAT = _Verbatim()


class Fields(dict[str, str]):
    """Header fields by names in lower case: what `lower` makes, once for all who ask."""


def lower(headers: Headers) -> Fields:
    """Header names in lower case; of a repeated header the last value counts, but for Prefer,
    which is a list (RFC 7240)."""
    if isinstance(headers, Fields):
        return headers
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return _fields([(name.lower(), value) for name, value in pairs])


def lower_wire(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    """The same of fields as they travel."""
    return _fields([(lower_text(name), value.decode("latin-1")) for name, value in headers])


def _fields(pairs: Sequence[tuple[str, str]]) -> Fields:
    result = Fields(pairs)
    if len(result) < len(pairs) and "prefer" in result:
        result["prefer"] = ", ".join([value for name, value in pairs if name == "prefer"])
    return result


def mode_of(headers: Mapping[str, str]) -> str | None:
    """The mode "batch", "structured" or "binary"; None: no CloudEvent in sight (names
    lower-case)."""
    content_type = headers.get("content-type", "")
    if content_type != "application/json":
        content_type = content_type.strip().lower()
        if content_type.startswith(BATCH):
            return "batch"
        if content_type.startswith(STRUCTURED):
            return "structured"
    if "ce-id" in headers or any(name.startswith("ce-") for name in headers):
        return "binary"
    return None


def decode(headers: Headers, body: bytes) -> list[Event]:
    """The events of one HTTP message (one, except in batch mode).

    Raises `InvalidEvent` (400) for anything that is not valid CloudEvents 1.0 and
    `UnsupportedMedia` (415) for an event format other than JSON.
    """
    lowered = lower(headers)
    mode = mode_of(lowered)
    if mode is None:
        raise InvalidEvent(NO_EVENT)
    if mode == "binary":
        return [_decode_binary(lowered, body)]
    _require_json(lowered["content-type"], BATCH if mode == "batch" else STRUCTURED)
    value = _parse_json(body)
    if mode == "structured":
        return [from_json(value)]
    return [from_json(item) for item in _list(value)]


def decode_batch(headers: Headers, body: bytes) -> tuple[list[Event], list[str]]:
    """The valid events of a batch, and what is wrong with the others. Raises as `decode`."""
    _require_json(lower(headers)["content-type"], BATCH)
    found: list[Event] = []
    problems: list[str] = []
    for index, item in enumerate(_list(_parse_json(body))):
        try:
            found.append(from_json(item))
        except InvalidEvent as error:
            problems.append(f"batch[{index}]: {error}")
    return found, problems


def encode_binary(event: Event) -> tuple[dict[str, str], bytes]:
    """Headers and body of a binary-mode message; header values are percent-encoded ASCII."""
    headers = _plain_headers(event.attributes)
    if headers is not None:
        return headers, event.data or b""
    message = sdk_http.to_binary(cast("BaseCloudEvent", _View(event)), _FORMAT)
    return message.headers, message.body


def _plain_headers(attributes: Mapping[str, Any]) -> dict[str, str] | None:
    """The headers of attributes that go out as they are; None: some value needs encoding.

    An event is encoded three times between upload and reply. The SDK quotes every value, which
    costs 40 us an event; nearly no value has anything to quote.
    """
    try:
        text = "".join(attributes.values())
    except TypeError:  # not all are strings
        return None
    if _VERBATIM.fullmatch(text) is None:
        return None
    headers = {f"ce-{name}": value for name, value in attributes.items()}
    content_type = headers.pop("ce-datacontenttype", None)
    if content_type is not None:
        headers["content-type"] = content_type
    return headers


def encode_structured(event: Event) -> tuple[dict[str, str], bytes]:
    """Headers and body of a structured JSON message."""
    return {"content-type": STRUCTURED_JSON}, json.dumps(to_json(event)).encode()


def encode_batch(events: Sequence[Event]) -> tuple[dict[str, str], bytes]:
    """Headers and body of a JSON batch."""
    return {"content-type": BATCH_JSON}, json.dumps([to_json(event) for event in events]).encode()


def to_json(event: Event) -> dict[str, Any]:
    """The JSON event format; data becomes a JSON value, text or base64 by its media type."""
    result: dict[str, Any] = dict(event.attributes)
    if event.data is None:
        return result
    try:
        if is_json_media(event.content_type):
            result["data"] = json.loads(event.data)
        elif (event.content_type or "").lower().startswith("text/"):
            result["data"] = event.data.decode("utf-8")
        else:
            result["data_base64"] = base64.b64encode(event.data).decode()
    except ValueError:  # labelled JSON or text, but is not: the bytes still travel
        result["data_base64"] = base64.b64encode(event.data).decode()
    return result


def from_json(value: Any) -> Event:
    """One event of the JSON format (already parsed). Raises `InvalidEvent`."""
    if not isinstance(value, dict):
        raise InvalidEvent("a structured CloudEvent must be a JSON object")
    attributes = {name: item for name, item in value.items() if name not in ("data", "data_base64")}
    if value.get("data_base64") is not None and "data" in value:
        raise InvalidEvent("a structured CloudEvent must not have both `data` and `data_base64`")
    checked = check(attributes)
    content_type = checked.get("datacontenttype")
    data: bytes | None = None
    if value.get("data_base64") is not None:
        data = _from_base64(value["data_base64"])
    elif "data" in value:
        item = value["data"]
        if is_json_media(None if content_type is None else str(content_type)):
            data = json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
            checked.setdefault("datacontenttype", "application/json")
        elif isinstance(item, str):
            data = item.encode("utf-8")
        elif item is not None:
            raise InvalidEvent(f"`data` of type {content_type!r} must be a JSON string")
    return Event(attributes=checked, data=data)


def _decode_binary(headers: Mapping[str, str], body: bytes) -> Event:
    if "ce-datacontenttype" in headers:
        raise InvalidEvent(
            "binary mode carries the data's type in Content-Type, not ce-datacontenttype"
        )
    # `time` does not go through the SDK: it would come back as a datetime without its nanoseconds.
    attributes: dict[str, Any] = {}
    for name, value in headers.items():
        if name.startswith("ce-"):
            attributes[name[3:]] = _header_text(name, value)
    content_type = headers.get("content-type")
    if content_type:
        attributes["datacontenttype"] = content_type
    return Event(attributes=check(attributes), data=body or None)


def _header_text(name: str, value: str) -> str:
    """HTTP binding 3.1.3.2: unquote a quoted string, then percent-decode once; UTF-8 must be
    valid."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    if "%" not in value and value.isascii():
        return value
    try:
        # WSGI and most servers hand header bytes over as latin-1; raw UTF-8 senders exist (Ceph).
        raw = value.encode("latin-1")
    except UnicodeEncodeError:
        raw = value.encode("utf-8", "surrogateescape")
    try:
        return unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidEvent(f"header {name} is not valid UTF-8 after percent-decoding") from error


def _require_json(content_type: str, family: str) -> None:
    media = content_type.split(";", 1)[0].strip().lower()
    if media not in (family + "+json", family):
        raise UnsupportedMedia(f"event format {media!r} is not supported; send {family}+json")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidEvent("a CloudEvents batch must be a JSON array")
    return value


def _parse_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidEvent(f"the body is not JSON: {error}") from error


def _from_base64(text: Any) -> bytes:
    if not isinstance(text, str):
        raise InvalidEvent("`data_base64` must be a string")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidEvent(f"`data_base64` is not base64: {error}") from error
