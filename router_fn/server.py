"""The router: HTTP in, a plan run, HTTP out. Puts engine, calls, pool and wire together.

One `Router` per process. `handle` is the wire's handler: it runs on the loop for every request. A graph that is one
plain step takes `_Direct`, a call that answers the client itself; every other graph runs as a fiber in a `Run`.
"""

import logging
import random
import time
import zlib
from collections.abc import Callable
from typing import cast

from functions.wire.container import READY_PATH
from functions.wire.headers import Headers, canonical, join
from functions.wire.http1 import Exchange, Limits, Server
from functions.wire.http1_head import RequestHead, ResponseHead
from router_fn import body as bodies
from router_fn import engine, plan, sniff
from router_fn.calls import Call, Incoming, Target
from router_fn.errors import DeadlineExceeded, RequestFailed, UpstreamError
from router_fn.fibers import Fiber, Wait
from router_fn.graph import Graph, Step
from router_fn.pool import Pool, PoolLimits
from router_fn.proxies import make_chooser
from router_fn.replies import STREAMED, Reply
from router_fn.settings import Settings
from router_fn.upstream import UpstreamConnection
from router_fn.urls import Url
from router_fn.wake import Waker

logger = logging.getLogger(__name__)

JSON = b"application/json"
_READY = READY_PATH.encode()


class Router:
    """A graph being served."""

    def __init__(self, graph: Graph, settings: Settings) -> None:
        self.graph = graph
        self.settings = settings
        self.pool = Pool(
            PoolLimits(
                max_connections=settings.max_upstream_connections,
                idle_timeout_s=settings.upstream_idle_s,
                connect_timeout_s=settings.connect_timeout_s,
                max_response_bytes=settings.max_response_bytes,
            ),
            make_chooser(settings.http_proxy, settings.https_proxy, settings.no_proxy),
        )
        self.plan = plan.build(graph, self._bind)
        self.waker = Waker(self.plan, self.pool, settings)
        self.ready = True
        self._headers = _header_plan(graph, settings)
        self._returned = frozenset(
            name.lower().encode("latin-1", "replace") for name in graph.return_headers
        )
        self._single = self._pass_through()
        self._single_idle = self._single.origin.idle if self._single is not None else []
        exchange_class: type[Exchange] = Exchange
        if self._single is not None:
            exchange_class = type("_Direct", (_Direct,), {"router": self})
        self.server = Server(self.handle, self._limits(), exchange_class)
        self._max_concurrency = graph.max_concurrency

    def _bind(self, url: Url, step: Step) -> Target:
        if url.scheme in ("grpc", "grpcs"):
            raise ValueError("gRPC steps need the extra router-grpc")
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

    def _pass_through(self) -> Target | None:
        """The target that `_Direct` may serve: nothing is asked of the router but to pass bytes."""
        leaf = self.plan.single
        graph = self.graph
        if leaf is None or leaf.target is None or leaf.timeout_s is not None:
            return None
        if graph.timeout_s is not None or graph.server_timing or self._returned:
            return None
        return leaf.target if isinstance(leaf.target, Target) else None

    # --- one request -----------------------------------------------------------------------------

    def handle(self, exchange: Exchange) -> None:
        head = exchange.head
        incoming = head.context
        if incoming is None:
            incoming = head.context = self.read_head(head)
        incoming = cast("Incoming", incoming)
        if incoming.probe:
            if self.ready:
                exchange.respond(200)
            else:
                exchange.respond(503, b"shutting down\n", b"text/plain; charset=utf-8", _NOSNIFF)
            return
        if self._max_concurrency is not None and self.server.in_flight > self._max_concurrency:
            exchange.respond(
                503, engine.error_body("too many requests at once"), JSON, b"Retry-After: 1\r\n"
            )
            return
        if self._single is None:
            Run(self, exchange, incoming).start()
            return
        idle = self._single_idle
        if idle and incoming.direct is not None:
            connection = idle.pop()
            if connection.alive:
                exchange = cast("_Direct", exchange)
                exchange.connection = connection
                exchange.on_abort = connection.give_up
                connection.begin(exchange, incoming.direct, exchange.body)
                return
        self.call_directly(exchange)

    def call_directly(self, exchange: Exchange) -> None:
        """Serve a one-step graph off the fast path: no connection yet, a chunked body, a second try."""
        call = self.make_direct(exchange)
        call.begin(None, exchange)

    def make_direct(self, exchange: Exchange) -> "_DirectCall":
        assert self._single is not None
        call = _DirectCall(self._single, cast("Incoming", exchange.head.context), exchange.body)
        call.exchange = exchange
        exchange.on_abort = call.cancel
        return call

    def read_head(self, head: RequestHead) -> Incoming:
        """What this head means to us; done once per distinct head."""
        path = head.target.partition(b"?")[0]
        named = [(canonical(name), value) for name, value in head.headers]
        selected: Headers = self._headers(named)
        incoming = Incoming(head, selected, probe=path == _READY)
        if self._single is not None and incoming.inflates and not head.chunked:
            incoming.direct = self._single.head(incoming, head.length)
        return incoming

    def answer(self, exchange: Exchange, reply: Reply) -> None:
        """Send a node's answer to the client (spec 2.4)."""
        body = reply.body
        extra = b""
        if self._returned and reply.head is not None:
            extra = self._returned_fields(reply.head)
        exchange.respond(reply.status, body, content_type(body), extra)

    def fail(self, exchange: Exchange, error: RequestFailed) -> None:
        if exchange.started:
            exchange.drop()
        else:
            exchange.respond(error.status, engine.error_body(str(error)), JSON)

    def _returned_fields(self, head: ResponseHead) -> bytes:
        return join((k, v) for k, v in head.headers if k.lower() in self._returned)


def content_type(body: bytes) -> bytes:
    """JSON when it is JSON, whatever the upstream called it; else as Go sniffs; nothing for nothing."""
    if bodies.is_json(body):
        return JSON
    sniffed = sniff.content_type(body)
    return sniffed.encode() if sniffed else b""


_NOSNIFF = b"X-Content-Type-Options: nosniff\r\n"


class _Direct(Exchange):
    """The request of a one-step graph: it is its own receiver, so its answer goes straight to the client.

    Anything out of the ordinary (a redirect, a stream, a lost connection) is handed to a `Call`.
    """

    inflates = True
    cancelled = False
    router: Router
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


class Run:
    """One request in the engine: the `engine.Context` over sockets."""

    __slots__ = ("_deadline", "_fiber", "_timer", "_wakes", "exchange", "incoming", "router")

    def __init__(self, router: Router, exchange: Exchange, incoming: Incoming) -> None:
        self.router = router
        self.exchange = exchange
        self.incoming = incoming
        self._fiber: Fiber[Reply] | None = None
        self._timer: object = None
        self._deadline = 0.0
        self._wakes: list[engine.NodePlan] | None = None

    def start(self) -> None:
        exchange, router = self.exchange, self.router
        limit = router.graph.timeout_s
        if limit is not None:
            self._deadline = time.monotonic() + limit
            self._timer = router.pool.loop.call_later(limit, self._overdue, limit)
        exchange.on_abort = self.cancel
        fiber = self._fiber = Fiber(router.plan.root.run(self, exchange.body, None, True))
        fiber.attach(self)

    def resume(self, fiber: Wait[Reply]) -> None:
        """The graph is through."""
        self._stop_timer()
        exchange = self.exchange
        if not fiber.is_error:
            reply = fiber.result()
            if reply is not STREAMED:
                self.router.answer(exchange, reply)
        elif isinstance(fiber.error, RequestFailed):
            self.router.fail(exchange, fiber.error)
        else:
            logger.error("a request failed", exc_info=fiber.error)
            self.router.fail(exchange, RequestFailed("internal error"))

    def cancel(self) -> None:
        """The client is gone, or the time is up: nobody waits for the steps any more."""
        self._stop_timer()
        if self._fiber is not None:
            self._fiber.detach()
            self._fiber.cancel()

    def _overdue(self, limit: float) -> None:
        self.exchange.on_abort = None
        self.cancel()
        self.router.fail(self.exchange, DeadlineExceeded(limit))

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()  # type: ignore[attr-defined]

    # --- engine.Context --------------------------------------------------------------------------

    def call(self, leaf: engine.Leaf, body: bytes, tail: bool) -> Wait[Reply]:
        target = leaf.target
        if target is None:
            failed: Wait[Reply] = Wait()
            failed.fail(UpstreamError(f"{leaf.label}: {leaf.problem}", kind="url"))
            return failed
        call = _StepCall(target, self.incoming, body)
        call.label = leaf.label
        if self._wakes is not None:
            call.on_sent = self._wake_now
        call.begin(leaf.timeout_s, self.exchange if tail else None)
        return call

    def wake(self, node: engine.NodePlan) -> None:
        if self._wakes is None:
            self._wakes = []
        self._wakes.append(node)

    def _wake_now(self) -> None:
        nodes, self._wakes = self._wakes, None
        for node in nodes or ():
            self.router.waker.wake(node)

    def pause(self, seconds: float) -> Wait[None]:
        pause = _Pause()
        pause.timer = self.router.pool.loop.call_later(seconds, pause.resolve, None)
        return pause

    def draw(self) -> float:
        return random.random()  # noqa: S311 - a lottery, not a secret

    def sticky(self, node: engine.SplitterPlan) -> float | None:
        value = self._sticky_value(node)
        if value is None:
            return None
        # crc32 is the same in every process and release, which is all that stickiness needs.
        return zlib.crc32(node.name.encode() + b"\0" + value) / 2**32

    def _sticky_value(self, node: engine.SplitterPlan) -> bytes | None:
        wanted = node.sticky_name if node.sticky_source == "header" else b"cookie"
        for name, value in self.exchange.head.headers:
            if name.lower() != wanted:
                continue
            if node.sticky_source == "header":
                return value
            for pair in value.split(b";"):
                key, _, text = pair.strip().partition(b"=")
                if key.lower() == node.sticky_name:
                    return text
        return None

    def now(self) -> float:
        return time.monotonic()

    def left(self) -> float:
        return self._deadline - time.monotonic() if self._deadline else float("inf")

    def mirror(self, leaf: engine.Leaf, body: bytes) -> None:
        call = Call(leaf.target, self.incoming, body)
        call.begin(leaf.timeout_s or MIRROR_TIMEOUT_S)

    def count(self, what: str, step: engine.StepPlan) -> None:
        pass


MIRROR_TIMEOUT_S = 30.0
"""A mirrored call that takes longer is given up, so that a slow shadow cannot pile up connections."""


class _Pause(Wait[None]):
    timer: object

    def cancel(self) -> None:
        super().cancel()
        self.timer.cancel()  # type: ignore[attr-defined]


class _StepCall(Call):
    """A call whose errors say which step it was."""

    label: str

    def fail(self, error: BaseException) -> None:
        if isinstance(error, UpstreamError):
            error = UpstreamError(
                f"{self.label}: {error}", kind=error.kind, retryable=error.retryable
            )
        super().fail(error)


def _header_plan(graph: Graph, settings: Settings) -> Callable[[Headers], Headers]:
    """Which of a client's headers go upstream: the graph's list, else KServe's variable, else none."""
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
