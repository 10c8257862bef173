"""The local engine: compiled manifests in, running services out. Owns all tasks and processes.

    Engine.start   take the state directory, start the spawner, open the port, apply the workload
    Engine.apply   make what runs equal to a (changed) workload
    Engine.stop    refuse new requests, let running ones finish, stop all pods, give everything back

Two timers drive everything: statistics every second, decisions every two seconds; both skip
revisions that are asleep, so an idle engine does next to nothing.
"""

import asyncio
import functools
import hashlib
import logging
import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from . import capacity, images, memory, spec, volumes
from .admin import Admin
from .clock import MonotonicClock
from .containers import Surroundings
from .errors import EngineError, PortInUse
from .gateway import Gateway
from .pods import Pod
from .revision import Revision
from .services import Services
from .settings import EngineSettings
from .spawn import Spawner
from .state import StateDir, engine_id
from .traces import Recorder

if TYPE_CHECKING:
    from .eventing import Eventing

logger = logging.getLogger(__name__)

STATS_S = 1.0
DECIDE_EVERY = 2
"""Decisions every this many statistics ticks: KPA's 2 s."""

MEMORY_EVERY = 3
HOUSEKEEPING_EVERY = 30

Announce = Callable[[str, str], None]
"""(service or other subject, what happened): lines for the person at the terminal."""


class Engine:
    """See the module docstring."""

    def __init__(self, settings: EngineSettings, announce: Announce | None = None) -> None:
        self.settings = settings
        self.port = settings.port
        self.state = StateDir(settings.state_dir)
        self.recorder = Recorder(settings.trace_size)
        self.stopping = asyncio.Event()
        """Set by `turnout down` or a signal: whoever runs the engine should call `stop`."""
        self.clock = MonotonicClock()
        self.workload = spec.Workload(services=())
        self.spawner = Spawner()
        self.gateway: Gateway
        self.services: Services
        self.eventing: Eventing | None = None
        self._announce = announce or (lambda *_: None)
        self._around: Surroundings
        self._ticker: asyncio.Task[None] | None = None
        self._stopped_revisions: list[Revision] = []

    async def start(self, workload: spec.Workload) -> None:
        """Everything up to an open port with routes. Raises EngineError, PortInUse,
        InvalidWorkload."""
        settings = self.settings
        self.state.open()
        try:
            loop = asyncio.get_running_loop()
            self.gateway = Gateway(loop, self.recorder, max_header_bytes=settings.max_header_bytes)
            try:
                self.port = await self.gateway.listen(settings.host, settings.port)
            except OSError as error:
                raise PortInUse(
                    f"port {settings.port} on {settings.host}: {error.strerror}; "
                    "choose another with --port (or --port 0 for any free one)"
                ) from error
            self.spawner.start()
            await self._remove_leftover_containers()
            self._around = self._surroundings(workload)
            self.services = Services(self.state, self._make_revision, self._say, self.clock)
            self.gateway.routes = self.services.routes
            self.gateway.admin = Admin(self).handle
            self.state.publish(self.port, host=settings.host)
            await self.apply(workload)
        except BaseException:
            await self.stop(0.0)
            raise
        self._ticker = loop.create_task(self._tick_forever(), name="engine ticks")

    async def _remove_leftover_containers(self) -> None:
        """Containers of docker or podman survive the death of their engine; not its next start."""
        program = self.settings.container_engine
        if not program:
            return
        loop = asyncio.get_running_loop()
        run = functools.partial(subprocess.run, capture_output=True, text=True, check=False)
        try:
            words = images.leftovers_words(program, engine_id(self.state.root))
            found = await loop.run_in_executor(None, run, words)
            if found.returncode != 0:
                raise EngineError(f"{program} does not work here: {found.stderr.strip()}")
            if names := found.stdout.split():
                await loop.run_in_executor(None, run, images.remove_words(program, names))
        except FileNotFoundError as error:
            raise EngineError(f"--container-engine {program}: there is no such program") from error

    async def apply(self, workload: spec.Workload) -> None:
        """Reconcile services with a workload; `start` has been called. Raises InvalidWorkload."""
        await self._apply_eventing(workload)
        self.workload = workload
        self._around = self._surroundings(workload)
        removed = self.services.apply(self._bound(service) for service in workload.services)
        for revision in removed:
            revision.stop(self.settings.stop_grace_s)
            self._stopped_revisions.append(revision)
        for revision in self.services.revisions():
            if not revision.asleep:
                revision.decide()

    async def _apply_eventing(self, workload: spec.Workload) -> None:
        """Brokers and the rest; loaded with the first object that needs them."""
        if self.eventing is not None:
            await self.eventing.update(workload.others)
        elif workload.others:
            from .eventing import Eventing

            eventing = Eventing(
                self.gateway,
                self.state.events,
                workload.others,
                max_pending=self.settings.broker_max_pending,
            )
            await eventing.start()
            self.eventing = eventing

    def _bound(self, service: spec.Service) -> spec.Service:
        """A SinkBinding changes what pods of its subject get: that makes a new revision."""
        variables = self._sink_env(service)
        if not variables:
            return service
        mark = hashlib.sha256(repr(sorted(variables.items())).encode()).hexdigest()[:8]
        return replace(service, fingerprint=f"{service.fingerprint}-{mark}")

    def _sink_env(self, service: spec.Service) -> dict[str, str] | None:
        if not self.workload.others:
            return None
        from .eventing import sink_variables

        return sink_variables(self.workload.others, service)

    async def stop(self, grace_s: float | None = None) -> None:
        """Stop everything that `start` started. Safe at any stage; never raises for a pod's
        sake."""
        grace = self.settings.stop_grace_s if grace_s is None else grace_s
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
            self._ticker = None
        if hasattr(self, "gateway"):
            await self.gateway.close(grace)
        if self.eventing is not None:
            await self.eventing.stop()
            self.eventing = None
        tasks = [pod.stop(grace) for pod in self._all_pods()]
        if tasks:
            await asyncio.wait(tasks, timeout=grace + 8)
        await self.spawner.close()
        self.state.close()

    def _all_pods(self) -> list[Pod]:
        if not hasattr(self, "services"):
            return []
        revisions = [*self.services.revisions(), *self._stopped_revisions]
        return [pod for revision in revisions for pod in revision.pods]

    def kill_now(self) -> None:
        """A second Ctrl-C: no more patience."""
        for pod in self._all_pods():
            pod.stop(0.0)

    # --- time ---

    async def _tick_forever(self) -> None:
        count = 0
        while True:
            await asyncio.sleep(STATS_S)
            count += 1
            self.services.tick()
            for revision in list(self.services.revisions()):
                if revision.asleep:
                    continue
                revision.tick()
                if count % DECIDE_EVERY == 0:
                    revision.decide()
            if count % MEMORY_EVERY == 0:
                memory.enforce(self._all_pods())
            if count % HOUSEKEEPING_EVERY == 0:
                self._housekeeping()

    def _housekeeping(self) -> None:
        self.services.collect()
        self._stopped_revisions = [held for held in self._stopped_revisions if held.pods]
        for key in self.services.by_key:
            namespace, _, name = key.partition("/")
            running = {pod.name for pod in self._all_pods()}
            self.state.prune_logs(namespace, name, running)

    # --- what revisions need ---

    def _surroundings(self, workload: spec.Workload) -> Surroundings:
        settings = self.settings
        return Surroundings(
            settings=settings,
            spawner=self.spawner,
            sources=volumes.Sources(
                secrets=workload.secrets,
                config_maps=workload.config_maps,
                claims=settings.claims,
                claims_dir=self.state.claims,
            ),
            clock=self.clock,
            gateway_url=f"http://127.0.0.1:{self.port}",
            pods_dir=self.state.pods,
            logs_dir=self.state.logs,
            engine_id=engine_id(self.state.root),
            sink_env=self._sink_env,
        )

    def _make_revision(self, service: spec.Service, name: str, generation: int) -> Revision:
        return Revision(
            service,
            name,
            generation,
            self._around,
            admit=self._admit,
            report=lambda revision, text: self._say(revision.service.key, text),
            gone=self.gateway.forget,
        )

    def _admit(self, revision: Revision) -> str:
        revisions = list(self.services.revisions())
        return capacity.admit(
            revision.template,
            capacity.read_machine(),
            own_pods=len(revision.live_pods()),
            running=[held.template for held in revisions for _ in held.live_pods()],
            starting=[held.template for held in revisions for _ in range(held.starting_pods)],
            cpu_overcommit=self.settings.cpu_overcommit,
            memory_reserve=self.settings.memory_reserve,
        )

    def _say(self, subject: str, text: str) -> None:
        logger.info("%s: %s", subject, text)
        self._announce(subject, text)
