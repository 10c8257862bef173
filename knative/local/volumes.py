"""Volumes as directories, and mount paths in commands and variables mapped onto them.

A process has no mount namespace of its own, so `/mnt/models` in a container's command, arguments
and variables is replaced by the real directory of the volume mounted there. Only whole path
prefixes count: `/mnt/models/cat` and `--dir=/mnt/models` are mapped, `/mnt/models-old` is not.

`/tmp` exists on this machine too, and developers keep models and programs below it: what is there,
and not in the volume, is meant as it is written (`storageUri: file:///tmp/model`).
"""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import spec
from .errors import PodFailed

SHARED_PATH = "/tmp"  # noqa: S108 - compared with, never written to
_REST_OF_PATH = re.compile(r"""[^\s"',;:=?#]*""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where volumes and variables get their contents from."""

    secrets: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    config_maps: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    claims: Mapping[str, Path] = field(default_factory=dict)
    claims_dir: Path = Path()
    """Parent of the directories of claims that were not mapped."""


def make_volumes(
    volumes: Sequence[spec.Volume], namespace: str, pod_dir: Path, sources: Sources
) -> dict[str, Path]:
    """Create every volume of a pod; volume name -> directory. Raises PodFailed with the reason."""
    return {volume.name: _make(volume, namespace, pod_dir, sources) for volume in volumes}


def _make(volume: spec.Volume, namespace: str, pod_dir: Path, sources: Sources) -> Path:
    directory = pod_dir / "volumes" / volume.name
    match volume.kind:
        case "emptyDir":
            directory.mkdir(parents=True, exist_ok=True)
        case "secret" | "configMap" | "projected":
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            for source in _file_sources(volume):
                _write_files(directory, source, namespace, sources)
        case "pvc":
            return _claim(str(volume.source.get("claimName", "")), namespace, sources)
        case "hostPath":
            return Path(str(volume.source.get("path", "/")))
        case "image":
            reference = volume.source.get("reference")
            raise PodFailed(
                "VolumeUnsupported",
                f"volume {volume.name} is an OCI image ({reference}); this machine runs no images: "
                f"use an emptyDir with an init container, or a claim mapped with --claim NAME=DIR",
            )
    return directory


def _claim(claim: str, namespace: str, sources: Sources) -> Path:
    mapped = sources.claims.get(f"{namespace}/{claim}") or sources.claims.get(claim)
    if mapped is None:
        mapped = sources.claims_dir / namespace / claim
        mapped.mkdir(parents=True, exist_ok=True)
    elif not mapped.is_dir():
        raise PodFailed("VolumeMissing", f"--claim {claim}={mapped}: there is no such directory")
    return mapped.resolve()


def _file_sources(volume: spec.Volume) -> list[tuple[str, spec.Json]]:
    """(kind, source) pairs; a projected volume has several."""
    if volume.kind != "projected":
        return [(volume.kind, volume.source)]
    return [
        (kind, body)
        for item in volume.source.get("sources") or ()
        for kind, body in item.items()
        if kind in {"secret", "configMap"}
    ]


def _write_files(
    directory: Path, source: tuple[str, spec.Json], namespace: str, sources: Sources
) -> None:
    kind, body = source
    name = str(body.get("secretName") or body.get("name") or "")
    held = sources.secrets if kind == "secret" else sources.config_maps
    data = held.get(f"{namespace}/{name}")
    if data is None:
        if body.get("optional"):
            return
        raise PodFailed(
            "VolumeMissing", f"there is no {kind} {namespace}/{name}; add its YAML to `up`"
        )
    items = body.get("items") or [{"key": key, "path": key} for key in data]
    for item in items:
        if item["key"] not in data:
            raise PodFailed("VolumeMissing", f"{kind} {namespace}/{name} has no key {item['key']}")
        file = directory / str(item["path"])
        if not file.resolve().is_relative_to(directory.resolve()):
            raise PodFailed(
                "VolumeMissing", f"{kind} {name}: path {item['path']} leaves the volume"
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data[item["key"]])
        file.chmod(0o600 if kind == "secret" else 0o644)


class PathMap:
    """Replaces mount paths of one container by directories of this machine."""

    __slots__ = ("_pattern", "_targets")

    def __init__(self, mounts: Sequence[spec.Mount], directories: Mapping[str, Path]) -> None:
        self._targets: dict[str, str] = {}
        for mount in mounts:
            target = directories[mount.volume] / mount.sub_path
            if mount.sub_path and not target.exists():
                target.mkdir(parents=True)
            self._targets[mount.path] = str(target.resolve())
        longest_first = sorted(self._targets, key=len, reverse=True)
        self._pattern = re.compile(
            r"(?:(?<=://)|(?<![\w./-]))(" + "|".join(map(re.escape, longest_first)) + r")(?![\w.-])"
            if longest_first
            else r"(?!)"
        )

    def __call__(self, text: str) -> str:
        return self._pattern.sub(self._replaced, text)

    def _replaced(self, match: re.Match[str]) -> str:
        path, target = match[1], self._targets[match[1]]
        rest = _REST_OF_PATH.match(match.string, match.end())
        below = rest[0] if rest is not None else ""
        if path == SHARED_PATH and below.strip("/") and not os.path.lexists(target + below):
            is_source = match.string.endswith("file://", 0, match.start())
            if is_source or os.path.exists(path + below):
                return path
        return target

    def target(self, path: str) -> str | None:
        """The directory mounted exactly at `path`."""
        return self._targets.get(path)
