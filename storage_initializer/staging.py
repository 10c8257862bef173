"""The staging directory: where files are before they are published, and what is known of them.

Layout, on the same file system as the destination so that publishing is renaming:

    STAGING/lock       flock: one initializer at a time works on a destination
    STAGING/journal    append-only JSON lines: finished files, finished parts of big files
    STAGING/tree/      the files, at their final relative paths

STAGING is a hidden sibling of the destination when that can be renamed as a whole, else a hidden
directory inside it (mount points). A line is written after the bytes it vouches for, with one
`write`, so a killed process leaves a journal that is true as far as it goes; a torn last line is
ignored. Another boot of the node throws the staging away (unwritten page cache), another source
or filter does too.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from pathlib import Path

from .errors import DestinationError, from_os_error
from .items import STAGING_NAME
from .records import Record
from .retry import Control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMAT = 1
LOCK_POLL_S = 0.1


class FileRecord(Record):
    """A finished, verified file."""

    path: str
    size: int
    version: str
    digest: str
    """`algorithm:hex`, or empty when nothing was computed."""
    mtime_ns: int


def remove_tree(directory: Path, *, ignore_errors: bool = False) -> None:
    """Rare enough to import `shutil` (3 ms) only then."""
    import shutil

    shutil.rmtree(directory, ignore_errors=ignore_errors)


def boot_id() -> str:
    """Identity of this boot of the node (not of the container); empty if unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Staging:
    """An opened and locked staging directory."""

    def __init__(self, root: Path, dest: Path, *, inside: bool) -> None:
        self.root = root
        self.dest = dest
        self.inside = inside
        """Whether `root` lies inside the destination (renames of entries, not of the whole)."""
        self.tree = root / "tree"
        self.files: dict[str, FileRecord] = {}
        self._parts: dict[str, tuple[str, int, int, dict[int, int]]] = {}
        self._made: set[str] = set()
        self._worth_keeping = False
        self._lock_fd = -1
        self._journal_fd = -1
        self._write_lock = threading.Lock()

    @classmethod
    def open(cls, dest: Path, identity: str, control: Control) -> Staging:
        """Create or reopen the staging directory of `dest`, waiting for another holder."""
        root, inside = choose_root(dest)
        staging = cls(root, dest, inside=inside)
        try:
            staging._acquire(control)
            staging._load(identity)
        except OSError as exc:
            staging.close()
            raise from_os_error(exc, str(root)) from exc
        except BaseException:
            staging.close()
            raise
        return staging

    def _acquire(self, control: Control) -> None:
        while True:
            self.root.mkdir(parents=True, exist_ok=True)
            try:
                fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # the last holder is just removing it
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                control.check(f"another initializer is at work in {self.root}")
                time.sleep(LOCK_POLL_S)
                continue
            with contextlib.suppress(FileNotFoundError):
                if os.stat(self.root / "lock").st_ino == os.fstat(fd).st_ino:
                    self._lock_fd = fd
                    return
            os.close(fd)  # locked a file that its last holder has removed meanwhile

    def _load(self, identity: str) -> None:
        """Read the journal; start afresh when it is about something else."""
        header = {"format": FORMAT, "identity": identity, "boot": boot_id()}
        lines = self._journal_lines()
        if not lines or lines[0] != header:
            self._clear()
            lines = []
        self.tree.mkdir(exist_ok=True)
        self._journal_fd = os.open(
            self.root / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        if not lines:
            self._append(header)
        else:
            self._append({})  # ends a torn last line
        for line in lines[1:]:
            if "file" in line:
                record = FileRecord(*line["file"])
                self.files[record.path] = record
            elif "part" in line:
                path, version, size, part_bytes, index, crc = line["part"]
                known = self._parts.get(path)
                if known is None or known[:3] != (version, size, part_bytes):
                    known = self._parts[path] = (version, size, part_bytes, {})
                known[3][index] = crc
                self._worth_keeping = True
            elif "forget" in line:
                self.files.pop(line["forget"], None)
                self._parts.pop(line["forget"], None)

    def _journal_lines(self) -> list[dict[str, Any]]:
        try:
            text = (self.root / "journal").read_bytes()
        except FileNotFoundError:
            return []
        lines = []
        for raw in text.split(b"\n"):
            with contextlib.suppress(ValueError):
                line = json.loads(raw)
                if isinstance(line, dict) and line:
                    lines.append(line)
        return lines

    def _clear(self) -> None:
        for entry in self.root.iterdir():
            if entry.name == "lock":
                continue
            if entry.is_dir() and not entry.is_symlink():
                remove_tree(entry)
            else:
                entry.unlink()

    def _append(self, line: dict[str, Any]) -> None:
        data = b"\n" if not line else json.dumps(line, separators=(",", ":")).encode() + b"\n"
        with self._write_lock:
            os.write(self._journal_fd, data)

    def target(self, path: str) -> Path:
        """Where `path` is staged; its parent directories exist afterwards."""
        parent, _, _ = path.rpartition("/")
        if parent not in self._made:
            try:
                (self.tree / parent).mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as exc:
                raise DestinationError(
                    path, "the source has both a file and a directory of this name"
                ) from exc
            self._made.add(parent)
        return self.tree / path

    def record(self, record: FileRecord) -> None:
        self.files[record.path] = record
        self._append(
            {"file": [record.path, record.size, record.version, record.digest, record.mtime_ns]}
        )

    def forget(self, path: str) -> None:
        self.files.pop(path, None)
        self._parts.pop(path, None)
        self._append({"forget": path})

    def parts(self, path: str, version: str, size: int, part_bytes: int) -> dict[int, int]:
        """Finished parts of this very version: index → CRC-32. Empty version: none is trusted."""
        known = self._parts.get(path)
        if not version or known is None or known[:3] != (version, size, part_bytes):
            return {}
        return dict(known[3])

    def record_part(
        self, path: str, version: str, size: int, part_bytes: int, index: int, crc: int
    ) -> None:
        self._worth_keeping = True
        self._append({"part": [path, version, size, part_bytes, index, crc]})

    def remove(self) -> None:
        """After publication: nothing of the staging stays."""
        try:
            with contextlib.suppress(FileNotFoundError):
                self.tree.rmdir()
            for name in ("journal", "lock"):
                (self.root / name).unlink()
            self.root.rmdir()
        except OSError:  # directories are left, or something unforeseen
            remove_tree(self.root, ignore_errors=True)
        self.close()

    def leave(self) -> None:
        """After a failure: what was achieved stays for a later run; nothing leaves nothing."""
        if self._lock_fd >= 0 and not self.files and not self._worth_keeping:
            self.remove()
        self.close()

    def close(self) -> None:
        """Release the lock; the files stay for a later run."""
        for fd in (self._journal_fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._journal_fd = self._lock_fd = -1


def choose_root(dest: Path) -> tuple[Path, bool]:
    """(staging directory, whether it is inside the destination).

    A sibling is possible when the destination is absent or empty, its parent is writable and on
    the same file system, and it is no mount point; then publishing is one rename.
    """
    inside = dest / STAGING_NAME
    sibling = dest.parent / f".{dest.name}{STAGING_NAME}"
    if inside.exists():
        return inside, True
    parent = dest.parent
    while not parent.exists():
        parent = parent.parent
    try:
        if dest.exists():
            if any(dest.iterdir()) or os.path.ismount(dest):
                return inside, True
            if dest.stat().st_dev != parent.stat().st_dev:
                return inside, True
        if not os.access(parent, os.W_OK | os.X_OK):
            return inside, True
    except OSError:
        return inside, True
    return sibling, False
