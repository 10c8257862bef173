"""Progress of a fetch: counters, and the thread that shows them (a bar or JSON lines)."""

from __future__ import annotations

import sys
import threading
import time

from .logs import Log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

logger = Log(__name__)


class Progress:
    """Counters shared by all threads. Bytes counted here came over the wire or were copied."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.began = time.monotonic()
        self.bytes_total = 0
        self.bytes_done = 0
        self.files_total = 0
        self.files_done = 0
        self.bytes_skipped = 0
        self.listed = False

    def expect(self, files: int, size: int) -> None:
        with self._lock:
            self.files_total += files
            self.bytes_total += size

    def add(self, count: int) -> None:
        with self._lock:
            self.bytes_done += count

    def file_done(self) -> None:
        with self._lock:
            self.files_done += 1

    def skip(self, size: int) -> None:
        """A file that needs no download: staged, published or cached before."""
        with self._lock:
            self.files_done += 1
            self.bytes_skipped += size

    def from_cache(self, size: int) -> None:
        with self._lock:
            self.bytes_skipped += size

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.began

    def facts(self, speed: float) -> dict[str, object]:
        """The progress as log keys; `eta_s` is None until the total is known."""
        done = self.bytes_done + self.bytes_skipped
        left = max(0, self.bytes_total - done)
        eta = round(left / speed, 1) if speed > 0 and self.listed else None
        return {
            "bytes": done,
            "bytes_total": self.bytes_total if self.listed else None,
            "files": self.files_done,
            "files_total": self.files_total if self.listed else None,
            "mb_per_s": round(speed / 1e6, 1),
            "eta_s": eta,
        }


class Reporter:
    """Shows a `Progress` every `interval_s` until closed: a bar on a terminal, else log lines."""

    def __init__(
        self, progress: Progress, interval_s: float, *, stream: TextIO | None = None
    ) -> None:
        self._progress = progress
        self._stream = stream or sys.stderr
        # Without any stderr (closed before the start) there is nobody to show a bar to.
        self._bar = self._stream is not None and self._stream.isatty()
        self._interval_s = min(interval_s, 0.2) if self._bar and interval_s else interval_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Reporter:
        if self._interval_s > 0:
            self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)
        if self._bar and self._thread is not None:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _run(self) -> None:
        last, last_at = self._progress.bytes_done, time.monotonic()
        speed = 0.0
        while not self._stop.wait(self._interval_s):
            now, done = time.monotonic(), self._progress.bytes_done
            current = (done - last) / (now - last_at)
            speed = current if not speed else 0.7 * speed + 0.3 * current
            last, last_at = done, now
            if self._bar:
                self._stream.write("\r" + bar(self._progress, speed) + "\x1b[K")
                self._stream.flush()
            else:
                logger.info("fetching", extra=self._progress.facts(speed))


def bar(progress: Progress, speed: float, width: int = 30) -> str:
    """One line: `[####----]  45 %  1.2 GB of 2.6 GB  3/7 files  311 MB/s  ETA 0:04`."""
    facts = progress.facts(speed)
    done, total = progress.bytes_done + progress.bytes_skipped, progress.bytes_total
    share = min(1.0, done / total) if total and progress.listed else 0.0
    filled = int(share * width)
    eta = facts["eta_s"]
    ends = f"  ETA {int(eta) // 60}:{int(eta) % 60:02d}" if isinstance(eta, float) else ""
    of_total = f" of {human(total)}" if progress.listed else ""
    files = f"{progress.files_done}/{progress.files_total if progress.listed else '?'} files"
    return (
        f"[{'#' * filled}{'-' * (width - filled)}] {share:4.0%}  {human(done)}{of_total}  "
        f"{files}  {speed / 1e6:.0f} MB/s{ends}"
    )


def human(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
