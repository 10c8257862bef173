"""InferenceGraph to the Knative Service that runs it: `python -m router_fn` with the resolved
graph."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from knative import keys, names
from knative.api.inference_graph import routing_spec
from knative.api.resource import Resource
from knative.resources import calls, container, visibility
from knative.resources.ksvc import Part, make_service

if TYPE_CHECKING:
    from knative.compiler import Context

JSON = Any
Object = dict[str, JSON]

MAX_ENV_BYTES = 100_000
"""Larger graphs travel in a ConfigMap: Linux allows 128 KiB for one environment string."""

_GRAPH_DIR = "/etc/turnout/graph"
_GRAPH_FILE = "graph.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """What shares the router's pod: the containers it calls on loopback, and what they need."""

    container: str = names.ROUTER_CONTAINER
    """The router's own container."""
    containers: Sequence[Object] = ()
    init_containers: Sequence[Object] = ()
    volumes: Sequence[Object] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)


_ALONE = Company()


def make(resource: Resource, context: "Context") -> list[Object]:
    """The router's Service, and a ConfigMap when the graph is too large for an environment
    variable."""
    visibility.check_annotations(resource, context)
    if visibility.is_stopped(resource, context):
        return []
    overrides = {"resources": resource.spec["resources"]} if resource.spec.get("resources") else {}
    return make_router(
        resource,
        context,
        _resolved(resource, context),
        component=resource.spec,
        overrides=overrides,
        labels={keys.GRAPH: resource.name, keys.INFERENCE_GRAPH: resource.name},
        grpc=asks_for_grpc(resource, context) is True,
    )


def asks_for_grpc(resource: Resource, context: "Context") -> bool | None:
    """What the annotation says about a Service for gRPC clients, None if nothing; its faults are
    reported. A SeldonDeployment may say it in its spec, which wins."""
    report = context.report(resource)
    wanted: bool | None = None
    for where, given in (("metadata", resource.annotations), ("spec", _spec_annotations(resource))):
        value, path = given.get(keys.GRPC), (where, "annotations", keys.GRPC)
        if value is None:
            continue
        if value not in ("true", "false"):
            report.error(path, f'must be "true" or "false", not "{value}"')
        report.extension(path, keys.GRPC)
        wanted = value == "true"
    return wanted


def _spec_annotations(resource: Resource) -> Mapping[str, str]:
    return resource.spec.get("annotations") or {}


def make_router(
    resource: Resource,
    context: "Context",
    graph: Object,
    *,
    component: Mapping[str, JSON],
    overrides: Mapping[str, JSON],
    labels: Mapping[str, str],
    name: str = "",
    company: Company = _ALONE,
    public: bool | None = None,
    grpc: bool = False,
) -> list[Object]:
    """The Service that runs `graph`; `overrides` are container fields over the router's own.

    `grpc`: and a second one for gRPC clients, since a Knative Service has one port.
    `name` is the Service's if not the resource's; `public` None: as the resource is.
    """
    name = name or resource.name
    if public is None:
        public = visibility.is_public(resource, context)
    text = json.dumps(graph, ensure_ascii=False, indent=2)
    small = len(text.encode()) <= MAX_ENV_BYTES
    extra: list[Object] = []
    router: Object = {
        "name": company.container,
        "image": context.options.image("router-fn"),
        "command": ["python", "-m", "router_fn"],
        "ports": container.ports(),
        "readinessProbe": container.ready_probe(),
        "resources": container.copied(container.ROUTER_RESOURCES),
        "securityContext": dict(container.HARDENED),
        "volumeMounts": [container.tmp_mount()],
    }
    volumes: list[Object] = []
    annotations: dict[str, str] = {}
    if small:
        router["env"] = container.env(GRAPH_JSON=text)
    else:
        router["args"] = ["--graph-file", f"{_GRAPH_DIR}/{_GRAPH_FILE}"]
        router["volumeMounts"].append({"name": "graph", "mountPath": _GRAPH_DIR, "readOnly": True})
        volumes.append({"name": "graph", "configMap": {"name": names.graph_config(name)}})
        annotations[keys.GRAPH_DIGEST] = hashlib.sha256(text.encode()).hexdigest()[:16]
        extra.append(_config_map(resource, name, text))
    part = Part(
        name=name,
        unit="router-fn",
        component={"automountServiceAccountToken": False, **component},
        containers=[container.merge(router, overrides), *company.containers],
        init_containers=list(company.init_containers),
        volumes=[*volumes, *company.volumes],
        labels=labels,
        annotations={**company.annotations, **annotations},
        public=public,
    )
    parts = [part, _over_grpc(part)] if grpc else [part]
    return [*extra, *(make_service(resource, one) for one in parts)]


def _over_grpc(part: Part) -> Part:
    """The same router behind an h2c port. HTTP has a port of the system's choice there, so the
    probe is gRPC's."""
    router, *others = part.containers
    told = container.env(GRPC_PORT=str(container.DEFAULT_PORT))
    changed = {
        **router,
        "env": container.merge_env(router.get("env") or [], told),
        "ports": container.ports("grpc"),
        "readinessProbe": container.ready_probe("grpc"),
    }
    return replace(
        part, name=names.graph_grpc(part.name), containers=[container.tidy(changed), *others]
    )


def _resolved(resource: Resource, context: "Context") -> Object:
    """The routing part of the spec with a serviceUrl beside every serviceName."""
    spec: Object = json.loads(json.dumps(routing_spec(resource.spec)))
    for path, step in calls.steps(spec):
        name = step.get("serviceName")
        if name and not step.get("serviceUrl"):
            step["serviceUrl"] = context.service_url(resource, name, (*path, "serviceName"))
    return spec


def _config_map(resource: Resource, name: str, text: str) -> Object:
    from knative.emit import ordered

    return ordered(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": names.graph_config(name),
                "namespace": resource.namespace,
                "labels": {
                    keys.GRAPH: resource.name,
                    keys.MANAGED_BY: keys.MANAGED_BY_TURNOUT,
                },
                "annotations": {keys.SOURCE: resource.source},
            },
            "data": {_GRAPH_FILE: text},
        }
    )
