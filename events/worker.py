"""The gunicorn worker class of this unit: one event loop, the shared HTTP/1.1 server, a front."""

import asyncio
import logging
import os
import signal
import sys
import time
from typing import Any

from gunicorn.workers.base import Worker

from functions.wire import forked, garbage
from functions.wire.http1 import Limits, Server

logger = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
"""How often gunicorn's master is told that the event loop turns."""


class EventsWorker(Worker):  # type: ignore[misc]
    """Serves until SIGTERM, then drains."""

    def load_wsgi(self) -> None:
        """There is no WSGI app for gunicorn: the front calls Flask where it wants pages."""

    def init_signals(self) -> None:
        super().init_signals()
        signal.set_wakeup_fd(-1)  # asyncio has its own

    def run(self) -> None:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(self._serve())
        sys.stdout.flush()
        sys.stderr.flush()
        # Threads that wait for a server that never answers must not keep the process alive.
        os._exit(0)

    async def _serve(self) -> None:
        settings = self.app.settings
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        forked.listen(loop, stop.set)
        front = self.app.make_front()
        limits = Limits(
            max_body_bytes=self.app.max_body_bytes,
            read_timeout_s=60.0,
            response_timeout_s=None,
        )
        server = Server(front, limits)
        await server.listen(sockets=[listener.sock for listener in self.sockets])
        beating = loop.create_task(self._beat(stop))
        garbage.started()
        await stop.wait()
        logger.info("draining")
        deadline = time.monotonic() + settings.drain_s
        await server.drain(settings.drain_s)
        await asyncio.to_thread(front.finish, max(0.0, deadline - time.monotonic()))
        beating.cancel()

    async def _beat(self, stop: asyncio.Event) -> None:
        """Show the master that the loop turns; without a master (killed), finish as if told to."""
        while True:
            self.notify()
            if os.getppid() != self.ppid:
                logger.warning("the master process is gone; stopping")
                stop.set()
                return
            await asyncio.sleep(HEARTBEAT_S)


def _loop_factory() -> Any:
    """uvloop where it is installed, asyncio's own loop otherwise."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
