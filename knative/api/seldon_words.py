"""Seldon's vocabulary: implementations, types, methods, protocols, annotations; and walking a
graph.

Source: spec/seldon_tfserving 1.1 to 1.8, 2.3 and 5.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from knative.api.problems import Path

JSON = Any

PROTOCOLS = ("", "seldon", "tensorflow", "v2", "kfserving")
TYPES = ("MODEL", "ROUTER", "COMBINER", "TRANSFORMER", "OUTPUT_TRANSFORMER", "UNKNOWN_TYPE")
METHODS = ("TRANSFORM_INPUT", "TRANSFORM_OUTPUT", "ROUTE", "AGGREGATE", "SEND_FEEDBACK")
PARAMETER_TYPES = ("INT", "FLOAT", "DOUBLE", "STRING", "BOOL")
BUILT_IN = ("RANDOM_ABTEST", "SIMPLE_ROUTER", "SIMPLE_MODEL", "AVERAGE_COMBINER")
"""Units that the router runs itself."""

UNKNOWN = "UNKNOWN_IMPLEMENTATION"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A prepackaged server: which protocols it is offered for and which runtime of ours it is."""

    protocols: tuple[str, ...]
    runtime: str = ""
    """Value of `--runtime`; empty: only a stock container serves it."""
    needs_uri: bool = True


SERVERS: Mapping[str, Server] = {
    "SKLEARN_SERVER": Server(protocols=("seldon", "v2"), runtime="sklearn"),
    "XGBOOST_SERVER": Server(protocols=("seldon", "v2"), runtime="xgboost"),
    "MLFLOW_SERVER": Server(protocols=("seldon", "v2"), runtime="mlflow"),
    "TENSORFLOW_SERVER": Server(protocols=("seldon", "tensorflow"), runtime="tensorflow"),
    "TRITON_SERVER": Server(protocols=("v2",)),
    "HUGGINGFACE_SERVER": Server(
        protocols=("seldon", "v2"), runtime="huggingface", needs_uri=False
    ),
}
"""Seldon's prepackaged servers by `implementation` (spec/seldon_tfserving 5)."""

ANNOTATION_PREFIX = "seldon.io/"
REST_TIMEOUT = "seldon.io/rest-timeout"
GRPC_TIMEOUT = "seldon.io/grpc-timeout"
BROKER = "http://broker-ingress.knative-eventing.svc.cluster.local"
"""Where a namespace's Brokers take events, at `/NAMESPACE/NAME`."""
LOG_QUEUE = "seldon.io/executor-logger-queue-size"
NO_ENGINE = "seldon.io/no-engine"
SVC_NAME = "seldon.io/svc-name"
NO_STORAGE_INITIALIZER = "seldon.io/no-storage-initializer"
ENGINE_PREFIX = "seldon.io/engine-"
ENGINE_SEPARATE = "seldon.io/engine-separate-pod"

_INGRESS = "Knative's ingress answers for the router's Service"
_LOG_WAIT = "a request never waits for the payload log: what does not fit is dropped at once"
ANNOTATIONS: Mapping[str, str] = {
    REST_TIMEOUT: "",
    NO_ENGINE: "",
    ENGINE_SEPARATE: "",
    NO_STORAGE_INITIALIZER: "",
    SVC_NAME: "the deployment is called at its own name; predictors have no Service of their own",
    "seldon.io/headless-svc": "Knative Services have no headless form",
    GRPC_TIMEOUT: "",
    "seldon.io/grpc-max-message-size": "the router limits what it reads (MAX_RESPONSE_BYTES)",
    LOG_QUEUE: "",
    "seldon.io/executor-logger-write-timeout-ms": _LOG_WAIT,
}
"""Annotations of Seldon's; the text says why one has no effect, empty means it has."""

IGNORED_PREFIXES: Mapping[str, str] = {
    "seldon.io/istio-": _INGRESS,
    "seldon.io/ambassador-": _INGRESS,
}


def protocol_of(spec: Mapping[str, JSON]) -> str:
    """seldon, tensorflow or v2."""
    given = str(spec.get("protocol") or "seldon")
    return "v2" if given == "kfserving" else given


def is_grpc(spec: Mapping[str, JSON], unit: Mapping[str, JSON]) -> bool:
    """Whether a node is called over gRPC: its endpoint says so, or the deployment's transport."""
    given = (unit.get("endpoint") or {}).get("type")
    wanted = "GRPC" if spec.get("transport") == "grpc" else "REST"
    return (given or wanted) == "GRPC"


def implementation_of(unit: Mapping[str, JSON]) -> str:
    """The implementation, empty for the default."""
    given = str(unit.get("implementation") or "")
    return "" if given == UNKNOWN else given


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A unit of a graph with its place in the manifest."""

    unit: Mapping[str, JSON]
    path: Path

    @property
    def name(self) -> str:
        return str(self.unit["name"])

    @property
    def implementation(self) -> str:
        """Empty for the default."""
        return implementation_of(self.unit)

    @property
    def is_built_in(self) -> bool:
        """Whether the router does its work."""
        return self.implementation in BUILT_IN


def walk(graph: Mapping[str, JSON], path: Path) -> Iterator[Node]:
    """All units of a graph, parents first, without recursion."""
    waiting = [Node(unit=graph, path=path)]
    while waiting:
        node = waiting.pop(0)
        yield node
        children = node.unit.get("children") or []
        waiting[:0] = [
            Node(unit=child, path=(*node.path, "children", index))
            for index, child in enumerate(children)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A container of componentSpecs with its place: which component it belongs to."""

    container: Mapping[str, JSON]
    component: int
    path: Path


def containers(predictor: Mapping[str, JSON], path: Path) -> dict[str, Bound]:
    """Containers of a predictor by name; the first of a name wins (check reports the others)."""
    found: dict[str, Bound] = {}
    for index, component in enumerate(predictor.get("componentSpecs") or []):
        spec = component.get("spec") or {}
        for position, item in enumerate(spec.get("containers") or []):
            where = (*path, "componentSpecs", index, "spec", "containers", position)
            found.setdefault(item["name"], Bound(container=item, component=index, path=where))
    return found


def timeout_ms(text: str) -> int:
    """Value of seldon.io/rest-timeout in milliseconds; 0: none. Raises ValueError."""
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number
