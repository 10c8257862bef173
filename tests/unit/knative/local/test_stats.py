"""Activator statistics: Knative's reporter vectors (start, end, tick)."""

from knative.local.stats import Report, RequestStats


def test_first_request_is_pushed_at_once_and_discounted() -> None:
    stats = RequestStats(0.0)
    assert stats.begin(0.0) == Report(1, 1)
    assert stats.begin(0.0) is None
    assert stats.tick(1.0) == Report(1, 1)
    assert stats.tick(2.0) == Report(2, 0)


def test_a_finished_request_leaves_zero_and_the_next_is_first_again() -> None:
    stats = RequestStats(0.0)
    assert stats.begin(0.0) == Report(1, 1)
    stats.end(1.0)
    assert stats.tick(1.0) == Report(0, 0)
    assert stats.tick(2.0) is None
    assert stats.begin(2.0) == Report(1, 1)


def test_two_requests_one_after_the_other() -> None:
    stats = RequestStats(0.0)
    assert stats.begin(0.0) == Report(1, 1)
    stats.end(1.0)
    stats.begin(1.0)
    stats.end(2.0)
    assert stats.tick(2.0) == Report(0, 1)


def test_two_overlapping_requests() -> None:
    stats = RequestStats(0.0)
    stats.begin(0.0)
    stats.begin(0.0)
    stats.end(1.0)
    stats.end(2.0)
    assert stats.tick(2.0) == Report(0.5, 1)


def test_three_at_once() -> None:
    stats = RequestStats(0.0)
    assert stats.begin(0.0) == Report(1, 1)
    stats.begin(0.0)
    stats.begin(0.0)
    assert stats.tick(1.0) == Report(2, 2)


def test_concurrency_is_integrated_not_sampled() -> None:
    stats = RequestStats(0.0)
    stats.begin(0.0)
    stats.tick(1.0)
    stats.begin(1.25)
    stats.end(1.5)
    assert stats.tick(2.0) == Report(1.25, 1)
    assert stats.concurrency == 1
