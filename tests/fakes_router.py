"""For router tests: a scripted upstream on a thread, the router as a subprocess, and a raw client.

Nothing here sleeps for luck: waiting is polling with a deadline, ports come from the system, and
what is started is stopped, also when a test fails.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DEADLINE_S = 20.0


def wait_until(check: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Poll until `check` is truthy; returns its value."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        value = check()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {deadline_s:g} s: {what}")


@dataclass
class Seen:
    """A request that an upstream received."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Behaviour = Callable[["Conversation"], None]


class Conversation:
    """One request on an upstream's connection; a behaviour answers it."""

    def __init__(self, sock: socket.socket, seen: Seen, upstream: "FakeUpstream") -> None:
        self.sock = sock
        self.seen = seen
        self.upstream = upstream
        self.keep = True

    def raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, body: bytes = b"{}", status: int = 200, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Status"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        lines.append(f"Content-Length: {len(body)}")
        self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def close(self) -> None:
        self.keep = False

    def client_gone(self, deadline_s: float = 10.0) -> bool:
        """True once the router has closed this connection."""
        self.sock.settimeout(deadline_s)
        try:
            return self.sock.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True


def says(body: bytes = b"{}", status: int = 200, **headers: str) -> Behaviour:
    """Always the same answer."""
    return lambda talk: talk.answer(body, status, **headers)


def echo(talk: Conversation) -> None:
    talk.answer(talk.seen.body, Content_Type="application/json")


def inspect(talk: Conversation) -> None:
    """What arrived, as JSON."""
    seen = talk.seen
    what = {
        "method": seen.method,
        "path": seen.path,
        "headers": seen.headers,
        "body": seen.body.decode("latin-1"),
    }
    talk.answer(json.dumps(what).encode())


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """One behaviour per call; the last one repeats."""
    calls = iter(range(1 << 30))

    def play(talk: Conversation) -> None:
        behaviours[min(next(calls), len(behaviours) - 1)](talk)

    return play


def after(seconds: float, then: Behaviour) -> Behaviour:
    """Late, but answers."""

    def play(talk: Conversation) -> None:
        time.sleep(seconds)
        then(talk)

    return play


class FakeUpstream:
    """An HTTP/1.1 server with a behaviour per path; remembers what it saw."""

    def __init__(
        self, routes: Mapping[str, Behaviour] | None = None, default: Behaviour = echo
    ) -> None:
        self.routes = dict(routes or {})
        self.default = default
        self.seen: list[Seen] = []
        self.accepted = 0
        self.open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._stopping = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        with self._lock:
            return [seen.path for seen in self.seen]

    def stop(self) -> None:
        self._stopping = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self.open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._stopping:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self.open.add(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            stream = sock.makefile("rb")
            while not self._stopping:
                seen = self._read(stream)
                if seen is None:
                    break
                with self._lock:
                    self.seen.append(seen)
                talk = Conversation(sock, seen, self)
                self.routes.get(seen.path.partition("?")[0], self.default)(talk)
                if not talk.keep:
                    break
        self.open.discard(sock)

    @staticmethod
    def _read(stream: Any) -> Seen | None:
        line = stream.readline().decode("latin-1")
        if not line.strip():
            return None
        method, path, _ = line.split(" ", 2)
        headers: dict[str, str] = {}
        while (field_line := stream.readline().decode("latin-1").strip()) != "":
            name, _, value = field_line.partition(":")
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return Seen(method, path, headers, stream.read(int(headers.get("content-length", "0"))))


@contextlib.contextmanager
def upstream(
    routes: Mapping[str, Behaviour] | None = None, default: Behaviour = echo
) -> Iterator[FakeUpstream]:
    fake = FakeUpstream(routes, default)
    try:
        yield fake
    finally:
        fake.stop()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RouterProcess:
    """`python -m router_fn` with a graph."""

    def __init__(self, graph: Any, *arguments: str, **env: str) -> None:
        self.port = free_port()
        full = {
            k: v
            for k, v in os.environ.items()
            if not k.lower().endswith("_proxy") and k != "PROPAGATE_HEADERS"
        }
        full |= {
            "PORT": str(self.port),
            "HOST": "127.0.0.1",
            "DRAIN_DELAY_SECONDS": "0",
            "PYTHONPATH": str(ROOT),
        }
        full["GRAPH_JSON"] = graph if isinstance(graph, str) else json.dumps(graph)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "router_fn", *arguments],
            env=full | env,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,
        )

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode()

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log().splitlines()]

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, (
                f"ended with {self.process.returncode}: {self.log()}"
            )
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self.request("GET", "/readyz").status == 200
            return False

        wait_until(ready, "the router is ready")

    def request(
        self, method: str = "POST", path: str = "/", body: bytes | None = b"{}", **headers: str
    ) -> Answer:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            link.request(method, path, body if method != "GET" else None, names)
            response = link.getresponse()
            return Answer(
                response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
            )
        finally:
            link.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 30)

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        return self.process.wait(deadline_s)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self._log.close()
        return self.process.returncode


@contextlib.contextmanager
def router(graph: Any, *arguments: str, **env: str) -> Iterator[RouterProcess]:
    process = RouterProcess(graph, *arguments, **env)
    try:
        process.wait_ready()
        yield process
    finally:
        process.stop()


def node(kind: str, *steps: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    return {"routerType": kind, "steps": list(steps), **fields}


def graph(
    root: Mapping[str, Any], spec: Mapping[str, Any] | None = None, **nodes: Any
) -> dict[str, Any]:
    return {"nodes": {"root": root, **nodes}, **(spec or {})}


def sequence(*steps: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    return graph(node("Sequence", *steps, **fields))


def recv_all(sock: socket.socket) -> bytes:
    """Everything until the peer closes; a reset counts as an end."""
    out = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            out += piece
    return out
