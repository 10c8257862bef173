"""Drives the engine without sockets: a scripted `Context`, and builders for graphs."""

from collections.abc import Callable, Mapping
from typing import Any

from router_fn import engine, graph, plan
from router_fn.errors import UpstreamError
from router_fn.fibers import Fiber, Wait
from router_fn.replies import Reply

Answer = bytes | tuple[int, bytes] | Exception | Callable[[bytes], "Answer"] | None
"""A body (200), a status and body, an error, a function of the input, or None: later, by
`Script.answer`."""


class Script(engine.Context):
    """Answers calls by leaf label or URL path; time stands still unless moved."""

    def __init__(self, answers: Mapping[str, Any], draws: list[float] | None = None) -> None:
        self.answers = dict(answers)
        self.calls: list[tuple[str, bytes]] = []
        self.waiting: dict[str, list[Wait[Reply]]] = {}
        self.cancelled: list[str] = []
        self.mirrored: list[tuple[str, bytes]] = []
        self.counted: list[tuple[str, str]] = []
        self.woken: list[str] = []
        self.timers: list[tuple[float, Wait[None]]] = []
        self.time = 0.0
        self.deadline = float("inf")
        self.stuck_at: float | None = None
        self._draws = draws or []

    def call(self, leaf: engine.Leaf, body: bytes, tail: bool) -> Wait[Reply]:
        name = leaf.url.rpartition("/")[2]
        self.calls.append((name, body))
        wait = _Call(self, name)
        answer = self.answers.get(name, body)
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if callable(answer):
            answer = answer(body)
        if answer is None:
            self.waiting.setdefault(name, []).append(wait)
        else:
            give(wait, answer)
        return wait

    def answer(self, name: str, answer: Any) -> None:
        give(self.waiting[name].pop(0), answer)

    def pause(self, seconds: float) -> Wait[None]:
        wait: Wait[None] = Wait()
        self.timers.append((self.time + seconds, wait))
        return wait

    def pass_time(self, seconds: float) -> None:
        self.time += seconds
        due = [entry for entry in self.timers if entry[0] <= self.time]
        self.timers = [entry for entry in self.timers if entry[0] > self.time]
        for _, wait in due:
            wait.resolve(None)

    def now(self) -> float:
        return self.time

    def left(self) -> float:
        return self.deadline - self.time

    def draw(self) -> float:
        return self._draws.pop(0) if self._draws else 0.5

    def sticky(self, node: engine.SplitterPlan) -> float | None:
        return self.stuck_at

    def wake(self, node: engine.NodePlan, body: bytes) -> None:
        self.woken.append(node.name)

    def mirror(self, leaf: engine.Leaf, body: bytes, step: engine.StepPlan) -> None:
        self.mirrored.append((leaf.url, body))

    def count(self, what: str, step: engine.StepPlan) -> None:
        self.counted.append((what, step.label))


class _Call(Wait[Reply]):
    def __init__(self, script: Script, name: str) -> None:
        self._script = script
        self._name = name

    def cancel(self) -> None:
        if self.pending:
            self._script.cancelled.append(self._name)
        super().cancel()


def give(wait: Wait[Reply], answer: Any) -> None:
    if isinstance(answer, Exception):
        wait.fail(answer)
    else:
        status, body = answer if isinstance(answer, tuple) else (200, answer)
        wait.resolve(Reply(status, body))


def refused() -> UpstreamError:
    return UpstreamError("cannot connect: Connection refused", kind="connect", retryable=True)


def step(where: str = "a", **fields: Any) -> dict[str, Any]:
    """A step to the service `where`, or to a node with `node:NAME`."""
    if where.startswith("node:"):
        return {"nodeName": where[5:], **fields}
    return {"serviceUrl": f"http://m.test/{where}", **fields}


def node(kind: str, *steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"routerType": kind, "steps": list(steps), **fields}


def build(root: dict[str, Any], spec: Mapping[str, Any] | None = None, **nodes: Any) -> plan.Plan:
    parsed = graph.parse({"nodes": {"root": root, **nodes}, **(spec or {})})
    return plan.build(parsed, lambda url, step: url)


def run(made: plan.Plan, script: Script, body: bytes = b"{}") -> Fiber[Reply]:
    return Fiber(made.root.run(script, body, None, True))


def outcome(made: plan.Plan, script: Script, body: bytes = b"{}") -> tuple[int, bytes]:
    reply = run(made, script, body).result()
    return reply.status, reply.body
