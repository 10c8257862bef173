"""User code may fork. A child that does its work and ends is nobody's business; one that returns
from the hook as its parent does would go on as a second server on the same sockets, with whatever
locks other threads held. It is ended where it comes back. Nor does it share the server's signals: a
SIGTERM to it (`multiprocessing` ends its processes so) would be written to the pipe that wakes the
server's loop, and stop the server instead.
"""

import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

SIGNALS = (
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1,
    signal.SIGUSR2, signal.SIGWINCH, signal.SIGTTIN, signal.SIGTTOU,
)  # fmt: skip
"""What gunicorn's master and the workers listen to."""

_server = 0
"""Process id of the worker (or of the master, while it loads); 0: not claimed yet."""

_MESSAGE = (
    b'{"level":"ERROR","logger":"functions.forks","message":"a process forked by user code came'
    b' back to the server and was ended: let it end itself, with os._exit"}\n'
)


def claim(loop: "asyncio.AbstractEventLoop | None" = None) -> None:
    """This process is the server. `loop`: a child that comes back to it ends, too."""
    global _server
    _server = os.getpid()
    if loop is None:
        return

    mask = threading.local()

    def before() -> None:  # a signal that comes at once must find the child's own handlers
        mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask.before)

    def in_child() -> None:
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        loop.call_soon(end_if_child)
        in_parent()

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)


def end_if_child() -> None:
    """Called where user code returns; does not return in a process that it forked."""
    if _server and os.getpid() != _server:
        os.write(2, _MESSAGE)
        os._exit(70)
