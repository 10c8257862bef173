"""The containers that serve a model: our own runtimes, ServingRuntimes, or the user's
containers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knative import keys, names
from knative.api import core
from knative.api.resource import Resource
from knative.resources import (
    agent,
    collocation,
    container,
    gpu,
    protocol,
    runtimes,
    stock_runtimes,
    storage,
)

if TYPE_CHECKING:
    from knative.compiler import Context

JSON = Any
Object = dict[str, JSON]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A predictor's pod content."""

    unit: str
    containers: list[Object]
    delivery: storage.Delivery
    volumes: list[Object] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    pod: dict[str, JSON] = field(default_factory=dict)
    """Pod-level defaults (a ServingRuntime's, a GPU's); the component's own fields win."""


def make(resource: Resource, context: "Context") -> Server | None:
    """The server of an InferenceService's predictor; None when there is none, which is reported."""
    model = protocol.model_of(resource.spec["predictor"])
    if model is None:
        return _custom(resource, context)
    choice = runtimes.choose(resource, context, model)
    if choice is None:
        return None
    if choice.spec is None:
        return _own(resource, context, model)
    return _of_runtime(resource, context, model, choice)


# --- python -m functions --------------------------------------------------------------------------


def _own(resource: Resource, context: "Context", model: protocol.ModelServer) -> Server:
    """`python -m functions` with one of its runtimes."""
    fields = model.fields
    spoken = protocol.of_model(model)
    delivery = storage.of_model(resource, context, fields, model.path, own_server=True)
    extras = agent.env(resource, context, "predictor", ours=True)
    base: Object = {
        "name": names.SERVER_CONTAINER,
        "image": _tagged(context.options.image("functions", model.format), fields),
        "command": ["python", "-m", "functions"],
        "args": [
            *("--model-name", protocol.model_name(resource)),
            *("--model-dir", names.MODEL_DIR),
            *("--runtime", model.format),
            *("--protocol", spoken or "v1,v2"),
        ],
        "env": [
            *container.env(INFERENCE_SERVICE_NAME=resource.name),
            *delivery.env,
            *extras,
        ],
        "envFrom": delivery.env_from,
        "ports": container.ports(spoken),
        "readinessProbe": container.ready_probe(spoken, fields),
        "resources": container.copied(container.SERVER_RESOURCES),
        "securityContext": dict(container.HARDENED),
        "volumeMounts": [*delivery.mounts, container.tmp_mount()],
    }
    serving = container.merge(base, _user_fields(fields))
    return Server(
        unit="functions",
        containers=_with_others(resource, context, serving, delivery, ours=True),
        delivery=delivery,
        annotations={**gpu.annotations(resource, serving), **_pod_ports(resource)},
        pod=gpu.pod(serving),
    )


def _user_fields(fields: Mapping[str, JSON]) -> Object:
    """The container fields beside modelFormat and friends; the name stays ours."""
    return {k: v for k, v in fields.items() if k in core.CONTAINER.fields and k != "name"}


def _tagged(reference: str, fields: Mapping[str, JSON]) -> str:
    version = fields.get("runtimeVersion")
    return with_tag(reference, str(version)) if version else reference


def with_tag(reference: str, tag: str) -> str:
    """An image reference with another tag; a digest is dropped, because it names other bits."""
    name, _, _ = reference.partition("@")
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}:{tag}"


def _with_others(
    resource: Resource,
    context: "Context",
    serving: Object,
    delivery: storage.Delivery,
    *,
    ours: bool,
) -> list[Object]:
    """The model's container and those a user gives beside `model:`: a transformer, sidecars."""
    given = list(resource.spec["predictor"].get("containers") or [])
    index = collocation.front(given)
    if index is None:
        return [serving, *(sidecar(item) for item in given)]
    front = _front(resource, context, given[index], index, delivery.mounts)
    number = collocation.port(given[index])
    inner = (
        collocation.behind(serving, number, ours=True)
        if ours
        else collocation.behind_other(serving, number)
    )
    return [inner, front, *(sidecar(c) for i, c in enumerate(given) if i != index)]


def _front(
    resource: Resource,
    context: "Context",
    given: Mapping[str, JSON],
    index: int,
    mounts: list[Object],
) -> Object:
    """The transformer of a predictor's pod: it gets the requests, and sees the model's files."""
    path = ("spec", "predictor", "containers", index)
    whole = collocation.completed(resource, context, given, path)
    ours = container.is_ours(whole)
    wired = collocation.wired(resource, context, whole, ours=ours)
    return custom_container(resource, wired, storage.Delivery(), mounts, ours=ours, extras=[])


def _pod_ports(resource: Resource) -> dict[str, str]:
    """Template annotation for a pod whose containers call one another."""
    given = list(resource.spec["predictor"].get("containers") or [])
    index = collocation.front(given)
    if index is None:
        return {}
    return {keys.POD_PORTS: str(collocation.port(given[index]))}


# --- ServingRuntimes ---

_POD_LEVEL = (
    *("nodeSelector", "tolerations", "affinity", "imagePullSecrets"),
    *("serviceAccountName", "hostIPC"),
)


def _of_runtime(
    resource: Resource, context: "Context", model: protocol.ModelServer, choice: runtimes.Choice
) -> Server:
    spec = choice.spec or {}
    delivery = storage.of_model(resource, context, model.fields, model.path, own_server=False)
    containers = _expanded(resource, context, model, spec)
    agent.env(resource, context, "predictor", ours=False)
    first = next((c for c in containers if c.get("name") == names.SERVER_CONTAINER), containers[0])
    base: Object = {
        "name": names.SERVER_CONTAINER,
        "env": container.env(INFERENCE_SERVICE_NAME=resource.name),
        "ports": container.ports(),
        "resources": container.copied(container.SERVER_RESOURCES),
        "securityContext": {**container.GUARDED, "runAsNonRoot": True},
        "volumeMounts": delivery.mounts,
    }
    spoken = protocol.of_model(model)
    user = _user_fields(model.fields)
    serving = container.merge(container.merge(base, first), user)
    serving["image"] = _image(serving, choice, model, pinned="image" in user)
    if container.is_grpc(spoken):
        serving = container.tidy({**serving, "ports": user.get("ports") or _grpc_port(choice.name)})
        if not user.get("readinessProbe"):  # the runtime's own asks over HTTP
            serving.pop("readinessProbe", None)
    return Server(
        unit="custom",
        containers=[
            *_with_others(resource, context, serving, delivery, ours=False),
            *(sidecar(c) for c in containers if c is not first),
        ],
        delivery=delivery,
        volumes=list(spec.get("volumes") or []),
        annotations={
            **(spec.get("annotations") or {}),
            **gpu.annotations(resource, serving),
            **_pod_ports(resource),
        },
        labels=dict(spec.get("labels") or {}),
        pod={
            **gpu.pod(serving),
            **{key: spec[key] for key in _POD_LEVEL if spec.get(key) is not None},
        },
    )


def _grpc_port(runtime: str) -> list[Object]:
    """KServe's gRPC port per server, as the one port Knative serves (spec/kserve_sdk 6.3)."""
    port = {"kserve-torchserve": 7070}.get(runtime, 9000)
    return [{"containerPort": port, "name": "h2c"}]


def _image(
    serving: Object, choice: runtimes.Choice, model: protocol.ModelServer, *, pinned: bool
) -> str:
    reference = str(serving.get("image") or "")
    if pinned:
        return reference
    reference = _tagged(reference, model.fields)
    head, _, tag = reference.rpartition(":")
    if choice.name in stock_runtimes.GPU_TAGS and gpu.asks(serving) and not tag.endswith("-gpu"):
        return f"{head}:{tag}-gpu"
    return reference


def _expanded(
    resource: Resource,
    context: "Context",
    model: protocol.ModelServer,
    spec: Mapping[str, JSON],
) -> list[Object]:
    """The runtime's containers with its Go-template expressions filled in."""
    spoken = protocol.of_predictor(resource, context)
    envelope = "kservev2" if spoken in ("v2", "grpc-v2") else "kserve"
    labels = {
        "modelClass": stock_runtimes.MODEL_CLASSES.get(model.format, ""),
        "serviceEnvelope": envelope,
        **resource.labels,
    }
    facts = {
        "Name": protocol.model_name(resource),
        "Namespace": resource.namespace,
        "Labels": labels,
        "Annotations": {"modelFormat": model.format, **resource.annotations},
    }
    try:
        expanded: list[Object] = runtimes.expand(list(spec["containers"]), facts)
    except KeyError as error:
        context.report(resource).error(
            model.path, f"the runtime's template {error.args[0]} names nothing of this service"
        )
        return list(spec["containers"])
    return expanded


# --- the user's own containers ---


def _custom(resource: Resource, context: "Context") -> Server:
    predictor = resource.spec["predictor"]
    given = list(predictor["containers"])
    index = serving_index(given)
    front = collocation.front(given)
    model_at = 0 if len(given) == 1 else _model_index(given)
    if front is not None:
        path = ("spec", "predictor", "containers", front)
        given[front] = collocation.completed(resource, context, given[front], path)
    ours = container.is_ours(given[index])
    delivery, given[model_at] = storage.of_container(
        resource, context, "predictor", given[model_at], ours=container.is_ours(given[model_at])
    )
    extras = agent.env(resource, context, "predictor", ours=ours)
    if front == index != model_at and (ours or container.is_ours(given[model_at])):
        given[index] = collocation.wired(resource, context, given[index], ours=ours)
    containers: list[Object] = []
    for position, item in enumerate(given):
        together = front == index and position in (index, model_at)
        mounts = delivery.mounts if position == model_at or together else []
        if position == index:
            arriving = delivery if position == model_at else storage.Delivery()
            serving = custom_container(resource, item, arriving, mounts, ours=ours, extras=extras)
            containers.append(serving)
        elif together and container.is_ours(item):
            named = [("model_name", protocol.model_name(resource))]
            item = collocation.with_flags(item, named, ours=True)
            inner = custom_container(resource, item, delivery, mounts, ours=True, extras=[])
            number = collocation.port(given[index])
            containers.append(collocation.behind(inner, number, ours=True))
        else:
            base = {
                "env": container.env(INFERENCE_SERVICE_NAME=resource.name),
                "volumeMounts": mounts,
            }
            containers.append(container.merge(base, sidecar(item)))
    serving = containers[index]
    return Server(
        unit="functions" if ours else "custom",
        containers=containers,
        delivery=delivery,
        annotations={**gpu.annotations(resource, serving), **_pod_ports(resource)},
        pod=gpu.pod(serving),
    )


def serving_index(containers: list[Mapping[str, JSON]]) -> int:
    """Which container gets the requests: the one with ports, a collocated transformer, or the
    first."""
    for index, item in enumerate(containers):
        if item.get("ports"):
            return index
    for index, item in enumerate(containers):
        if item.get("name") == names.TRANSFORMER_CONTAINER:
            return index
    return 0


def _model_index(containers: list[Mapping[str, JSON]]) -> int:
    """Which container of several wants the model: KServe's kserve-container."""
    named = [i for i, c in enumerate(containers) if c.get("name") == names.SERVER_CONTAINER]
    return named[0] if named else 0


def custom_container(
    resource: Resource,
    given: Mapping[str, JSON],
    delivery: storage.Delivery,
    mounts: list[Object],
    *,
    ours: bool,
    extras: list[Object],
) -> Object:
    """The user's serving container with our defaults under it."""
    base: Object = {
        "name": names.SERVER_CONTAINER,
        "env": [*container.env(INFERENCE_SERVICE_NAME=resource.name), *delivery.env, *extras],
        "envFrom": delivery.env_from,
        "resources": container.copied(container.SERVER_RESOURCES),
        "securityContext": dict(container.HARDENED if ours else container.GUARDED),
        "volumeMounts": [*mounts, *([container.tmp_mount()] if ours else [])],
    }
    if ours:
        spoken = container.env_value(given, "FUNCTIONS_PROTOCOL")
        if not spoken and container.serves_h2c(given):
            given = collocation.with_flags(given, [("protocol", "grpc-v2")], ours=True)
        spoken = container.flag_value(given, "--protocol") or spoken
        base |= {
            "ports": container.ports(spoken),
            "readinessProbe": container.ready_probe(spoken, given),
        }
    else:
        base |= {"ports": container.ports()}
    return container.merge(base, given)


def sidecar(given: Mapping[str, JSON]) -> Object:
    """A further container of the user's, hardened like the first."""
    return container.merge({"securityContext": dict(container.GUARDED)}, given)
