"""The gunicorn door: listener, worker, signals, drain and exit codes. One serving process.

One process, because what has been dealt with and what is in flight is known per process; a sink
that needs more is scaled by Knative, and then keeps its journal in a file or a bucket.
"""

import logging
from collections.abc import Callable
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from functions.wire import container, forked

from .settings import ServerSettings

logger = logging.getLogger(__name__)

HANG_S = 120
"""A worker whose main thread does not turn for this long is killed and replaced by gunicorn."""


class JsonLogger(Logger):  # type: ignore[misc]
    """gunicorn's messages, through the process's own logging configuration."""

    def setup(self, cfg: Any) -> None:
        self.loglevel = logging.INFO
        self.error_log.handlers = []
        self.error_log.propagate = True
        self.error_log.setLevel(logging.WARNING)
        self.access_log.handlers = []
        self.access_log.propagate = False

    def reopen_files(self) -> None:
        """Logs go to stderr only."""

    def close_on_exec(self) -> None:
        """Logs go to stderr only."""

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """No access log: events are logged by those who know what they are."""


class Application(BaseApplication):  # type: ignore[misc]
    """gunicorn, configured by our settings only (no config files, no command line of its own)."""

    def __init__(
        self, settings: ServerSettings, make_front: Callable[[], Any], max_body_bytes: int
    ) -> None:
        self.settings = settings
        self.make_front = make_front
        """Called in the worker: everything with threads, locks or sockets is made after the
        fork."""
        self.max_body_bytes = max_body_bytes
        super().__init__()

    def load_config(self) -> None:
        values: dict[str, Any] = {
            "bind": [f"0.0.0.0:{self.settings.port}"],
            "workers": 1,
            "worker_class": "events.worker.EventsWorker",
            "timeout": HANG_S,
            "graceful_timeout": int(self.settings.drain_s) + 2,
            "logger_class": JsonLogger,
            "backlog": 2048,
            "control_socket_disable": True,
            "when_ready": _when_ready,
        }
        for key, value in values.items():
            self.cfg.set(key, value)

    def load(self) -> Any:
        """There is no WSGI app to load: the worker's front serves."""
        return None


def _when_ready(arbiter: Any) -> None:
    for listener in arbiter.LISTENERS:
        host, port = listener.sock.getsockname()[:2]
        logger.info("listening on %s:%s", host, port, extra={"host": host, "port": port})


def run(settings: ServerSettings, make_front: Callable[[], Any], max_body_bytes: int) -> int:
    """Serve until a signal; the exit code: 0 drained, 1 the listener or the application failed."""
    forked.hold_signals()
    try:
        Application(settings, make_front, max_body_bytes).run()
    except SystemExit as exit_:
        if exit_.code not in (0, None):
            logger.critical("the server stopped (code %s)", exit_.code)
            return container.EXIT_FAILED
    return container.EXIT_OK
