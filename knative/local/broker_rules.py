"""What a Knative broker does with one event, as pure functions: ingress, hop counter, replies,
letters.

No I/O and no clock. Statuses and attribute names are those of Knative's channel-based broker (the
default one); where Kafka's differs, the broker's class decides. Source: Knative Eventing, broker
ingress, filter handler and dispatcher; the vectors are in tests/unit/events/test_broker_rules.py.
"""

import base64
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from events import codec, delivery, filters
from events.delivery import Delivery
from events.errors import InvalidEvent
from events.event import Event

TTL = "knativebrokerttl"
ARRIVAL = "knativearrivaltime"
DEFAULT_TTL = 255
ERROR_DEST, ERROR_CODE, ERROR_DATA = "knativeerrordest", "knativeerrorcode", "knativeerrordata"
ERROR_DATA_CHARS = 1024
"""How much of a failed subscriber's answer travels with a dead letter."""

ORDER_ANNOTATION = "kafka.eventing.knative.dev/delivery.order"
CLASS_ANNOTATION = "eventing.knative.dev/broker.class"
DEFAULT_CLASS = "MTChannelBasedBroker"
_FORWARDED = re.compile(
    r"(?:x-request-id|retry-after|knative-.+|x-b3-.+|b3|traceparent|tracestate)\Z"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer of the ingress."""

    status: int
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A Broker resource as far as deliveries need it."""

    namespace: str
    name: str
    broker_class: str = DEFAULT_CLASS
    delivery: Delivery = delivery.BROKER_DEFAULT

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A Trigger resource, resolved."""

    namespace: str
    name: str
    broker: str
    """Key of its broker."""
    subscriber: str
    """URL."""
    wants: filters.Predicate = field(repr=False, compare=False)
    delivery: Delivery
    dead_letter_url: str | None = None
    ordered: bool = False
    first_n: int = 0
    """Where the back-off's counter starts (`delivery.first_n`)."""
    is_kafka: bool = False

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse_objects(
    objects: Iterable[Mapping[str, Any]],
) -> tuple[dict[str, Broker], dict[str, Trigger]]:
    """Brokers and Triggers among compiled objects. A Trigger of an unknown Broker waits, as in
    Knative.

    Raises `ValueError` naming the object for a Trigger that cannot be resolved.
    """
    objects = list(objects)
    brokers: dict[str, Broker] = {}
    for item in objects:
        if item.get("kind") == "Broker":
            broker = _broker(item)
            brokers[broker.key] = broker
    triggers: dict[str, Trigger] = {}
    for item in objects:
        if item.get("kind") == "Trigger":
            trigger = _trigger(item, brokers)
            triggers[trigger.key] = trigger
    return brokers, triggers


def _broker(item: Mapping[str, Any]) -> Broker:
    metadata = item["metadata"]
    annotations = metadata.get("annotations") or {}
    return Broker(
        namespace=str(metadata.get("namespace") or "default"),
        name=str(metadata["name"]),
        broker_class=str(annotations.get(CLASS_ANNOTATION) or DEFAULT_CLASS),
        delivery=delivery.parse((item.get("spec") or {}).get("delivery")),
    )


def _trigger(item: Mapping[str, Any], brokers: Mapping[str, Broker]) -> Trigger:
    metadata, spec = item["metadata"], item.get("spec") or {}
    namespace, name = str(metadata.get("namespace") or "default"), str(metadata["name"])
    key = f"{namespace}/{spec.get('broker') or 'default'}"
    broker = brokers.get(key)
    broker_class = broker.broker_class if broker else DEFAULT_CLASS
    block = delivery.parse(
        spec.get("delivery"), broker.delivery if broker else delivery.BROKER_DEFAULT
    )
    annotations = metadata.get("annotations") or {}
    try:
        return Trigger(
            namespace=namespace,
            name=name,
            broker=key,
            subscriber=url_of(spec.get("subscriber") or {}, namespace),
            wants=filters.compile_filters(spec),
            delivery=block,
            dead_letter_url=url_of(block.dead_letter_sink, namespace)
            if block.dead_letter_sink
            else None,
            ordered=annotations.get(ORDER_ANNOTATION) == "ordered",
            first_n=delivery.first_n(broker_class),
            is_kafka=broker_class.startswith("Kafka"),
        )
    except ValueError as error:
        raise ValueError(f"Trigger {namespace}/{name}: {error}") from error


def url_of(destination: Mapping[str, Any], namespace: str) -> str:
    """The URL of a Knative Destination; a relative `uri` is resolved against the `ref`'s
    address."""
    ref, uri = destination.get("ref"), str(destination.get("uri") or "")
    if not ref:
        if not re.match(r"https?://", uri):
            raise ValueError(f"destination {uri!r} needs an absolute uri or a ref")
        return uri
    where = str(ref.get("namespace") or namespace)
    if ref.get("kind") == "Broker":
        base = ingress_url(where, str(ref["name"]))
    else:
        base = f"http://{ref['name']}.{where}.svc.cluster.local"
    if re.match(r"https?://", uri):
        return uri
    return base + ("/" + uri.lstrip("/") if uri else ("" if ref.get("kind") == "Broker" else "/"))


def ingress_url(namespace: str, broker: str) -> str:
    """Where a broker takes events: the same address as Knative's own."""
    return f"http://broker-ingress.knative-eventing.svc.cluster.local/{namespace}/{broker}"


def refuse_early(method: str, path: str) -> Answer | tuple[str, str]:
    """(namespace, broker) of a request to the ingress, or the answer it gets without being read."""
    segments = path.partition("?")[0].split("/")
    if method == "OPTIONS":
        return Answer(
            status=200,
            headers={
                "Allow": "POST, OPTIONS",
                "WebHook-Allowed-Origin": "*",
                "WebHook-Allowed-Rate": "*",
            },
        )
    if method != "POST":
        return Answer(status=405, body="only POST is allowed", headers={"Allow": "POST, OPTIONS"})
    if path in ("", "/"):
        return Answer(status=404, body="POST to /NAMESPACE/BROKER")
    if len(segments) != 3 or not all(segments[1:]):
        return Answer(status=400, body="malformed path; POST to /NAMESPACE/BROKER")
    return segments[1], segments[2]


def admit(headers: codec.Headers, body: bytes, arrival: str) -> Event:
    """The event as the broker keeps it: hop counter taken down by one, arrival time added.

    Raises `InvalidEvent` for anything that is not one valid event, and for one that has hopped
    enough.
    """
    found = codec.decode(headers, body)
    if len(found) != 1:
        raise InvalidEvent("a broker takes one event a request, not a batch")
    ttl = next_ttl(found[0].attributes.get(TTL))
    if ttl <= 0:
        raise InvalidEvent(f"{TTL} is used up: the event goes round in a circle of replies")
    hop: dict[str, Any] = {TTL: ttl, ARRIVAL: arrival}
    return found[0].with_attributes(**hop)


def next_ttl(value: object, default: int = DEFAULT_TTL) -> int:
    """The hop counter after one more hop: default if absent or not a number, never below zero."""
    try:
        return max(0, int(str(value)) - 1) if value is not None else default
    except ValueError:
        return default


def outgoing(event: Event, trigger: Trigger) -> tuple[dict[str, str], bytes]:
    """The request a subscriber sees: without the hop counter."""
    plain = event.with_attributes(**{TTL: None})
    if trigger.delivery.format == "json":
        headers, body = codec.encode_structured(plain)
    else:
        headers, body = codec.encode_binary(plain)
    headers["Prefer"] = "reply"
    headers["Kn-Namespace"] = trigger.namespace
    return headers, body


def forwarded(headers: codec.Headers) -> dict[str, str]:
    """Headers of the ingress request that travel to subscribers."""
    return {name: value for name, value in codec.lower(headers).items() if _is_forwarded(name)}


@functools.lru_cache(512)
def _is_forwarded(name: str) -> bool:
    return _FORWARDED.match(name) is not None


def reply_of(status: int, headers: Mapping[str, str], body: bytes) -> Event | None:
    """The reply event in a subscriber's 2xx; None: it had nothing to say.

    Raises `InvalidEvent` for a body that is not an event: a failed delivery, as in Knative, which
    is why a trigger must never point at a raw predict URL.
    """
    if status == 202:
        return None
    mode = codec.mode_of(headers)
    if mode is None:
        if body.strip():
            raise InvalidEvent("the subscriber answered with a body that is not a CloudEvent")
        return None
    found = codec.decode(headers, body)
    if len(found) != 1:
        raise InvalidEvent("the subscriber answered with a batch")
    return found[0]


def reply_for_ingress(reply: Event, cause: Event) -> Event:
    """A reply with its cause's hop counter put back, so that circles end."""
    return reply.with_attributes(**{TTL: cause.attributes.get(TTL)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a delivery did not succeed. `code` None: no response at all."""

    destination: str
    code: int | None
    body: bytes = b""
    reason: str = ""
    extensions: Mapping[str, str] = field(default_factory=dict)

    def with_destination(self, destination: str) -> "Failure":
        return replace(self, destination=destination)


def kne_extensions(headers: Mapping[str, str]) -> dict[str, str]:
    """`kne-NAME` response headers as extensions of the dead letter (Kafka broker)."""
    return {
        name: headers[header]
        for header in headers
        if header.startswith("kne-") and (name := re.sub("[^a-z0-9]", "", header[4:].lower()))
    }


def dead_letter(event: Event, failure: Failure, *, is_kafka: bool) -> Event:
    """The original event with where, what and why it failed."""
    data = failure.body or failure.reason.encode()
    text = data.decode("utf-8", "replace")[:ERROR_DATA_CHARS].encode()
    extensions: dict[str, Any] = dict(failure.extensions)
    extensions[ERROR_DEST] = failure.destination
    if failure.code is not None or not is_kafka:
        extensions[ERROR_CODE] = 500 if failure.code is None else failure.code
        extensions[ERROR_DATA] = base64.b64encode(text).decode() if text else None
    return event.with_attributes(**extensions)
