"""Running an engine in the foreground: compile, start, signals, stop. What `turnout up` does.

The terminal gets one line per service, `ready` as the last of them, and afterwards what happens
(scaled, ready, failed). Everything written here goes through `say`; nothing prints by itself.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path

from functions.wire import garbage
from functions.wire.container import JsonLogFormatter, forget_callers
from knative import compiler, options

from . import spec, workload
from .engine import Engine
from .settings import EngineSettings

logger = logging.getLogger(__name__)

FIRST_PODS_S = 600.0
"""`ready` waits this long for services with min-scale pods; then it says which are not."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """The manifests of one `up`."""

    paths: Sequence[str | Path]
    options: options.CompileOptions


def load(given: Input, settings: EngineSettings) -> spec.Workload:
    """Compile and check everything. Raises ManifestError with all problems."""
    result = compiler.compile_files(given.paths, given.options)
    parsed = workload.parse(
        result.objects,
        defaults=settings.defaults,
        commands=settings.commands,
        images=bool(settings.container_engine),
    )
    warnings = [f"{problem}" for problem in result.warnings]
    return spec.Workload(
        services=parsed.services,
        secrets=parsed.secrets,
        config_maps=parsed.config_maps,
        others=parsed.others,
        warnings=(*warnings, *parsed.warnings),
    )


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop when it is installed: about twice the throughput."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def run(given: Input, settings: EngineSettings, say: Say, warn: Say, *, watch: bool = False) -> int:
    """Run until a signal or `turnout down`. Returns the exit code."""
    _configure_logging(settings, warn)
    first = load(given, settings)
    for warning in first.warnings:
        warn(f"warning: {warning}")
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(_run(given, first, settings, say, watch=watch))


async def _run(
    given: Input, first: spec.Workload, settings: EngineSettings, say: Say, *, watch: bool
) -> int:
    started = False

    def announce(subject: str, text: str) -> None:
        if started:
            say(f"{subject}: {text}")

    engine = Engine(settings, announce)
    signals = _Signals(engine)
    signals.install()
    try:
        await engine.start(first)
        for line in service_lines(engine):
            say(line)
        started = True
        await _first_pods(engine)
        if engine.stopping.is_set():
            return 0
        say("ready")
        garbage.started()
        watcher = None
        if watch:
            from .watch import watch_forever

            watcher = asyncio.create_task(watch_forever(engine, given, say))
        await engine.stopping.wait()
        if watcher is not None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
        say("stopping")
        return 0
    finally:
        started = False
        await engine.stop()
        signals.remove()


def service_lines(engine: Engine) -> list[str]:
    """One line per service with its URL, aligned."""
    held = [engine.services.by_key[key].service for key in sorted(engine.services.by_key)]
    width = max((len(service.key) for service in held), default=len("gateway"))
    base = f"http://localhost:{engine.port}"
    lines = [
        f"{'gateway':<{width}}  http://127.0.0.1:{engine.port}",
        f"{'console':<{width}}  {base}/_turnout/",
    ]
    return lines + [
        f"{service.key:<{width}}  http://{service.name}.{service.namespace}.localhost:{engine.port}"
        for service in held
    ]


async def _first_pods(engine: Engine) -> None:
    """Wait for services that must have pods from the start (min-scale, initial-scale)."""
    deadline = engine.clock.now() + FIRST_PODS_S
    while engine.clock.now() < deadline and not engine.stopping.is_set():
        waiting = [
            revision
            for revision in engine.services.revisions()
            if revision.want > revision.ready_pods
            and revision.failure is None
            and not revision.pending_reason
        ]
        if not waiting:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(engine.stopping.wait(), 0.05)


def _configure_logging(settings: EngineSettings, warn: Say) -> None:
    """JSON lines in STATE/engine.log (two files of 4 MiB at most); warnings also for the person."""
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    terminal = _Terminal(warn)
    terminal.setLevel(logging.WARNING)
    root.handlers[:] = [terminal]
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        path = settings.state_dir / "engine.log"
        file = _LogFile(path, maxBytes=4 << 20, backupCount=1, delay=True)
    except OSError:
        return  # the engine says it better a moment later
    file.setFormatter(JsonLogFormatter("engine"))
    root.addHandler(file)
    forget_callers()


class _LogFile(RotatingFileHandler):
    """Looks at the file's size now and then: the original formats each line twice to know it."""

    _LOOK_EVERY = 64
    _lines = 0

    def write_line(self, text: str) -> None:
        """A line that is formatted already (`container.log_facts`). Raises OSError."""
        self.acquire()
        try:
            if self._is_full():
                self.doRollover()
            if (stream := self.stream) is None:
                stream = self.stream = self._open()
            stream.write(text + self.terminator)
            stream.flush()
        finally:
            self.release()

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        return self._is_full()

    def _is_full(self) -> bool:
        if self.stream is None:
            self.stream = self._open()
        self._lines += 1
        if self._lines % self._LOOK_EVERY:
            return False
        return os.fstat(self.stream.fileno()).st_size >= self.maxBytes


class _Terminal(logging.Handler):
    """Warnings and errors as plain lines."""

    def __init__(self, warn: Say) -> None:
        super().__init__()
        self._warn = warn

    def emit(self, record: logging.LogRecord) -> None:
        self._warn(f"{record.levelname.lower()}: {record.getMessage()}")
        if record.exc_info:
            self._warn(logging.Formatter().formatException(record.exc_info))


class _Signals:
    """SIGINT and SIGTERM ask the engine to stop; a second one makes it kill."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` means what it says
                self._loop.add_signal_handler(number, self._stop)

    def remove(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._loop.remove_signal_handler(number)

    def _stop(self) -> None:
        if self._engine.stopping.is_set():
            self._engine.kill_now()
        self._engine.stopping.set()
