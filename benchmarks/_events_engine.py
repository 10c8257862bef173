"""`turnout up` as the event benchmarks need it: started, killed, and its CPU split up."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import _events_load as load
from benchmarks import harness

PODS = {"adapter": b"\0adapter\0", "sink": b"\0sink\0", "model": b"uvloop.run"}
"""How the command lines of the engine's processes are told apart."""


@dataclass(kw_only=True)
class Engine:
    """An engine on `bench.yaml` of a folder."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    def environ(self) -> dict[str, str]:
        """What its services need besides."""
        return {}

    def others(self) -> list[tuple[str, int]]:
        """(name, process) of what else takes part."""
        return []

    def start(self) -> None:
        environ = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        with (self.folder / "engine.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(Path(sys.executable).with_name("turnout")), "up",
                    str(self.folder / "bench.yaml"), "--port", str(self.port),
                    "--state-dir", str(self.folder / "state"),
                ],
                cwd=harness.ROOT,
                env={**environ, **self.environ()},
                stdout=subprocess.PIPE,
                stderr=log,
            )  # fmt: skip
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == b"ready":
                return
        raise RuntimeError(f"the engine did not start; see {self.folder}/engine.log")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def replied(self) -> int:
        """Events that came to a reply so far."""
        url = f"http://127.0.0.1:{self.port}/_turnout/api/events?limit=1"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return int(json.load(answer)["stats"].get("replied", 0))

    def cpu(self) -> dict[str, float]:
        """CPU seconds used so far, by part."""
        assert self.process is not None
        parts = [("engine", self.process.pid), ("load and count", os.getpid()), *self.others()]
        return load.cpu_by_name(parts + [(name_of(pid), pid) for pid in self.pods()])

    def pods(self) -> list[int]:
        """Processes below the engine."""
        assert self.process is not None
        found = [self.process.pid]
        for pid in found:
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
                found += map(int, re.findall(r"\d+", children))
        return found[1:]


def name_of(pid: int) -> str:
    """adapter, sink, model, or engine (its spawner)."""
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        for name, sign in PODS.items():
            if sign in command:
                return name
    return "engine"
