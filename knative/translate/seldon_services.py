"""One node of a SeldonDeployment as an InferenceService."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from knative import keys, names
from knative.api import seldon_routing
from knative.api import seldon_words as words
from knative.api.problems import Report
from knative.api.resource import Resource
from knative.resources import container, seldon_scale, seldon_servers
from knative.resources.seldon_nodes import mounted

JSON = Any
Object = dict[str, JSON]

_FORMATS = {
    "SKLEARN_SERVER": "sklearn",
    "XGBOOST_SERVER": "xgboost",
    "MLFLOW_SERVER": "mlflow",
    "TENSORFLOW_SERVER": "tensorflow",
    "TRITON_SERVER": "triton",
    "HUGGINGFACE_SERVER": "huggingface",
}
_NOT_POD = frozenset(
    {"containers", "initContainers", "terminationGracePeriodSeconds", "restartPolicy"}
)


_NOT_CARRIED = (keys.LAST_APPLIED, keys.COLLOCATE, keys.GRPC)
"""Annotations that mean something else, or nothing, beside KServe's kinds."""


def metadata(resource: Resource, name: str, annotations: Mapping[str, str] | None = None) -> Object:
    """Name, namespace, labels and what annotations are not Seldon's."""
    given = {
        k: v
        for k, v in seldon_routing.annotations(resource).items()
        if not k.startswith(words.ANNOTATION_PREFIX) and k not in _NOT_CARRIED
    }
    given |= annotations or {}
    result: Object = {"name": name, "namespace": resource.namespace}
    if resource.labels:
        result["labels"] = dict(resource.labels)
    if given:
        result["annotations"] = given
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A node to become an InferenceService."""

    resource: Resource
    report: Report
    predictor: Mapping[str, JSON]
    index: int
    """Of the predictor."""
    node: words.Node
    name: str
    """Of the InferenceService."""
    image: str
    """Of our model server, for containers that run it and name none."""


def service(wanted: Wanted) -> Object:
    """The InferenceService that does what the node does."""
    resource, report, node = wanted.resource, wanted.report, wanted.node
    predictor = wanted.predictor
    path = ("spec", "predictors", wanted.index)
    bound = words.containers(predictor, path).get(node.name)
    component = _component(predictor, bound)
    pod = component.get("spec") or {}
    fields: Object = {k: v for k, v in pod.items() if k not in _NOT_POD}
    fields |= _settings(resource, predictor, component)
    if node.unit.get("serviceAccountName"):
        fields["serviceAccountName"] = node.unit["serviceAccountName"]
    given = dict(seldon_servers.plain(bound.container)) if bound is not None else {}
    if node.implementation in _FORMATS and not given.get("image"):
        fields["model"] = _model(resource, report, node, given)
    else:
        fields["containers"] = [_container(wanted, bound, given)]
    fields["volumes"] = mounted(fields.pop("volumes", None) or [], [given])
    if not fields["volumes"]:
        del fields["volumes"]
    _say_what_is_lost(report, node, pod, predictor)
    annotations = {}
    if node.unit.get("envSecretRefName"):
        annotations[keys.KSERVE_STORAGE_SECRET] = node.unit["envSecretRefName"]
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata(resource, wanted.name, annotations),
        "spec": {"predictor": fields},
    }


def _component(predictor: Mapping[str, JSON], bound: words.Bound | None) -> Mapping[str, JSON]:
    listed = predictor.get("componentSpecs") or []
    found: Mapping[str, JSON] = listed[bound.component if bound else 0] if listed else {}
    return found


def _settings(
    resource: Resource, predictor: Mapping[str, JSON], component: Mapping[str, JSON]
) -> Object:
    """Scale, labels and annotations."""
    annotations = {
        **(predictor.get("annotations") or {}),
        **((component.get("metadata") or {}).get("annotations") or {}),
    }
    kept = {
        k: v
        for k, v in annotations.items()
        if not k.startswith(words.ANNOTATION_PREFIX) and k not in _NOT_CARRIED
    }
    everywhere = {**seldon_routing.annotations(resource), **annotations}
    result = seldon_scale.of_node(resource.spec, predictor, component, everywhere)
    result["labels"] = {
        **seldon_routing.labels(predictor),
        **((component.get("metadata") or {}).get("labels") or {}),
    }
    if kept:
        result["annotations"] = kept
    return result


def _model(resource: Resource, report: Report, node: words.Node, given: Object) -> Object:
    """A prepackaged server is a model format."""
    spoken = words.protocol_of(resource.spec)
    model: Object = {"modelFormat": {"name": _FORMATS[node.implementation]}}
    if spoken == "v2":
        model["protocolVersion"] = "v2"
    uri = node.unit.get("modelUri") or seldon_servers.pretrained(node)
    if uri:
        model["storageUri"] = uri
    parameters = seldon_routing.parameters(node.unit)
    if node.implementation == "SKLEARN_SERVER" and spoken == "seldon":
        named = {p["name"] for p in parameters}
        if "method" not in named:
            method = {"name": "method", "value": "predict_proba", "type": "STRING"}
            parameters.append(method)
    if node.implementation == "TENSORFLOW_SERVER" and spoken == "seldon":
        if any(p["name"] == "signature_name" for p in parameters):
            report.warning(
                (*node.path, "parameters"),
                'signature_name is the caller\'s now: {"signature_name": …, "instances": …}',
            )
        parameters = []
    if parameters:
        env = container.env(PREDICTIVE_UNIT_PARAMETERS=json.dumps(parameters, ensure_ascii=False))
        model["env"] = env
        report.warning(
            node.path,
            "its parameters are in PREDICTIVE_UNIT_PARAMETERS, which Turnout's server reads and"
            " KServe's do not",
        )
    return {**model, **{k: v for k, v in given.items() if k not in ("name", "env")}} | _env(
        model, given
    )


def _env(model: Object, given: Object) -> Object:
    merged = container.merge_env(model.get("env") or [], given.get("env") or [])
    return {"env": merged} if merged else {}


def _container(site: Wanted, bound: words.Bound | None, given: Object) -> Object:
    """The user's container; on our server its class answers V1 as well."""
    node, report, predictor = site.node, site.report, site.predictor
    if bound is None:
        report.error(node.path, "is called at endpoint.service_host: give a step its serviceUrl")
        return {"name": node.name}
    parameters = json.dumps(seldon_routing.parameters(node.unit), ensure_ascii=False)
    env = container.env(
        PREDICTIVE_UNIT_ID=node.name,
        PREDICTIVE_UNIT_PARAMETERS=parameters,
        PREDICTOR_ID=predictor["name"],
        SELDON_DEPLOYMENT_ID=site.resource.name,
    )
    if node.unit.get("modelUri"):
        env += container.env(STORAGE_URI=node.unit["modelUri"])
    result = {**given, "env": container.merge_env(env, given.get("env") or [])}
    if container.is_ours(given):
        result.setdefault("image", site.image)
        told = [("--model-name", site.name)]
        if node.unit.get("modelUri"):
            told.append(("--model-dir", names.MODEL_DIR))
        missing = [pair for pair in told if not container.flag_value(given, pair[0])]
        result["args"] = [*(given.get("args") or []), *(w for pair in missing for w in pair)]
        return container.tidy(result)
    port = seldon_servers.http_port(bound.container)
    result["ports"] = [{"containerPort": port}]
    result["env"] += container.env(PREDICTIVE_UNIT_HTTP_SERVICE_PORT=str(port))
    if words.protocol_of(site.resource.spec) == "seldon":
        report.warning(
            bound.path,
            "the image answers Seldon's API, the graph calls V1: run its class with `python -m"
            " functions --model-class MODULE:CLASS`, which answers both",
        )
    return container.tidy(result)


def _say_what_is_lost(
    report: Report, node: words.Node, pod: Mapping[str, JSON], predictor: Mapping[str, JSON]
) -> None:
    if node.unit.get("storageInitializerImage"):
        report.warning(
            (*node.path, "storageInitializerImage"), "has no equivalent: KServe has one image"
        )
    if node.unit.get("logger"):
        report.warning((*node.path, "logger"), "write predictor.logger with a url instead")
    named = {n.name for n in words.walk(predictor["graph"], ())}
    extra = [c["name"] for c in pod.get("containers") or [] if c["name"] not in named]
    if extra:
        report.warning(node.path, f"the sidecar {', '.join(extra)} is not carried over")
    if pod.get("initContainers"):
        report.warning(node.path, "initContainers are not carried over")
