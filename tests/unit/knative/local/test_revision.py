"""A revision from load to pods, on a virtual clock and with pods that obey the test."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from knative.local import revision as revision_module
from knative.local import spec
from knative.local.containers import Surroundings
from knative.local.errors import PodFailed
from knative.local.pods import PodState, Timeline
from knative.local.revision import Revision
from knative.local.scaling import Defaults, make_scaling
from knative.local.settings import EngineSettings
from knative.local.throttle import Waiter


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time


class Flag:
    def set(self) -> None:
        """Nobody waits here."""


class Pod:
    """Ready when `become` says so; gone as soon as it is stopped and idle."""

    made: ClassVar[list["Pod"]] = []

    def __init__(
        self, identity: Any, service: Any, around: Any, *, on_change: Any, on_failure: Any
    ):
        self.name, self.template = identity.pod, service.template
        self.state = PodState.PENDING
        self.in_flight = self.queued = self.restarts = 0
        self.timeline = Timeline(around.clock.now())
        self.idle = Flag()
        self.grace_s = -1.0
        self._change, self._failed = on_change, on_failure
        Pod.made.append(self)

    @property
    def ready(self) -> bool:
        return self.state is PodState.READY

    def start(self) -> None:
        """It waits for `become`."""

    def become(self, state: PodState) -> None:
        self.state = state
        self._change(self)

    def fail(self) -> None:
        self.state = PodState.BACK_OFF
        self._change(self)
        self._failed(self, PodFailed("Error", "broken", "last words"))

    def stop(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self.become(PodState.DRAINING)
        if self.in_flight == 0:
            self.become(PodState.STOPPED)


class World:
    """One revision and its surroundings; `pass_time` ticks as the engine does."""

    def __init__(self, *, concurrency: int = 0, room: int = 1000, **annotations: str) -> None:
        self.clock = Clock()
        self.said: list[str] = []
        full = {
            f"autoscaling.knative.dev/{key.replace('_', '-')}": value
            for key, value in annotations.items()
        }
        container = spec.Container(name="c", command=("x",), port=8080)
        template = spec.Template(
            containers=(container,),
            concurrency=concurrency,
            scaling=make_scaling(full, concurrency, Defaults(initial_scale=0)),
        )
        around = Surroundings(
            settings=EngineSettings(),
            spawner=None,  # type: ignore[arg-type]
            sources=None,  # type: ignore[arg-type]
            clock=self.clock,
            gateway_url="",
            pods_dir=Path(),
            logs_dir=Path(),
            engine_id="test",
        )
        self.revision = Revision(
            spec.Service(name="s", namespace="n", template=template),
            "s-00001",
            1,
            around,
            admit=lambda held: "" if len(held.live_pods()) < room else "Insufficient memory",
            report=lambda _, text: self.said.append(text),
            gone=lambda _: None,
        )
        self.revision.throttle._choose = random.Random(1)
        self.refused = 0

    def request(self) -> Callable[[], None]:
        """One request; call the result to end it."""
        revision, held = self.revision, []

        def granted(pod: Any) -> None:
            held.append(pod)
            self.refused += pod is None

        revision.begin()
        got = revision.throttle.acquire(granted)
        if not isinstance(got, Waiter):
            held.append(got)

        def end() -> None:
            if held and held[0] is not None:
                revision.release(held[0])
            elif isinstance(got, Waiter):
                revision.throttle.cancel(got)
            revision.end()

        return end

    def ready(self) -> None:
        for pod in list(self.revision.pods):
            if pod.state is PodState.PENDING:
                pod.become(PodState.READY)  # type: ignore[attr-defined]

    def pass_time(self, seconds: int, *, ready: bool = True) -> None:
        for _ in range(seconds):
            self.clock.time += 1
            if ready:
                self.ready()
            if not self.revision.asleep:
                self.revision.tick()
                if int(self.clock.time) % 2 == 0:
                    self.revision.decide()

    def seconds_to_zero(self, limit: int = 400) -> int:
        for second in range(limit):
            if self.revision.want == 0 and not self.revision.pods:
                return second
            self.pass_time(1)
        raise AssertionError("never went to zero")


@pytest.fixture(autouse=True)
def _fake_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    Pod.made.clear()
    monkeypatch.setattr(revision_module, "Pod", Pod)


def test_first_request_starts_a_pod_at_once_and_gets_it() -> None:
    world = World()
    assert world.revision.asleep
    world.request()
    assert (world.revision.want, len(Pod.made)) == (1, 1)
    assert world.revision.throttle.pending == 1
    world.ready()
    assert world.revision.throttle.pending == 0
    assert Pod.made[0].in_flight == 1
    assert world.revision.cold_starts == 1


@pytest.mark.parametrize(("window", "low", "high"), [("60s", 60, 68), ("6s", 6, 12)])
def test_way_to_zero_takes_a_window_and_a_little(window: str, low: int, high: int) -> None:
    world = World(window=window)
    world.pass_time(40)  # the activator has been in the path for longer than the grace period
    end = world.request()
    world.pass_time(2)
    end()
    assert low <= world.seconds_to_zero() <= high
    assert world.revision.asleep


def test_retention_keeps_the_last_pod() -> None:
    world = World(window="6s", scale_to_zero_pod_retention_period="1m")
    world.pass_time(40)
    world.request()()
    assert 60 <= world.seconds_to_zero() <= 75


def test_a_running_request_keeps_its_pod() -> None:
    world = World(window="6s")
    end = world.request()
    world.pass_time(120)
    assert world.revision.want == 1
    end()
    world.seconds_to_zero()


def test_burst_with_concurrency_one_asks_for_pods_at_once() -> None:
    world = World(concurrency=1)
    for _ in range(7):
        world.request()
    world.pass_time(2, ready=False)
    assert world.revision.want == 7  # the average is still growing
    world.pass_time(10, ready=False)
    assert world.revision.want == 10  # ceil(7 / 0.7)


def test_max_scale_bounds_and_queue_waits() -> None:
    world = World(concurrency=1, max_scale="3")
    ends = [world.request() for _ in range(9)]
    world.pass_time(4)
    assert (world.revision.want, world.revision.ready_pods) == (3, 3)
    assert world.revision.throttle.pending == 6
    for end in ends:
        end()
    assert world.revision.throttle.pending == 0


def test_no_room_is_pending_and_tried_again() -> None:
    world = World(concurrency=1, room=2)
    ends = [world.request() for _ in range(6)]
    world.pass_time(4)
    assert len(world.revision.pods) == 2
    assert world.revision.pending_reason == "Insufficient memory"
    for end in ends:
        end()
    world.seconds_to_zero()
    assert world.revision.pending_reason == ""


def test_min_scale_is_kept_and_reached_again() -> None:
    world = World(min_scale="2", window="6s")
    world.revision.decide()
    world.pass_time(30)
    assert world.revision.ready_pods == 2
    world.revision.pods[0].stop(0)
    world.pass_time(4)
    assert world.revision.ready_pods == 2


def test_scale_down_takes_idle_pods_first() -> None:
    world = World(concurrency=1, window="6s", scale_down_delay="0s")
    ends = [world.request() for _ in range(5)]
    world.pass_time(3)
    for end in ends[1:]:
        end()
    busy = next(pod for pod in Pod.made if pod.in_flight)
    world.pass_time(20)
    assert busy.ready
    assert len(world.revision.pods) < 8
    assert all(pod.in_flight == 0 for pod in Pod.made if pod.state is PodState.STOPPED)


def test_draining_pods_wait_for_their_requests_with_the_revisions_timeout() -> None:
    world = World()
    end = world.request()
    world.ready()
    world.revision.stop(7.0)
    pod = Pod.made[0]
    assert (pod.state, pod.grace_s) == (PodState.DRAINING, 7.0)
    assert world.revision.throttle.pods == []
    end()
    assert pod.in_flight == 0


def test_failing_pod_refuses_those_who_wait_and_then_at_once() -> None:
    world = World()
    world.request()
    Pod.made[0].fail()
    assert world.refused == 1
    failure = world.revision.failing()
    assert failure is not None
    assert failure.log_tail == "last words"
    assert any("last words" in text for text in world.said)
    Pod.made[0].become(PodState.STARTING)
    assert world.revision.failing() is None  # the next try may work: wait for it


def test_hopeless_revision_is_put_to_sleep_when_nobody_asks() -> None:
    world = World(window="6s")
    end = world.request()
    Pod.made[0].fail()
    end()
    world.pass_time(4, ready=False)
    assert world.revision.want == 1
    world.pass_time(8, ready=False)
    assert world.revision.want == 0
    assert world.revision.pods == []


def test_unready_pod_gets_no_requests_until_it_is_ready_again() -> None:
    world = World()
    world.request()()
    world.ready()
    pod = Pod.made[0]
    pod.become(PodState.UNREADY)
    world.request()
    assert pod.in_flight == 0
    pod.become(PodState.READY)
    assert pod.in_flight == 1


def test_unreachable_revision_goes_with_its_last_request() -> None:
    world = World()
    end = world.request()
    world.ready()
    world.revision.reachable = False
    world.pass_time(10)
    assert world.revision.want == 1
    end()
    world.pass_time(2)
    assert world.revision.want == 0


def test_pinning_and_sleeping() -> None:
    world = World()
    world.revision.pin(3)
    world.pass_time(2)
    assert world.revision.ready_pods == 3
    world.request()()
    world.pass_time(300)
    assert world.revision.ready_pods == 3
    world.revision.pin(0)
    assert world.revision.pods == []
    assert world.revision.pinned is None
    world.request()
    assert world.revision.want == 1


def test_restart_replaces_ready_pods() -> None:
    world = World()
    world.request()()
    world.ready()
    before = Pod.made[0]
    assert world.revision.restart() == 1
    assert before.state is PodState.STOPPED
    assert len(world.revision.live_pods()) == 1


def test_requests_per_second_as_metric() -> None:
    world = World(metric="rps", target="10", target_utilization_percentage="100", window="6s")
    world.pass_time(2)
    for _ in range(6):
        for _ in range(30):
            world.request()()
        world.pass_time(1)
    assert world.revision.want == 3
