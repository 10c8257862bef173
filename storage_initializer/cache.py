"""The node cache: files that some initializer on this node has fetched before.

Layout below `STORAGE_CACHE_DIR` (a hostPath or a PVC):

    blobs/<digest>        content, named by its SHA-256; mode 0444
    used/<digest>         empty; its mtime is the last use of the blob
    index/<key>           JSON {digest, size, mtime_ns, boot}; key is a hash of what an item is
    locks/<key>           flock: who fetches this item while others wait for it
    lock                  flock: one evicts at a time

Content-addressed: the same weights under two names are kept once. An entry is used only if the
source's version (ETag, generation, commit) is the one that was fetched. Blobs and index entries
appear by rename, so a reader never sees half of one; a blob that somebody evicts while it is being
linked or copied stays readable through the open descriptor. Nothing is flushed to the device, and
a hard link may have been written through: a blob of an earlier boot of the node, or with another
mtime, is read and compared with its name before it is used again.
A cache that fails (full, read-only, damaged) costs speed, never correctness: the file is then
fetched as if there were no cache.
"""

import contextlib
import fcntl
import json
import os
import tempfile
import time
from pathlib import Path

from . import digest, sha256
from .logs import Log
from .providers.local import copy_file
from .retry import Control
from .staging import boot_id

logger = Log(__name__)

WAIT_POLL_S = 0.1


class NodeCache:
    """Look-ups and additions; safe for any number of threads and processes."""

    def __init__(
        self, directory: str, max_bytes: int, control: Control, *, link: bool = False
    ) -> None:
        self._link = link
        self._root = Path(directory)
        self._max_bytes = max_bytes
        self._control = control
        self.hits = 0
        self._told = False
        for name in ("blobs", "index", "locks", "used"):
            (self._root / name).mkdir(parents=True, exist_ok=True)

    @staticmethod
    def key(source: str, ref: str, version: str, size: int | None) -> str:
        """Identity of an item's content. `version` must not be empty."""
        text = json.dumps([source, ref, version, size])
        return sha256.hexdigest(text.encode())

    def lock(self, key: str, patience_s: float) -> int:
        """Hold the item's lock, waiting while another process fetches it; release by `os.close`.

        -1 when `patience_s` passed without the lock, or when the cache has no place for locks:
        then fetch without it. No deadlock: the thread that holds a lock next works on that very
        item's parts, which are first in its queue.
        """
        try:
            fd = os.open(self._root / "locks" / key, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as exc:  # read-only, somebody else's, without inodes
            self._tell("cannot lock", exc)
            return -1
        ends = time.monotonic() + patience_s
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return fd
                except BlockingIOError:
                    if time.monotonic() > ends:
                        break
                    self._control.check("waiting for another initializer on this node")
                    time.sleep(WAIT_POLL_S)
                except OSError as exc:  # a file system without locks
                    self._tell("cannot lock", exc)
                    break
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return -1

    def take(self, key: str, target: Path) -> str | None:
        """Put the cached content at `target`; its digest, or None when it is not cached.

        A reflink or a copy; a hard link only with `STORAGE_LOCAL_MODE=hardlink`, because whoever
        writes into the published tree would write into the cache.
        """
        try:
            entry = json.loads((self._root / "index" / key).read_bytes())
            blob = self._root / "blobs" / str(entry["digest"])
            status = blob.stat()
            if status.st_size != entry["size"]:
                raise ValueError("wrong size")
            if (entry.get("boot"), entry.get("mtime_ns")) != (boot_id(), status.st_mtime_ns):
                self._verify(key, blob)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        with contextlib.suppress(FileNotFoundError):
            target.unlink()
        try:
            self._place(blob, target)
            if target.stat().st_size != entry["size"]:
                return None
        except OSError as exc:
            logger.warning("node cache: cannot use %s: %s", blob.name[:12], exc)
            with contextlib.suppress(FileNotFoundError):
                target.unlink()
            return None
        with contextlib.suppress(OSError):  # a read-only cache is as good
            self._touch(blob.name)
        self.hits += 1
        return f"sha256:{entry['digest']}"

    def _verify(self, key: str, blob: Path) -> None:
        """Read a blob that may have changed. Raises ValueError."""
        if digest.of_file(blob, "sha256") != blob.name:
            logger.warning("node cache: %s was damaged, fetching it again", blob.name[:12])
            with contextlib.suppress(OSError):
                blob.unlink()
            raise ValueError("damaged")
        with contextlib.suppress(OSError):  # a read-only cache is verified by every pod
            self._index(key, blob)

    def _place(self, blob: Path, target: Path) -> None:
        if self._link:
            with contextlib.suppress(OSError):
                os.link(blob, target)
                return
        copy_file(blob, target)

    def _touch(self, name: str) -> None:
        """Note the use of a blob beside it: its own mtime belongs to hard links too."""
        (self._root / "used" / name).touch()

    def put(self, key: str, path: Path, found: str) -> None:
        """Keep a verified file. `found` is its digest as computed (`algorithm:hex`)."""
        try:
            self._put(key, path, found)
        except OSError as exc:
            self._tell(f"cannot keep {path.name}", exc)

    def _tell(self, what: str, exc: OSError) -> None:
        """Once: the next thousand files have the same to say."""
        if not self._told:
            self._told = True
            logger.warning("node cache: %s: %s", what, exc.strerror or exc)

    def _put(self, key: str, path: Path, found: str) -> None:
        size = path.stat().st_size
        if self._max_bytes and size > self._max_bytes:
            return
        algorithm, _, value = found.partition(":")
        name = value if algorithm == "sha256" else digest.of_file(path, "sha256")
        blob = self._root / "blobs" / name
        if not blob.exists():
            self._evict(size)
            descriptor, temporary = tempfile.mkstemp(dir=self._root / "blobs", prefix=".new-")
            os.close(descriptor)
            try:
                copy_file(path, temporary)
                os.chmod(temporary, 0o444)
                os.replace(temporary, blob)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
        self._touch(name)
        self._index(key, blob)

    def _index(self, key: str, blob: Path) -> None:
        status = blob.stat()
        facts = {"digest": blob.name, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
        entry = json.dumps({**facts, "boot": boot_id()}).encode()
        descriptor, temporary = tempfile.mkstemp(dir=self._root / "index", prefix=".new-")
        with open(descriptor, "wb") as file:
            file.write(entry)
        os.chmod(temporary, 0o644)
        os.replace(temporary, self._root / "index" / key)

    def _evict(self, incoming: int) -> None:
        """Make room for `incoming` bytes: the least recently used blobs go."""
        if not self._max_bytes:
            return
        fd = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            blobs = []
            for entry in os.scandir(self._root / "blobs"):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat()
                    if entry.name.startswith(".new-") and time.time() - status.st_mtime > 3600:
                        os.unlink(entry.path)  # of a killed initializer
                    elif not entry.name.startswith("."):
                        blobs.append((self._last_use(entry), status.st_size, entry.path))
            total = sum(size for _, size, _ in blobs) + incoming
            for _, size, path in sorted(blobs):
                if total <= self._max_bytes:
                    break
                for stale in (path, self._root / "used" / os.path.basename(path)):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(stale)
                total -= size
                logger.info("node cache: evicted %s (%d bytes)", os.path.basename(path)[:12], size)
        finally:
            os.close(fd)

    def _last_use(self, blob: "os.DirEntry[str]") -> int:
        try:
            return (self._root / "used" / blob.name).stat().st_mtime_ns
        except FileNotFoundError:
            return blob.stat().st_mtime_ns
