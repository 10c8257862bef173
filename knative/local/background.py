"""`turnout up -d`: the engine as a process of its own, ready when the command returns."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .errors import EngineError

READY_S = 660.0
_RUN = "from knative.cli.main import run; raise SystemExit(run())"


def start(arguments: Sequence[str], log: Path) -> list[str]:
    """Start `turnout ARGUMENTS` in a session of its own, wait for `ready`; returns what it
    printed.

    Raises EngineError with its last lines when it ends before.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as sink:
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        lines = log.read_text(errors="replace").splitlines()
        if "ready" in lines:
            return lines[: lines.index("ready") + 1]
        if process.poll() is not None:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise EngineError(f"the engine ended with code {process.returncode}:\n{last}")
        time.sleep(0.05)
    with contextlib.suppress(OSError):
        process.terminate()
    raise EngineError(f"not ready after {READY_S:g} s; see {log}")
