"""A model server for tests: `python -m functions` as a subprocess on a port the system chose."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DEADLINE_S = 60.0


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until it holds, for 20 s at most."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


class Reply:
    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json()["error"])


def wait_until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_S) -> Any:
    """Poll with a deadline."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds:g} s")


class Server:
    """A running model server: its log lines, its ports, and requests to it."""

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str], python: str) -> None:
        clean = {
            k: v for k, v in os.environ.items() if not k.startswith(("FUNCTIONS_", "STORAGE_"))
        }
        self.process = subprocess.Popen(
            [python, "-m", "functions", *arguments],
            cwd=ROOT,
            env={
                **clean,
                "PORT": "0",
                "FUNCTIONS_HOST": "127.0.0.1",
                "PYTHONPATH": str(ROOT),
                **environ,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.lines: list[str] = []
        self.out: list[str] = []
        self._readers = [
            threading.Thread(
                target=self._read, args=(self.process.stderr, self.lines), daemon=True
            ),
            threading.Thread(target=self._read, args=(self.process.stdout, self.out), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream: Any, into: list[str]) -> None:
        for line in stream:
            into.append(line.decode("utf-8", "replace").rstrip("\n"))

    def logged(self, key: str, value: Any = None) -> list[dict[str, Any]]:
        """Log records that have `key` (with this value)."""
        found = []
        for line in list(self.lines):
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if key in record and value in (None, record[key]):
                    found.append(record)
        return found

    @property
    def ports(self) -> list[int]:
        return [record["port"] for record in self.logged("port")]

    @property
    def port(self) -> int:
        return int(wait_until(lambda: self.ports or self._ended(), "the listener")[0])

    @property
    def grpc_port(self) -> int:
        return int(
            wait_until(lambda: self.logged("grpc_port"), "the gRPC listener")[0]["grpc_port"]
        )

    def _ended(self) -> None:
        if self.process.poll() is not None:
            raise AssertionError(f"exit {self.process.returncode}: " + "\n".join(self.lines[-20:]))

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        port: int | None = None,
        timeout: float = 30.0,
    ) -> Reply:
        """`body`: bytes as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = dict(headers or {})
        if data is not None and not isinstance(body, bytes):
            sent.setdefault("content-type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=timeout)
        try:
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            lower = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, lower, response.read())
        finally:
            connection.close()

    def get(self, path: str, **options: Any) -> Reply:
        return self.request("GET", path, **options)

    def post(
        self, path: str, body: Any = b"", headers: Mapping[str, str] | None = None, **o: Any
    ) -> Reply:
        return self.request("POST", path, body, headers, **o)

    def is_ready(self) -> bool:
        self._ended()
        try:
            return self.get("/readyz", timeout=2.0).status == 200
        except OSError:
            return False

    def wait_ready(self, seconds: float = DEADLINE_S) -> "Server":
        wait_until(self.is_ready, "readiness", seconds)
        return self

    def wait_exit(self, seconds: float = DEADLINE_S) -> int:
        code = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(5)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code

    def children(self) -> list[int]:
        """Worker processes."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.wait_exit()


@contextlib.contextmanager
def serving(
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    python: str = sys.executable,
    ready: bool = True,
) -> Iterator[Server]:
    """A server, stopped at the end whatever happens."""
    server = Server(arguments, environ or {}, python)
    try:
        yield server.wait_ready() if ready else server
    finally:
        server.stop()


def write_model(directory: Path, source: str, name: str = "model.py") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(source, encoding="utf-8")
    return directory
