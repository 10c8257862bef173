"""Graph -> executable plan: every look-up that a request would need is done here, once, at boot.

The plan is a tree of `engine` objects with shared nodes kept shared. Conditions are compiled, URLs
parsed, targets bound to their origins, header patterns compiled. Building a plan does no I/O; a bad
URL makes a leaf that fails when it is called (KServe's behaviour), with a warning from
`graph_checks`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from router_fn import body as bodies
from router_fn import conditions, decide, engine, policies
from router_fn.graph import ROOT, Graph, Node, Step
from router_fn.urls import Url, parse_url

if TYPE_CHECKING:
    from router_fn.combiners import Combiner

Bind = Callable[[Url, Step], object]
"""Gives a leaf its target: the transport's part of building a plan."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A graph ready to run."""

    graph: Graph
    root: engine.NodePlan
    nodes: dict[str, engine.NodePlan]
    leaves: tuple[engine.Leaf, ...]

    @property
    def single(self) -> engine.Leaf | None:
        """The one leaf of a graph that is just a pass-through; such requests skip the engine."""
        root = self.root
        if not isinstance(root, engine.SequencePlan) or len(root.steps) != 1 or root.collect:
            return None
        step = root.steps[0]
        plain = (
            step.leaf is not None
            and step.policy is None
            and step.condition is None
            and step.shape is None
            and not step.tolerate
        )
        return step.leaf if plain else None


def build(graph: Graph, bind: Bind) -> Plan:
    """Compile a checked graph. Raises ConditionError or ValueError only for what `graph_checks`
    refuses."""
    builder = _Builder(graph, bind)
    root = builder.node(ROOT)
    return Plan(graph, root, builder.nodes, tuple(builder.leaves))


class _Builder:
    def __init__(self, graph: Graph, bind: Bind) -> None:
        self._graph = graph
        self._bind = bind
        self.nodes: dict[str, engine.NodePlan] = {}
        self.leaves: list[engine.Leaf] = []

    def node(self, name: str) -> engine.NodePlan:
        if name in self.nodes:
            return self.nodes[name]
        node = self._graph.nodes[name]
        plan = self._make(name, node)
        self.nodes[name] = plan
        plan.steps = tuple(
            self._step(name, node, index, step) for index, step in enumerate(node.steps)
        )
        if isinstance(plan, engine.SwitchPlan):
            self._branches(plan, node)
        return plan

    def _branches(self, plan: engine.SwitchPlan, node: Node) -> None:
        both = list(zip(node.steps, plan.steps, strict=True))
        # An empty condition is a GJSON path, too: it holds for a document with a "" key (spec 7).
        compiled = [
            conditions.compile_condition(step.condition) for step, _ in both if not step.default
        ]
        plan.decider = decide.Decider(compiled)
        plan.branches = tuple(branch for step, branch in both if not step.default)
        plan.default = next((branch for step, branch in both if step.default), None)

    def _make(self, name: str, node: Node) -> engine.NodePlan:
        match node.router_type:
            case "Sequence":
                sequence = engine.SequencePlan(name)
                sequence.collect = node.collect
                return sequence
            case "Switch":
                switch = engine.SwitchPlan(name)
                switch.judges_previous = node.judge == "$response"
                return switch
            case "Splitter":
                splitter = engine.SplitterPlan(name)
                if node.sticky is not None:
                    splitter.sticky_source = node.sticky.source
                    splitter.sticky_name = node.sticky.name.lower().encode("latin-1", "replace")
                return splitter
            case "Ensemble":
                ensemble = engine.EnsemblePlan(name)
                if node.combiner is not None and node.combiner.name != "merge":
                    if node.combiner.name == "first":
                        ensemble.first_wins = True
                    ensemble.combiner = make_combiner(node)
                return ensemble

    def _step(self, node_name: str, node: Node, index: int, step: Step) -> engine.StepPlan:
        plan = engine.StepPlan(step.name or str(index), node_name)
        plan.hard = step.hard
        plan.tolerate = step.tolerate_errors
        plan.weight = step.weight or 0
        plan.skip = (step.unmet or node.unmet) == "Skip"
        if node.router_type == "Sequence":
            if step.condition:
                plan.condition = decide.Decider([conditions.compile_condition(step.condition)])
            plan.from_response = step.data == "$response" or (
                self._graph.pick_data and step.data.startswith(("$response.", "$response["))
            )
            plan.shape = _shape(self._graph, step)
        if step.node_name:
            plan.node = self.node(step.node_name)
        else:
            plan.leaf = self._leaf(plan.label, step)
        plan.policy = policies.make_policy(step, self._bind_mirror)
        return plan

    def _leaf(self, label: str, step: Step) -> engine.Leaf:
        leaf = engine.Leaf(label, step.service_url or step.service_name)
        leaf.timeout_s = step.timeout_s
        if not step.service_url:
            leaf.problem = f"serviceName {step.service_name!r} has no serviceUrl"
        else:
            try:
                leaf.target = self._bind(parse_url(step.service_url), step)
            except ValueError as error:
                leaf.problem = str(error)
        self.leaves.append(leaf)
        return leaf

    def _bind_mirror(self, step: Step, url: str) -> engine.Leaf:
        leaf = engine.Leaf(f"mirror of {step.name or step.service_url}", url)
        leaf.target = self._bind(parse_url(url), step)
        return leaf


def make_combiner(node: Node) -> "Combiner":
    """The combiner of an Ensemble. Raises ValueError for unknown names and options."""
    from router_fn import combiners  # loaded only by graphs that have one

    assert node.combiner is not None
    names = [step.name or str(index) for index, step in enumerate(node.steps)]
    options = dict(node.combiner.options)
    if node.combiner.name == "weighted" and "weights" not in options:
        options["weights"] = {
            name: step.weight
            for name, step in zip(names, node.steps, strict=True)
            if step.weight is not None
        }
    return combiners.make_combiner(node.combiner.name, options, names)


def _shape(graph: Graph, step: Step) -> Callable[[bytes], bytes] | None:
    """What happens to a Sequence step's input between choosing and sending it."""
    shapes: list[Callable[[bytes], bytes]] = []
    if graph.pick_data:
        for root in ("$response", "$request"):
            if step.data.startswith((root + ".", root + "[")):
                shapes.append(bodies.pick("$" + step.data[len(root) :]))
    if step.pick:
        shapes.append(bodies.pick(step.pick))
    if step.map_predictions:
        shapes.append(bodies.predictions_to_instances)
    if step.map_outputs:
        shapes.append(bodies.outputs_to_inputs)
    if not shapes:
        return None
    if len(shapes) == 1:
        return shapes[0]

    def chain(data: bytes) -> bytes:
        for shape in shapes:
            data = shape(data)
        return data

    return chain
