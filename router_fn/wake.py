"""Wake-ahead: services that sleep are called before they are needed, all at once.

A chain of N sleeping services would cost N cold starts one after the other. When a request begins
to run through a node, every service that it will surely reach, and that has not answered for a
while, gets a cheap request at once. Those cold starts overlap, and the chain costs about one.

Wake-ups leave when the first call of the request has left (a request whose first hop cannot even be
reached wakes nobody), never delay or fail it, and there is at most one under way per service.
"""

import logging
from collections.abc import Callable
from typing import cast

from functions.wire.http1_head import ResponseHead
from router_fn import engine, plan
from router_fn.calls import Target, make_head
from router_fn.errors import UpstreamError
from router_fn.pool import Origin, Pool
from router_fn.settings import Settings
from router_fn.upstream import UpstreamConnection

logger = logging.getLogger(__name__)


class Waker:
    """Knows which services each node will surely need, and wakes those that may be asleep."""

    def __init__(self, graph_plan: plan.Plan, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._after_s = settings.prewarm_after_s
        self._timeout_s = settings.prewarm_timeout_s
        self.sent = 0
        self._under_way: set[_WakeUp] = set()
        self._everything = graph_plan.graph.prewarm == "all"
        if graph_plan.graph.prewarm == "none":
            return
        for node in graph_plan.nodes.values():
            if isinstance(node, engine.SequencePlan):
                # All that may be needed below: looked at only to see that nothing is quiet.
                node.wakes = tuple(targets_of(node, None, everything=True))

    def quiet(self, node: engine.NodePlan) -> bool:
        """Whether anything that the node may need has not answered for a while."""
        since = self._pool.now - self._after_s
        for target in node.wakes:  # noqa: SIM110 - no generator for every request
            if target.origin.last_answer < since:
                return True
        return False

    def wake(self, node: engine.NodePlan, body: bytes) -> None:
        """The node has begun with this input: wake what it will need and what has been quiet."""
        quiet_since = self._pool.now - self._after_s
        for target in targets_of(node, body, everything=self._everything):
            if _asleep(target, quiet_since):
                self.sent += 1
                wake_up = _WakeUp(target, self._pool, self._timeout_s, self._under_way.discard)
                self._under_way.add(wake_up)
                wake_up.begin()

    def stop(self) -> None:
        """Give up all wake-ups: the process is going."""
        for wake_up in list(self._under_way):
            wake_up.give_up()


def _asleep(target: object, quiet_since: float) -> bool:
    """It has not answered for a while, and nobody is calling it already."""
    origin = cast("Target", target).origin
    return origin.last_answer < quiet_since and not origin.busy and not origin.waking


def targets_of(node: engine.NodePlan, body: bytes | None, *, everything: bool) -> list[Target]:
    """The targets, one per origin, that a request through `node` surely reaches if all goes well.

    `body` is the node's input, None when it is not known yet: then a Switch could take any branch.
    `everything` adds what depends on conditions, answers and chance.
    """
    found: dict[Origin, Target] = {}
    _collect(node, body, everything, found)
    return list(found.values())


def _collect(
    node: engine.NodePlan, body: bytes | None, everything: bool, found: dict[Origin, Target]
) -> None:
    if isinstance(node, engine.SequencePlan):
        for index, step in enumerate(node.steps):
            if step.condition is not None and not everything:
                if step.skip:
                    continue
                return  # unmet, it ends the Sequence: nothing behind it is sure
            known = step.shape is None and (index == 0 or not step.from_response)
            _add(step, body if known else None, everything, found)
        return
    steps = node.steps
    if isinstance(node, engine.SwitchPlan) and not everything:
        chosen = None if body is None or node.judges_previous else node.choose(body, None)
        steps = () if chosen is None else (chosen,)
    elif isinstance(node, engine.SplitterPlan):
        steps = tuple(step for step in steps if step.weight == 100 or (everything and step.weight))
    for step in steps:
        _add(step, body, everything, found)


def _add(
    step: engine.StepPlan, body: bytes | None, everything: bool, found: dict[Origin, Target]
) -> None:
    if step.node is not None:
        _collect(step.node, body, everything, found)
    elif step.leaf is not None and isinstance(step.leaf.target, Target):
        found.setdefault(step.leaf.target.origin, step.leaf.target)


def probe_path(target: Target) -> str:
    """Something cheap that the service answers, ready or not: the protocol's own health path."""
    return "/v2/health/ready" if target.url.target.startswith("/v2/") else "/readyz"


class _WakeUp:
    """One cheap GET; whatever comes back, the service is awake."""

    inflates = False

    def __init__(
        self, target: Target, pool: Pool, timeout_s: float, done: Callable[["_WakeUp"], None]
    ) -> None:
        self._done = done
        self.cancelled = False
        self._target = target
        self._origin = target.origin
        self._connection: UpstreamConnection | None = None
        self._timer = pool.loop.call_later(timeout_s, self.give_up)

    def begin(self) -> None:
        self._origin.waking = True
        self._origin.send(self)

    def transmit(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        url = self._target.url
        path = probe_path(self._target)
        where = type(url)(url.scheme, url.host, url.port, path)
        head = make_head(b"GET", where, self._origin, b"User-Agent: turnout-router prewarm\r\n")
        connection.begin(self, head + b"\r\n", b"")

    def replied(self, status: int, body: bytes, head: ResponseHead) -> None:
        self._over()

    def failed(self, error: UpstreamError) -> None:
        logger.debug("could not wake %s: %s", self._target.url.origin, error)
        self._over()

    def unsent(self) -> None:
        self._origin.send(self)

    def wants_stream(self, head: ResponseHead) -> bool:
        return False

    def stream_data(self, data: bytes) -> None:
        raise AssertionError("a wake-up is not streamed")

    def stream_end(self) -> None:
        raise AssertionError("a wake-up is not streamed")

    def give_up(self) -> None:
        self.cancelled = True
        if self._connection is not None:
            self._connection.abandon()
        self._over()

    def _over(self) -> None:
        self._connection = None
        self._timer.cancel()
        self._origin.waking = False
        self._done(self)
