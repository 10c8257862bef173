"""Signals of worker processes. gunicorn passes a SIGTERM on once; one that met a worker between its
fork and its own handlers would go into the worker's copy of the master's queue, where nobody looks,
and the worker be killed when the time for its drain is over. Here it waits until it can be taken.
"""

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio  # the master needs none

STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def hold_signals() -> None:
    """In the master, before it forks: workers begin with the signals that stop them held back."""
    master = os.getpid()
    before: set[int] = set()

    def hold() -> None:
        if os.getpid() == master:
            before.clear()
            before.update(signal.pthread_sigmask(signal.SIG_BLOCK, STOP))

    def go_on() -> None:
        if os.getpid() == master:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    os.register_at_fork(before=hold, after_in_parent=go_on)


def listen(loop: "asyncio.AbstractEventLoop", stop: Callable[[], object]) -> None:
    """In a worker: call `stop` for the signals that stop it; what was held back comes now."""
    for number in STOP:
        loop.add_signal_handler(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)
