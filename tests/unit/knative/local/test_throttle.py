"""Queues and balancing: activator and breaker vectors."""

import random
import time

import pytest

from knative.local.throttle import Overloaded, Throttle, Waiter


class Pod:
    def __init__(self, name: str) -> None:
        self.name = name
        self.in_flight = 0
        self.queued = 0


def make(
    concurrency: int, pods: int, *, max_pending: int = 10_000, direct: bool = False
) -> tuple[Throttle[Pod], list[Pod], list[Pod | None]]:
    throttle: Throttle[Pod] = Throttle(concurrency, max_pending, random.Random(7))
    throttle.direct = direct
    made = [Pod(f"p{number}") for number in range(pods)]
    for pod in made:
        throttle.add(pod)
    return throttle, made, []


def test_requests_wait_while_there_is_no_pod() -> None:
    throttle, _, granted = make(0, 0)
    waiter = throttle.acquire(granted.append)
    assert isinstance(waiter, Waiter)
    pod = Pod("late")
    throttle.add(pod)
    assert granted == [pod]
    assert pod.in_flight == 1


def test_unlimited_concurrency_never_waits_once_there_is_a_pod() -> None:
    throttle, (pod,), _ = make(0, 1)
    assert all(throttle.acquire(print) is pod for _ in range(500))
    assert pod.in_flight == 500


def test_activator_queue_gives_slots_in_order_of_arrival() -> None:
    throttle, (pod,), _ = make(1, 1)
    order: list[str] = []
    assert throttle.acquire(print) is pod
    throttle.acquire(lambda _: order.append("first"))
    throttle.acquire(lambda _: order.append("second"))
    throttle.release(pod)
    assert order == ["first"]
    throttle.release(pod)
    assert order == ["first", "second"]


def test_activator_queue_is_bounded() -> None:
    throttle, _, granted = make(0, 0, max_pending=2)
    throttle.acquire(granted.append)
    throttle.acquire(granted.append)
    with pytest.raises(Overloaded):
        throttle.acquire(granted.append)


def test_pod_breaker_takes_eleven_times_the_concurrency() -> None:
    throttle, (pod,), granted = make(2, 1, direct=True)
    results = [throttle.acquire(granted.append) for _ in range(22)]
    assert sum(item is pod for item in results) == 2
    assert pod.queued == 20
    with pytest.raises(Overloaded):
        throttle.acquire(granted.append)
    throttle.release(pod)
    assert granted == [pod]
    assert (pod.in_flight, pod.queued) == (2, 19)


def test_cancelled_waiter_frees_its_place_and_is_never_called() -> None:
    throttle, (pod,), granted = make(1, 1, direct=True)
    throttle.acquire(granted.append)
    waiter = throttle.acquire(granted.append)
    assert isinstance(waiter, Waiter)
    throttle.cancel(waiter)
    throttle.cancel(waiter)
    assert pod.queued == 0
    throttle.release(pod)
    assert granted == []
    assert pod.in_flight == 0


def test_capacity_raised_later_serves_those_who_wait() -> None:
    throttle, (pod,), granted = make(1, 1)
    throttle.acquire(granted.append)
    throttle.acquire(granted.append)
    second = Pod("second")
    throttle.add(second)
    assert granted == [second]
    assert pod.in_flight == 1


def test_removed_pod_passes_its_queue_on() -> None:
    throttle, (first, second), granted = make(1, 2, direct=True)
    for _ in range(4):
        throttle.acquire(granted.append)
    throttle.remove(first)
    assert first.queued == 0
    throttle.release(second)
    throttle.release(second)
    assert granted == [second, second]


def test_refusing_all_tells_every_waiter_once() -> None:
    throttle, _, granted = make(0, 0)
    throttle.acquire(granted.append)
    throttle.acquire(granted.append)
    throttle.refuse_all()
    assert granted == [None, None]
    assert throttle.pending == 0


def test_low_concurrency_fills_the_first_pod_first() -> None:
    throttle, (first, second), _ = make(2, 2)
    assert [throttle.acquire(print) for _ in range(3)] == [first, first, second]


def test_high_concurrency_goes_round() -> None:
    throttle, pods, _ = make(4, 3)
    assert [throttle.acquire(print) for _ in range(4)] == [*pods, pods[0]]


def test_round_robin_skips_full_pods_and_goes_on_behind_the_chosen_one() -> None:
    throttle, (first, second, third), _ = make(4, 3)
    second.in_flight = 4
    assert [throttle.acquire(print) for _ in range(3)] == [first, third, first]


def test_unlimited_concurrency_takes_the_less_loaded_of_two() -> None:
    throttle, (first, second), _ = make(0, 2)
    first.in_flight = 5
    assert all(throttle.acquire(print) is second for _ in range(5))


def test_ten_thousand_waiters_are_served_in_linear_time() -> None:
    throttle, (pod,), granted = make(1, 1)
    throttle.acquire(granted.append)
    for _ in range(9_999):
        throttle.acquire(granted.append)
    started = time.process_time()
    for _ in range(9_999):
        throttle.release(pod)
    assert time.process_time() - started < 2
    assert len(granted) == 9_999


def test_slot_freed_by_a_removed_pod_is_not_given_away() -> None:
    throttle, (first, second), granted = make(1, 2)
    throttle.acquire(granted.append)
    throttle.acquire(granted.append)
    throttle.acquire(granted.append)
    throttle.remove(first)
    throttle.release(first)
    assert granted == []
    throttle.release(second)
    assert granted == [second]
