"""Replica and scaling fields to Knative's autoscaling annotations (all values are text)."""

from collections.abc import Mapping
from typing import Any

from knative import keys

JSON = Any


def annotations(component: Mapping[str, JSON], given: Mapping[str, str]) -> dict[str, str]:
    """Annotations for one revision template. `given` are the user's own, whose class is respected.

    min-scale is always written: scale to zero is our default where KServe's is one replica.
    """
    result = {keys.MIN_SCALE: str(component.get("minReplicas") or 0)}
    if component.get("maxReplicas"):
        result[keys.MAX_SCALE] = str(component["maxReplicas"])
    if component.get("scaleTarget"):
        result[keys.TARGET] = str(component["scaleTarget"])
    metric = component.get("scaleMetric")
    if metric:
        result[keys.METRIC] = metric
        if metric in ("cpu", "memory") and keys.CLASS not in given:
            result[keys.CLASS] = keys.CLASS_HPA
    return result
