"""The gateway: one port that is ingress, activator, queue-proxy and forward proxy for every
service.

`handle` takes a request head, finds the service by host, asks its revision for a pod, and lets an
`Outbound` connection carry bytes. Statuses are Knative's (spec sections 2.6 and 2.7): 404 unknown
host, 503 no
room to wait, 504 out of time (waiting for a pod included), 502 a pod that cannot be reached. A pod
that failed to start answers nobody, so the gateway does: 503 with the reason and the last log
lines.
"""

import asyncio
import contextlib
import functools
import random
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from . import traffic, wire
from .errors import PodFailed
from .exchange import Exchange
from .inbound import Connection, Inbound
from .outbound import Pool
from .pods import Pod
from .revision import Revision
from .throttle import Overloaded, Waiter
from .traces import Record, Recorder

if TYPE_CHECKING:
    from .h2_outbound import H2Pool

ADMIN_PREFIX = b"/_turnout"
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1", ""})
BROKER_HOSTS = frozenset(f"broker-ingress.knative-eventing{suffix}" for suffix in traffic.SUFFIXES)
RETRY_AFTER_S = 1


class LocalHandler(Protocol):
    """Answers requests itself once it has their whole body: admin API, broker ingress."""

    def __call__(self, exchange: Exchange) -> None: ...


class Gateway:
    """See the module docstring."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        recorder: Recorder,
        *,
        max_header_bytes: int,
        chooser: random.Random | None = None,
    ) -> None:
        self.max_header_bytes = max_header_bytes
        self.routes: dict[str, traffic.Route[Revision]] = {}
        self.admin: LocalHandler | None = None
        self.broker: LocalHandler | None = None
        self.recorder = recorder
        self.closing = False
        self._loop = loop
        self._connections: set[Connection] = set()
        self._pools: dict[Pod, Pool] = {}
        self._h2_pools: dict[Pod, H2Pool] = {}
        self._outside: dict[tuple[str, int], Pool] = {}
        self._server: asyncio.Server | None = None
        self._choose = chooser or random.Random()  # noqa: S311 - traffic split, not secrecy
        self._idle = asyncio.Event()
        self.active = 0

    # --- connections ---

    async def listen(self, host: str, port: int) -> int:
        """Open the port; returns its number. Raises OSError."""
        self._server = await self._loop.create_server(
            lambda: Inbound(self, self._loop), host, port, backlog=1024
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self, grace_s: float) -> None:
        """No new connections; requests under way get `grace_s`."""
        self.closing = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.close_when_idle()
        if self.active:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), grace_s)
        for connection in list(self._connections):
            connection.close_now()
        for pool in (*self._pools.values(), *self._outside.values()):
            pool.close()
        for shared in self._h2_pools.values():
            shared.close()

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def accepts_connect(self, host: str, port: int) -> bool:
        return host in self.routes and port in (80, 8080, 443)

    def http2(self, transport: asyncio.Transport, peer: str, data: bytes) -> asyncio.Protocol:
        from .h2_inbound import H2Inbound

        return H2Inbound(self, self._loop, transport, peer, data)

    def forget(self, pod: Pod) -> None:
        """A pod has gone: close its connections."""
        for pool in (self._pools.pop(pod, None), self._h2_pools.pop(pod, None)):
            if pool is not None:
                pool.close()

    # --- requests ---

    def handle(self, exchange: Exchange) -> None:
        """Find out where a request goes, and send it there."""
        request = exchange.request
        route = self.routes.get(request.authority)
        if route is not None:
            tag = request.header(b"knative-serving-tag").decode("latin-1")
            Call(self, exchange, route.choose(tag, self._choose), self._loop).start()
        elif request.authority in BROKER_HOSTS and self.broker is not None:
            self.broker(exchange)
        elif request.authority in LOCAL_NAMES and not request.absolute:
            self._local(exchange)
        elif request.absolute and not _is_cluster_host(request.authority):
            self._outside_world(exchange)
        else:
            known = ", ".join(sorted(h for h in self.routes if h.endswith(".svc.cluster.local")))
            exchange.refuse(
                404,
                f"no service answers to host {request.authority!r}; there are: {known or 'none'}",
            )

    def _local(self, exchange: Exchange) -> None:
        target = exchange.request.target
        if target.startswith(ADMIN_PREFIX) and self.admin is not None:
            self.admin(exchange)
        elif target == b"/":
            exchange.respond(302, [(b"location", ADMIN_PREFIX + b"/")], b"")
        else:
            services = sorted(h for h in self.routes if h.endswith(".localhost"))
            exchange.refuse(
                404,
                "the gateway finds services by host name: "
                + (f"try http://{services[0]}:PORT/, or " if services else "")
                + "send `Host: NAME.NAMESPACE.example.com`; the console is at /_turnout/",
            )

    def _outside_world(self, exchange: Exchange) -> None:
        """A pod uses its http_proxy for a host that is not ours: an ordinary forward proxy."""
        request = exchange.request
        if request.peer not in ("127.0.0.1", "::1"):
            exchange.refuse(403, "only processes of this machine may use the gateway as a proxy")
            return
        key = (request.authority, request.port)
        pool = self._outside.get(key)
        if pool is None:
            if len(self._outside) >= 256:
                self._outside.pop(next(iter(self._outside))).close()
            pool = self._outside[key] = Pool(*key, self._loop, f"{request.authority}: ".__add__)
        pool.send(exchange, request_head(request, activator=False))

    def pool(self, pod: Pod) -> Pool:
        """The connections to a pod."""
        pool = self._pools.get(pod)
        if pool is None or pool.port != pod.port:
            describe = functools.partial(describe_broken, pod)
            pool = self._pools[pod] = Pool("127.0.0.1", pod.port, self._loop, describe)
        return pool

    def h2_pool(self, pod: Pod) -> "H2Pool":
        """The HTTP/2 connection to a pod whose port is named h2c."""
        from .h2_outbound import H2Pool

        pool = self._h2_pools.get(pod)
        if pool is None or pool.port != pod.port:
            describe = functools.partial(describe_broken, pod)
            pool = self._h2_pools[pod] = H2Pool("127.0.0.1", pod.port, self._loop, describe)
        return pool

    def entered(self) -> None:
        self.active += 1

    def left(self) -> None:
        self.active -= 1
        if self.active == 0:
            self._idle.set()


def describe_broken(pod: Pod, what: str) -> str:
    """What the client is told when a pod's connection fails: which pod, and the end of its log."""
    tail = pod.log_tail(10)
    return f"pod {pod.name}: {what}" + (f"; its last log lines:\n{tail}" if tail else "")


class Call:
    """One request of a service: from arrival through queue and pod to the record of it."""

    __slots__ = ("_gateway", "_loop", "_pod", "_waiter", "exchange", "probe", "record", "revision")

    def __init__(
        self,
        gateway: Gateway,
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
            self._gateway.h2_pool(pod).send(self.exchange, h2_head(request, activator=activator))
        else:
            head = request_head(request, activator=activator)
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


def request_head(request: wire.Request, *, activator: bool) -> bytes:
    """The head that a pod gets over HTTP/1.1, framing included."""
    headers = wire.forwarded_headers(request, activator=activator)
    if request.upgrade:
        headers.append((b"connection", b"Upgrade"))
        headers.append((b"upgrade", request.upgrade))
    if request.chunked:
        headers.append((b"transfer-encoding", b"chunked"))
    elif request.content_length is not None:
        headers.append((b"content-length", b"%d" % request.content_length))
    first = b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (request.method, request.target, request.host)
    return wire.encode_head(first, headers)


def h2_head(request: wire.Request, *, activator: bool) -> wire.Headers:
    """The same for HTTP/2: pseudo-headers first, `te: trailers` kept for gRPC."""
    headers = wire.forwarded_headers(request, activator=activator, keep_te=True)
    if request.content_length is not None:
        headers.append((b"content-length", b"%d" % request.content_length))
    return [
        (b":method", request.method),
        (b":scheme", request.scheme),
        (b":authority", request.host),
        (b":path", request.target),
        *headers,
    ]


def _is_cluster_host(host: str) -> bool:
    return host.endswith((".svc.cluster.local", ".svc", ".localhost", ".example.com"))


def collect_body(exchange: Exchange, limit: int, then: Callable[[bytes], None]) -> None:
    """Read a request's whole body for one of the gateway's own handlers; 413 beyond `limit`
    bytes."""
    exchange.attach(_Collector(exchange, limit, then))


class _Collector:
    """An Upstream that keeps the body."""

    def __init__(self, exchange: Exchange, limit: int, then: Callable[[bytes], None]) -> None:
        self._exchange = exchange
        self._limit = limit
        self._then = then
        self._chunks: list[bytes] = []
        self._size = 0

    def send_body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            self._chunks.clear()
            self._exchange.refuse(413, f"body larger than {self._limit} bytes")
        else:
            self._chunks.append(data)

    def send_end(self) -> None:
        if not self._exchange.done:
            self._then(b"".join(self._chunks))

    def cancel(self) -> None:
        self._chunks.clear()

    def pause_response(self) -> None:
        """Answers of the gateway itself are small."""

    def resume_response(self) -> None:
        """See `pause_response`."""
