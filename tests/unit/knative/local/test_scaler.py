"""Applying decisions: Knative's scaler table (window 5 min, grace 60 s, progress deadline 121
s)."""

from dataclasses import replace

import pytest

from knative.local import scaler
from knative.local.scaler import Outcome, Phase, Situation, apply
from knative.local.scaling import Scaling

SCALING = Scaling(
    window_s=300, grace_s=60, progress_deadline_s=121, burst_capacity=211, initial_scale=1
)
IDLE = Situation(phase=Phase.INACTIVE, phase_age_s=60, current=1)


def at(phase: Phase, age: float, current: int, **changes: object) -> Situation:
    return replace(Situation(phase=phase, phase_age_s=age, current=current), **changes)  # type: ignore[arg-type]


UNTOUCHED = None
ROWS = [
    ("active, window not over", SCALING, at(Phase.ACTIVE, 299, 1), 0, UNTOUCHED),
    ("active, window not over, from ten", SCALING, at(Phase.ACTIVE, 299, 10), 0, 1),
    ("active, custom window", replace(SCALING, window_s=45), at(Phase.ACTIVE, 44, 10), 0, 1),
    ("inactive, grace not over", SCALING, at(Phase.INACTIVE, 59, 1), 0, UNTOUCHED),
    ("inactive, grace over", SCALING, at(Phase.INACTIVE, 60, 1), 0, 0),
    ("inactive, long over", SCALING, at(Phase.INACTIVE, 61, 1), 0, 0),
    ("retention outlasts grace", replace(SCALING, retention_s=120), IDLE, 0, UNTOUCHED),
    ("retention over", replace(SCALING, retention_s=120), at(Phase.INACTIVE, 120, 1), 0, 0),
    ("retention zero", replace(SCALING, retention_s=0), IDLE, 0, 0),
    (
        "unreachable ignores retention",
        replace(SCALING, retention_s=120),
        at(Phase.INACTIVE, 60, 1, reachable=False),
        0,
        0,
    ),
    ("proxied for the grace period", SCALING, at(Phase.INACTIVE, 59, 1, proxy_age_s=60), 0, 0),
    ("proxied too shortly", SCALING, at(Phase.INACTIVE, 59, 1, proxy_age_s=59), 0, UNTOUCHED),
    (
        "proxied, retention over",
        replace(SCALING, retention_s=42),
        at(Phase.INACTIVE, 59, 1, proxy_age_s=60),
        0,
        0,
    ),
    ("probe fails", SCALING, at(Phase.INACTIVE, 61, 1, activator_answers=False), 0, UNTOUCHED),
    (
        "no probe with unlimited burst capacity",
        replace(SCALING, burst_capacity=-1),
        at(Phase.INACTIVE, 61, 1, activator_answers=False),
        0,
        0,
    ),
    ("activating, half the deadline", SCALING, at(Phase.ACTIVATING, 60, 1), 0, UNTOUCHED),
    ("activating, given up", SCALING, at(Phase.ACTIVATING, 152, 1), 0, 0),
    (
        "activating, deadline of its own",
        replace(SCALING, progress_deadline_s=5),
        at(Phase.ACTIVATING, 36, 1),
        0,
        0,
    ),
    ("scale to zero is off", replace(SCALING, enable_scale_to_zero=False), IDLE, 0, UNTOUCHED),
    ("minimum", replace(SCALING, min_scale=2), at(Phase.ACTIVE, 1, 10), 1, 2),
    (
        "no minimum when unreachable",
        replace(SCALING, min_scale=2),
        at(Phase.INACTIVE, 61, 10, reachable=False),
        0,
        0,
    ),
    ("maximum", replace(SCALING, max_scale=8), at(Phase.ACTIVE, 1, 5), 10, 8),
    ("up from zero", SCALING, at(Phase.INACTIVE, 99, 0), 1, 1),
    ("up to ten", SCALING, at(Phase.INACTIVE, 99, 0), 10, 10),
    ("no metrics", SCALING, at(Phase.ACTIVE, 9, 3), scaler.UNKNOWN, UNTOUCHED),
    (
        "initial scale before it was reached",
        replace(SCALING, initial_scale=2),
        at(Phase.ACTIVATING, 1, 1, initial_reached=False),
        1,
        2,
    ),
    ("same scale", replace(SCALING, initial_scale=5), at(Phase.ACTIVE, 1, 5), 5, UNTOUCHED),
]


@pytest.mark.parametrize(
    ("scaling", "situation", "desired", "replicas"),
    [row[1:] for row in ROWS],
    ids=[row[0] for row in ROWS],
)
def test_replicas(
    scaling: Scaling, situation: Situation, desired: int, replicas: int | None
) -> None:
    assert apply(scaling, situation, desired).replicas == replicas


def test_active_for_a_whole_window_turns_inactive_first() -> None:
    outcome = apply(SCALING, at(Phase.ACTIVE, 300, 1), 0)
    assert outcome == Outcome(replicas=None, mark_inactive=True, recheck_s=scaler.RECHECK_S)


@pytest.mark.parametrize(
    ("want", "spare", "in_path"), [(0, 100, True), (1, -1, True), (1, 0, False), (3, 50, False)]
)
def test_activator_in_path(want: int, spare: float, in_path: bool) -> None:
    assert scaler.activator_in_path(want, spare) is in_path


def test_activation_threshold() -> None:
    scaling = Scaling(min_scale=2, initial_scale=5)
    assert scaler.activation_threshold(scaling, initial_reached=False) == 5
    assert scaler.activation_threshold(scaling, initial_reached=True) == 2
    assert scaler.activation_threshold(Scaling(), initial_reached=True) == 1
