"""Ports for pods, unique on this machine while they are held, whoever runs an engine.

Ports come from below the ephemeral range, so no outgoing connection takes them by chance. Holding
one means holding an abstract Unix socket named after it: it needs no file and disappears with the
engine.
"""

import os
import random
import socket
from collections.abc import Collection

from .errors import EngineError

FIRST, LAST = 20000, 32000
_TRIES = 400


class PortLease:
    """One port, until `release`."""

    __slots__ = ("_lock", "port")

    def __init__(self, port: int, lock: socket.socket) -> None:
        self.port = port
        self._lock = lock

    def release(self) -> None:
        self._lock.close()


def lease(chooser: random.Random | None = None, *, avoid: Collection[int] = ()) -> PortLease:
    """A port nobody listens on and no other engine has leased, and none of `avoid`."""
    choose = chooser or random.SystemRandom()
    for _ in range(_TRIES):
        port = choose.randint(FIRST, LAST)
        if port in avoid:
            continue
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            lock.bind(f"\0turnout-port-{os.getuid()}-{port}")
            if _is_free(port):
                return PortLease(port, lock)
        except OSError:
            pass
        lock.close()
    raise EngineError(f"no free TCP port between {FIRST} and {LAST}: too many services at once?")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - bound for a moment, never listening
        except OSError:
            return False
    return True
