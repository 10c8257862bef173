"""Image layers → the tree below `/models`: tar archives applied in order, with whiteouts."""

import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from storage_initializer.archive import Extraction, Limits, Member
from storage_initializer.errors import NotFound, StorageError, UnsafeArchive
from storage_initializer.retry import Control
from storage_initializer.settings import Settings

RAW = ".turnout-layers"
"""Where raw layers are staged, below the tree; never published."""
ROOT = "models/"
_OPAQUE = ".wh..wh..opq"
_WHITEOUT = ".wh."


def check_media_types(where: str, layers: Sequence[Mapping[str, Any]]) -> None:
    for layer in layers:
        kind = str(layer.get("mediaType", ""))
        if "zstd" in kind:
            raise StorageError(f"{where}: a layer is compressed with zstd; push it with gzip")
        if "encrypted" in kind:
            raise StorageError(f"{where}: a layer is encrypted")


def apply(
    where: str, tree: Path, layers: Sequence[Path], settings: Settings, control: Control
) -> Path:
    """What the layers contain below `/models`, in a directory beside `tree`."""
    if {entry.name for entry in tree.iterdir()} != {RAW}:
        raise StorageError(f"{where}: an image cannot share its destination with other sources")
    out = tree.parent / "image"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    limits = Limits(
        archive=where,
        packed=max(1, sum(layer.stat().st_size for layer in layers)),
        max_bytes=settings.unpack_max_bytes or shutil.disk_usage(tree).free,
        max_files=settings.unpack_max_files,
        max_ratio=settings.unpack_max_ratio,
        control=control,
    )
    for layer in layers:
        try:
            _apply_layer(layer, out, limits)
        except (tarfile.TarError, EOFError) as exc:
            raise UnsafeArchive(where, f"a layer is damaged: {exc}") from exc
    if not any(out.iterdir()):
        raise NotFound(where, "the image has no /models directory")
    return out


def _apply_layer(layer: Path, out: Path, limits: Limits) -> None:
    extraction = Extraction(out, limits)
    with tarfile.open(layer, "r:*") as tar:
        for info in tar:
            name = info.name.removeprefix("./").lstrip("/")
            if not name.startswith(ROOT):
                continue
            path = name.removeprefix(ROOT)
            parent, _, base = path.rpartition("/")
            if ".." in path.split("/"):
                raise UnsafeArchive(limits.archive, f"{info.name!r} leads out of the image")
            if base == _OPAQUE:
                _remove(out / parent, keep=True)
                continue
            if base.startswith(_WHITEOUT):
                _remove(out / parent / base.removeprefix(_WHITEOUT))
                continue
            if not path:
                continue
            member = Member(path=path, kind="file", size=info.size, source=info)
            member.executable = bool(info.mode & 0o111)
            if info.isdir():
                member.kind = "directory"
            elif info.issym():
                member.kind, member.target = "symlink", info.linkname
            elif info.islnk():
                member.kind = "hardlink"
                member.target = info.linkname.lstrip("/").removeprefix(ROOT)
            elif not info.isreg():
                raise UnsafeArchive(limits.archive, f"{info.name!r} is a device or a pipe")
            if member.kind != "directory" and (out / path).is_symlink():
                (out / path).unlink()
            extraction.add(member, tar.extractfile(info) if info.isreg() else None)
    if extraction.wrote:
        extraction.finish()


def _remove(path: Path, *, keep: bool = False) -> None:
    """Remove what a whiteout names; `keep` the directory itself (opaque whiteout)."""
    if path.is_dir() and not path.is_symlink():
        for entry in list(path.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        if not keep:
            path.rmdir()
    elif not keep:
        path.unlink(missing_ok=True)
