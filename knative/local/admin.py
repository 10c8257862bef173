"""The engine's own HTTP API under /_turnout/: what runs, logs, and the verbs that change it.

Answers JSON. Only loopback host names reach it (the gateway checks), and requests that change
something must carry the `X-Turnout` header, which a foreign web page cannot send without being
allowed to.

    GET  api/status                   services, revisions, pods, engine
    GET  api/requests?after=N         recent requests
    GET  api/trace?id=TRACE           requests of one trace
    GET  api/logs?service=&pod=&container=&tail=N&previous=1
    GET  api/events                   recent, pending and dead events
    POST api/scale {"service", "replicas"|null}   POST api/restart {"service"}   POST api/stop
    POST api/invoke {"service", "path", "method", "body"}   send a request, as the console's form
    POST api/replay {"id"|null}       deliver one dead letter again, or all
"""

import asyncio
import inspect
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from . import internal, logview, memory
from .clock import wall_time
from .collect import collect_body
from .errors import PodFailed
from .exchange import Exchange
from .pods import Pod
from .revision import Revision

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 32 * 1024 * 1024

_JSON = (b"content-type", b"application/json")
_NO_STORE = (b"cache-control", b"no-store")


CONSOLE = Path(__file__).with_name("console")
CONSOLE_FILES = {
    "": b"text/html; charset=utf-8",
    "console.css": b"text/css; charset=utf-8",
    "icon.svg": b"image/svg+xml",
    **{
        f"{name}.js": b"text/javascript; charset=utf-8"
        for name in ("api", "console", "dom", "events", "graphs", "requests", "services", "tryit")
    },
}
CONSOLE_HEADERS = [
    (b"cache-control", b"no-cache"),
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class NotFound(Exception):
    """Nothing under that name."""


class BadRequest(Exception):
    """The request's parameters make no sense."""


class Admin:
    """Handles one engine's admin requests."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._tasks: set[asyncio.Future[None]] = set()
        self._get: dict[str, Callable[[Mapping[str, str]], object]] = {
            "api/status": lambda _: self.status(),
            "api/requests": self._requests,
            "api/trace": self._trace,
            "api/logs": self._logs,
            "api/events": self._events,
        }
        self._post: dict[str, Callable[[Mapping[str, Any]], object]] = {
            "api/scale": self._scale,
            "api/restart": self._restart,
            "api/stop": self._stop,
            "api/replay": self._replay,
            "api/invoke": self._invoke,
        }

    def handle(self, exchange: Exchange) -> None:
        """Gateway hook."""
        path, _, query = exchange.request.target.decode("latin-1").partition("?")
        name = path.removeprefix("/_turnout").strip("/")
        method = exchange.request.method
        if method in (b"GET", b"HEAD"):
            get = self._get.get(name)
            if get is None:
                self._page(exchange, path, name)
                return
            self._answer(exchange, lambda: get(dict(parse_qsl(query))))
        elif method == b"POST":
            post = self._post.get(name)
            if post is None:
                exchange.refuse(404, f"no such action: {path}")
            elif not exchange.request.header(b"x-turnout"):
                exchange.refuse(
                    403, "send the header `X-Turnout: 1` with requests that change things"
                )
            else:
                collect_body(exchange, MAX_BODY_BYTES, lambda body: self._act(exchange, post, body))
        else:
            exchange.refuse(405, "GET and POST only", [(b"allow", b"GET, HEAD, POST")])

    def _page(self, exchange: Exchange, path: str, name: str) -> None:
        """A file of the console."""
        if path == "/_turnout":  # relative links need the slash
            exchange.respond(302, [(b"location", b"/_turnout/")], b"")
            return
        kind = CONSOLE_FILES.get(name)
        if kind is None:
            exchange.refuse(404, f"no such page: {path}")
            return
        body = (CONSOLE / (name or "index.html")).read_bytes()
        exchange.respond(200, [(b"content-type", kind), *CONSOLE_HEADERS], body)

    def _act(
        self, exchange: Exchange, post: Callable[[Mapping[str, Any]], object], body: bytes
    ) -> None:
        try:
            arguments = json.loads(body or b"{}")
        except ValueError as error:
            exchange.refuse(400, f"body is not JSON: {error}")
            return
        if not isinstance(arguments, dict):
            exchange.refuse(400, "body must be a JSON object")
            return
        self._answer(exchange, lambda: post(arguments))

    def _answer(self, exchange: Exchange, make: Callable[[], object]) -> None:
        try:
            made = make()
        except NotFound as error:
            exchange.refuse(404, str(error))
        except BadRequest as error:
            exchange.refuse(400, str(error))
        else:
            if inspect.isawaitable(made):
                task = asyncio.ensure_future(self._answer_later(exchange, made))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self._respond(exchange, made)

    async def _answer_later(self, exchange: Exchange, made: Awaitable[object]) -> None:
        try:
            self._respond(exchange, await made)
        except NotFound as error:
            exchange.refuse(404, str(error))
        except BadRequest as error:
            exchange.refuse(400, str(error))

    def _respond(self, exchange: Exchange, value: object) -> None:
        body = json.dumps(value, default=str).encode() + b"\n"
        exchange.respond(200, [_JSON, _NO_STORE], body)

    # --- reading ---

    def status(self) -> dict[str, Any]:
        """Everything `ps`, `status --json` and the console show."""
        engine = self._engine
        now = engine.clock.now()
        return {
            "engine": {
                "pid": os.getpid(),
                "port": engine.port,
                "state_dir": str(engine.state.root.resolve()),
                "time": time.time(),
                "active_requests": engine.gateway.active,
                "memory_bytes": memory.resident_bytes([os.getpid()]),
            },
            "services": [self._service(key, now) for key in sorted(engine.services.by_key)],
        }

    def _service(self, key: str, now: float) -> dict[str, Any]:
        held = self._engine.services.by_key[key]
        service = held.service
        host = f"{service.name}.{service.namespace}"
        revisions = [self._revision(revision, now) for revision in held.revisions.values()]
        return {
            "name": service.name,
            "namespace": service.namespace,
            "url": f"http://{host}.localhost:{self._engine.port}",
            "cluster_url": f"http://{host}.svc.cluster.local",
            "labels": dict(service.labels),
            "visibility": service.labels.get("networking.knative.dev/visibility", ""),
            "graph": graph_of(service),
            "latest": held.latest.name,
            "serving": held.serving.name,
            "problem": held.problem,
            "revisions": revisions,
            "ready": sum(item["ready"] for item in revisions),
            "desired": sum(item["desired"] for item in revisions),
        }

    def _revision(self, revision: Revision, now: float) -> dict[str, Any]:
        failure = revision.failure
        return {
            "name": revision.name,
            "generation": revision.generation,
            "desired": revision.want,
            "ready": revision.ready_pods,
            "phase": revision.phase.value,
            "reachable": revision.reachable,
            "pinned": revision.pinned,
            "concurrency": revision.concurrency,
            "queued": revision.throttle.pending,
            "requests": revision.requests,
            "cold_starts": revision.cold_starts,
            "last_request": revision.last_request and wall_time(revision.last_request, now),
            "panicking": revision.decision.panicking,
            "activator_in_path": not revision.throttle.direct,
            "pending": revision.pending_reason,
            "failure": describe_failure(failure),
            "pods": [self._pod(pod, now) for pod in revision.pods],
        }

    def _pod(self, pod: Pod, now: float) -> dict[str, Any]:
        timeline = pod.timeline

        def at(instant: float | None) -> float | None:
            return instant and round(wall_time(instant, now), 3)

        pids = pod.containers.process_ids()
        return {
            "name": pod.name,
            "state": pod.state.value,
            "port": pod.port,
            "pids": pids,
            "in_flight": pod.in_flight,
            "queued": pod.queued,
            "restarts": pod.restarts,
            "memory_bytes": memory.resident_bytes(memory.descendants(pids)),
            "failure": describe_failure(pod.failure),
            "log_dir": str(pod.containers.log_dir),
            "timeline": {
                "created": at(timeline.created),
                "init_started": at(timeline.init_started),
                "init_ended": at(timeline.init_ended),
                "started": at(timeline.started),
                "listening": at(timeline.listening),
                "ready": at(timeline.ready),
                "first_answer": at(timeline.first_answer),
            },
        }

    def _requests(self, query: Mapping[str, str]) -> object:
        limit, after = _number(query, "limit", 100), _number(query, "after", 0)
        now = self._engine.clock.now()
        recent = self._engine.recorder.recent(limit, after=after)
        return {"requests": [record.to_json(now) for record in recent]}

    def _trace(self, query: Mapping[str, str]) -> object:
        now = self._engine.clock.now()
        records = self._engine.recorder.trace(query.get("id", ""))
        return {"requests": [record.to_json(now) for record in records]}

    def _logs(self, query: Mapping[str, str]) -> object:
        key = self._key(query.get("service", ""))
        namespace, _, name = key.partition("/")
        files = logview.find(
            self._engine.state.logs / namespace / name,
            pod=query.get("pod", ""),
            container=query.get("container", ""),
            previous=query.get("previous", "") in ("1", "true"),
        )
        tail = _number(query, "tail", 200)
        return {"files": [logview.describe(file, tail) for file in files]}

    async def _events(self, query: Mapping[str, str]) -> object:
        eventing = self._engine.eventing
        if eventing is None:
            return {
                "brokers": [],
                "depth": {},
                "stats": {},
                "recent": [],
                "pending": [],
                "dead": [],
            }
        broker, limit = eventing.broker, _number(query, "limit", 100)
        return {
            "brokers": sorted(broker.brokers),
            "depth": broker.depth(),
            "stats": dict(broker.stats),
            "recent": broker.recent()[:limit],
            "pending": await broker.pending(limit),
            "dead": await broker.dead(limit),
        }

    # --- acting ---

    async def _replay(self, arguments: Mapping[str, Any]) -> object:
        eventing, number = self._engine.eventing, arguments.get("id")
        if eventing is None:
            raise NotFound("this engine has no broker")
        if number is not None and not isinstance(number, int):
            raise BadRequest("id must be the number of a dead letter, or null for all")
        return {"replayed": await eventing.broker.replay(number)}

    async def _invoke(self, arguments: Mapping[str, Any]) -> object:
        key = self._key(str(arguments.get("service", "")))
        service = self._engine.services.by_key[key].service
        path = str(arguments.get("path") or "/")
        if not path.startswith("/"):
            raise BadRequest("the path must begin with /")
        body = str(arguments.get("body") or "").encode()
        url = f"http://{service.name}.{service.namespace}.svc.cluster.local{path}"
        headers = {"content-type": "application/json", "user-agent": "turnout-console"}
        started = self._engine.clock.now()
        try:
            status, answer_headers, answer = await internal.request(
                self._engine.gateway,
                str(arguments.get("method") or "POST"),
                url,
                headers,
                body,
                service.template.timeout_s + 5,
            )
        except (OSError, ValueError) as error:
            raise BadRequest(str(error)) from error
        return {
            "status": status,
            "headers": answer_headers,
            "body": answer.decode(errors="replace"),
            "took_ms": round((self._engine.clock.now() - started) * 1000, 2),
        }

    def _scale(self, arguments: Mapping[str, Any]) -> object:
        key = self._key(str(arguments.get("service", "")))
        replicas = arguments.get("replicas")
        if replicas is not None and not (isinstance(replicas, int) and 0 <= replicas <= 1000):
            raise BadRequest("replicas must be a number from 0 to 1000, or null for automatic")
        revision = self._engine.services.by_key[key].serving
        revision.pin(replicas)
        return {"service": key, "revision": revision.name, "desired": revision.want}

    def _restart(self, arguments: Mapping[str, Any]) -> object:
        key = self._key(str(arguments.get("service", "")))
        held = self._engine.services.by_key[key]
        return {"service": key, "pods": sum(item.restart() for item in held.revisions.values())}

    def _stop(self, _: Mapping[str, Any]) -> object:
        self._engine.stopping.set()
        return {"stopping": True}

    def _key(self, name: str) -> str:
        """`NAME` or `NAMESPACE/NAME` to a service key."""
        services = self._engine.services.by_key
        if name in services:
            return name
        found = [key for key in services if key.partition("/")[2] == name]
        if len(found) == 1:
            return found[0]
        known = ", ".join(sorted(services)) or "none"
        what = "is in several namespaces; say NAMESPACE/NAME" if found else "does not exist"
        raise NotFound(f"service {name!r} {what}; there are: {known}")


def describe_failure(failure: PodFailed | None) -> dict[str, str] | None:
    if failure is None:
        return None
    return {"reason": failure.reason, "message": failure.message, "log_tail": failure.log_tail}


def graph_of(service: Any) -> object:
    """The graph a router service runs (its GRAPH_JSON), for drawing; None for other services."""
    for variable in service.template.serving.env:
        if variable.name == "GRAPH_JSON":
            try:
                return json.loads(variable.value)
            except ValueError:
                return None
    return None


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(query.get(name, default))
    except ValueError:
        raise BadRequest(f"{name} must be a number") from None
