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
from typing import Generic, Protocol, TypeVar

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
        self._waiting: OrderedDict[Waiter[B], None] = OrderedDict()
        self._next = 0
        self._choose = chooser or random.Random()  # noqa: S311 - load balancing, not secrecy

    @property
    def pending(self) -> int:
        """Requests waiting."""
        return len(self._waiting)

    def acquire(self, granted: Callable[[B | None], None]) -> B | Waiter[B]:
        """A pod at once, or a waiter whose `granted` is called later. Raises Overloaded."""
        if not self._waiting or self.direct:
            pod = self._pick()
            if pod is not None and (self.concurrency == 0 or pod.in_flight < self.concurrency):
                pod.in_flight += 1
                return pod
            if pod is not None and self.direct:
                return self._wait_in(pod, granted)
        if len(self._waiting) >= self.max_pending:
            raise Overloaded(f"{self.max_pending} requests are waiting already")
        return self._enqueue(Waiter(granted, None))

    def release(self, pod: B) -> None:
        """A request on `pod` is over; the slot goes to whoever waits longest for it."""
        pod.in_flight -= 1
        if self._waiting:
            self.dispatch()

    def cancel(self, waiter: Waiter[B]) -> None:
        """The client has gone or its time is up."""
        if waiter in self._waiting:
            del self._waiting[waiter]
            if waiter.pod is not None:
                waiter.pod.queued -= 1

    def add(self, pod: B) -> None:
        """A pod became ready."""
        if pod not in self.pods:
            self.pods.append(pod)
        self.dispatch()

    def remove(self, pod: B) -> None:
        """A pod takes no more requests; those waiting for it may go to any other."""
        if pod in self.pods:
            self.pods.remove(pod)
        for waiter in self._waiting:
            if waiter.pod is pod:
                waiter.pod = None
                pod.queued -= 1
        self.dispatch()

    def dispatch(self) -> None:
        """Hand free slots to waiting requests, oldest first."""
        for waiter in list(self._waiting):
            if waiter not in self._waiting:
                continue  # cancelled by a callback
            pod = waiter.pod or self._pick()
            if pod is None:
                return
            if self.concurrency and pod.in_flight >= self.concurrency:
                if waiter.pod is None:
                    return
                continue
            self.cancel(waiter)
            pod.in_flight += 1
            waiter.granted(pod)

    def refuse_all(self) -> None:
        """No pod is coming: tell every waiter."""
        for waiter in list(self._waiting):
            if waiter in self._waiting:
                self.cancel(waiter)
                waiter.granted(None)

    def _enqueue(self, waiter: Waiter[B]) -> Waiter[B]:
        self._waiting[waiter] = None
        return waiter

    def _wait_in(self, pod: B, granted: Callable[[B | None], None]) -> Waiter[B]:
        if pod.queued >= QUEUE_DEPTH_FACTOR * self.concurrency:
            raise Overloaded(f"{pod.queued} requests are waiting for this pod already")
        pod.queued += 1
        return self._enqueue(Waiter(granted, pod))

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
