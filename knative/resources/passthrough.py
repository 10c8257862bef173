"""Objects that are already what the cluster takes: checked elsewhere, passed on unchanged."""

from typing import TYPE_CHECKING, Any

from knative import emit
from knative.api.resource import Resource

if TYPE_CHECKING:
    from knative.compiler import Context

_SERVER_SIDE = (
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
)


def make(resource: Resource, context: "Context") -> list[dict[str, Any]]:
    """The object itself, without what only the API server writes, and with its namespace made
    explicit."""
    data = {key: value for key, value in resource.data.items() if key != "status"}
    metadata = {
        k: v for k, v in data["metadata"].items() if k not in _SERVER_SIDE and v is not None
    }
    data["metadata"] = {**metadata, "namespace": resource.namespace}
    return [emit.ordered(data)]
