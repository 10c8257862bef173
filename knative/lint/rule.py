"""What a lint rule is, and the view of a compiled Service that rules look at."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knative import keys
from knative.api import scaling
from knative.api.problems import Level, Path
from knative.api.resource import Resource

if TYPE_CHECKING:
    from knative.compiler import CompileResult

JSON = Any


@dataclass(frozen=True, slots=True)
class View:
    """One compiled object, the manifest it came from, and the whole result around it."""

    resource: Resource
    item: Mapping[str, JSON]
    result: "CompileResult"

    @property
    def is_service(self) -> bool:
        """A Knative Service."""
        return bool(self.item["kind"] == "Service")

    @property
    def name(self) -> str:
        """The object's own name."""
        return str(self.item["metadata"]["name"])

    @property
    def unit(self) -> str:
        """Value of the unit label; empty on Services that were written by hand."""
        return str((self.item["metadata"].get("labels") or {}).get(keys.UNIT, ""))

    @property
    def pod(self) -> Mapping[str, JSON]:
        """`spec.template.spec`."""
        pod: Mapping[str, JSON] = self.item["spec"]["template"]["spec"]
        return pod

    @property
    def annotations(self) -> Mapping[str, str]:
        """Annotations of the revision template."""
        metadata = self.item["spec"]["template"].get("metadata") or {}
        annotations: Mapping[str, str] = metadata.get("annotations") or {}
        return annotations

    @property
    def scaling(self) -> dict[str, str]:
        """Autoscaling annotations by current spelling, without prefix."""
        return scaling.read(self.annotations)

    @property
    def serving(self) -> Mapping[str, JSON]:
        """The container that gets the requests."""
        containers: list[Mapping[str, JSON]] = self.pod["containers"]
        return next((c for c in containers if c.get("ports")), containers[0])

    @property
    def where(self) -> Path:
        """The best place in the source manifest for a finding about this object."""
        if self.resource.kind == "InferenceService":
            labels = self.item["metadata"].get("labels") or {}
            return ("spec", labels.get(keys.COMPONENT, "predictor"))
        if self.resource.kind == "Service":
            return ("spec", "template")
        return ("spec",)


Found = tuple[Path, str]
"""Where in the source manifest, and what is wrong there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing to know. The check yields findings; the remedy is added to each message."""

    id: str
    level: Level
    why: str
    """What happens to people who do not know it, with its source."""
    remedy: str
    check: Callable[[View], Iterator[Found]]
