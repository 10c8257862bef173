"""`file://` and plain paths: reflinked, copied inside the kernel, hard-linked or symlinked.

A reflink shares the blocks until one side is written to: as quick as a link, as safe as a copy.
Where the file system cannot, `copy_file_range` copies without a detour through this process.
`STORAGE_LOCAL_MODE=hardlink|symlink` avoids the copy altogether; then nobody may write into the
published tree. Symbolic links in the source are followed (a ConfigMap volume consists of them).
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from storage_initializer.context import Context
from storage_initializer.errors import AccessDenied, Changed, NotFound, StorageError
from storage_initializer.items import RESERVED, CopySource, Item
from storage_initializer.uri import Uri

_FICLONE = 0x40049409
_CHUNK = 64 << 20
_CANNOT = (
    errno.EXDEV,
    errno.EOPNOTSUPP,
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENOTTY,
    errno.EPERM,
    errno.ENOTSOCK,
)


def connect(uri: Uri, context: Context) -> "LocalSource":
    return LocalSource(uri, context)


class LocalSource(CopySource):
    """A file or a directory of this machine."""

    local = True
    """The node cache would only copy it once more."""

    def __init__(self, uri: Uri, context: Context) -> None:
        self.shown = uri.shown
        self._root = Path(uri.path)
        self._mode = context.settings.local_mode
        self.filtered = not self._root.is_file()

    def items(self) -> Iterator[Item]:
        root = self._root
        if not root.exists():
            if self.shown.startswith("/mnt/pvc"):
                raise NotFound(self.shown, "the volume claim is not mounted there")
            raise NotFound(self.shown, "no such file or directory")
        if root.is_file():
            yield self._item(root, root.name)
            return
        if not root.is_dir():
            raise StorageError(f"{self.shown}: is neither a regular file nor a directory")
        empty = True
        for item in self._walk(root, "", frozenset()):
            empty = False
            yield item
        if empty:
            raise NotFound(self.shown, "the directory is empty")

    def _walk(self, directory: Path, prefix: str, above: frozenset[str]) -> Iterator[Item]:
        real = os.path.realpath(directory)
        if real in above:
            raise StorageError(f"{self.shown}: {directory} is a symbolic link to its own parent")
        try:
            entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
        except PermissionError as exc:
            raise AccessDenied(self.shown, str(exc), "check the file permissions") from exc
        for entry in entries:
            if entry.name.startswith("..") or (not prefix and entry.name in RESERVED):
                continue  # `..data` of a ConfigMap volume; our own marker
            path = Path(entry.path)
            if entry.is_dir():
                children = list(self._walk(path, f"{prefix}{entry.name}/", above | {real}))
                yield from children
                if not children:
                    yield Item(path=f"{prefix}{entry.name}/", size=0, ref=entry.path)
            elif entry.is_file():
                yield self._item(path, prefix + entry.name)
            elif entry.is_symlink():
                raise NotFound(self.shown, f"{entry.path} is a dangling symbolic link")
            else:
                raise StorageError(f"{self.shown}: {entry.path} is no regular file")

    def _item(self, path: Path, name: str) -> Item:
        status = path.stat()
        return Item(
            path=name,
            size=status.st_size,
            version=_version(status),
            ref=str(path),
            mode=status.st_mode & 0o777,
        )

    def copy(self, item: Item, target: Path) -> None:
        source = os.path.realpath(item.ref)
        if self._mode == "symlink":
            os.symlink(source, target)
            return
        if self._mode == "hardlink":
            try:
                os.link(source, target)
                return
            except OSError as exc:
                if exc.errno not in _CANNOT:
                    raise
        try:
            copy_file(source, target)
        except PermissionError as exc:
            if exc.filename == str(target):
                raise
            raise AccessDenied(self.shown, str(exc), "check the file permissions") from exc
        except FileNotFoundError as exc:
            raise Changed(f"{self.shown} ({item.path})") from exc
        if _version(os.stat(source)) != item.version:
            raise Changed(f"{self.shown} ({item.path})")


def _version(status: os.stat_result) -> str:
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def copy_file(source: str | Path, target: str | Path) -> None:
    """Reflink, else copy in the kernel, else through a buffer."""
    read_fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        write_fd = os.open(target, flags, 0o644)
        try:
            try:
                fcntl.ioctl(write_fd, _FICLONE, read_fd)
                return
            except OSError as exc:
                if exc.errno not in _CANNOT:
                    raise
            _copy_bytes(read_fd, write_fd)
        finally:
            os.close(write_fd)
    finally:
        os.close(read_fd)


def _copy_bytes(read_fd: int, write_fd: int) -> None:
    """All of it, by the quickest way that works here; each way goes on where the last one ended.

    `copy_file_range` may end early on virtual and network file systems, and is missing elsewhere.
    """
    size = os.fstat(read_fd).st_size
    done = 0
    for copy in (_kernel_copy, _send_file, _buffered):
        try:
            while done < size:
                count = copy(read_fd, write_fd, done)
                if count == 0:
                    break
                done += count
        except AttributeError:  # not on this system
            continue
        except OSError as exc:
            if exc.errno not in _CANNOT:
                raise
        if done >= size:
            return


def _kernel_copy(read_fd: int, write_fd: int, offset: int) -> int:
    return os.copy_file_range(read_fd, write_fd, _CHUNK, offset, offset)


def _send_file(read_fd: int, write_fd: int, offset: int) -> int:
    os.lseek(write_fd, offset, os.SEEK_SET)
    return os.sendfile(write_fd, read_fd, offset, _CHUNK)


def _buffered(read_fd: int, write_fd: int, offset: int) -> int:
    return os.pwrite(write_fd, os.pread(read_fd, 1 << 20, offset), offset)
