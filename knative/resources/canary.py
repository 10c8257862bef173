"""canaryTrafficPercent to a Knative traffic split."""

from typing import TYPE_CHECKING, Any

from knative import keys
from knative.api.problems import Level
from knative.api.resource import Resource

if TYPE_CHECKING:
    from knative.compiler import Context


NEEDS_CLUSTER = "canary-needs-cluster"
"""Rule id of the warning that `turnout apply` makes pointless."""


def split(resource: Resource, component: str, name: str, context: "Context") -> dict[str, Any]:
    """`traffic` and `service_annotations` of a Part.

    The other side of the split is a revision that only the cluster knows. It is taken from the
    annotation
    turnout.dev/stable-revision; without it the share is left to `turnout apply`, which looks it up.
    """
    percent = resource.spec[component].get("canaryTrafficPercent")
    if percent is None or percent == 100:
        return {}
    stable = resource.annotations.get(keys.STABLE_REVISION)
    latest: dict[str, Any] = {"latestRevision": True, "percent": percent}
    if resource.annotations.get(keys.KSERVE_TAG_ROUTING) == "true":
        latest["tag"] = "latest"
    if stable:
        previous = {"revisionName": stable, "percent": 100 - percent, "tag": "prev"}
        return {"traffic": [latest, previous]}
    context.report(resource).add(
        Level.WARNING,
        ("spec", component, "canaryTrafficPercent"),
        f"only the cluster knows the revision that keeps {100 - percent} %: use `turnout apply`, or"
        f" name it in the annotation {keys.STABLE_REVISION}; plain kubectl sends all traffic to the"
        " new revision",
        rule=NEEDS_CLUSTER,
    )
    return {"service_annotations": {keys.CANARY_PERCENT: str(percent)}}
