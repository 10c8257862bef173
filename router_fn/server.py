"""The router: HTTP in, a plan run, HTTP out. Puts engine, calls, pool and wire together.

One `Router` per process. `handle` is the wire's handler: it runs on the loop for every request. A
graph that is one plain step takes `_Direct`, a call that answers the client itself; every other
graph runs as a fiber in a `Run`.
"""

import asyncio
import logging
import random
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from functions.wire.container import READY_PATH
from functions.wire.headers import Headers, join
from functions.wire.http1 import Exchange, Limits, Server
from functions.wire.http1_head import RequestHead, ResponseHead
from router_fn import body as bodies
from router_fn import engine, plan
from router_fn.calls import MAX_KEPT_HEADS, Call, Incoming, Target
from router_fn.content import JSON, content_type
from router_fn.errors import NoRouteMatched, RequestFailed, UpstreamError
from router_fn.graph import Graph, Step
from router_fn.observe import ObservedRun, Observer
from router_fn.pool import make_pool
from router_fn.replies import Reply
from router_fn.run import Run
from router_fn.settings import Settings
from router_fn.upstream import UpstreamConnection
from router_fn.urls import Url
from router_fn.wake import Waker

if TYPE_CHECKING:
    from router_fn.admin import Admin
    from router_fn.grpc_front import GrpcExchange, GrpcFront
    from router_fn.grpc_steps import GrpcTarget

logger = logging.getLogger(__name__)

MAX_KEPT_INCOMINGS = 64
"""Distinct sets of forwarded headers remembered; most graphs forward nothing, which is one."""

_PROBE = object()
"""Context of a head that asks for readiness."""

FLUSH_S = 0.2
"""How long the last spans may take to leave before the process ends."""

_READY = READY_PATH.encode()


class Router:
    """A graph being served."""

    def __init__(self, graph: Graph, settings: Settings) -> None:
        self.graph = graph
        self.settings = settings
        self.pool = make_pool(settings)
        self._grpc_targets: list[GrpcTarget] = []
        self.plan = plan.build(graph, self._bind)
        self.waker = Waker(self.plan, self.pool, settings)
        self.ready = True
        self.admin: Admin | None = None
        self.grpc_front: GrpcFront | None = None
        self.export_head = Incoming(otlp_headers(settings.otlp_headers))
        """What goes with exported spans."""
        self._headers = _header_plan(graph, settings)
        self._returned = frozenset(
            name.lower().encode("latin-1", "replace") for name in graph.return_headers
        )
        self.observer = Observer(self)
        self._make_run = ObservedRun if self.observer.wanted else Run
        self._find_direct()
        exchange_class: type[Exchange] = Exchange
        if self._single is not None or self._choose is not None:
            exchange_class = type("_Direct", (_Direct,), {"__slots__": (), "router": self})
        self.server = Server(
            self.handle,
            self._limits(),
            exchange_class,
            takes_cut_bodies=True,  # KServe's router runs the graph with what it could read
        )
        self._incomings: dict[tuple[tuple[bytes, bytes], ...], Incoming] = {}
        self._max_concurrency = graph.max_concurrency
        self._apart = 0  # requests under way that came over gRPC

    def _bind(self, url: Url, step: Step) -> "Target | GrpcTarget":
        if url.scheme in ("grpc", "grpcs"):
            from router_fn.grpc_steps import GrpcTarget  # only graphs with such steps load grpc

            limit = self.graph.timeouts.service_client_s
            target = GrpcTarget(url, limit, self.settings.max_response_bytes)
            self._grpc_targets.append(target)
            return target
        return Target(self.pool, url, self.graph.timeouts.service_client_s, step.stream)

    def _limits(self) -> Limits:
        settings, timeouts = self.settings, self.graph.timeouts
        body = (
            settings.max_body_bytes
            if self.graph.max_body_bytes is None
            else self.graph.max_body_bytes
        )
        return Limits(
            max_head_bytes=settings.max_head_bytes,
            max_body_bytes=body or None,
            read_timeout_s=timeouts.server_read_s,
            idle_timeout_s=timeouts.server_idle_s,
            response_timeout_s=timeouts.server_write_s,
            write_timeout_s=timeouts.server_write_s,
            max_connections=settings.max_connections,
        )

    def _find_direct(self) -> None:
        """Graphs that come down to one call per request, with nothing asked of us but to pass
        bytes, skip the engine."""
        self._single: Target | None = None
        self._choose: Callable[[bytes], engine.StepPlan | None] | None = None
        if self.graph.timeout_s is not None or self._returned or self.observer.wanted:
            return
        root = self.plan.root
        if not all(_is_direct(step) for step in root.steps):
            return
        if self.plan.single is not None:
            self._single = self.plan.single.target
        elif isinstance(root, engine.SwitchPlan):
            switch = root
            self._choose = lambda body: switch.choose(body, None)
        elif isinstance(root, engine.SplitterPlan) and not root.sticky_source:
            splitter, draw = root, random.random
            self._choose = lambda body: splitter.choose(draw())

    async def start(self, sockets: Sequence[socket.socket] = ()) -> None:
        """Listen: on the sockets given, else as the settings say. Raises OSError."""
        self.pool.start()
        self.observer.start()
        settings = self.settings
        if settings.metrics_port is not None:
            await self._start_admin(settings.metrics_port)
        if settings.grpc_port is not None:
            from router_fn.grpc_front import GrpcFront

            self.grpc_front = GrpcFront(self, settings.max_body_bytes or -1)
            await self.grpc_front.start(settings.host, settings.grpc_port)
            logger.info("gRPC on port %d", self.grpc_front.port)
        if sockets:
            await self.server.listen(sockets=sockets)
        else:
            await self.server.listen(settings.host or None, settings.port)

    async def _start_admin(self, port: int) -> None:
        """The second port; each further worker of this pod takes the next one."""
        from router_fn.admin import Admin

        admin = Admin(self)
        last: OSError | None = None
        for offset in range(self.settings.workers if port else 1):
            try:
                await admin.server.listen(self.settings.host or None, port + offset)
            except OSError as error:
                last = error
            else:
                self.admin = admin
                logger.info("metrics on port %d", admin.server.ports[0])
                return
        assert last is not None
        raise last

    async def stop(self) -> bool:
        """Drain: not ready at once; a moment later no new connections; then finish what is under
        way.

        False if requests had to be cut off.
        """
        self.ready = False
        logger.info("draining")
        await asyncio.sleep(self.settings.drain_delay_s)
        finished = await self.server.drain(self.settings.drain_timeout_s)
        if not finished:
            logger.warning("requests were cut off after %g s", self.settings.drain_timeout_s)
        if self.grpc_front is not None:
            await self.grpc_front.stop(self.settings.drain_timeout_s)
        for target in self._grpc_targets:
            await target.close()
        self.waker.stop()
        if self.observer.flush():
            await asyncio.sleep(FLUSH_S)
        if self.admin is not None:
            await self.admin.server.drain(0)
        await self.pool.close()
        logger.info("stopped")
        return finished

    # --- one request -----------------------------------------------------------------------------

    def handle(self, exchange: Exchange) -> None:
        # Every request comes through here, so no casts: they are calls.
        head = exchange.head
        incoming: Any = head.context
        if incoming is None:
            incoming = head.context = self.read_head(head)
        if incoming is _PROBE:
            if self.ready:
                exchange.respond(200)
            else:
                exchange.respond(503, b"shutting down\n", b"text/plain; charset=utf-8", _NOSNIFF)
            return
        if self._max_concurrency is not None and self._crowded(self.server.in_flight):
            exchange.respond(
                503, engine.error_body("too many requests at once"), JSON, b"Retry-After: 1\r\n"
            )
            return
        body = exchange.body
        target: Any = self._single
        if target is not None:
            ready = incoming.direct.get(len(body)) or self._make_ready(target, incoming, len(body))
        elif self._choose is not None:
            step = self._choose(body)
            if step is None:
                self.fail(exchange, NoRouteMatched())
                return
            assert step.leaf is not None
            target = step.leaf.target
            ready = incoming.heads.get((target, len(body))) or target.head(incoming, len(body))
        else:
            self._make_run(self, exchange, incoming).start()
            return
        direct: Any = exchange
        direct.target = target
        idle = target.idle
        if idle and incoming.inflates:
            connection = idle.pop()
            if connection.alive:
                direct.connection = connection
                exchange.on_abort = connection.give_up
                connection.begin(direct, ready, body)
                return
        self.call_directly(direct)

    def fail(self, exchange: Exchange, error: RequestFailed) -> None:
        """KServe's error object, with the error's status."""
        exchange.respond(error.status, engine.error_body(str(error)), JSON)

    def read_head(self, head: RequestHead) -> object:
        """What this head means: an Incoming, or that it is the probe. Once per distinct head."""
        if path_of(head.target) == _READY:
            return _PROBE
        selected = self._headers(head.headers)
        if self.observer.tracer is not None:  # every call carries its own span's
            selected = [field for field in selected if field[0].lower() not in _TRACE_FIELDS]
        key = tuple(selected)
        incoming = self._incomings.get(key)
        if incoming is None:
            if len(self._incomings) >= MAX_KEPT_INCOMINGS:
                self._incomings.clear()
            incoming = self._incomings[key] = Incoming(selected)
        return incoming

    def _make_ready(self, target: Target, incoming: Incoming, length: int) -> bytes:
        """The only target's request head for this length, kept for the next of its kind."""
        ready = target.head(incoming, length)
        if len(incoming.direct) < MAX_KEPT_HEADS:
            incoming.direct[length] = ready
        return ready

    def _crowded(self, in_flight: int) -> bool:
        """More requests at once than the graph allows; `in_flight` includes the one asking."""
        return self._max_concurrency is not None and in_flight + self._apart > self._max_concurrency

    def run_apart(self, exchange: "GrpcExchange") -> None:
        """Run the graph for a request that did not come through the HTTP server."""
        if self._crowded(self.server.in_flight + 1):
            exchange.respond(503, engine.error_body("too many requests at once"))
            return
        self._apart += 1
        exchange.on_answer = self._left
        incoming = Incoming(self._headers(exchange.head.headers))
        self._make_run(self, cast("Exchange", exchange), incoming).start()

    def _left(self) -> None:
        self._apart -= 1

    def call_directly(self, direct: "_Direct") -> None:
        """Serve a direct request off the fast path: no connection yet, a chunked body, a second
        try."""
        self.make_direct(direct).begin(None, direct)

    def make_direct(self, direct: "_Direct") -> "_DirectCall":
        call = _DirectCall(direct.target, cast("Incoming", direct.head.context), direct.body)
        call.exchange = direct
        direct.on_abort = call.cancel
        return call

    def returned_fields(self, reply: Reply) -> bytes:
        """The upstream's header fields that the graph passes back to the client."""
        if not self._returned or reply.head is None:
            return b""
        return join((k, v) for k, v in reply.head.headers if k.lower() in self._returned)


def path_of(target: bytes) -> bytes:
    """The path that a request target means: without host (the form proxies use), query and percent
    signs."""
    path = target.partition(b"?")[0]
    if b"://" in path and not path.startswith(b"/"):
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    if b"%" in path:
        from urllib.parse import unquote_to_bytes

        path = unquote_to_bytes(path)
    return path


_TRACE_FIELDS = frozenset({b"traceparent", b"tracestate"})
_NOSNIFF = b"X-Content-Type-Options: nosniff\r\n"


def _is_direct(step: engine.StepPlan) -> bool:
    """The step is a plain call of one of our own targets, with no time limit to watch."""
    leaf = step.leaf
    if leaf is None or not step.plain or leaf.timeout_s is not None:
        return False
    return isinstance(leaf.target, Target) and leaf.target.timeout_s is None


class _Direct(Exchange):
    """A request that is one call: it is its own receiver, so its answer goes straight to the
    client.

    Anything out of the ordinary (a redirect, a stream, a lost connection) is handed to a `Call`.
    """

    __slots__ = ("connection", "target")

    inflates = True
    cancelled = False
    router: Router
    target: Target
    connection: UpstreamConnection

    def replied(self, status: int, body: bytes, head: ResponseHead) -> None:
        if bodies.is_json(body):
            self.respond(status, body, JSON)
        else:
            self.respond(status, body, content_type(body))

    def failed(self, error: UpstreamError) -> None:
        self.respond(error.status, engine.error_body(str(error)), JSON)

    def unsent(self) -> None:
        self.router.call_directly(self)

    def wants_stream(self, head: ResponseHead) -> bool:
        call = self.router.make_direct(self)
        call.take_over(self.connection, self)
        return call.wants_stream(head)

    def stream_data(self, data: bytes) -> None:
        raise AssertionError("handed to a Call")

    def stream_end(self) -> None:
        raise AssertionError("handed to a Call")


class _DirectCall(Call):
    """A one-step graph's call off the fast path."""

    exchange: Exchange

    def settle(self, status: int, body: bytes, head: ResponseHead) -> None:
        self.exchange.respond(status, body, content_type(body))

    def fail(self, error: BaseException) -> None:
        assert isinstance(error, RequestFailed)
        self.exchange.respond(error.status, engine.error_body(str(error)), JSON)


def otlp_headers(text: str) -> Headers:
    """OTEL_EXPORTER_OTLP_HEADERS: `name=value` pairs, percent-encoded values."""
    from urllib.parse import unquote_to_bytes

    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return [(name.strip().encode(), unquote_to_bytes(value.strip())) for name, _, value in pairs]


def _header_plan(graph: Graph, settings: Settings) -> Callable[[Headers], Headers]:
    """Which of a client's headers go upstream: the graph's list, else KServe's variable, else
    none."""
    wanted: str | list[str] = settings.propagate_headers or ""
    if graph.propagate_headers is not None:
        wanted = list(graph.propagate_headers)
    if not wanted:
        return lambda headers: []
    from router_fn.header_patterns import compile_patterns

    patterns = compile_patterns(wanted, ignore_case=graph.propagate_ignore_case)
    for problem in patterns.problems:
        logger.warning("PROPAGATE_HEADERS: %s", problem)
    return patterns.select
