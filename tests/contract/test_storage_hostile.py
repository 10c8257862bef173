"""Answers that no well-behaved server gives: each ends in the exact bytes or in one clear error.

The library is called in this process (`fetch`), the server speaks raw bytes.
"""

import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage_initializer import fetch
from storage_initializer.errors import Changed, LimitExceeded, TransferFailed
from storage_initializer.settings import Settings
from tests.fakes_storage import tree
from tests.listening import Listener

DATA = random.Random(5).randbytes(1_000_000)
PART = 128 * 1024

Say = Callable[[bytes], None]
Behave = Callable[[int, str, Say], bool]
"""(number of the request, its Range header, send) → whether the connection goes on."""


class RawServer(Listener):
    """Every request goes to `behave`; numbers count the requests after the probe for one byte."""

    def __init__(self, behave: Behave) -> None:
        self._behave = behave
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.ranges: list[str] = []
        self.data = DATA
        self.etag = '"one"'
        super().__init__()
        self.url += "/model.bin"

    def pause(self, seconds: float) -> bool:
        """Wait; True when the test is over."""
        return self._closing.wait(seconds)

    def head(self, status: str, *headers: str) -> bytes:
        lines = [f"HTTP/1.1 {status}", *headers, *([f"ETag: {self.etag}"] if self.etag else [])]
        return "\r\n".join([*lines, "", ""]).encode()

    def good(self, wanted: str, say: Say) -> bool:
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        if span is None:
            say(self.head("200 OK", f"Content-Length: {len(self.data)}") + self.data)
            return True
        first, last = int(span[1]), min(int(span[2] or len(self.data)), len(self.data) - 1)
        body = self.data[first : last + 1]
        say(
            self.head(
                "206 Partial Content",
                f"Content-Range: bytes {first}-{last}/{len(self.data)}",
                f"Content-Length: {len(body)}",
            )
            + body
        )
        return True

    def close(self) -> None:
        self._closing.set()
        super().close()

    def serve(self, sock: socket.socket) -> None:
        sock.settimeout(30)
        waiting = b""
        while not self._closing.is_set():
            while b"\r\n\r\n" not in waiting:
                data = sock.recv(65536)
                if not data:
                    return
                waiting += data
            head, _, waiting = waiting.partition(b"\r\n\r\n")
            found = re.search(rb"\r\nRange: ([^\r]*)", head)
            wanted = found[1].decode() if found else ""
            if wanted == "bytes=0-0":
                self.good(wanted, sock.sendall)
                continue
            with self._lock:
                self.ranges.append(wanted)
                number = len(self.ranges) - 1
            if not self._behave(number, wanted, sock.sendall):
                return


@pytest.fixture
def serve() -> Iterator[Callable[[Behave], RawServer]]:
    servers: list[RawServer] = []

    def start(behave: Behave) -> RawServer:
        servers.append(RawServer(behave))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def settings(**extra: str) -> Settings:
    base = {
        "STORAGE_PART_BYTES": str(PART),
        "STORAGE_CONCURRENCY": "4",
        "STORAGE_BACKOFF_SECONDS": "0.01",
        "STORAGE_PROGRESS_SECONDS": "0",
        "STORAGE_ATTEMPTS": "3",
    }
    return Settings.from_env(base | extra)


def chunked(data: bytes, size: int = 50_000) -> bytes:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


def test_chunked_answers_to_ranges(serve: Callable[[Behave], RawServer], tmp_path: Path) -> None:
    def behave(number: int, wanted: str, say: Say) -> bool:
        first, last = map(int, wanted.removeprefix("bytes=").split("-"))
        span = f"Content-Range: bytes {first}-{last}/*"
        say(server.head("206 Partial Content", span, "Transfer-Encoding: chunked"))
        say(chunked(DATA[first : last + 1]) + b"0\r\n\r\n")
        return True

    server = serve(behave)
    fetch(server.url, tmp_path / "m", settings())
    assert tree(tmp_path / "m") == {"model.bin": DATA}


def test_a_chunked_body_that_breaks_again_and_again_is_resumed(
    serve: Callable[[Behave], RawServer], tmp_path: Path
) -> None:
    """Each connection brings 30 kB more, in chunks that end before a buffer is full."""

    def behave(number: int, wanted: str, say: Say) -> bool:
        first, last = map(int, wanted.removeprefix("bytes=").split("-"))
        span = f"Content-Range: bytes {first}-{last}/{len(DATA)}"
        say(server.head("206 Partial Content", span, "Transfer-Encoding: chunked"))
        say(chunked(DATA[first : last + 1][:30_000], 10_000))
        return False

    server = serve(behave)
    fetch(server.url, tmp_path / "m", settings())
    assert tree(tmp_path / "m") == {"model.bin": DATA}


@pytest.mark.parametrize("length", [True, False], ids=["length", "until-close"])
def test_an_http_1_0_server(
    serve: Callable[[Behave], RawServer], tmp_path: Path, length: bool
) -> None:
    def behave(number: int, wanted: str, say: Say) -> bool:
        first, last = map(int, wanted.removeprefix("bytes=").split("-"))
        body = DATA[first : last + 1]
        head = f"HTTP/1.0 206 Partial\r\nContent-Range: bytes {first}-{last}/{len(DATA)}\r\n"
        head += f"Content-Length: {len(body)}\r\n" if length else ""
        say(head.encode() + b'ETag: "one"\r\n\r\n' + body)
        return False

    server = serve(behave)
    fetch(server.url, tmp_path / "m", settings())
    assert tree(tmp_path / "m") == {"model.bin": DATA}


def test_more_than_was_asked_for_is_not_waited_for(
    serve: Callable[[Behave], RawServer], tmp_path: Path
) -> None:
    """A server that minds only where a range begins, and then sends for ever."""

    def behave(number: int, wanted: str, say: Say) -> bool:
        first = int(wanted.removeprefix("bytes=").split("-")[0])
        span = f"Content-Range: bytes {first}-{len(DATA) - 1}/{len(DATA)}"
        say(server.head("206 Partial Content", span, "Connection: close"))
        say(DATA[first:])
        while not server.pause(0):
            say(bytes(100_000))
        return False

    server = serve(behave)
    fetch(server.url, tmp_path / "m", settings())
    assert tree(tmp_path / "m") == {"model.bin": DATA}


def test_a_whole_body_that_does_not_end_is_an_error_at_once(
    serve: Callable[[Behave], RawServer], tmp_path: Path
) -> None:
    def behave(number: int, wanted: str, say: Say) -> bool:
        say(server.head("200 OK", "Connection: close"))
        while not server.pause(0):
            say(bytes(100_000))
        return False

    server = serve(behave)
    with pytest.raises(Changed):
        fetch(server.url, tmp_path / "m", settings())
    assert not (tmp_path / "m").exists()


def test_ranges_ignored_and_then_another_version_is_listed_again(
    serve: Callable[[Behave], RawServer], tmp_path: Path
) -> None:
    def behave(number: int, wanted: str, say: Say) -> bool:
        if number:
            return server.good(wanted, say)
        say(server.head("200 OK", f"Content-Length: {len(DATA)}"))
        server.data, server.etag = DATA[::-1], '"two"'
        return False

    server = serve(behave)
    fetch(server.url, tmp_path / "m", settings(STORAGE_CONCURRENCY="1"))
    assert tree(tmp_path / "m") == {"model.bin": DATA[::-1]}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param("Content-Type: multipart/byteranges; boundary=x", id="multipart"),
        pytest.param(f"Content-Range: bytes 5-{len(DATA) - 1}/{len(DATA)}", id="elsewhere"),
        pytest.param("Content-Range: bytes \u00b2-9/\u00b2", id="no-digits"),
        pytest.param("Content-Range: bytes", id="empty"),
    ],
)
def test_a_206_that_does_not_say_what_it_is_is_refused(
    serve: Callable[[Behave], RawServer], tmp_path: Path, answer: str
) -> None:
    def behave(number: int, wanted: str, say: Say) -> bool:
        head = server.head("206 Partial Content", f"Content-Length: {PART}")
        say(head[:-2] + answer.encode("latin-1") + b"\r\n\r\n" + bytes(PART))
        return True

    server = serve(behave)
    with pytest.raises(TransferFailed, match="Content-Range"):
        fetch(server.url, tmp_path / "m", settings())
    assert not (tmp_path / "m").exists()


def test_the_first_faults_of_any_kind_are_survived(
    serve: Callable[[Behave], RawServer], tmp_path: Path
) -> None:
    faults = [
        b"",
        b"HTTP/1.1 206 Partial Content\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5, 6\r\n\r\nhello",
        b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-5/9\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ]

    def behave(number: int, wanted: str, say: Say) -> bool:
        if number < len(faults):
            say(faults[number])
            return False
        return server.good(wanted, say)

    server = serve(behave)
    fetch(server.url, tmp_path / "m", settings(STORAGE_ATTEMPTS="8"))
    assert tree(tmp_path / "m") == {"model.bin": DATA}


@pytest.mark.parametrize("where", ["head", "chunks", "chunk-line", "body"])
def test_a_byte_now_and_then_counts_as_a_stall(
    serve: Callable[[Behave], RawServer], tmp_path: Path, where: str
) -> None:
    drip = {
        "head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000,
        "chunks": chunked(DATA[:1000], 1),
        "chunk-line": b"1;" + b"x" * 1000,
        "body": bytes(1000),
    }[where]

    def behave(number: int, wanted: str, say: Say) -> bool:
        if where.startswith("chunk"):
            say(server.head("200 OK", "Transfer-Encoding: chunked"))
        elif where == "body":
            say(server.head("200 OK", f"Content-Length: {len(DATA)}"))
        for byte in re.findall(rb"1\r\n.\r\n|.|\s", drip, re.DOTALL):
            say(byte)
            if server.pause(0.1):
                break
        return False

    server = serve(behave)
    with pytest.raises(TransferFailed, match=r"within|bytes in|nothing came"):
        fetch(
            server.url,
            tmp_path / "m",
            settings(STORAGE_STALL_SECONDS="0.5", STORAGE_ATTEMPTS="1", STORAGE_CONCURRENCY="1"),
        )
    assert len(server.ranges) < 30
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("size", [1000, len(DATA)], ids=["small", "big"])
def test_a_file_that_only_drips_in_has_its_time_limit(
    serve: Callable[[Behave], RawServer], tmp_path: Path, size: int
) -> None:
    """No speed is asked for, and no buffer is ever full: the limit must hold all the same."""

    def behave(number: int, wanted: str, say: Say) -> bool:
        say(server.head("200 OK", f"Content-Length: {size}"))
        while not server.pause(0.05):
            say(b"x")
        return False

    server = serve(behave)
    server.data = DATA[:size]
    extra = {"STORAGE_MIN_SPEED": "0", "STORAGE_FILE_TIMEOUT_SECONDS": "0.5"}
    with pytest.raises(LimitExceeded, match="STORAGE_FILE_TIMEOUT_SECONDS"):
        fetch(server.url, tmp_path / "m", settings(STORAGE_STALL_SECONDS="0.4", **extra))
