"""Model archives made by torch-model-archiver: unpacking and the manifest.

A `.mar` is a zip (or a directory, or .tar.gz, the archiver's other formats) with
`MAR-INF/MANIFEST.json`: {"model": {"modelName", "handler", "serializedFile"?, "modelFile"?,
"modelVersion", "configFile"?, "requirementsFile"?, ...}, ...}. No torch here.
"""

import json
import shutil
import stat
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from functions.errors import AmbiguousArtifact, LoadFailed, NoArtifact

MANIFEST = "MAR-INF/MANIFEST.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """An unpacked archive. `temporary` directories are removed by `close`."""

    directory: Path
    manifest: dict[str, Any]
    temporary: bool

    @property
    def model(self) -> dict[str, Any]:
        model = self.manifest.get("model")
        return model if isinstance(model, dict) else {}

    def close(self) -> None:
        if self.temporary:
            shutil.rmtree(self.directory, ignore_errors=True)


def find(directory: Path, name: str) -> Path | None:
    """The archive in a model directory: a `.mar` at its top or in `model-store/`, or itself
    unpacked. Of several, the one that TorchServe's configuration has for the model called `name`,
    or `NAME.mar`.

    Raises AmbiguousArtifact when there are several and none is called so.
    """
    if directory.is_file() and directory.suffix == ".mar":
        return directory
    if (directory / MANIFEST).is_file():
        return directory
    found = sorted(directory.glob("*.mar")) or sorted((directory / "model-store").glob("*.mar"))
    if len(found) > 1:
        wanted = _snapshot(directory).get(name, f"{name}.mar")
        for path in found:
            if path.name == wanted:
                return path
        names = ", ".join(path.name for path in found)
        raise AmbiguousArtifact(
            f"{directory} has several archives ({names}) and none of them is for {name}: serve"
            f" each as --model NAME=pytorch:{found[0]}"
        )
    return found[0] if found else None


def _snapshot(directory: Path) -> dict[str, str]:
    """Model name -> archive, from `model_snapshot` in TorchServe's `config/config.properties`."""
    try:
        lines = (directory / "config" / "config.properties").read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    found = {}
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip() != "model_snapshot":
            continue
        try:
            for name, versions in json.loads(value)["models"].items():
                for version in versions.values():
                    if name not in found or version.get("defaultVersion"):
                        found[name] = str(version["marName"])
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return found


def unpack(archive: Path) -> Archive:
    """Unpack into a fresh temporary directory (a directory archive is used where it is).

    Raises LoadFailed for what is no archive, NoArtifact when it has no manifest.
    """
    if archive.is_dir():
        return Archive(directory=archive, manifest=read_manifest(archive), temporary=False)
    target = Path(tempfile.mkdtemp(prefix=f"turnout-{archive.stem}-"))
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, target)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                tar.extractall(target, filter="data")
        else:
            raise LoadFailed(
                f"{archive.name} is neither a zip nor a tar archive: is the download complete?"
            )
        return Archive(directory=target, manifest=read_manifest(target), temporary=True)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as exc:
        shutil.rmtree(target, ignore_errors=True)
        raise LoadFailed(f"{archive.name} cannot be unpacked: {exc}") from exc
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _unzip(archive: Path, target: Path) -> None:
    """Extract regular files and directories only; names that leave the target are refused."""
    with zipfile.ZipFile(archive) as bundle:
        for entry in bundle.infolist():
            path = PurePosixPath(entry.filename.replace("\\", "/"))
            mode = entry.external_attr >> 16
            if path.is_absolute() or ".." in path.parts or stat.S_ISLNK(mode):
                raise LoadFailed(f"{archive.name} has an entry outside itself: {entry.filename!r}")
        bundle.extractall(target)  # noqa: S202 - names checked above


def read_manifest(directory: Path) -> dict[str, Any]:
    file = directory / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NoArtifact(f"{MANIFEST} is missing: was this made by torch-model-archiver?") from None
    except ValueError as exc:
        raise LoadFailed(f"{MANIFEST} is not JSON: {exc}") from exc
    if not isinstance(manifest, dict) or not isinstance(manifest.get("model"), dict):
        raise LoadFailed(f'{MANIFEST} has no "model" object')
    return manifest
