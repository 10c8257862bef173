"""Asynchronous requests: `Prefer: respond-async` gets 202 and a status URL, the answer waits there.

    POST /            Prefer: respond-async[, wait=N]   202 and Location: /jobs/ID (or the answer)
    GET  /jobs/ID     202 while it runs, then the answer itself; 404 when unknown or too old
    DELETE /jobs/ID   204, forgets it; 404 when unknown or too old

The header `Turnout-Job` tells our 202 and 404 from a graph's: running, done, unknown. Requests
(without credentials) and answers are kept in the sink's journal for `async_ttl_s` after they came.
A job whose process died is started again when somebody asks for it after its deadline, at most
`MAX_STARTS` times: like every delivery here it may reach the graph twice, and is recorded once.
Source: RFC 7240 (Prefer), RFC 9110 15.3.3 (202), the IETF draft on Idempotency-Key (422).
"""

import base64
import hashlib
import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .errors import EventsError, TryAgain
from .gate import Gate
from .http import Client
from .journal import Journal
from .spec import SinkSpec
from .storage import digest

logger = logging.getLogger(__name__)

PATH = "/jobs/"
MAX_STARTS = 3
MAX_WAIT_S = 60.0
_ASYNC = re.compile(r"(?:^|,|;)\s*respond-async\s*(?:,|;|$)", re.IGNORECASE)
_ID = re.compile(r"[0-9a-f]{32}\Z")
_WAIT = re.compile(r"(?:^|,|;)\s*wait\s*=\s*\"?(\d{1,6})", re.IGNORECASE)
FORWARDED = ("content-type", "accept", "traceparent", "tracestate", "x-request-id")
HttpAnswer = tuple[int, dict[str, str], bytes]


def wants_async(headers: Mapping[str, str]) -> bool:
    """Whether the Prefer header asks for it (names in lower case)."""
    return _ASYNC.search(headers.get("prefer", "")) is not None


class Jobs:
    """Asynchronous requests of one sink; thread-safe."""

    def __init__(
        self,
        spec: SinkSpec,
        *,
        client: Client,
        journal: Journal,
        gate: Gate,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._spec = spec
        self._client = client
        self._journal = journal
        self._gate = gate
        self._clock = clock
        self._most = spec.max_concurrency + spec.max_waiting
        self._pool = ThreadPoolExecutor(spec.max_concurrency, thread_name_prefix="job")
        self._running: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def submit(self, headers: Mapping[str, str], body: bytes) -> HttpAnswer:
        """Take a request. With an Idempotency-Key, the same key is the same job; 422 if the same
        key comes with another body."""
        key = headers.get("idempotency-key")
        # Triggers may share a journal.
        job = digest(self._spec.source, key)[:32] if key else uuid.uuid4().hex
        asked = hashlib.sha256(body).hexdigest()
        known = self._journal.kept(job) if key else None
        if known is not None and json.loads(known).get("asked", asked) != asked:
            error = "this Idempotency-Key has been used for another body"
            return 422, {"content-type": "application/json"}, _error(error)
        record = {
            "state": "running",
            "starts": 0,
            "asked": asked,
            "headers": {name: headers[name] for name in FORWARDED if name in headers},
            "body": base64.b64encode(body).decode(),
        }
        if known is None and not self._start(job, record):
            error = f"{self._most} requests are waiting already"
            return 429, {"content-type": "application/json", "retry-after": "1"}, _error(error)
        wait = _WAIT.search(headers.get("prefer", ""))
        if wait:
            self._wait(job, min(float(wait.group(1)), MAX_WAIT_S))
            answer = self.answer(job)
            if answer[0] != 202:
                return answer
        return self._accepted(job)

    def answer(self, job: str) -> HttpAnswer:
        """The state of a job: 202 while it runs, its answer, or 404."""
        kept = self._journal.kept(job) if _ID.match(job) else None
        if kept is None:
            return _unknown()
        record = json.loads(kept)
        if record["state"] == "done":
            fields = {"content-type": record["contentType"]} if record["contentType"] else {}
            fields["turnout-job"] = "done"
            return int(record["status"]), fields, base64.b64decode(record["body"])
        if job not in self._running and float(record.get("until", 0)) < self._clock():
            if record["starts"] >= MAX_STARTS:
                gone = f"{MAX_STARTS} processes ended while they worked on this request"
                self._keep(job, _done(record, 500, "application/json", _error(gone)))
                return self.answer(job)
            self._start(job, record)
        return self._accepted(job)

    def forget(self, job: str) -> HttpAnswer:
        """Drop a job's record; what runs is not stopped, its answer is not kept."""
        if not _ID.match(job) or self._journal.kept(job) is None:
            return _unknown()
        self._journal.keep(job, b"", 0)
        return 204, {}, b""

    def finish(self, seconds: float) -> None:
        """Wait that long for what is running: the process is about to end."""
        deadline = time.monotonic() + seconds
        with self._lock:
            running = list(self._running.values())
        for job in running:
            job.wait(max(0.0, deadline - time.monotonic()))

    def _accepted(self, job: str) -> HttpAnswer:
        fields = {
            "content-type": "application/json",
            "location": PATH + job,
            "retry-after": "1",
            "preference-applied": "respond-async",
            "turnout-job": "running",
        }
        return 202, fields, json.dumps({"id": job, "status": "running", "url": PATH + job}).encode()

    def _start(self, job: str, record: dict[str, Any]) -> bool:
        with self._lock:
            if job in self._running:
                return True
            if len(self._running) >= self._most:
                return False
            self._running[job] = threading.Event()
        record["starts"] += 1
        lease_s = self._spec.deadline_s + 5
        record["until"] = self._clock() + lease_s
        try:
            self._keep(job, record, lease_s)
        except EventsError:
            with self._lock:
                del self._running[job]
            raise
        self._pool.submit(self._run, job, record)
        return True

    def _run(self, job: str, record: dict[str, Any]) -> None:
        started = time.monotonic()
        status, content_type, body = self._call(record)
        if _may_heal(status) and record["starts"] < MAX_STARTS:
            time.sleep(min(2.0 ** record["starts"] / 4, 5.0))
            record["starts"] += 1
            status, content_type, body = self._call(record)
        try:
            if self._journal.kept(job) is not None:  # nobody has deleted it meanwhile
                self._keep(job, _done(record, status, content_type, body))
        except EventsError as error:
            logger.error("the answer of a job could not be kept: %s", error, extra={"job": job})
        finally:
            with self._lock:
                self._running.pop(job).set()
        ms = round((time.monotonic() - started) * 1000, 1)
        logger.info("job done", extra={"job": job, "status": status, "ms": ms})

    def _call(self, record: dict[str, Any]) -> tuple[int, str, bytes]:
        deadline_s = self._spec.deadline_s
        if not self._gate.enter(deadline_s):
            return 503, "application/json", _error("no place became free in time")
        try:
            body = base64.b64decode(record["body"])
            timeout_s = min(self._spec.target_timeout_s, deadline_s)
            answer = self._client.post(self._spec.target_url, record["headers"], body, timeout_s)
        except TryAgain as error:
            return 502, "application/json", _error(str(error))
        finally:
            self._gate.leave()
        return answer.status, answer.headers.get("content-type", ""), answer.body

    def _wait(self, job: str, seconds: float) -> None:
        with self._lock:
            running = self._running.get(job)
        if running is not None:
            running.wait(seconds)

    def _keep(self, job: str, record: Mapping[str, Any], more_s: float = 0) -> None:
        self._journal.keep(job, json.dumps(record).encode(), self._spec.async_ttl_s + more_s)


def _may_heal(status: int) -> bool:
    return status >= 500 or status in (408, 425, 429)


def _done(record: Mapping[str, Any], status: int, kind: str, body: bytes) -> dict[str, Any]:
    return {
        "state": "done",
        "asked": record.get("asked"),
        "status": status,
        "contentType": kind,
        "body": base64.b64encode(body).decode(),
    }


def _unknown() -> HttpAnswer:
    fields = {"content-type": "application/json", "turnout-job": "unknown"}
    return 404, fields, _error("no such job, or too old")


def _error(message: str) -> bytes:
    return json.dumps({"error": message}).encode()
