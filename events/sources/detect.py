"""Which producer is speaking? Decided by the structure of the body, never by headers or a setting.

Order matters: a CloudEvent may wrap a notification (IntegrationSource puts an SQS body into
`data`, a KafkaSource MinIO's), an SNS message wraps one as text, and each may wrap several records.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from events import codec
from events.errors import InvalidEvent
from events.event import Event, is_json_media

from . import s3, seaweedfs

MAX_NESTING = 4
"""Envelopes inside envelopes: SQS in SNS in CloudEvent is three; more is an attack or a mistake."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """An SNS subscription asks to be confirmed: fetch `url` once its signature has been checked."""

    url: str
    message: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """What one request said. No events and no handshake: nothing to do (a test message, a
    directory)."""

    shape: str
    """Producer's shape, for logs and metrics: records, sns, eventbridge, seaweedfs, cloudevent
    ..."""
    events: tuple[Event, ...] = ()
    handshake: Handshake | None = None
    sns: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    """The SNS envelopes, where there were any: their signatures cover everything inside."""
    problems: tuple[str, ...] = ()
    """Records beside the events that cannot be read: the sender has to hear of them."""


def normalise(headers: codec.Headers, body: bytes) -> Notification:
    """The CloudEvents of one HTTP request or queue message. Raises `InvalidEvent`."""
    lowered = codec.lower(headers)
    mode = codec.mode_of(lowered)
    if mode == "batch":
        return _from_cloud_events(*codec.decode_batch(lowered, body), mode)
    if mode is not None:
        try:
            found = codec.decode(lowered, body)
        except InvalidEvent:
            if mode != "binary" or not lowered.get("ce-source", "").startswith("ceph:s3"):
                raise
            # Ceph writes the key into ce-subject as it is: a key with a `%` may be no valid header.
            return replace(_from_value(_parse(body), 1), shape="cloudevent-binary")
        return _from_cloud_events(found, [], mode)
    if not body.strip():
        raise InvalidEvent("the body is empty; expected a storage notification or a CloudEvent")
    return _from_value(_parse(body), 0)


def _from_cloud_events(found: list[Event], problems: list[str], mode: str) -> Notification:
    """CloudEvents pass as they are, except those that merely carry a notification of another
    shape. `problems`: of events beside them. Raises `InvalidEvent` if there is nothing else."""
    result: list[Event] = []
    for event in found:
        inner = _inside(event)
        result.extend(inner.events if inner is not None else [event])
        problems.extend(inner.problems if inner is not None else ())
    if problems and not result:
        raise InvalidEvent("; ".join(problems))
    return Notification(shape=f"cloudevent-{mode}", events=tuple(result), problems=tuple(problems))


def _inside(event: Event) -> Notification | None:
    """The storage events a CloudEvent carries in its data; None: it is an event of its own."""
    if event.data is None or (event.content_type is not None and not _may_be_json(event)):
        return None
    try:
        value = json.loads(event.data)
        if isinstance(value, str):  # IntegrationSource aws.sqs: the SQS body as a JSON string
            value = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("data"), dict) and "Records" in value["data"]:
        value = value["data"]  # KFServing's older samples wrap the event once more
    if s3.is_record(value) and event.type.startswith(s3.TYPE_PREFIX):
        return None  # already what we would make of it
    if not _is_known(value):
        return None
    return _from_value(value, 1)


def _may_be_json(event: Event) -> bool:
    return is_json_media(event.content_type) or (event.content_type or "").startswith("text/plain")


def _is_known(value: Mapping[str, Any]) -> bool:
    return (
        isinstance(value.get("Records"), list)
        or s3.is_record(value)
        or s3.is_event_bridge(value)
        or s3.is_test_message(value)
        or seaweedfs.is_notification(value)
        or _is_sns(value)
    )


def _is_sns(value: Mapping[str, Any]) -> bool:
    return "TopicArn" in value and "Type" in value and "Message" in value


def _from_value(value: Any, depth: int) -> Notification:
    if depth > MAX_NESTING:
        raise InvalidEvent(f"notification envelopes are nested deeper than {MAX_NESTING}")
    if not isinstance(value, dict):
        raise InvalidEvent(f"expected a notification (a JSON object), not {type(value).__name__}")
    if _is_sns(value):
        return _from_sns(value, depth)
    if isinstance(value.get("Records"), list):
        return _from_records(value["Records"], depth)
    if s3.is_event_bridge(value):
        return Notification(shape="eventbridge", events=(s3.from_event_bridge(value),))
    if s3.is_test_message(value):
        return Notification(shape="test")
    if seaweedfs.is_notification(value):
        event = seaweedfs.to_event(value)
        return Notification(shape="seaweedfs", events=() if event is None else (event,))
    if s3.is_record(value):
        return Notification(shape="record", events=(s3.from_record(value),))
    if isinstance(value.get("data"), dict) and _is_known(value["data"]):
        return _from_value(value["data"], depth + 1)
    known = "S3 Records, SNS, EventBridge, MinIO, Ceph, SeaweedFS, CloudEvents"
    names = ", ".join(sorted(map(str, value))[:8]) or "none"
    raise InvalidEvent(f"not a notification of a known shape ({known}); its members are: {names}")


def _from_sns(value: Mapping[str, Any], depth: int) -> Notification:
    kind = value["Type"]
    if kind in ("SubscriptionConfirmation", "UnsubscribeConfirmation"):
        url = value.get("SubscribeURL")
        if not isinstance(url, str):
            raise InvalidEvent(f"an SNS {kind} needs a SubscribeURL")
        handshake = Handshake(url, value) if kind == "SubscriptionConfirmation" else None
        return Notification(shape="sns", handshake=handshake, sns=(value,))
    if kind != "Notification" or not isinstance(value["Message"], str):
        raise InvalidEvent(f"SNS message type {kind!r} is not a Notification with a text Message")
    inner = _from_value(_parse(value["Message"]), depth + 1)
    return replace(inner, shape=f"sns+{inner.shape}", sns=(value,))


def _from_records(records: list[Any], depth: int) -> Notification:
    """`Records` of S3 events, or of SNS/SQS messages as Lambda and some queues wrap them.

    A record that cannot be read does not keep the others from being delivered.
    """
    events: list[Event] = []
    problems: list[str] = []
    sns: list[Mapping[str, Any]] = []
    for index, record in enumerate(records):
        try:
            if isinstance(record, dict) and isinstance(record.get("Sns"), dict):
                inner = _from_value(record["Sns"], depth + 1)
            elif isinstance(record, dict) and isinstance(record.get("body"), str):
                inner = _from_value(_parse(record["body"]), depth + 1)
            else:
                events.append(s3.from_record(record))
                continue
        except InvalidEvent as error:
            problems.append(f"Records[{index}]: {error}")
            continue
        events.extend(inner.events)
        problems.extend(inner.problems)
        sns.extend(inner.sns)
    if problems and not events:
        raise InvalidEvent("; ".join(problems))
    return Notification(
        shape="records", events=tuple(events), sns=tuple(sns), problems=tuple(problems)
    )


def _parse(body: bytes | str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidEvent(f"the body is not JSON: {error}") from error
