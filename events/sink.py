"""One trigger at work: CloudEvent in, graph called, answer filed and replied, once.

    match -> one run per key -> a place -> journal -> fetch -> request -> call -> effects -> reply

`Sink.handle` never raises for anything an event or a server can do: it returns the `Outcome` the
broker should see. 2xx: dealt with (with or without a reply event). 409/429/503: come back.
422/400: never. No HTTP framework here; `sink_app` is the door.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from functions.wire.container import log_facts

from . import codec, effects, filters, lineage, request, storage
from . import event as events
from .effects import Answer, Effects
from .errors import (
    EventsError,
    InFlight,
    InvalidEvent,
    ObjectGone,
    Refused,
    TryAgain,
)
from .event import Event
from .gate import Gate, KeyedLocks, Once
from .http import Client
from .journal import Journal, Order, State
from .metrics import Metrics
from .objects import ObjectStore, Stored
from .outcome import (
    RETRY_AFTER_S,
    Outcome,
    failure,
    ignored,
    record,
    recorded,
    require_success,
)
from .sources import keys
from .spec import Reply, SinkSpec
from .storage import ObjectRef

logger = logging.getLogger(__name__)

TRACE_ATTRIBUTES = ("traceparent", "tracestate")


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
        self._scope = spec.source
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
            outcome = failure(error)
        seconds = time.monotonic() - started
        self.metrics.count("events", outcome.kind)
        self.metrics.observe(seconds)
        self._log(event, outcome, seconds)
        return outcome

    # --- stages -----------------------------------------------------------------------------------
    def _handle(self, event: Event, deadline: float) -> Outcome:
        if not self._wants(event):
            return ignored("the trigger's filters do not match")
        about = storage.object_of(event)
        reason = self._not_ours(about)
        if reason:
            return ignored(reason)
        own = storage.digest(self._scope, event.source, event.id)
        work_keys = [about.identity(self._scope), own] if about is not None else [own]
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
        if about.event_name == "ObjectCreated:Post" and not about.etag and not about.size:
            return "a multipart upload has begun (Ceph says so); there is no object yet"
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
            return failure(error)
        finally:
            self.gate.leave()

    def _run(
        self, event: Event, about: ObjectRef | None, work_keys: list[str], deadline: float
    ) -> Outcome:
        order = self._order(about)
        if order is None:
            return self._run_ordered(event, about, work_keys, deadline, None)
        # Two events of one object (an original and a swept one) go one after the other.
        with self._objects.hold(order.object_id, deadline - time.monotonic()):
            last = self._journal.last_sequencer(order.object_id)
            if keys.is_newer(last, order.sequencer):
                return ignored("a newer event of this object has been dealt with")
            floor = event.attributes.get(storage.SWEPT_FLOOR)
            if last is not None and floor is not None and last >= str(floor):
                return ignored("the upload a sweep found has been dealt with")
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
            return recorded(entry.reply)
        try:
            if about is not None and about.is_removed and self.spec.objects is not None:
                outcome = self._remove(event, about)
            elif entry.state is State.ANSWERED and entry.answer is not None:
                answer = effects.unpack(entry.answer)
                documents = effects.object_documents(event, about, answer)
                outcome = self._finish(event, about, work_keys, documents, answer, resumed=True)
            else:
                outcome = self._infer(event, about, work_keys, deadline)
            self._journal.done(work_keys, record(outcome), order)
        except BaseException:
            self._journal.release(work_keys)
            raise
        return outcome

    def _infer(
        self, event: Event, about: ObjectRef | None, work_keys: list[str], deadline: float
    ) -> Outcome:
        spec = self.spec
        stored = self._fetch(about) if about is not None else None
        if stored is not None and stored.metadata.get(lineage.MADE_BY) == spec.full_name:
            return ignored("the object is a result of this very trigger")
        hops, maker = self._lineage(event, about, stored)
        if maker == spec.full_name:
            return ignored("the tags are a result of this very trigger")
        what = f"s3://{about.bucket}/{about.key}" if about is not None else "the event"
        lineage.require(hops, spec.max_hops, maker, what)

        def presign() -> str:
            if about is None:
                raise Refused("there is no object to make a URL for")
            return self._store.presign(
                about.bucket, about.key, about.version_id, spec.request.url_expires_s
            )

        documents = request.documents(event, about, stored, self._forms, presign)
        body, headers = request.build(spec.request, event, stored, documents)
        answer = self._call(event, body, headers, deadline, hops)
        if answer.has_value:
            documents["answer"] = answer.value
        if spec.result.touches_objects:
            self._journal.answered(work_keys, effects.pack(answer))
        return self._finish(event, about, work_keys, documents, answer, stored)

    def _lineage(
        self, event: Event, about: ObjectRef | None, stored: Stored | None
    ) -> tuple[int, str]:
        """How many triggers are behind this event, and the name of the last one if it is known."""
        if about is None:
            return lineage.of_event(event), ""
        metadata = stored.metadata if stored is not None else self._peek(about)
        hops = max(lineage.of_event(event, event.json()), lineage.of_metadata(metadata))
        maker = metadata.get(lineage.MADE_BY, "")
        if about.is_tagging and self.spec.result.tag:
            key = stored.key if stored is not None else about.key
            tagged, tagger = lineage.of_tags(self._store.tags(about.bucket, key, about.version_id))
            if tagger:
                return max(hops, tagged), tagger
        return hops, maker

    def _peek(self, about: ObjectRef) -> Mapping[str, str]:
        """An object's metadata for a trigger that needs nothing else of it, if it may be had."""
        if not self._store.has_credentials or self.spec.result.reply is None:
            return {}
        try:
            return self._store.head(about.bucket, about.key, version_id=about.version_id).metadata
        except EventsError:
            return {}

    def _order(self, about: ObjectRef | None) -> Order | None:
        if about is None or about.sequencer is None:
            return None
        object_id = storage.digest(self._scope, about.bucket, about.key)
        return Order(object_id=object_id, sequencer=about.sequencer)

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

    def _call(
        self, event: Event, body: bytes, headers: dict[str, str], deadline: float, hops: int
    ) -> Answer:
        left = min(self.spec.target_timeout_s, deadline - time.monotonic())
        if left <= 0:
            raise TryAgain("the deadline passed before the graph was called")
        for name in TRACE_ATTRIBUTES:
            if name in event.attributes:
                headers.setdefault(name, str(event.attributes[name]))
        headers.setdefault("X-Request-Id", event.id.encode("ascii", "replace").decode())
        answer = self._client.post(self.spec.target_url, headers, body, left)
        require_success(answer)
        return effects.answer_of(
            answer.body, answer.headers.get("content-type", "application/octet-stream"), hops
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
        wanted = self.spec.result.reply
        # First of all: what cannot be said must not have been done.
        reply = None
        if wanted is not None:
            reply = self._reply(wanted, event, work_keys[0], documents, answer)
        made = self._effects.apply(
            work_keys[0], event, about, documents, answer, stored, resumed=resumed
        )
        facts = {"made": made} if made else {}
        if reply is None:
            return Outcome(status=204, kind="done", facts=facts)
        message = codec.encode_binary(reply)
        return Outcome(status=200, kind="replied", reply=reply, message=message, facts=facts)

    def _remove(self, event: Event, about: ObjectRef) -> Outcome:
        try:
            self._store.head(about.bucket, about.key)
        except ObjectGone:
            pass
        else:
            return ignored("the object is there: another version of it, or a new upload")
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
        try:
            return events.make(
                # The same work gives the same id, so a reply published twice can be told.
                id=storage.digest(key, kind)[:32],
                source=spec.source.text(documents) if spec.source else self.spec.source,
                type=kind,
                subject=spec.subject.text(documents) if spec.subject else event.subject,
                time=self._now().isoformat(timespec="microseconds").replace("+00:00", "Z"),
                datacontenttype=content_type,
                data=data,
                causationid=event.id,
                causationsource=event.source,
                turnouthops=str(answer.hops + 1),
                **trace,
            )
        except InvalidEvent as error:  # of what the answer said: not the sender's event
            raise Refused(f"the reply would be {error}") from error

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
        log_facts(logger, level, f"event {outcome.kind}", facts)
