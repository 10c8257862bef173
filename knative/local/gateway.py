"""The gateway: one port as ingress, activator, queue-proxy and forward proxy for all services.

`handle` takes a request head, finds the service by host, asks its revision for a pod, and lets an
`Outbound` connection carry bytes. Statuses are Knative's (spec sections 2.6 and 2.7): 404 unknown
host, 503 no room to wait, 504 out of time (waiting for a pod included), 502 a pod that cannot be
reached. A pod that failed to start answers nobody, so the gateway does: 503 with the reason and
the last log lines.
"""

import asyncio
import contextlib
import functools
import random
from typing import TYPE_CHECKING, Protocol

from . import traffic, wire
from .call import Call
from .exchange import Exchange
from .inbound import Connection, Inbound
from .outbound import Pool
from .pods import Pod
from .revision import Revision
from .traces import Recorder

if TYPE_CHECKING:
    from .h2_outbound import H2Pool

ADMIN_PREFIX = b"/_turnout"
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1", ""})
BROKER_HOSTS = frozenset(f"broker-ingress.knative-eventing{suffix}" for suffix in traffic.SUFFIXES)


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
        pool.send(exchange, wire.request_head(request, activator=False))

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


def _is_cluster_host(host: str) -> bool:
    return host.endswith((".svc.cluster.local", ".svc", ".localhost", ".example.com"))
