"""A source manifest once it is known to be one: kind, name, namespace and its own data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from knative.api.problems import Located

JSON = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One object of the input. `data` is the whole document and must not be changed."""

    kind: str
    api_version: str
    name: str
    namespace: str
    data: Mapping[str, JSON]
    document: Located

    @property
    def spec(self) -> Mapping[str, JSON]:
        """`.spec`, or an empty mapping."""
        spec: Mapping[str, JSON] = self.data.get("spec") or {}
        return spec

    @property
    def labels(self) -> Mapping[str, str]:
        """`.metadata.labels`, or an empty mapping."""
        labels: Mapping[str, str] = self.data["metadata"].get("labels") or {}
        return labels

    @property
    def annotations(self) -> Mapping[str, str]:
        """`.metadata.annotations`, or an empty mapping."""
        annotations: Mapping[str, str] = self.data["metadata"].get("annotations") or {}
        return annotations

    @property
    def key(self) -> tuple[str, str, str]:
        """What must be unique in one input: kind, namespace, name."""
        return (self.kind, self.namespace, self.name)

    @property
    def subject(self) -> str:
        """`InferenceGraph pets`, for messages."""
        return f"{self.kind} {self.name}"

    @property
    def source(self) -> str:
        """`InferenceGraph default/pets`, for the annotation on what is made from it."""
        return f"{self.kind} {self.namespace}/{self.name}"
