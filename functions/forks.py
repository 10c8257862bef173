"""User code may fork. A child that does its work and ends is nobody's business; one that returns
from the hook as its parent does would go on as a second server on the same sockets, with whatever
locks other threads held. It is ended where it comes back.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

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
    if loop is not None:
        os.register_at_fork(after_in_child=lambda: loop.call_soon(end_if_child))


def end_if_child() -> None:
    """Called where user code returns; does not return in a process that it forked."""
    if _server and os.getpid() != _server:
        os.write(2, _MESSAGE)
        os._exit(70)
