"""Cheap load for the event benchmarks: it shares the machine with what it measures.

Signed PUTs over a few kept-alive connections (60 us of CPU each), results counted by listings that
continue where the last one had no gaps, and the CPU time of everybody taking part.
"""

import concurrent.futures
import contextlib
import os
import re
import socket
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from events.sigv4 import Credentials, Signer
from functions.wire.http1_head import parse_response_head
from tests.seaweed import S3Server

T = TypeVar("T")

_KEY = re.compile(rb"<Key>([^<]*)</Key>")
_TICKS = os.sysconf("SC_CLK_TCK")


class Connection:
    """One kept-alive connection to the S3 server; any request, signed."""

    def __init__(self, s3: S3Server) -> None:
        self._host = f"127.0.0.1:{s3.port}"
        self._credentials = Credentials(s3.access_key or "", s3.secret_key or "")
        self._signer = Signer(s3.region)
        self._socket = socket.create_connection(("127.0.0.1", s3.port), 60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def request(self, method: str, path: str, body: bytes = b"", query: str = "") -> bytes:
        """The body of a 2xx. Raises RuntimeError for anything else."""
        fields = self._signer.sign(method, self._host, path, query, {}, body, self._credentials)
        lines = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
        target = f"{path}?{query}" if query else path
        head = f"{method} {target} HTTP/1.1\r\nHost: {self._host}\r\n{lines}"
        self._socket.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._receive()
        answer, rest = parse_response_head(data[: end + 4]), data[end + 4 :]
        while (
            (len(rest) < answer.length) if not answer.chunked else not rest.endswith(b"0\r\n\r\n")
        ):
            rest += self._receive()
        if not 200 <= answer.status < 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {rest[:300]!r}")
        return rest

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> bytes:
        received = self._socket.recv(1 << 18)
        if not received:
            raise RuntimeError("the S3 server closed the connection")
        return received


def upload(s3: S3Server, paths: list[str], body: bytes, connections: int) -> None:
    """PUT the same body to every path, as fast as the server takes them."""

    def work(part: list[str]) -> None:
        with contextlib.closing(Connection(s3)) as connection:
            for path in part:
                connection.request("PUT", path, body)

    _shared(work, paths, connections)


def post(port: int, host: str, bodies: list[bytes], connections: int) -> None:
    """POST every body to a service behind the gateway; raises RuntimeError for a refusal."""

    def work(part: list[bytes]) -> None:
        with socket.create_connection(("127.0.0.1", port), 60) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for body in part:
                head = f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)
                answer = b""
                while b"\r\n\r\n" not in answer:
                    received = connection.recv(65536)
                    if not received:
                        raise RuntimeError("the gateway closed the connection")
                    answer += received
                if not answer.startswith(b"HTTP/1.1 204"):
                    raise RuntimeError(f"not taken: {answer[:200]!r}")

    _shared(work, bodies, connections)


def _shared(work: Callable[[list[T]], None], items: list[T], threads: int) -> None:
    """Run `work` in threads, each with its share; the first problem is raised once all ended."""
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, items[index::threads]) for index in range(threads)]:
            done.result()


@dataclass
class Results:
    """Which of the expected keys (sorted) are there; each look lists only behind the last gap."""

    s3: S3Server
    bucket: str
    expected: list[str]
    found: set[str] = field(default_factory=set)
    _whole: int = 0

    def look(self) -> int:
        """How many there are now."""
        with contextlib.closing(Connection(self.s3)) as connection:
            after = self.expected[self._whole - 1] if self._whole else ""
            while True:
                keys = self._page(connection, after)
                self.found.update(keys)
                if len(keys) < 1000:
                    break
                after = keys[-1]
        while self._whole < len(self.expected) and self.expected[self._whole] in self.found:
            self._whole += 1
        return len(self.found)

    def wait(self, timeout_s: float) -> int:
        """Until all are there; how many there are when the time is up."""
        deadline = time.monotonic() + timeout_s
        while (count := self.look()) < len(self.expected) and time.monotonic() < deadline:
            time.sleep(0.25 if len(self.expected) - count < 500 else 1.0)
        return count

    def _page(self, connection: Connection, after: str) -> list[str]:
        query = {"list-type": "2", "max-keys": "1000", "start-after": after}
        text = "&".join(
            f"{name}={urllib.parse.quote(value, safe='-_.~')}"
            for name, value in sorted(query.items())
            if value
        )
        page = connection.request("GET", f"/{self.bucket}", query=text)
        return [key.decode() for key in _KEY.findall(page)]


def cpu_s(pid: int) -> float:
    """CPU seconds a process has used; 0 once it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def cpu_by_name(processes: Iterable[tuple[str, int]]) -> dict[str, float]:
    """CPU seconds so far by name; processes of the same name are added up."""
    result: dict[str, float] = {}
    for name, pid in processes:
        result[name] = result.get(name, 0.0) + cpu_s(pid)
    return result


def split(before: Mapping[str, float], after: Mapping[str, float], count: int) -> str:
    """`CPU 4.1 ms an event: SeaweedFS 2.2, sink 0.6 ...`."""
    used = {name: (after[name] - before.get(name, 0.0)) * 1e3 / count for name in after}
    parts = [f"{name} {ms:.2f}" for name, ms in sorted(used.items(), key=lambda item: -item[1])]
    return f"CPU {sum(used.values()):.2f} ms an event: {', '.join(parts)}"
