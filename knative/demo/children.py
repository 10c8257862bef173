"""Processes the demo starts, and how each of them surely ends.

Every child leads a process group of its own: Ctrl-C in the terminal reaches the demo alone, which
then stops its children in order. Stopping asks first (SIGTERM) and insists later (SIGKILL), the
whole group each time, so that nothing a child started outlives it.
"""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

_KILLED_S = 5.0
"""How long the kernel may take to end a killed process before we stop waiting for it."""


def free_ports(count: int) -> list[int]:
    """`count` different loopback TCP ports that the system says are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for entry in sockets:
            entry.bind(("127.0.0.1", 0))
        return [int(entry.getsockname()[1]) for entry in sockets]


def exists(pid: int) -> bool:
    """Whether there is such a process (of anybody's)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Child:
    """One process with its output in `log`; a context manager that ends it, whatever happens."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environ: Mapping[str, str],
        cwd: Path,
        patience_s: float,
    ) -> None:
        """`patience_s`: how long it may take to end by itself after SIGTERM."""
        self.log = log
        self._patience_s = patience_s
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environ),
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def tail(self, lines: int = 8) -> str:
        """The last lines it wrote, indented, for an error message."""
        text = self.log.read_text(encoding="utf-8", errors="replace").rstrip()
        return "\n".join(f"  {line}" for line in text.splitlines()[-lines:])

    def stop(self) -> int | None:
        """End it and everything it started; its exit code, or None if not even SIGKILL helped."""
        for number, wait_s in ((signal.SIGTERM, self._patience_s), (signal.SIGKILL, _KILLED_S)):
            # The group outlives its leader while any grandchild does.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
            try:
                code = self._process.wait(wait_s)
            except subprocess.TimeoutExpired:
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            return code
        return None

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
