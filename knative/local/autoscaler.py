"""KPA: how many pods a revision should have. Pure: parameters, state, statistics, time.

Theory of operation (spec section 2.3). Two averages of the same load are kept, over the stable
window and over the short panic window. Normally the stable one decides. When the panic average
asks for `panic_threshold` times the pods that are ready, the revision *panics*: while panicking it
follows the larger of both and never shrinks, until the stable window has passed without a new
overload. Growth and shrinkage per decision are bounded by the two rates. Whether the activator
stays in the request path follows from the excess burst capacity.

Nothing here reads a clock, opens a socket or keeps hidden state: `decide` returns the next state.
"""

import math
from dataclasses import dataclass, replace

from .scaling import Scaling

DELAY_BUCKET_S = 2.0
"""Granularity of the scale-down delay: one decision interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What was measured; `stable` and `panic` are averages in the revision's metric."""

    stable: float
    panic: float
    ready: int
    """Ready pods."""
    reachable: bool = True
    """Some route or tag points at the revision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What one decision leaves for the next."""

    panic_since: float | None = None
    panic_peak: int = 0
    """The largest wish since panic began; a panicking revision never shrinks below it."""
    delayed: tuple[tuple[int, int], ...] = ()
    """(bucket, wish), wishes strictly falling: the recent maxima for scale-down-delay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    desired: int
    excess_burst_capacity: float
    panicking: bool


def initial_state(scaling: Scaling, ready: int, now: float) -> State:
    """State at start: a revision found with several ready pods starts in panic, so a restart of
    the engine does not shrink a busy service before its load has been measured."""
    return State(panic_since=now, panic_peak=ready) if ready > 1 else State()


def decide(scaling: Scaling, state: State, load: Load, now: float) -> tuple[Decision, State]:
    """One decision. Call it only when there is data (empty windows mean: no decision)."""
    pods = max(1, load.ready)
    ceiling = math.ceil(scaling.max_scale_up_rate * pods)
    floor = math.floor(pods / scaling.max_scale_down_rate) if load.reachable else 0

    stable_raw = math.ceil(load.stable / scaling.target)
    panic_raw = math.ceil(load.panic / scaling.target)
    stable = min(max(stable_raw, floor), ceiling)
    panic = min(max(panic_raw, floor), ceiling)
    if scaling.activation_scale > 1:
        stable = _raise_to(scaling.activation_scale, stable)
        panic = _raise_to(scaling.activation_scale, panic)

    state = _panic(scaling, state, panic_raw / pods >= scaling.panic_threshold, now)
    desired = stable
    if state.panic_since is not None:
        desired = max(stable, panic, state.panic_peak)
        state = replace(state, panic_peak=desired)
    if scaling.scale_down_delay_s > 0 and load.reachable:
        state = replace(state, delayed=_remember(scaling, state.delayed, desired, now))
        desired = max(wish for _, wish in state.delayed)
    decision = Decision(
        desired=desired,
        excess_burst_capacity=excess_burst_capacity(scaling, load.ready, load.panic),
        panicking=state.panic_since is not None,
    )
    return decision, state


def excess_burst_capacity(scaling: Scaling, ready: int, panic: float) -> float:
    """Spare capacity beyond the burst to absorb; below 0 the activator stays in the path."""
    if scaling.burst_capacity == 0:
        return 0.0
    if scaling.burst_capacity < 0:
        return -1.0
    return float(math.floor(ready * scaling.total - scaling.burst_capacity - panic))


def activator_count(scaling: Scaling, ready: int, activator_capacity: float = 100.0) -> int:
    """How many activators Knative would give the revision. Informational: this machine has one."""
    if scaling.burst_capacity == 0:
        return 2
    burst = max(0.0, scaling.burst_capacity)
    return max(2, math.ceil((ready * scaling.total + burst) / activator_capacity))


def _raise_to(scale: int, wish: int) -> int:
    return max(scale, wish) if wish > 0 else wish


def _panic(scaling: Scaling, state: State, overload: bool, now: float) -> State:
    if overload and state.panic_since is None:
        return replace(state, panic_since=now, panic_peak=0)
    if overload:
        return replace(state, panic_since=now)
    if state.panic_since is not None and state.panic_since + scaling.window_s < now:
        return replace(state, panic_since=None, panic_peak=0)
    return state


def _remember(
    scaling: Scaling, delayed: tuple[tuple[int, int], ...], wish: int, now: float
) -> tuple[tuple[int, int], ...]:
    bucket = math.floor(now / DELAY_BUCKET_S)
    length = math.ceil(scaling.scale_down_delay_s / DELAY_BUCKET_S)
    kept = [(at, old) for at, old in delayed if at > bucket - length and old > wish]
    return (*kept, (bucket, wish))
