"""Who may call a service from outside, and whether it runs at all."""

from typing import TYPE_CHECKING

from knative import keys
from knative.api.problems import suggest
from knative.api.resource import Resource

if TYPE_CHECKING:
    from knative.compiler import Context


def is_public(resource: Resource, context: "Context") -> bool:
    """Entries are public: what no other manifest of the input calls.

    The annotation turnout.dev/visibility decides over the rule, KServe's label over both.
    """
    if resource.labels.get(keys.KNATIVE_VISIBILITY) == keys.CLUSTER_LOCAL:
        return False
    given = resource.annotations.get(keys.VISIBILITY)
    if given in ("public", keys.CLUSTER_LOCAL):
        return given == "public"
    if given is not None:
        context.report(resource).error(
            ("metadata", "annotations", keys.VISIBILITY),
            f'must be "public" or "cluster-local", not "{given}"',
        )
    return not context.is_called(resource.namespace, resource.name)


def check_annotations(resource: Resource, context: "Context") -> None:
    """Annotations of ours that nobody reads, and KServe's deployment mode."""
    for key in resource.annotations:
        if key.startswith("turnout.dev/") and key not in keys.READ_FROM_SOURCES:
            context.report(resource).warning(
                ("metadata", "annotations", key),
                f"nothing reads this annotation{suggest(key, keys.READ_FROM_SOURCES)}",
            )
    if keys.GRPC in resource.annotations and resource.kind == "InferenceService":
        context.report(resource).warning(
            ("metadata", "annotations", keys.GRPC),
            "has no effect: it is for graphs; a model serves gRPC with protocolVersion: grpc-v2",
        )
    mode = resource.annotations.get(keys.KSERVE_DEPLOYMENT_MODE)
    if mode not in (None, "Knative", "Serverless"):
        context.report(resource).warning(
            ("metadata", "annotations", keys.KSERVE_DEPLOYMENT_MODE),
            f"{mode} has no effect: Turnout makes Knative Services, with their autoscaling",
        )


def is_stopped(resource: Resource, context: "Context") -> bool:
    """KServe's stop annotation: the service is left out, as KServe would delete it."""
    if resource.annotations.get(keys.KSERVE_STOP, "").lower() != "true":
        return False
    context.report(resource).warning(
        ("metadata", "annotations", keys.KSERVE_STOP), "is stopped: no Service is made for it"
    )
    return True
