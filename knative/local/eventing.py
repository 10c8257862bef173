"""Eventing objects of an engine: Brokers and Triggers, PingSources, SinkBindings.

The broker itself is `broker.BrokerService`, a library that knows neither sockets nor pods; here it
gets the gateway's requests and sends through the gateway. It is loaded only when a workload has
eventing objects.
"""

import asyncio
import base64
import json
import logging
import random
import time
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from events import codec

from . import cron, internal, spec
from .broker import BrokerService
from .collect import collect_body
from .errors import EngineError, InvalidWorkload
from .exchange import Exchange
from .gateway import Gateway

logger = logging.getLogger(__name__)

INGRESS = "http://broker-ingress.knative-eventing.svc.cluster.local"
MAX_EVENT_BYTES = 10 * 1024 * 1024
PING_JITTER_S = 0.5


class Eventing:
    """Everything eventing of one engine."""

    def __init__(
        self, gateway: Gateway, path: Path, objects: Iterable[spec.Json], *, max_pending: int
    ) -> None:
        self._gateway = gateway
        self._objects = list(objects)
        self._tasks: set[asyncio.Task[None]] = set()
        self._pings: list[asyncio.Task[None]] = []
        try:
            self.broker = BrokerService(path, self._objects, self._deliver, max_pending=max_pending)
        except ValueError as error:
            raise InvalidWorkload([str(error)]) from error

    async def start(self) -> None:
        """Open the queue, deliver what is left from before, start the clocks of PingSources."""
        try:
            await self.broker.start()
        except OSError as error:
            raise EngineError(f"cannot open the event queue: {error}") from error
        self._start_pings()
        self._gateway.broker = self.handle

    async def update(self, objects: Iterable[spec.Json]) -> None:
        """New manifests. Raises InvalidWorkload; the old ones stay then."""
        self._objects = list(objects)
        try:
            await self.broker.update(self._objects)
        except ValueError as error:
            raise InvalidWorkload([str(error)]) from error
        await self._stop_pings()
        self._start_pings()

    async def stop(self) -> None:
        """Events that are not delivered stay in the queue for the next start."""
        self._gateway.broker = None
        await self._stop_pings()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.broker.stop(1.0)

    # --- ingress ---

    def handle(self, exchange: Exchange) -> None:
        """Gateway hook: a request to the ingress host."""
        collect_body(
            exchange, MAX_EVENT_BYTES, lambda body: self._spawn(self._accept(exchange, body))
        )

    async def _accept(self, exchange: Exchange, body: bytes) -> None:
        request = exchange.request
        headers = codec.lower_wire(request.headers)
        path = request.target.decode("latin-1").partition("?")[0]
        status, answer, text = await self.broker.handle(
            request.method.decode("latin-1"), path, headers, body
        )
        plain = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in answer.items()
            if name.lower() != "content-length"
        ]
        exchange.respond(status, plain, text)

    async def _deliver(
        self, url: str, headers: dict[str, str], body: bytes, timeout_s: float, /
    ) -> tuple[int, Mapping[str, str], bytes]:
        return await self._send(url, headers, body, None)  # the dispatcher has a clock of its own

    async def _send(
        self, url: str, headers: dict[str, str], body: bytes, timeout_s: float | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        try:
            return await internal.request(self._gateway, "POST", url, headers, body, timeout_s)
        except ValueError as error:
            raise OSError(str(error)) from error

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- PingSource ---

    def _start_pings(self) -> None:
        loop = asyncio.get_running_loop()
        for item in self._objects:
            if item.get("kind") == "PingSource":
                self._pings.append(loop.create_task(self._ping(Ping(item))))

    async def _stop_pings(self) -> None:
        for task in self._pings:
            task.cancel()
        await asyncio.gather(*self._pings, return_exceptions=True)
        self._pings.clear()

    async def _ping(self, ping: "Ping") -> None:
        while True:
            due = ping.schedule.after(time.time()) + random.random() * PING_JITTER_S  # noqa: S311
            while (left := due - time.time()) > 0:
                await asyncio.sleep(min(left, 30.0))  # a step of the wall clock is noticed in time
            try:
                headers, body = ping.event(time.time())
                status, _, _ = await self._send(ping.sink, headers, body, 60.0)
                if status >= 300:
                    logger.warning("%s: %s answered %s", ping.source, ping.sink, status)
            except (OSError, TimeoutError) as error:
                logger.warning("%s: %s: %s", ping.source, ping.sink, error)


class Ping:
    """A PingSource: its schedule, its sink and the event it sends. Raises InvalidWorkload."""

    def __init__(self, item: spec.Json) -> None:
        metadata, body = item.get("metadata") or {}, item.get("spec") or {}
        namespace = str(metadata.get("namespace") or "default")
        name = metadata.get("name", "")
        self.source = f"/apis/v1/namespaces/{namespace}/pingsources/{name}"
        try:
            self.schedule = cron.parse(
                str(body.get("schedule") or "* * * * *"), str(body.get("timezone") or "UTC")
            )
            self.sink = destination(body.get("sink") or {}, namespace)
        except ValueError as error:
            raise InvalidWorkload([f"PingSource {namespace}/{name}: {error}"]) from None
        self._type = str(body.get("contentType") or "application/json")
        encoded = body.get("dataBase64")
        self._data = (
            base64.b64decode(str(encoded)) if encoded else str(body.get("data") or "").encode()
        )
        self._extensions = ((body.get("ceOverrides") or {}).get("extensions")) or {}

    def event(self, now: float) -> tuple[dict[str, str], bytes]:
        """Headers and body of one event, binary mode."""
        headers = {
            "ce-specversion": "1.0",
            "ce-type": "dev.knative.sources.ping",
            "ce-source": self.source,
            "ce-id": str(uuid.uuid4()),
            "ce-time": datetime.fromtimestamp(now, UTC).isoformat().replace("+00:00", "Z"),
            "content-type": self._type,
        }
        headers.update({f"ce-{key}": str(value) for key, value in self._extensions.items()})
        return headers, self._data


def destination(sink: spec.Json, namespace: str) -> str:
    """URL of a Destination: a ref (Service or Broker), a uri, or a uri relative to the ref.

    Raises ValueError.
    """
    reference, uri = sink.get("ref"), str(sink.get("uri") or "")
    if not reference:
        if not uri:
            raise ValueError("the sink needs a ref or a uri")
        return uri
    target = str(reference.get("namespace") or namespace)
    name, kind = str(reference.get("name", "")), str(reference.get("kind", ""))
    if kind == "Broker":
        base = f"{INGRESS}/{target}/{name}"
    elif kind == "Service":
        base = f"http://{name}.{target}.svc.cluster.local/"
    else:
        raise ValueError(
            f"a sink of kind {kind} is not known here; use a Service, a Broker or a uri"
        )
    return urljoin(base, uri) if uri else base


def sink_variables(objects: Iterable[spec.Json], service: spec.Service) -> dict[str, str] | None:
    """K_SINK and K_CE_OVERRIDES that a SinkBinding injects into a service; None without one."""
    for item in objects:
        if item.get("kind") not in ("SinkBinding", "ContainerSource"):
            continue
        metadata, body = item.get("metadata") or {}, item.get("spec") or {}
        namespace = str(metadata.get("namespace") or "default")
        if namespace == service.namespace and _is_subject(body.get("subject") or {}, service):
            overrides = body.get("ceOverrides")
            return {
                "K_SINK": destination(body.get("sink") or {}, namespace),
                "K_CE_OVERRIDES": json.dumps(overrides) if overrides else "",
            }
    return None


def _is_subject(subject: spec.Json, service: spec.Service) -> bool:
    if subject.get("kind") != "Service":
        return False
    if subject.get("name"):
        return bool(subject["name"] == service.name)
    labels = (subject.get("selector") or {}).get("matchLabels") or {}
    return bool(labels) and all(service.labels.get(key) == value for key, value in labels.items())
