"""Sliding windows against Knative's aggregation vectors."""

import pytest

from knative.local.windows import Window, make_window, smoothing


def test_one_value_is_its_own_average() -> None:
    window = Window(5)
    window.record(100, 1)
    assert window.average(100) == 1


def test_story_of_a_five_second_window() -> None:
    window, start = Window(5), 1000.0
    for step in range(5):
        window.record(start + step, step + 1)
    assert window.average(start + 4) == 3
    assert window.average(start + 6) == 4  # two silent seconds displace 1 and 2: (3+4+5)/3
    assert window.average(start + 14) == 0
    window.record(start + 6, 91)
    assert window.average(start + 6) == (12 + 91) / 5
    window.record(start + 66, 1984)
    assert window.average(start + 66) == 1984
    window.record(start + 63, 4)
    assert window.average(start + 66) == (4 + 1984) / 4


def test_values_of_one_second_add_up() -> None:
    window = Window(5)
    window.record(10.1, 2)
    window.record(10.9, 3)
    assert window.average(10.95) == 5


def test_too_late_writes_are_dropped() -> None:
    window = Window(5)
    window.record(100, 1)
    window.record(94, 50)
    assert window.average(100) == 1


def test_empty_before_and_after() -> None:
    window = Window(5)
    assert window.is_empty(0)
    window.record(10, 1)
    assert not window.is_empty(14)
    assert window.is_empty(15)


def test_average_is_rounded_to_six_digits() -> None:
    window = Window(3)
    for second, value in enumerate((1, 0, 0)):
        window.record(second, value)
    assert window.average(2) == 0.333333


@pytest.mark.parametrize(
    ("buckets", "expected"), [(100, 0.2), (60, 0.2), (40, 0.20567), (6, 0.78456)]
)
def test_smoothing(buckets: int, expected: float) -> None:
    assert smoothing(buckets) == pytest.approx(expected, abs=1e-5)


def test_weighted_average_forgets_exponentially() -> None:
    window = make_window(6, "weighted-exponential")
    window.record(100, 10)
    share = smoothing(6)
    assert window.average(100) == pytest.approx(10 * share)
    assert window.average(101) == pytest.approx(10 * share * (1 - share))
    assert window.average(106) == 0
