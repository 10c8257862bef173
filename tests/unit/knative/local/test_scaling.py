"""Autoscaling parameters from annotations: Knative's target and window vectors."""

import pytest

from knative.local.scaling import (
    Defaults,
    make_scaling,
    panic_window_s,
    resolve_target,
    with_override,
)


@pytest.mark.parametrize(
    ("concurrency", "annotations", "default_utilization", "expected"),
    [
        (0, {}, 0.7, (70, 100)),
        (12, {"target-utilization-percentage": "75"}, 1.0, (9, 12)),
        (10, {}, 0.8, (8, 10)),
        (1, {}, 0.8, (0.8, 1)),
        (0, {"target": "1"}, 0.001, (0.01, 1)),
        (0, {"target": "10"}, 0.75, (7.5, 10)),
        (10, {"target": "1"}, 1.0, (1, 1)),
        (0, {"target": "500"}, 1.0, (500, 500)),
        (1, {"target": "10"}, 1.0, (1, 1)),
        (0, {"metric": "rps"}, 0.7, (140, 200)),
        (0, {"metric": "rps", "target": "1"}, 0.7, (0.7, 1)),
        (0, {"metric": "rps", "target-utilization-percentage": "75"}, 0.7, (150, 200)),
        (0, {"metric": "rps", "target": "300"}, 0.7, (210, 300)),
    ],
)
def test_targets(
    concurrency: int,
    annotations: dict[str, str],
    default_utilization: float,
    expected: tuple[float, float],
) -> None:
    full = {f"autoscaling.knative.dev/{key}": value for key, value in annotations.items()}
    made = make_scaling(full, concurrency, Defaults(target_utilization=default_utilization))
    assert (made.target, made.total) == pytest.approx(expected)


def test_rps_default_of_a_cluster() -> None:
    assert resolve_target(2, 0, "rps", None, 0.3) == pytest.approx((0.6, 2))


@pytest.mark.parametrize(
    ("window", "percentage", "expected"), [(60, 51, 31), (10, 10, 1), (600, 10, 60), (6, 1, 1)]
)
def test_panic_window(window: float, percentage: float, expected: float) -> None:
    assert panic_window_s(window, percentage) == expected


def test_old_spellings_are_understood() -> None:
    made = make_scaling(
        {
            "autoscaling.knative.dev/minScale": "2",
            "autoscaling.knative.dev/scaleDownDelay": "1m30s",
            "autoscaling.knative.dev/metricAggregationAlgorithm": "weighted-exponential",
        },
        0,
    )
    assert (made.min_scale, made.scale_down_delay_s) == (2, 90)
    assert made.algorithm == "weighted-exponential"


def test_window_override_wins_over_annotation() -> None:
    made = make_scaling(
        {"autoscaling.knative.dev/window": "2m"}, 0, Defaults(override_window_s=6.0)
    )
    assert (made.window_s, made.panic_window_s) == (6, 1)


def test_unreadable_annotation_is_named() -> None:
    with pytest.raises(ValueError, match=r"autoscaling.knative.dev/min-scale: 'two'"):
        make_scaling({"autoscaling.knative.dev/min-scale": "two"}, 0)
    with pytest.raises(ValueError, match=r"autoscaling.knative.dev/window: '60' is not a duration"):
        make_scaling({"autoscaling.knative.dev/window": "60"}, 0)


def test_progress_deadline_annotation() -> None:
    assert make_scaling({"serving.knative.dev/progress-deadline": "5s"}, 0).progress_deadline_s == 5


def test_pinning_fixes_the_scale() -> None:
    pinned = with_override(make_scaling({}, 0), 3)
    assert (pinned.min_scale, pinned.max_scale) == (3, 3)
    assert with_override(pinned, None) is pinned
