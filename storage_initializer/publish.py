"""Publishing a staged tree, and telling whether a destination is complete.

The done-marker (`MARKER_NAME`) is written last and lists every file with size, mtime and digest.
A destination without it, or whose files do not match it, is incomplete, whatever it contains.

*Whole*: the staging directory is a sibling; the tree gets its marker and is renamed over the
absent or empty destination: one atomic step, so even a reader that knows nothing of markers sees
nothing or everything. *Entry by entry*: a mount point cannot be renamed; the marker (if any) is
removed first, then each top-level entry is renamed into place, then the marker is written. A kill
in between leaves no marker; the next run finds the moved files by their records, and what must go
by a note in the staging of all that the two trees have.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from . import digest
from .errors import DestinationError, StorageError, from_os_error
from .items import MARKER_NAME, RESERVED
from .records import NOTHING, Record
from .staging import FileRecord, Staging, boot_id, existing, remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMAT = 1


class Marker(Record):
    """What a done-marker says."""

    identity: str
    """Digest over sources and filters: another request is another identity."""
    sources: tuple[str, ...]
    """Shown URIs, for people."""
    items: Mapping[str, tuple[int | None, str]] = NOTHING
    """The source's files: path → (size, version). Differs from `files` after unpacking."""
    files: tuple[FileRecord, ...] = ()
    """The published files."""
    links: Mapping[str, str] = NOTHING
    """Symbolic links of an unpacked archive: path → target."""
    boot: str = ""
    synced: bool = False


def read_marker(dest: Path) -> Marker | None:
    """The marker of `dest`; None when there is none or it cannot be understood."""
    return _read(dest / MARKER_NAME)


def replaced_marker(staging: Staging) -> Marker | None:
    """The marker of the tree to replace, or of the mixture that a killed run has left."""
    return read_marker(staging.dest) or _read(staging.replaced)


def _read(path: Path) -> Marker | None:
    try:
        data: Any = json.loads(path.read_bytes())
        if data["format"] != FORMAT:
            return None
        return Marker(
            identity=data["identity"],
            sources=tuple(data["sources"]),
            items={path: (size, version) for path, size, version in data["items"]},
            files=tuple(
                FileRecord(path, size, "", found, mtime)
                for path, size, mtime, found in data["files"]
            ),
            links=dict(data["links"]),
            boot=data["boot"],
            synced=data["synced"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def matches(dest: Path, marker: Marker, *, reread: bool = False) -> bool:
    """Whether every file of the marker is there and intact; see `distrusted` for `reread`."""
    reread = reread or distrusted(marker)
    if not all(intact(dest, record, reread=reread) for record in marker.files):
        return False
    return all(os.path.islink(dest / path) for path in marker.links)


def distrusted(marker: Marker) -> bool:
    """The node was rebooted since and nothing had been flushed: sizes and times prove little."""
    return not marker.synced and marker.boot != boot_id()


def intact(dest: Path, record: FileRecord, *, reread: bool) -> bool:
    """Whether a published file is there with its size and mtime, or, read again, its content."""
    path = dest / record.path
    try:
        status = path.stat()
    except OSError:
        return False
    if status.st_size != record.size:
        return False
    if not reread:
        return status.st_mtime_ns == record.mtime_ns
    algorithm, _, expected = record.digest.partition(":")
    if digest.new_for(algorithm, 0) is None:
        return False  # nothing to hold it to: a local copy, or a library that is gone
    return digest.of_file(path, algorithm) == expected


def write_marker(directory: Path, marker: Marker) -> None:
    """Atomically: a temporary file, then a rename."""
    _write(directory / MARKER_NAME, marker)


def _write(path: Path, marker: Marker) -> None:
    data = {
        "format": FORMAT,
        "identity": marker.identity,
        "sources": list(marker.sources),
        "completed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "boot": marker.boot,
        "synced": marker.synced,
        "items": [[path, size, version] for path, (size, version) in marker.items.items()],
        "files": [[r.path, r.size, r.mtime_ns, r.digest] for r in marker.files],
        "links": dict(marker.links),
    }
    temporary = path.with_name(f"{path.name}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(data, file, separators=(",", ":"))
        if marker.synced:
            file.flush()
            os.fsync(fd)
    os.replace(temporary, path)


def publish(staging: Staging, tree: Path, marker: Marker, old: Marker | None) -> None:
    """Make `tree` the content of the destination, with `marker`. Wraps file system errors."""
    dest = staging.dest
    try:
        if marker.synced:
            sync_filesystem(tree)
        if not staging.inside and not (dest.exists() and any(dest.iterdir())):
            write_marker(tree, marker)
            if _rename_whole(tree, dest):
                if marker.synced:
                    _sync_directory(dest.parent)
                staging.remove()
                return
            (tree / MARKER_NAME).unlink()
        _publish_entries(staging, tree, marker, old)
    except OSError as exc:
        raise from_os_error(exc, str(dest)) from exc


def _rename_whole(tree: Path, dest: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        tree.chmod(dest.stat().st_mode & 0o7777)
    try:
        os.rename(tree, dest)
    except OSError:  # a mount point after all, or somebody has put a file into it
        return False
    return True


def _publish_entries(staging: Staging, tree: Path, marker: Marker, old: Marker | None) -> None:
    dest = staging.dest
    dest.mkdir(parents=True, exist_ok=True)
    _spare_directories(dest, marker, old)
    _write(staging.replaced, _mixed(old, marker))
    with contextlib.suppress(FileNotFoundError):
        (dest / MARKER_NAME).unlink()
    _merge(tree, dest)
    if old is not None:
        wanted = {record.path for record in marker.files} | set(marker.links)
        remove_files(dest, (r.path for r in old.files if r.path not in wanted))
        remove_files(dest, (path for path in old.links if path not in wanted))
    if marker.synced:
        sync_filesystem(dest)
    write_marker(dest, marker)
    if marker.synced:
        _sync_directory(dest)
    staging.remove()


def _spare_directories(dest: Path, marker: Marker, old: Marker | None) -> None:
    """A file of ours takes the place of a directory only if nothing in that is somebody else's."""
    ours = {record.path for record in old.files} | set(old.links) if old else set()
    for path in (*(record.path for record in marker.files), *marker.links):
        place = dest / path
        if not place.is_dir() or place.is_symlink():
            continue
        for directory, folders, names in os.walk(place):
            links = [name for name in folders if os.path.islink(os.path.join(directory, name))]
            for name in (*names, *links):
                found = os.path.relpath(os.path.join(directory, name), dest)
                if found not in ours:
                    cause = f"{path} is to be a file, but a directory with {found} is there"
                    raise DestinationError(str(dest), f"{cause}; remove it")


def _mixed(old: Marker | None, new: Marker) -> Marker:
    """What may be in the destination while `new` replaces `old`: if this run is killed, the next
    one knows by it what to remove, whatever the source has become by then."""
    if old is None:
        return new.but(items=NOTHING)
    known = {record.path for record in old.files}
    added = (record for record in new.files if record.path not in known)
    return old.but(files=(*old.files, *added), links={**old.links, **new.links})


def _merge(source: Path, target: Path) -> None:
    """Rename the entries of `source` into `target`; directories that exist are merged."""
    for entry in sorted(os.listdir(source)):
        here, there = source / entry, target / entry
        real = here.is_dir() and not here.is_symlink()
        if real and there.is_dir() and not there.is_symlink():
            _merge(here, there)
            continue
        if there.is_dir() and not there.is_symlink() and not real:
            remove_tree(there)
        elif real and (there.exists() or there.is_symlink()):
            there.unlink()
        os.rename(here, there)


def remove_files(dest: Path, paths: Iterable[str]) -> None:
    """Remove files and the directories that become empty by it."""
    parents = set()
    for path in paths:
        with contextlib.suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
            (dest / path).unlink()
        parents.add(os.path.dirname(path))
    for parent in sorted(parents, key=len, reverse=True):
        while parent:
            try:
                (dest / parent).rmdir()
            except OSError:
                break
            parent = os.path.dirname(parent)


def is_provided(dest: Path) -> bool:
    """A destination that nobody can write to and that holds something that is not half ours."""
    try:
        entries = set(os.listdir(dest))
    except OSError:
        return False
    return bool(entries - RESERVED) and not entries & RESERVED


def writable(dest: Path) -> bool:
    """Whether entries can be made in `dest`, or `dest` itself can be made."""
    place = existing(dest)
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)  # knows read-only mounts too


def sync_filesystem(directory: Path) -> None:
    """`syncfs`: all of a file system's dirty data, one call for any number of files."""
    import ctypes

    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(directory))
    finally:
        os.close(fd)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def check_destination(dest: Path) -> None:
    """A file in the place of the destination is an error with a name."""
    if dest.exists() and not dest.is_dir():
        raise DestinationError(str(dest), "is a file; name a directory")


__all__ = [
    "Marker",
    "StorageError",
    "check_destination",
    "is_provided",
    "matches",
    "publish",
    "read_marker",
    "remove_files",
    "replaced_marker",
    "sync_filesystem",
    "writable",
    "write_marker",
]
