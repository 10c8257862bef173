"""Requests that are watched: metrics, spans, Server-Timing, an access log. Costs nothing when all
are off.

`ObservedRun` is a `Run` that notes when things begin and end; the router uses it instead of the
plain one only when somebody asked to know. The engine knows nothing of it.
"""

import logging
import time
from typing import TYPE_CHECKING

from functions.wire.http1 import Exchange
from functions.wire.http1_head import ResponseHead
from router_fn import engine
from router_fn.calls import Call, Incoming, Target
from router_fn.errors import UpstreamError
from router_fn.fibers import Wait
from router_fn.replies import Reply
from router_fn.run import Run, StepCall

if TYPE_CHECKING:
    from router_fn.metrics import Metrics
    from router_fn.server import Router
    from router_fn.tracing import Span, Tracer

logger = logging.getLogger("router_fn.access")

CLIENT_GONE = 499
EXPORT_EVERY_S = 2.0
EXPORT_TIMEOUT_S = 10.0


class Observer:
    """What is being watched in this process."""

    def __init__(self, router: "Router") -> None:
        settings = router.settings
        self.metrics: Metrics | None = None
        if settings.metrics_port is not None:
            from router_fn import metrics

            self.metrics = metrics.Metrics()
        self.server_timing = router.graph.server_timing
        self.access_log = settings.access_log
        self.tracer: Tracer | None = None
        self._router = router
        self._exporter: Target | None = None
        if settings.otlp_endpoint:
            from router_fn import tracing
            from router_fn.urls import parse_url

            self.tracer = tracing.Tracer(settings.service_name, settings.trace_ratio)
            self._exporter = Target(
                router.pool, parse_url(settings.otlp_endpoint), EXPORT_TIMEOUT_S
            )

    @property
    def wanted(self) -> bool:
        return bool(self.metrics or self.tracer or self.server_timing or self.access_log)

    def start(self) -> None:
        """Begin exporting; needs the loop."""
        if self.tracer is not None:
            self._router.pool.loop.call_later(EXPORT_EVERY_S, self._export)

    def _export(self) -> None:
        self.flush()
        self._router.pool.loop.call_later(EXPORT_EVERY_S, self._export)

    def flush(self) -> list[Wait[Reply]]:
        """Send what is finished; failures are logged at DEBUG and the batch is lost."""
        sent: list[Wait[Reply]] = []
        if self.tracer is None or self._exporter is None:
            return sent
        while (batch := self.tracer.take_batch()) is not None:
            call = ExportCall(self._exporter, self._router.export_head, batch)
            call.begin()
            sent.append(call)
        return sent


class ExportCall(Call):
    """Spans on their way: a failure loses them, and only DEBUG tells."""

    def fail(self, error: BaseException) -> None:
        logger.debug("spans could not be exported: %s", error)
        super().fail(error)


class ObservedRun(Run):
    """A request that is watched."""

    def __init__(self, router: "Router", exchange: Exchange, incoming: Incoming) -> None:
        super().__init__(router, exchange, incoming)
        self.observer = router.observer
        self.began = time.perf_counter()
        self.timings: list[tuple[str, float]] = []
        self.span: Span | None = None
        tracer = self.observer.tracer
        if tracer is not None:
            self.span = tracer.server_span(exchange.head.headers)
            self.span.attributes["http.request.method"] = exchange.head.method.decode("latin-1")

    def make_call(self, leaf: engine.Leaf, body: bytes) -> StepCall:
        call = _ObservedCall(leaf.target, self.incoming, body)
        call.observe(self, leaf)
        return call

    def count(self, what: str, step: engine.StepPlan) -> None:
        if self.observer.metrics is not None:
            self.observer.metrics.policies.add((("policy", what), ("step", step.label)))

    def extra_fields(self) -> bytes:
        if not self.observer.server_timing:
            return b""
        timings = [*self.timings, ("total", time.perf_counter() - self.began)]
        entries = ", ".join(f"{_token(name)};dur={seconds * 1e3:.2f}" for name, seconds in timings)
        return b"Server-Timing: %b\r\n" % entries.encode()

    def finished(self, status: int) -> None:
        took = time.perf_counter() - self.began
        metrics = self.observer.metrics
        if metrics is not None:
            metrics.requests.add((("status", str(status)),))
            metrics.request_seconds.observe((), took)
        if self.span is not None and self.observer.tracer is not None:
            self.observer.tracer.end(self.span, status)
        if self.observer.access_log:
            head = self.exchange.head
            extra = {
                "method": head.method.decode("latin-1"),
                "path": head.target.decode("latin-1"),
                "status": status,
                "ms": round(took * 1e3, 3),
                "bytes_in": len(self.exchange.body),
            }
            if self.span is not None:
                extra["trace_id"] = self.span.trace_id.decode()
            logger.info("request", extra=extra)


class _ObservedCall(StepCall):
    """A call that reports how it went."""

    _run: ObservedRun
    _span: "Span | None" = None

    def observe(self, run: ObservedRun, leaf: engine.Leaf) -> None:
        self._run = run
        self.label = leaf.label
        self._began = time.perf_counter()
        tracer = run.observer.tracer
        if tracer is not None and run.span is not None:
            self._span = tracer.child(run.span, leaf.label)
            self._span.attributes["url.full"] = leaf.url
            self.extra_head = self._span.fields()

    def settle(self, status: int, body: bytes, head: ResponseHead) -> None:
        self._note(status, str(status), "")
        super().settle(status, body, head)

    def stream_end(self) -> None:
        self._note(200, "200", "")
        super().stream_end()

    def fail(self, error: BaseException) -> None:
        kind = error.kind if isinstance(error, UpstreamError) else type(error).__name__
        self._note(0, kind, str(error))
        super().fail(error)

    def cancel(self) -> None:
        if self.pending:
            self._note(0, "cancelled", "cancelled")
        super().cancel()

    def _note(self, status: int, outcome: str, error: str) -> None:
        took = time.perf_counter() - self._began
        run = self._run
        run.timings.append((self.label, took))
        metrics = run.observer.metrics
        if metrics is not None:
            metrics.step_calls.add((("step", self.label), ("outcome", outcome)))
            metrics.step_seconds.observe((("step", self.label),), took)
        if self._span is not None and run.observer.tracer is not None:
            run.observer.tracer.end(self._span, status, error)


def _token(name: str) -> str:
    """A Server-Timing metric name: what is no token character becomes a dash."""
    return "".join(c if c.isalnum() or c in "!#$%&'*+.^_`|~" else "-" for c in name)
