"""One pod: its volumes, init containers, containers, readiness, restarts and end. Owns its
processes.

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
import os
import secrets
import shutil
import signal
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from . import images, launch, logs, ports, probes, spec, volumes
from .clock import Clock
from .errors import PodFailed
from .settings import EngineSettings
from .spawn import Process, Spawner, describe_exit

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

TERMINATION_BYTES = 4096


class PodState(StrEnum):
    PENDING = "Pending"
    INIT = "Init"
    STARTING = "Starting"
    READY = "Ready"
    UNREADY = "Unready"
    BACK_OFF = "CrashLoopBackOff"
    DRAINING = "Draining"
    STOPPED = "Stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all pods of an engine share."""

    settings: EngineSettings
    spawner: Spawner
    sources: volumes.Sources
    clock: Clock
    gateway_url: str
    pods_dir: Path
    logs_dir: Path
    engine_id: str
    sink_env: Callable[[spec.Service], dict[str, str] | None] = field(default=lambda _: None)
    """K_SINK variables of a SinkBinding on a service."""


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
    """One replica of a revision. The owner reacts to `on_ready`, `on_failure` and `on_stopped`."""

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
        self.port = 0
        self.processes: dict[str, Process] = {}
        self.idle = asyncio.Event()
        self._service = service
        self._around = around
        self._on_change = on_change
        self._on_failure = on_failure
        self._logs: dict[str, logs.LogFile] = {}
        self._directory = around.pods_dir / self.name
        self._volumes: dict[str, Path] = {}
        self._lease: ports.PortLease | None = None
        self._init_done = False
        self._stopping = asyncio.Event()
        self._condemned: asyncio.Future[None] | None = None
        self._grace_s = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def log_dir(self) -> Path:
        """Directory of this pod's log files, one per container."""
        names = (self.identity.namespace, self.identity.service, self.name)
        return self._around.logs_dir.joinpath(*names)

    @property
    def ready(self) -> bool:
        return self.state is PodState.READY

    def start(self) -> None:
        """Begin; returns at once."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"pod {self.name}")

    def stop(self, grace_s: float) -> "asyncio.Task[None]":
        """Drain, SIGTERM, and SIGKILL after `grace_s`. Returns the task to await; may be called
        twice
        (the shorter grace counts)."""
        assert self._task is not None
        if not self._stopping.is_set():
            self._grace_s = grace_s
            self._set_state(PodState.DRAINING)
            self._stopping.set()
        elif grace_s < self._grace_s:
            self._grace_s = grace_s
            self._kill(signal.SIGKILL)
        return self._task

    def condemn(self, failure: PodFailed) -> None:
        """End this life of the pod from outside (it used too much memory); it restarts as after a
        crash. Does nothing unless it is ready."""
        if self._condemned is not None and not self._condemned.done():
            self._condemned.set_exception(failure)

    def log_tail(self, lines: int = 20) -> str:
        """Last lines of the container that matters: the one that failed last, else the serving
        one."""
        name = self.template.serving.name
        log = self._logs.get(name) or next(reversed(self._logs.values()), None)
        return log.tail(lines) if log else ""

    def process_ids(self) -> list[int]:
        """Pids of running containers' first processes."""
        return [process.pid for process in self.processes.values() if not process.exited.done()]

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
        self.timeline = Timeline(self._around.clock.now())
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._volumes = volumes.make_volumes(
                self.template.volumes,
                self.identity.namespace,
                self._directory,
                self._around.sources,
            )
            async with asyncio.timeout(self.template.scaling.progress_deadline_s):
                await self._run_init_containers()
                self._set_state(PodState.STARTING)
                await self._start_containers()
                await self._wait_ready()
        except TimeoutError:
            deadline = self.template.scaling.progress_deadline_s
            raise PodFailed(
                "ProgressDeadlineExceeded", f"not ready after {deadline:g} s", self.log_tail()
            ) from None
        except OSError as error:
            raise PodFailed("PodStartError", f"cannot prepare the pod: {error}") from error
        except Exception as error:  # this task owns the pod: it must outlive any of its mistakes
            if isinstance(error, PodFailed):
                raise
            logger.exception("pod %s", self.name)
            raise PodFailed("InternalError", f"{type(error).__name__}: {error}") from error
        self.timeline.ready = self._around.clock.now()
        self.failure = None
        self._set_state(PodState.READY)
        await self._watch()

    async def _run_init_containers(self) -> None:
        if self._init_done or not self.template.init_containers:
            return
        self._set_state(PodState.INIT)
        self.timeline.init_started = self._around.clock.now()
        for container in self.template.init_containers:
            process = await self._spawn(container, init=True)
            status = await asyncio.shield(process.exited)
            if status != 0:
                await self._flush(container.name)
                raise self._exit_failure(container, status, "Init:Error")
        self._init_done = True
        self.timeline.init_ended = self._around.clock.now()

    async def _start_containers(self) -> None:
        if self._lease is None:
            self._lease = ports.lease()
            self.port = self._lease.port
        self.timeline.started = self._around.clock.now()
        for container in self.template.containers:
            await self._spawn(container, init=False)

    async def _spawn(self, container: spec.Container, *, init: bool) -> Process:
        settings = self._around.settings
        place = launch.Place(
            pod_dir=self._directory,
            volumes=self._volumes,
            gateway_url=self._around.gateway_url,
            port=self.port if container.port is not None and not init else None,
            init=init,
            sink_env=self._around.sink_env(self._service),
        )
        made = launch.make_launch(container, self.identity, place, settings, self._around.sources)
        mark = f"{self._around.engine_id}/{self.name}/{container.name}"
        log, output = await logs.open_log(self.log_dir / f"{container.name}.log")
        self._logs.pop(container.name, None)
        self._logs[container.name] = log
        try:
            process = await self._around.spawner.spawn(
                made.argv,
                {**made.env, "TURNOUT_POD": mark},
                cwd=made.cwd,
                output=output,
                limits=made.limits,
            )
        finally:
            os.close(output)
        self.processes[container.name] = process
        return process

    async def _wait_ready(self) -> None:
        serving = self.template.serving
        died = asyncio.ensure_future(self._first_exit())
        try:
            if serving.startup is not None:
                await self._unless(died, self._poll(serving.startup))
            for container in self.template.containers:
                probe = container.readiness
                if container is serving and probe is None:
                    probe = spec.Probe(kind="tcp")
                if probe is not None and (container is serving or probe.kind == "exec"):
                    await self._unless(died, self._poll(probe))
        finally:
            died.cancel()
            with contextlib.suppress(asyncio.CancelledError, PodFailed):
                await died

    async def _poll(self, probe: spec.Probe) -> None:
        pause = PROBE_FIRST_S
        while not await probes.check(probe, self.port, self._execute, self._listens):
            await asyncio.sleep(pause)
            pause = min(PROBE_MAX_S, pause * PROBE_GROWTH)

    def _listens(self) -> None:
        if self.timeline.listening is None:
            self.timeline.listening = self._around.clock.now()

    async def _watch(self) -> None:
        """Until a container exits or is found dead. Raises PodFailed."""
        self._condemned = condemned = asyncio.get_running_loop().create_future()
        waits: list[Awaitable[None]] = [self._first_exit(), condemned]
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

    async def _first_exit(self) -> None:
        running = [
            (container, self.processes[container.name].exited)
            for container in self.template.containers
        ]
        exits = [exited for _, exited in running]
        await asyncio.wait(exits, return_when=asyncio.FIRST_COMPLETED)
        container, exited = next(item for item in running if item[1].done())
        await self._flush(container.name)
        raise self._exit_failure(container, exited.result(), "Error")

    async def _liveness(self, probe: spec.Probe) -> None:
        await asyncio.sleep(probe.initial_delay_s)
        failures = 0
        while failures < probe.failure_threshold:
            await asyncio.sleep(probe.period_s)
            alive = await probes.check(probe, self.port, self._execute)
            failures = 0 if alive else failures + 1
        raise PodFailed(
            "Unhealthy", f"liveness probe failed {failures} times in a row", self.log_tail()
        )

    async def _readiness(self, probe: spec.Probe) -> None:
        failures = 0
        while True:
            await asyncio.sleep(probe.period_s)
            if self._stopping.is_set():
                return
            ready = await probes.check(probe, self.port, self._execute)
            failures = 0 if ready else failures + 1
            if ready and self.state is PodState.UNREADY:
                self._set_state(PodState.READY)
            elif failures >= probe.failure_threshold and self.state is PodState.READY:
                self._set_state(PodState.UNREADY)

    async def _execute(self, command: tuple[str, ...], timeout_s: float) -> bool:
        """An exec probe: the command, with the serving container's environment."""
        container = self.template.serving
        place = launch.Place(
            pod_dir=self._directory,
            volumes=self._volumes,
            gateway_url=self._around.gateway_url,
            port=self.port,
        )
        made = launch.make_launch(
            container, self.identity, place, self._around.settings, self._around.sources
        )
        mapped = volumes.PathMap(container.mounts, self._volumes)
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            process = await self._around.spawner.spawn(
                [mapped(launch.expand(part, made.env)) for part in command],
                made.env,
                cwd=made.cwd,
                output=null,
            )
        except PodFailed:
            return False
        finally:
            os.close(null)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(process.exited) == 0
        except TimeoutError:
            process.signal(signal.SIGKILL)
            return False

    # --- ends ---

    async def _failed(self, failure: PodFailed) -> None:
        """Tell the owner, stop what is left, and wait out the back-off."""
        was_ready = self.timeline.ready
        self.failure = failure
        self._set_state(PodState.BACK_OFF)
        self._on_failure(self, failure)
        await self._stop_processes(grace_s=2.0)
        if was_ready is not None and self._around.clock.now() - was_ready > BACK_OFF_RESET_S:
            self.restarts = 0
        pause = min(BACK_OFF_MAX_S, BACK_OFF_FIRST_S * 2**self.restarts)
        self.restarts += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), pause)

    async def _end(self) -> None:
        """Drain requests, stop processes, remove everything but the logs."""
        deadline = self._around.clock.now() + self._grace_s
        while self.in_flight > 0 and self._around.clock.now() < deadline:
            self.idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self.idle.wait(), max(0.01, min(0.5, deadline - self._around.clock.now()))
                )
        await self._stop_processes(grace_s=max(0.1, deadline - self._around.clock.now()))
        if self._lease is not None:
            self._lease.release()
            self._lease = None
        await self._remove_containers()
        self._set_state(PodState.STOPPED)
        await asyncio.get_running_loop().run_in_executor(
            None, lambda: shutil.rmtree(self._directory, ignore_errors=True)
        )

    async def _stop_processes(self, grace_s: float) -> None:
        running = [process for process in self.processes.values() if not process.exited.done()]
        for process in running:
            process.signal(signal.SIGTERM)
        if running:
            exits = [process.exited for process in running]
            _, alive = await asyncio.wait(exits, timeout=min(grace_s, self._grace_s or grace_s))
            if alive:
                self._kill(signal.SIGKILL)
                await asyncio.wait(alive, timeout=5)
        self.processes.clear()

    async def _remove_containers(self) -> None:
        """Containers of a container engine whose client had to be killed are still there."""
        settings = self._around.settings
        names = [
            images.container_name(self.name, container.name)
            for container in (*self.template.init_containers, *self.template.containers)
            if images.runs_in_image(container, settings.container_engine, settings.commands)
        ]
        if names:
            null = os.open(os.devnull, os.O_WRONLY)
            try:
                process = await self._around.spawner.spawn(
                    images.remove_words(settings.container_engine, names),
                    settings.environ,
                    cwd="/",
                    output=null,
                )
                await asyncio.wait([process.exited], timeout=10)
            except PodFailed as error:
                logger.warning("cannot remove containers of %s: %s", self.name, error)
            finally:
                os.close(null)

    def _kill(self, number: int) -> None:
        for process in self.processes.values():
            process.signal(number)

    def _exit_failure(self, container: spec.Container, status: int, reason: str) -> PodFailed:
        said = self._termination_message(container)
        message = f"container {container.name} {describe_exit(status)}"
        log = self._logs.get(container.name)
        tail = log.tail(20) if log else ""
        return PodFailed(reason, f"{message}: {said}" if said else message, tail)

    def _termination_message(self, container: spec.Container) -> str:
        file = self._directory / f"{container.name}.termination"
        try:
            return file.read_bytes()[-TERMINATION_BYTES:].decode(errors="replace").strip()
        except OSError:
            return ""

    async def _flush(self, name: str) -> None:
        """Give a finished container's last output a moment to arrive in its log."""
        log = self._logs.get(name)
        if log is not None:
            await asyncio.wait([log.closed], timeout=0.3)

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
