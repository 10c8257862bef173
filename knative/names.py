"""Every derived name and address, one small function each.

Kubernetes names that end up in a host name are DNS labels of at most 63 characters; longer ones
keep
their beginning and get a hash of the whole, so they stay unique and stable.
"""

import hashlib

MAX_LABEL = 63
"""Longest DNS label (RFC 1123), hence longest Knative Service name."""

MODEL_DIR = "/mnt/models"
"""Where a model's files are, for every server (KServe's contract)."""

MODEL_VOLUME = "kserve-provision-location"
"""Volume behind MODEL_DIR when an init container fills it (KServe's name)."""

PVC_VOLUME = "kserve-pvc-source"
"""Volume behind MODEL_DIR for `pvc://` sources (KServe's name)."""

IMAGE_VOLUME = "model-image"
"""Volume behind MODEL_DIR for models delivered as an image."""

TMP_VOLUME = "tmp"
"""Writable /tmp beside a read-only root file system."""

SERVER_CONTAINER = "kserve-container"
"""The serving container of every component (KServe's name; tools look for it)."""

TRANSFORMER_CONTAINER = "transformer-container"
"""The transformer in its predictor's pod (KServe's name)."""

ROUTER_CONTAINER = "router"
INIT_CONTAINER = "storage-initializer"
"""The fetcher (KServe's name)."""


def bounded(name: str, limit: int = MAX_LABEL) -> str:
    """`name`, shortened with a hash if it is longer than `limit`."""
    if len(name) <= limit:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: limit - 9].rstrip('-')}-{digest}"


def predictor(name: str, variant: str = "") -> str:
    """Service of a predictor that stands behind a transformer; `variant` is the component's
    name."""
    return bounded(f"{name}-{variant}-predictor" if variant else f"{name}-predictor")


def explainer(name: str) -> str:
    """Service of an explainer."""
    return bounded(f"{name}-explainer")


def seldon_node(deployment: str, predictor: str, node: str) -> str:
    """Service of a node of a SeldonDeployment (Seldon's own naming)."""
    return bounded(f"{deployment}-{predictor}-{node}")


def seldon_predictor(deployment: str, predictor: str) -> str:
    """Service of a predictor that has a router of its own (Seldon's own naming)."""
    return bounded(f"{deployment}-{predictor}")


def graph_grpc(name: str) -> str:
    """Service of a graph's router for clients that use gRPC."""
    return bounded(f"{name}-grpc")


def graph_config(name: str) -> str:
    """ConfigMap with the JSON of a graph too large for an environment variable."""
    return bounded(f"{name}-graph", 253)


def host(name: str, namespace: str) -> str:
    """Cluster-local host of a Knative Service."""
    return f"{name}.{namespace}.svc.cluster.local"


def url(name: str, namespace: str, path: str = "") -> str:
    """Cluster-local URL of a Knative Service; `path` begins with `/` or is empty."""
    return f"http://{host(name, namespace)}{path}"


def predict_path(model: str, protocol: str) -> str:
    """Inference path of `model` for a protocol; empty where the protocol has none (gRPC)."""
    if protocol == "v1":
        return f"/v1/models/{model}:predict"
    if protocol == "v2":
        return f"/v2/models/{model}/infer"
    return ""
