"""Upstream connections, kept alive and shared: one `Origin` per scheme, host and port.

Connections are taken last-in first-out, so a quiet pool shrinks from its cold end. There is no
limit on the way from idle to busy; new ones are dialled when none is idle, up to `max_connections`,
beyond which calls queue in order. One timer for all origins closes what has been idle for too long.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from router_fn.errors import UpstreamError
from router_fn.proxies import make_chooser
from router_fn.settings import Settings
from router_fn.upstream import Receiver, UpstreamConnection
from router_fn.urls import Url

SWEEP_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """What upstreams may cost. Sizes in bytes, times in seconds."""

    max_connections: int = 1024
    """Per origin; further calls wait for a free one."""
    idle_timeout_s: float = 55.0
    """Shorter than what common servers allow (60 s and more), so that we close first."""
    connect_timeout_s: float = 30.0
    """As Go's default dialer."""
    max_response_bytes: int = 64 << 20
    """A longer answer is an error of that step."""


class Outgoing(Receiver, Protocol):
    """A receiver that can be queued: it knows what it wants to send."""

    cancelled: bool

    def transmit(self, connection: UpstreamConnection) -> None:
        """Send the request on this connection."""
        ...


class Origin:
    """All connections to one place."""

    def __init__(self, pool: "Pool", url: Url, proxy: Url | None) -> None:
        self.url = url
        self.proxy = proxy
        self.idle: list[UpstreamConnection] = []
        self.max_response_bytes = pool.limits.max_response_bytes
        self.last_answer = -1e9
        """Coarse monotonic time of the last complete answer: has this service been awake lately?"""
        self.waking = False
        self.connections: set[UpstreamConnection] = set()
        self.pool = pool
        self._dialling: set[asyncio.Task[None]] = set()
        self.waiting: deque[Outgoing] = deque()

    @property
    def busy(self) -> bool:
        """True while a call is under way or being dialled: the service is being woken as it is."""
        return len(self.connections) + len(self._dialling) > len(self.idle)

    @property
    def absolute_form(self) -> bool:
        """True when requests name the whole URL, because a proxy takes them."""
        return self.proxy is not None and self.url.scheme == "http"

    def send(self, call: Outgoing) -> None:
        """Give the call a connection: idle, new, or the next that gets free."""
        idle = self.idle
        while idle:
            connection = idle.pop()
            if connection.alive:
                call.transmit(connection)
                return
        if len(self.connections) + len(self._dialling) >= self.pool.limits.max_connections:
            self.waiting.append(call)
            return
        task = self.pool.loop.create_task(self._dial(call))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)

    def release(self, connection: UpstreamConnection) -> None:
        """An answer is complete and the connection is good for another request."""
        now = self.pool.now
        self.last_answer = now
        while self.waiting:
            call = self.waiting.popleft()
            if not call.cancelled:
                call.transmit(connection)
                return
        connection.idle_since = now
        self.idle.append(connection)

    def lost(self, connection: UpstreamConnection) -> None:
        """The connection is closed."""
        self.connections.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        """A place has become free without a connection to pass on: the next in line may dial."""
        while self.waiting:
            call = self.waiting.popleft()
            if not call.cancelled:
                self.send(call)
                return

    def answered(self) -> None:
        """An answer came on a connection that cannot be used again."""
        self.last_answer = self.pool.now

    async def _dial(self, call: Outgoing) -> None:
        try:
            connection = await asyncio.wait_for(self._connect(), self.pool.limits.connect_timeout_s)
        except TimeoutError:
            self._not_connected(call, "timed out")
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            self._not_connected(call, reason or str(error))
        except UpstreamError as error:
            self._not_connected(call, str(error))
        else:
            if not connection.alive:
                # Accepted and reset before we came to use it: `connection_lost` is behind us.
                self._not_connected(call, "it was closed at once")
                return
            self._dialled()
            self.connections.add(connection)
            if call.cancelled:
                self.release(connection)
            else:
                call.transmit(connection)

    def _dialled(self) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._dialling.discard(task)

    def _not_connected(self, call: Outgoing, reason: str) -> None:
        self._dialled()
        call.failed(UpstreamError(f"cannot connect: {reason}", kind="connect", retryable=True))
        self._serve_waiting()

    async def _connect(self) -> UpstreamConnection:
        loop = self.pool.loop
        if self.url.scheme != "https":
            at = self.proxy or self.url
            _, connection = await loop.create_connection(
                lambda: UpstreamConnection(self), at.host, at.port
            )
            return connection
        context = self.pool.tls_context()
        if self.proxy is None:
            _, connection = await loop.create_connection(
                lambda: UpstreamConnection(self), self.url.host, self.url.port, ssl=context
            )
            return connection
        from router_fn.tunnel import open_tunnel

        return await open_tunnel(
            loop, self.proxy, self.url, context, lambda: UpstreamConnection(self)
        )

    def sweep(self, before: float) -> None:
        """Close what has been idle since `before`; the list is ordered, coldest first."""
        while self.idle and self.idle[0].idle_since < before:
            self.idle.pop(0).close()

    async def close(self) -> None:
        for task in list(self._dialling):
            task.cancel()
        for connection in list(self.connections):
            connection.abandon()
        self.idle.clear()
        self.connections.clear()


class Pool:
    """Every origin, and the clock they share."""

    def __init__(
        self,
        limits: PoolLimits | None = None,
        proxy_for: Callable[[Url], Url | None] = lambda url: None,
    ) -> None:
        self.limits = limits or PoolLimits()
        self.now = time.monotonic()
        """Coarse, in seconds: read once per tick, compared on the hot path."""
        self.origins: dict[str, Origin] = {}
        self._proxy_for = proxy_for
        self._tls: ssl.SSLContext | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """Take the running loop; call once, before the first request."""
        self.loop = asyncio.get_running_loop()
        self._sweep()

    def origin(self, url: Url) -> Origin:
        """The origin of a URL; one object per place, whoever asks."""
        known = self.origins.get(url.origin)
        if known is None:
            known = self.origins[url.origin] = Origin(self, url, self._proxy_for(url))
        return known

    def tls_context(self) -> ssl.SSLContext:
        """System roots, hostnames checked; made when the first https upstream is called."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _sweep(self) -> None:
        self.now = time.monotonic()
        before = self.now - self.limits.idle_timeout_s
        for origin in self.origins.values():
            origin.sweep(before)
        self._timer = self.loop.call_later(SWEEP_S, self._sweep)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for origin in self.origins.values():
            await origin.close()


def make_pool(settings: Settings) -> Pool:
    """The pool of a process, with the limits and proxies its environment asks for."""
    return Pool(
        PoolLimits(
            max_connections=settings.max_upstream_connections,
            idle_timeout_s=settings.upstream_idle_s,
            connect_timeout_s=settings.connect_timeout_s,
            max_response_bytes=settings.max_response_bytes,
        ),
        make_chooser(settings.http_proxy, settings.https_proxy, settings.no_proxy),
    )
