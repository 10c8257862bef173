"""InferenceService to Knative Services: one per component, the callable one under its own name."""

from typing import TYPE_CHECKING, Any

from knative import keys, names
from knative.api.resource import Resource
from knative.resources import (
    agent,
    canary,
    collocation,
    container,
    protocol,
    servers,
    storage,
    visibility,
)
from knative.resources.ksvc import Part, make_service

if TYPE_CHECKING:
    from knative.compiler import Context

JSON = Any
Object = dict[str, JSON]


def make(resource: Resource, context: "Context") -> list[Object]:
    """The Services of predictor, transformer and explainer."""
    visibility.check_annotations(resource, context)
    if visibility.is_stopped(resource, context):
        return []
    resource = collocation.applied(resource, context)
    spec = resource.spec
    public = visibility.is_public(resource, context)
    fronted = spec.get("transformer") is not None
    name = _behind(resource) if fronted else resource.name
    objects = _predictor(resource, context, name, public=public and not fronted)
    if fronted:
        objects.append(_in_front(resource, context, "transformer", resource.name, public=public))
    if spec.get("explainer") is not None:
        objects.append(
            _in_front(resource, context, "explainer", names.explainer(resource.name), public=public)
        )
    return objects


def _behind(resource: Resource) -> str:
    """Name of the predictor's Service when a transformer carries the InferenceService's own."""
    return names.predictor(resource.name, resource.spec["predictor"].get("name") or "")


def _labels(resource: Resource, component: str) -> dict[str, str]:
    return {keys.INFERENCE_SERVICE: resource.name, keys.COMPONENT: component}


def _predictor(resource: Resource, context: "Context", name: str, *, public: bool) -> list[Object]:
    predictor = resource.spec["predictor"]
    server = servers.make(resource, context)
    if server is None:
        return []
    part = Part(
        name=name,
        unit=server.unit,
        component={**server.pod, **{k: v for k, v in predictor.items() if v is not None}},
        containers=server.containers,
        init_containers=server.delivery.init_containers,
        volumes=[*server.delivery.volumes, *server.volumes],
        labels={**server.labels, **_labels(resource, "predictor")},
        annotations=server.annotations,
        public=public,
        **canary.split(resource, "predictor", name, context),
    )
    return [make_service(resource, part)]


def _in_front(
    resource: Resource, context: "Context", component: str, name: str, *, public: bool
) -> Object:
    """A transformer or explainer: the user's container, told where the predictor is."""
    fields = resource.spec[component]
    fronted = resource.spec.get("transformer") is not None
    behind = _behind(resource) if fronted else resource.name
    first, *sidecars = fields["containers"]
    first = collocation.completed(resource, context, first, ("spec", component, "containers", 0))
    ours = container.is_ours(first)
    wired = _wired(resource, context, fields, first, behind)
    delivery, wired = storage.of_container(resource, context, component, wired, ours=ours)
    serving = servers.custom_container(
        resource,
        wired,
        delivery,
        delivery.mounts,
        ours=ours,
        extras=agent.env(resource, context, component, ours=ours),
    )
    part = Part(
        name=name,
        unit="functions" if ours else "custom",
        component=fields,
        containers=[serving, *(servers.sidecar(s) for s in sidecars)],
        init_containers=delivery.init_containers,
        volumes=delivery.volumes,
        labels=_labels(resource, component),
        public=public,
        **canary.split(resource, component, name, context),
    )
    return make_service(resource, part)


def _wired(
    resource: Resource, context: "Context", fields: Object, given: Object, behind: str
) -> Object:
    """KServe's arguments for a component in front of a predictor, where the user gave none."""
    ours = container.is_ours(given)
    spoken = protocol.of_predictor(resource, context)
    wanted = [
        ("model_name", protocol.model_name(resource)),
        ("predictor_host", names.host(behind, resource.namespace)),
    ]
    # KServe's `--protocol v2` says what the predictor speaks, as long as nothing else does.
    alias = ours and container.flag_value(given, "--protocol") in ("v1", "v2")
    if (ours or spoken != "v1") and not alias:
        wanted.append(("predictor_protocol", spoken))
    if not ours:  # it may not look at PORT
        wanted.append(("http_port", str(container.http_port(given))))
    fetches = container.env_value(given, "STORAGE_URI") or fields.get("storageUris")
    if fetches and ours:
        wanted.append(("model_dir", names.MODEL_DIR))
    return collocation.with_flags(given, wanted, ours=ours)
