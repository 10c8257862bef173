"""The graph told to people: as a Mermaid flowchart, and as the path that a given body takes.

Nothing is called. Where a decision depends on an answer that nobody knows yet, the path says so:
every step is `sure`, `maybe` (it depends on an answer, or on chance) or `skipped` (decided
against).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from router_fn import decide, engine
from router_fn.graph import Graph
from router_fn.plan import Plan

Certainty = Literal["sure", "maybe", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One step of the path, in the order of a walk through the graph."""

    depth: int
    node: str
    node_type: str
    step: str
    target: str
    """A URL, or `node NAME`."""
    certainty: Certainty
    reason: str

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def route(plan: Plan, body: bytes, answers: Mapping[str, bytes] | None = None) -> list[Taken]:
    """The path of a request with this body. `answers`: what steps are assumed to answer, by
    `node/step` or step name."""
    walk = _Walk(answers or {})
    walk.node(plan.root, body, None, 0, "sure")
    return walk.taken


class _Walk:
    def __init__(self, answers: Mapping[str, bytes]) -> None:
        self._answers = answers
        self.taken: list[Taken] = []

    def node(
        self,
        node: engine.NodePlan,
        body: bytes | None,
        previous: bytes | None,
        depth: int,
        certainty: Certainty,
    ) -> bytes | None:
        """Walk a node; returns its answer when that is known. None as `body` means unknown."""
        if isinstance(node, engine.SequencePlan):
            return self._sequence(node, body, previous, depth, certainty)
        if isinstance(node, engine.SwitchPlan):
            return self._switch(node, body, previous, depth, certainty)
        if isinstance(node, engine.SplitterPlan):
            for step in node.steps:
                certain = certainty if step.weight == 100 else "maybe" if step.weight else "skipped"
                self._step(
                    node, step, body, previous, depth, certain, f"{step.weight} % of requests"
                )
            return None
        for step in node.steps:
            self._step(node, step, body, previous, depth, certainty, "every member is called")
        return None

    def _sequence(
        self,
        node: engine.SequencePlan,
        body: bytes | None,
        previous: bytes | None,
        depth: int,
        certainty: Certainty,
    ) -> bytes | None:
        answer = previous
        first = True
        last_name = ""
        for step in node.steps:
            reason = "first step" if first else f"after {last_name}"
            certain = certainty
            if step.condition is not None:
                text = step.condition.text
                if first:
                    reason = f"{text!r} has no answer to look at: the request fails with 500"
                    self._note(node, step, depth, "skipped", reason)
                    return None
                if answer is None:
                    certain, reason = "maybe", f"if the answer of {last_name} matches {text!r}"
                    if not step.skip:
                        certainty = "maybe"
                elif (verdict := step.condition.first(answer)) < 0:
                    why = (
                        "is not JSON" if verdict == decide.NOT_JSON else f"does not match {text!r}"
                    )
                    end = "goes on" if step.skip else "ends the Sequence"
                    self._note(
                        node, step, depth, "skipped", f"the answer of {last_name} {why}: {end}"
                    )
                    if step.skip:
                        continue
                    return answer
                else:
                    reason = f"the answer of {last_name} matches {text!r}"
            data = answer if step.from_response and not first else body
            if data is not None and step.shape is not None:
                data = step.shape(data)
            before = None if first else answer
            answer = self._step(node, step, data, before, depth, certain, reason)
            first, last_name = False, step.key
        return body if first else answer

    def _switch(
        self,
        node: engine.SwitchPlan,
        body: bytes | None,
        previous: bytes | None,
        depth: int,
        certainty: Certainty,
    ) -> bytes | None:
        judged = previous if node.judges_previous and previous is not None else body
        if judged is None:
            for step in node.steps:
                self._step(
                    node, step, body, previous, depth, "maybe", "depends on an answer not known yet"
                )
            return None
        chosen = node.choose(body or b"", judged)
        answer = None
        for step in node.steps:
            if step is chosen:
                reason = "default" if step is node.default else "the first condition that holds"
                answer = self._step(node, step, body, previous, depth, certainty, reason)
            else:
                self._note(node, step, depth, "skipped", "not the branch for this body")
        if chosen is None:
            self.taken.append(
                Taken(
                    depth=depth,
                    node=node.name,
                    node_type=node.kind,
                    step="",
                    target="",
                    certainty=certainty,
                    reason="no condition holds: the client gets 404 (500 below the root)",
                )
            )
        return answer

    def _step(
        self,
        node: engine.NodePlan,
        step: engine.StepPlan,
        body: bytes | None,
        previous: bytes | None,
        depth: int,
        certainty: Certainty,
        reason: str,
    ) -> bytes | None:
        self._note(node, step, depth, certainty, reason)
        if step.node is not None and certainty != "skipped":
            return self.node(step.node, body, previous, depth + 1, certainty)
        return self._answers.get(f"{node.name}/{step.key}", self._answers.get(step.key))

    def _note(
        self,
        node: engine.NodePlan,
        step: engine.StepPlan,
        depth: int,
        certainty: Certainty,
        reason: str,
    ) -> None:
        target = (
            step.leaf.url
            if step.leaf is not None
            else f"node {step.node.name}"
            if step.node
            else ""
        )
        self.taken.append(
            Taken(
                depth=depth,
                node=node.name,
                node_type=node.kind,
                step=step.key,
                target=target,
                certainty=certainty,
                reason=reason,
            )
        )


_MARKS: dict[Certainty, str] = {"sure": "->", "maybe": "?>", "skipped": " x"}


def render(path: list[Taken]) -> str:
    """The path as indented text."""
    lines = []
    for one in path:
        name = f"{one.node}/{one.step}" if one.step else one.node
        lines.append(
            f"{'    ' * one.depth}{_MARKS[one.certainty]} {name}  {one.target}  ({one.reason})"
        )
    return "\n".join(lines)


def mermaid(graph: Graph) -> str:
    """The graph as a Mermaid flowchart."""
    lines = ["flowchart LR", "    client([client]) --> n_root"]
    ids = {name: f"n{'_root' if name == 'root' else i}" for i, name in enumerate(graph.nodes)}
    for name, node in graph.nodes.items():
        lines.append(f'    {ids[name]}{{{{"{_quoted(name)}<br/>{node.router_type}"}}}}')
        for index, step in enumerate(node.steps):
            label = [step.name or str(index)] if step.name or len(node.steps) > 1 else []
            if step.condition:
                label.append(step.condition)
            if step.default:
                label.append("default")
            if step.weight is not None:
                label.append(f"{step.weight} %")
            if step.hard:
                label.append("Hard")
            arrow = f'-- "{_quoted(": ".join(label))}" -->' if label else "-->"
            if step.node_name:
                goal = ids.get(step.node_name, "missing")
            else:
                goal = f'{ids[name]}s{index}["{_quoted(step.service_url or step.service_name)}"]'
            lines.append(f"    {ids[name]} {arrow} {goal}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Text inside a quoted Mermaid label."""
    for character, entity in (('"', "#quot;"), ("<", "#lt;"), (">", "#gt;")):
        text = text.replace(character, entity)
    return text
