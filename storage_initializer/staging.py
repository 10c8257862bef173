"""The staging directory: where files are before they are published, and what is known of them.

Layout, on the same file system as the destination so that publishing is renaming:

    STAGING/lock       flock: one initializer at a time works on a destination
    STAGING/journal    append-only JSON lines: finished files, finished parts of big files
    STAGING/tree/      the files, at their final relative paths
    STAGING/replaced   what the destination may hold while it is replaced (entry by entry)

STAGING is a hidden sibling of the destination when that can be renamed as a whole, else a hidden
directory inside it (mount points). A line is written after the bytes it vouches for, with one
`write`, so a killed process leaves a journal that is true as far as it goes; a torn last line is
ignored. Another boot of the node throws the staging away (unwritten page cache), another source
or filter does too.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import threading
import time
from collections.abc import Collection
from pathlib import Path

from .errors import DestinationError, from_os_error
from .items import STAGING_NAME
from .logs import Log
from .records import Record
from .retry import Control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

logger = Log(__name__)

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
        self.replaced = root / "replaced"
        self.reused = False
        """Whether the tree may hold what another run, or another listing, has put there."""
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
        told = False
        while self._lock_fd < 0:
            self.root.mkdir(parents=True, exist_ok=True)
            try:
                self._try_lock()
            except FileNotFoundError:
                pass  # its last holder was just removing it
            except BlockingIOError:
                state = f"another initializer is at work in {self.root}"
                if not told:
                    logger.info("waiting: %s", state)
                told = True
                control.check(state)
                time.sleep(LOCK_POLL_S)

    def _try_lock(self) -> None:
        """Raises BlockingIOError when somebody else holds the lock, FileNotFoundError when it
        vanished under us, OSError where there are no locks: they would be waited for in vain."""
        fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(self.root / "lock").st_ino != os.fstat(fd).st_ino:
                raise FileNotFoundError(errno.ENOENT, "removed meanwhile", str(self.root))
        except OSError:
            os.close(fd)
            raise
        self._lock_fd = fd

    @classmethod
    def sweep(cls, dest: Path) -> None:
        """Remove what a run that was killed after its publication has left of its staging."""
        for root, inside in ((dest / STAGING_NAME, True), (_sibling(dest), False)):
            if root.is_dir():
                with contextlib.suppress(OSError):  # in use, or read-only
                    staging = cls(root, dest, inside=inside)
                    staging._try_lock()
                    staging.remove()

    def _load(self, identity: str) -> None:
        """Read the journal; start afresh when it is about something else."""
        header = {"format": FORMAT, "identity": identity, "boot": boot_id()}
        lines = self._journal_lines()
        if not lines or lines[0] != header or not self._learn(lines[1:]):
            self._clear({"lock", "replaced"})
            self.files.clear()
            self._parts.clear()
            self._worth_keeping = False
            lines = []
        self.reused = bool(lines)
        self.tree.mkdir(exist_ok=True)
        self._journal_fd = os.open(
            self.root / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        if not lines:
            self._append(header)
        else:
            self._append({})  # ends a torn last line

    def _learn(self, lines: list[dict[str, Any]]) -> bool:
        """What the journal tells; False when it is none of ours: then nothing of it is believed."""
        try:
            for line in lines:
                if "file" in line:
                    record = FileRecord(*line["file"])
                    self.files[record.path] = record
                elif "part" in line:
                    path, version, size, part_bytes, index, crc = line["part"]
                    known = self._parts.get(path)
                    if known is None or known[:3] != (version, size, part_bytes):
                        known = self._parts[path] = (version, size, part_bytes, {})
                    known[3][int(index)] = int(crc)
                    self._worth_keeping = True
                elif "forget" in line:
                    self.files.pop(line["forget"], None)
                    self._parts.pop(line["forget"], None)
        except (TypeError, ValueError):
            return False
        return True

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

    def _clear(self, kept: Collection[str]) -> None:
        for entry in self.root.iterdir():
            if entry.name in kept:
                continue
            if entry.is_dir() and not entry.is_symlink():
                remove_tree(entry)
            else:
                entry.unlink()

    def _append(self, line: dict[str, Any]) -> None:
        data = b"\n" if not line else json.dumps(line, separators=(",", ":")).encode() + b"\n"
        with self._write_lock:
            while data:  # a volume that is about to be full takes a part of it, then refuses
                data = data[os.write(self._journal_fd, data) :]

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

    def reclaim(self, path: str) -> int:
        """Bytes of the volume that an earlier attempt at this file occupies, to be overwritten.

        What is linked from elsewhere (a blob of the node cache) is removed, never written through.
        """
        if not self.reused:
            return 0
        place = self.tree / path
        self._make_way(path, place)
        try:
            status = place.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                return status.st_blocks * 512
            if not stat.S_ISDIR(status.st_mode):
                place.unlink()
        except FileNotFoundError:
            pass
        return 0

    def _make_way(self, path: str, place: Path) -> None:
        """A file of an earlier listing may be where a directory is to be, or the reverse."""
        parts = path.split("/")
        for depth in range(1, len(parts)):
            above = self.tree.joinpath(*parts[:depth])
            if above.is_symlink() or above.is_file():
                above.unlink()
                self.forget("/".join(parts[:depth]))
        if place.is_dir() and not place.is_symlink():
            made = list(self._made)  # of this run: then the source has both, which is told later
            if not any(directory == path or directory.startswith(f"{path}/") for directory in made):
                remove_tree(place)

    def prune(self, files: Collection[str], directories: Collection[str]) -> None:
        """Remove from the tree what is not wanted (any more): objects that the source had when an
        earlier run or listing staged them, unfinished files, directories without a file."""
        wanted = {directory.rstrip("/") for directory in directories}
        for path in [*files, *wanted]:
            while path := os.path.dirname(path):
                wanted.add(path)
        for directory, folders, names in os.walk(self.tree, topdown=False):
            below = os.path.relpath(directory, self.tree)
            for name in [*names, *folders]:
                path = name if below == "." else f"{below}/{name}"
                here = os.path.join(directory, name)
                if os.path.isdir(here) and not os.path.islink(here):
                    if path not in wanted:
                        os.rmdir(here)
                elif path not in files:
                    os.unlink(here)

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
        """After publication: nothing of the staging stays. The lock goes last, and with it the
        right to remove anything: from then on the directory may be another initializer's."""
        with contextlib.suppress(OSError):
            self._clear({"lock"})
        with contextlib.suppress(OSError):
            (self.root / "lock").unlink()
            self.root.rmdir()
        self.close()

    def leave(self) -> None:
        """After a failure: what was achieved stays for a later run; nothing leaves nothing."""
        nothing = not (self.files or self._worth_keeping or self.replaced.exists())
        if self._lock_fd >= 0 and nothing:
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
    sibling = _sibling(dest)
    if inside.exists():
        return inside, True
    parent = existing(dest.parent)
    try:
        if dest.exists():
            if any(dest.iterdir()) or _is_mount(dest):
                return inside, True
            if dest.stat().st_dev != parent.stat().st_dev:
                return inside, True
        if not os.access(parent, os.W_OK | os.X_OK):
            return inside, True
    except OSError:
        return inside, True
    return sibling, False


def existing(path: Path) -> Path:
    """`path`, or the nearest directory above it that is there."""
    while not path.exists():
        path = path.parent
    return path


def _sibling(dest: Path) -> Path:
    return dest.parent / f".{dest.name}{STAGING_NAME}"


def _is_mount(directory: Path) -> bool:
    """`os.path.ismount` sees no bind mount of the same file system (a subPath in its own volume),
    which can be renamed, or renamed into, as little as any other."""
    if os.path.ismount(directory):
        return True
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return False
    name = os.fsencode(directory)
    for byte in (b"\\", b" ", b"\t", b"\n"):  # as the kernel writes them
        name = name.replace(byte, b"\\%03o" % byte[0])
    return any(line.split(b" ")[4:5] == [name] for line in mounts)
