"""The containers Seldon itself starts for prepackaged servers, with one serving port each.

Images and arguments are those of Seldon Core 1.17 (spec/seldon_tfserving 5); a container in
componentSpecs replaces them. They are used when asked for (annotation `turnout.dev/runtime: stock`)
and where we have no runtime of our own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from knative import names
from knative.api import seldon_routing
from knative.api import seldon_words as words
from knative.resources import container
from knative.resources.seldon_site import Site

JSON = Any
Object = dict[str, JSON]

GRPC_PORT = 9500
"""Where Seldon's first container listens for gRPC (spec/seldon_tfserving 1.4)."""
_WRAPPER_PORT = 9000
_TRITON = "nvcr.io/nvidia/tritonserver:21.08-py3"
_TENSORFLOW = "tensorflow/serving:2.1.0"
_WRAPPERS = {
    "SKLEARN_SERVER": "seldonio/sklearnserver:1.17.1",
    "XGBOOST_SERVER": "seldonio/xgboostserver:1.17.1",
    "MLFLOW_SERVER": "seldonio/mlflowserver:1.17.1",
}
_MLSERVERS = {
    "SKLEARN_SERVER": ("sklearn", "mlserver_sklearn.SKLearnModel"),
    "XGBOOST_SERVER": ("xgboost", "mlserver_xgboost.XGBoostModel"),
    "MLFLOW_SERVER": ("mlflow", "mlserver_mlflow.MLflowRuntime"),
    "HUGGINGFACE_SERVER": ("huggingface", "mlserver_huggingface.HuggingFaceRuntime"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """A stock container: image, args and the like, and the port it listens on."""

    fields: Object
    env: list[Object] = field(default_factory=list)
    port: int = container.DEFAULT_PORT
    grpc_port: int = GRPC_PORT


def is_raw(site: Site) -> bool:
    """Whether Triton reads its repository straight from modelUri (1.8)."""
    wanted = seldon_routing.annotations(site.resource).get(words.NO_STORAGE_INITIALIZER)
    return wanted == "true" and site.node.implementation == "TRITON_SERVER"


def container_of(site: Site, given: Mapping[str, JSON], *, raw: bool) -> Stock:
    """The stock container of a node; args in `given` replace its own, an image too."""
    kind = site.node.implementation
    if kind == "TENSORFLOW_SERVER":
        stock = _tensorflow(site, given)
    elif kind == "TRITON_SERVER":
        stock = _triton(site, raw=raw)
    elif site.protocol == "v2":
        stock = _mlserver(site, kind)
    else:
        stock = Stock(fields={"image": _WRAPPERS[kind]}, port=_WRAPPER_PORT)
    if given.get("args"):
        stock.fields["args"] = list(given["args"])
    return stock


# --- TensorFlow Serving behind Seldon's protocol (7.1) --------------------------------------------

TF_REST, TF_GRPC = 2001, 2000
"""Where TensorFlow Serving listens beside its proxy, for nobody else."""
SIDECAR = "tfserving"


def tfserving(site: Site, mounts: list[Object]) -> tuple[Object, list[int]]:
    """The sidecar, and the ports on which the proxy finds it (REST first)."""
    given = site.tfserving.container if site.tfserving is not None else {}
    args = given.get("args") or [
        f"--port={TF_GRPC}",
        f"--rest_api_port={TF_REST}",
        f"--model_name={site.node.name}",
        f"--model_base_path={names.MODEL_DIR}",
    ]
    ports = []
    for flag, default in (("--rest_api_port", TF_REST), ("--port", TF_GRPC)):
        text = container.flag_value({"args": args}, flag)
        if not text and flag == "--rest_api_port":
            _needs(site, "--rest_api_port", "REST")
        ports.append(int(text) if text.isdigit() else default)
    base: Object = {
        "name": SIDECAR,
        "image": _TENSORFLOW,
        "args": list(args),
        "resources": container.copied(container.SERVER_RESOURCES),
        "securityContext": dict(container.GUARDED),
        "volumeMounts": mounts,
    }
    return base, ports


def proxy(site: Site, image: str, rest: int, grpc: int) -> Object:
    """The node's own container: the router with a graph of one node, which it translates for. It
    is ready when TensorFlow Serving has loaded the model."""
    over_grpc = words.is_grpc(site.resource.spec, site.node.unit)
    node: Object = {
        "name": site.node.name,
        "implementation": site.node.implementation,
        "parameters": seldon_routing.parameters(site.node.unit),
        "serviceUrl": f"grpc://localhost:{grpc}" if over_grpc else f"http://localhost:{rest}",
        "image": image,
        "serverProtocol": "tensorflow",
        "health": "grpc" if over_grpc else f"/v1/models/{site.node.name}",
    }
    graph = {
        "kind": "SeldonDeployment",
        "name": site.resource.name,
        "namespace": site.resource.namespace,
        "protocol": "seldon",
        "predictors": [{"name": site.predictor["name"], "graph": node}],
    }
    timeout_ms = seldon_routing.routing_spec(site.resource).get("timeoutMs")
    if timeout_ms:
        graph["timeoutMs"] = timeout_ms
    text = json.dumps(graph, ensure_ascii=False, indent=2)
    return {
        "name": site.node.name,
        "image": image,
        "command": ["python", "-m", "router_fn"],
        "env": container.env(GRAPH_JSON=text),
        "ports": container.ports(),
        "readinessProbe": container.ready_probe(),
        "resources": container.copied(container.ROUTER_RESOURCES),
        "securityContext": dict(container.HARDENED),
        "volumeMounts": [container.tmp_mount()],
    }


def _needs(site: Site, flag: str, transport: str) -> None:
    site.context.report(site.resource).error(
        site.tfserving.path if site.tfserving is not None else site.node.path,
        f"the arguments of tensorflow serving need {flag}: it is called over {transport}",
    )


# --- one container each ---------------------------------------------------------------------------


def _tensorflow(site: Site, given: Mapping[str, JSON]) -> Stock:
    args = [
        f"--rest_api_port={container.DEFAULT_PORT}",
        f"--model_name={site.node.name}",
        f"--model_base_path={names.MODEL_DIR}",
    ]
    if site.is_grpc:
        args[0] = f"--port={GRPC_PORT}"
        own = container.flag_value(given, "--port")
        if given.get("args") and not own:
            _needs(site, "--port", "gRPC")
        grpc_port = int(own) if own.isdigit() else GRPC_PORT
        return Stock(fields={"image": _TENSORFLOW, "args": args}, grpc_port=grpc_port)
    port = container.flag_value(given, "--rest_api_port")
    if given.get("args") and not port:
        _needs(site, "--rest_api_port", "REST")
    number = int(port) if port.isdigit() else container.DEFAULT_PORT
    probe = {"httpGet": {"path": f"/v1/models/{site.node.name}"}}
    fields: Object = {"image": _TENSORFLOW, "args": args, "readinessProbe": probe}
    return Stock(fields=fields, port=number)


def _triton(site: Site, *, raw: bool) -> Stock:
    repository = site.node.unit["modelUri"] if raw else names.MODEL_DIR
    given = [(p["name"], p["value"]) for p in site.node.unit.get("parameters") or []]
    args = [
        "tritonserver",
        f"--grpc-port={GRPC_PORT}",
        f"--http-port={container.DEFAULT_PORT}",
        f"--model-repository={repository}",
    ]
    strict = dict(given).get("strict_model_config", "false")
    args.append(f"--strict-model-config={strict}")
    if raw:
        for name, value in given:
            if name in ("model_control_mode", "load_model"):
                args.append(f"--{name.replace('_', '-')}={value}")
    probe = {"httpGet": {"path": "/v2/health/ready"}}
    return Stock(fields={"image": _TRITON, "args": args, "readinessProbe": probe})


def _mlserver(site: Site, kind: str) -> Stock:
    flavour, implementation = _MLSERVERS[kind]
    env = container.env(
        MLSERVER_HTTP_PORT=str(container.DEFAULT_PORT),
        MLSERVER_GRPC_PORT=str(GRPC_PORT),
        MLSERVER_METRICS_PORT="6000",
        MLSERVER_METRICS_ENDPOINT="/metrics",
        MLSERVER_MODEL_NAME=site.node.name,
        MLSERVER_MODEL_VERSION="v1",
        MLSERVER_MODEL_URI=names.MODEL_DIR,
        MLSERVER_MODEL_IMPLEMENTATION=implementation,
    )
    probe = {"httpGet": {"path": "/v2/health/ready"}}
    image = f"seldonio/mlserver:1.3.5-{flavour}"
    return Stock(fields={"image": image, "readinessProbe": probe}, env=env)
