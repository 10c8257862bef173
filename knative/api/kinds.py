"""The kinds we read. One line per kind; its modules are imported when a manifest of that kind
turns up.

A kind has two modules with fixed names inside:

    api module        FIELDS: dict[str, schema.Field]   top-level fields beside apiVersion, kind,
    metadata
                      check(resource, report) -> None   rules between fields; runs when the tables
                      found no error
    resources module  make(resource, context) -> list[dict]   the Knative objects, pure; see
    knative.compiler.Context

To add a kind, write the two modules and add a line here.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from knative.api.problems import Report
from knative.api.resource import Resource
from knative.api.schema import Field


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of manifest: its API versions and the modules that know it."""

    name: str
    versions: tuple[str, ...]
    api: str
    resources: str

    @property
    def fields(self) -> Mapping[str, Field]:
        """Top-level fields beside apiVersion, kind and metadata."""
        fields: Mapping[str, Field] = importlib.import_module(self.api).FIELDS
        return fields

    @property
    def check(self) -> Callable[[Resource, Report], None]:
        """The kind's rules between fields."""
        check: Callable[[Resource, Report], None] = importlib.import_module(self.api).check
        return check

    @property
    def make(self) -> Callable[[Resource, Any], list[dict[str, Any]]]:
        """The kind's maker."""
        make: Callable[[Resource, Any], list[dict[str, Any]]] = importlib.import_module(
            self.resources
        ).make
        return make


_KSERVE = "serving.kserve.io/"
_UNCHANGED = "knative.resources.passthrough"

KINDS: tuple[Kind, ...] = (
    Kind(
        "InferenceService",
        (f"{_KSERVE}v1beta1", f"{_KSERVE}v1alpha1"),
        "knative.api.inference_service",
        "knative.resources.inference_service",
    ),
    Kind(
        "InferenceGraph",
        (f"{_KSERVE}v1alpha1",),
        "knative.api.inference_graph",
        "knative.resources.router",
    ),
    Kind(
        "ServingRuntime",
        (f"{_KSERVE}v1alpha1",),
        "knative.api.serving_runtime",
        "knative.api.serving_runtime",
    ),
    Kind(
        "ClusterServingRuntime",
        (f"{_KSERVE}v1alpha1",),
        "knative.api.serving_runtime",
        "knative.api.serving_runtime",
    ),
    Kind(
        "SeldonDeployment",
        tuple(f"machinelearning.seldon.io/{v}" for v in ("v1", "v1alpha2", "v1alpha3")),
        "knative.api.seldon",
        "knative.resources.seldon",
    ),
    Kind("Service", ("serving.knative.dev/v1",), "knative.api.knative_service", _UNCHANGED),
    Kind("Broker", ("eventing.knative.dev/v1",), "knative.api.eventing_broker", _UNCHANGED),
    Kind("Trigger", ("eventing.knative.dev/v1",), "knative.api.eventing_trigger", _UNCHANGED),
    Kind(
        "InferenceTrigger",
        ("turnout.dev/v1alpha1",),
        "knative.api.trigger",
        "knative.resources.trigger",
    ),
    Kind("SinkBinding", ("sources.knative.dev/v1",), "knative.api.trigger_sources", _UNCHANGED),
    Kind(
        "IntegrationSource",
        ("sources.knative.dev/v1alpha1",),
        "knative.api.trigger_sources",
        _UNCHANGED,
    ),
    Kind("PingSource", ("sources.knative.dev/v1",), "knative.api.trigger_sources", _UNCHANGED),
    Kind("Secret", ("v1",), "knative.api.plain_objects", _UNCHANGED),
    Kind("ConfigMap", ("v1",), "knative.api.plain_objects", _UNCHANGED),
    Kind("ServiceAccount", ("v1",), "knative.api.plain_objects", _UNCHANGED),
)


def find(api_version: str, kind: str) -> Kind | None:
    """The kind for an apiVersion and kind, or None."""
    for known in KINDS:
        if known.name == kind and api_version in known.versions:
            return known
    return None


def require(resource: Resource) -> Kind:
    """The kind of an identified resource."""
    kind = find(resource.api_version, resource.kind)
    if kind is None:
        raise AssertionError(f"{resource.subject} was identified without a kind")
    return kind
