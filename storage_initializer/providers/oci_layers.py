"""Image layers → the tree below `/models`: tar archives applied in order, with whiteouts."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from storage_initializer.archive import DAMAGED, Extraction, Limits, Member, open_tar
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
    extraction = Extraction(out, limits)
    for layer in layers:
        try:
            _apply_layer(layer, extraction, where)
        except DAMAGED as exc:
            raise UnsafeArchive(where, f"a layer is damaged: {exc}") from exc
    if not extraction.wrote:
        raise NotFound(where, "the image has no file below /models")
    extraction.finish()
    return out


def _apply_layer(layer: Path, extraction: Extraction, where: str) -> None:
    """Links are made when all layers are there (`finish`): none is ever written through."""
    with open_tar(layer) as tar:
        for info in tar:
            name = info.name.removeprefix("./").lstrip("/")
            if name in (_WHITEOUT + ROOT.rstrip("/"), _OPAQUE):
                extraction.forget("", keep=True)
            if not name.startswith(ROOT):
                continue
            path = name.removeprefix(ROOT)
            parent, _, base = path.rpartition("/")
            if ".." in path.split("/"):
                raise UnsafeArchive(where, f"{info.name!r} leads out of the image")
            if base == _OPAQUE:
                extraction.forget(parent, keep=True)
                continue
            if base.startswith(_WHITEOUT):
                extraction.forget(f"{parent}/{base.removeprefix(_WHITEOUT)}".lstrip("/"))
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
                member.target = info.linkname.removeprefix("./").lstrip("/").removeprefix(ROOT)
            elif not info.isreg():
                raise UnsafeArchive(where, f"{info.name!r} is a device or a pipe")
            extraction.replace(member)
            extraction.add(member, tar.extractfile(info) if info.isreg() else None)
