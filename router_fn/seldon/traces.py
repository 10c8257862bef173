"""Spans of Seldon graphs: one per request, one per call of a node, sent to an OTLP collector.

The tracer is the router's own (`router_fn.tracing`); W3C trace context comes in with the client's
headers and goes to every node, over REST and gRPC.
"""

from functions.wire.headers import Headers
from router_fn.calls import Incoming, Target
from router_fn.observe import EXPORT_EVERY_S, EXPORT_TIMEOUT_S, ExportCall
from router_fn.pool import Pool
from router_fn.server import otlp_headers
from router_fn.settings import Settings
from router_fn.tracing import Span, Tracer
from router_fn.urls import parse_url


class Traces:
    """What one router has to tell its collector."""

    def __init__(self, settings: Settings, pool: Pool) -> None:
        self._tracer = Tracer(settings.service_name, settings.trace_ratio)
        self._pool = pool
        self._exporter = Target(pool, parse_url(settings.otlp_endpoint), EXPORT_TIMEOUT_S)
        self._head = Incoming(otlp_headers(settings.otlp_headers))

    def start(self) -> None:
        """Begin exporting; needs the loop."""
        self._pool.loop.call_later(EXPORT_EVERY_S, self._export)

    def request(self, headers: Headers, what: str) -> Span:
        """The span of a request: it continues the client's trace."""
        span = self._tracer.server_span(headers)
        span.attributes["seldon.service"] = what
        return span

    def call(self, parent: Span, node: str, path: str) -> Span:
        """The span of one call of a node."""
        span = self._tracer.child(parent, node)
        span.attributes["url.path"] = path
        return span

    def end(self, span: Span, status: int, error: str = "") -> None:
        self._tracer.end(span, status, error)

    def _export(self) -> None:
        self.flush()
        self._pool.loop.call_later(EXPORT_EVERY_S, self._export)

    def flush(self) -> bool:
        """Send what is finished; whether there was anything."""
        sent = False
        while (batch := self._tracer.take_batch()) is not None:
            ExportCall(self._exporter, self._head, batch).begin()
            sent = True
        return sent
