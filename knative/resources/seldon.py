"""SeldonDeployment to Knative Services: one per node of its graphs, and the router in front.

The router carries the deployment's name and all its predictors: it splits the traffic, copies
requests to a shadow and walks the graphs (spec/seldon_tfserving 2). Built-in units are its own work
and make no Service.
"""

from typing import TYPE_CHECKING, Any

from knative import keys
from knative.api import seldon_routing
from knative.api import seldon_words as words
from knative.api.resource import Resource
from knative.resources import container, router, seldon_nodes, seldon_scale, visibility
from knative.resources.ksvc import DEFAULT_TIMEOUT_S

if TYPE_CHECKING:
    from knative.compiler import Context

JSON = Any
Object = dict[str, JSON]


def make(resource: Resource, context: "Context") -> list[Object]:
    """The nodes' Services and the router's, and a ConfigMap when the graph is very large."""
    visibility.check_annotations(resource, context)
    if visibility.is_stopped(resource, context):
        return []
    objects: list[Object] = []
    routes: dict[tuple[str, str], Object] = {}
    taken = {resource.name}
    for site in seldon_nodes.sites(resource, context):
        made = seldon_nodes.make(site)
        objects.append(made.service)
        name = made.service["metadata"]["name"]
        if name in taken:
            message = f"its Service would be {name}, as another node's; rename one"
            context.report(resource).error((*site.node.path, "name"), message)
        taken.add(name)
        routes[(site.predictor["name"], site.node.name)] = made.route
    return [*objects, *_router(resource, context, seldon_routing.routing_spec(resource, routes))]


def _router(resource: Resource, context: "Context", graph: Object) -> list[Object]:
    overrides: Object = {"env": _engine_env(resource)}
    for predictor in resource.spec["predictors"]:
        orchestrator = predictor.get("svcOrchSpec") or {}
        overrides["env"] = container.merge_env(overrides["env"], orchestrator.get("env") or [])
        if orchestrator.get("resources"):
            overrides["resources"] = orchestrator["resources"]
    component: Object = {"annotations": seldon_nodes.pod_annotations(resource)}
    component |= seldon_scale.of_router(resource.spec, seldon_routing.annotations(resource))
    timeout_ms = int(graph.get("timeoutMs", 0))
    if timeout_ms > DEFAULT_TIMEOUT_S * 1000:
        component["timeout"] = -(-timeout_ms // 1000)
    return router.make_router(
        resource,
        context,
        graph,
        component=component,
        overrides=overrides,
        labels={keys.GRAPH: resource.name, keys.SELDON_DEPLOYMENT: resource.name},
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
