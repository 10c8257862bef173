"""One trigger at work: CloudEvent in, graph called, answer filed and replied, once.

    match -> one run per key -> a place -> journal -> fetch -> request -> call -> effects -> reply

`Sink.handle` never raises for anything an event or a server can do: it returns the `Outcome` the
broker should see. 2xx: dealt with (with or without a reply event). 409/429/503: come back.
422/400: never. No HTTP framework here; `sink_app` is the door.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from . import codec, effects, filters, request, storage
from . import event as events
from .effects import Answer, Effects
from .errors import DeliveryFailed, EventsError, InFlight, InvalidEvent, Refused, TryAgain
from .event import Event
from .gate import Gate, KeyedLocks, Once
from .http import Answer as HttpAnswer
from .http import Client
from .journal import Journal, Order, State
from .metrics import Metrics
from .objects import MARK, ObjectStore, Stored
from .sources import keys
from .spec import Reply, SinkSpec
from .storage import ObjectRef

logger = logging.getLogger(__name__)

FINAL_CLIENT_ERRORS_EXCEPT = frozenset({408, 409, 425, 429})
"""4xx of a graph that time may heal; every other one says that this input will never do."""

TRACE_ATTRIBUTES = ("traceparent", "tracestate")
RETRY_AFTER_S = 1.0
_LOGGED_ERROR = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the sender of the event gets to see, and what the log line says."""

    status: int
    kind: str
    """replied, done, duplicate, ignored, retry, refused: the metrics' and the log's word for it."""
    reply: Event | None = None
    message: codec.Message | None = field(default=None, repr=False)
    """The reply as it goes out, encoded once for the sender and the journal."""
    reason: str = ""
    retry_after_s: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class Sink:
    """Everything one trigger needs; thread-safe, one per process."""

    def __init__(
        self,
        spec: SinkSpec,
        *,
        client: Client,
        store: ObjectStore,
        journal: Journal,
        metrics: Metrics | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.spec = spec
        self.metrics = metrics or Metrics("turnout_sink")
        self.gate = Gate(spec.max_concurrency, spec.max_waiting)
        self._client = client
        self._store = store
        self._journal = journal
        self._now = now
        self._wants = filters.compile_filters(spec.filters)
        self._effects = Effects(spec, store)
        self._once: Once[Outcome] = Once()
        self._objects = KeyedLocks()
        self._forms = request.needs(spec.request)
        self._needs_bytes = request.needs_bytes(spec.request)
        self._may_recur = spec.result.touches_objects

    def handle(self, event: Event) -> Outcome:
        """Deal with one event; see the module's docstring. Logs one line."""
        started = time.monotonic()
        deadline = started + self.spec.deadline_s
        try:
            outcome = self._handle(event, deadline)
        except EventsError as error:
            outcome = _failure(error)
        seconds = time.monotonic() - started
        self.metrics.count("events", outcome.kind)
        self.metrics.observe(seconds)
        self._log(event, outcome, seconds)
        return outcome

    # --- stages -----------------------------------------------------------------------------------
    def _handle(self, event: Event, deadline: float) -> Outcome:
        if not self._wants(event):
            return _ignored("the trigger's filters do not match")
        about = storage.object_of(event)
        reason = self._not_ours(about)
        if reason:
            return _ignored(reason)
        own = hashlib.sha256(f"{event.source}\0{event.id}".encode("utf-8", "replace")).hexdigest()
        work_keys = [about.identity, own] if about is not None else [own]
        outcome, mine = self._once.call(
            work_keys[0],
            lambda: self._enter(event, about, work_keys, deadline),
            deadline - time.monotonic(),
        )
        if outcome is None:
            raise InFlight("another delivery of this event is still being worked on")
        if mine or outcome.status >= 300:
            return outcome
        return Outcome(
            status=outcome.status, kind="duplicate", reply=outcome.reply, message=outcome.message
        )

    def _not_ours(self, about: ObjectRef | None) -> str | None:
        wanted = self.spec.objects
        if wanted is None:
            return None
        if about is None:
            return "the event is not about an object"
        if about.key.endswith("/"):
            return "the object is a directory marker"
        dedupe = self.spec.dedupe
        if dedupe.bucket == about.bucket and about.key.startswith(dedupe.prefix or "\0"):
            return "the object is a marker of our own journal"
        if about.is_removed and wanted.removed == "DeleteResult":
            name = about.event_name.replace("ObjectRemoved", "ObjectCreated")
            matching = wanted.buckets and about.bucket in wanted.buckets
            fits = about.key.startswith(wanted.prefix) and about.key.endswith(wanted.suffix)
            return None if matching and fits and name else "the object is outside bucket and prefix"
        if not wanted.wants(about.bucket, about.key, about.event_name):
            return "the object is outside bucket, prefix, suffix or event names"
        return None

    def _enter(
        self, event: Event, about: ObjectRef | None, work_keys: list[str], deadline: float
    ) -> Outcome:
        """Wait for a place, then run; errors become outcomes here so that followers share them."""
        if not self.gate.enter(max(0.0, deadline - time.monotonic())):
            return Outcome(
                status=429,
                kind="retry",
                reason=f"all {self.spec.max_concurrency} places are taken",
                retry_after_s=RETRY_AFTER_S,
            )
        try:
            return self._run(event, about, work_keys, deadline)
        except EventsError as error:
            return _failure(error)
        finally:
            self.gate.leave()

    def _run(
        self, event: Event, about: ObjectRef | None, work_keys: list[str], deadline: float
    ) -> Outcome:
        order = _order(about)
        if order is None:
            return self._run_ordered(event, about, work_keys, deadline, None)
        # Two events of one object (an original and a swept one) go one after the other.
        with self._objects.hold(order.object_id):
            last = self._journal.last_sequencer(order.object_id)
            if keys.is_newer(last, order.sequencer):
                return _ignored("a newer event of this object has been dealt with")
            floor = event.attributes.get(storage.SWEPT_FLOOR)
            if last is not None and floor is not None and last >= str(floor):
                return _ignored("the upload a sweep found has been dealt with")
            return self._run_ordered(event, about, work_keys, deadline, order)

    def _run_ordered(
        self,
        event: Event,
        about: ObjectRef | None,
        work_keys: list[str],
        deadline: float,
        order: Order | None,
    ) -> Outcome:
        entry = self._journal.begin(work_keys, self.spec.deadline_s + 5)
        if entry.state is State.BUSY:
            raise InFlight("another process is working on this event")
        if entry.state is State.DONE:
            return _recorded(entry.reply)
        try:
            if about is not None and about.is_removed and self.spec.objects is not None:
                outcome = self._remove(event, about)
            elif entry.state is State.ANSWERED and entry.answer is not None:
                answer = effects.unpack(entry.answer)
                documents = effects.object_documents(event, about, answer)
                outcome = self._finish(event, about, work_keys, documents, answer, resumed=True)
            else:
                outcome = self._infer(event, about, work_keys, deadline)
            self._journal.done(work_keys, _record(outcome), order)
        except BaseException:
            self._journal.release(work_keys)
            raise
        return outcome

    def _infer(
        self, event: Event, about: ObjectRef | None, work_keys: list[str], deadline: float
    ) -> Outcome:
        spec = self.spec
        stored = self._fetch(about) if about is not None else None
        if stored is not None and stored.metadata.get(MARK) == spec.name:
            return _ignored("the object is a result of this very trigger")

        def presign() -> str:
            if about is None:
                raise Refused("there is no object to make a URL for")
            return self._store.presign(
                about.bucket, about.key, about.version_id, spec.request.url_expires_s
            )

        documents = request.documents(event, about, stored, self._forms, presign)
        body, headers = request.build(spec.request, event, stored, documents)
        answer = self._call(event, body, headers, deadline)
        if answer.is_json:
            documents["answer"] = answer.value
        if spec.result.touches_objects:
            self._journal.answered(work_keys, effects.pack(answer))
        return self._finish(event, about, work_keys, documents, answer, stored)

    def _fetch(self, about: ObjectRef) -> Stored | None:
        if not self._needs_bytes and not self._may_recur:
            return None
        try:
            return self._load(about, about.key)
        except EventsError as error:
            other = keys.other_spelling(about.key, about.raw_key)
            if other is None or not isinstance(error, Refused):
                raise
            try:
                found = self._load(about, other)
            except EventsError:
                raise error from None
            logger.warning("found the object under the other spelling of its key: %s", other)
            return found

    def _load(self, about: ObjectRef, key: str) -> Stored:
        if self._needs_bytes:
            return self._store.get(
                about.bucket,
                key,
                version_id=about.version_id,
                etag=about.etag,
                max_bytes=self.spec.request.max_object_bytes,
            )
        return self._store.head(about.bucket, key, version_id=about.version_id, etag=about.etag)

    def _call(self, event: Event, body: bytes, headers: dict[str, str], deadline: float) -> Answer:
        left = min(self.spec.target_timeout_s, deadline - time.monotonic())
        if left <= 0:
            raise TryAgain("the deadline passed before the graph was called")
        for name in TRACE_ATTRIBUTES:
            if name in event.attributes:
                headers.setdefault(name, str(event.attributes[name]))
        headers.setdefault("X-Request-Id", event.id.encode("ascii", "replace").decode())
        answer = self._client.post(self.spec.target_url, headers, body, left)
        _require_success(answer)
        return effects.answer_of(
            answer.body, answer.headers.get("content-type", "application/octet-stream")
        )

    def _finish(
        self,
        event: Event,
        about: ObjectRef | None,
        work_keys: list[str],
        documents: dict[str, Any],
        answer: Answer,
        stored: Stored | None = None,
        *,
        resumed: bool = False,
    ) -> Outcome:
        made = self._effects.apply(
            work_keys[0], event, about, documents, answer, stored, resumed=resumed
        )
        facts = {"made": made} if made else {}
        if self.spec.result.reply is None:
            return Outcome(status=204, kind="done", facts=facts)
        reply = self._reply(self.spec.result.reply, event, work_keys[0], documents, answer)
        message = codec.encode_binary(reply)
        return Outcome(status=200, kind="replied", reply=reply, message=message, facts=facts)

    def _remove(self, event: Event, about: ObjectRef) -> Outcome:
        documents = effects.object_documents(event, about, Answer(body=b"", content_type=""))
        name = self._effects.undo(about, documents)
        return Outcome(status=204, kind="done", facts={"deleted": name})

    def _reply(
        self, spec: Reply, event: Event, key: str, documents: dict[str, Any], answer: Answer
    ) -> Event:
        kind = spec.type.text(documents)
        data, content_type = answer.body, answer.content_type
        if spec.data is not None:
            data = json.dumps(spec.data.build(documents), ensure_ascii=False).encode()
            content_type = "application/json"
        trace = {name: event.attributes.get(name) for name in TRACE_ATTRIBUTES}
        return events.make(
            # The same work gives the same id, so a reply published twice can be told.
            id=hashlib.sha256(f"{key}\0{kind}".encode()).hexdigest()[:32],
            source=spec.source.text(documents) if spec.source else self.spec.source,
            type=kind,
            subject=spec.subject.text(documents) if spec.subject else event.subject,
            time=self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            datacontenttype=content_type,
            data=data,
            causationid=event.id,
            causationsource=event.source,
            **trace,
        )

    def _log(self, event: Event, outcome: Outcome, seconds: float) -> None:
        level = logging.INFO
        if outcome.status >= 400:
            level = logging.WARNING if outcome.kind == "retry" else logging.ERROR
        facts: dict[str, Any] = {
            "trigger": self.spec.name,
            "event_id": event.id,
            "event_source": event.source,
            "event_type": event.type,
            "subject": event.subject,
            "status": outcome.status,
            "outcome": outcome.kind,
            "ms": round(seconds * 1000, 1),
            **outcome.facts,
        }
        if outcome.reason:
            facts["reason"] = outcome.reason
        if outcome.reply is not None:
            facts["reply_id"] = outcome.reply.id
            facts["reply_type"] = outcome.reply.type
        logger.log(level, "event %s", outcome.kind, extra=facts)


def _require_success(answer: HttpAnswer) -> None:
    """A graph's status as ours. Raises `Refused` for an input that will never do, else
    `TryAgain`."""
    status = answer.status
    if 200 <= status < 300:
        return
    excerpt = answer.body[:512].decode("utf-8", "replace")
    message = (
        f"the graph answered {status}: {excerpt}" if excerpt else f"the graph answered {status}"
    )
    final = 400 <= status < 500 and status not in FINAL_CLIENT_ERRORS_EXCEPT
    # 404 as text comes from an ingress that does not know the service (yet); as JSON, from a graph.
    if final and (status != 404 or "json" in answer.headers.get("content-type", "")):
        raise Refused(message)
    if 300 <= status < 400:
        raise Refused(f"{message} (redirects are not followed)")
    after = answer.headers.get("retry-after", "")
    raise DeliveryFailed(
        message, cause_status=status, retry_after_s=float(after) if after.isdecimal() else None
    )


def _failure(error: EventsError) -> Outcome:
    if isinstance(error, TryAgain):
        return Outcome(
            status=error.status,
            kind="retry",
            reason=str(error),
            retry_after_s=error.retry_after_s or RETRY_AFTER_S,
        )
    status = error.status if isinstance(error, (Refused, InvalidEvent)) else _LOGGED_ERROR
    return Outcome(status=status, kind="refused", reason=str(error))


def _ignored(reason: str) -> Outcome:
    return Outcome(status=204, kind="ignored", reason=reason)


def _order(about: ObjectRef | None) -> Order | None:
    if about is None or about.sequencer is None:
        return None
    return Order(object_id=storage.object_id(about.bucket, about.key), sequencer=about.sequencer)


def _record(outcome: Outcome) -> bytes:
    """An outcome for the journal: a line with status and headers, then the reply's bytes."""
    headers, body = outcome.message or ({}, b"")
    return json.dumps({"status": outcome.status, "headers": headers}).encode() + b"\n" + body


def _recorded(record: bytes | None) -> Outcome:
    head, _, body = (record or b'{"status": 204, "headers": {}}').partition(b"\n")
    value = json.loads(head)
    status, headers = int(value["status"]), value["headers"]
    if not headers:
        return Outcome(status=status, kind="duplicate")
    (reply,) = codec.decode(headers, body)
    return Outcome(status=status, kind="duplicate", reply=reply, message=(headers, body))
