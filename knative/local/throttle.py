"""Which pod takes a request, and who waits: activator and queue-proxy rules. Pure, no clock.

Two limits, kept apart as in Knative (spec sections 2.6 and 2.7):
* with the activator in the path, requests of a revision wait in one queue (10 000) until a pod has
a free slot
  (containerConcurrency each; unlimited when 0) -- or, from zero, until there is a pod at all;
* without it, requests go straight to a pod, whose own breaker lets containerConcurrency run and ten
  times as many wait; one more is refused.
"""

import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeAlias, TypeVar

QUEUE_DEPTH_FACTOR = 10
"""Waiting requests per executing one in a pod's breaker: 11 x containerConcurrency in all."""

FIRST_FREE_MAX_CONCURRENCY = 3
"""Up to this limit the first pod with a free slot is taken; above it, round robin."""


class Backend(Protocol):
    """A pod, as far as choosing one goes."""

    in_flight: int
    queued: int


B = TypeVar("B", bound=Backend)


class Overloaded(Exception):
    """No room to wait: the caller answers 503."""


class Waiter(Generic[B]):
    """A request in a queue. `granted` is called once, unless it is cancelled before: with its
    pod, whose slot it then holds, or with None when there will be no pod (see `refuse_all`)."""

    __slots__ = ("granted", "pod")

    def __init__(self, granted: Callable[[B | None], None], pod: B | None) -> None:
        self.granted = granted
        self.pod = pod
        """The pod whose breaker it waits in; None: any."""


_Queue: TypeAlias = OrderedDict[Waiter[B], None]


class Throttle(Generic[B]):
    """Requests of one revision over its ready pods."""

    def __init__(
        self, concurrency: int, max_pending: int, chooser: random.Random | None = None
    ) -> None:
        self.concurrency = concurrency
        self.max_pending = max_pending
        self.direct = False
        """True: the activator is not in the path."""
        self.pods: list[B] = []
        self._waiting: _Queue[B] = OrderedDict()
        """Waiting for any pod, oldest first."""
        self._bound: dict[B, _Queue[B]] = {}
        """Waiting in a certain pod's breaker."""
        self._next = 0
        self._choose = chooser or random.Random()  # noqa: S311 - load balancing, not secrecy

    @property
    def pending(self) -> int:
        """Requests waiting."""
        return len(self._waiting) + sum(len(queue) for queue in self._bound.values())

    def acquire(self, granted: Callable[[B | None], None]) -> B | Waiter[B]:
        """A pod at once, or a waiter whose `granted` is called later. Raises Overloaded."""
        if self.direct or not self._waiting:
            pod = self._pick()
            if pod is not None and self._has_slot(pod):
                pod.in_flight += 1
                return pod
            if pod is not None and self.direct:
                return self._wait_in(pod, granted)
        if len(self._waiting) >= self.max_pending:
            raise Overloaded(f"{self.max_pending} requests are waiting already")
        waiter: Waiter[B] = Waiter(granted, None)
        self._waiting[waiter] = None
        return waiter

    def release(self, pod: B) -> None:
        """A request on `pod` is over; its slot goes to whoever waits longest for it."""
        pod.in_flight -= 1
        if self._waiting or self._bound:
            self._serve(pod)

    def cancel(self, waiter: Waiter[B]) -> None:
        """The client has gone or its time is up."""
        pod = waiter.pod
        if pod is None:
            self._waiting.pop(waiter, None)
            return
        queue = self._bound.get(pod)
        if queue is not None and waiter in queue:
            del queue[waiter]
            pod.queued -= 1
            if not queue:
                del self._bound[pod]

    def add(self, pod: B) -> None:
        """A pod became ready."""
        if pod not in self.pods:
            self.pods.append(pod)
        self._serve(pod)

    def remove(self, pod: B) -> None:
        """A pod takes no more requests; those waiting for it may go to any other."""
        if pod in self.pods:
            self.pods.remove(pod)
        for waiter in self._bound.pop(pod, ()):
            waiter.pod = None
            pod.queued -= 1
            self._waiting[waiter] = None
        for other in list(self.pods):
            self._serve(other)

    def refuse_all(self) -> None:
        """No pod is coming: tell every waiter."""
        bound = [waiter for queue in self._bound.values() for waiter in queue]
        for waiter in [*self._waiting, *bound]:
            self.cancel(waiter)
            waiter.granted(None)

    def _serve(self, pod: B) -> None:
        """Give a pod's free slots to those who wait for it, then to those who wait for any."""
        while pod in self.pods and self._has_slot(pod):
            queue = self._bound.get(pod) or self._waiting
            if not queue:
                return
            waiter = next(iter(queue))
            self.cancel(waiter)
            pod.in_flight += 1
            waiter.granted(pod)

    def _has_slot(self, pod: B) -> bool:
        return self.concurrency == 0 or pod.in_flight < self.concurrency

    def _wait_in(self, pod: B, granted: Callable[[B | None], None]) -> Waiter[B]:
        if pod.queued >= QUEUE_DEPTH_FACTOR * self.concurrency:
            raise Overloaded(f"{pod.queued} requests are waiting for this pod already")
        pod.queued += 1
        waiter: Waiter[B] = Waiter(granted, pod)
        self._bound.setdefault(pod, OrderedDict())[waiter] = None
        return waiter

    def _pick(self) -> B | None:
        """The pod the next request should try; with a limit, one with a free slot if there is
        one."""
        pods = self.pods
        if len(pods) <= 1:
            return pods[0] if pods else None
        if self.concurrency == 0:
            first, second = self._choose.sample(pods, 2) if len(pods) > 2 else self._shuffled()
            return second if second.in_flight < first.in_flight else first
        if self.direct:
            return min(pods, key=lambda pod: pod.in_flight + pod.queued)
        if self.concurrency <= FIRST_FREE_MAX_CONCURRENCY:
            return next((pod for pod in pods if pod.in_flight < self.concurrency), pods[0])
        for step in range(len(pods)):
            index = (self._next + step) % len(pods)
            if pods[index].in_flight < self.concurrency:
                self._next = (index + 1) % len(pods)
                return pods[index]
        return pods[0]

    def _shuffled(self) -> list[B]:
        return self.pods if self._choose.random() < 0.5 else self.pods[::-1]
