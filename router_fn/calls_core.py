"""The part of upstream connections and calls that every call passes; `upstream` and `calls` add the
rest.

Like `functions.wire.http1_core` it exists twice: `_hot.c` is the same in C (`wire.native`).
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from functions.wire import native
from functions.wire.http1_head import ResponseHead
from router_fn.fibers import Wait
from router_fn.replies import Reply

if TYPE_CHECKING:
    import asyncio

    from functions.wire.http1 import Exchange
    from router_fn.calls import Incoming, Target
    from router_fn.pool import Origin, Pool
    from router_fn.upstream import Receiver, UpstreamConnection


def _nowhere(data: bytes) -> None:
    """`write` of a connection that has no transport yet."""


class UpstreamCore:
    """A connection to an upstream: a request out, its answer in one packet in."""

    def __init__(
        self,
        origin: "Origin",
        pool: "Pool",
        idle: "list[UpstreamConnection]",
        waiting: deque[Any],
        known: dict[bytes, ResponseHead],
    ) -> None:
        self._origin = origin
        self._pool = pool
        self._idle = idle
        self._waiting = waiting
        self._known = known
        """Heads of plain answers seen before."""
        self._transport: asyncio.Transport | None = None
        self.write: Callable[[bytes], object] = _nowhere
        """The transport's own `write`, when there is one."""
        self._receiver: Receiver | None = None
        self._head: ResponseHead | None = None
        """Read, its body still arriving."""
        self._buffer = b""
        self.alive = True
        """False once either side has begun to close it."""
        self._fresh = True
        """Nothing has been answered on it yet."""
        self.idle_since = 0.0

    def begin(self, receiver: "Receiver", head: bytes, body: bytes) -> None:
        """Send one request. `head` ends with the empty line."""
        self._receiver = receiver
        if len(body) < 65536:
            self.write(head + body)
        else:  # two buffers for the kernel instead of one more copy for us
            assert self._transport is not None
            self._transport.writelines((head, body))

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is not None and self._head is None and not self._buffer:
            end = data.find(b"\r\n\r\n") + 4
            if end > 3:
                head = self._known.get(data[:end])
                if head is not None and head.length == len(data) - end:
                    # The one-packet path: a plain head seen before, and exactly its body.
                    self._receiver = None
                    self._fresh = False
                    origin = self._origin
                    if self._waiting:
                        origin.release(self)  # type: ignore[arg-type]
                    else:  # `release`, spelled out
                        self.idle_since = origin.last_answer = self._pool.now
                        self._idle.append(self)  # type: ignore[arg-type]
                    receiver.replied(head.status, data[end:], head)
                    return
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        raise NotImplementedError


class CallCore(Wait[Reply]):
    """One call of one target. Resolves with the Reply, or fails with UpstreamError."""

    # Class-level defaults instead of assignments in __init__: most are never changed.
    extra_head = b""
    """Further field lines of this call alone (a trace's own span)."""
    on_sent: Callable[[], None] | None = None
    cancelled = False
    _message: tuple[bytes, bytes] | None = None
    """Head and body of their own, instead of the target's (a redirect)."""
    _stream_to: "Exchange | None" = None
    _connection: "UpstreamConnection | None" = None
    _timer: "asyncio.TimerHandle | None" = None

    def __init__(self, target: "Target", incoming: "Incoming", body: bytes, /) -> None:
        self.target = target
        self.incoming = incoming
        self.body = body

    def begin(self, timeout_s: float | None = None, stream_to: "Exchange | None" = None, /) -> None:
        """Start. `stream_to`: the client's exchange, when this answer may be streamed to it."""
        target = self.target
        self._stream_to = stream_to
        limit = target.timeout_s if timeout_s is None else timeout_s
        if limit is not None:
            self._start_timer(limit)
        idle = target.idle
        while idle:
            connection = idle.pop()
            if connection.alive:
                self.transmit(connection)
                return
        target.origin.send(self)  # type: ignore[arg-type]

    def transmit(self, connection: "UpstreamConnection") -> None:
        """Send the request on this connection."""
        self._connection = connection
        if self._message is not None or self.extra_head:
            self._transmit_unusual(connection)
        else:
            incoming, target, length = self.incoming, self.target, len(self.body)
            head = incoming.heads.get((target, length)) or target.head(incoming, length)
            connection.begin(self, head, self.body)  # type: ignore[arg-type]
        if self.on_sent is not None:
            self.on_sent()

    def replied(self, status: int, body: bytes, head: ResponseHead) -> None:
        """The connection has the whole answer."""
        self._connection = None
        if 300 <= status < 400 and self._redirect(status, head):
            return
        if self._timer is not None:
            self._timer.cancel()
        self.settle(status, body, head)

    def settle(self, status: int, body: bytes, head: ResponseHead) -> None:
        """The final answer is there."""
        self.resolve(Reply(status, body, head))

    def _start_timer(self, limit: float) -> None:
        raise NotImplementedError

    def _transmit_unusual(self, connection: "UpstreamConnection") -> None:
        raise NotImplementedError

    def _redirect(self, status: int, head: ResponseHead) -> bool:
        raise NotImplementedError


if not TYPE_CHECKING:
    native.take(globals(), "router_fn._hot", ("UpstreamCore", "CallCore"))
