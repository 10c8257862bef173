"""The second port (METRICS_PORT): what is going on in here, for operators.

    GET  /metrics             Prometheus text
    GET  /graph               the spec as JSON; a Mermaid flowchart with `?format=mermaid`
    POST /graph/route         the path that this body would take, without calling anything
    GET  /readyz              as on the first port

It never shares the first port, where every path is a request to the graph.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from functions.wire.http1 import Exchange, Limits, Server
from router_fn import explain
from router_fn.content import JSON
from router_fn.metrics import CONTENT_TYPE, Labels

if TYPE_CHECKING:
    from router_fn.server import Router

Gauge = tuple[str, str, str, Labels, float]


class Admin:
    """Serves the second port."""

    def __init__(self, router: "Router") -> None:
        self._router = router
        self.server = Server(self.handle, Limits(max_body_bytes=16 << 20, max_connections=64))

    def handle(self, exchange: Exchange) -> None:
        path, _, query = exchange.head.target.partition(b"?")
        match path:
            case b"/metrics":
                metrics = self._router.observer.metrics
                assert metrics is not None
                exchange.respond(200, metrics.render(self._gauges()), CONTENT_TYPE)
            case b"/readyz":
                exchange.respond(200 if self._router.ready else 503)
            case b"/graph" if b"format=mermaid" in query:
                text = explain.mermaid(self._router.graph)
                exchange.respond(200, text.encode(), b"text/vnd.mermaid; charset=utf-8")
            case b"/graph":
                exchange.respond(200, _json(self._router.settings.graph_spec), JSON)
            case b"/graph/route":
                path_taken = explain.route(self._router.plan, exchange.body)
                exchange.respond(200, _json([taken.to_json() for taken in path_taken]), JSON)
            case _:
                known = "/metrics, /graph, /graph?format=mermaid, /graph/route, /readyz"
                exchange.respond(404, _json({"error": f"there is {known}"}), JSON)

    def _gauges(self) -> Iterator[Gauge]:
        router = self._router
        yield (
            "turnout_requests_in_flight",
            "Requests being answered.",
            "gauge",
            (),
            router.server.in_flight,
        )
        yield (
            "turnout_client_connections",
            "Open client connections.",
            "gauge",
            (),
            len(router.server.connections),
        )
        yield "turnout_prewarms_total", "Wake-up calls sent.", "counter", (), router.waker.sent
        tracer = router.observer.tracer
        if tracer is not None:
            yield (
                "turnout_spans_dropped_total",
                "Spans lost to a full queue.",
                "counter",
                (),
                tracer.dropped,
            )
        for key, origin in router.pool.origins.items():
            labels: Labels = (("upstream", key),)
            yield (
                "turnout_upstream_connections",
                "Open upstream connections.",
                "gauge",
                labels,
                len(origin.connections),
            )
        for key, origin in router.pool.origins.items():
            labels = (("upstream", key),)
            yield (
                "turnout_upstream_idle",
                "Idle upstream connections.",
                "gauge",
                labels,
                len(origin.idle),
            )
        for key, origin in router.pool.origins.items():
            labels = (("upstream", key),)
            yield (
                "turnout_upstream_waiting",
                "Calls waiting for a connection.",
                "gauge",
                labels,
                len(origin.waiting),
            )


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n"
