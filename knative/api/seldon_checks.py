"""Rules between the fields of a SeldonDeployment (spec/seldon_tfserving 1.7), all reported
together.

What the router can judge (shares, children, methods, parameter values, names of nodes) is asked of
`router_fn.seldon.graph`; here is what needs the pods, the servers or the annotations.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from knative.api import problems, seldon_routing
from knative.api import seldon_words as words
from knative.api.problems import Path, Report, suggest
from knative.api.resource import Resource

JSON = Any


def check(resource: Resource, report: Report) -> None:
    """Everything beyond the field tables."""
    from router_fn.seldon import graph

    spec = resource.spec
    for level, path, message in graph.check(seldon_routing.routing_spec(resource), resolved=False):
        report.add(problems.Level(level), ("spec", *problems.parse(path)), message)
    _check_deployment(spec, report)
    _check_annotations(resource, report)
    for index, predictor in enumerate(spec["predictors"]):
        _check_predictor(spec, predictor, ("spec", "predictors", index), report)


def _check_deployment(spec: Mapping[str, JSON], report: Report) -> None:
    if spec.get("serverType") == "kafka":
        report.error(
            ("spec", "serverType"),
            "the router is called over HTTP; let an InferenceTrigger call it with the events of a"
            " Broker or KafkaSource",
        )
    predictors = spec["predictors"]
    if len(predictors) == 1 and 0 < (predictors[0].get("traffic") or 0) < 100:
        report.error(
            ("spec", "predictors", 0, "traffic"),
            f"the only predictor gets {predictors[0]['traffic']} %: leave traffic out, or write"
            " 100",
        )
    _check_endpoint_types(spec, report)
    _check_service_names(predictors, report)


def _check_endpoint_types(spec: Mapping[str, JSON], report: Report) -> None:
    """REST or GRPC, one for all, and the same as `transport`."""
    wanted = {"rest": "REST", "grpc": "GRPC"}.get(spec.get("transport") or "", "")
    for path, unit in _units(spec):
        given = (unit.get("endpoint") or {}).get("type")
        if not given:
            continue
        if wanted and given != wanted:
            report.error(
                (*path, "endpoint", "type"),
                f"is {given} where the deployment's other nodes or its transport say {wanted}",
            )
        wanted = wanted or given


def _units(spec: Mapping[str, JSON]) -> Iterator[tuple[Path, Mapping[str, JSON]]]:
    for index, predictor in enumerate(spec["predictors"]):
        for node in words.walk(predictor["graph"], ("spec", "predictors", index, "graph")):
            yield node.path, node.unit


def _check_service_names(predictors: list[Mapping[str, JSON]], report: Report) -> None:
    seen: set[str] = set()
    for index, predictor in enumerate(predictors):
        name = (predictor.get("annotations") or {}).get(words.SVC_NAME)
        path: Path = ("spec", "predictors", index, "annotations", words.SVC_NAME)
        if name in seen:
            report.error(path, f"{name} is already used by another predictor")
        if name:
            seen.add(name)


# --- annotations ----------------------------------------------------------------------------------


def _check_annotations(resource: Resource, report: Report) -> None:
    spec = resource.spec
    places: list[tuple[Path, Mapping[str, str]]] = [
        (("metadata", "annotations"), resource.annotations),
        (("spec", "annotations"), spec.get("annotations") or {}),
    ]
    for index, predictor in enumerate(spec["predictors"]):
        path: Path = ("spec", "predictors", index, "annotations")
        places.append((path, predictor.get("annotations") or {}))
    for path, given in places:
        for key, value in given.items():
            if key.startswith(words.ANNOTATION_PREFIX):
                _check_annotation(key, value, (*path, key), report)


def _check_annotation(key: str, value: str, path: Path, report: Report) -> None:
    why = words.ANNOTATIONS.get(key)
    if why:
        report.warning(path, f"has no effect: {why}")
    if why is not None:
        if key == words.LOG_QUEUE and not (value.isdigit() and int(value) > 0):
            report.error(path, f'must be a number of events, at least 1, not "{value}"')
        if key in (words.REST_TIMEOUT, words.GRPC_TIMEOUT):
            _check_timeout(value, path, report)
        return
    for prefix, reason in words.IGNORED_PREFIXES.items():
        if key.startswith(prefix):
            report.warning(path, f"has no effect: {reason}")
            return
    if not key.startswith(words.ENGINE_PREFIX):
        report.warning(path, f"nothing reads this annotation{suggest(key, words.ANNOTATIONS)}")


def _check_timeout(value: str, path: Path, report: Report) -> None:
    try:
        words.timeout_ms(value)
    except ValueError:
        report.error(path, f'must be a number of milliseconds, 0 or more, not "{value}"')


# --- predictors and their nodes -------------------------------------------------------------------


def _check_predictor(
    spec: Mapping[str, JSON], predictor: Mapping[str, JSON], path: Path, report: Report
) -> None:
    nodes = list(words.walk(predictor["graph"], (*path, "graph")))
    bound = words.containers(predictor, path)
    no_engine = (predictor.get("annotations") or {}).get(words.NO_ENGINE)
    if no_engine == "true" and len(nodes) > 1:
        report.error(
            (*path, "annotations", words.NO_ENGINE),
            f"a graph of {len(nodes)} nodes needs its orchestrator; remove the annotation",
        )
    if kind := (predictor.get("explainer") or {}).get("type"):
        report.error(
            (*path, "explainer", "type"),
            f"{kind} is not carried over; write the explainer as an InferenceService with"
            f" explainer: containers:",
        )
    for node in nodes:
        _check_node(spec, node, bound.get(node.name), report)
    _check_containers(predictor, nodes, path, report)
    for index, component in enumerate(predictor.get("componentSpecs") or []):
        _check_scale(component, (*path, "componentSpecs", index), report)


def _check_node(
    spec: Mapping[str, JSON], node: words.Node, bound: words.Bound | None, report: Report
) -> None:
    if node.is_built_in:
        if bound is not None:
            report.warning(bound.path, f"is not used: the router itself runs {node.implementation}")
        return
    logger = node.unit.get("logger")
    if logger is not None and not logger.get("mode"):
        report.error((*node.path, "logger"), "needs a mode: all, request or response")
    routes = {"ROUTER", "ROUTE", "COMBINER", "AGGREGATE"} & {
        node.unit.get("type"),
        *(node.unit.get("methods") or []),
    }
    if routes and words.protocol_of(spec) == "tensorflow" and words.is_grpc(spec, node.unit):
        report.error(
            node.path,
            f"{node.name}: TensorFlow Serving's gRPC has no routers and combiners; use transport:"
            " rest, or a built-in router",
        )
    if node.implementation:
        _check_server(words.protocol_of(spec), node, bound, report)
        return
    if bound is None:
        if (node.unit.get("endpoint") or {}).get("service_host"):
            report.extension((*node.path, "endpoint", "service_host"), "service_host")
            return
        report.error(
            node.path,
            f"node {node.name} has no implementation, and no componentSpecs has a container called"
            f" {node.name}",
        )
    elif not bound.container.get("image") and not _is_ours(bound.container):
        report.error(bound.path, f"container {node.name} needs an image")


def _is_ours(given: Mapping[str, JSON]) -> bool:
    line = [*(given.get("command") or []), *(given.get("args") or [])]
    return line[1:3] == ["-m", "functions"]


def _check_server(
    protocol: str, node: words.Node, bound: words.Bound | None, report: Report
) -> None:
    """A prepackaged server: known, offered for the protocol, and told where its model is."""
    name, path = node.implementation, (*node.path, "implementation")
    has_image = bound is not None and bool(bound.container.get("image"))
    server = words.SERVERS.get(name)
    if server is None:
        if not has_image:
            known = (*words.SERVERS, *words.BUILT_IN)
            report.error(
                path,
                f"{name} is not known{suggest(name, known)}; known: {', '.join(known)}; or give"
                f" componentSpecs a container {node.name} with an image",
            )
    elif protocol not in server.protocols:
        offered = " and ".join(server.protocols)
        report.error(path, f"{name} speaks {offered}, not {protocol}")
    if (server is None or server.needs_uri) and not node.unit.get("modelUri"):
        report.error(node.path, f"{name} needs modelUri")


def _check_containers(
    predictor: Mapping[str, JSON], nodes: list[words.Node], path: Path, report: Report
) -> None:
    """Containers of one name, and pods of which no container is a node."""
    seen: dict[str, Path] = {}
    named = {node.name for node in nodes}
    servers = {node.implementation for node in nodes}
    for index, component in enumerate(predictor.get("componentSpecs") or []):
        here: Path = (*path, "componentSpecs", index, "spec", "containers")
        items = (component.get("spec") or {}).get("containers") or []
        for position, item in enumerate(items):
            where: Path = (*here, position)
            if item["name"] in seen:
                first = problems.render(seen[item["name"]])
                report.error((*where, "name"), f"{item['name']} is already a container: {first}")
            seen.setdefault(item["name"], where)
        helpers = {"tfserving"} if "TENSORFLOW_SERVER" in servers else set()
        if items and not {item["name"] for item in items} & (named | helpers):
            report.error(
                here,
                f"no container is called like a node of the graph ({', '.join(sorted(named))})",
            )


def _check_scale(component: Mapping[str, JSON], path: Path, report: Report) -> None:
    for key, low, high in (
        ("hpaSpec", "minReplicas", "maxReplicas"),
        ("kedaSpec", "minReplicaCount", "maxReplicaCount"),
    ):
        scale = component.get(key) or {}
        least, most = scale.get(low), scale.get(high)
        if least and most and least > most:
            report.error((*path, key, low), f"{low} {least} is above {high} {most}")
