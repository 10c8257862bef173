"""The models of this server: where they come from, what state they are in, loading and unloading.

Loading happens on one loader thread, so that the listener answers (503, not ready) meanwhile and
two models never load at once. State changes are made on the event loop only.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from . import artifacts, forks, heap, runtimes, warmup
from .batching import Batcher
from .errors import FunctionsError, LoadFailed, ModelNotFound, ModelNotReady
from .execution import Runner
from .metrics import ModelMetrics, Registry
from .model import JoinableModel, ServedModel
from .settings import Settings
from .siblings import LOOK_S, Siblings
from .sources import Source, settings_for, sources

if TYPE_CHECKING:
    from .health import Health

logger = logging.getLogger(__name__)


VERSIONS_WAIT_S = 10.0
"""How long a worker waits for the versions of a model that its sibling serves."""


class State(StrEnum):
    """Names as the V2 repository index prints them, but for UNLOADED (see `index`)."""

    LOADING = "LOADING"
    READY = "READY"
    FAILED = "UNAVAILABLE"
    UNLOADED = "UNLOADED"


class Entry:
    """One model by name, loaded or not."""

    __slots__ = (
        "batcher",
        "is_discovered",
        "metrics",
        "model",
        "name",
        "reason",
        "runner",
        "source",
        "state",
        "unloaded_on_purpose",
    )

    def __init__(
        self, source: Source, metrics: ModelMetrics, *, is_discovered: bool = False
    ) -> None:
        """`is_discovered`: it is a directory of `--repository`, not named in the settings."""
        self.name = source.name
        self.is_discovered = is_discovered
        self.source = source
        self.state = State.UNLOADED
        self.reason = ""
        self.model: ServedModel | None = None
        self.runner: Runner | None = None
        self.batcher: Batcher | None = None
        self.metrics = metrics
        self.unloaded_on_purpose = False

    @property
    def refuses(self) -> bool:
        """It is loaded, but cannot be called: its threads are stuck, or its own code says so."""
        health = self.model.health if self.model is not None else None
        return (self.runner is not None and self.runner.wedged) or (
            health is not None and not health.is_ready
        )


class Repository:
    """Models by name. Everything but `build` runs on the loop."""

    def __init__(
        self,
        settings: Settings,
        preloaded: Mapping[str, ServedModel] | None = None,
        at_start: Collection[str] | None = None,
    ) -> None:
        """`preloaded`: models built before this process was forked; each is used for the first
        load. `at_start`: the directories of `--repository` that are loaded without being asked for
        (None: all), so that a worker started later does not take more than its siblings did."""
        self.settings = settings
        self._preloaded = dict(preloaded or {})
        shared = Path(settings.shared_dir) if settings.shared_dir else None
        self.registry = Registry(shared)
        self.siblings = Siblings(shared) if shared is not None else None
        self._configuring = asyncio.Lock()
        self.entries: dict[str, Entry] = {}
        self._ready: dict[str, Entry] = {}
        self.draining = False
        self._loader: ThreadPoolExecutor | None = None
        self._load_lock = threading.Lock()
        for source in sources(settings):
            self.entries[source.name] = Entry(source, self.registry.model(source.name))
        self.discover()
        self._required = tuple(
            name
            for name, entry in self.entries.items()
            if at_start is None or name in at_start or not entry.is_discovered
        )

    # --- looking up ----------------------------------------------------------------------------

    def ready_entry(self, name: str, version: str = "") -> Entry:
        """The entry of a model that can be called. Raises ModelNotFound, ModelNotReady."""
        entry = self._ready.get(name)
        if entry is not None:
            if version and entry.model is not None and version not in entry.model.info.versions:
                raise ModelNotFound(name, version)
            return entry
        known = self.entries.get(name)
        if known is None:
            raise ModelNotFound(name)
        raise ModelNotReady(name, known.reason)

    def entry(self, name: str) -> Entry:
        try:
            return self.entries[name]
        except KeyError:
            raise ModelNotFound(name) from None

    @property
    def ready(self) -> bool:
        """Readiness of the process: every model it was started with is loaded and can be called."""
        if self.draining:
            return False
        for name in self._required:
            entry = self._ready.get(name)
            if entry is None:
                # What an operator unloaded through the repository API is no fault of the process.
                if not self.entries[name].unloaded_on_purpose:
                    return False
            elif entry.refuses:
                return False
        return True

    @property
    def asks_models(self) -> bool:
        """The models' own code has a say in `is_ready`."""
        return any(self._asked())

    def _asked(self) -> Iterator["Health"]:
        for name in self._required:
            entry = self._ready.get(name)
            if entry is not None and entry.model is not None:
                health = entry.model.health
                if health is not None and health.has_hook:
                    yield health

    async def is_ready(self) -> bool:
        """`ready`, and every model says so when it is asked."""
        if not self.ready:
            return False
        limit_s = self.settings.health_timeout_s
        return not any(await asyncio.gather(*(one.problem(limit_s) for one in self._asked())))

    async def checked_entry(self, name: str, version: str = "") -> Entry:
        """`ready_entry`, once the model itself has been asked. Raises ModelNotReady, too, when it
        says no."""
        entry = self.ready_entry(name, version)
        if entry.model is not None and entry.model.health is not None:
            reason = await entry.model.health.problem(self.settings.health_timeout_s)
            if reason:
                raise ModelNotReady(name, reason)
        return entry

    @property
    def wedged(self) -> bool:
        """A model has no thread left that answers; only a new process helps."""
        return any(e.runner is not None and e.runner.wedged for e in self._ready.values())

    # --- loading -------------------------------------------------------------------------------

    async def load_all(self) -> None:
        """Load the models given at start, one after the other. Raises the first failure."""
        orders = self.siblings.wanted() if self.siblings is not None else {}
        for name, order in orders.items():
            if order.since:  # loaded anew since the master preloaded it
                self._preloaded.pop(name, None)
        for name in self._required:
            if name not in orders or orders[name].load:
                await self._load(name)
            else:
                self._unload(name)
        for name, order in orders.items():
            try:
                if order.load and name not in self._required:
                    await self._load(name)
                if order.config is not None:
                    await self._configure(name, order.config)
            except FunctionsError as error:
                logger.error("model %s, as a sibling has it: %s", name, error)

    async def load(self, name: str) -> Entry:
        """(Re)load one model, in all workers; a loaded one goes on serving until its successor is
        there."""
        entry = await self._load(name)
        if self.siblings is not None:
            self.siblings.give(name, load=True)
            failure = await self.siblings.settled(name)
            if failure:
                raise LoadFailed(f"another worker could not load it: {failure}")
        return entry

    async def configure(self, configs: Mapping[str, Mapping[str, Any]]) -> None:
        """Give loaded models, by name, another version policy and other labels (`policy`,
        `labels`), in all workers. Raises LoadFailed when another worker cannot follow."""
        async with self._configuring:
            for name, config in configs.items():
                model = await self._configure(name, config)
                if self.siblings is not None:
                    versions = model.info.versions
                    self.siblings.configure(name, {**config, "versions": versions})
        if self.siblings is not None:
            failure = await self.siblings.settled(*configs)
            if failure:
                raise LoadFailed(f"another worker could not follow: {failure}")

    async def _configure(self, name: str, config: Mapping[str, Any]) -> ServedModel:
        while True:
            model: Any = self.entry(name).model
            if not hasattr(model, "reconfigure"):
                raise LoadFailed(f"model {name} is not loaded, or has no versions")
            await asyncio.to_thread(model.reconfigure, config["policy"], config["labels"])
            if self.entry(name).model is model:  # else it was loaded anew meanwhile
                return cast("ServedModel", model)

    async def follow(self) -> None:
        """Do what the other workers do, until cancelled."""

        async def carry(name: str, load: bool | None, config: Any) -> None:
            if load:
                await self._load(name)
            elif load is not None:
                self._unload(name)
            if config is None:
                return
            async with self._configuring:
                model = await self._configure(name, config)
            end = time.monotonic() + VERSIONS_WAIT_S
            # A version that is new on the disk may be seen a moment later here.
            while missing := set(config["versions"]) - set(model.info.versions):
                if time.monotonic() > end:
                    raise LoadFailed(f"version {min(missing)} of {name} is not available")
                await asyncio.sleep(LOOK_S)

        if self.siblings is not None:
            await self.siblings.follow(carry)

    async def _load(self, name: str) -> Entry:
        if name not in self.entries:
            self.discover()
        entry = self.entry(name)
        if entry.state is not State.READY:
            entry.state, entry.reason = State.LOADING, "loading"
        loop = asyncio.get_running_loop()
        since = time.perf_counter()
        try:
            model = self._preloaded.pop(name, None)
            if model is None:
                model = await loop.run_in_executor(self._executor(), self.build, entry.source)
        except BaseException as exc:
            if entry.state is not State.READY:
                entry.state, entry.reason = State.FAILED, "it failed to load"
            if isinstance(exc, (FunctionsError, asyncio.CancelledError)):
                raise
            raise LoadFailed(f"{type(exc).__name__}: {exc}") from exc
        self._install(entry, model)
        logger.info(
            "model %s is ready", name,
            extra={"model": name, "platform": model.info.platform,
                   "load_s": round(time.perf_counter() - since, 3)},
        )  # fmt: skip
        return entry

    def build(self, source: Source) -> ServedModel:
        """Fetch if need be, detect the format, load. On the loader thread."""
        with self._load_lock:
            if source.storage_uri:
                artifacts.fetch_if_empty(
                    source.storage_uri, source.directory, self.settings.environ
                )
            settings = settings_for(source, self.settings)
            if settings.predictor_wait_s and settings.predictor_host:
                from . import predictor_wait  # http.client

                predictor_wait.until_ready(settings, source.name)
            runtime = source.runtime or artifacts.detect_runtime(source.directory, self.settings)
            try:
                with heap.loading():
                    model = runtimes.build(runtime, source.name, source.directory, settings)
            finally:
                forks.end_if_child()
            if self.settings.warmup:
                try:
                    warmup.run(source.name, model, source.directory)
                except BaseException:
                    _close_quietly(model)
                    raise
            return model

    def _install(self, entry: Entry, model: ServedModel) -> None:
        old_model, old_runner = entry.model, entry.runner
        entry.model = model
        entry.runner = Runner(
            entry.name,
            threads=self.settings.threads or model.threads,
            inline=model.inline,
            timeout_s=self.settings.timeout_s,
            max_waiting=self.settings.max_concurrency,
        )
        model.runner = entry.runner
        entry.batcher = self._batcher(entry, model)
        entry.state, entry.reason = State.READY, ""
        entry.unloaded_on_purpose = False
        self._ready[entry.name] = entry
        if old_model is not None and old_runner is not None:
            self._retire(old_model, old_runner)

    def _batcher(self, entry: Entry, model: ServedModel) -> Batcher | None:
        settings = self.settings
        if settings.max_batch_size <= 1 or entry.runner is None:
            return None
        if not isinstance(model, JoinableModel) or not model.batches:
            logger.warning("model %s cannot join requests: batching is off for it", entry.name)
            return None
        return Batcher(
            model,
            entry.runner,
            max_size=settings.max_batch_size,
            max_latency_s=settings.max_batch_latency_ms / 1000,
            metrics=entry.metrics,
        )

    def note(self, in_flight: int) -> None:
        """Bring this process's gauges up to date."""
        gauges = self.registry.gauges
        gauges["turnout_in_flight", ""] = float(in_flight)
        for name in self.entries:
            gauges["turnout_model_ready", name] = float(name in self._ready)

    def scrape(self, in_flight: int) -> bytes:
        """The metrics text of this server."""
        self.note(in_flight)
        return self.registry.render()

    def index(self) -> list[dict[str, str]]:
        """Spec "Model Repository Extension", index: every model that is or can be loaded."""
        self.discover()
        return [
            {
                "name": entry.name,
                "version": next(iter(entry.model.info.versions), "") if entry.model else "",
                # The extension knows no state of its own for what was unloaded.
                "state": str(State.FAILED if entry.state is State.UNLOADED else entry.state),
                "reason": entry.reason,
            }
            for entry in self.entries.values()
        ]

    def discover(self) -> None:
        """Make every directory of `--repository` known by name; nothing is loaded."""
        for directory in artifacts.model_directories(self.settings.repository):
            name = directory.name
            if name not in self.entries:
                source = Source(name=name, directory=directory, runtime="")
                metrics = self.registry.model(name)
                self.entries[name] = Entry(source, metrics, is_discovered=True)

    def unload(self, name: str) -> None:
        """Unload a model; the other workers follow (`settled`)."""
        self._unload(name)
        if self.siblings is not None:
            self.siblings.give(name, load=False)

    async def settled(self, name: str) -> None:
        """Wait until the other workers have followed."""
        if self.siblings is not None:
            await self.siblings.settled(name)

    def _unload(self, name: str) -> None:
        entry = self.entry(name)
        self._ready.pop(name, None)
        model, runner = entry.model, entry.runner
        entry.model = entry.runner = entry.batcher = None
        entry.state, entry.reason = State.UNLOADED, "unloaded"
        entry.unloaded_on_purpose = True
        if model is not None and runner is not None:
            self._retire(model, runner)

    def _retire(self, model: ServedModel, runner: Runner) -> None:
        """Close a replaced model once its last call has returned."""
        if not runner.is_idle:
            runner.loop.call_later(0.05, self._retire, model, runner)
            return
        runner.close()
        self._executor().submit(_close_quietly, model)
        heap.unloading()

    def _executor(self) -> ThreadPoolExecutor:
        if self._loader is None:
            self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        return self._loader

    def close(self) -> None:
        """Give everything back at the end of the process."""
        for entry in self.entries.values():
            if entry.runner is not None:
                entry.runner.close()
            if entry.model is not None:
                _close_quietly(entry.model)


def _close_quietly(model: ServedModel) -> None:
    try:
        model.close()
    except Exception:
        logger.exception("closing a model failed")
