"""The gunicorn worker class. What it serves with (`serving`) is imported in its own process.

The master only looks after workers, so it knows none of that: memory which it had in common with
them would be written to by both, and so be there twice.
"""

import os
import signal
import sys

from gunicorn.workers.base import Worker


class FunctionsWorker(Worker):  # type: ignore[misc]
    """Serves until SIGTERM, then drains."""

    slot: int
    """Which of the workers this is; given by the master before it forks."""

    def load_wsgi(self) -> None:
        """Nothing to load here: `app.py` is created at the first request that needs it."""

    def init_signals(self) -> None:
        super().init_signals()
        # No wakeup pipe of gunicorn's: asyncio has its own.
        signal.set_wakeup_fd(-1)

    def run(self) -> None:
        from . import serving

        code = serving.run(self)
        sys.stdout.flush()
        sys.stderr.flush()
        # Threads of user code that never return must not keep the process alive.
        os._exit(code)
