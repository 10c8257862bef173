"""One running revision: its pods, its queue, its statistics, and the loop from load to pods.

The engine calls `tick` once a second and `decide` every two; the gateway calls `begin`, `acquire`,
`release` and `end` around every request. Decisions themselves are pure (`autoscaler`, `scaler`);
this module feeds them and carries them out.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from . import autoscaler, launch, scaler, scaling, spec, throttle, windows
from .containers import Surroundings
from .errors import PodFailed
from .pods import Pod, PodState, new_pod_name
from .scaler import Phase
from .stats import Report, RequestStats

logger = logging.getLogger(__name__)

Admit: TypeAlias = Callable[["Revision"], str]
"""Asks whether this machine has room for one more pod of a revision; a reason when it has not."""


class Revision:
    """See the module docstring."""

    def __init__(
        self,
        service: spec.Service,
        name: str,
        generation: int,
        around: Surroundings,
        *,
        admit: Admit,
        report: Callable[["Revision", str], None],
        gone: Callable[[Pod], None],
    ) -> None:
        self.service = service
        self.name = name
        self.generation = generation
        self.template = service.template
        self.throttle: throttle.Throttle[Pod] = throttle.Throttle(
            service.template.concurrency, around.settings.max_pending
        )
        self.pods: list[Pod] = []
        self.want = 0
        self.reachable = True
        self.pinned: int | None = None
        """Scale fixed by `turnout scale`; None: the autoscaler decides."""
        self.pending_reason = ""
        """Why fewer pods run than wanted, in the words of a pending pod."""
        self.failure: PodFailed | None = None
        """Of the latest pod that failed, until one becomes ready."""
        self.requests = self.cold_starts = 0
        self.last_request: float | None = None
        self.decision = autoscaler.Decision(desired=0, excess_burst_capacity=-1, panicking=False)
        self.on_ready: Callable[[Revision, Pod], None] | None = None
        self._around = around
        self._clock = around.clock
        self._admit = admit
        self._report = report
        self._gone = gone
        now = self._clock.now()
        self._stats = RequestStats(now)
        self._windows: tuple[windows.Window, windows.Window]
        self._make_windows()
        self._auto = autoscaler.State()
        self._phase = Phase.INACTIVE
        self._phase_since = now
        self._proxy_since: float | None = now
        self._initial_reached = self.scaling.initial_scale == 0
        self._ever_ready = False
        self._recheck_at: float | None = None

    @property
    def scaling(self) -> scaling.Scaling:
        return scaling.with_override(self.template.scaling, self.pinned)

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def concurrency(self) -> int:
        """Requests waiting or running now."""
        return self._stats.concurrency

    @property
    def ready_pods(self) -> int:
        return sum(pod.ready for pod in self.pods)

    @property
    def starting_pods(self) -> int:
        return sum(
            pod.state in (PodState.PENDING, PodState.INIT, PodState.STARTING) for pod in self.pods
        )

    def live_pods(self) -> list[Pod]:
        """Pods that are not on their way out."""
        return [pod for pod in self.pods if pod.state not in (PodState.DRAINING, PodState.STOPPED)]

    # --- requests ---

    def begin(self) -> None:
        """A request arrived: count it, and wake the revision when it sleeps."""
        now = self._clock.now()
        self.requests += 1
        self.last_request = now
        report = self._stats.begin(now)
        if report is not None:
            self._record(report, now)
        if self.want == 0 or not self.pods:
            self.decide()

    def end(self) -> None:
        """The request is over."""
        self._stats.end(self._clock.now())

    def release(self, pod: Pod) -> None:
        """A request has left a pod."""
        self.throttle.release(pod)
        if pod.in_flight == 0:
            pod.idle.set()

    # --- time ---

    def tick(self) -> None:
        """Every second: put the last second's load into the windows."""
        now = self._clock.now()
        report = self._stats.tick(now)
        if report is None and self.pods:
            report = Report(0.0, 0.0)  # running pods report that they are idle
        if report is not None:
            self._record(report, now)

    @property
    def asleep(self) -> bool:
        """Nothing to decide until a request comes."""
        return (
            self.want == 0
            and not self.pods
            and self._stats.concurrency == 0
            and self.scaling.min_scale == 0
            and self._initial_reached
        )

    def decide(self) -> None:
        """Every two seconds, and at once when a request finds no pod: load -> wish -> pods."""
        now = self._clock.now()
        if not self.reachable and not self._stats.concurrency and not self.pinned:
            # No route leads here any more and the last request has gone. A cluster would let the
            # window and the grace period pass; on one machine the memory is wanted elsewhere.
            if self.want:
                self._sleep()
            return
        if self._hopeless(now):
            self._sleep()
            return
        stable, panic = self._windows
        ready = self.ready_pods
        if ready >= self.scaling.initial_scale:
            self._initial_reached = True
        if stable.is_empty(now) and panic.is_empty(now):
            desired = scaler.UNKNOWN if self._phase is Phase.ACTIVATING and self.want else 0
            if not self.reachable or self.want == 0:
                desired = 0
        else:
            load = autoscaler.Load(
                stable=stable.average(now),
                panic=panic.average(now),
                ready=ready,
                reachable=self.reachable,
            )
            self.decision, self._auto = autoscaler.decide(self.scaling, self._auto, load, now)
            desired = self.decision.desired
        if self.throttle.pending and desired <= 0:
            desired = max(1, self.scaling.activation_scale)
        self._apply(desired, now)

    def _hopeless(self, now: float) -> bool:
        """Every pod crashes at start, and nobody has asked for a window: stop trying until
        somebody does. (A cluster goes on until the progress deadline; a laptop has better things
        to do.)"""
        quiet = self.last_request is None or now - self.last_request > self.scaling.window_s
        return (
            quiet
            and not self._stats.concurrency
            and self.scaling.min_scale == 0
            and self.failing() is not None
            and self._initial_reached
        )

    def _apply(self, desired: int, now: float) -> None:
        situation = scaler.Situation(
            phase=self._phase,
            phase_age_s=now - self._phase_since,
            current=self.want,
            reachable=self.reachable,
            initial_reached=self._initial_reached,
            proxy_age_s=None if self._proxy_since is None else now - self._proxy_since,
        )
        outcome = scaler.apply(self.scaling, situation, desired)
        if outcome.mark_inactive:
            self._set_phase(Phase.INACTIVE, now)
        if outcome.replicas is not None:
            self._resize(outcome.replicas)
        self._reconcile()
        if self.want == 0:
            self._set_phase(Phase.INACTIVE, now)
        elif desired > 0 or self._phase is not Phase.INACTIVE:
            self._update_phase(now)
        self._update_path(now)

    def _update_phase(self, now: float) -> None:
        threshold = scaler.activation_threshold(self.scaling, self._initial_reached)
        active = self.ready_pods >= threshold
        self._set_phase(Phase.ACTIVE if active else Phase.ACTIVATING, now)

    def _set_phase(self, phase: Phase, now: float) -> None:
        if phase is not self._phase:
            self._phase, self._phase_since = phase, now

    def _update_path(self, now: float) -> None:
        in_path = scaler.activator_in_path(self.want, self.decision.excess_burst_capacity)
        if in_path and self._proxy_since is None:
            self._proxy_since = now
        elif not in_path:
            self._proxy_since = None
        self.throttle.direct = not in_path

    def _record(self, report: Report, now: float) -> None:
        value = report.requests if self.scaling.metric == "rps" else report.concurrency
        for window in self._windows:
            window.record(now, value)

    def _make_windows(self) -> None:
        parameters = self.template.scaling
        self._windows = (
            windows.make_window(parameters.window_s, parameters.algorithm),
            windows.make_window(parameters.panic_window_s, parameters.algorithm),
        )

    # --- pods ---

    def pin(self, count: int | None) -> None:
        """Fix the scale (`turnout scale`), or give it back to the autoscaler.

        0 is no fixed scale but "sleep now": the next request wakes the revision again.
        """
        self.pinned = count or None
        if count == 0:
            self._sleep()
            return
        if count is not None:
            self._resize(count)
        self.decide()

    def _sleep(self) -> None:
        self._make_windows()
        self._auto = autoscaler.State()
        self._initial_reached = True
        self._resize(0)
        self._reconcile()
        self._set_phase(Phase.INACTIVE, self._clock.now())

    def _resize(self, wanted: int) -> None:
        if wanted == self.want:
            return
        previous, self.want = self.want, wanted
        why = ""
        if previous == 0:
            self.cold_starts += 1
            why = " (a request came)" if self._stats.concurrency else ""
        elif wanted == 0:
            why = " (no traffic)" if self.reachable else " (no route points here)"
        elif self.decision.panicking:
            why = " (panic: sudden load)"
        self._report(self, f"scaled {previous} -> {wanted}{why}")

    def _reconcile(self) -> None:
        """Start or stop pods until there are as many as wanted, as far as this machine has room."""
        live = self.live_pods()
        self.pending_reason = ""
        for _ in range(self.want - len(live)):
            self.pending_reason = self._admit(self)
            if self.pending_reason:
                break
            self._start_pod()
        if len(live) > self.want:
            # Idle first, and those not ready before those that are: fewer requests are in the way.
            live.sort(key=lambda pod: (pod.ready, pod.in_flight))
            for pod in live[: len(live) - self.want]:
                self._stop_pod(pod, self.template.timeout_s)

    def _start_pod(self) -> None:
        identity = launch.Identity(
            pod=new_pod_name(self.name),
            namespace=self.service.namespace,
            service=self.service.name,
            revision=self.name,
            labels={
                **self.service.labels,
                **self.template.labels,
                "serving.knative.dev/service": self.service.name,
            },
            annotations=self.template.annotations,
        )
        pod = Pod(
            identity,
            self.service,
            self._around,
            on_change=self._pod_changed,
            on_failure=self._pod_failed,
        )
        self.pods.append(pod)
        pod.start()

    def _stop_pod(self, pod: Pod, grace_s: float) -> None:
        self.throttle.remove(pod)
        pod.stop(grace_s)

    def stop(self, grace_s: float) -> list[Pod]:
        """Stop every pod; returns them so that the caller can wait."""
        self.want = 0
        pods = list(self.pods)
        for pod in pods:
            self._stop_pod(pod, grace_s)
        return pods

    def restart(self) -> int:
        """`turnout restart`: replace every pod by a new one; returns how many."""
        live = self.live_pods()
        for pod in live:
            self._stop_pod(pod, self.template.timeout_s)
        self.failure = None
        self._reconcile()
        return len(live)

    def _pod_changed(self, pod: Pod) -> None:
        match pod.state:
            case PodState.READY:
                self.failure = None
                self._ever_ready = True
                now = self._clock.now()
                took = now - pod.timeline.created
                self._report(self, f"pod {pod.name} is ready after {took:.2f} s")
                if self.ready_pods >= self.scaling.initial_scale:
                    self._initial_reached = True
                if self.want:
                    self._update_phase(now)
                if self.on_ready is not None:
                    self.on_ready(self, pod)
                self.throttle.add(pod)
            case PodState.STOPPED:
                if pod in self.pods:
                    self.pods.remove(pod)
                self.throttle.remove(pod)
                self._gone(pod)
                if not self.live_pods() and self.throttle.pending:
                    self.decide()
            case _:
                self.throttle.remove(pod)

    def _pod_failed(self, pod: Pod, failure: PodFailed) -> None:
        self.failure = failure
        self.throttle.remove(pod)
        tail = f"\n{failure.log_tail}" if failure.log_tail else ""
        self._report(self, f"pod {pod.name}: {failure.reason}: {failure.message}{tail}")
        if not self.ready_pods and not self.starting_pods:
            self.throttle.refuse_all()

    def prove(self) -> None:
        """A new revision of a running service: start a pod before any traffic comes."""
        self._initial_reached = False
        self._resize(max(1, self.scaling.initial_scale, self.scaling.min_scale))
        self._reconcile()
        self._update_phase(self._clock.now())

    def failing(self) -> PodFailed | None:
        """The reason to refuse a request at once: every pod is waiting out its back-off."""
        if self.failure is None:
            return None
        live = self.live_pods()
        all_wait = live and all(pod.state is PodState.BACK_OFF for pod in live)
        return self.failure if all_wait else None

    def update(self, service: spec.Service) -> None:
        """Same revision, new routing annotations of its service."""
        self.service = replace(service, template=self.template)
