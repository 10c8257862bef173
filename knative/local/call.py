"""One request of a service: from its arrival through queue and pod to the record of it.

Statuses are Knative's (spec sections 2.6 and 2.7): 503 no room to wait, 504 out of time (waiting
for a pod included), 502 a pod that cannot be reached. A pod that failed to start answers nobody,
so its requests get 503 with the reason and the last log lines.
"""

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from . import wire
from .errors import PodFailed
from .exchange import Exchange
from .outbound import Pool
from .pods import Pod
from .revision import Revision
from .throttle import Overloaded, Waiter
from .traces import Record, Recorder

if TYPE_CHECKING:
    from .h2_outbound import H2Pool

RETRY_AFTER_S = 1


class Owner(Protocol):
    """The gateway, as a call sees it."""

    recorder: Recorder

    def pool(self, pod: Pod) -> Pool: ...
    def h2_pool(self, pod: Pod) -> "H2Pool": ...
    def entered(self) -> None: ...
    def left(self) -> None: ...


class Call:
    """One request of a service: from arrival through queue and pod to the record of it."""

    __slots__ = ("_gateway", "_loop", "_pod", "_waiter", "exchange", "probe", "record", "revision")

    def __init__(
        self,
        gateway: Owner,
        exchange: Exchange,
        revision: Revision,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.exchange = exchange
        self.revision = revision
        self.probe = False
        self._gateway = gateway
        self._loop = loop
        self._pod: Pod | None = None
        self._waiter: Waiter[Pod] | None = None
        request = exchange.request
        trace = wire.trace_id(request)
        if not trace:
            parent = wire.new_traceparent()
            request.headers.append((b"traceparent", parent))
            trace = parent[3:35]
        self.record = Record(
            0,
            trace.decode("latin-1"),
            request.method.decode("latin-1"),
            request.target.decode("latin-1")[:200],
            revision.service.key,
            revision.name,
            arrived=exchange.arrived,
        )

    def start(self) -> None:
        """Count the request, start its clocks, and take or wait for a pod."""
        exchange, revision = self.exchange, self.revision
        template = revision.template
        self._gateway.entered()
        self._gateway.recorder.open(self.record)
        exchange.on_done = self._done
        exchange.on_timeout = self._timed_out
        self.probe = wire.is_probe(exchange.request)
        if self.probe:
            self._answer_probe()
            return
        exchange.limit(template.timeout_s, template.response_start_s, template.idle_s)
        revision.begin()
        failure = revision.failing()
        if failure is not None:
            self._refuse(failure)
            return
        try:
            granted = revision.throttle.acquire(self._granted)
        except Overloaded as overload:
            exchange.refuse(503, f"{revision.service.name}: {overload}")
            return
        if isinstance(granted, Waiter):
            self._waiter = granted
        else:
            self._send(granted)

    def _answer_probe(self) -> None:
        """As queue-proxy: never wakes the service, never counts as load."""
        kind = self.exchange.request.header(b"k-network-probe")
        if kind == b"probe":
            echo = self.exchange.request.header(b"k-network-hash")
            self.exchange.respond(200, [(b"k-network-hash", echo)], b"")
        elif kind not in (b"queue", b""):
            self.exchange.refuse(400, f"unexpected probe header value: {kind.decode('latin-1')}")
        elif self.revision.throttle.pods:
            self.exchange.respond(200, [(b"content-type", b"text/plain")], b"queue")
        else:
            self.exchange.refuse(503, f"{self.revision.name} has no ready pod")

    def _granted(self, pod: Pod | None) -> None:
        self._waiter = None
        if pod is None:
            self._refuse(self.revision.failure)
        elif self.exchange.done:
            self.revision.release(pod)
        else:
            self.record.cold = pod.timeline
            self._send(pod)

    def _send(self, pod: Pod) -> None:
        self._pod = pod
        self.record.pod = pod.name
        self.record.granted = monotonic()
        request, activator = self.exchange.request, not self.revision.throttle.direct
        if self.revision.template.serving.h2c:
            self._gateway.h2_pool(pod).send(
                self.exchange, wire.h2_head(request, activator=activator)
            )
        else:
            head = wire.request_head(request, activator=activator)
            self._gateway.pool(pod).send(self.exchange, head)

    def _refuse(self, failure: PodFailed | None) -> None:
        name = self.revision.service.name
        if failure is None:
            self.exchange.refuse(503, f"{name} has no pod")
            return
        tail = f"; its last log lines:\n{failure.log_tail}" if failure.log_tail else ""
        self.exchange.refuse(
            503,
            f"{name} does not start: {failure.reason}: {failure.message}{tail}",
            [(b"retry-after", b"%d" % RETRY_AFTER_S)],
        )

    def _timed_out(self, exchange: Exchange) -> str:
        name, after = self.revision.service.name, monotonic() - exchange.arrived
        if self._pod is not None:
            return (
                f"{name}: timeout after {after:.1f} s: pod {self._pod.name} did not answer in time"
            )
        failure = self.revision.failure
        why = f" ({failure.message})" if failure else ""
        if self.revision.pending_reason:
            why = f" (pod pending: {self.revision.pending_reason})"
        return f"{name}: timeout after {after:.1f} s of waiting for a pod{why}"

    def _done(self, exchange: Exchange) -> None:
        if self._waiter is not None:
            self.revision.throttle.cancel(self._waiter)
            self._waiter = None
        now = monotonic()
        record = self.record
        record.status, record.error = exchange.status, exchange.failure
        record.first_byte, record.ended = exchange.first_byte, now
        record.bytes_out = exchange.bytes_out
        if self._pod is not None:
            timeline = self._pod.timeline
            if timeline.first_answer is None:
                timeline.first_answer = exchange.first_byte or now
            pod, self._pod = self._pod, None
            self.revision.release(pod)
        if not self.probe:
            self.revision.end()
        self._gateway.recorder.close(record)
        self._gateway.left()
