"""Node semantics: what Sequence, Switch, Ensemble and Splitter do with a request.

Theory of operation. A graph is compiled (`plan`) into objects of this module: a `NodePlan` per
node, a `StepPlan` per step, a `Leaf` per URL. Running a node is a coroutine `run(context, body,
previous, tail)` driven by `fibers`:

* `body` is the node's input, bytes as they came; `previous` is the answer before it in the
  enclosing Sequence (a Switch may judge that instead); `tail` says that this node's answer is the
  client's answer, so it may be streamed.
* The outcome is a `Reply` (any status: an HTTP answer is never an error) or a `RequestFailed`.

The error rule of KServe (spec 2.3): an error ends the whole graph, whatever `dependency` says, and
keeps its own status only in the root node: `StepPlan.call` turns it into 500 when it leaves a
nested node. `tolerate: Errors` makes an error of that step an answer with status 502 instead.

No sockets, no clock, no logging, no configuration here. Everything outside is the `Context`: the
router gives one over sockets, tests a script, `turnout route` none at all.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from router_fn import body as bodies
from router_fn import decide
from router_fn.errors import NoRouteMatched, RequestFailed
from router_fn.fibers import Fiber, Wait, cancel_all
from router_fn.replies import STREAMED, Reply

if TYPE_CHECKING:
    from router_fn.combiners import Combiner
    from router_fn.policies import Policy

TOLERATED_STATUS = 502
"""Status of the answer that stands in for a tolerated error."""


class Leaf:
    """An upstream URL as a step of the graph. `target` is the transport's; None when `problem` says
    why."""

    __slots__ = ("label", "policy", "problem", "target", "timeout_s", "url")

    def __init__(self, label: str, url: str) -> None:
        self.label = label
        """`node/step`, for errors, metrics and traces."""
        self.url = url
        self.problem = ""
        self.target: Any = None
        self.timeout_s: float | None = None
        self.policy: Policy | None = None


class Context(Protocol):
    """The world of one request, as the engine sees it."""

    def call(self, leaf: Leaf, body: bytes, tail: bool, /) -> Wait[Reply]:
        """Send `body` to the leaf. The Wait fails with UpstreamError."""
        ...

    def pause(self, seconds: float, /) -> Wait[None]: ...

    def now(self) -> float:
        """Seconds on a monotonic clock."""
        ...

    def left(self) -> float:
        """Seconds until the request's deadline; infinity when there is none."""
        ...

    def mirror(self, leaf: Leaf, body: bytes, step: "StepPlan", /) -> None:
        """Send a copy whose answer nobody reads."""
        ...

    def count(self, what: str, step: "StepPlan", /) -> None:
        """Note that a policy did something (`retries`, `hedges`, `cache_hits`)."""
        ...

    def draw(self) -> float:
        """A random number in [0, 1)."""
        ...

    def sticky(self, node: "SplitterPlan", /) -> float | None:
        """The same number in [0, 1) for the same client, None when the client cannot be told."""
        ...

    def wake(self, node: "NodePlan", body: bytes, /) -> None:
        """The request is about to run through this node with this input: wake the services it will
        need."""
        ...


def error_body(cause: str) -> bytes:
    """KServe's error object."""
    import json

    return json.dumps(
        {"error": "Failed to process request", "cause": cause}, ensure_ascii=False
    ).encode()


class StepPlan:
    """One step, resolved: where it goes, what it gets, what its failure means."""

    __slots__ = (
        "condition",
        "from_response",
        "hard",
        "key",
        "label",
        "leaf",
        "node",
        "policy",
        "shape",
        "skip",
        "tolerate",
        "weight",
    )

    def __init__(self, key: str, node_name: str = "") -> None:
        self.key = key
        """Name, or the zero-based index of an unnamed step."""
        self.label = f"{node_name}/{key}"
        self.leaf: Leaf | None = None
        self.node: NodePlan | None = None
        self.policy: Policy | None = None
        self.condition: decide.Decider | None = None
        """A Sequence step's condition, None when it has none. A Switch keeps all of its own
        together."""
        self.from_response = False
        self.shape: Callable[[bytes], bytes] | None = None
        self.hard = False
        self.tolerate = False
        self.skip = False
        self.weight = 0

    @property
    def plain(self) -> bool:
        """Just a call of a leaf."""
        return self.leaf is not None and self.policy is None and not self.tolerate

    async def call(
        self, context: Context, body: bytes, previous: bytes | None, tail: bool
    ) -> Reply:
        """Run this step with its chosen input."""
        try:
            if self.policy is not None:
                return await self.policy.perform(context, self, body, previous, tail)
            return await self.attempt(context, body, previous, tail)
        except RequestFailed as error:
            error.status = 500
            if self.tolerate:
                return Reply(TOLERATED_STATUS, error_body(str(error)), made_json=True)
            raise

    async def attempt(
        self, context: Context, body: bytes, previous: bytes | None, tail: bool
    ) -> Reply:
        """One try, without policies."""
        if self.leaf is not None:
            return await context.call(self.leaf, body, tail)
        assert self.node is not None
        return await self.node.run(context, body, previous, tail)

    def start(self, context: Context, body: bytes, previous: bytes | None) -> Wait[Reply]:
        """Run this step beside others."""
        if self.leaf is not None and self.policy is None and not self.tolerate:
            return context.call(self.leaf, body, False)
        return Fiber(self.call(context, body, previous, False))


class NodePlan:
    """A node, resolved. Subclasses are the four node types."""

    kind = ""

    def __init__(self, name: str) -> None:
        self.name = name
        self.steps: Sequence[StepPlan] = ()
        self.wakes: tuple[Any, ...] = ()
        """Targets that may be needed once this node begins; filled by `wake`."""

    async def run(self, context: Context, body: bytes, previous: bytes | None, tail: bool) -> Reply:
        raise NotImplementedError


class SequencePlan(NodePlan):
    """Steps one after the other (spec 2.3, Sequence)."""

    kind = "Sequence"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.collect = False

    async def run(self, context: Context, body: bytes, previous: bytes | None, tail: bool) -> Reply:
        if self.wakes:
            context.wake(self, body)
        reply: Reply | None = None
        collected: list[tuple[str, bytes]] | None = [] if self.collect else None
        last = self.steps[-1] if self.steps and collected is None else None
        for step in self.steps:
            if step.condition is not None:
                verdict = decide.NOT_JSON if reply is None else step.condition.first(reply.body)
                if reply is None or verdict == decide.NOT_JSON:
                    raise RequestFailed("invalid response")
                if verdict == decide.NONE:
                    if step.skip:
                        continue
                    return self._finish(Reply(200, reply.body, reply.head), collected)
            data = reply.body if step.from_response and reply is not None else body
            if step.shape is not None:
                data = step.shape(data)
            before = previous if reply is None else reply.body
            if step.leaf is not None and step.policy is None and not step.tolerate:
                # The common step, without a coroutine of its own.
                try:
                    reply = await context.call(step.leaf, data, tail and step is last)
                except RequestFailed as error:
                    error.status = 500
                    raise
            else:
                reply = await step.call(context, data, before, tail and step is last)
            if step.hard and not reply.good:
                return reply
            if collected is not None:
                collected.append((step.key, reply.body))
        if reply is None:
            return Reply(200, body)
        return self._finish(reply, collected)

    def _finish(self, reply: Reply, collected: list[tuple[str, bytes]] | None) -> Reply:
        if collected is None or reply is STREAMED:
            return reply
        for key, member in collected:
            if not bodies.is_json(member):
                raise RequestFailed(
                    f"step {key!r} answered what is not JSON: it cannot be collected"
                )
        return Reply(200, bodies.stitch(collected), made_json=True)


class SwitchPlan(NodePlan):
    """The first step whose condition holds (spec 2.3, Switch)."""

    kind = "Switch"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.judges_previous = False
        self.decider = decide.Decider(())
        self.branches: tuple[StepPlan, ...] = ()
        """The steps with a condition, in the decider's order."""
        self.default: StepPlan | None = None

    async def run(self, context: Context, body: bytes, previous: bytes | None, tail: bool) -> Reply:
        step = self.choose(body, previous)
        if step is None:
            raise NoRouteMatched
        return await step.call(context, body, previous, tail)

    def choose(self, body: bytes, previous: bytes | None) -> StepPlan | None:
        """The branch for this input: the first match, else the default, else None."""
        judged = previous if self.judges_previous else body
        if judged is None:
            judged = body
        index = self.decider.first(judged)
        return self.branches[index] if index >= 0 else self.default


class SplitterPlan(NodePlan):
    """One step by weight (spec 2.3, Splitter)."""

    kind = "Splitter"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.sticky_source = ""
        self.sticky_name = b""

    async def run(self, context: Context, body: bytes, previous: bytes | None, tail: bool) -> Reply:
        at = context.sticky(self) if self.sticky_source else None
        step = self.choose(context.draw() if at is None else at)
        return await step.call(context, body, previous, tail)

    def choose(self, at: float) -> StepPlan:
        """The step at a point of [0, 1): the first whose cumulated weight is beyond it."""
        point = at * 100
        for step in self.steps:
            if point < step.weight:
                return step
            point -= step.weight
        raise RequestFailed("no route was selected by the splitter")


class EnsemblePlan(NodePlan):
    """All steps at once, one answer of many (spec 2.3, Ensemble)."""

    kind = "Ensemble"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.combiner: Combiner | None = None
        """None is KServe's merge."""
        self.first_wins = False

    async def run(self, context: Context, body: bytes, previous: bytes | None, tail: bool) -> Reply:
        waits = [step.start(context, body, previous) for step in self.steps]
        try:
            winner = await _Members(self, waits)
        except RequestFailed as error:
            error.status = 500
            raise
        finally:
            cancel_all(waits)
        if winner >= 0:
            return waits[winner].result()
        return self._merge([wait.result() for wait in waits])

    def _merge(self, replies: Sequence[Reply]) -> Reply:
        members = [(step.key, reply.body) for step, reply in zip(self.steps, replies, strict=True)]
        if self.combiner is None:
            return Reply(200, bodies.stitch(members), made_json=True)
        good = [member for member, reply in zip(members, replies, strict=True) if reply.good]
        if not good:
            return replies[0] if replies else Reply(200, b"{}")
        try:
            return Reply(200, self.combiner.combine(good))
        except ValueError as error:
            raise RequestFailed(f"the answers cannot be combined: {error}") from error


class _Members(Wait[int]):
    """Waits for an Ensemble's members in KServe's order of events.

    An error of any member ends it at once; answers count in step order, so that a slow first member
    is waited for before a Hard failure behind it is noticed. Resolves with the index of the member
    that is the whole answer, or -1 when all are to be merged.
    """

    def __init__(self, ensemble: EnsemblePlan, waits: Sequence[Wait[Reply]]) -> None:
        self._ensemble = ensemble
        self._waits = waits
        self._next = 0
        self._seen: set[Wait[Reply]] = set()
        """Members that were looked at: one may be done before its turn comes (a cached answer)."""
        self._left = len(waits)
        if not waits:
            self.resolve(-1)
        for wait in waits:
            if not self.pending:
                break
            wait.attach(self)

    def resume(self, wait: Wait[Reply]) -> None:
        self._left -= 1
        if self._ensemble.first_wins:
            self._first(wait)
        elif wait.is_error:
            self.fail(wait.error)
        else:
            self._seen.add(wait)
            self._in_order(wait.result())

    def _in_order(self, reply: Reply) -> None:
        steps, waits = self._ensemble.steps, self._waits
        if self._ensemble.combiner is None and not bodies.is_object_or_null(reply.body):
            self.fail(RequestFailed("a member of the ensemble answered no JSON object"))
            return
        while self._next < len(waits) and waits[self._next] in self._seen:
            if steps[self._next].hard and not waits[self._next].result().good:
                self.resolve(self._next)
                return
            self._next += 1
        if self._next == len(waits):
            self.resolve(-1)

    def _first(self, wait: Wait[Reply]) -> None:
        if not wait.is_error and wait.result().good:
            self.resolve(next(i for i, one in enumerate(self._waits) if one is wait))
        elif self._left == 0:
            # Nobody was good: the first answer in step order, else the first error.
            for index, one in enumerate(self._waits):
                if not one.is_error:
                    self.resolve(index)
                    return
            self.fail(self._waits[0].error)
