"""An HTTP file server that misbehaves on command, for the storage initializer's tests."""

import contextlib
import hashlib
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.listening import serving

MARKER = ".turnout-storage.json"


def initialize(
    *arguments: object,
    environ: Mapping[str, str] | None = None,
    timeout_s: float = 60,
    prefix: tuple[str, ...] = (),
) -> "subprocess.CompletedProcess[str]":
    """Run `python -m storage_initializer` with a clean environment and short back-off."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "storage_initializer", *map(str, arguments)],
        env=environment(environ),
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    root = str(Path(__file__).resolve().parent.parent)
    base = {"PATH": os.environ["PATH"], "PYTHONPATH": root, "HOME": "/nonexistent"}
    return {**base, "STORAGE_BACKOFF_SECONDS": "0.02", **(extra or {})}


def tree(directory: Path) -> dict[str, bytes]:
    """Relative path → content of all published files, without the marker."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != MARKER
    }


@contextlib.contextmanager
def small_volume(place: Path) -> Iterator[Path]:
    """A real mount point with 8 MB: it cannot be renamed, and it can be full."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs needs root; the file-size-limit test covers the rest")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


@dataclass
class File:
    """What a path serves, and how badly."""

    data: bytes
    ranges: bool = True
    etag: bool = True
    faults: list[str] = field(default_factory=list)
    """Taken one per request (after the probe), then good behaviour: `reset:N`, `stall:N`,
    `close:N` (after N body bytes), `status:CODE[:RETRY_AFTER]`, `corrupt`, `whole` (ranges
    ignored), `longer` (Content-Length too big), `trickle`."""
    every: str = ""
    """A fault of every request."""
    headers: dict[str, str] = field(default_factory=dict)
    redirect: str = ""


class FaultyServer(ThreadingHTTPServer):
    """Serves `files`; remembers `requests` as (path, Range header, Authorization header)."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, File] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.lock = threading.Lock()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, path: str, data: bytes, **options: object) -> File:
        file = self.files[path] = File(data, **options)  # type: ignore[arg-type]
        return file

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that go away are what is tested


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        with self.server.lock:
            auth = self.headers.get("Authorization", "")
            self.server.requests.append((self.path, wanted, auth))
            file = self.server.files.get(self.path)
            fault = ""
            if file is not None:
                probe = wanted == "bytes=0-0"
                fault = file.every or (file.faults.pop(0) if file.faults and not probe else "")
        if file is None:
            self._answer(404, b"nothing here", {})
            return
        if file.redirect:
            self._answer(302, b"", {"Location": file.redirect})
            return
        self._serve(file, wanted, fault)

    def _serve(self, file: File, wanted: str, fault: str) -> None:
        kind, _, argument = fault.partition(":")
        if kind == "status":
            code, _, wait = argument.partition(":")
            self._answer(int(code), b"no", {"Retry-After": wait} if wait else {})
            return
        headers = dict(file.headers)
        if file.etag:
            headers["ETag"] = f'"{hashlib.md5(file.data).hexdigest()}"'
        start, stop, status = 0, len(file.data), 200
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        if span and file.ranges and kind != "whole":
            start = int(span[1])
            stop = min(len(file.data), int(span[2]) + 1 if span[2] else len(file.data))
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(file.data)}"
            if start >= len(file.data):
                self._answer(416, b"", {"Content-Range": f"bytes */{len(file.data)}"})
                return
        body = file.data[start:stop]
        length = len(body) + (1000 if kind == "longer" else 0)
        if kind == "corrupt" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()
        self._body(body, kind, argument)

    def _body(self, body: bytes, kind: str, argument: str) -> None:
        if kind in ("reset", "stall", "close"):
            self.wfile.write(body[: int(argument)])
            self.wfile.flush()
            if kind == "stall":
                self.server.released.wait(60)
            if kind == "reset":
                off = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, off)
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.close()
            return
        if kind == "trickle":
            for byte in body:
                self.wfile.write(bytes([byte]))
                if self.server.released.wait(0.1):
                    return
            return
        self.wfile.write(body)
        if kind == "longer":
            self.close_connection = True

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextlib.contextmanager
def faulty_server() -> Iterator[FaultyServer]:
    server = FaultyServer()
    with serving(server):
        try:
            yield server
        finally:
            server.released.set()
