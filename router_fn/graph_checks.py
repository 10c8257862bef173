"""What is wrong with a graph as a whole: references, cycles, names, weights, conditions, misplaced
fields.

Errors are what would crash, hang or silently misroute; warnings are what runs, but hardly as meant.
A malformed URL and an unused node are warnings once URLs are resolved (KServe starts with them, and
only the requests that get there fail), errors for the compiler.
"""

import string
from collections.abc import Iterator

from router_fn import conditions
from router_fn.errors import Problem
from router_fn.graph import ROOT, Graph, Node, Step
from router_fn.urls import parse_url

MAX_DEPTH = 50
"""Nodes nested in nodes. Running one takes a few stack frames per level, and nobody draws graphs
like that."""


def check_graph(graph: Graph, *, resolved: bool = True) -> list[Problem]:
    """All problems of a parsed graph, in document order."""
    problems: list[Problem] = []
    if ROOT not in graph.nodes:
        problems.append(
            ("error", "nodes", "have no root: a node called root is where requests begin")
        )
    for name, node in graph.nodes.items():
        path = f"nodes.{name}"
        problems += _check_node(path, name, node)
        for index, step in enumerate(node.steps):
            where = f"{path}.steps[{index}]"
            label = f"step {step.name!r}" if step.name else f"step {index}"
            problems += _check_target(graph, where, label, step, resolved)
            problems += _check_step(graph, where, label, node, step)
        problems += _check_cut_off(path, node)
    problems += _check_reachability(graph, resolved)
    return problems


def _check_node(path: str, name: str, node: Node) -> Iterator[Problem]:
    seen: set[str] = set()
    for step in node.steps:
        if step.name and step.name in seen:
            yield "error", path, f"has two steps called {step.name!r}"
        seen.add(step.name)
    if node.router_type == "Splitter":
        missing = [step.name or str(i) for i, step in enumerate(node.steps) if step.weight is None]
        if missing:
            yield (
                "error",
                path,
                f"is a Splitter: every step needs a weight, missing on step {', '.join(missing)}",
            )
        else:
            total = sum(step.weight or 0 for step in node.steps)
            if total != 100:
                yield (
                    "error",
                    path,
                    f"(Splitter {name!r}): the sum of weights is {total}, must be 100",
                )
    for given, field, kind in (
        (node.combiner is not None, "combiner", "Ensemble"),
        (node.collect, "collect", "Sequence"),
        (node.unmet == "Skip", "unmet", "Sequence"),
        (node.judge == "$response", "judge", "Switch"),
        (node.sticky is not None, "stickyBy", "Splitter"),
    ):
        if given and node.router_type != kind:
            yield "error", f"{path}.{field}", f"belongs to a {kind}, this is a {node.router_type}"
    if node.combiner is not None and node.router_type == "Ensemble":
        from router_fn.plan import make_combiner

        try:
            make_combiner(node)
        except ValueError as error:
            yield "error", f"{path}.combiner", str(error)
    if node.router_type == "Switch" and sum(step.default for step in node.steps) > 1:
        yield "error", path, "has more than one default step"


def _check_target(
    graph: Graph, where: str, label: str, step: Step, resolved: bool
) -> Iterator[Problem]:
    service = step.service_url or step.service_name
    if step.node_name and service:
        yield (
            "error",
            where,
            f"{label} has more than one target: nodeName and serviceUrl or serviceName",
        )
    elif not step.node_name and not service:
        yield (
            "error",
            where,
            f"{label} has no target: nodeName, serviceName or serviceUrl is needed",
        )
    if step.node_name and step.node_name not in graph.nodes:
        yield (
            "error",
            f"{where}.nodeName",
            f"{label} goes to node {step.node_name!r}, which does not exist",
        )
    level = "warning" if resolved else "error"
    if step.service_url:
        try:
            parse_url(step.service_url)
        except ValueError as error:
            yield level, f"{where}.serviceUrl", f"{label}: {error}"
    elif step.service_name and resolved:
        yield (
            "warning",
            where,
            f"{label}: serviceName {step.service_name!r} has no serviceUrl, its calls will fail",
        )
    if step.mirror is not None:
        try:
            parse_url(step.mirror.url)
        except ValueError as error:
            yield "error", f"{where}.mirror.serviceUrl", f"{label}: {error}"


def _check_step(graph: Graph, where: str, label: str, node: Node, step: Step) -> Iterator[Problem]:
    judges = node.router_type in ("Sequence", "Switch")
    if step.default and node.router_type != "Switch":
        yield "error", f"{where}.default", f"belongs to a Switch, this is a {node.router_type}"
    elif step.default and step.condition:
        yield "error", f"{where}.condition", f"{label} is the default: it has no condition"
    if step.unmet and node.router_type != "Sequence":
        yield "error", f"{where}.unmet", f"belongs to a Sequence, this is a {node.router_type}"
    if step.node_name:
        for given, field in (
            (step.cache, "cache"),
            (step.mirror, "mirror"),
            (step.stream != "Auto", "stream"),
        ):
            if given:
                yield (
                    "error",
                    f"{where}.{field}",
                    f"{label} runs a node: {field} needs a serviceUrl",
                )
    if step.pick:
        yield from _check_pick(f"{where}.pick", step.pick)
    if step.data.startswith(("$response.", "$response[", "$request.", "$request[")):
        if graph.pick_data:
            yield from _check_pick(
                f"{where}.data", "$" + step.data.lstrip("$").lstrip(string.ascii_lowercase)
            )
        elif node.router_type == "Sequence":
            yield (
                "warning",
                f"{where}.data",
                f"{step.data!r} means the node's input, as in KServe; set pickData: true on "
                f"the graph, or use `pick`",
            )
    if judges and step.condition:
        try:
            condition = conditions.compile_condition(step.condition)
        except conditions.ConditionError as error:
            yield "error", f"{where}.condition", f"{label}: {error}"
            return
        if condition.reason:
            verdict = ""
            if condition.constant is not None:
                verdict = " always matches" if condition.constant else " never matches"
            message = f"{label}: {step.condition!r}{verdict}: {condition.reason}"
            yield "warning", f"{where}.condition", message
    elif node.router_type == "Switch" and not step.default:
        yield (
            "warning",
            where,
            f"{label} has no condition, so it never matches; set default: true to catch the rest",
        )


def _check_pick(where: str, path: str) -> Iterator[Problem]:
    from router_fn import body

    try:
        body.pick(path)
    except ValueError as error:
        yield "error", where, str(error)


def _check_cut_off(path: str, node: Node) -> Iterator[Problem]:
    """Conditional steps that an earlier unmet condition makes unreachable, hardly as meant."""
    if node.router_type != "Sequence":
        return
    stopper: tuple[int, Step] | None = None
    for index, step in enumerate(node.steps):
        if not step.condition:
            continue
        if stopper is not None and step.data != "$response":
            first = stopper[1].name or str(stopper[0])
            yield (
                "warning",
                f"{path}.steps[{index}].condition",
                f"is only looked at when the condition of step {first!r} holds: an unmet "
                f"condition ends the "
                "Sequence. Set `unmet: Skip` on the node to skip the step and go on",
            )
        if (step.unmet or node.unmet) == "Stop":
            stopper = stopper or (index, step)


def _check_reachability(graph: Graph, resolved: bool) -> Iterator[Problem]:
    """Cycles (each once, named in full), then nodes that nothing leads to."""
    depths: dict[str, int] = {}  # of nodes that are done: the longest way down from there
    reached: set[str] = set()
    cycles: set[frozenset[str]] = set()
    for start in [ROOT, *graph.nodes]:
        if start not in graph.nodes or start in depths:
            continue
        # Depth first without recursion: a graph may be thousands of nodes deep.
        trail = {start: _targets(graph, start)}
        while trail:
            here = next(reversed(trail))
            following = next(trail[here], None)
            if following is None:
                del trail[here]
                depths[here] = 1 + max((depths.get(t, 0) for t in _targets(graph, here)), default=0)
            elif following in trail:
                names = list(trail)
                loop = names[names.index(following) :]
                if frozenset(loop) not in cycles:
                    cycles.add(frozenset(loop))
                    yield (
                        "error",
                        f"nodes.{following}",
                        "is a cycle: " + " -> ".join([*loop, following]),
                    )
            elif following not in depths:
                trail[following] = _targets(graph, following)
        if start == ROOT:
            reached = set(depths)
            if depths[ROOT] > MAX_DEPTH:
                yield (
                    "error",
                    "nodes.root",
                    f"is {depths[ROOT]} nodes deep, at most {MAX_DEPTH} are allowed",
                )
    if ROOT in graph.nodes:
        for name in graph.nodes:
            if name not in reached:
                yield (
                    "warning" if resolved else "error",
                    f"nodes.{name}",
                    "is unreachable: no step leads to it from root",
                )


def _targets(graph: Graph, name: str) -> Iterator[str]:
    for step in graph.nodes[name].steps:
        if step.node_name in graph.nodes:
            yield step.node_name
