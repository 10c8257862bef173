"""What one file's transfer consists of: the file, its stream or parts, and who waits for it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from . import digest, retry
from .errors import Changed, DestinationError, LimitExceeded, TransferFailed
from .items import Item, Source
from .staging import FileRecord, Staging

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .parts import Promised
    from .settings import Settings
    from .wire import Response


class Batch:
    """The files of one destination that are under way; workers tell it how each of them ends."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = 0
        self._records: list[FileRecord] = []
        self._changed_error: Changed | None = None

    def add(self) -> None:
        with self._changed:
            self._open += 1

    def done(self, record: FileRecord) -> None:
        with self._changed:
            self._open -= 1
            self._records.append(record)
            if not self._open:
                self._changed.notify_all()

    def changed(self, error: Changed) -> None:
        """The source changed under the download: it must be listed again."""
        with self._changed:
            self._open -= 1
            self._changed_error = error
            self._changed.notify_all()

    def wait(self, control: retry.Control) -> list[FileRecord]:
        """All records; Changed when the source must be listed again, Cancelled when all failed.

        The other files of the batch are waited for in any case: they are needed again.
        """
        with self._changed:
            while self._open:
                self._changed.wait(0.05)
                if control.stopped.is_set():
                    raise retry.Cancelled
            if self._changed_error is not None:
                raise self._changed_error
            return self._records


class RangesIgnored(Exception):
    """The server answered a range request with the whole object."""


class File:
    """One file being downloaded."""

    __slots__ = (
        "abandoned", "active", "began", "corrupt", "crcs", "ending", "fd", "got", "item", "key",
        "lock", "lock_fd", "look_at", "part_bytes", "parts", "path", "pending", "promised",
        "receiver", "source", "staging",
    )  # fmt: skip

    def __init__(self, source: Source, item: Item, staging: Staging, receiver: Batch) -> None:
        self.source = source
        self.item = item
        self.staging = staging
        self.receiver = receiver
        self.abandoned = False
        self.active = 0
        """Parts under way."""
        self.ending: Changed | RangesIgnored | None = None
        """Why no further part is to be started."""
        self.path: Path = staging.tree / item.path
        self.fd = -1
        self.lock = threading.Lock()
        self.parts = 0
        self.pending: list[tuple[int, int]] = []
        """Runs not begun yet, as (first part, count); the last is the next."""
        self.promised: Promised | None = None
        self.got = 0
        """Bytes of its ranges that have come since the last look."""
        self.look_at = 0.0
        """When to look next whether more connections would help."""
        self.part_bytes = 0
        self.crcs: dict[int, int] = {}
        self.corrupt = 0
        self.began = 0.0
        self.key = ""
        self.lock_fd = -1

    @property
    def where(self) -> str:
        return f"{self.source.shown} ({self.item.path})"

    def restart(self) -> None:
        self.staging.forget(self.item.path)
        self.crcs.clear()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def unlock(self) -> None:
        """Let other initializers of the node have this item."""
        if self.lock_fd >= 0:
            os.close(self.lock_fd)
            self.lock_fd = -1

    def __del__(self) -> None:
        # Parts of an abandoned file may still be at work in other threads: the descriptor goes
        # with the last of them, never earlier (its number could be reused under a writer).
        self.close()
        self.unlock()


class Stream:
    """A file written in order, with its checksum."""

    def __init__(self, file: File, settings: Settings) -> None:
        self._file = file
        self._mode = settings.verify
        self._limit = settings.max_bytes or sys.maxsize
        """Known sizes were judged while listing; a body without a length is judged as it comes."""
        self._size = sys.maxsize if file.item.size is None else file.item.size
        self.position = 0
        self.check: tuple[str, str] | None = None
        self._hasher: digest.Hasher = digest.Crc32()
        self._name = "crc32"

    def begin(self, checks: Mapping[str, str]) -> None:
        """The headers have told which checksum to compute."""
        size = self._file.item.size
        checks = {k: v for k, v in checks.items() if k != "gitsha1" or size is not None}
        self.check = digest.choose(checks, self._mode)
        self._name = self.check[0] if self.check else "crc32"
        hasher = digest.new_for(self._name, size or 0)
        if hasher is None:
            raise DestinationError(str(self._file.path), f"cannot compute {self._name}")
        self._hasher = hasher

    def write(self, data: memoryview) -> None:
        if self.position + len(data) > self._size:  # at once: it might never end
            raise Changed(self._file.where)
        self._hasher.update(data)
        write_all(self._file.fd, data, self.position)
        self.position += len(data)
        if self.position > self._limit:
            what = f"{self._file.where}: more than {self._limit:,} bytes"
            raise LimitExceeded(what, "STORAGE_MAX_BYTES")

    def restart(self) -> None:
        os.ftruncate(self._file.fd, 0)
        self.position = 0

    def digest(self) -> str:
        return f"{self._name}:{self._hasher.hexdigest()}"


class Run:
    """Consecutive parts of a file that come in one answer; each has its own CRC."""

    def __init__(self, file: File, first: int, stop: int, done: Callable[[int, int], None]) -> None:
        self._file = file
        self._index = first
        self._done = done
        """Told index and CRC of every part whose last byte has been written."""
        self._crc = digest.Crc32()
        self.position = first * file.part_bytes
        self.stop = stop

    def write(self, data: memoryview) -> None:
        data = data[: self.stop - self.position]
        while data:
            end = min(self.stop, (self._index + 1) * self._file.part_bytes)
            now = data[: end - self.position]
            self._crc.update(now)
            write_all(self._file.fd, now, self.position)
            self.position += len(now)
            data = data[len(now) :]
            if self.position == end:
                self._done(self._index, self._crc.value)
                self._index += 1
                self._crc = digest.Crc32()


def write_all(fd: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(fd, data, offset)
        data = data[written:]
        offset += written


def check_version(file: File, response: Response) -> None:
    """Every single answer must be about the version that was listed."""
    for name, expected in file.item.validators.items():
        if response.headers.get(name, expected) != expected:
            raise Changed(file.where)


def total_length(response: Response, start: int, where: str) -> int | None:
    """Size of the whole object according to the answer; None when it does not say."""
    if response.status == 200:
        return response.length
    text = response.headers.get("content-range", "")
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit != "bytes" or not first.isdecimal() or int(first) != start:
        raise TransferFailed(where, f"asked from byte {start}, got Content-Range {text!r}")
    return int(total) if total.isdecimal() else None
