"""Storage notifications in, CloudEvents out: what the adapter decides about one request.

    authenticate -> rate -> shape -> SNS signature -> allow-list -> deliver -> acknowledge

Nothing is kept: the producer's 2xx is given only after the sink took every event. Event ids are
made of the notification, so a producer that repeats itself makes duplicates the sink can tell.
No HTTP framework here; `adapter_app` is the door.
"""

import asyncio
import base64
import binascii
import hmac
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from functions.wire.container import log_facts

from . import codec, storage
from .errors import EventsError, InvalidEvent, Refused, TryAgain
from .event import Event
from .metrics import Metrics
from .sender import Sender
from .sources import Notification, normalise
from .sources.sns_signature import Verifier

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the producer gets: a status, headers, and an error text (empty: no body)."""

    status: int
    error: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        """`{"error": ...}`, or nothing."""
        return json.dumps({"error": self.error}).encode() if self.error else b""


class RateLimit:
    """A token bucket of one second's worth; 0 a second means no limit."""

    def __init__(self, per_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_s = per_s
        self._clock = clock
        self._tokens = float(per_s)
        self._then = clock()

    def take(self) -> bool:
        """One request more? (Called under the GIL from threads: a lost update costs one token.)"""
        if not self.per_s:
            return True
        now = self._clock()
        self._tokens = min(self.per_s, self._tokens + (now - self._then) * self.per_s)
        self._then = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who may post. Nothing set: everybody (the adapter is then only as open as its network)."""

    token: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)

    def accept(self, authorization: str, access_token: str) -> bool:
        """Bearer header, `access_token` query (CloudEvents webhook 3.2), or basic."""
        if not self.token and not self.user:
            return True
        scheme, _, value = authorization.partition(" ")
        if self.token:
            given = value.strip() if scheme.lower() == "bearer" else access_token
            # MinIO sends a token of two words as it stands, without `Bearer`.
            for candidate in (given, authorization):
                if hmac.compare_digest(candidate.encode(), self.token.encode()):
                    return True
        if self.user and scheme.lower() == "basic":
            try:
                pair = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                return False
            return hmac.compare_digest(pair, f"{self.user}:{self.password}".encode())
        return False


class Adapter:
    """One adapter; thread-safe."""

    def __init__(
        self,
        sender: Sender,
        *,
        credentials: Credentials | None = None,
        buckets: frozenset[str] = frozenset(),
        partition_by_object: bool = False,
        rate: RateLimit | None = None,
        verifier: Verifier | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._sender = sender
        self._credentials = credentials or Credentials()
        self._buckets = buckets
        self._partition_by_object = partition_by_object
        self._rate = rate or RateLimit(0)
        self._verifier = verifier or Verifier(enabled=True)
        self.metrics = metrics or Metrics("turnout_adapter")

    def refusal(self, authorization: str, access_token: str) -> Answer | None:
        """Before the body is read: 401 or 429, or None to go on."""
        if not self._credentials.accept(authorization, access_token):
            self.metrics.count("refused", "unauthorised")
            return Answer(
                status=401,
                error="authentication needed: bearer token or user and password",
                headers={"WWW-Authenticate": 'Bearer realm="events", Basic realm="events"'},
            )
        if not self._rate.take():
            self.metrics.count("refused", "rate")
            return Answer(status=429, error="too many requests", headers={"Retry-After": "1"})
        return None

    def busy(self) -> Answer:
        """For who comes while as many notifications as allowed are under way."""
        self.metrics.count("refused", "busy")
        return Answer(status=429, error="too many at once", headers={"Retry-After": "1"})

    @property
    def per_minute(self) -> int:
        """Requests a minute that are let through; 0: any number."""
        return self._rate.per_s * 60

    @property
    def is_guarded(self) -> bool:
        """Whether credentials are asked for at all."""
        return bool(self._credentials.token or self._credentials.user)

    def handle(self, headers: codec.Headers, body: bytes) -> Answer:
        """Take one notification. Logs one line per event."""
        started = time.monotonic()
        refused: list[Refused] = []
        try:
            notification = normalise(headers, body)
            self._check_sns(notification)
            for event in self._allowed(notification):
                try:
                    self._delivered(event, notification, self._sender.send(event))
                except EventsError as error:
                    refused.append(self._not_delivered(event, error))
            _require_all_taken(refused, notification)
        except EventsError as error:
            return self._failed(error)
        return self._taken(notification, started)

    async def handle_async(self, headers: codec.Headers, body: bytes) -> Answer:
        """The same on an event loop; only SNS, which fetches certificates, goes to a thread."""
        started = time.monotonic()
        refused: list[Refused] = []
        try:
            notification = normalise(headers, body)
            if notification.sns:
                await asyncio.to_thread(self._check_sns, notification)
            for event in self._allowed(notification):
                try:
                    self._delivered(event, notification, await self._sender.send_async(event))
                except EventsError as error:
                    refused.append(self._not_delivered(event, error))
            _require_all_taken(refused, notification)
        except EventsError as error:
            return self._failed(error)
        return self._taken(notification, started)

    def _taken(self, notification: Notification, started: float) -> Answer:
        self.metrics.count("notifications", notification.shape)
        self.metrics.observe(time.monotonic() - started)
        return Answer(status=204)

    def _failed(self, error: EventsError) -> Answer:
        kind = "retry" if isinstance(error, TryAgain) else "refused"
        self.metrics.count("notifications", kind)
        logger.log(
            logging.WARNING if kind == "retry" else logging.ERROR,
            "notification %s",
            kind,
            extra={"reason": str(error)[:500], "status": error.status},
        )
        after = getattr(error, "retry_after_s", None) or 1
        extra = {"Retry-After": str(int(after) or 1)} if kind == "retry" else {}
        return Answer(status=error.status, error=str(error), headers=extra)

    def _check_sns(self, notification: Notification) -> None:
        for envelope in notification.sns:
            self._verifier.check(envelope)
        if notification.handshake is not None:
            self._verifier.confirm(notification.handshake)
            topic = notification.handshake.message.get("TopicArn")
            logger.info("confirmed SNS subscription to %s", topic)

    def _allowed(self, notification: Notification) -> list[Event]:
        allowed = [event for event in notification.events if self._is_allowed(event)]
        dropped = len(notification.events) - len(allowed)
        if dropped:
            self.metrics.count("events", "forbidden", dropped)
            if not allowed:
                raise NotAllowed(
                    "no event of this notification is about a bucket on the allow-list"
                )
            logger.warning("dropped %d events about buckets that are not allowed", dropped)
        return [_partitioned(event) for event in allowed] if self._partition_by_object else allowed

    def _delivered(self, event: Event, notification: Notification, status: int) -> None:
        self.metrics.count("events", "delivered")
        log_facts(
            logger,
            logging.INFO,
            "event delivered",
            {
                "event_id": event.id,
                "event_source": event.source,
                "event_type": event.type,
                "subject": event.subject,
                "shape": notification.shape,
                "status": status,
            },
        )

    def _not_delivered(self, event: Event, error: EventsError) -> Refused:
        """A refusal, which keeps no other event from going out; anything else is raised: the
        producer will send everything again."""
        self.metrics.count("events", "refused" if isinstance(error, Refused) else "retry")
        logger.warning(
            "event not delivered",
            extra={
                "event_id": event.id,
                "event_source": event.source,
                "event_type": event.type,
                "subject": event.subject,
                "reason": str(error)[:500],
            },
        )
        if not isinstance(error, Refused):
            raise error
        return error

    def _is_allowed(self, event: Event) -> bool:
        if not self._buckets:
            return True
        try:
            about = storage.object_of(event)
        except InvalidEvent:
            return False
        return about is not None and about.bucket in self._buckets


def _partitioned(event: Event) -> Event:
    """With the `partitionkey` of its object, unless it has one (CloudEvents, "Partitioning")."""
    try:
        about = storage.object_of(event)
    except InvalidEvent:
        return event
    if about is None or "partitionkey" in event.attributes:
        return event
    return event.with_attributes(partitionkey=storage.digest(about.bucket, about.key))


def _require_all_taken(refused: list[Refused], notification: Notification) -> None:
    """After everything that could go out has: the rest is the producer's to know. Raises `Refused`
    or `InvalidEvent`."""
    if refused:
        raise refused[0]
    if notification.problems:
        raise InvalidEvent("; ".join(notification.problems))


class NotAllowed(Refused):
    """Only buckets nobody asked for."""

    status = 403
