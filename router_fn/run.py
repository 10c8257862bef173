"""One request in the engine: the `engine.Context` over sockets."""

import asyncio
import logging
import random
import time
import zlib
from typing import TYPE_CHECKING

from functions.wire.http1 import Exchange
from functions.wire.http1_head import ResponseHead
from router_fn import engine
from router_fn.calls import Call, Incoming, Target
from router_fn.content import JSON, content_type
from router_fn.errors import DeadlineExceeded, RequestFailed, UpstreamError
from router_fn.fibers import Fiber, Wait
from router_fn.replies import STREAMED, Reply

if TYPE_CHECKING:
    from router_fn.server import Router

logger = logging.getLogger(__name__)

CLIENT_GONE = 499
"""What we note for a request whose client left (nginx's number); nobody ever receives it."""

MIRROR_TIMEOUT_S = 30.0
"""A mirrored call that takes longer is given up, so that a slow shadow cannot pile up connections.
"""


class Run:
    """One request in the engine: the `engine.Context` over sockets."""

    _fiber: Fiber[Reply] | None = None
    _timer: asyncio.TimerHandle | None = None
    _deadline = 0.0
    _wakes: list[tuple[engine.NodePlan, bytes]] | None = None

    def __init__(self, router: "Router", exchange: Exchange, incoming: Incoming) -> None:
        self.router = router
        self.exchange = exchange
        self.incoming = incoming

    # What an observed run adds (`observe`).

    def make_call(self, leaf: engine.Leaf, body: bytes) -> "StepCall":
        call = StepCall(leaf.target, self.incoming, body)
        call.label = leaf.label
        return call

    def extra_fields(self) -> bytes:
        """Further fields of the answer."""
        return b""

    def stream_fields(self, head: ResponseHead) -> bytes:
        """Further fields of an answer that is streamed; `head` is the upstream's."""
        return self.router.returned_fields(Reply(head.status, b"", head)) + self.extra_fields()

    def finished(self, status: int) -> None:
        """The request is over, with this status (499: nobody waited for it)."""

    def start(self) -> None:
        """Run the graph; the answer goes out by itself."""
        exchange, router = self.exchange, self.router
        limit = router.graph.timeout_s
        if limit is not None:
            self._deadline = time.monotonic() + limit
            self._timer = router.pool.loop.call_later(limit, self._overdue, limit)
        exchange.on_abort = self.abandon
        fiber = self._fiber = Fiber(router.plan.root.run(self, exchange.body, None, True))
        fiber.attach(self)

    def resume(self, fiber: Wait[Reply]) -> None:
        """The graph is through."""
        self._fiber = None
        if self._timer is not None:
            self._stop_timer()
        exchange = self.exchange
        if not fiber.is_error:
            reply = fiber.result()
            if reply is not STREAMED:
                body = reply.body
                extra = self.router.returned_fields(reply) + self.extra_fields()
                media_type = JSON if reply.made_json else content_type(body)
                exchange.respond(reply.status, body, media_type, extra)
            self.finished(reply.status)
            return
        error = fiber.error
        if not isinstance(error, RequestFailed):
            logger.error("a request failed", exc_info=error)
            error = RequestFailed("internal error")
        self._fail(error)

    def _fail(self, error: RequestFailed) -> None:
        if self.exchange.started:
            self.exchange.drop()
        else:
            body = engine.error_body(str(error))
            self.exchange.respond(error.status, body, JSON, self.extra_fields())
        self.finished(error.status)

    def abandon(self) -> None:
        """The client is gone: nobody waits for the steps any more."""
        self._stop()
        self.finished(CLIENT_GONE)

    def _stop(self) -> None:
        self._stop_timer()
        if self._fiber is not None:
            self._fiber.detach()
            self._fiber.cancel()

    def _overdue(self, limit: float) -> None:
        self.exchange.on_abort = None
        self._stop()
        self._fail(DeadlineExceeded(limit))

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    # --- engine.Context --------------------------------------------------------------------------

    def call(self, leaf: engine.Leaf, body: bytes, tail: bool) -> Wait[Reply]:
        target = leaf.target
        if target is None:
            failed: Wait[Reply] = Wait()
            failed.fail(UpstreamError(f"{leaf.label}: {leaf.problem}", kind="url"))
            return failed
        if not isinstance(target, Target):
            return self._grpc_call(leaf, body)
        call = self.make_call(leaf, body)
        if self._wakes is not None:
            call.on_sent = self._wake_now
        if tail and self.exchange.streams:
            call.stream_fields = self.stream_fields
            call.begin(leaf.timeout_s, self.exchange)
        else:
            call.begin(leaf.timeout_s)
        return call

    def _grpc_call(self, leaf: engine.Leaf, body: bytes) -> Wait[Reply]:
        from router_fn.grpc_steps import GrpcCall

        if self._wakes is not None:
            self._wake_now()
        return GrpcCall(leaf.target, body, self.incoming.headers, leaf.timeout_s)

    def wake(self, node: engine.NodePlan, body: bytes) -> None:
        if self.router.waker.quiet(node):
            if self._wakes is None:
                self._wakes = []
            self._wakes.append((node, body))

    def _wake_now(self) -> None:
        wakes, self._wakes = self._wakes, None
        for node, body in wakes or ():
            self.router.waker.wake(node, body)

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

    def mirror(self, leaf: engine.Leaf, body: bytes, step: engine.StepPlan) -> None:
        if isinstance(leaf.target, Target):
            Call(leaf.target, self.incoming, body).begin(leaf.timeout_s or MIRROR_TIMEOUT_S)
        else:
            self._grpc_call(leaf, body)
        self.count("mirrors", step)

    def count(self, what: str, step: engine.StepPlan) -> None:
        pass


class _Pause(Wait[None]):
    timer: asyncio.TimerHandle

    def cancel(self) -> None:
        super().cancel()
        self.timer.cancel()


class StepCall(Call):
    """A call whose errors say which step it was."""

    label: str

    def fail(self, error: BaseException) -> None:
        if isinstance(error, UpstreamError):
            error = UpstreamError(
                f"{self.label}: {error}", kind=error.kind, retryable=error.retryable
            )
        super().fail(error)
