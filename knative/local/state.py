"""The state directory of one engine: who owns it, what survives, what a crash left behind.

    engine.lock       locked (flock) while an engine runs here
    engine.json       pid, port, start time: how `ps`, `logs` and `invoke` find the engine
    revisions.json    service -> generations with their templates, so that names go on counting
    events.sqlite     accepted events (the broker's)
    pods/             volumes and temporary files of running pods; emptied at start
    logs/NS/NAME/POD/CONTAINER.log
    claims/NS/NAME/   persistent volume claims that were not mapped to a directory

Nothing here trusts what it reads: a damaged file is set aside, said once, and done without.
"""

import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from .errors import EngineError, PortInUse

logger = logging.getLogger(__name__)

KEEP_LOGS_PER_SERVICE = 10
"""Log directories of ended pods kept per service."""


class StateDir:
    """An engine's own view of its directory; `open` locks it, `close` unlocks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pods = root / "pods"
        self.logs = root / "logs"
        self.claims = root / "claims"
        self.events = root / "events.sqlite"
        self._lock = -1

    def open(self) -> None:
        """Take the directory, and clear away what a killed engine left. Raises PortInUse,
        EngineError."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(
                self.root / "engine.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise EngineError(
                f"cannot use the state directory {self.root}: {error.strerror}; "
                "choose another with --state-dir"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            self._lock = -1
            owner = read_engine(self.root)
            who = f" (pid {owner['pid']}, port {owner['port']})" if owner else ""
            raise PortInUse(
                f"another engine is running with state directory {self.root}{who}; "
                "stop it with `turnout down`, or choose another --port or --state-dir"
            ) from None
        killed = kill_leftovers(engine_id(self.root))
        if killed:
            logger.warning("ended %d processes that a killed engine had left behind", killed)
        shutil.rmtree(self.pods, ignore_errors=True)
        for directory in (self.pods, self.logs, self.claims):
            directory.mkdir(exist_ok=True)

    def publish(self, port: int, **facts: object) -> None:
        """Say where this engine is."""
        facts = {"pid": os.getpid(), "port": port, "started": time.time(), **facts}
        write_json(self.root / "engine.json", facts)

    def close(self) -> None:
        """Give the directory up; logs and events stay."""
        with contextlib.suppress(OSError):
            (self.root / "engine.json").unlink()
        shutil.rmtree(self.pods, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def load_revisions(self) -> dict[str, list[dict[str, Any]]]:
        """service key -> [{"name", "generation", "fingerprint", "template"}], oldest first."""
        found = read_json(self.root / "revisions.json")
        if not isinstance(found, dict):
            return {}
        return {
            str(key): [item for item in value if isinstance(item, dict) and "generation" in item]
            for key, value in found.items()
            if isinstance(value, list)
        }

    def save_revisions(self, revisions: dict[str, list[dict[str, Any]]]) -> None:
        """Best effort: without it the next start merely begins with generation 1 again."""
        try:
            write_json(self.root / "revisions.json", revisions)
        except OSError as error:
            logger.warning("cannot remember revisions: %s", error)

    def prune_logs(self, namespace: str, service: str, keep: set[str]) -> None:
        """Drop the oldest log directories of ended pods of a service."""
        folder = self.logs / namespace / service
        try:
            ended = [path for path in folder.iterdir() if path.name not in keep]
            ended.sort(key=lambda path: path.stat().st_mtime)
        except OSError:
            return
        for path in ended[:-KEEP_LOGS_PER_SERVICE]:
            shutil.rmtree(path, ignore_errors=True)


def engine_id(root: Path) -> str:
    """Marks the processes of the engine that lives in this directory."""
    return str(root.resolve())


def read_engine(root: Path) -> dict[str, Any] | None:
    """What the engine in this directory published, if it is still alive."""
    found = read_json(root / "engine.json")
    if not isinstance(found, dict) or not isinstance(found.get("pid"), int):
        return None
    try:
        os.kill(found["pid"], 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return found


def kill_leftovers(identity: str) -> int:
    """SIGKILL processes whose environment says that they belong to this engine; returns how many.

    The spawner makes sure there are none; this is for the day it was killed together with the
    engine.
    """
    mark = b"TURNOUT_POD=" + identity.encode() + b"/"
    killed = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            if any(variable.startswith(mark) for variable in variables):
                os.kill(int(entry.name), signal.SIGKILL)
                killed += 1
        except OSError:
            continue
    return killed


def read_json(path: Path) -> object:
    """The file's content; None when it is missing. A damaged one is set aside as NAME.damaged."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s is unreadable (%s): going on without it", path, error)
        with contextlib.suppress(OSError):
            os.replace(path, path.with_name(path.name + ".damaged"))
        return None


def write_json(path: Path, value: object) -> None:
    """Replace the file in one step. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(value, indent=1))
    os.replace(temporary, path)
