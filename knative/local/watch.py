"""`turnout up --watch`: recompile and roll when manifests or user code change.

Files are looked at twice a second (their modification times; no inotify, so that network and
container file systems work too). A change of code makes a new revision of the services that
mention the file or its directory, so that rolling is the same as for a changed manifest: nothing
in flight is lost.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from knative import errors

from . import foreground, spec
from .engine import Engine

POLL_S = 0.5
MAX_FILES = 5000
"""Per directory that a container mentions; larger trees are watched in part."""

IGNORED = frozenset({"__pycache__", ".git", ".turnout", ".venv", "node_modules", ".mypy_cache"})


async def watch_forever(
    engine: Engine, given: foreground.Input, say: Callable[[str], None]
) -> None:
    """Poll until cancelled. Problems in changed manifests are said; what runs goes on running."""
    manifests = stamp(manifest_files(given.paths))
    code = code_stamps(engine.workload, engine.settings.root)
    first = dict(code)
    while True:
        await asyncio.sleep(POLL_S)
        new_manifests = stamp(manifest_files(given.paths))
        new_code = code_stamps(engine.workload, engine.settings.root)
        if new_manifests == manifests and new_code == code:
            continue
        manifests, code = new_manifests, new_code
        try:
            workload = foreground.load(given, engine.settings)
            code = code_stamps(workload, engine.settings.root)
            await engine.apply(salted(workload, first, code))
        except errors.TurnoutError as error:
            say(f"not applied: {error}")
        else:
            say("applied changes")


def manifest_files(paths: Iterable[str | Path]) -> list[Path]:
    """Files behind the arguments of `up`; directories are looked through."""
    found: list[Path] = []
    for item in paths:
        path = Path(item)
        if path.is_dir():
            found.extend(
                file for file in path.rglob("*") if file.suffix in {".yaml", ".yml", ".json"}
            )
        elif str(item) != "-":
            found.append(path)
    return found


def code_files(service: spec.Service, root: Path) -> list[Path]:
    """Files that a service's containers mention in command, arguments or PYTHONPATH."""
    words: list[str] = []
    for container in (*service.template.containers, *service.template.init_containers):
        words += [*container.command, *container.args]
        for variable in container.env:
            if variable.name == "PYTHONPATH":
                words += variable.value.split(":")
    found: list[Path] = []
    for word in words:
        path = root / word.rpartition("=")[2]
        try:
            if path.is_file() and path.suffix in {".py", ".json", ".yaml", ".txt"}:
                found.append(path)
            elif path.is_dir() and path.resolve() not in (Path("/"), Path.home()):
                found.extend(_tree(path))
        except (OSError, ValueError):
            continue
    return found


def _tree(folder: Path) -> list[Path]:
    found: list[Path] = []
    for path in folder.rglob("*"):
        if not IGNORED.intersection(path.parts) and path.is_file():
            found.append(path)
            if len(found) >= MAX_FILES:
                break
    return found


def code_stamps(workload: spec.Workload, root: Path) -> dict[str, str]:
    """Service key -> digest of names and modification times of its code."""
    return {service.key: stamp(code_files(service, root)) for service in workload.services}


def stamp(files: Iterable[Path]) -> str:
    """Digest of names, sizes and modification times; missing files count as such."""
    digest = hashlib.sha256()
    for file in sorted(set(files)):
        try:
            facts = file.stat()
            digest.update(f"{file}:{facts.st_size}:{facts.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{file}:missing\n".encode())
    return digest.hexdigest()[:16]


def salted(workload: spec.Workload, first: dict[str, str], code: dict[str, str]) -> spec.Workload:
    """The workload with new fingerprints for services whose code has changed since `up`."""
    services = tuple(
        service
        if first.get(service.key) in (None, code[service.key])
        else replace(service, fingerprint=f"{service.fingerprint}+{code[service.key]}")
        for service in workload.services
    )
    return replace(workload, services=services)
