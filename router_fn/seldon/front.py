"""The orchestrator over HTTP: paths, headers, answers (spec/seldon 2.4, 2.5, 2.9).

One `SeldonServer` per process, started and stopped like the router's `Router`. It borrows the
router's pool, calls and HTTP server; `work` holds what one request does.
"""

import asyncio
import json
import logging
import random
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import quote

from functions.wire import seldon_openapi
from functions.wire.headers import join
from functions.wire.http1 import Exchange, Limits, Server
from router_fn.calls import Target
from router_fn.fibers import Wait
from router_fn.metrics import CONTENT_TYPE
from router_fn.pool import make_pool
from router_fn.replies import Reply
from router_fn.seldon import messages, payload_log
from router_fn.seldon.calls import NodeCall
from router_fn.seldon.graph import Deployment, Predictor, Unit
from router_fn.seldon.heads import SeldonHead
from router_fn.seldon.metrics import SeldonMetrics
from router_fn.seldon.paths import Paths, Wanted
from router_fn.seldon.readiness import Readiness
from router_fn.seldon.traversal import JSON, Message
from router_fn.seldon.work import Feedback, GraphMetadata, Prediction, Work
from router_fn.settings import Settings
from router_fn.urls import Url, parse_url

if TYPE_CHECKING:
    from router_fn.grpc_front import GrpcExchange, GrpcFront
    from router_fn.seldon.grpc_front import SeldonGrpcFront
    from router_fn.seldon.grpc_nodes import GrpcNodes
    from router_fn.seldon.grpc_nodes import NodeCall as GrpcNodeCall
    from router_fn.seldon.tensorflow_front import TensorflowFront
    from router_fn.seldon.traces import Traces
    from router_fn.server import Router
    from router_fn.tracing import Span

logger = logging.getLogger(__name__)

MAX_SHADOWS: Final = 256
"""Copies under way to shadows; beyond that none are made, so that a slow shadow is harmless."""

_SPANS_S: Final = 0.2
FLUSH_S: Final = 2.0
"""How long the last payload events may take to leave before the process ends."""

RESPONSE_TIMEOUT_S: Final = 600.0
"""Knative's longest request."""


class SeldonServer:
    """A deployment being served."""

    def __init__(self, deployment: Deployment, settings: Settings) -> None:
        self.deployment = deployment
        self.settings = settings
        self.pool = make_pool(settings)
        self.paths = Paths(deployment)
        self.metrics = SeldonMetrics(deployment)
        self.live = [one for one in deployment.predictors if not one.shadow]
        self.shadows = [one for one in deployment.predictors if one.shadow]
        self.cors = (
            b"X-Content-Type-Options: nosniff\r\n"
            b"Access-Control-Allow-Origin: %b\r\n"
            b"Access-Control-Allow-Headers: %b\r\n"
            b"Access-Control-Allow-Methods: GET, POST, OPTIONS\r\n"
        ) % (settings.cors_origins.encode(), settings.cors_headers.encode())
        self.draining = False
        self.nodes = Readiness(deployment)
        self.shadowing: set[Work] = set()
        self._targets: dict[tuple[str, str], Target] = {}
        self._grpc_nodes: GrpcNodes | None = None
        self.traces = self._make_traces()
        self._payload_log: payload_log.PayloadLog | None = None
        limits = Limits(
            max_head_bytes=settings.max_head_bytes,
            max_body_bytes=settings.max_body_bytes or None,
            response_timeout_s=RESPONSE_TIMEOUT_S,
            max_connections=settings.max_connections,
        )
        self.server = Server(self.handle, limits)
        self.grpc: SeldonGrpcFront | TensorflowFront | GrpcFront | None = None

    async def start(self, sockets: Sequence[socket.socket] = ()) -> None:
        """Listen. Raises OSError."""
        self.pool.start()
        self.nodes.start()
        if self.traces is not None:
            self.traces.start()
        if self.settings.grpc_port is not None:
            self.grpc = self._make_grpc()
            await self.grpc.start(self.settings.host, self.settings.grpc_port)
            logger.info("gRPC on port %d", self.grpc.port)
        if sockets:
            await self.server.listen(sockets=sockets)
        else:
            await self.server.listen(self.settings.host or None, self.settings.port)

    async def stop(self) -> bool:
        """Drain, as the router does. False if requests had to be cut off."""
        self.draining = True
        logger.info("draining")
        await asyncio.sleep(self.settings.drain_delay_s)
        finished = await self.server.drain(self.settings.drain_timeout_s)
        if self.grpc is not None:
            await self.grpc.stop(self.settings.drain_timeout_s)
        for work in list(self.shadowing):
            work.give_up()
        self.nodes.stop()
        await self._flush()
        if self._grpc_nodes is not None:
            await self._grpc_nodes.close()
        await self.pool.close()
        logger.info("stopped")
        return finished

    async def _flush(self) -> None:
        """Let queued payload events go, as far as the time allows."""
        end = time.monotonic() + FLUSH_S
        log = self._payload_log
        if self.traces is not None and self.traces.flush():
            await asyncio.sleep(_SPANS_S)
        while log is not None and not log.idle and time.monotonic() < end:
            await asyncio.sleep(0.02)

    @property
    def ready(self) -> bool:
        """Whether requests are welcome: nodes in the same pod are, and the end has not come."""
        return not self.draining and self.nodes.ready

    def _make_traces(self) -> "Traces | None":
        if not self.settings.otlp_endpoint:
            return None
        from router_fn.seldon.traces import Traces

        return Traces(self.settings, self.pool)

    def _make_grpc(self) -> "SeldonGrpcFront | TensorflowFront | GrpcFront":
        limit = self.settings.max_body_bytes or -1
        if self.deployment.protocol == "v2":
            from router_fn.grpc_front import GrpcFront

            return GrpcFront(cast("Router", self), limit)
        if self.deployment.protocol == "tensorflow":
            from router_fn.seldon.tensorflow_front import TensorflowFront

            return TensorflowFront(self, limit)
        from router_fn.seldon.grpc_front import SeldonGrpcFront

        return SeldonGrpcFront(self, limit)

    def payload_log(self) -> payload_log.PayloadLog:
        """The queue of payload events, made when the first is offered."""
        if self._payload_log is None:
            self._payload_log = payload_log.PayloadLog(self.deployment, self.pool)
        return self._payload_log

    def run_apart(self, exchange: "GrpcExchange") -> None:
        """A prediction that came in as a V2 message."""
        head = SeldonHead(exchange.head, self.paths, traced=self.traces is not None)
        puid = head.puid or uuid.uuid4().hex.encode()
        predictor, body = self.draw(), exchange.body
        Prediction(self, predictor, cast("Exchange", exchange), head, puid, body).start()

    # --- upstream ---------------------------------------------------------------------------

    def target(self, unit: Unit, path: str) -> Target:
        """Where a unit is called; kept."""
        key = (unit.service_url, path)
        target = self._targets.get(key)
        if target is None:
            url: Url = parse_url(unit.service_url + path)
            target = self._targets[key] = Target(self.pool, url, self.deployment.timeout_s, "Never")
        return target

    def post(
        self,
        unit: Unit,
        path: str,
        message: Message,
        head: SeldonHead,
        puid: bytes,
        parent: "Span | None" = None,
    ) -> Wait[Reply]:
        """Call a node. `parent` is the request's span, if it is traced."""
        span = None
        if self.traces is not None and parent is not None:
            span = self.traces.call(parent, unit.name, path)
        fields = span.fields() if span is not None else b""
        if unit.is_grpc:
            over = self._over_grpc(unit, path, message.body, head, puid, fields)
            over.on_done = self._ender(span)
            return over
        call = NodeCall(self.target(unit, path), head, message.body, unit, self.metrics)
        call.on_done = self._ender(span)
        call.extra_head = fields
        call.post(message, puid)
        return call

    def _ender(self, span: "Span | None") -> Callable[[int], None] | None:
        """What ends a call's span when the call is over."""
        traces = self.traces
        if span is None or traces is None:
            return None
        return lambda code: traces.end(span, code, "" if code else "no answer")

    def get(self, unit: Unit, path: str, head: SeldonHead) -> Wait[Reply]:
        if unit.is_grpc:
            return self._over_grpc(unit, path, b"", head, head.puid)
        call = NodeCall(self.target(unit, path), head, b"", unit, self.metrics)
        call.get()
        return call

    def _over_grpc(
        self, unit: Unit, path: str, body: bytes, head: SeldonHead, puid: bytes, fields: bytes = b""
    ) -> "GrpcNodeCall":
        headers = head.metadata(puid, fields)
        return self._nodes_over_grpc().call(unit, path, body, headers, self.metrics)

    def pass_on(
        self, unit: Unit, method: str, body: bytes, head: SeldonHead, puid: bytes,
        limit_s: float | None, parent: "Span | None" = None,
    ) -> "GrpcNodeCall":  # fmt: skip
        """Call a method of a node with what is protobuf already. `limit_s`: what is left of the
        client's deadline."""
        span = None
        if self.traces is not None and parent is not None:
            span = self.traces.call(parent, unit.name, method)
        headers = head.metadata(puid, span.fields() if span is not None else b"")
        nodes = self._nodes_over_grpc()
        call = nodes.pass_on(unit, method, body, headers, self.metrics, limit_s)
        call.on_done = self._ender(span)
        return call

    def _nodes_over_grpc(self) -> "GrpcNodes":
        if self._grpc_nodes is None:
            from router_fn.seldon.grpc_nodes import GrpcNodes  # only graphs with such nodes load it

            limit = self.settings.max_response_bytes
            self._grpc_nodes = GrpcNodes(self.deployment.timeout_s, limit)
        return self._grpc_nodes

    # --- a request --------------------------------------------------------------------------

    def handle(self, exchange: Exchange) -> None:
        head = exchange.head.context
        if head is None:
            head = exchange.head.context = SeldonHead(
                exchange.head, self.paths, traced=self.traces is not None
            )
        head = cast("SeldonHead", head)
        wanted = head.wanted
        if isinstance(wanted, int):
            text = "there is nothing at this path" if wanted == 404 else "method not allowed"
            exchange.respond(wanted, messages.failure(wanted, text), JSON, self.cors)
            return
        puid = head.puid or uuid.uuid4().hex.encode()
        match wanted.what:
            case "predict":
                self._predict(exchange, head, puid)
            case "feedback":
                predictor = self._predictor_of(exchange.body)
                Feedback(self, predictor, exchange, head, puid).start()
            case "graph_metadata" if self.live[0].remote:
                root = self.live[0].root
                path = "/api/v1.0/metadata"
                Work.of_call(
                    self, exchange, root, head, puid, lambda: self.get(root, path, head)
                ).start()
            case "graph_metadata":
                GraphMetadata(self, self.live[0], exchange, head, puid).start()
            case "node_status" | "node_metadata":
                self._node(exchange, head, wanted, puid)
            case _:
                self._page(exchange, wanted)

    def _predict(self, exchange: Exchange, head: SeldonHead, puid: bytes) -> None:
        wanted = head.wanted
        assert isinstance(wanted, Wanted)
        predictor = self.draw()
        if wanted.node and wanted.node not in self.names_of(predictor):
            text = f"there is no model {wanted.node!r} here; the name may be left out"
            exchange.respond(404, messages.failure(404, text), JSON, self.cors)
            return
        for shadow in self.shadows:
            copied = random.random() * 100 < shadow.traffic  # noqa: S311 - a lottery, no secret
            if copied and self.takes_shadow:
                work = Prediction(self, shadow, None, head, puid, exchange.body)
                self.shadowing.add(work)
                work.start()
        Prediction(self, predictor, exchange, head, puid, exchange.body).start()

    @property
    def takes_shadow(self) -> bool:
        """Whether one more copy may go to a shadow."""
        return len(self.shadowing) < MAX_SHADOWS

    def names_of(self, predictor: Predictor) -> tuple[str, ...]:
        """What a request may call the graph of a predictor."""
        return (predictor.root.name, predictor.root.model_name, self.deployment.name)

    def draw(self) -> Predictor:
        """Who gets a request: by chance, as the traffic says."""
        if len(self.live) == 1:
            return self.live[0]
        point = random.random() * 100  # noqa: S311 - a lottery, no secret
        for predictor in self.live:
            point -= predictor.traffic
            if point < 0:
                return predictor
        return self.live[-1]

    def _predictor_of(self, body: bytes) -> Predictor:
        """Who gave the answer that a feedback is about: by its request path, else by chance."""
        if len(self.live) == 1:
            return self.live[0]
        nodes = messages.nodes_of_feedback(body)
        for predictor in self.live:
            if nodes and nodes <= predictor.nodes:
                return predictor
        return self.draw()

    def unit_of(self, name: str) -> Unit | None:
        """The node of a name; but for the seldon protocol also the root by the graph's names."""
        units = [unit for predictor in self.live for unit in predictor.root.walk()]
        unit = next((one for one in units if one.name == name), None)
        if unit is None and self.deployment.protocol != "seldon":
            unit = self.live[0].root if name in self.names_of(self.live[0]) else None
        return unit

    def _node(self, exchange: Exchange, head: SeldonHead, wanted: Wanted, puid: bytes) -> None:
        unit = self.unit_of(wanted.node)
        if unit is None and (remote := self._remote_with(wanted.node)) is not None:
            what = "metadata" if wanted.what == "node_metadata" else "status"
            path, root = f"/api/v1.0/{what}/{quote(wanted.node, safe='')}", remote.root
            Work.of_call(
                self, exchange, root, head, puid, lambda: self.get(root, path, head)
            ).start()
            return
        if unit is None or not unit.service_url:
            text = f"there is no node {wanted.node!r} that has a service"
            exchange.respond(404, messages.failure(404, text), JSON, self.cors)
            return
        path = _node_path(self.deployment, unit, wanted.what)
        Work.of_call(self, exchange, unit, head, puid, lambda: self.get(unit, path, head)).start()

    def _remote_with(self, node: str) -> Predictor | None:
        """A predictor with a router of its own that has a node of this name."""
        seldon = self.deployment.protocol == "seldon"
        found = (one for one in self.live if one.remote and node in one.nodes)
        return next(found, None) if seldon else None

    def _page(self, exchange: Exchange, wanted: Wanted) -> None:
        match wanted.what:
            case "ready" if not self.ready:
                said = self.nodes.said() or "shutting down"
                text = f"{said}\n".encode()
                exchange.respond(503, text, b"text/plain; charset=utf-8", self.cors)
            case "metrics":
                exchange.respond(200, self.metrics.render(), CONTENT_TYPE, self.cors)
            case "openapi":
                document = seldon_openapi.deployment(self.deployment.name)
                exchange.respond(200, json.dumps(document, indent=1).encode(), JSON, self.cors)
            case "doc":
                title = f"{self.deployment.name} ({self.deployment.namespace})"
                page = seldon_openapi.page(title, seldon_openapi.deployment(self.deployment.name))
                exchange.respond(200, page, b"text/html; charset=utf-8", self.cors)
            case _:
                exchange.respond(200, b"", b"", self.cors)

    def fields(self, head: SeldonHead, puid: bytes, routing: bytes) -> bytes:
        """Header fields of an answer."""
        fields = [(b"Seldon-Puid", puid)]
        if routing:
            fields.append((b"Seldon-Routing", routing))
        if head.event_version:
            name = self.deployment.name.encode()
            kind = b"seldon.%b.%b.response" % (name, self.deployment.namespace.encode())
            fields += [
                (b"Ce-Id", puid),
                (b"Ce-Specversion", head.event_version),
                (b"Ce-Source", b"seldon." + name),
                (b"Ce-Type", kind),
                (b"Ce-Path", head.path),
            ]
        return self.cors + join(fields)


def _node_path(deployment: Deployment, unit: Unit, what: str) -> str:
    model = unit.model_name
    if deployment.protocol == "tensorflow" or unit.server_protocol == "tensorflow":
        return f"/v1/models/{model}" + ("/metadata" if what == "node_metadata" else "")
    if deployment.protocol == "v2":
        return f"/v2/models/{model}" + ("/ready" if what == "node_status" else "")
    return "/metadata" if what == "node_metadata" else "/health/status"
