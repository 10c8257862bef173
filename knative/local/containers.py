"""The containers of one pod as processes: started, listened to, probed by command, stopped.

Knows nothing about pods' states, restarts or requests; that is `pods`. One object a pod; it owns
the pod's directory, volumes, processes and logs.
"""

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import images, launch, logs, logwords, spec, volumes
from .clock import Clock
from .errors import PodFailed
from .settings import EngineSettings
from .spawn import Process, Spawner, describe_exit

logger = logging.getLogger(__name__)

TERMINATION_BYTES = 4096
FLUSH_S = 0.3
"""How long a finished container's last output may take to arrive in its log."""


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


class Containers:
    """See the module docstring."""

    def __init__(
        self, identity: launch.Identity, service: spec.Service, around: Surroundings
    ) -> None:
        self.port = 0
        """Port of the serving container; set before `start`."""
        self.pod_ports: dict[int, int] = {}
        """Ports between containers: the manifest's -> this pod's; set before `start`."""
        self._identity = identity
        self._service = service
        self._template = service.template
        self._around = around
        self._directory = around.pods_dir / identity.pod
        self._volumes: dict[str, Path] = {}
        self._processes: dict[str, Process] = {}
        self._logs: dict[str, logs.LogFile] = {}

    @property
    def log_dir(self) -> Path:
        """Directory of the log files, one per container."""
        identity = self._identity
        return self._around.logs_dir.joinpath(identity.namespace, identity.service, identity.pod)

    def log_tail(self, lines: int) -> str:
        """Last lines of the serving container, or of the one that ran last."""
        name = self._template.serving.name
        log = self._logs.get(name) or next(reversed(self._logs.values()), None)
        return logwords.readable(log.tail(lines), lines) if log else ""

    def process_ids(self) -> list[int]:
        """Pids of running containers' first processes."""
        return [process.pid for process in self._processes.values() if not process.exited.done()]

    # --- starting ---

    def prepare(self) -> None:
        """Make the directory and the volumes. Raises PodFailed, OSError."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._volumes = volumes.make_volumes(
            self._template.volumes,
            self._identity.namespace,
            self._directory,
            self._around.sources,
        )

    async def run_init(self) -> None:
        """Init containers in their order; the first that fails raises PodFailed."""
        for container in self._template.init_containers:
            process = await self._spawn(container, init=True)
            status = await asyncio.shield(process.exited)
            if status != 0:
                raise await self._exit_failure(container, status, "Init:Error")

    async def start(self) -> None:
        """All containers of the pod. Raises PodFailed when one cannot be executed."""
        for container in self._template.containers:
            await self._spawn(container, init=False)

    async def first_exit(self) -> None:
        """Wait until any container has ended; raises PodFailed with its reason."""
        running = [
            (container, self._processes[container.name].exited)
            for container in self._template.containers
        ]
        exits = [exited for _, exited in running]
        await asyncio.wait(exits, return_when=asyncio.FIRST_COMPLETED)
        container, exited = next(item for item in running if item[1].done())
        raise await self._exit_failure(container, exited.result(), "Error")

    async def execute(self, command: tuple[str, ...], timeout_s: float) -> bool:
        """An exec probe: a command with the serving container's environment; True if it exits 0."""
        container = self._template.serving
        made = self._launch(container, init=False)
        mapped = volumes.PathMap(container.mounts, self._volumes)
        words = [mapped(launch.expand(part, made.env)) for part in command]
        try:
            process = await self._run_quietly(words, dict(made.env), made.cwd)
        except PodFailed:
            return False
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(process.exited) == 0
        except TimeoutError:
            process.signal(signal.SIGKILL)
            return False

    def _launch(self, container: spec.Container, *, init: bool) -> launch.Launch:
        place = launch.Place(
            pod_dir=self._directory,
            volumes=self._volumes,
            gateway_url=self._around.gateway_url,
            port=self.port if container.port is not None and not init else None,
            init=init,
            sink_env=self._around.sink_env(self._service),
            pod_ports={} if init else self.pod_ports,
        )
        around = self._around
        return launch.make_launch(container, self._identity, place, around.settings, around.sources)

    async def _spawn(self, container: spec.Container, *, init: bool) -> Process:
        made = self._launch(container, init=init)
        mark = f"{self._around.engine_id}/{self._identity.pod}/{container.name}"
        log, output = await logs.open_log(self.log_dir / f"{container.name}.log")
        self._logs.pop(container.name, None)  # the latest one last
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
        self._processes[container.name] = process
        return process

    async def _run_quietly(self, words: list[str], env: dict[str, str], cwd: str) -> Process:
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            return await self._around.spawner.spawn(words, env, cwd=cwd, output=null)
        finally:
            os.close(null)

    # --- stopping ---

    def signal(self, number: int) -> None:
        """Signal the process groups of all containers."""
        for process in self._processes.values():
            process.signal(number)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM to all, SIGKILL after `grace_s` to those that are left."""
        running = [process for process in self._processes.values() if not process.exited.done()]
        for process in running:
            process.signal(signal.SIGTERM)
        if running:
            exits = [process.exited for process in running]
            _, alive = await asyncio.wait(exits, timeout=grace_s)
            if alive:
                self.signal(signal.SIGKILL)
                await asyncio.wait(alive, timeout=5)
        self._processes.clear()

    async def remove(self) -> None:
        """Everything but the logs: directories, and containers of a container engine whose
        client had to be killed."""
        settings = self._around.settings
        names = [
            images.container_name(self._identity.pod, container.name)
            for container in (*self._template.init_containers, *self._template.containers)
            if images.runs_in_image(container, settings.container_engine, settings.commands)
        ]
        if names:
            words = images.remove_words(settings.container_engine, names)
            try:
                process = await self._run_quietly(words, dict(settings.environ), "/")
                await asyncio.wait([process.exited], timeout=10)
            except PodFailed as error:
                logger.warning("cannot remove containers of %s: %s", self._identity.pod, error)
        await asyncio.get_running_loop().run_in_executor(
            None, lambda: shutil.rmtree(self._directory, ignore_errors=True)
        )

    # --- what to say about an end ---

    async def _exit_failure(self, container: spec.Container, status: int, reason: str) -> PodFailed:
        log = self._logs.get(container.name)
        if log is not None:
            await asyncio.wait([log.closed], timeout=FLUSH_S)
        tail = log.tail(40) if log else ""
        said = self._termination_message(container) or logwords.last_error(tail)
        message = f"container {container.name} {describe_exit(status)}"
        if said:
            message = f"{message}: {said}"
        return PodFailed(reason, message, logwords.readable(tail))

    def _termination_message(self, container: spec.Container) -> str:
        file = self._directory / f"{container.name}.termination"
        try:
            return file.read_bytes()[-TERMINATION_BYTES:].decode(errors="replace").strip()
        except OSError:
            return ""
