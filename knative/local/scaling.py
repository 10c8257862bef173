"""Autoscaling parameters of one revision, from its annotations and the cluster's defaults. Pure.

Source: Knative autoscaler annotations and `config-autoscaler` (spec sections 1.12 and 2.1).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from . import quantities

PREFIX = "autoscaling.knative.dev/"

_OLD_SPELLINGS = {
    "minScale": "min-scale",
    "maxScale": "max-scale",
    "initialScale": "initial-scale",
    "scaleDownDelay": "scale-down-delay",
    "targetUtilizationPercentage": "target-utilization-percentage",
    "targetBurstCapacity": "target-burst-capacity",
    "panicWindowPercentage": "panic-window-percentage",
    "panicThresholdPercentage": "panic-threshold-percentage",
    "scaleToZeroPodRetentionPeriod": "scale-to-zero-pod-retention-period",
    "metricAggregationAlgorithm": "metric-aggregation-algorithm",
    "activationScale": "activation-scale",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """Cluster-wide settings: Knative's `config-autoscaler` and `config-deployment`, same
    defaults."""

    container_concurrency_target: float = 100.0
    rps_target: float = 200.0
    target_utilization: float = 0.7
    window_s: float = 60.0
    panic_window_percentage: float = 10.0
    panic_threshold: float = 2.0
    target_burst_capacity: float = 211.0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    scale_to_zero_grace_s: float = 30.0
    scale_to_zero_retention_s: float = 0.0
    enable_scale_to_zero: bool = True
    initial_scale: int = 1
    """Pods that prove a new revision; the local engine starts from 0
    (`allow-zero-initial-scale`)."""
    progress_deadline_s: float = 600.0
    override_window_s: float | None = None
    """`turnout up --window`: replaces every revision's window, for short local sessions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Everything the autoscaler needs to know about one revision; times in seconds."""

    metric: Literal["concurrency", "rps"] = "concurrency"
    total: float = 100.0
    """What one pod can take (concurrent requests or requests per second)."""
    target: float = 70.0
    """What one pod should get: total x utilisation, at least 0.01."""
    window_s: float = 60.0
    panic_window_s: float = 6.0
    panic_threshold: float = 2.0
    burst_capacity: float = 211.0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    min_scale: int = 0
    max_scale: int = 0
    """0 means unlimited."""
    initial_scale: int = 1
    activation_scale: int = 1
    scale_down_delay_s: float = 0.0
    retention_s: float = 0.0
    grace_s: float = 30.0
    enable_scale_to_zero: bool = True
    progress_deadline_s: float = 600.0
    algorithm: Literal["linear", "weighted-exponential"] = "linear"


def panic_window_s(window_s: float, percentage: float) -> float:
    """Stable window x percentage, rounded to whole seconds (half away from zero), at least 1 s."""
    return max(1.0, math.floor(window_s * percentage / 100.0 + 0.5))


def resolve_target(
    total: float, concurrency_limit: int, metric: str, target: float | None, utilization: float
) -> tuple[float, float]:
    """(target per pod, total per pod) as KPA computes them from the annotations."""
    if target is not None:
        total = target
        if metric == "concurrency" and concurrency_limit > 0:
            total = min(target, float(concurrency_limit))
    return max(0.01, total * utilization), total


def make_scaling(
    annotations: Mapping[str, str], concurrency_limit: int, defaults: Defaults | None = None
) -> Scaling:
    """Parameters of one revision. Raises ValueError naming the annotation that cannot be read."""
    base = defaults or Defaults()
    read = _Reader(annotations)
    metric: Literal["concurrency", "rps"] = "rps" if read.text("metric") == "rps" else "concurrency"
    concurrency_total = float(concurrency_limit) or base.container_concurrency_target
    target, total = resolve_target(
        base.rps_target if metric == "rps" else concurrency_total,
        concurrency_limit,
        metric,
        read.number("target"),
        read.number("target-utilization-percentage", base.target_utilization * 100.0) / 100.0,
    )
    window = base.override_window_s or read.seconds("window", base.window_s)
    exponential = read.text("metric-aggregation-algorithm") == "weighted-exponential"
    return Scaling(
        metric=metric,
        total=total,
        target=target,
        window_s=window,
        panic_window_s=panic_window_s(
            window, read.number("panic-window-percentage", base.panic_window_percentage)
        ),
        panic_threshold=read.number("panic-threshold-percentage", base.panic_threshold * 100) / 100,
        burst_capacity=read.number("target-burst-capacity", base.target_burst_capacity),
        max_scale_up_rate=base.max_scale_up_rate,
        max_scale_down_rate=base.max_scale_down_rate,
        min_scale=int(read.number("min-scale", 0)),
        max_scale=int(read.number("max-scale", 0)),
        initial_scale=int(read.number("initial-scale", base.initial_scale)),
        activation_scale=int(read.number("activation-scale", 1)),
        scale_down_delay_s=read.seconds("scale-down-delay", 0.0),
        retention_s=read.seconds(
            "scale-to-zero-pod-retention-period", base.scale_to_zero_retention_s
        ),
        grace_s=base.scale_to_zero_grace_s,
        enable_scale_to_zero=base.enable_scale_to_zero,
        progress_deadline_s=progress_deadline_s(annotations, base.progress_deadline_s),
        algorithm="weighted-exponential" if exponential else "linear",
    )


def progress_deadline_s(annotations: Mapping[str, str], default: float) -> float:
    """How long a pod may take to become ready (annotation
    `serving.knative.dev/progress-deadline`)."""
    text = annotations.get("serving.knative.dev/progress-deadline")
    return quantities.parse_duration(text) if text else default


def with_override(scaling: Scaling, count: int | None) -> Scaling:
    """`turnout scale NAME=N`: pin a revision to exactly N pods (None gives it back to its
    manifest)."""
    if count is None:
        return scaling
    return replace(scaling, min_scale=count, max_scale=max(count, 1), initial_scale=max(count, 1))


class _Reader:
    """Typed access to the autoscaling annotations, old camelCase spellings included."""

    def __init__(self, annotations: Mapping[str, str]) -> None:
        self._values: dict[str, str] = {}
        for key, value in annotations.items():
            if key.startswith(PREFIX):
                name = key.removeprefix(PREFIX)
                self._values.setdefault(_OLD_SPELLINGS.get(name, name), value)

    def text(self, name: str) -> str | None:
        return self._values.get(name)

    def number(self, name: str, default: float | None = None) -> float:
        text = self._values.get(name)
        if text is None:
            return default  # type: ignore[return-value]  # None only for `target`, see resolve_target
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"annotation {PREFIX}{name}: {text!r} is not a number") from None

    def seconds(self, name: str, default: float) -> float:
        text = self._values.get(name)
        if text is None:
            return default
        try:
            return quantities.parse_duration(text)
        except ValueError as error:
            raise ValueError(f"annotation {PREFIX}{name}: {error}") from None
