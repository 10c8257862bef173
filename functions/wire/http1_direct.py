"""A large body, received straight into the buffer that it will be read from. Part of `http1`.

As a rule a body arrives in pieces, each copied out of the event loop's own buffer, and is joined of
them: two copies. A handler that takes views (`Server.takes_views`) is spared both. While such a
body arrives, this is the transport's protocol.
"""

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from functions.wire.http1_connection import Connection

LEAST_BYTES = 131072
"""Yet to come; for less the detour is not worth it."""

_TRUST = 16
"""A buffer is made for up to this many times what has arrived: claims cost the sender something."""


def is_worth_it(length: int, arrived: int) -> bool:
    """Whether a body of `length` bytes is to be received in place."""
    return length - arrived >= LEAST_BYTES and length <= _TRUST * arrived


class DirectBody(asyncio.BufferedProtocol):
    """Takes the place of its connection until the body is there."""

    def __init__(self, connection: "Connection", length: int, start: bytes) -> None:
        self._connection = connection
        self._view = memoryview(bytearray(length))
        self._view[: len(start)] = start
        self._filled = len(start)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled == len(self._view):
            self._connection.received_directly(self._view.toreadonly())

    def eof_received(self) -> bool:
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
