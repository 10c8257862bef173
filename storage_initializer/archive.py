"""Unpacking a single archive without trusting it.

tar (plain, gzip, bzip2, xz) and zip. Refused as a whole, before anything is published: absolute
paths, `..`, links that lead out of the tree, hard links to nothing, devices and pipes, encrypted
members, two members of one name where one is a directory, and bombs (limits on bytes, members and
the ratio of output to input). Written are regular files, directories and inner symbolic links;
owners, special permission bits and times are not taken over. Links are made last, so that no
member is ever written through one. A tar is read to the end of its compressed data, where the
checksum of that is, and must have its end mark: what was cut off or damaged is no shorter model.
"""

import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from . import digest, sha256
from .errors import NoSpace, UnsafeArchive, UnsafePath
from .items import RESERVED, ZIP_SUFFIXES, safe_path
from .records import Record
from .retry import Control
from .settings import MIB, Settings
from .staging import FileRecord, Staging

RATIO_FROM = 64 * MIB
"""Below this much output the ratio is not judged: small text compresses a thousandfold."""
_CHUNK = MIB
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
"""Members that belong to the header of the next one; the library holds them in memory."""


class Member(Record, frozen=False):
    """One archive member, whatever the format."""

    path: str
    kind: str
    """`file`, `directory`, `symlink` or `hardlink`."""
    size: int = 0
    target: str = ""
    executable: bool = False
    source: tarfile.TarInfo | zipfile.ZipInfo | None = None


class Limits(Record, frozen=False):
    """What may come out, counted while it does (headers lie)."""

    archive: str
    packed: int
    max_bytes: int
    max_files: int
    max_ratio: int
    control: Control
    bytes_out: int = 0
    files_out: int = 0

    def member(self) -> None:
        self.files_out += 1
        if self.files_out > self.max_files:
            raise UnsafeArchive(
                self.archive, f"more than {self.max_files} members (STORAGE_UNPACK_MAX_FILES)"
            )

    def chunk(self, count: int) -> None:
        self.control.check("unpacking")
        self.bytes_out += count
        if self.bytes_out > self.max_bytes:
            raise UnsafeArchive(
                self.archive,
                f"unpacks to more than {self.max_bytes:,} bytes "
                "(STORAGE_UNPACK_MAX_BYTES, or the free space)",
            )
        if self.bytes_out > RATIO_FROM and self.bytes_out > self.packed * self.max_ratio:
            raise UnsafeArchive(
                self.archive,
                f"unpacks to more than {self.max_ratio} times its size (STORAGE_UNPACK_MAX_RATIO)",
            )


def unpack_staged(
    staging: Staging,
    dest: Path,
    record: FileRecord,
    settings: Settings,
    control: Control,
    where: str,
) -> tuple[Path, list[FileRecord], dict[str, str]]:
    """Unpack the one staged archive, which came from `where`; (tree to publish, its files, its
    symbolic links)."""
    archive = staging.tree / record.path
    if not archive.exists():  # published unchanged by an earlier run that did not unpack
        archive = dest / record.path
    tree = staging.root / "unpacked"
    _remove(tree)
    tree.mkdir()
    limits = _limits(archive, staging.root, settings, control)
    try:
        return (tree, *unpack(archive, tree, limits))
    except UnsafeArchive as exc:
        exc.args = (f"{where}: {exc}",)
        raise


def unpack_gzipped(staging: Staging, path: str, settings: Settings, control: Control) -> str:
    """Put the content of a staged gzip file in its place; the digest of that content."""
    packed = staging.tree / path
    plain = staging.root / f"plain-{sha256.hexdigest(path.encode())[:16]}"
    limits = _limits(packed, staging.root, settings, control)
    crc = digest.Crc32()
    try:
        with gzip.open(packed) as content, plain.open("wb") as out:
            while chunk := content.read(_CHUNK):
                limits.chunk(len(chunk))
                crc.update(chunk)
                out.write(chunk)
    except (gzip.BadGzipFile, zlib.error, EOFError) as exc:
        cause = f"its Content-Encoding says gzip, but {exc}; correct that or upload it again"
        raise UnsafeArchive(limits.archive, cause) from exc
    staging.forget(path)  # what is noted of its parts is about the packed bytes
    os.replace(plain, packed)
    return f"crc32:{crc.hexdigest()}"


def _limits(archive: Path, volume: Path, settings: Settings, control: Control) -> Limits:
    status = os.statvfs(volume)
    free = status.f_bavail * status.f_frsize
    return Limits(
        archive=archive.name,
        packed=max(1, archive.stat().st_size),
        max_bytes=min(settings.unpack_max_bytes or free, free),
        max_files=settings.unpack_max_files,
        max_ratio=settings.unpack_max_ratio,
        control=control,
    )


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the volume has them (network volumes may not), else a copy."""
    import errno
    import shutil

    try:
        os.link(source, target)
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        shutil.copy2(source, target)


def _remove(tree: Path) -> None:
    import shutil

    if tree.exists():
        shutil.rmtree(tree)


def unpack(archive: Path, tree: Path, limits: Limits) -> tuple[list[FileRecord], dict[str, str]]:
    """Extract `archive` into the empty directory `tree`. Raises UnsafeArchive or NoSpace."""
    reader = _zip if limits.archive.lower().endswith(ZIP_SUFFIXES) else _tar
    extraction = Extraction(tree, limits)
    try:
        for member, content in reader(archive, limits):
            extraction.add(member, content)
        return extraction.finish()
    except DAMAGED as exc:
        cause = f"damaged or not an archive: {exc}; upload it again"
        raise UnsafeArchive(limits.archive, cause) from exc
    except (NotImplementedError, RuntimeError) as exc:  # zipfile's words for "encrypted"
        raise UnsafeArchive(limits.archive, str(exc)) from exc
    except OSError as exc:
        import errno

        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(str(tree), None, None) from exc
        if exc.errno == errno.ENAMETOOLONG:
            raise UnsafeArchive(limits.archive, "a path in it is too long") from exc
        if exc.errno is None:  # gzip and bz2 raise bare OSErrors about their data
            raise UnsafeArchive(limits.archive, f"damaged: {exc}") from exc
        raise


Entries = Iterator[tuple[Member, IO[bytes] | None]]
DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError,
    ValueError,
)  # fmt: skip
"""What the libraries raise about bad data, besides OSErrors without a number."""


def _tar(archive: Path, limits: Limits) -> Entries:
    with open_tar(archive) as tar:
        for info in tar:
            yield tar_member(info, limits.archive), tar.extractfile(info) if info.isreg() else None
        # Nothing behind the last member is kept, but all of it must be readable.
        while tar.fileobj is not None and (chunk := tar.fileobj.read(_CHUNK)):
            limits.chunk(len(chunk))


def tar_member(info: tarfile.TarInfo, archive: str) -> Member:
    """Raises UnsafeArchive for what is neither file, directory nor link."""
    member = Member(path=info.name, kind="file", size=info.size, source=info)
    member.executable = bool(info.mode & 0o111)
    if info.isdir():
        member.kind = "directory"
    elif info.issym():
        member.kind, member.target = "symlink", info.linkname
    elif info.islnk():
        member.kind, member.target = "hardlink", info.linkname
    elif not info.isreg():
        raise UnsafeArchive(archive, f"{info.name!r} is a device, pipe or unknown type")
    return member


class _Header(tarfile.TarInfo):
    """Stricter than the library's, which takes a damaged header for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        try:
            made = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as exc:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the end mark
            cause = "a member's header is damaged" if buf else "its end is missing"
            raise tarfile.ReadError(cause) from exc
        if made.type in _EXTENSIONS and made.size > MIB:
            raise tarfile.ReadError(f"an extended header of {made.size:,} bytes")
        return made


def open_tar(archive: Path) -> tarfile.TarFile:
    """Open a tar of any compression. Raises one of DAMAGED, then or while it is read."""
    try:
        return tarfile.open(archive, "r:*", tarinfo=_Header)
    except tarfile.ReadError as exc:  # six lines, one for every compression
        raise tarfile.ReadError("cut off at its beginning, or no tar") from exc


def _zip(archive: Path, limits: Limits) -> Entries:
    name = limits.archive
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            mode = info.external_attr >> 16
            member = Member(path=info.filename, kind="file", size=info.file_size, source=info)
            member.executable = bool(mode & 0o111)
            if info.flag_bits & 1:
                raise UnsafeArchive(name, f"{info.filename!r} is encrypted")
            if info.is_dir() or stat.S_ISDIR(mode):
                member.kind = "directory"
            elif stat.S_ISLNK(mode):
                if info.file_size > 4096:
                    raise UnsafeArchive(name, f"{info.filename!r} has an endless link target")
                member.kind = "symlink"
                member.target = packed.read(info).decode("utf-8", "surrogateescape")
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise UnsafeArchive(name, f"{info.filename!r} is a device, pipe or unknown type")
            if member.kind == "file":
                with packed.open(info) as content:
                    yield member, content
            else:
                yield member, None


class Extraction:
    """Writes members below `tree`; remembers links for the end."""

    def __init__(self, tree: Path, limits: Limits) -> None:
        self._tree = tree
        self._limits = limits
        self._links: dict[str, str] = {}
        self._written: dict[str, FileRecord] = {}
        self._buffer = memoryview(bytearray(_CHUNK))

    def add(self, member: Member, content: IO[bytes] | None) -> None:
        self._limits.member()
        name = self._limits.archive
        if member.path.rstrip("/") in (".", "") and member.kind == "directory":
            return
        if "\\" in member.path:
            raise UnsafeArchive(name, f"{member.path!r} has a backslash")
        try:
            path = safe_path(name, member.path).rstrip("/")
        except UnsafePath as exc:
            raise UnsafeArchive(name, str(exc)) from exc
        if path.split("/")[0] in RESERVED:
            return
        self._check_parents(path)
        target = self._tree / path
        if (member.kind == "directory") != target.is_dir() and target.exists():
            raise UnsafeArchive(name, f"{path!r} is a file and a directory")
        if member.kind == "directory":
            target.mkdir(parents=True, exist_ok=True)
        elif member.kind == "symlink":
            if path in self._written:
                raise UnsafeArchive(name, f"{path!r} is in it twice")
            self._links[path] = self._inner(path, member.target)
        elif member.kind == "hardlink":
            self._hard_link(path, member.target)
        elif content is not None:
            self._write(path, content, member)

    def replace(self, member: Member) -> None:
        """Make way for a member of an upper image layer: of the lower ones only directories that
        stay directories are kept."""
        path = member.path.strip("/")
        if not (member.kind == "directory" and (self._tree / path).is_dir()):
            self.forget(path)

    def forget(self, path: str, *, keep: bool = False) -> None:
        """Remove what lower image layers have brought at and below `path`; `keep`: only below."""
        path = safe_path(self._limits.archive, path).rstrip("/") if path else ""
        if path not in self._links and not (self._tree / path).exists():
            return
        self._check_parents(os.path.join(path, "x") if keep else path, itself=False)
        below = f"{path}/" if path else ""
        for known in (self._written, self._links):
            for name in [n for n in known if n.startswith(below) or (n == path and not keep)]:
                del known[name]
        place = self._tree / path
        if place.is_dir():
            _remove(place)
            if keep:
                place.mkdir()
        elif not keep:
            place.unlink(missing_ok=True)

    def _check_parents(self, path: str, *, itself: bool = True) -> None:
        """No member may lie below a file or a link of the same archive."""
        parent = os.path.dirname(path)
        while parent:
            if parent in self._links or parent in self._written:
                raise UnsafeArchive(self._limits.archive, f"{path!r} lies below a file or link")
            parent = os.path.dirname(parent)
        if itself and path in self._links:
            raise UnsafeArchive(self._limits.archive, f"{path!r} is in it twice")

    def _inner(self, path: str, target: str) -> str:
        """The link's target if it stays inside the tree, judged by names alone."""
        inside = os.path.normpath(os.path.join(os.path.dirname(path), target))
        if not target or target.startswith("/") or inside.split("/")[0] == "..":
            raise UnsafeArchive(
                self._limits.archive, f"the link {path!r} leads out of the archive ({target!r})"
            )
        return target

    def _hard_link(self, path: str, target: str) -> None:
        try:
            inner = safe_path(self._limits.archive, target)
        except UnsafePath as exc:
            raise UnsafeArchive(self._limits.archive, str(exc)) from exc
        if inner in self._links:
            self._links[path] = self._inner(path, self._links[inner])
            return
        if inner not in self._written or inner == path:
            raise UnsafeArchive(
                self._limits.archive, f"{path!r} is a hard link to {target!r}, which is not there"
            )
        destination = self._tree / path
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.unlink(missing_ok=True)
        link_or_copy(self._tree / inner, destination)
        self._remember(path)

    def _write(self, path: str, content: IO[bytes], member: Member) -> None:
        target = self._tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # a later member of the same name replaces the earlier one
        crc = digest.Crc32()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(target, flags, 0o755 if member.executable else 0o644)
        try:
            total = 0
            while chunk := content.read(_CHUNK):
                self._limits.chunk(len(chunk))
                crc.update(chunk)
                total += len(chunk)
                view = memoryview(chunk)
                while view:
                    view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        if total != member.size:
            raise UnsafeArchive(
                self._limits.archive, f"{path!r} has {total} bytes, its header says {member.size}"
            )
        self._remember(path, f"crc32:{crc.hexdigest()}")

    def _remember(self, path: str, found: str = "") -> None:
        status = (self._tree / path).stat()
        self._written[path] = FileRecord(path, status.st_size, "", found, status.st_mtime_ns)

    @property
    def wrote(self) -> bool:
        return bool(self._written)

    def finish(self) -> tuple[list[FileRecord], dict[str, str]]:
        """Make the links; each must resolve inside the tree even through other links."""
        for path, target in self._links.items():
            link = self._tree / path
            link.parent.mkdir(parents=True, exist_ok=True)
            if link.is_dir():
                raise UnsafeArchive(self._limits.archive, f"{path!r} is a link and a directory")
            os.symlink(target, link)
        root = os.path.realpath(self._tree)
        for path in self._links:
            real = os.path.realpath(self._tree / path)
            if real != root and not real.startswith(root + os.sep):
                raise UnsafeArchive(self._limits.archive, f"the link {path!r} leads out of it")
        if not self._written:
            raise UnsafeArchive(self._limits.archive, "holds no file")
        return list(self._written.values()), self._links
