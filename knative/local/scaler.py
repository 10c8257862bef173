"""Applying a decision: bounds, the way to zero, and whether the activator is in the path. Pure.

Source: spec sections 2.4 and 2.5. The autoscaler says what the load wants; this module says what
the revision gets. Zero is reached through three states:

    ACTIVATING  pods were asked for and have not all arrived     -> zero only after the progress
    deadline
    ACTIVE      enough pods are ready                            -> zero wish must last a stable
    window
    INACTIVE    no traffic; the activator takes the requests     -> last pod goes after
    grace/retention

`apply` returns how many pods to run now, or None for "leave it as it is", and after how many
seconds to ask again if nothing else happens.
"""

from dataclasses import dataclass
from enum import StrEnum

from .scaling import Scaling

ACTIVATION_SLACK_S = 30.0
"""Added to the progress deadline before an activation that got nowhere is given up."""

RECHECK_S = 3.0


class Phase(StrEnum):
    ACTIVATING = "Activating"
    ACTIVE = "Active"
    INACTIVE = "Inactive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the scaler needs to know about the revision; ages in seconds."""

    phase: Phase
    phase_age_s: float
    """Since the phase last changed."""
    current: int
    """Pods asked for at present."""
    reachable: bool = True
    initial_reached: bool = True
    """The revision has once had initial-scale pods ready."""
    proxy_age_s: float | None = None
    """How long the activator has been in the path; None: it is not."""
    activator_answers: bool = True
    """A probe through the gateway is answered by the activator. Always so in this engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    replicas: int | None
    """Pods to run; None: change nothing."""
    mark_inactive: bool = False
    recheck_s: float | None = None


UNKNOWN = -1
"""The autoscaler has no opinion (no data yet)."""


def apply(scaling: Scaling, situation: Situation, desired: int) -> Outcome:
    """Replicas for a desired scale, after bounds and the rules for going to zero."""
    if desired < 0 and situation.phase is not Phase.ACTIVATING:
        return Outcome(replicas=None)
    wanted = bounded(scaling, situation, desired)
    if wanted > 0:
        return Outcome(replicas=None if wanted == situation.current else wanted)
    if desired < 0:
        return Outcome(replicas=None)
    return _to_zero(scaling, situation)


def bounded(scaling: Scaling, situation: Situation, desired: int) -> int:
    """Desired within [min-scale, max-scale]; initial-scale is a floor until it was reached once.

    Unreachable revisions have no floor.
    """
    floor = 0
    if situation.reachable:
        floor = scaling.min_scale
        if not situation.initial_reached:
            floor = max(floor, scaling.initial_scale)
    wanted = max(desired, floor)
    return min(wanted, scaling.max_scale) if scaling.max_scale > 0 else wanted


def _to_zero(scaling: Scaling, situation: Situation) -> Outcome:
    hold = Outcome(replicas=None if situation.current == 1 else 1)
    if not scaling.enable_scale_to_zero:
        return hold
    match situation.phase:
        case Phase.ACTIVATING:
            patience = scaling.progress_deadline_s + ACTIVATION_SLACK_S
            if situation.phase_age_s > patience:
                return Outcome(replicas=0 if situation.current else None, mark_inactive=True)
            return Outcome(replicas=None, recheck_s=patience - situation.phase_age_s)
        case Phase.ACTIVE:
            remaining = scaling.window_s - situation.phase_age_s
            if remaining > 0:
                return Outcome(replicas=hold.replicas, recheck_s=remaining)
            return Outcome(replicas=None, mark_inactive=True, recheck_s=RECHECK_S)
        case Phase.INACTIVE:
            return _inactive(scaling, situation)


def _inactive(scaling: Scaling, situation: Situation) -> Outcome:
    if scaling.burst_capacity >= 0 and not situation.activator_answers:
        return Outcome(replicas=None, recheck_s=RECHECK_S)
    retention = scaling.retention_s if situation.reachable else 0.0
    grace = scaling.grace_s
    if situation.proxy_age_s is not None and situation.proxy_age_s >= grace:
        grace = 0.0  # the path has been the activator's for so long that nobody goes past it
    remaining = max(grace, retention) - situation.phase_age_s
    if remaining > 0:
        return Outcome(replicas=None, recheck_s=remaining)
    return Outcome(replicas=0 if situation.current else None)


def activation_threshold(scaling: Scaling, initial_reached: bool) -> int:
    """Ready pods at which a revision counts as active."""
    if initial_reached:
        return max(scaling.min_scale, 1)
    return max(scaling.min_scale, scaling.initial_scale)


def activator_in_path(wanted: int, excess_burst_capacity: float) -> bool:
    """Requests go straight to the pods only with pods wanted and burst capacity to spare."""
    return not (wanted > 0 and excess_burst_capacity >= 0)
