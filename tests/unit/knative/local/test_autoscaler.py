"""KPA decisions against the numbers of Knative's own autoscaler tests (virtual time)."""

import pytest

from knative.local import autoscaler
from knative.local.autoscaler import Load, State, decide
from knative.local.scaling import Scaling


def make(target: float, burst: float, **changes: object) -> Scaling:
    """Parameters of Knative's test suite: rates 10, threshold 2, window 60 s, utilisation 0.75."""
    base: dict[str, object] = {
        "target": target,
        "total": target / 0.75,
        "burst_capacity": burst,
        "max_scale_up_rate": 10.0,
        "max_scale_down_rate": 10.0,
        "panic_threshold": 2.0,
        "window_s": 60.0,
    }
    return Scaling(**{**base, **changes})  # type: ignore[arg-type]


def run(scaling: Scaling, *steps: tuple[float, int, float, float]) -> list[int]:
    """Desired pods after each (time, ready, stable, panic)."""
    state, results = State(), []
    for now, ready, stable, panic in steps:
        decision, state = decide(scaling, state, Load(stable=stable, panic=panic, ready=ready), now)
        results.append(decision.desired)
    return results


SINGLE = [
    ("no change", make(10, 100), 1, 50, 50, 5),
    ("no change when scaled already", make(10, 100), 5, 50, 50, 5),
    ("zero burst capacity", make(10, 0), 1, 50, 49, 5),
    ("unlimited burst capacity", make(181, -1), 1, 21, 26, 1),
    ("panic takes precedence", make(10, 84), 1, 50, 100, 10),
    ("small up-rate", make(1, 1982, max_scale_up_rate=1.1), 2, 3, 3.1, 3),
    ("small down-rate", make(10, 1982, max_scale_down_rate=1.1), 100, 1, 1, 90),
    ("up limit from one", make(10, 61), 1, 1000, 1000, 10),
    ("up limit from ten", make(10, 61), 10, 1000, 1000, 100),
    ("no pods count as one", make(10, 81), 0, 1000, 888, 10),
    ("down limit from a hundred", make(10, 61), 100, 1, 1, 10),
    ("down limit from ten", make(10, 61), 10, 1, 1, 1),
    ("activation scale, no load", make(10, 75, activation_scale=2), 1, 0, 0, 0),
    ("activation scale, some load", make(10, 75, activation_scale=2), 1, 1, 0, 2),
]


@pytest.mark.parametrize(
    ("scaling", "ready", "stable", "panic", "desired"),
    [row[1:] for row in SINGLE],
    ids=[row[0] for row in SINGLE],
)
def test_single_decision(
    scaling: Scaling, ready: int, stable: float, panic: float, desired: int
) -> None:
    assert run(scaling, (0, ready, stable, panic)) == [desired]


def test_unreachable_revision_has_no_down_limit() -> None:
    load = Load(stable=1, panic=1, ready=100, reachable=False)
    decision, _ = decide(make(10, 1982, max_scale_down_rate=1.1), State(), load, 0)
    assert decision.desired == 1


@pytest.mark.parametrize(
    ("scaling", "steps", "desired"),
    [
        pytest.param(make(10, 101), [(0, 1, 50, 10), (2, 1, 100, 10)], [5, 10], id="increase"),
        pytest.param(make(10, 98), [(0, 8, 100, 100), (2, 8, 50, 50)], [10, 5], id="decrease"),
        pytest.param(make(10, 75), [(0, 1, 1, 0), (2, 1, 0, 0)], [1, 0], id="to zero"),
        pytest.param(
            make(10, 93),
            [(0, 1, 100, 100), (30, 10, 1, 1), (61, 10, 1, 1)],
            [10, 10, 1],
            id="panic, no shrinking, then calm",
        ),
        pytest.param(
            make(10, 93),
            [(0, 10, 1000, 1000), (30, 100, 1, 1), (61, 100, 1, 1)],
            [100, 100, 10],
            id="the down limit holds after panic",
        ),
        pytest.param(
            make(1, 98),
            [(0, 10, 11, 25), (30, 40, 30, 41), (62, 55, 50, 56)],
            [25, 41, 50],
            id="slow growth does not renew the panic clock",
        ),
        pytest.param(
            make(1, 98), [(0, 10, 11, 25), (30, 40, 30, 80)], [25, 80], id="overload renews it"
        ),
    ],
)
def test_sequences(
    scaling: Scaling, steps: list[tuple[float, int, float, float]], desired: list[int]
) -> None:
    assert run(scaling, *steps) == desired


def test_panic_clock_moves_only_with_overload() -> None:
    scaling = make(1, 98)
    _, state = decide(scaling, State(), Load(stable=11, panic=25, ready=10), 0)
    assert state.panic_since == 0
    _, calm = decide(scaling, state, Load(stable=30, panic=41, ready=40), 30)
    assert calm.panic_since == 0
    _, renewed = decide(scaling, state, Load(stable=30, panic=80, ready=40), 30)
    assert renewed.panic_since == 30
    _, over = decide(scaling, calm, Load(stable=50, panic=56, ready=55), 62)
    assert over.panic_since is None


def test_exponential_growth_follows_ready_pods() -> None:
    scaling, ready, state, seen = make(1, 101, max_scale_up_rate=10), 1, State(), []
    for power in range(1, 5):
        load = Load(stable=6**power, panic=6**power, ready=ready)
        decision, state = decide(scaling, state, load, power)
        seen.append(decision.desired)
        ready = decision.desired
    assert seen == [6, 36, 216, 1296]


@pytest.mark.parametrize(("stable", "panic", "desired"), [(50, 30, 50), (20, 30, 30)])
def test_panicking_takes_the_larger_average(stable: float, panic: float, desired: int) -> None:
    state = State(panic_since=-5, panic_peak=5)
    decision, _ = decide(make(1, 100), state, Load(stable=stable, panic=panic, ready=5), 0)
    assert decision.desired == desired


DELAYED = make(10, 0, panic_threshold=100.0, scale_down_delay_s=300.0)


def test_scale_down_delay_keeps_the_maximum() -> None:
    steps = [(2, 1, 40, 40), (300, 1, 0, 0), (302, 1, 0, 0)]
    assert run(DELAYED, *steps) == [4, 4, 0]


def test_scale_down_delay_forgets_step_by_step() -> None:
    steps = [(540, 40), (600, 30), (660, 0), (840, 0), (900, 0)]
    assert run(DELAYED, *[(at, 1, load, load) for at, load in steps]) == [4, 4, 4, 3, 0]


def test_scale_down_delay_does_not_hold_unreachable_revisions() -> None:
    _, state = decide(DELAYED, State(), Load(stable=40, panic=40, ready=1), 2)
    load = Load(stable=0, panic=0, ready=1, reachable=False)
    assert decide(DELAYED, state, load, 2)[0].desired == 0


def test_without_delay_shrinking_is_immediate() -> None:
    scaling = make(10, 0, panic_threshold=100.0)
    assert run(scaling, (0, 1, 40, 40), (0.5, 1, 20, 20)) == [4, 2]


@pytest.mark.parametrize(
    ("target", "burst", "ready", "panic"),
    [(10, 100, 1, 50), (1, 98, 10, 25), (1, 98, 40, 41), (10, 1982, 100, 1), (10, 81, 0, 888)],
)
def test_excess_burst_capacity(target: float, burst: float, ready: int, panic: float) -> None:
    found = autoscaler.excess_burst_capacity(make(target, burst), ready, panic)
    assert abs(found - (target / 0.75 * ready - burst - panic)) <= 1


def test_burst_capacity_zero_and_unlimited() -> None:
    assert autoscaler.excess_burst_capacity(make(10, 0), 5, 1000) == 0
    assert autoscaler.excess_burst_capacity(make(10, -1), 5, 0) == -1


@pytest.mark.parametrize(
    ("burst", "ready", "count"), [(200, 0, 2), (200, 1, 3), (200, 15, 17), (-1, 5, 5), (0, 100, 2)]
)
def test_activator_count(burst: float, ready: int, count: int) -> None:
    assert autoscaler.activator_count(Scaling(total=100, burst_capacity=burst), ready) == count


def test_a_busy_revision_starts_in_panic() -> None:
    state = autoscaler.initial_state(make(10, 0), 10, now=0)
    decision, _ = decide(make(10, 0), state, Load(stable=1, panic=1, ready=10), 1)
    assert decision.desired == 10
    assert autoscaler.initial_state(make(10, 0), 1, now=0) == State()
