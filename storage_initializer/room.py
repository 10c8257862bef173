"""Whether what is listed fits: into `STORAGE_MAX_BYTES`, and onto the volumes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from .destinations import Destination
from .errors import LimitExceeded, NoSpace
from .progress import Progress
from .staging import existing


class Room:
    """The space that all destinations of a fetch need together; several may share one volume."""

    def __init__(self, max_bytes: int, progress: Progress) -> None:
        self._max_bytes = max_bytes
        self._progress = progress
        self._lock = threading.Lock()
        self._needed: dict[Path, tuple[int, int]] = {}
        """Destination → (its device, bytes it needs)."""
        self._surely_free: dict[int, int] = {}
        """Device → bytes for which there was room at the last look, with much to spare."""

    def check(self, destination: Destination, total: int, needed: int) -> None:
        """`total` bytes are wanted altogether, `needed` of them are not on the volume yet."""
        limit = self._max_bytes
        if limit and total > limit:
            raise LimitExceeded(
                f"{', '.join(destination.shown)}: more than {limit:,} bytes", "STORAGE_MAX_BYTES"
            )
        with self._lock:
            place = destination.path
            known = self._needed.get(place)
            device = known[0] if known else existing(place).stat().st_dev
            self._needed[place] = device, needed
            together = sum(size for where, size in self._needed.values() if where == device)
            if together < self._surely_free.get(device, 0):
                return  # thousands of small files: not a question each
            status = os.statvfs(existing(place))
            free = status.f_bavail * status.f_frsize
            if together - self._progress.bytes_done > free:
                raise NoSpace(str(place), together, free)
            self._surely_free[device] = together + (free - together) // 8
