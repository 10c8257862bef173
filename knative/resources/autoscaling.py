"""Replica and scaling fields to Knative's autoscaling annotations (all values are text)."""

from collections.abc import Mapping
from typing import Any

from knative import keys
from knative.api import scaling

JSON = Any


def annotations(component: Mapping[str, JSON], given: Mapping[str, str]) -> dict[str, str]:
    """Annotations for one revision template. `given` are the user's own, whose class is respected.

    min-scale is always written: scale to zero is our default where KServe's is one replica. Fields
    win
    over the annotations of the same meaning; KServe drops those annotations, here they still count
    where the field is absent.
    """
    own = scaling.read(given)
    low, high = component.get("minReplicas"), component.get("maxReplicas")
    result = {keys.MIN_SCALE: str(low) if low is not None else own.get("min-scale", "0")}
    if high or (high is None and "max-scale" in own):
        result[keys.MAX_SCALE] = str(high) if high else own["max-scale"]
    if component.get("scaleTarget"):
        result[keys.TARGET] = str(component["scaleTarget"])
    metric = component.get("scaleMetric")
    if metric:
        result[keys.METRIC] = metric
        if metric in ("cpu", "memory") and keys.CLASS not in given:
            result[keys.CLASS] = keys.CLASS_HPA
    return result
