"""Running `turnout` as a user does: the console script, real processes, one place to stop them."""

import base64
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
TURNOUT = Path(sys.executable).with_name("turnout")
MODELS = ROOT / ".demo" / "models"
MIRROR = f"s3://turnout-examples/={MODELS}/"

CHELSEA = Path("skimage/data/chelsea.png")
FLOWER = Path("sklearn/datasets/images/flower.jpg")
TEMPLE = Path("sklearn/datasets/images/china.jpg")
HORSE = Path("skimage/data/horse.png")


def photograph(path: Path) -> bytes:
    """A picture that comes with an installed package."""
    import importlib.util

    spec = importlib.util.find_spec(path.parts[0])
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], *path.parts[1:]).read_bytes()


def instances(*pictures: bytes) -> bytes:
    """A V1 request body with these pictures."""
    rows = [{"data": base64.b64encode(picture).decode()} for picture in pictures]
    return json.dumps({"instances": rows}).encode()


def tutorial(name: str) -> bytes | None:
    """A request body of KServe's tutorial, if it lies beside this checkout."""
    path = ROOT.parent / "shared" / "data" / "kserve-tutorial" / name
    return path.read_bytes() if path.exists() else None


INFERENCE_SERVICE = """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}
spec:
  predictor:
    timeout: {timeout_s}
    model:
      modelFormat:
        name: pytorch
      storageUri: {uri}
"""


def inference_service(folder: Path, name: str, uri: str, *, timeout_s: int = 300) -> Path:
    """A manifest file for one PyTorch archive."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(INFERENCE_SERVICE.format(name=name, uri=uri, timeout_s=timeout_s))
    return path


def archive(path: Path, handler: str) -> Path:
    """A `.mar` with nothing but a handler."""
    model = {"modelName": path.stem, "handler": "handler.py", "modelVersion": "1.0"}
    manifest = {"runtime": "python", "model": model, "archiverVersion": "0.12.0"}
    with zipfile.ZipFile(path, "w") as mar:
        mar.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        mar.writestr("handler.py", textwrap.dedent(handler))
    return path


def free_port() -> int:
    """A port that nobody has now. Below the range from which the system gives ports away, so that
    none of the servers started meanwhile gets it by chance."""
    while True:
        port = random.randint(15_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def environment(**more: str) -> dict[str, str]:
    """A developer's environment with this virtual environment first on PATH."""
    path = f"{TURNOUT.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "NO_COLOR": "1", **more}


def turnout(
    *argv: str | Path, cwd: Path = ROOT, timeout_s: float = 200, **more: str
) -> "subprocess.CompletedProcess[str]":
    """One command to its end."""
    return subprocess.run(
        [TURNOUT, *argv],
        cwd=cwd,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def package() -> None:
    """All example archives, in the place the README uses; quick when nothing changed."""
    for pipeline in ("animal-plant", "dog-breed"):
        done = turnout("package", EXAMPLES / pipeline, "--output", MODELS / pipeline)
        assert done.returncode == 0, done.stderr


@dataclass
class Up:
    """A running `turnout up`."""

    port: int
    process: "subprocess.Popen[str]" = field(repr=False)
    stdout: Path
    stderr: Path

    def post(
        self,
        service: str,
        body: bytes,
        *,
        path: str = "/",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 90,
        method: str = "POST",
    ) -> tuple[int, Any, Mapping[str, str]]:
        """One request to a service or graph: (status, JSON or text, headers)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        host = service if "." in service else f"{service}.default.example.com"
        try:
            connection.request(
                method,
                path,
                body,
                {"Host": host, "Content-Type": "application/json", **(headers or {})},
            )
            response = connection.getresponse()
            text = response.read().decode()
            answer = {key.lower(): value for key, value in response.getheaders()}
        finally:
            connection.close()
        try:
            return response.status, json.loads(text), answer
        except ValueError:
            return response.status, text, answer

    def output(self) -> str:
        return self.stdout.read_text() + self.stderr.read_text()

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 30) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout_s)


@contextlib.contextmanager
def up(
    *argv: str | Path,
    folder: Path,
    port: int | None = None,
    cwd: Path = ROOT,
    ready: bool = True,
    program: Path = TURNOUT,
    **more: str,
) -> Iterator[Up]:
    """`turnout up ARGV` with its state in `folder`, from `ready` on; always stopped at the end."""
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    stdout, stderr = folder / "up.out", folder / "up.err"
    with stdout.open("w") as out, stderr.open("w") as err:
        process = subprocess.Popen(
            [program, "up", *argv, "--port", str(port), "--state-dir", folder / "state"],
            cwd=cwd,
            env=environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            text=True,
        )
    engine = Up(port=port, process=process, stdout=stdout, stderr=stderr)
    try:
        if ready:
            wait_for(lambda: _is_ready(engine), 60, lambda: engine.output())
        yield engine
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
                raise


def _is_ready(engine: Up) -> bool:
    code = engine.process.poll()
    assert code is None, f"turnout up ended with {code}:\n{engine.output()}"
    return "ready" in engine.stdout.read_text().splitlines()


def wait_for(condition: Any, timeout_s: float, explain: Any = lambda: "") -> None:
    """Poll until `condition()` is true; fail with `explain()` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s:g} s\n{explain()}")


def descendants(pid: int) -> set[int]:
    """Process ids below `pid`, by walking /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                stat = (entry / "stat").read_text()
                children.setdefault(int(stat.rsplit(")", 1)[1].split()[1]), []).append(
                    int(entry.name)
                )
    found: set[int] = set()
    queue: list[int] = [pid]
    while queue:
        for child in children.get(queue.pop(), ()):
            found.add(child)
            queue.append(child)
    return found


def alive(pids: Sequence[int] | set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


def wait_gone(pids: set[int], timeout_s: float = 15) -> None:
    """Until none of these processes exists any more."""
    wait_for(lambda: not alive(pids), timeout_s, lambda: f"still alive: {sorted(alive(pids))}")
