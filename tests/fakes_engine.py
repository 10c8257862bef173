"""Running a local engine for tests: `turnout up` as a subprocess on a port the system chose."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

APP = Path(__file__).with_name("engine_app.py")
ROOT = Path(__file__).resolve().parents[1]
TURNOUT = [sys.executable, "-c", "from knative.cli.main import run; raise SystemExit(run())"]


def service(
    name: str,
    *,
    env: Mapping[str, str] | None = None,
    spec: Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
    traffic: list[dict[str, Any]] | None = None,
    **container: Any,
) -> dict[str, Any]:
    """A Knative Service that runs `engine_app.py`; `container` overrides its fields."""
    body = {
        "name": "user-container",
        "image": "test",
        "command": ["python", str(APP)],
        "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
        **container,
    }
    template: dict[str, Any] = {"spec": {"containers": [body], **(spec or {})}}
    if annotations:
        scaling = {f"autoscaling.knative.dev/{key}": text for key, text in annotations.items()}
        template["metadata"] = {"annotations": scaling}
    result: dict[str, Any] = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": template},
    }
    if traffic:
        result["spec"]["traffic"] = traffic
    return result


def write(path: Path, *objects: Mapping[str, Any]) -> Path:
    path.write_text(yaml.safe_dump_all([dict(item) for item in objects]))
    return path


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    took_s: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Engine:
    """A running `turnout up`."""

    def __init__(self, process: subprocess.Popen[str], state: Path, output: Path) -> None:
        self.process = process
        self.state = state
        self._output = output
        self.port = 0

    @property
    def output(self) -> str:
        """Everything it has printed so far."""
        return self._output.read_text()

    def wait_ready(self, timeout_s: float = 30) -> None:
        def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"engine exited {self.process.returncode}:\n{self.output}")
            return "\nready\n" in "\n" + self.output

        until(ready, timeout_s)
        self.port = json.loads((self.state / "engine.json").read_text())["port"]

    def call(
        self,
        name: str,
        path: str = "/echo",
        *,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        host: str | None = None,
        timeout_s: float = 30,
    ) -> Answer:
        """One request to a service through the gateway."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        started = time.monotonic()
        try:
            given = {"Host": host or f"{name}.default.svc.cluster.local", **(headers or {})}
            connection.request(method, path, body=body, headers=given)
            response = connection.getresponse()
            data = response.read()
            fields = {key.lower(): value for key, value in response.getheaders()}
            return Answer(response.status, fields, data, time.monotonic() - started)
        finally:
            connection.close()

    def admin(self, name: str, **arguments: Any) -> Any:
        """GET, or POST when there are arguments."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            headers = {"Host": "localhost", "X-Turnout": "1"}
            if arguments:
                body = json.dumps(arguments)
                connection.request("POST", f"/_turnout/api/{name}", body=body, headers=headers)
            else:
                connection.request("GET", f"/_turnout/api/{name}", headers=headers)
            response = connection.getresponse()
            data = response.read()
            assert response.status == 200, data
            return json.loads(data)
        finally:
            connection.close()

    def service(self, name: str) -> dict[str, Any]:
        """A service's part of the status."""
        found: dict[str, Any] = next(
            item for item in self.admin("status")["services"] if item["name"] == name
        )
        return found

    def pods(self, name: str) -> list[dict[str, Any]]:
        return [pod for held in self.service(name)["revisions"] for pod in held["pods"]]

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 30) -> int:
        """Signal it and wait; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout_s)


@contextlib.contextmanager
def running(
    folder: Path, *objects: Mapping[str, Any], arguments: tuple[str, ...] = (), wait: bool = True
) -> Iterator[Engine]:
    """An engine with these objects; stopped (killed if need be) at the end."""
    file = write(folder / "objects.yaml", *objects)
    with start(folder, str(file), *arguments) as engine:
        if wait:
            engine.wait_ready()
        yield engine


@contextlib.contextmanager
def start(folder: Path, *arguments: str, port: int = 0) -> Iterator[Engine]:
    """`turnout up ARGUMENTS`, without waiting."""
    state, output = folder / "state", folder / "output.txt"
    with output.open("w") as sink:
        process = subprocess.Popen(
            [*TURNOUT, "up", *arguments, "--port", str(port), "--state-dir", str(state)],
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    engine = Engine(process, state, output)
    try:
        yield engine
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def turnout(*arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """One `turnout` command."""
    return subprocess.run(
        [*TURNOUT, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=ROOT,
        check=False,
    )


def until(condition: Callable[[], object], timeout_s: float = 20, pause_s: float = 0.02) -> None:
    """Poll until the condition holds; fails with its name otherwise."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {condition}")
        time.sleep(pause_s)


def alive(pid: int) -> bool:
    """A process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
