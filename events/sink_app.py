"""The sink's HTTP door (Flask), and the making of a sink from its settings."""

import base64
import json
import logging
from pathlib import Path

from flask import Flask, Response, request

from . import codec, spec, web
from .errors import EventsError, InvalidEvent
from .front import SinkFront
from .http import Client
from .jobs import PATH, Jobs, wants_async
from .journal import Journal, MemoryJournal
from .objects import ObjectStore
from .outcome import Outcome
from .sender import Sender
from .settings import SinkSettings
from .sink import Sink
from .spec import SinkSpec
from .sweep import Sweeper

logger = logging.getLogger(__name__)


MAX_THREADS = 512


def make_front(settings: SinkSettings) -> SinkFront:
    """What `python -m events sink` serves. Raises `SpecError`."""
    sink_spec = spec.parse(settings.spec)
    sink, jobs, sweeper = make_sink(sink_spec, settings)
    # Everybody whom the gate lets wait holds a thread; a few more tell the rest to come back.
    threads = min(MAX_THREADS, sink_spec.max_concurrency + sink_spec.max_waiting + 8)
    return SinkFront(
        lambda headers, body: take(sink, jobs, headers, body, settings.max_body_bytes),
        lambda: make_app(sink, jobs, sweeper, settings.max_body_bytes),
        threads,
        jobs.finish,
    )


def most_bytes(max_body_bytes: int) -> int:
    """What the HTTP server reads at most. An event over the limit must be heard out twice: to be
    refused with a reason, and, somewhat longer, as the dead letter that this makes of it."""
    return 2 * max_body_bytes


def take(
    sink: Sink, jobs: Jobs, headers: codec.Headers, body: bytes, max_body_bytes: int
) -> tuple[int, dict[str, str], bytes]:
    """One POST to the sink: status, headers and body of the answer."""
    if len(body) > max_body_bytes:
        sink.metrics.count("events", "invalid")
        reason = f"the body has {len(body)} bytes; the limit is {max_body_bytes}"
        logger.warning("event too large", extra={"reason": reason})
        return _problem(413, reason)
    lowered = codec.lower(headers)
    try:
        if codec.mode_of(lowered) is None:
            if wants_async(lowered):
                return jobs.submit(lowered, body)
            raise InvalidEvent(f"{codec.NO_EVENT}; a graph's request needs Prefer: respond-async")
        found = codec.decode(lowered, body)
    except EventsError as error:
        sink.metrics.count("events", "invalid")
        logger.warning("invalid event", extra={"reason": str(error)})
        return _problem(error.status, str(error))
    if len(found) != 1:
        return _problem(400, "send one event a request: a batch cannot be replied to")
    return answer_of(sink.handle(found[0]))


def make_sink(sink_spec: SinkSpec, settings: SinkSettings) -> tuple[Sink, Jobs, Sweeper | None]:
    """The sink of a specification, and its asynchronous requests."""
    objects = sink_spec.objects
    connections = sink_spec.max_concurrency + 2
    client = Client(settings.proxies, connections=connections, ca_certs=settings.ca_certs)
    store = ObjectStore(
        sink_spec.allowed_buckets(),
        endpoint_url=(objects.endpoint_url if objects else None) or settings.endpoint_url,
        region=(objects.region if objects else None) or settings.region,
        timeout_s=min(60.0, sink_spec.deadline_s),
        connections=connections,
        client=client,
        credentials=settings.credentials,
    )
    journal = make_journal(sink_spec, store)
    sink = Sink(sink_spec, client=client, store=store, journal=journal)
    jobs = Jobs(sink_spec, client=client, journal=journal, gate=sink.gate)
    if objects is None or not settings.broker:
        return sink, jobs, None
    sender = Sender(client, None, settings.broker, extensions=settings.extensions, timeout_s=30.0)
    return (
        sink,
        jobs,
        Sweeper(objects, store=store, journal=journal, sender=sender, scope=sink_spec.source),
    )


def make_journal(sink_spec: SinkSpec, store: ObjectStore) -> Journal:
    """The journal the specification asks for."""
    dedupe = sink_spec.dedupe
    if dedupe.store == "sqlite":
        from .journal_sqlite import SqliteJournal

        return SqliteJournal(Path(dedupe.path), ttl_s=dedupe.ttl_s, max_entries=dedupe.max_entries)
    if dedupe.store == "s3":
        from .journal_s3 import S3Journal

        return S3Journal(store, bucket=dedupe.bucket, prefix=dedupe.prefix, ttl_s=dedupe.ttl_s)
    return MemoryJournal(ttl_s=dedupe.ttl_s, max_entries=dedupe.max_entries)


def make_app(sink: Sink, jobs: Jobs, sweeper: Sweeper | None, max_body_bytes: int) -> Flask:
    """Routes: POST / for events and requests, /jobs, /dead-letters, OPTIONS, health, metrics."""

    def metrics() -> str:
        return sink.metrics.text([("in_progress", sink.gate.taken)])

    app = web.make_app("events.sink", metrics, most_bytes(max_body_bytes))

    @app.post("/", provide_automatic_options=False)
    def take_event() -> Response:
        body = request.get_data(cache=False)
        return _response(take(sink, jobs, list(request.headers.items()), body, max_body_bytes))

    @app.post(spec.SWEEP_PATH, provide_automatic_options=False)
    def sweep_now() -> Response:
        """A PingSource comes by: look for uploads nobody told us about."""
        if sweeper is None:
            return _response(_problem(404, "no sweeps here: they need objects and K_SINK"))
        try:
            swept = sweeper.run()
        except EventsError as error:
            logger.warning("sweep interrupted: %s", error)
            return _response(_problem(503, str(error)))
        sink.metrics.count("swept", amount=swept.published)
        # A PingSource wants no answer: a body that is no event would count as a failure.
        return Response(status=204, headers={"X-Swept": str(swept.published)})

    @app.get(PATH + "<job>")
    def job_answer(job: str) -> Response:
        return _response(jobs.answer(job))

    @app.delete(PATH + "<job>")
    def forget_job(job: str) -> Response:
        return _response(jobs.forget(job))

    @app.post(spec.DEAD_LETTER_PATH, provide_automatic_options=False)
    def bury() -> Response:
        """The end of the line for events nobody could deal with: said loudly, with the reason."""
        try:
            found = codec.decode(list(request.headers.items()), request.get_data(cache=False))
        except EventsError as error:
            return web.problem(error.status, str(error))
        for event in found:
            sink.metrics.count("dead_letters")
            logger.error(
                "dead letter",
                extra={
                    "trigger": sink.spec.name,
                    "event_id": event.id,
                    "event_source": event.source,
                    "event_type": event.type,
                    "subject": event.subject,
                    "error_dest": event.attributes.get("knativeerrordest"),
                    "error_code": event.attributes.get("knativeerrorcode"),
                    "reason": _reason(str(event.attributes.get("knativeerrordata") or "")),
                },
            )
        return Response(status=204)

    @app.route("/", methods=["OPTIONS"])
    def consent() -> Response:
        return web.handshake()

    return app


def _reason(data: str) -> str:
    """The text in `knativeerrordata`: the base64 of the beginning of an error body, ours or
    another's."""
    try:
        text = base64.b64decode(data, validate=True).decode("utf-8", "replace")
    except ValueError:
        return data
    try:
        value = json.loads(text)
    except ValueError:  # cut off, or never JSON
        return text
    return str(value["error"]) if isinstance(value, dict) and "error" in value else text


def _response(answer: tuple[int, dict[str, str], bytes]) -> Response:
    status, headers, body = answer
    return Response(body, status=status, headers=headers)


def answer_of(outcome: Outcome) -> tuple[int, dict[str, str], bytes]:
    """An outcome as the broker wants it: a reply event, an empty 2xx, or a reason."""
    if outcome.status >= 400:
        status, headers, body = _problem(outcome.status, outcome.reason)
        if outcome.retry_after_s is not None:
            headers["retry-after"] = str(max(1, round(outcome.retry_after_s)))
        return status, headers, body
    if outcome.message is None:
        return outcome.status, {}, b""
    fields, body = outcome.message
    return 200, dict(fields), body


def _problem(status: int, message: str) -> tuple[int, dict[str, str], bytes]:
    body = json.dumps({"error": message}).encode()
    return status, {"content-type": "application/json"}, body
