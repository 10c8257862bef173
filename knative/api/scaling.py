"""Knative's autoscaling annotations: keys, ranges, and rules between them (spec/knative 1.12).

All values are text in a manifest. Old camelCase spellings (`minScale`) are still accepted by
Knative.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from knative import keys
from knative.api.problems import Path, Report, suggest


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One autoscaling annotation: its parser (raises ValueError) and what it expects, in words."""

    parse: Callable[[str], object]
    expects: str


def _whole(low: int, high: int | None = None) -> Annotation:
    def parse(text: str) -> int:
        number = int(text)
        if number < low or (high is not None and number > high):
            raise ValueError
        return number

    limits = f"{low} or more" if high is None else f"from {low} to {high}"
    return Annotation(parse=parse, expects=f"a whole number, {limits}")


def _number(low: float, high: float | None = None) -> Annotation:
    def parse(text: str) -> float:
        number = float(text)
        if not number >= low or (high is not None and number > high) or number == float("inf"):
            raise ValueError
        return number

    limits = f"{low:g} or more" if high is None else f"from {low:g} to {high:g}"
    return Annotation(parse=parse, expects=f"a number, {limits}")


_GO_DURATION = re.compile(r"(?:\d+(?:\.\d*)?(?:h|m|s|ms|us|ns))+\Z")
_GO_PART = re.compile(r"(\d+(?:\.\d*)?)(ms|us|ns|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def duration_s(text: str) -> float:
    """A Go duration such as `90s` or `1m30s`, in seconds. Raises ValueError."""
    if text == "0":
        return 0.0
    if not _GO_DURATION.match(text):
        raise ValueError
    return sum(float(number) * _SECONDS[unit] for number, unit in _GO_PART.findall(text))


def _duration(low_s: float, high_s: float, *, whole: bool = True) -> Annotation:
    def parse(text: str) -> float:
        seconds = duration_s(text)
        if not low_s <= seconds <= high_s or (whole and seconds != int(seconds)):
            raise ValueError
        return seconds

    return Annotation(
        parse=parse, expects=f"whole seconds from {low_s:g}s to {high_s:g}s, such as 60s"
    )


def _word(*words: str) -> Annotation:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return Annotation(parse=parse, expects=f"one of {', '.join(words)}")


def _burst(text: str) -> float:
    number = float(text)
    if number != -1 and not 0 <= number < float("inf"):
        raise ValueError
    return number


def _class(text: str) -> str:
    """Classes of other domains are other people's autoscalers."""
    own = text.endswith("autoscaling.knative.dev")
    if own and text not in (keys.CLASS_KPA, keys.CLASS_HPA):
        raise ValueError
    return text


ANNOTATIONS: dict[str, Annotation] = {
    "class": Annotation(
        parse=_class, expects=f"{keys.CLASS_KPA}, {keys.CLASS_HPA} or a class of another domain"
    ),
    "metric": Annotation(parse=str, expects="a metric name"),
    "target": _number(0.01),
    "target-utilization-percentage": _number(1, 100),
    "min-scale": _whole(0),
    "max-scale": _whole(0),
    "initial-scale": _whole(0),
    "activation-scale": _whole(2),
    "scale-down-delay": _duration(0, 3600),
    "window": _duration(6, 3600),
    "panic-window-percentage": _number(1, 100),
    "panic-threshold-percentage": _number(110, 1000),
    "target-burst-capacity": Annotation(parse=_burst, expects="-1, 0 or a positive number"),
    "scale-to-zero-pod-retention-period": _duration(0, 3600, whole=False),
    "metric-aggregation-algorithm": _word("linear", "weighted-exponential", "weightedExponential"),
}
"""Key without prefix -> rule."""

OLD_SPELLINGS = {
    "minScale": "min-scale",
    "maxScale": "max-scale",
    "initialScale": "initial-scale",
    "activationScale": "activation-scale",
    "targetBurstCapacity": "target-burst-capacity",
    "targetUtilizationPercentage": "target-utilization-percentage",
    "scaleDownDelay": "scale-down-delay",
    "panicWindowPercentage": "panic-window-percentage",
    "panicThresholdPercentage": "panic-threshold-percentage",
    "scaleToZeroPodRetentionPeriod": "scale-to-zero-pod-retention-period",
}
KPA_METRICS = ("concurrency", "rps")


def read(annotations: Mapping[str, str]) -> dict[str, str]:
    """The autoscaling annotations by current spelling, without the prefix."""
    found: dict[str, str] = {}
    for key, value in annotations.items():
        if key.startswith(keys.AUTOSCALING):
            short = key.removeprefix(keys.AUTOSCALING)
            found[OLD_SPELLINGS.get(short, short)] = value
    return found


def check(annotations: Mapping[str, str], path: Path, report: Report) -> None:
    """Values and combinations that Knative refuses. Unknown keys are only a warning: it ignores
    them."""
    values: dict[str, object] = {}
    for key, value in annotations.items():
        if not key.startswith(keys.AUTOSCALING):
            continue
        short = key.removeprefix(keys.AUTOSCALING)
        short = OLD_SPELLINGS.get(short, short)
        rule = ANNOTATIONS.get(short)
        if rule is None:
            report.warning(
                (*path, key), f"Knative knows no such annotation{suggest(short, ANNOTATIONS)}"
            )
            continue
        try:
            values[short] = rule.parse(value)
        except ValueError:
            report.error((*path, key), f'must be {rule.expects}, not "{value}"')
    _check_together(values, path, report)


def _check_together(values: Mapping[str, object], path: Path, report: Report) -> None:
    low, high = values.get("min-scale", 0), values.get("max-scale", 0)
    if isinstance(low, int) and isinstance(high, int) and 0 < high < low:
        report.error(path, f"max-scale {high} is below min-scale {low}")
    activation = values.get("activation-scale")
    if isinstance(activation, int):
        if isinstance(high, int) and 0 < high < activation:
            report.error(path, f"activation-scale {activation} is above max-scale {high}")
        if isinstance(low, int) and low > activation:
            report.error(path, f"activation-scale {activation} is below min-scale {low}")
    class_ = values.get("class", keys.CLASS_KPA)
    metric = values.get("metric")
    if class_ == keys.CLASS_KPA and metric is not None and metric not in KPA_METRICS:
        able = " or ".join(KPA_METRICS)
        report.error(path, f"class kpa scales on {able}; {metric} needs class {keys.CLASS_HPA}")
    if class_ == keys.CLASS_HPA and metric in KPA_METRICS:
        report.warning(
            path, f"class hpa knows no {metric}; it will look for a custom metric of that name"
        )
    if class_ == keys.CLASS_HPA and not low:
        report.warning(path, "class hpa cannot scale to zero; min-scale 0 keeps one pod")
