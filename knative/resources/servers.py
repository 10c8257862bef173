"""The containers that serve a model: our own runtimes, stock servers, or the user's containers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knative import keys, names
from knative.api import core
from knative.api.formats import OWN_RUNTIMES
from knative.api.resource import Resource
from knative.resources import container, protocol, storage

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
    pod: dict[str, JSON] = field(default_factory=dict)
    """Pod-level defaults from a ServingRuntime; the component's own fields win."""


def make(resource: Resource, context: "Context") -> Server:
    """The server of an InferenceService's predictor."""
    predictor = resource.spec["predictor"]
    model = protocol.model_of(predictor)
    if model is None:
        return _custom(resource, context, predictor)
    return _own(resource, context, model)


def _own(resource: Resource, context: "Context", model: protocol.ModelServer) -> Server:
    """`python -m functions` with one of its runtimes."""
    if model.format not in OWN_RUNTIMES:
        context.report(resource).error(
            (*model.path, "modelFormat", "name"),
            f"no runtime for {model.format}; ours serve {', '.join(OWN_RUNTIMES)}",
        )
    fields = model.fields
    spoken = fields.get("protocolVersion") or ""
    delivery = _delivery(resource, context, fields.get("storageUri"), own_server=True)
    base: Object = {
        "name": names.SERVER_CONTAINER,
        "image": _image(context, model),
        "command": ["python", "-m", "functions"],
        "args": [
            *("--model-name", protocol.model_name(resource)),
            *("--model-dir", names.MODEL_DIR),
            *("--runtime", model.format),
            *("--protocol", spoken or "v1,v2"),
        ],
        "env": [*container.env(INFERENCE_SERVICE_NAME=resource.name), *delivery.env],
        "ports": container.ports(spoken),
        "readinessProbe": container.ready_probe(),
        "resources": _copy(container.SERVER_RESOURCES),
        "securityContext": dict(container.HARDENED),
        "volumeMounts": [*delivery.mounts, container.tmp_mount()],
    }
    user = {k: v for k, v in fields.items() if k in _CONTAINER_KEYS and k != "name"}
    return Server(
        unit="functions",
        containers=[container.merge(base, user)],
        delivery=delivery,
        volumes=[container.tmp_volume()],
    )


_CONTAINER_KEYS = frozenset(core.CONTAINER.fields)


def _image(context: "Context", model: protocol.ModelServer) -> str:
    reference = context.options.image("functions", model.format)
    version = model.fields.get("runtimeVersion")
    return with_tag(reference, version) if version else reference


def with_tag(reference: str, tag: str) -> str:
    """An image reference with another tag; a digest is dropped, because it names other bits."""
    name, _, _ = reference.partition("@")
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}:{tag}"


def _copy(value: Mapping[str, Mapping[str, str]]) -> Object:
    return {key: dict(inner) for key, inner in value.items()}


def _delivery(
    resource: Resource, context: "Context", uri: str | None, *, own_server: bool
) -> storage.Delivery:
    if not uri:
        return storage.Delivery()
    return storage.deliver(uri, context.options, _access(resource), own_server=own_server)


def _access(resource: Resource) -> storage.Access:
    return storage.Access(
        size_limit=resource.annotations.get(keys.MODEL_SIZE, ""),
        writable=resource.annotations.get(keys.KSERVE_STORAGE_READONLY) == "false",
    )


# --- the user's own containers ------------------------------------------------------------------


def _custom(resource: Resource, context: "Context", predictor: Mapping[str, JSON]) -> Server:
    first, *sidecars = predictor["containers"]
    ours = is_ours(first)
    delivery, first = deliver_custom(resource, context, first, ours=ours)
    return Server(
        unit="functions" if ours else "custom",
        containers=[
            custom_container(resource, first, delivery, ours=ours),
            *(sidecar(s) for s in sidecars),
        ],
        delivery=delivery,
        volumes=[container.tmp_volume()] if ours else [],
    )


def is_ours(given: Mapping[str, JSON]) -> bool:
    """Whether a user's container runs `python -m functions`."""
    words = [*(given.get("command") or []), *(given.get("args") or [])]
    return words[1:3] == ["-m", "functions"]


def deliver_custom(
    resource: Resource, context: "Context", given: Object, *, ours: bool
) -> tuple[storage.Delivery, Object]:
    """Delivery for a container that asks with env STORAGE_URI, which afterwards says where the
    files are."""
    uri = storage.storage_env(given)
    if not uri or uri.startswith("/"):
        return storage.Delivery(), given
    delivery = _delivery(resource, context, uri, own_server=ours)
    if delivery.env:
        return delivery, given
    env = container.merge_env(given["env"], container.env(STORAGE_URI=names.MODEL_DIR))
    return delivery, {**given, "env": env}


def custom_container(
    resource: Resource, given: Mapping[str, JSON], delivery: storage.Delivery, *, ours: bool
) -> Object:
    """The user's serving container with our defaults under it."""
    base: Object = {
        "name": names.SERVER_CONTAINER,
        "env": container.env(INFERENCE_SERVICE_NAME=resource.name),
        "resources": _copy(container.SERVER_RESOURCES),
        "securityContext": dict(container.HARDENED if ours else container.GUARDED),
        "volumeMounts": [*delivery.mounts, *([container.tmp_mount()] if ours else [])],
    }
    if ours:
        base |= {"ports": container.ports(), "readinessProbe": container.ready_probe()}
    return container.merge(base, given)


def sidecar(given: Mapping[str, JSON]) -> Object:
    """A further container of the user's, hardened like the first."""
    return container.merge({"securityContext": dict(container.GUARDED)}, given)
