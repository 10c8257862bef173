"""Where a node of a SeldonDeployment stands: its predictor, its container, its pod's fields."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knative.api import seldon_words as words
from knative.api.problems import Path
from knative.api.resource import Resource
from knative.resources import runtimes

if TYPE_CHECKING:
    from knative.compiler import Context

JSON = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One node that needs a Service."""

    resource: Resource
    context: "Context"
    predictor: Mapping[str, JSON]
    path: Path
    """Of the predictor."""
    node: words.Node
    bound: words.Bound | None
    """The container of the node's name."""
    tfserving: words.Bound | None = None
    """The container `tfserving` beside a TENSORFLOW_SERVER: the user's own TensorFlow Serving."""

    @property
    def protocol(self) -> str:
        """seldon, tensorflow or v2."""
        return words.protocol_of(self.resource.spec)

    @property
    def is_grpc(self) -> bool:
        """Whether the router calls the node over gRPC. A pair's proxy is called over REST, and
        calls its server over gRPC."""
        return words.is_grpc(self.resource.spec, self.node.unit) and not self.is_pair

    @property
    def is_pair(self) -> bool:
        """Whether a proxy of ours speaks Seldon's protocol for TensorFlow Serving beside it."""
        if not self.is_translated or self.given.get("image"):
            return False
        return self.tfserving is not None or runtimes.wants_stock(self.resource, self.context)

    @property
    def is_translated(self) -> bool:
        """Whether the node speaks TensorFlow's protocol in a graph that speaks Seldon's."""
        return self.protocol == "seldon" and self.node.implementation == "TENSORFLOW_SERVER"

    @property
    def spoken(self) -> str:
        """What our own server speaks there: a value of `--protocol`."""
        if self.is_translated or self.protocol == "tensorflow":
            return "grpc-v1" if self.is_grpc else "tensorflow"
        return f"grpc-{self.protocol}" if self.is_grpc else self.protocol

    @property
    def index(self) -> int:
        """Which of componentSpecs shapes the pod: the container's, else the first (1.4)."""
        return self.bound.component if self.bound is not None else 0

    @property
    def component(self) -> Mapping[str, JSON]:
        """That entry of componentSpecs."""
        listed = self.predictor.get("componentSpecs") or []
        found: Mapping[str, JSON] = listed[self.index] if listed else {}
        return found

    @property
    def pod(self) -> Mapping[str, JSON]:
        """Its pod spec."""
        found: Mapping[str, JSON] = self.component.get("spec") or {}
        return found

    @property
    def given(self) -> Mapping[str, JSON]:
        """The node's container as the user wrote it."""
        return self.bound.container if self.bound is not None else {}

    @property
    def uses_tfserving(self) -> bool:
        """Whether the user brought a TensorFlow Serving container for this node."""
        return self.tfserving is not None
