"""What containers write: one bounded file per container, rotated once, with a tail kept in memory.

A container that floods its output is slowed down (its pipe fills) instead of filling disk or
engine. A full disk loses log lines, never a pod: what was lost is counted and said once writing
works again.
"""

import asyncio
import logging
import os
from collections import deque
from pathlib import Path
from typing import cast

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 8 * 1024 * 1024
"""A file that would grow beyond this becomes `NAME.log.1` (replacing the previous one)."""

MAX_BYTES_PER_S = 16 * 1024 * 1024
"""A container that writes faster has to wait: about what a disk takes without disturbing others."""

TAIL_LINES = 40
TAIL_LINE_BYTES = 2000


class LogFile(asyncio.Protocol):
    """Reads a container's output pipe (as an asyncio protocol) into `path`."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> None:
        self.path = path
        self.lost_bytes = 0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._max_bytes = max_bytes
        self._tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        self._partial = b""
        self._file = -1
        self._size = 0
        self._transport: asyncio.ReadTransport | None = None
        self._allowance = float(MAX_BYTES_PER_S)
        self._at = asyncio.get_running_loop().time()

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines, long ones cut."""
        recent = [*self._tail, self._partial] if self._partial else list(self._tail)
        return b"\n".join(recent[-lines:]).decode(errors="replace")

    def write_line(self, text: str) -> None:
        """A line of the engine's own in the container's log, such as a restart."""
        self._store(text.encode() + b"\n")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.ReadTransport", transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        self._store(data)
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._allowance = min(
            MAX_BYTES_PER_S, self._allowance + (now - self._at) * MAX_BYTES_PER_S
        ) - len(data)
        self._at = now
        if self._allowance < 0 and self._transport is not None:
            self._transport.pause_reading()
            loop.call_later(-self._allowance / MAX_BYTES_PER_S, self._resume)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if not self.closed.done():
            self.closed.set_result(None)

    def _resume(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def _store(self, data: bytes) -> None:
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop()[-TAIL_LINE_BYTES:]
        self._tail.extend(line[:TAIL_LINE_BYTES] for line in lines[-TAIL_LINES:])
        try:
            if self._file < 0:
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                self._size = os.fstat(self._file).st_size
            if self._size + len(data) > self._max_bytes and self._size:
                self._rotate()
            os.write(self._file, data)
            self._size += len(data)
        except OSError as error:
            if not self.lost_bytes:
                logger.warning("%s: log lines are being lost: %s", self.path, error)
            self.lost_bytes += len(data)

    def _rotate(self) -> None:
        os.close(self._file)
        self._file = -1
        os.replace(self.path, self.path.with_name(self.path.name + ".1"))
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._size = 0


async def open_log(path: Path) -> tuple[LogFile, int]:
    """A log file and the write end of the pipe that feeds it (close it after the spawn)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    read, write = os.pipe2(os.O_CLOEXEC)
    loop = asyncio.get_running_loop()
    _, log = await loop.connect_read_pipe(lambda: LogFile(path), os.fdopen(read, "rb", 0))
    return log, write
