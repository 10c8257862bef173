"""Gradual rollout: Knative's vectors."""

import pytest

from knative.local.rollout import begin, make_pace, retarget, step


@pytest.mark.parametrize(
    ("percent", "duration", "ready", "size", "interval"),
    [
        (100, 120, 0.5, 1, 119 / 99),
        (100, 120, 3, 3, 3.0),
        (75, 120, 3, 2, 3.0),
        (50, 120, 3, 1, 3.0),
    ],
)
def test_pace(percent: int, duration: float, ready: float, size: int, interval: float) -> None:
    pace = make_pace(percent, duration, ready)
    assert pace.size == size
    assert pace.interval_s == pytest.approx(interval, rel=0.02)


def test_fast_rollout_of_two_minutes() -> None:
    assert make_pace(100, 120, 0.5).interval_s == pytest.approx(1.202020202)


@pytest.mark.parametrize(
    ("shares", "size", "after"),
    [
        ([30, 60], 10, [20, 70]),
        ([22, 5, 3, 60], 10, [20, 70]),
        ([5, 1, 1, 8], 7, [15]),
        ([5, 1, 1, 8], 50, [15]),
        ([100], 10, [100]),
    ],
)
def test_step(shares: list[int], size: int, after: list[int]) -> None:
    assert step(shares, size) == after


@pytest.mark.parametrize(
    ("shares", "percent", "after"),
    [
        ([21, 21], 75, [21, 54]),
        ([21, 54], 42, [42]),
        ([21, 22, 32], 42, [10, 32]),
        ([10, 5, 60], 42, [42]),
        ([21, 54], 0, []),
    ],
)
def test_retarget(shares: list[int], percent: int, after: list[int]) -> None:
    assert retarget(shares, percent) == after


def test_a_rollout_from_beginning_to_end() -> None:
    moving = begin([("old", 100)], "new", 120, now=1000.0)
    assert moving is not None
    assert (moving.revisions, moving.shares) == (["old", "new"], [99, 1])
    assert not moving.advance(1001.0)
    assert moving.advance(1001.3)
    assert moving.shares == [98, 2]
    assert moving.advance(1060.0)
    assert sum(moving.shares) == 100
    assert 45 < moving.shares[1] < 55
    moving.advance(1121.0)
    assert (moving.revisions, moving.shares) == (["new"], [100])


def test_a_second_rollout_in_the_middle_of_the_first() -> None:
    moving = begin([("first", 60), ("second", 40)], "third", 60, now=0.0)
    assert moving is not None
    assert moving.shares == [60, 39, 1]
    while "second" in moving.revisions:
        moving.advance(moving.next_at)
    assert moving.revisions == ["first", "third"]


def test_nothing_to_roll() -> None:
    assert begin([("old", 1)], "new", 120, now=0) is None
    assert begin([("old", 100)], "new", 0, now=0) is None
