"""SeldonDeployment to Knative Services: one per node of its graphs, and the router in front.

The router carries the deployment's name and all its predictors: it splits the traffic, copies
requests to a shadow and walks the graphs (spec/seldon_tfserving 2). Built-in units are its own work
and make no Service. On request a predictor is one pod (`seldon_pod`).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from knative import keys, names
from knative.api import seldon_routing
from knative.api import seldon_words as words
from knative.api.resource import Resource
from knative.resources import (
    container,
    router,
    seldon_nodes,
    seldon_pod,
    seldon_scale,
    visibility,
)
from knative.resources.ksvc import DEFAULT_TIMEOUT_S
from knative.resources.seldon_site import Site

if TYPE_CHECKING:
    from knative.compiler import Context

JSON = Any
Object = dict[str, JSON]


def make(resource: Resource, context: "Context") -> list[Object]:
    """The nodes' Services and the router's, and a ConfigMap when the graph is very large."""
    visibility.check_annotations(resource, context)
    if visibility.is_stopped(resource, context):
        return []
    seldon_pod.check(resource, context)
    objects: list[Object] = []
    routes: dict[tuple[str, str], Object] = {}
    taken = {resource.name}
    together = [p for p in resource.spec["predictors"] if seldon_pod.is_wanted(resource, p)]
    sites = list(seldon_nodes.sites(resource, context))
    alone = _alone(resource, sites)
    grpc = router.asks_for_grpc(resource, context)
    if alone is not None and not together:
        made = seldon_nodes.make(alone, alone=True)
        if not made.route.get("serverProtocol"):
            if grpc:
                why = f"{words.NO_ENGINE} leaves out the router"
                context.report(resource).warning((), f"{keys.GRPC} has no effect: {why}")
            return [made.service]
        context.report(resource).warning(
            (*alone.path, "annotations", words.NO_ENGINE),
            "has no effect: the router translates for this server",
        )
    inside = {predictor["name"]: seldon_pod.sites_of(sites, predictor) for predictor in together}
    for site in sites:
        if site in inside.get(site.predictor["name"], []):
            continue
        made = seldon_nodes.make(site)
        objects.append(made.service)
        name = made.service["metadata"]["name"]
        if name in taken:
            message = f"its Service would be {name}, as another node's; rename one"
            context.report(resource).error((*site.node.path, "name"), message)
        taken.add(name)
        routes[(site.predictor["name"], site.node.name)] = made.route
    pods = {name: seldon_pod.make(nodes) for name, nodes in inside.items()}
    for pod in pods.values():
        routes |= pod.routes
    graph = seldon_routing.routing_spec(resource, routes)
    if grpc is None:
        grpc = resource.spec.get("transport") == "grpc"
    if grpc and not _grpc_fits(resource, pods):
        context.report(resource).warning(
            (),
            f"{names.graph_grpc(resource.name)} is left out: a router that shares a pod with its"
            f" nodes ({keys.COLLOCATE}) answers HTTP only",
        )
        grpc = False
    only = resource.spec["predictors"][0]
    if len(resource.spec["predictors"]) == 1:
        shared = pods.get(only["name"])
        return [*objects, *_router(resource, context, graph, [only], shared, grpc=grpc)]
    return [*objects, *_several(resource, context, graph, pods, grpc=grpc)]


def _alone(resource: Resource, sites: list[Site]) -> Site | None:
    """The only node of a deployment that wants no orchestrator (`seldon.io/no-engine: "true"`)."""
    predictors = resource.spec["predictors"]
    given = {
        **seldon_routing.annotations(resource),
        **(predictors[0].get("annotations") or {}),
    }
    lone = len(predictors) == 1 and len(sites) == 1 and not predictors[0]["graph"].get("children")
    return sites[0] if lone and given.get(words.NO_ENGINE) == "true" else None


def _grpc_fits(resource: Resource, pods: Mapping[str, seldon_pod.Pod]) -> bool:
    """Whether the deployment's router may have a Service for gRPC clients: it is no pod of nodes,
    and where it calls such pods, over REST, no message of TensorFlow's has to get there."""
    several = len(resource.spec["predictors"]) > 1
    return not pods or (several and words.protocol_of(resource.spec) != "tensorflow")


def _several(
    resource: Resource,
    context: "Context",
    graph: Object,
    pods: Mapping[str, seldon_pod.Pod],
    *,
    grpc: bool,
) -> list[Object]:
    """The routers of predictors that are pods of their own, and the deployment's, which calls
    them."""
    objects: list[Object] = []
    seen: list[Object] = []
    pairs = zip(resource.spec["predictors"], graph["predictors"], strict=True)
    for index, (predictor, routing) in enumerate(pairs):
        pod = pods.get(predictor["name"])
        if pod is None:
            seen.append(routing)
            continue
        name = names.seldon_predictor(resource.name, predictor["name"])
        if grpc and name == names.graph_grpc(resource.name):
            message = f"its Service would be {name}, as the deployment's for gRPC; rename it"
            context.report(resource).error(("spec", "predictors", index, "name"), message)
        alone = {k: v for k, v in routing.items() if k not in ("traffic", "shadow")}
        one = {**graph, "predictors": [alone]}
        objects += _router(resource, context, one, [predictor], pod, name=name)
        seen.append(seldon_pod.remote(routing, names.url(name, resource.namespace)))
    plain = [p for p in resource.spec["predictors"] if p["name"] not in pods]
    whole = {**graph, "predictors": seen}
    return [*objects, *_router(resource, context, whole, plain, None, grpc=grpc)]


def _router(
    resource: Resource,
    context: "Context",
    graph: Object,
    predictors: list[Mapping[str, JSON]],
    pod: seldon_pod.Pod | None,
    *,
    name: str = "",
    grpc: bool = False,
) -> list[Object]:
    """The Service of a router, and with `grpc` its second one; `predictors` are those whose
    svcOrchSpec shapes it."""
    overrides: Object = {"env": _engine_env(resource)}
    for predictor in predictors:
        orchestrator = predictor.get("svcOrchSpec") or {}
        overrides["env"] = container.merge_env(overrides["env"], orchestrator.get("env") or [])
        if orchestrator.get("resources"):
            overrides["resources"] = orchestrator["resources"]
    component: Object = {"annotations": seldon_nodes.pod_annotations(resource)}
    given = seldon_routing.annotations(resource)
    component |= seldon_scale.of_router(resource.spec, predictors, given)
    timeout_ms = int(graph.get("timeoutMs", 0))
    if timeout_ms > DEFAULT_TIMEOUT_S * 1000:
        component["timeout"] = -(-timeout_ms // 1000)
    company = router.Company()
    if pod is not None:
        component |= {**pod.fields, "automountServiceAccountToken": None}
        company = router.Company(
            container=seldon_pod.ENGINE,
            containers=pod.containers,
            init_containers=pod.init_containers,
            volumes=pod.volumes,
            annotations=pod.annotations,
        )
    return router.make_router(
        resource,
        context,
        graph,
        component=component,
        overrides=overrides,
        labels={keys.GRAPH: name or resource.name, keys.SELDON_DEPLOYMENT: resource.name},
        name=name,
        company=company,
        public=False if name else None,
        grpc=grpc,
    )


def _engine_env(resource: Resource) -> list[Object]:
    """`seldon.io/engine-some-name: x` is SOME_NAME=x for the orchestrator (1.8)."""
    given = seldon_routing.annotations(resource)
    return container.env(
        **{
            key.removeprefix(words.ENGINE_PREFIX).replace("-", "_").upper(): value
            for key, value in sorted(given.items())
            if key.startswith(words.ENGINE_PREFIX) and key != words.ENGINE_SEPARATE
        }
    )
