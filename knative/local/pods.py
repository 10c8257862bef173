"""One pod: its volumes, init step, containers, readiness, restarts and end.

Life of a pod (`Pod.run`, one task):

    Pending -> Init -> Starting -> Ready -> Draining -> Stopped
                  \\        \\        \\
                   +--------+--------+--> BackOff -> Init (or Starting, when init is done) ...

A failure at any stage is told to the owner once, with the log tail, so that waiting clients get an
answer;
the pod then restarts with back-off for as long as its revision wants it, as the kubelet would.
"""

import asyncio
import contextlib
import logging
import secrets
import signal
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum

from . import launch, ports, probes, spec
from .containers import Containers, Surroundings
from .errors import PodFailed

logger = logging.getLogger(__name__)

BACK_OFF_FIRST_S = 1.0
"""Wait before the first restart; doubles up to BACK_OFF_MAX_S. Kubernetes starts at 10 s: here a
person waits."""
BACK_OFF_MAX_S = 60.0
BACK_OFF_RESET_S = 60.0
"""A pod that was ready this long starts counting anew (Kubernetes: 10 minutes)."""

PROBE_FIRST_S = 0.004
PROBE_GROWTH = 1.15
PROBE_MAX_S = 0.2
"""Readiness is asked for quickly at first, then as often as the activator does (every 200 ms): a
probe costs 0.3 ms, a pod found ready 20 ms late costs every cold start 20 ms."""

FAILED_GRACE_S = 2.0
"""Between SIGTERM and SIGKILL for what is left of a pod that failed."""

DRAIN_POLL_S = 0.5


class PodState(StrEnum):
    PENDING = "Pending"
    INIT = "Init"
    STARTING = "Starting"
    READY = "Ready"
    UNREADY = "Unready"
    BACK_OFF = "CrashLoopBackOff"
    DRAINING = "Draining"
    STOPPED = "Stopped"


@dataclass(slots=True)
class Timeline:
    """Instants of the latest start on the engine's clock; None: not yet (or no such step)."""

    created: float
    init_started: float | None = None
    init_ended: float | None = None
    started: float | None = None
    listening: float | None = None
    """The port was open for the first time (seen by a probe): from here on it is loading."""
    ready: float | None = None
    first_answer: float | None = None


class Pod:
    """One replica of a revision. `on_change` hears of every state, `on_failure` of every
    failure."""

    def __init__(
        self,
        identity: launch.Identity,
        service: spec.Service,
        around: Surroundings,
        *,
        on_change: Callable[["Pod"], None],
        on_failure: Callable[["Pod", PodFailed], None],
    ) -> None:
        self.identity = identity
        self.name = identity.pod
        self.template = service.template
        self.state = PodState.PENDING
        self.in_flight = 0
        self.queued = 0
        self.restarts = 0
        self.failure: PodFailed | None = None
        self.timeline = Timeline(around.clock.now())
        self.containers = Containers(identity, service, around)
        self.idle = asyncio.Event()
        """Set whenever the last request has left."""
        self._clock = around.clock
        self._on_change = on_change
        self._on_failure = on_failure
        self._leases: list[ports.PortLease] = []
        self._init_done = False
        self._stopping = asyncio.Event()
        self._condemned: asyncio.Future[None] | None = None
        self._grace_s = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        return self.state is PodState.READY

    @property
    def port(self) -> int:
        """Where the serving container listens."""
        return self.containers.port

    def log_tail(self, lines: int = 20) -> str:
        """Last lines of the container that matters."""
        return self.containers.log_tail(lines)

    def start(self) -> None:
        """Begin; returns at once."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"pod {self.name}")

    def stop(self, grace_s: float) -> "asyncio.Task[None]":
        """Drain, SIGTERM, and SIGKILL after `grace_s`. Returns the task to await. May be called
        again: a shorter grace counts."""
        assert self._task is not None
        if not self._stopping.is_set():
            self._grace_s = grace_s
            self._set_state(PodState.DRAINING)
            self._stopping.set()
        elif grace_s < self._grace_s:
            self._grace_s = grace_s
            self.containers.signal(signal.SIGKILL)
        return self._task

    def condemn(self, failure: PodFailed) -> None:
        """End this life of the pod from outside (it used too much memory); it restarts as after
        a crash. Does nothing unless it is ready."""
        if self._condemned is not None and not self._condemned.done():
            self._condemned.set_exception(failure)

    # --- life ---

    async def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    await self._until_stopping(self._live())
                except PodFailed as failure:
                    await self._failed(failure)
        finally:
            await self._end()

    async def _live(self) -> None:
        """Start everything, be ready, and watch; raises PodFailed when that ends."""
        self.timeline = Timeline(self._clock.now())
        deadline_s = self.template.scaling.progress_deadline_s
        try:
            self.containers.prepare()
            async with asyncio.timeout(deadline_s):
                await self._run_init()
                await self._start_containers()
                await self._wait_ready()
        except TimeoutError:
            message = f"not ready after {deadline_s:g} s"
            raise PodFailed("ProgressDeadlineExceeded", message, self.log_tail()) from None
        except OSError as error:
            raise PodFailed("PodStartError", f"cannot prepare the pod: {error}") from error
        except Exception as error:  # this task owns the pod: it must outlive any of its mistakes
            if isinstance(error, PodFailed):
                raise
            logger.exception("pod %s", self.name)
            raise PodFailed("InternalError", f"{type(error).__name__}: {error}") from error
        self.timeline.ready = self._clock.now()
        self.failure = None
        self._set_state(PodState.READY)
        await self._watch()

    async def _run_init(self) -> None:
        """Once per pod: a restart of the containers finds the volumes as init left them."""
        if self._init_done or not self.template.init_containers:
            return
        self._set_state(PodState.INIT)
        self.timeline.init_started = self._clock.now()
        await self.containers.run_init()
        self._init_done = True
        self.timeline.init_ended = self._clock.now()

    async def _start_containers(self) -> None:
        self._set_state(PodState.STARTING)
        if not self._leases:
            inner = self.template.pod_ports
            self._leases = [ports.lease(avoid=inner) for _ in range(1 + len(inner))]
            self.containers.port = self._leases[0].port
            actual = [lease.port for lease in self._leases[1:]]
            self.containers.pod_ports = dict(zip(inner, actual, strict=True))
        self.timeline.started = self._clock.now()
        await self.containers.start()

    async def _wait_ready(self) -> None:
        """Startup and readiness probes; raises PodFailed as soon as a container has exited."""
        serving = self.template.serving
        wanted = [serving.startup, serving.readiness or spec.Probe(kind="tcp")]
        for container in self.template.containers:
            probe = container.readiness
            if container is not serving and probe is not None and probe.kind == "exec":
                wanted.append(probe)  # a sidecar's port is its own business
        died = asyncio.ensure_future(self.containers.first_exit())
        try:
            for probe in wanted:
                if probe is not None:
                    await self._unless(died, self._poll(probe))
        finally:
            died.cancel()
            await asyncio.gather(died, return_exceptions=True)

    async def _poll(self, probe: spec.Probe) -> None:
        pause = PROBE_FIRST_S
        execute = self.containers.execute
        while not await probes.check(probe, self.port, execute, self._listens):
            await asyncio.sleep(pause)
            pause = min(PROBE_MAX_S, pause * PROBE_GROWTH)

    def _listens(self) -> None:
        if self.timeline.listening is None:
            self.timeline.listening = self._clock.now()

    async def _watch(self) -> None:
        """Until a container exits or is found dead. Raises PodFailed."""
        self._condemned = condemned = asyncio.get_running_loop().create_future()
        waits: list[Awaitable[None]] = [self.containers.first_exit(), condemned]
        serving = self.template.serving
        if serving.liveness is not None:
            waits.append(self._liveness(serving.liveness))
        if serving.readiness is not None and serving.readiness.period_s > 0:
            waits.append(self._readiness(serving.readiness))
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _liveness(self, probe: spec.Probe) -> None:
        await asyncio.sleep(probe.initial_delay_s)
        failures = 0
        while failures < probe.failure_threshold:
            await asyncio.sleep(probe.period_s)
            alive = await probes.check(probe, self.port, self.containers.execute)
            failures = 0 if alive else failures + 1
        message = f"liveness probe failed {failures} times in a row"
        raise PodFailed("Unhealthy", message, self.log_tail())

    async def _readiness(self, probe: spec.Probe) -> None:
        failures = 0
        while True:
            await asyncio.sleep(probe.period_s)
            ready = await probes.check(probe, self.port, self.containers.execute)
            failures = 0 if ready else failures + 1
            if ready and self.state is PodState.UNREADY:
                self._set_state(PodState.READY)
            elif failures >= probe.failure_threshold and self.state is PodState.READY:
                self._set_state(PodState.UNREADY)

    # --- ends ---

    async def _failed(self, failure: PodFailed) -> None:
        """Tell the owner, stop what is left, and wait out the back-off."""
        was_ready = self.timeline.ready
        self.failure = failure
        self._set_state(PodState.BACK_OFF)
        self._on_failure(self, failure)
        await self.containers.stop(FAILED_GRACE_S)
        self._release_ports()  # the next try gets others: one may have been somebody else's
        if was_ready is not None and self._clock.now() - was_ready > BACK_OFF_RESET_S:
            self.restarts = 0
        pause = min(BACK_OFF_MAX_S, BACK_OFF_FIRST_S * 2**self.restarts)
        self.restarts += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), pause)

    async def _end(self) -> None:
        """Let requests finish, stop processes, remove everything but the logs."""
        deadline = self._clock.now() + self._grace_s
        while self.in_flight > 0 and self._clock.now() < deadline:
            self.idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.idle.wait(), DRAIN_POLL_S)
            deadline = min(deadline, self._clock.now() + self._grace_s)
        await self.containers.stop(max(0.1, min(self._grace_s, deadline - self._clock.now())))
        self._release_ports()
        await self.containers.remove()
        self._set_state(PodState.STOPPED)

    def _release_ports(self) -> None:
        for lease in self._leases:
            lease.release()
        self._leases = []

    async def _unless(
        self, died: "asyncio.Future[None]", step: Coroutine[None, None, None]
    ) -> None:
        """Run `step`, but fail as soon as a container has exited."""
        task = asyncio.ensure_future(step)
        try:
            await asyncio.wait([task, died], return_when=asyncio.FIRST_COMPLETED)
            if died.done():
                died.result()
            task.result()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, PodFailed):
                await task

    async def _until_stopping(self, life: Coroutine[None, None, None]) -> None:
        """Run `life` until it fails or the pod is told to stop."""
        task = asyncio.ensure_future(life)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            for pending in (task, stopping):
                pending.cancel()
            await asyncio.gather(task, stopping, return_exceptions=True)

    def _set_state(self, state: PodState) -> None:
        if self.state is not state and self.state is not PodState.STOPPED:
            if self._stopping.is_set() and state is not PodState.STOPPED:
                return
            self.state = state
            self._on_change(self)


def new_pod_name(revision: str) -> str:
    """As Kubernetes would: the revision's deployment and a random suffix."""
    return f"{revision}-deployment-{secrets.token_hex(4)}"
