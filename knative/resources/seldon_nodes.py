"""The Service of one node of a SeldonDeployment: pod, scale, labels, and what the router learns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knative import keys, names
from knative.api import seldon_routing
from knative.api import seldon_words as words
from knative.api.resource import Resource
from knative.resources import gpu, seldon_scale, seldon_servers, servers, visibility
from knative.resources.ksvc import DEFAULT_TIMEOUT_S, Part, make_service
from knative.resources.seldon_site import Site

if TYPE_CHECKING:
    from knative.compiler import Context

JSON = Any
Object = dict[str, JSON]

_OWN_FIELDS = frozenset({"containers", "terminationGracePeriodSeconds", "restartPolicy"})
_TYPE_LABELS = {
    "MODEL": "model",
    "ROUTER": "router",
    "COMBINER": "combiner",
    "TRANSFORMER": "transformer",
    "OUTPUT_TRANSFORMER": "output-transformer",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A node's Service and what the router's graph says about the node."""

    service: Object
    route: Object


def sites(resource: Resource, context: "Context") -> Iterator[Site]:
    """Every node that needs a Service, with all that shapes it."""
    for index, predictor in enumerate(resource.spec["predictors"]):
        path = ("spec", "predictors", index)
        bound = words.containers(predictor, path)
        for node in words.walk(predictor["graph"], (*path, "graph")):
            container = bound.get(node.name)
            if node.is_built_in or (container is None and not node.implementation):
                continue
            helper = bound.get("tfserving") if node.implementation == _TENSORFLOW else None
            yield Site(
                resource=resource,
                context=context,
                predictor=predictor,
                path=path,
                node=node,
                bound=container,
                tfserving=helper,
            )


_TENSORFLOW = "TENSORFLOW_SERVER"


def make(site: Site, *, alone: bool = False) -> Made:
    """The node's Service and its route. `alone`: it is the whole deployment, without a router."""
    resource, node = site.resource, site.node
    server = seldon_servers.make(site)
    beside = [*server.sidecars, *(servers.sidecar(c) for c in _sidecars(site))]
    containers = [server.serving, *beside]
    fields = pod_fields(site)
    volumes = mounted(fields.pop("volumes", None) or [], [*containers, *_initial(fields)])
    name = names.seldon_node(resource.name, site.predictor["name"], node.name)
    if alone:
        name = resource.name
    component: Object = {**fields, "volumes": volumes}
    if node.unit.get("serviceAccountName"):
        component["serviceAccountName"] = node.unit["serviceAccountName"]
    metadata = site.component.get("metadata") or {}
    component["labels"] = {**_labels(site), **(metadata.get("labels") or {})}
    part = Part(
        name=name,
        unit=server.unit,
        component={**gpu.pod(server.model_server), **component},
        containers=containers,
        init_containers=server.delivery.init_containers,
        volumes=server.delivery.volumes,
        labels={keys.SELDON_DEPLOYMENT: resource.name},
        annotations={
            **gpu.annotations(resource, server.model_server),
            **deadline(site),
            **pod_ports(server.ports),
        },
        public=alone and visibility.is_public(resource, site.context),
    )
    host = names.host(name, resource.namespace)
    route: Object = {"serviceUrl": f"{'grpc' if site.is_grpc else 'http'}://{host}"}
    if image := server.serving.get("image"):
        route["image"] = image
    if server.protocol:
        route["serverProtocol"] = server.protocol
    return Made(service=make_service(resource, part), route=route)


def pod_fields(site: Site) -> Object:
    """What a component says of its pods but for their containers: placement, scale, annotations,
    the time a request may take."""
    fields: Object = {k: v for k, v in site.pod.items() if k not in _OWN_FIELDS}
    fields |= _scale(site)
    metadata = site.component.get("metadata") or {}
    fields["annotations"] = {
        **pod_annotations(site.resource, site.predictor),
        **(metadata.get("annotations") or {}),
    }
    timeout_ms = int(seldon_routing.routing_spec(site.resource).get("timeoutMs", 0))
    if timeout_ms > DEFAULT_TIMEOUT_S * 1000:
        fields["timeout"] = -(-timeout_ms // 1000)
    return fields


def pod_annotations(
    resource: Resource, predictor: Mapping[str, JSON] | None = None
) -> dict[str, str]:
    """Annotations that reach pods: all but Seldon's, which are carried out here."""
    given = {**(resource.spec.get("annotations") or {})}
    given |= (predictor or {}).get("annotations") or {}
    return {k: v for k, v in given.items() if not k.startswith(words.ANNOTATION_PREFIX)}


def _scale(site: Site) -> Object:
    component = site.component
    annotations = {
        **seldon_routing.annotations(site.resource),
        **(site.predictor.get("annotations") or {}),
        **((component.get("metadata") or {}).get("annotations") or {}),
    }
    if component.get("hpaSpec"):
        path = (*site.path, "componentSpecs", site.index, "hpaSpec")
        report = site.context.report(site.resource)
        seldon_scale.report_metrics(component["hpaSpec"], path, report)
    return seldon_scale.of_node(site.resource.spec, site.predictor, component, annotations)


def _labels(site: Site) -> dict[str, str]:
    kind = "MODEL" if site.node.implementation else site.node.unit.get("type") or ""
    if not kind and not site.node.unit.get("methods"):
        kind = "MODEL"
    typed = {f"seldon.io/{_TYPE_LABELS[kind]}": "true"} if kind in _TYPE_LABELS else {}
    shadow = {"seldon.io/shadow": "true"} if site.predictor.get("shadow") else {}
    return {**seldon_routing.labels(site.predictor), **typed, **shadow}


def pod_ports(numbers: Sequence[int]) -> dict[str, str]:
    """The annotation for ports on which a pod's containers call one another."""
    return {keys.POD_PORTS: ",".join(map(str, numbers))} if numbers else {}


def deadline(site: Site) -> dict[str, str]:
    """The annotation for progressDeadlineSeconds."""
    seconds = site.predictor.get("progressDeadlineSeconds")
    return {keys.PROGRESS_DEADLINE: f"{seconds}s"} if seconds else {}


def _sidecars(site: Site) -> list[Object]:
    """Containers of the component that are no node; with several nodes, the first has them."""
    nodes = {n.name for n in words.walk(site.predictor["graph"], ())}
    if site.uses_tfserving:
        nodes.add("tfserving")
    items = site.pod.get("containers") or []
    extra = [seldon_servers.plain(c) for c in items if c["name"] not in nodes]
    bound = [c["name"] for c in items if c["name"] in nodes]
    if not extra or (bound and bound[0] != site.node.name):
        return []
    if len(bound) > 1:
        site.context.report(site.resource).warning(
            (*site.path, "componentSpecs", site.index, "spec", "containers"),
            f"each node is a Service of its own: {', '.join(c['name'] for c in extra)} goes along"
            f" with {bound[0]} only",
        )
    return extra


def _initial(pod: Mapping[str, JSON]) -> list[Object]:
    return list(pod.get("initContainers") or [])


def mounted(volumes: list[Object], containers: list[Object]) -> list[Object]:
    """The volumes that these containers use; Knative refuses others."""
    used = {m["name"] for c in containers for m in c.get("volumeMounts") or []}
    return [volume for volume in volumes if volume["name"] in used]
