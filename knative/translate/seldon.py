"""SeldonDeployment to KServe's InferenceServices and InferenceGraph, with our extensions where
KServe has no word for it.

The routing is Seldon's traversal written out: what a unit does on the way down, its children, what
it does on the way up. Everything without an equivalent is reported at its place in the manifest.
The input must have been checked (`knative.compiler` does).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from knative import emit, keys, names
from knative.api import seldon_routing
from knative.api import seldon_words as words
from knative.api.problems import Problem, Report
from knative.api.resource import Resource
from knative.options import CompileOptions
from knative.resources import seldon_pod
from knative.translate import seldon_services

JSON = Any
Object = dict[str, JSON]
Step = dict[str, JSON]


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """The manifests, callees first, and what has no equivalent."""

    objects: list[Object]
    problems: list[Problem] = field(default_factory=list)


def convert(resource: Resource, options: CompileOptions | None = None) -> Converted:
    """Translate one checked SeldonDeployment; `options` name the image of our model server."""
    report = Report(resource.document, resource.subject)
    translation = _Translation(resource, report, options or CompileOptions())
    objects = translation.objects()
    return Converted(
        objects=[emit.ordered(o) for o in objects],
        problems=sorted(report.problems, key=lambda p: p.key),
    )


class _Translation:
    """One deployment on its way: services found so far, and where to report."""

    def __init__(self, resource: Resource, report: Report, options: CompileOptions) -> None:
        self.resource = resource
        self.image = options.image("functions", "python")
        self.report = report
        self.services: list[Object] = []
        self.protocol = words.protocol_of(resource.spec)
        routing = seldon_routing.routing_spec(resource)
        self.timeout_s = int(routing.get("timeoutMs", 0)) / 1000

    def objects(self) -> list[Object]:
        self._say_what_changes()
        predictors = list(enumerate(self.resource.spec["predictors"]))
        alone = self._only_service(predictors)
        if alone is not None:
            return [alone]
        live = [(i, p) for i, p in predictors if not p.get("shadow")]
        shadows = [(i, p) for i, p in predictors if p.get("shadow")]
        # a mirrored step must call a service, so beside a shadow every predictor is a graph
        graphs = [g for i, p in (predictors if shadows else []) if (g := self._own_graph(i, p))]
        nodes: dict[str, Object] = {"root": {}}
        entries: list[tuple[JSON, Step]] = []
        for index, predictor in live:
            if shadows:
                step: Step | None = {"serviceName": self._graph_name(predictor)}
            else:
                step = self._entry(index, predictor, nodes, several=len(live) > 1)
            if step is not None:
                entries.append((predictor, step))
        nodes["root"] = self._root(entries, shadows)
        return [*self.services, *graphs, self._graph(self.resource.name, nodes)]

    def _say_what_changes(self) -> None:
        if any(seldon_pod.is_wanted(self.resource, p) for p in self.resource.spec["predictors"]):
            self.report.warning(
                ("spec",), f"{keys.COLLOCATE} has no equivalent: every node is a service of its own"
            )
        if seldon_routing.annotations(self.resource).get(keys.GRPC) == "true":
            self.report.warning(
                ("spec",), f"{keys.GRPC} is left out: on an InferenceGraph it wants models of V2"
            )
        if any(
            words.is_grpc(self.resource.spec, node.unit)
            for predictor in self.resource.spec["predictors"]
            for node in words.walk(predictor["graph"], ())
        ):
            self.report.warning(("spec",), "nodes are called over REST instead of gRPC")
        if self.protocol != "seldon":
            self.report.warning(
                ("spec", "protocol"),
                "a graph is called at its root, not below /v1 or /v2; the bodies stay the same",
            )
            return
        self.report.warning(
            ("spec",),
            'callers send KServe bodies: {"data": {"ndarray": X}} becomes {"instances": X}, and'
            " answers are predictions without names and meta; feedback, metadata and the paths"
            " below /api/v1.0 have no equivalent",
        )

    def _only_service(self, predictors: list[tuple[int, JSON]]) -> Object | None:
        """One predictor of one node needs no graph."""
        index, predictor = predictors[0]
        graph = predictor["graph"]
        if (
            len(predictors) > 1
            or graph.get("children")
            or words.implementation_of(graph) in (words.BUILT_IN)
        ):
            return None
        node = words.Node(unit=graph, path=("spec", "predictors", index, "graph"))
        return self._service(predictor, index, node, self.resource.name)

    # --- predictors -------------------------------------------------------------------------------

    def _entry(
        self, index: int, predictor: JSON, nodes: dict[str, Object], *, several: bool
    ) -> Step | None:
        """The one step that runs a predictor."""
        steps = self._predictor_steps(index, predictor, nodes)
        return _as_one(steps, predictor["name"] if several else "main", nodes) if steps else None

    def _predictor_steps(self, index: int, predictor: JSON, nodes: dict[str, Object]) -> list[Step]:
        path = ("spec", "predictors", index, "graph")
        root = words.Node(unit=predictor["graph"], path=path)
        steps = self._steps(predictor, index, root, nodes)
        if not steps:
            self.report.error(path, "nothing is left of this graph")
        return steps

    def _own_graph(self, index: int, predictor: JSON) -> Object | None:
        """A predictor as a graph of its own."""
        nodes: dict[str, Object] = {"root": {}}
        steps = self._predictor_steps(index, predictor, nodes)
        nodes["root"] = {"routerType": "Sequence", "steps": steps}
        return self._graph(self._graph_name(predictor), nodes) if steps else None

    def _graph_name(self, predictor: JSON) -> str:
        return names.bounded(f"{self.resource.name}-{predictor['name']}")

    def _root(self, entries: list[tuple[JSON, Step]], shadows: list[tuple[int, JSON]]) -> Object:
        mirror = self._mirror(shadows)
        steps: list[Step] = [{**step, **mirror} for _, step in entries]
        if len(steps) == 1:
            return {"routerType": "Sequence", "steps": steps}
        for (predictor, _), step in zip(entries, steps, strict=True):
            step["weight"] = int(predictor.get("traffic") or 0)
        return {"routerType": "Splitter", "steps": steps}

    def _mirror(self, shadows: list[tuple[int, JSON]]) -> Object:
        if not shadows:
            return {}
        predictor = shadows[0][1]
        url = names.url(self._graph_name(predictor), self.resource.namespace)
        return {"mirror": {"serviceUrl": url, "percent": int(predictor.get("traffic") or 100)}}

    def _graph(self, name: str, nodes: Mapping[str, Object]) -> Object:
        return {
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "InferenceGraph",
            "metadata": seldon_services.metadata(self.resource, name),
            "spec": {"nodes": dict(nodes)},
        }

    # --- units ------------------------------------------------------------------------------------

    def _steps(
        self, predictor: JSON, index: int, node: words.Node, nodes: dict[str, Object]
    ) -> list[Step]:
        """The steps that give what this unit and all below it would answer."""
        unit, duties = node.unit, _duties(node)
        own: list[Step] = []
        if duties - {"ROUTE", "AGGREGATE"} or not node.is_built_in:
            own = self._called(predictor, index, node)
        children = [
            self._steps(predictor, index, child, nodes)
            for child in (
                words.Node(unit=c, path=(*node.path, "children", i))
                for i, c in enumerate(unit.get("children") or [])
            )
        ]
        middle = self._middle(node, own, [c for c in children if c], nodes)
        before = own if duties & {"PREDICT", "TRANSFORM_INPUT"} else []
        after = own if duties & {"TRANSFORM_OUTPUT"} or ("AGGREGATE" in duties and own) else []
        return self._chained([*before, *middle, *([] if before and after else after)])

    def _called(self, predictor: JSON, index: int, node: words.Node) -> list[Step]:
        if node.is_built_in:
            if node.implementation == "SIMPLE_MODEL":
                self.report.warning(
                    node.path, "SIMPLE_MODEL answers a constant, for tests; it is left out"
                )
            return []
        name = names.seldon_node(self.resource.name, predictor["name"], node.name)
        self.services.append(self._service(predictor, index, node, name))
        step: Step = {"name": node.name, "serviceName": name}
        if self.timeout_s:
            step["timeoutSeconds"] = self.timeout_s
        return [step]

    def _service(self, predictor: JSON, index: int, node: words.Node, name: str) -> Object:
        wanted = seldon_services.Wanted(
            resource=self.resource,
            report=self.report,
            predictor=predictor,
            index=index,
            node=node,
            name=name,
            image=self.image,
        )
        return seldon_services.service(wanted)

    def _middle(
        self,
        node: words.Node,
        own: list[Step],
        children: list[list[Step]],
        nodes: dict[str, Object],
    ) -> list[Step]:
        """What happens between the way down and the way up."""
        duties = _duties(node)
        if not children:
            return []
        if "ROUTE" in duties:
            return self._routed(node, own, children, nodes)
        if "AGGREGATE" in duties:
            ensemble: Object = {"routerType": "Ensemble", "steps": _branches(node, children, nodes)}
            if node.implementation == "AVERAGE_COMBINER":
                ensemble["combiner"] = "mean"
            else:
                self.report.warning(
                    node.path,
                    "gets one object with the children's answers by name, instead of a list:"
                    " aggregate() must become predict() of that",
                )
            nodes[_free(f"{node.name}-all", nodes)] = ensemble
            return [{"nodeName": list(nodes)[-1]}]
        if len(children) > 1:
            self.report.warning(
                (*node.path, "children"),
                "without a combiner Seldon calls all children and keeps the first answer; only the"
                " first child is kept",
            )
        return children[0]

    def _routed(
        self,
        node: words.Node,
        own: list[Step],
        children: list[list[Step]],
        nodes: dict[str, Object],
    ) -> list[Step]:
        if node.implementation == "SIMPLE_ROUTER":
            return children[0]
        branches = _branches(node, children, nodes)
        label = _free(f"{node.name}-choice", nodes)
        if node.implementation == "RANDOM_ABTEST":
            given = {p["name"]: p["value"] for p in node.unit.get("parameters") or []}
            first = round(float(given.get("ratioA", "0.5")) * 100)
            for step, weight in zip(branches, (first, 100 - first), strict=False):
                step["weight"] = weight
            nodes[label] = {"routerType": "Splitter", "steps": branches}
            return [{"nodeName": label}]
        for position, step in enumerate(branches):
            step["condition"] = f"predictions.#(=={position})"
        nodes[label] = {"routerType": "Switch", "judge": "$response", "steps": branches}
        self.report.warning(
            node.path,
            "route() must become predict() that answers the number of the child; -1 (all) and -2"
            " (none) have no equivalent",
        )
        way = _free(f"{node.name}-way", nodes)  # its input is what the router and the child get
        nodes[way] = {"routerType": "Sequence", "steps": [*own, {"nodeName": label}]}
        return [{"nodeName": way}]

    def _chained(self, steps: list[Step]) -> list[Step]:
        """Every step but the first takes the answer before it."""
        mapped = "mapOutputsToInputs" if self.protocol == "v2" else "mapPredictionsToInstances"
        chained: list[Step] = []
        for position, step in enumerate(steps):
            if position and "data" not in step:
                step = {**step, "data": "$response", mapped: True}
            chained.append(step)
        return chained


def _duties(node: words.Node) -> set[str]:
    """What a unit does (spec/seldon_tfserving 2.1, 2.3)."""
    built_in = {
        "RANDOM_ABTEST": {"ROUTE"},
        "SIMPLE_ROUTER": {"ROUTE"},
        "SIMPLE_MODEL": {"PREDICT"},
        "AVERAGE_COMBINER": {"AGGREGATE"},
    }.get(node.implementation)
    if built_in is not None:
        return built_in
    methods = set(node.unit.get("methods") or []) - {"SEND_FEEDBACK"}
    kind = node.unit.get("type") or ("" if methods else "MODEL")
    if node.implementation:
        kind = "MODEL"
    of_type = {
        "MODEL": {"PREDICT"},
        "TRANSFORMER": {"TRANSFORM_INPUT"},
        "OUTPUT_TRANSFORMER": {"TRANSFORM_OUTPUT"},
        "ROUTER": {"ROUTE"},
        "COMBINER": {"AGGREGATE"},
    }.get(str(kind), set())
    return methods | of_type


def _branches(node: words.Node, children: list[list[Step]], nodes: dict[str, Object]) -> list[Step]:
    """One step per child."""
    return [
        {**_as_one(steps, f"{node.name}-{position}", nodes), "name": f"{node.name}-{position}"}
        for position, steps in enumerate(children)
    ]


def _as_one(steps: list[Step], label: str, nodes: dict[str, Object]) -> Step:
    """Several steps as one that runs a Sequence of them."""
    if len(steps) == 1:
        return dict(steps[0])
    name = _free(label, nodes)
    nodes[name] = {"routerType": "Sequence", "steps": steps}
    return {"nodeName": name}


def _free(label: str, nodes: Mapping[str, Object]) -> str:
    """`label`, or with a number when it is taken."""
    name, number = label, 1
    while name in nodes:
        number += 1
        name = f"{label}-{number}"
    return name
