"""Many small files over a server that misbehaves in every way, per answer and per connection."""

import contextlib
import hashlib
import json
import random
import re
import socket
import struct
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes_storage import initialize, tree

KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "very-secret"}
OBJECTS = {
    f"d{number % 3}/{number:03d}.bin": random.Random(number).randbytes((number * 977) % 200_000)
    for number in range(120)
}


class Bucket:
    """One bucket over raw sockets; `faults` are drawn at random, `rate` of the answers."""

    def __init__(self, faults: tuple[str, ...], rate: float, *, after: float = 0.0) -> None:
        self.faults, self.rate, self.after = faults, rate, after
        self.random = random.Random(5)
        self.seen: Counter[str] = Counter()
        self.damaged: set[str] = set()
        self.connections = 0
        self.most_at_once = self.at_once = 0
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def environ(self) -> dict[str, str]:
        url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        return {"AWS_ENDPOINT_URL": url, "STORAGE_STALL_SECONDS": "1", **KEYS}

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            data = b""
            while not self.stop.is_set():
                while b"\r\n\r\n" not in data:
                    more = sock.recv(65536)
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                method, target = head.split(b" ")[:2]
                if not self._answer(sock, method.decode(), target.decode()):
                    return

    def _answer(self, sock: socket.socket, method: str, target: str) -> bool:
        """Whether the connection stays open."""
        parts = urllib.parse.urlsplit(target)
        if "list-type" in parts.query:
            self._send(sock, 200, self._listing(), "")
            return True
        key = urllib.parse.unquote(parts.path).removeprefix("/bkt/m").removeprefix("/")
        if key not in OBJECTS or method == "HEAD":
            self._send(sock, 404, b"", "")
            return True
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            fault = self.random.choice(self.faults) if self.random.random() < self.rate else ""
            if fault == "corrupt" and key in self.damaged:
                fault = ""  # what is wrong three times in a row is refused, and rightly so
            if fault == "corrupt":
                self.damaged.add(key)
            self.seen[fault or "good"] += 1
        if self.after:
            self.stop.wait(self.after)
        with self.lock:
            self.at_once -= 1
        return self._fault(sock, fault, OBJECTS[key])

    def _fault(self, sock: socket.socket, fault: str, body: bytes) -> bool:
        tag = f'ETag: "{hashlib.md5(body).hexdigest()}"\r\n'
        if fault == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if fault == "close":
            return False
        if fault in ("503", "429", "500"):
            self._send(sock, int(fault), b"<Error><Code>SlowDown</Code></Error>", "")
            return True
        if fault == "half":
            sock.sendall(f"HTTP/1.1 200 OK\r\n{tag}Content-Length: {len(body)}\r\n\r\n".encode())
            sock.sendall(body[: len(body) // 2])
            return False
        if fault == "stall":
            sock.sendall(f"HTTP/1.1 200 OK\r\n{tag}Content-Length: {len(body)}\r\n\r\n".encode())
            sock.sendall(body[: len(body) // 2])
            self.stop.wait(30)
            return False
        if fault == "corrupt" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        if fault == "short":
            body = body[:-1]
        if fault == "chunked":
            sock.sendall(f"HTTP/1.1 200 OK\r\n{tag}Transfer-Encoding: chunked\r\n\r\n".encode())
            sock.sendall((b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n")
            return True
        if fault == "trickle":
            sock.sendall(f"HTTP/1.1 200 OK\r\n{tag}Content-Length: {len(body)}\r\n\r\n".encode())
            for start in range(0, len(body), 40_000):
                sock.sendall(body[start : start + 40_000])
                self.stop.wait(0.02)
            return True
        if fault == "garbage":
            sock.sendall(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
            return False
        if fault == "leave":  # keeps the connection for the answer only, without saying so
            self._send(sock, 200, body, tag)
            return False
        self._send(sock, 200, body, tag + ("Connection: close\r\n" if fault == "bye" else ""))
        return fault != "bye"

    @staticmethod
    def _send(sock: socket.socket, status: int, body: bytes, headers: str) -> None:
        sock.sendall(
            f"HTTP/1.1 {status} x\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode()
        )
        sock.sendall(body)

    @staticmethod
    def _listing() -> bytes:
        rows = "".join(
            f"<Contents><Key>m/{key}</Key><Size>{len(data)}</Size>"
            f"<ETag>&quot;{hashlib.md5(data).hexdigest()}&quot;</ETag></Contents>"
            for key, data in OBJECTS.items()
        )
        return (
            f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()
        )


@contextlib.contextmanager
def bucket(*faults: str, rate: float = 0.0, after: float = 0.0) -> Iterator[Bucket]:
    running = Bucket(faults, rate, after=after)
    try:
        yield running
    finally:
        running.stop.set()
        running.listener.close()


def outcome(stderr: str) -> dict[str, object]:
    return dict(json.loads(stderr.strip().splitlines()[-1]))


@pytest.mark.parametrize(
    "fault",
    ["reset", "close", "503", "500", "half", "corrupt", "short", "chunked", "trickle", "garbage",
     "leave", "bye"],
)  # fmt: skip
def test_every_fault_is_survived_and_every_byte_is_right(tmp_path: Path, fault: str) -> None:
    with bucket(fault, rate=0.25) as server:
        done = initialize("s3://bkt/m", tmp_path / "m", environ=server.environ)
    assert done.returncode == 0, done.stderr
    assert server.seen[fault] > 5
    assert tree(tmp_path / "m") == OBJECTS


def test_stalls_are_noticed(tmp_path: Path) -> None:
    with bucket("stall", rate=0.03) as server:
        done = initialize("s3://bkt/m", tmp_path / "m", environ=server.environ)
    assert done.returncode == 0, done.stderr
    assert server.seen["stall"] >= 1
    assert outcome(done.stderr)["retries"]
    assert tree(tmp_path / "m") == OBJECTS


def test_all_faults_at_once(tmp_path: Path) -> None:
    faults = ("reset", "close", "503", "500", "half", "corrupt", "short", "chunked", "leave", "bye")
    with bucket(*faults, rate=0.5) as server:
        # Half of the answers are bad: eight fruitless tries of one file in a row may happen.
        for _ in range(5):
            done = initialize("s3://bkt/m", tmp_path / "m", environ=server.environ)
            if done.returncode == 0:
                break
            assert not (tmp_path / "m").exists()
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") == OBJECTS


def test_a_source_that_only_refuses_is_one_clear_line(tmp_path: Path) -> None:
    with bucket("500", rate=1.0) as server:
        environ = server.environ | {"STORAGE_ATTEMPTS": "2"}
        done = initialize("s3://bkt/m", tmp_path / "m", environ=environ)
        asked = sum(server.seen.values())
    assert done.returncode == 1
    assert "500" in str(outcome(done.stderr)["message"])
    assert asked < 80  # the crowd was called off: not every file was tried
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("environ", "most"),
    [
        ({}, 32 + 8),
        ({"STORAGE_CONCURRENCY": "1"}, 1),
        ({"STORAGE_SMALL_CONCURRENCY": "0", "STORAGE_CONCURRENCY": "3"}, 3),
        ({"STORAGE_SMALL_CONCURRENCY": "2"}, 2 + 8),
    ],
    ids=["default", "one", "threads", "two"],
)
def test_connections_stay_within_their_limit(
    tmp_path: Path, environ: dict[str, str], most: int
) -> None:
    with bucket(after=0.02) as server:
        done = initialize("s3://bkt/m", tmp_path / "m", environ=server.environ | environ)
    assert done.returncode == 0, done.stderr
    assert server.most_at_once <= most
    assert server.connections <= most + 1
    assert tree(tmp_path / "m") == OBJECTS


def test_a_distant_server_is_asked_for_many_at_once(tmp_path: Path) -> None:
    with bucket(after=0.1) as server:
        done = initialize("s3://bkt/m", tmp_path / "m", environ=server.environ)
    assert done.returncode == 0, done.stderr
    assert server.most_at_once > 8


def test_a_server_that_dies_ends_the_run(tmp_path: Path) -> None:
    with bucket(after=0.05) as server:
        environ = server.environ | {"STORAGE_ATTEMPTS": "2"}

        def die() -> None:
            deadline = time.monotonic() + 20
            while server.seen["good"] < 20 and time.monotonic() < deadline:
                time.sleep(0.01)
            server.rate, server.faults = 1.0, ("reset",)

        threading.Thread(target=die, daemon=True).start()
        done = initialize("s3://bkt/m", tmp_path / "m", environ=environ)
    assert done.returncode == 1
    said = str(outcome(done.stderr)["message"])
    assert re.match(r"s3://bkt/m/d\d/\d+\.bin", said), said
    assert not (tmp_path / "m").exists()
