"""Replicas, hpaSpec and kedaSpec of a SeldonDeployment as the scaling fields of a component.

`replicas` fixes the scale as it does for Seldon; who wants scale to zero leaves it out, or sets the
annotation autoscaling.knative.dev/min-scale, which wins (spec/seldon_tfserving 1.2, 7.3).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from knative.api import scaling
from knative.api.problems import Path

if TYPE_CHECKING:
    from knative.api.problems import Report

JSON = Any
Object = dict[str, JSON]


def of_node(
    spec: Mapping[str, JSON],
    predictor: Mapping[str, JSON],
    component: Mapping[str, JSON],
    annotations: Mapping[str, str],
) -> Object:
    """minReplicas, maxReplicas, scaleMetric and scaleTarget of a node's Service."""
    keda, hpa = component.get("kedaSpec"), component.get("hpaSpec")
    if keda:
        found = {
            "minReplicas": keda.get("minReplicaCount"),
            "maxReplicas": keda.get("maxReplicaCount"),
        }
    elif hpa:
        found = {"minReplicas": hpa.get("minReplicas"), "maxReplicas": hpa.get("maxReplicas")}
        found |= _utilization(hpa)
        if found.get("scaleMetric"):
            found["minReplicas"] = max(1, int(found["minReplicas"] or 1))
    else:
        found = _fixed(_first(component, predictor, spec))
    return _without_annotated(found, annotations)


def of_router(
    spec: Mapping[str, JSON],
    predictors: Sequence[Mapping[str, JSON]],
    annotations: Mapping[str, str],
) -> Object:
    """min-scale of a router, which serves all these predictors: the most any of them asks for."""
    wanted = [
        _first(predictor.get("svcOrchSpec") or {}, predictor, spec) for predictor in predictors
    ]
    least = max((number for number in wanted if number is not None), default=None)
    return _without_annotated({"minReplicas": least}, annotations)


def report_metrics(hpa: Mapping[str, JSON], path: Path, report: "Report") -> None:
    """Warn of metrics that have no counterpart."""
    for key in ("metrics", "metricsv2"):
        for index, metric in enumerate(hpa.get(key) or []):
            if _resource_target(metric) is None:
                report.warning(
                    (*path, key, index),
                    "has no effect: Knative's hpa class takes the utilization of cpu or memory;"
                    " scaling on requests needs no metric",
                )


def _first(*levels: Mapping[str, JSON]) -> int | None:
    """The replicas of the innermost level that says any."""
    return next((int(lv["replicas"]) for lv in levels if lv.get("replicas") is not None), None)


def _fixed(replicas: int | None) -> Object:
    if not replicas:
        return {"minReplicas": replicas}
    return {"minReplicas": replicas, "maxReplicas": replicas}


def _utilization(hpa: Mapping[str, JSON]) -> Object:
    for metric in [*(hpa.get("metrics") or []), *(hpa.get("metricsv2") or [])]:
        target = _resource_target(metric)
        if target is not None:
            return {"scaleMetric": target[0], "scaleTarget": target[1]}
    return {}


def _resource_target(metric: object) -> tuple[str, int] | None:
    """(cpu or memory, percent) of a Resource metric of autoscaling/v2beta1 or v2."""
    resource = metric.get("resource") if isinstance(metric, dict) else None
    if not isinstance(resource, dict) or resource.get("name") not in ("cpu", "memory"):
        return None
    target = resource.get("target")
    percent = resource.get("targetAverageUtilization")
    if percent is None and isinstance(target, dict):
        percent = target.get("averageUtilization")
    return (resource["name"], percent) if isinstance(percent, int) else None


def _without_annotated(found: Object, annotations: Mapping[str, str]) -> Object:
    """Fields would win over annotations; here the annotation is the deliberate one."""
    given = scaling.read(annotations)
    pairs = (("minReplicas", "min-scale"), ("maxReplicas", "max-scale"))
    for name, short in pairs:
        if short in given:
            found.pop(name, None)
    return {key: value for key, value in found.items() if value is not None}
