"""Image layers → the tree below `/models`: tar archives applied in order, with whiteouts."""

import posixpath
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from storage_initializer.archive import (
    DAMAGED,
    Extraction,
    Limits,
    link_or_copy,
    open_tar,
    tar_member,
)
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
    limits = _limits(where, layers, settings, control)
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


def _limits(where: str, packed: Sequence[Path], settings: Settings, control: Control) -> Limits:
    return Limits(
        archive=where,
        packed=max(1, sum(path.stat().st_size for path in packed)),
        max_bytes=settings.unpack_max_bytes or shutil.disk_usage(packed[0].parent).free,
        max_files=settings.unpack_max_files,
        max_ratio=settings.unpack_max_ratio,
        control=control,
    )


def unpack_directories(
    where: str, tree: Path, packed: Sequence[str], settings: Settings, control: Control
) -> Path:
    """What `oras push` made of directories (`packed`, tar archives below `tree`) as directories
    again, beside the other files, in a tree of their own."""
    out = tree.parent / "artifact"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for file in tree.rglob("*"):
        relative = file.relative_to(tree)
        if file.is_file() and relative.as_posix() not in packed:
            (out / relative).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(file, out / relative)
    extraction = Extraction(
        out, _limits(where, [tree / path for path in packed], settings, control)
    )
    for path in packed:
        above = posixpath.dirname(path)
        try:
            with open_tar(tree / path) as tar:
                for info in tar:
                    member = tar_member(info, where)
                    member.path = posixpath.join(above, member.path)
                    if member.kind == "hardlink":
                        member.target = posixpath.join(above, member.target)
                    extraction.add(member, tar.extractfile(info) if info.isreg() else None)
        except DAMAGED as exc:
            raise UnsafeArchive(where, f"the directory {path!r} is damaged: {exc}") from exc
    if extraction.wrote:
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
            member = tar_member(info, where)
            member.path = path
            if member.kind == "hardlink":
                member.target = member.target.removeprefix("./").lstrip("/").removeprefix(ROOT)
            extraction.replace(member)
            extraction.add(member, tar.extractfile(info) if info.isreg() else None)
