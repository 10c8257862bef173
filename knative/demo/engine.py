"""`turnout up` as a child process, and what the demo asks it: who runs, what a graph answers."""

import contextlib
import http.client
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knative import errors
from knative.demo import children

START_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 120.0
"""One request may wait for several models to start on a busy machine."""
_STOP_S = 20.0

_RUN = "from knative.cli.main import run; raise SystemExit(run())"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back for one request."""

    status: int
    body: str
    seconds: float

    def prediction(self) -> object:
        """The first prediction; raises `TurnoutError` with the answer if there is none."""
        try:
            return json.loads(self.body)["predictions"][0]
        except (ValueError, LookupError, TypeError):
            text = f"the graph answered {self.status}: {self.body[:500]}"
            raise errors.TurnoutError(text) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service, what of it runs now and what it has done so far."""

    name: str
    steps: tuple[str, ...]
    """For a graph, the services its steps may call; empty for other services."""
    pods: int
    """Pods in any state, starting and draining ones included."""
    pids: tuple[int, ...]
    """Processes of its pods; empty at zero."""
    requests: int
    last_request: float
    """Wall-clock seconds; 0 before the first."""
    cold_starts: int
    cold: str
    """How its newest pod came up: `model fetched in 0.4 s, server ready 2.1 s after its start`."""


class Engine:
    """A running local engine."""

    def __init__(self, child: children.Child, port: int) -> None:
        self.child = child
        self.port = port

    def post(self, service: str, body: bytes) -> Reply:
        """POST to a service or graph by the host name it has in the cluster."""
        headers = {
            "Host": f"{service}.default.example.com",
            "Content-Type": "application/json",
        }
        started = time.monotonic()
        status, text = self._request("POST", "/", body, headers, REQUEST_TIMEOUT_S)
        seconds = time.monotonic() - started
        return Reply(status=status, body=text, seconds=seconds)

    def services(self) -> dict[str, Service]:
        """Every service by name, graphs included."""
        return {entry["name"]: _service(entry) for entry in self._admin("status")["services"]}

    def events(self) -> list[str]:
        """Types of the events that went through the Brokers lately, newest first."""
        recent = self._admin("events")["recent"]
        return [entry["event"]["type"] for entry in recent if isinstance(entry.get("event"), dict)]

    def dead_letters(self) -> list[str]:
        """Why events could not be delivered, for an error message."""
        return [json.dumps(entry.get("failure"))[:500] for entry in self._admin("events")["dead"]]

    def _admin(self, what: str) -> Any:
        headers = {"Host": f"127.0.0.1:{self.port}"}
        status, text = self._request("GET", f"/_turnout/api/{what}", b"", headers, 10)
        if status != 200:
            raise errors.TurnoutError(f"the engine's API answered {status}: {text[:200]}")
        return json.loads(text)

    def _request(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request(method, path, body or None, dict(headers))
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise errors.TurnoutError(f"the engine does not answer: {error}") from error
        finally:
            connection.close()


@contextlib.contextmanager
def running(
    files: Sequence[Path],
    *,
    port: int,
    folder: Path,
    root: Path,
    environ: Mapping[str, str],
    options: Sequence[str] = (),
    note: Callable[[str], None] = lambda _: None,
) -> Iterator[Engine]:
    """`turnout up FILES` from its `ready` line on; its state and its log are kept in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", _RUN, "up", *map(str, files)]
    command += ["--port", str(port), "--state-dir", str(folder / "state"), *options]
    log = folder / "up.log"
    with children.Child(command, log=log, environ=environ, cwd=root, patience_s=_STOP_S) as child:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _says_ready(log):
            if child.exit_code() is not None:
                raise errors.TurnoutError(f"turnout up failed:\n{child.tail(20)}")
            if time.monotonic() > deadline:
                raise errors.TurnoutError(
                    f"turnout up was not ready after {START_TIMEOUT_S:g} s:\n{child.tail(20)}"
                )
            note(child.tail(1).strip())
            time.sleep(0.02)
        yield Engine(child, port)


def _says_ready(log: Path) -> bool:
    return "ready" in log.read_text(encoding="utf-8", errors="replace").splitlines()


def _service(entry: Mapping[str, Any]) -> Service:
    revisions = entry["revisions"]
    pods = [pod for revision in revisions for pod in revision["pods"]]
    return Service(
        name=entry["name"],
        steps=_steps(entry["graph"] or {}),
        pods=len(pods),
        pids=tuple(pid for pod in pods for pid in pod["pids"]),
        requests=sum(revision["requests"] for revision in revisions),
        last_request=max((revision["last_request"] or 0.0 for revision in revisions), default=0.0),
        cold_starts=sum(revision["cold_starts"] for revision in revisions),
        cold=_cold(pods[-1]["timeline"]) if pods else "",
    )


def _steps(graph: Mapping[str, Any]) -> tuple[str, ...]:
    """Service names in a graph's spec, in its order."""
    steps = [step for node in graph.get("nodes", {}).values() for step in node.get("steps", ())]
    return tuple(step["serviceName"] for step in steps if step.get("serviceName"))


def _cold(timeline: Mapping[str, float | None]) -> str:
    """Where the time of a start from zero went, from the engine's instants (seconds)."""
    fetching, fetched = timeline.get("init_started"), timeline.get("init_ended")
    started, ready = timeline.get("started"), timeline.get("ready")
    parts = []
    if fetching and fetched:
        parts.append(f"model fetched in {fetched - fetching:.1f} s")
    if started and ready:
        parts.append(f"server ready {ready - started:.1f} s after its start")
    return ", ".join(parts)
