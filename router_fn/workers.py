"""Several processes on one port: gunicorn manages them, each runs our own server on its sockets.
WEB_CONCURRENCY > 1.

Loaded only then. gunicorn binds, forks, watches heartbeats, replaces what dies and passes signals
on; of its HTTP nothing is used.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker

from functions.wire import container, forked, native
from router_fn import loops
from router_fn.settings import Settings

logger = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
GRACE_S = 5
"""Seconds beyond our own drain before gunicorn loses patience with a worker."""


class Serving(Protocol):
    """A graph being served: the router of either grammar."""

    async def start(self, sockets: Sequence[socket.socket] = ()) -> None: ...

    async def stop(self) -> bool: ...


class PlainLogger(Logger):  # type: ignore[misc]
    """gunicorn's messages through our own JSON lines instead of handlers of its own."""

    def setup(self, cfg: Any) -> None:
        for log in (self.error_log, self.access_log):
            log.propagate = True
            log.handlers[:] = []


class RouterWorker(Worker):  # type: ignore[misc]
    """One process: one loop, one router."""

    def load_wsgi(self) -> None:
        """There is no WSGI application here."""

    def init_signals(self) -> None:
        super().init_signals()
        signal.set_wakeup_fd(-1)  # the loop has its own

    def run(self) -> None:
        settings: Settings = self.app.settings
        with asyncio.Runner(loop_factory=loops.loop_factory(settings.loop)) as runner:
            code = runner.run(self._serve(settings))
        sys.exit(code)

    async def _serve(self, settings: Settings) -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        forked.listen(loop, stop.set)
        router = self.app.make(settings)
        await router.start([listener.sock for listener in self.sockets])
        logger.info("worker %d serves; %s", os.getpid(), native.describe())
        while not stop.is_set():
            self.notify()
            if os.getppid() != self.ppid:
                break  # gunicorn's master is gone; nobody would ever stop us
            try:
                await asyncio.wait_for(stop.wait(), HEARTBEAT_S)
            except TimeoutError:
                continue
        draining = loop.create_task(router.stop())
        while not draining.done():
            self.notify()
            await asyncio.wait([draining], timeout=HEARTBEAT_S)
        return container.EXIT_OK


class Application(BaseApplication):  # type: ignore[misc]
    """gunicorn with our worker class and nothing to configure from outside."""

    def __init__(self, make: Callable[[Settings], Serving], settings: Settings) -> None:
        self.make = make
        self.settings = settings
        super().__init__()

    def load_config(self) -> None:
        settings = self.settings
        grace = int(settings.drain_delay_s + settings.drain_timeout_s) + GRACE_S
        options: dict[str, Any] = {
            "bind": f"{settings.host or '[::]'}:{settings.port}",
            "workers": settings.workers,
            "worker_class": RouterWorker,
            "graceful_timeout": grace,
            "timeout": 60,
            "backlog": 1024,
            "logger_class": PlainLogger,
            "control_socket_disable": True,
            "worker_tmp_dir": "/dev/shm" if os.access("/dev/shm", os.W_OK) else None,  # noqa: S108
        }
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> None:
        """Nothing: workers build their own router."""


def run(make: Callable[[Settings], Serving], settings: Settings) -> int:
    """Serve what `make` makes in each worker until SIGTERM. gunicorn leaves by SystemExit; its code
    is returned."""
    forked.hold_signals()
    try:
        Application(make, settings).run()
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return container.EXIT_OK
