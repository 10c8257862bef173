"""The gunicorn door: listener, worker processes, signals, drain and exit codes."""

import dataclasses
import gc
import itertools
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger

from . import artifacts, forks
from .errors import FunctionsError
from .settings import Settings
from .wire import container, forked

if TYPE_CHECKING:
    from .model import ServedModel
    from .sharing import Board

logger = logging.getLogger(__name__)

HANG_S = 120
"""An event loop that does not turn for this long is killed and replaced by gunicorn."""


MAX_DEATHS_BEFORE_READY = 3
"""Workers that may die in a row before being ready (killed for memory, crashed in a library)."""

_READY_REPORT = b"\1ready"


def _reason(error: BaseException) -> str:
    """One line for an operator: our errors say enough, others are named."""
    return str(error) if isinstance(error, FunctionsError) else f"{type(error).__name__}: {error}"


class JsonLogger(Logger):  # type: ignore[misc]
    """gunicorn's messages, through the process's own logging configuration."""

    def setup(self, cfg: Any) -> None:
        self.loglevel = logging.INFO
        self.error_log.handlers = []
        self.error_log.propagate = True
        self.error_log.setLevel(logging.WARNING)  # its INFO is about itself; ours says what matters
        self.access_log.handlers = []
        self.access_log.propagate = False

    def reopen_files(self) -> None:
        """Logs go to stderr only."""

    def close_on_exec(self) -> None:
        """Logs go to stderr only."""

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """No access log."""


class OwnArbiter(Arbiter):  # type: ignore[misc]
    """gunicorn's master, without its exit codes of workers that mean "stop the server": user code
    may end a worker with any code. What a worker cannot do, it reports (`report_failure`)."""

    WORKER_BOOT_ERROR = APP_LOAD_ERROR = -1


class Application(BaseApplication):  # type: ignore[misc]
    """gunicorn, configured by our settings only (no config files, no command line of its own)."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # Workers tell the master, over this pipe, that they are ready or why they cannot be.
        self._reports_read, self._reports_write = os.pipe()
        os.set_blocking(self._reports_read, False)
        os.set_blocking(self._reports_write, False)
        self._failure = ""
        self.preloaded: dict[str, ServedModel] = {}
        self._deaths_before_ready = 0
        self.at_start: list[str] | None = None
        if settings.repository:
            directories = artifacts.model_directories(settings.repository)
            self.at_start = [directory.name for directory in directories]
        self.board: Board | None = None
        if settings.workers > 1:
            from . import sharing

            self.board = sharing.Board(settings.workers)
        super().__init__()

    def run(self) -> None:
        """Serve. Raises SystemExit at the end."""
        forked.hold_signals()
        OwnArbiter(self).run()

    def load_config(self) -> None:
        settings = self.settings
        values: dict[str, Any] = {
            "bind": self.binds(),
            "workers": settings.workers,
            "worker_class": "functions.worker.FunctionsWorker",
            "timeout": HANG_S,
            "graceful_timeout": int(settings.drain_s) + 2,
            "logger_class": JsonLogger,
            "backlog": 2048,
            "control_socket_disable": True,
            "proc_name": f"functions {settings.model_name}",
            "when_ready": self._when_ready,
            "pre_fork": self._pre_fork,
            "child_exit": self._child_exit,
        }
        for key, value in values.items():
            self.cfg.set(key, value)

    def binds(self) -> list[str]:
        """Addresses in the order the worker expects: the main port, then the metrics port."""
        settings = self.settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        # With gRPC alone on the port, HTTP (health, metrics) goes to a port of the system's choice.
        main = 0 if settings.grpc_only_port else settings.port
        found = [f"{host}:{main}"]
        if settings.metrics_port >= 0:
            found.append(f"{host}:{settings.metrics_port}")
        return found

    def load(self) -> Any:
        """There is no WSGI app to load: the worker class serves."""
        return None

    def _when_ready(self, arbiter: Any) -> None:
        """In the master: the listeners are bound, no worker has been forked."""
        for listener in arbiter.LISTENERS:
            host, port = listener.sock.getsockname()[:2]
            logger.info("listening on %s:%s", host, port, extra={"host": host, "port": port})
        if self.settings.workers > 1:
            from . import serving  # noqa: F401  (once, for all of them)
        if self.settings.preload:
            self._preload()
        # What exists now is never looked at again: the collector's marks would unshare the pages
        # that this process has in common with its workers.
        gc.freeze()

    def _preload(self) -> None:
        """Build every model once; the workers inherit them and share their memory.

        Until this is done connections wait in the listener's queue. Raises SystemExit.
        """
        from .repository import Repository

        repository = Repository(self.settings)
        forks.claim()
        handlers = {number: signal.getsignal(number) for number in forks.SIGNALS}
        for name, entry in repository.entries.items():
            try:
                self.preloaded[name] = repository.build(entry.source)
            except (Exception, SystemExit) as error:
                logger.error("loading failed", exc_info=error)
                self._failure = _reason(error)
                raise SystemExit(1) from error
        for number, handler in handlers.items():
            # Here user code runs on the main thread, where it can take the server's signals.
            signal.signal(number, handler)
        gc.collect()

    def _pre_fork(self, arbiter: Any, worker: Any) -> None:
        """In the master: the new worker takes the lowest slot that is free."""
        taken = {sibling.slot for sibling in arbiter.WORKERS.values()}
        worker.slot = next(slot for slot in itertools.count() if slot not in taken)

    def _child_exit(self, arbiter: Any, worker: Any) -> None:
        """In the master: a worker is gone. One that never gets ready is not started for ever."""
        if self.board is not None:
            self.board.clear(worker.slot)
        was_ready = self._read_reports()
        if self._failure:
            raise HaltServer(self._failure, 1)
        if was_ready:
            self._deaths_before_ready = 0
            return
        self._deaths_before_ready += 1
        if self._deaths_before_ready >= MAX_DEATHS_BEFORE_READY and worker.alive:
            raise HaltServer("workers die before they are ready", 1)

    def _read_reports(self) -> bool:
        """Collect what workers reported since the last time; True if one got ready."""
        try:
            reports = os.read(self._reports_read, 65536).split(b"\0")
        except BlockingIOError:
            return False
        for report in reports:
            if report and report != _READY_REPORT and not self._failure:
                self._failure = report.decode("utf-8", "replace")
        return _READY_REPORT in reports

    def report_ready(self) -> None:
        """In a worker: every model is loaded."""
        os.write(self._reports_write, _READY_REPORT + b"\0")

    def report_failure(self, reason: str) -> None:
        """In a worker: keep the reason for the master's last line."""
        os.write(self._reports_write, reason.encode("utf-8", "replace")[:4000] + b"\0")

    def failure(self) -> str:
        """In the master: the first reason a worker gave, or an empty string."""
        self._read_reports()
        return self._failure


def run(settings: Settings) -> int:
    """Serve until a signal. The exit code: 0 drained, 1 a model or the listener failed."""
    problem = port_problem(settings)
    if problem:
        logger.critical("%s", problem)
        write_termination_log(problem)
        return container.EXIT_FAILED
    shared = tempfile.mkdtemp(prefix="turnout-functions-") if settings.workers > 1 else ""
    try:
        return _run(dataclasses.replace(settings, shared_dir=shared))
    finally:
        if shared:
            shutil.rmtree(shared, ignore_errors=True)


def port_problem(settings: Settings) -> str:
    """Why the listener cannot be bound, or an empty string: gunicorn would try for five seconds."""
    serves_grpc = any(protocol.startswith("grpc") for protocol in settings.protocol)
    ports = {
        "PORT": settings.port,
        "FUNCTIONS_METRICS_PORT": settings.metrics_port,
        "FUNCTIONS_GRPC_PORT": settings.grpc_port if serves_grpc else 0,
    }
    if settings.grpc_only_port:
        del ports["FUNCTIONS_GRPC_PORT"]  # it is PORT
    for name, port in ports.items():
        if port <= 0:
            continue
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if name == "FUNCTIONS_GRPC_PORT":  # workers share it
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                probe.bind((settings.host, port))
            except OSError as exc:
                return (
                    f"cannot listen on {settings.host}:{port}: {exc.strerror or exc}; set"
                    f" {name} to a free one"
                )
    return ""


def _run(settings: Settings) -> int:
    application = Application(settings)
    try:
        application.run()
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    if code == 0:
        return container.EXIT_OK
    reason = application.failure()
    if reason:
        message = f"model {settings.model_name} failed to load: {reason}"
    else:
        message = f"the server stopped (code {code}): its workers died before they were ready"
    logger.critical("%s", message)
    write_termination_log(message)
    return container.EXIT_FAILED


def write_termination_log(message: str) -> None:
    """Kubernetes shows this text in `kubectl describe`; outside a pod the file does not exist."""
    if os.path.exists(container.TERMINATION_LOG):
        try:
            with open(container.TERMINATION_LOG, "a", encoding="utf-8") as file:
                file.write(message + "\n")
        except OSError as exc:
            sys.stderr.write(f"functions: cannot write {container.TERMINATION_LOG}: {exc}\n")
