"""What a step may have besides a target: cache, mirror, hedging, retries, a time limit of its own.

In this order, outermost first: a cached answer spares the call; a mirrored copy is sent once per
request, not per try; each try may be hedged; a failed try is repeated. Pure like the engine: time
and chance come from the context.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from router_fn.errors import RequestFailed, UpstreamError
from router_fn.fibers import Fiber, FirstOf, Wait, cancel_all
from router_fn.graph import Cache, Mirror, Retries, Step
from router_fn.replies import Reply

if TYPE_CHECKING:
    from router_fn.engine import Context, Leaf, StepPlan

RETRIED_STATUSES = frozenset({502, 503, 504})
"""Answers that mean "not now": what gateways and activators say while a service wakes or moves."""


class Policy:
    """The policies of one step, and their state (only a cache has any)."""

    def __init__(self) -> None:
        self.retries: Retries | None = None
        self.hedge_after_s: float | None = None
        self.node_timeout_s: float | None = None
        """Time limit of a nested node; a leaf's is enforced by its call."""
        self.mirror_leaf: Leaf | None = None
        self.mirror_share = 0.0
        self.cache: ReplyCache | None = None

    async def perform(
        self, context: "Context", step: "StepPlan", body: bytes, previous: bytes | None, tail: bool
    ) -> Reply:
        """The step's answer. Raises RequestFailed."""
        cache = self.cache
        if cache is not None:
            known = cache.get(body, context.now())
            if known is not None:
                context.count("cache_hits", step)
                return known
        if self.mirror_leaf is not None and context.draw() < self.mirror_share:
            context.mirror(self.mirror_leaf, body, step)
        # An answer that is to be kept, or raced, cannot be streamed away.
        tail = tail and cache is None and self.hedge_after_s is None
        reply = await self._tries(context, step, body, previous, tail)
        if cache is not None and reply.good:
            cache.put(body, reply, context.now())
        return reply

    async def _tries(
        self, context: "Context", step: "StepPlan", body: bytes, previous: bytes | None, tail: bool
    ) -> Reply:
        retries = self.retries
        left = retries.attempts if retries is not None else 0
        pause_s = retries.initial_ms / 1000 if retries is not None else 0.0
        while True:
            try:
                reply = await self._hedged(context, step, body, previous, tail)
                if left == 0 or reply.status not in RETRIED_STATUSES:
                    return reply
                error: UpstreamError | None = None
            except UpstreamError as failure:
                if left == 0 or not failure.retryable:
                    raise
                error, reply = failure, Reply(0, b"")
            assert retries is not None
            # Full jitter: routers that failed together do not come back together.
            wait_s = pause_s * context.draw()
            if wait_s >= context.left():
                if error is not None:
                    raise error
                return reply
            left -= 1
            pause_s = min(pause_s * 2, retries.max_ms / 1000)
            context.count("retries", step)
            await context.pause(wait_s)

    async def _hedged(
        self, context: "Context", step: "StepPlan", body: bytes, previous: bytes | None, tail: bool
    ) -> Reply:
        if self.hedge_after_s is None:
            return await self._timed(context, step, body, previous, tail)
        waits: list[Wait[Reply]] = [Fiber(self._timed(context, step, body, previous, False))]
        try:
            timer = context.pause(self.hedge_after_s)
            if await FirstOf([waits[0], timer]) == 0:
                timer.cancel()
                return waits[0].result()
            waits[0].detach()
            context.count("hedges", step)
            waits.append(Fiber(self._timed(context, step, body, previous, False)))
            first = await FirstOf(waits)
            other = waits[1 - first]
            if not waits[first].is_error and waits[first].result().status < 500:
                return waits[first].result()
            # The quicker one is no good: the slower one decides.
            try:
                return await other
            except RequestFailed:
                return waits[first].result()
        finally:
            cancel_all(waits)

    async def _timed(
        self, context: "Context", step: "StepPlan", body: bytes, previous: bytes | None, tail: bool
    ) -> Reply:
        limit = self.node_timeout_s
        if limit is None:
            return await step.attempt(context, body, previous, tail)
        fiber = Fiber(step.attempt(context, body, previous, False))
        timer = context.pause(limit)
        try:
            if await FirstOf([fiber, timer]) == 0:
                return fiber.result()
            raise UpstreamError(f"gave no answer within {limit:g} s", kind="timeout")
        finally:
            cancel_all([fiber, timer])


class ReplyCache:
    """Good answers by request body: bounded in number and bytes, least recently used goes first."""

    def __init__(self, settings: Cache) -> None:
        import hashlib  # only graphs that cache need it

        self._settings = settings
        self._digest = hashlib.blake2b
        self._bytes = 0
        self._kept: OrderedDict[bytes, tuple[float, Reply]] = OrderedDict()

    def _key(self, body: bytes) -> bytes:
        return self._digest(body, digest_size=32).digest()

    def get(self, body: bytes, now: float) -> Reply | None:
        key = self._key(body)
        entry = self._kept.get(key)
        if entry is None:
            return None
        if now >= entry[0]:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return entry[1]

    def put(self, body: bytes, reply: Reply, now: float) -> None:
        if len(reply.body) > self._settings.max_bytes:
            return
        key = self._key(body)
        if key in self._kept:
            self._drop(key)
        self._kept[key] = (now + self._settings.ttl_s, Reply(reply.status, reply.body, reply.head))
        self._bytes += len(reply.body)
        while (
            len(self._kept) > self._settings.max_entries or self._bytes > self._settings.max_bytes
        ):
            self._drop(next(iter(self._kept)))

    def _drop(self, key: bytes) -> None:
        self._bytes -= len(self._kept.pop(key)[1].body)


def make_policy(step: Step, mirror_leaf: "Callable[[Step, str], Leaf]") -> Policy | None:
    """The policies a step asks for, None when it asks for none."""
    policy = Policy()
    policy.retries = step.retries
    if step.hedge_after_ms is not None:
        policy.hedge_after_s = step.hedge_after_ms / 1000
    if step.node_name:
        policy.node_timeout_s = step.timeout_s
    if step.mirror is not None:
        mirror: Mirror = step.mirror
        policy.mirror_leaf = mirror_leaf(step, mirror.url)
        policy.mirror_share = mirror.percent / 100
    if step.cache is not None:
        policy.cache = ReplyCache(step.cache)
    wanted = (
        policy.retries,
        policy.hedge_after_s,
        policy.node_timeout_s,
        policy.mirror_leaf,
        policy.cache,
    )
    return policy if any(part is not None for part in wanted) else None
