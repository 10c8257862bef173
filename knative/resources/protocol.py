"""Which protocol an InferenceService speaks and under which model name; asked by servers and by
callers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knative import names
from knative.api.formats import FRAMEWORKS, V2_BY_DEFAULT
from knative.resources import container
from knative.resources.stock_runtimes import STOCK_RUNTIMES

if TYPE_CHECKING:
    from knative.api.resource import Resource
    from knative.compiler import Context

JSON = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelServer:
    """A predictor's model field, whichever of KServe's two spellings it uses."""

    format: str
    version: str
    fields: Mapping[str, JSON]
    path: tuple[str | int, ...]
    """Where it is in the manifest, for messages."""


def model_of(predictor: Mapping[str, JSON]) -> ModelServer | None:
    """`predictor.model` or the old per-framework field; None for custom containers."""
    model = predictor.get("model")
    if model is not None:
        format_ = model.get("modelFormat") or {}
        return ModelServer(
            format=format_.get("name", "").lower(),
            version=str(format_.get("version") or ""),
            fields=model,
            path=("spec", "predictor", "model"),
        )
    for name, format_name in FRAMEWORKS.items():
        if predictor.get(name) is not None:
            return ModelServer(
                format=format_name,
                version="",
                fields=predictor[name],
                path=("spec", "predictor", name),
            )
    return None


def of_model(model: ModelServer) -> str:
    """What the model field itself says, if anything. V2 behind a port named h2c is gRPC, as in
    KServe's samples, which declare it beside `protocolVersion: v2`."""
    given = str(model.fields.get("protocolVersion") or "")
    if given in ("", "v2") and container.serves_h2c(model.fields):
        return "grpc-v1" if model.format == "tensorflow" and not given else "grpc-v2"
    return given


def of_predictor(resource: "Resource", context: "Context") -> str:
    """v1, v2, grpc-v1 or grpc-v2: what the predictor's callers speak (spec/kserve_graph 2.5)."""
    predictor = resource.spec["predictor"]
    model = model_of(predictor)
    if model is None:
        given = predictor.get("containers") or []
        behind = [c for c in given if c.get("name") != names.TRANSFORMER_CONTAINER]
        return _declared(behind) or "v1"
    if given := of_model(model):
        return given
    if named := model.fields.get("runtime"):
        return _of_runtime(str(named), resource, context)
    return "v2" if model.format in V2_BY_DEFAULT else "v1"


def _of_runtime(name: str, resource: "Resource", context: "Context") -> str:
    """A named runtime decides: the first of its protocols that is v1 or v2; v1 if it lists none."""
    found = context.find_sound("ServingRuntime", resource.namespace, name)
    if found is None:
        found = next(
            (
                r
                for r in context.resources.values()
                if r.kind == "ClusterServingRuntime"
                and r.name == name
                and not context.report(r).failed
            ),
            None,
        )
    spec = found.spec if found is not None else STOCK_RUNTIMES.get(name, {})
    spoken = spec.get("protocolVersions") or ["v1"]
    return next((str(p) for p in spoken if p in ("v1", "v2")), str(spoken[0]))


def of_service(resource: "Resource", context: "Context") -> str:
    """What the service's callers speak: the transformer's protocol when there is one.

    Our transformers serve V1 and V2 over HTTP unless they say otherwise, whatever their predictor
    speaks.
    """
    spoken = of_predictor(resource, context)
    front = container.transformer_of(resource.spec)
    if front is None:
        return spoken
    if own := _declared([front]):
        return own
    ours = container.is_ours(front) or container.wants_ours(front)
    if ours and spoken.startswith("grpc"):
        return spoken.removeprefix("grpc-")
    return spoken


def _declared(containers: list[Mapping[str, JSON]]) -> str:
    """KServe's control input PROTOCOL, our `--protocol`, or a port named h2c."""
    for item in containers:
        given = container.env_value(item, "PROTOCOL") or container.flag_value(item, "--protocol")
        if given:
            return given.split(",")[0]
        if container.serves_h2c(item):
            return "grpc-v2"
    return ""


def model_name(resource: "Resource") -> str:
    """Name of the model in inference paths (spec/kserve_graph 2.5, in that order)."""
    spec = resource.spec
    candidates: list[str] = []
    transformer = (spec.get("transformer") or {}).get("containers") or []
    candidates += [container.flag_value(c, "--model_name", "--model-name") for c in transformer]
    predictor = spec["predictor"]
    model = model_of(predictor)
    if model is not None:
        candidates.append(container.env_value(model.fields, "MLSERVER_MODEL_NAME"))
        candidates.append(container.flag_value(model.fields, "--model_name", "--model-name"))
    for item in predictor.get("containers") or []:
        candidates.append(container.flag_value(item, "--model_name", "--model-name"))
    return next((c for c in candidates if c), resource.name)
