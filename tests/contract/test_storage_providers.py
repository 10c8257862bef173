"""Every other source: real servers where a package ships one, recorded wire behaviour otherwise.

Real: git (`git http-backend`), Google Cloud Storage (gcp-storage-emulator), Azure (Azurite, when
`AZURITE` names its directory), OCI (Debian's docker-registry, when installed). Recorded wire:
Azure, Hugging Face, OCI (token service and redirects included), WebHDFS.
"""

import base64
import contextlib
import gzip
import hashlib
import hmac
import io
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.fakes_storage import MARKER, initialize, tree
from tests.listening import serving

DATA = random.Random(5).randbytes(700_000)
PARTS = {"STORAGE_PART_BYTES": "128Ki"}

Answer = tuple[int, dict[str, str], bytes]


class Scripted(ThreadingHTTPServer):
    """Answers by a function of (method, path with query, headers, body)."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, answer: Callable[[str, str, Mapping[str, str], bytes], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _ScriptedHandler)
        self.answer = answer
        self.seen: list[tuple[str, str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class _ScriptedHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.command, self.path, self.headers.get("Authorization") or ""))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, out, data = self.server.answer(self.command, self.path, headers, body)
        span = headers.get("range", "")
        if status == 200 and span and "Content-Range" not in out and self.command == "GET":
            first, _, last = span.removeprefix("bytes=").partition("-")
            start, stop = int(first), int(last) + 1 if last else len(data)
            out = {**out, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
            status, data = 206, data[start:stop]
        (self.send_response_only if "Date" in out else self.send_response)(status)
        for name, value in {"Content-Length": str(len(data)), **out}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_POST = _do


@contextlib.contextmanager
def scripted(answer: Callable[[str, str, Mapping[str, str], bytes], Answer]) -> Iterator[Scripted]:
    server = Scripted(answer)
    with serving(server):
        yield server


@contextlib.contextmanager
def program(command: list[str], port: int, **options: object) -> Iterator[None]:
    """A server program until the block ends; ready when its port answers."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    )  # type: ignore[call-overload]
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, f"{command[0]} exited with {process.returncode}"
            assert time.monotonic() < deadline, f"{command[0]} does not listen"
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def message(done: "subprocess.CompletedProcess[str]") -> str:
    return str(json.loads(done.stderr.strip().splitlines()[-1])["message"])


# --- local and pvc -------------------------------------------------------------------------------


def test_a_directory_with_links_is_copied_as_people_see_it(tmp_path: Path) -> None:
    """A ConfigMap volume: data directory, `..data` link, links to its files."""
    real = tmp_path / "src" / "..2026_01"
    real.mkdir(parents=True)
    (real / "config.json").write_text("{}")
    (tmp_path / "src" / "..data").symlink_to("..2026_01")
    (tmp_path / "src" / "config.json").symlink_to("..data/config.json")
    done = initialize(tmp_path / "src", tmp_path / "m")
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") == {"config.json": b"{}"}
    assert not (tmp_path / "m" / "config.json").is_symlink()


def test_local_sources_that_cannot_be_copied(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "is empty" in message(initialize(tmp_path / "empty", tmp_path / "m"))
    assert "no such file" in message(initialize(tmp_path / "nowhere", tmp_path / "m"))
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "self").symlink_to(".")
    assert "its own parent" in message(initialize(tmp_path / "loop", tmp_path / "m"))
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "p")
    assert "no regular file" in message(initialize(tmp_path / "pipe", tmp_path / "m"))
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("mode", ["copy", "hardlink", "symlink"])
def test_local_modes(tmp_path: Path, mode: str) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "model.bin").write_bytes(DATA)
    environ = {"STORAGE_LOCAL_MODE": mode}
    for _ in range(2):
        done = initialize(tmp_path / "src", tmp_path / "m", environ=environ)
        assert done.returncode == 0, done.stderr
    target = tmp_path / "m" / "model.bin"
    same = target.stat().st_ino == (tmp_path / "src" / "model.bin").stat().st_ino
    assert (same, target.is_symlink()) == (mode != "copy", mode == "symlink")


def test_a_source_that_is_the_destination_or_around_it(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.bin").write_bytes(b"x")
    done = initialize(tmp_path / "m", tmp_path / "m")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["model.bin"]
    done = initialize(tmp_path, tmp_path / "m" / "inner")
    assert done.returncode == 1
    assert "lies inside its own source" in message(done)


def test_a_claim_is_verified_not_copied(tmp_path: Path) -> None:
    assert "not mounted" in message(initialize("pvc://claim/model", tmp_path / "m"))
    (tmp_path / "m").mkdir()
    assert "is empty" in message(initialize("pvc://claim/model", tmp_path / "m"))
    (tmp_path / "m" / "model.bin").touch()
    assert initialize("pvc://claim/model", tmp_path / "m").returncode == 0
    assert not (tmp_path / "m" / MARKER).exists()


def test_sources_of_one_destination_are_merged_unless_they_clash(tmp_path: Path) -> None:
    for name in ("base", "adapter"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.bin").write_text(name)
    pairs = (tmp_path / "base", tmp_path / "m", tmp_path / "adapter", tmp_path / "m")
    done = initialize(*pairs)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") == {"base.bin": b"base", "adapter.bin": b"adapter"}
    (tmp_path / "adapter" / "base.bin").touch()
    assert "two files are called 'base.bin'" in message(initialize(*pairs))


def test_patterns_choose_files(tmp_path: Path) -> None:
    for name in ("a.bin", "b.txt", "sub/c.bin"):
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).touch()
    environ = {"STORAGE_ALLOW_PATTERNS": "*.bin", "STORAGE_IGNORE_PATTERNS": "sub/*"}
    assert initialize(tmp_path / "src", tmp_path / "m", environ=environ).returncode == 0
    assert list(tree(tmp_path / "m")) == ["a.bin"]
    environ = {"STORAGE_ALLOW_PATTERNS": "*.nothing"}
    assert "no file passes" in message(
        initialize(tmp_path / "src", tmp_path / "n", environ=environ)
    )


# --- git -----------------------------------------------------------------------------------------


class _GitBackend(BaseHTTPRequestHandler):
    """Smart HTTP through the real `git http-backend`, one process a request."""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _do(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if path.startswith("/private/"):
            want = "Basic " + base64.b64encode(b"ann:token").decode()
            if self.headers.get("Authorization") != want:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            path = path.removeprefix("/private")
        if path.startswith("/flaky/"):
            path = path.removeprefix("/flaky")
            if not self.server.refused:  # type: ignore[attr-defined]
                self.server.refused = True  # type: ignore[attr-defined]
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        root: Path = self.server.root  # type: ignore[attr-defined]
        environ = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(root), "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""), "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_LENGTH": str(len(body)), "HOME": str(root),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }  # fmt: skip
        done = subprocess.run(["git", "http-backend"], input=body, env=environ, capture_output=True)
        head, _, data = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = _do


@pytest.fixture(scope="module")
def git_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """(base URL, commit names by label) of a repository with a branch, a tag and two commits."""
    root = tmp_path_factory.mktemp("git")
    work = root / "work"
    environ = {**os.environ, "HOME": str(root), "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*arguments: str) -> str:
        base = ["git", "-C", str(work), "-c", "user.name=t", "-c", "user.email=t@t"]
        done = subprocess.run([*base, *arguments], env=environ, capture_output=True, check=True)
        return done.stdout.decode().strip()

    work.mkdir()
    git("init", "-q", "-b", "main")
    (work / "model").mkdir()
    (work / "model" / "weights.bin").write_bytes(DATA)
    (work / "run.sh").write_text("#!/bin/sh\n")
    (work / "run.sh").chmod(0o755)
    git("add", ".")
    git("commit", "-q", "-m", "one")
    git("tag", "v1")
    (work / "model" / "weights.bin").write_bytes(b"two")
    git("commit", "-q", "-a", "-m", "two")
    git("checkout", "-q", "-b", "feature/lfs")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    (work / "model" / "big.bin").write_text(pointer)
    git("add", ".")
    git("commit", "-q", "-m", "pointer")
    git("checkout", "-q", "main")
    git("clone", "-q", "--bare", str(work), str(root / "repo.git"))
    bare = ["git", "-C", str(root / "repo.git"), "config", "uploadpack.allowAnySHA1InWant", "true"]
    subprocess.run(bare, env=environ, check=True)
    first = git("rev-parse", "v1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _GitBackend)
    server.root, server.refused = root, False  # type: ignore[attr-defined]
    with serving(server):
        yield f"git+http://127.0.0.1:{server.server_port}", {"one": first}


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        ("", {"model/weights.bin": b"two", "run.sh": b"#!/bin/sh\n"}),
        ("@v1", {"model/weights.bin": DATA, "run.sh": b"#!/bin/sh\n"}),
        ("@{one}", {"model/weights.bin": DATA, "run.sh": b"#!/bin/sh\n"}),
        ("@v1#model", {"weights.bin": DATA}),
    ],
    ids=["head", "tag", "commit", "sub-directory"],
)
def test_git_refs(
    git_server: tuple[str, dict[str, str]],
    tmp_path: Path,
    suffix: str,
    expected: dict[str, bytes],
) -> None:
    base, commits = git_server
    uri = f"{base}/repo.git{suffix.format(**commits)}"
    done = initialize(uri, tmp_path / "m")
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") == expected
    if "run.sh" in expected:
        assert (tmp_path / "m" / "run.sh").stat().st_mode & 0o111


def test_git_failures_are_named(git_server: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    base, _ = git_server
    environ = {"STORAGE_ATTEMPTS": "1"}
    done = initialize(f"{base}/repo.git@nope", tmp_path / "m", environ=environ)
    assert (done.returncode, "'nope'" in message(done)) == (1, True), done.stderr
    done = initialize(f"{base}/other.git", tmp_path / "m", environ=environ)
    assert done.returncode == 1, done.stderr
    assert "no git repository" in message(done)
    done = initialize(f"{base}/repo.git@feature/lfs", tmp_path / "m", environ=environ)
    assert "Git LFS pointer" in message(done)
    done = initialize(f"{base}/private/repo.git", tmp_path / "m", environ=environ)
    assert "GIT_USERNAME" in message(done), done.stderr
    environ |= {"GIT_USERNAME": "ann", "GIT_PASSWORD": "token"}
    done = initialize(f"{base}/private/repo.git", tmp_path / "m", environ=environ)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(listener.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        for connection in kept:
            connection.close()


@pytest.mark.parametrize(
    ("environ", "cause"),
    [
        ({"STORAGE_STALL_SECONDS": "0.3", "STORAGE_ATTEMPTS": "2"}, "timed out"),
        ({"STORAGE_STALL_SECONDS": "600", "STORAGE_DEADLINE_SECONDS": "1"}, "not done after 1 s"),
    ],
)
def test_a_silent_git_server_is_not_waited_for_for_ever(
    environ: dict[str, str], cause: str, tmp_path: Path
) -> None:
    """The second row: the deadline holds even while a library does not come back."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    with silent() as port:
        uri = f"git+http://127.0.0.1:{port}/model.git"
        done = initialize(uri, tmp_path / "m", environ={**environ, "TMPDIR": str(scratch)})
    assert done.returncode == 1, done.stderr
    assert cause in message(done)
    assert list(scratch.iterdir()) == []


def test_git_is_asked_again_after_a_passing_fault(
    git_server: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    done = initialize(f"{git_server[0]}/flaky/repo.git@main", tmp_path / "m")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1])["retries"] >= 1


def test_git_leaves_no_clone_behind(git_server: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    base, _ = git_server
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    environ = {"TMPDIR": str(scratch), "STORAGE_ATTEMPTS": "1"}
    for reference, code in (("main", 0), ("nope", 1)):
        done = initialize(f"{base}/repo.git@{reference}", tmp_path / reference, environ=environ)
        assert done.returncode == code, done.stderr
        assert list(scratch.iterdir()) == []


# --- Google Cloud Storage ------------------------------------------------------------------------


def test_google_cloud_storage_emulator(tmp_path: Path) -> None:
    port = free_port()
    binary = Path(sys.executable).parent / "gcp-storage-emulator"
    command = [str(binary), "start", "--port", str(port), "--host", "127.0.0.1", "--in-memory"]
    command += ["--default-bucket", "models"]
    with program(command, port):
        base = f"http://127.0.0.1:{port}"
        for name, data in {
            "cats/1/weights.bin": DATA, "cats/config.json": b"{}", "cats-old/x": b"no",
            "cats2": b"no", "one file.bin": b"one",
        }.items():  # fmt: skip
            url = f"{base}/upload/storage/v1/b/models/o?uploadType=media&name="
            request = urllib.request.Request(
                url + urllib.parse.quote(name, safe=""), data=data, method="POST",
                headers={"Content-Type": "application/octet-stream"},
            )  # fmt: skip
            urllib.request.urlopen(request, timeout=10).close()
        environ = {"STORAGE_EMULATOR_HOST": base}
        done = initialize("gs://models/cats", tmp_path / "m", environ=environ)
        assert done.returncode == 0, done.stderr
        assert tree(tmp_path / "m") == {
            "1/weights.bin": DATA, "config.json": b"{}",
        }  # fmt: skip
        done = initialize("gs://models/one file.bin", tmp_path / "n", environ=environ)
        assert tree(tmp_path / "n") == {"one file.bin": b"one"}
        done = initialize("gs://models/nothing", tmp_path / "o", environ=environ)
        assert done.returncode == 1
        assert "nothing below 'nothing/'" in message(done)
        done = initialize("gs://models/cats", tmp_path / "m", environ=environ)
        assert json.loads(done.stderr.splitlines()[-1])["outcome"] == "complete"


def service_account(directory: Path, authority: str) -> str:
    """Path of a new key file whose tokens come from `authority`."""
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    from cryptography.hazmat.primitives import serialization

    pem = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key = {
        "type": "service_account", "client_email": "a@b", "private_key": pem.decode(),
        "token_uri": f"{authority}/token", "project_id": "p", "private_key_id": "k",
    }  # fmt: skip
    path = directory / "key.json"
    path.write_text(json.dumps(key))
    return str(path)


def test_google_tokens_come_from_a_service_account(tmp_path: Path) -> None:
    """google-auth signs a JWT with the key file; the token it gets goes to the storage API."""

    def token(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        assert b"assertion=" in body
        answer = {"access_token": "g-token", "expires_in": 3600, "token_type": "Bearer"}
        return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()

    md5 = base64.b64encode(hashlib.md5(DATA).digest()).decode()
    about = {"name": "m/w.bin", "size": str(len(DATA)), "md5Hash": md5, "generation": "7"}

    def storage(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if headers.get("authorization") != "Bearer g-token":
            return 401, {}, b""
        if path == "/storage/v1/b/models/o/m%2Fw.bin":
            return 200, {}, json.dumps(about).encode()
        if path == "/download/storage/v1/b/models/o/m%2Fw.bin?alt=media&generation=7":
            return 200, {}, DATA
        return 404, {}, b""

    with scripted(token) as authority, scripted(storage) as server:
        environ = {
            "STORAGE_EMULATOR_HOST": server.url, **PARTS,
            "GOOGLE_APPLICATION_CREDENTIALS": service_account(tmp_path, authority.url),
        }  # fmt: skip
        done = initialize("gs://models/m/w.bin", tmp_path / "m", environ=environ)
        assert done.returncode == 0, done.stderr
        assert tree(tmp_path / "m") == {"w.bin": DATA}
        assert "g-token" not in done.stderr


class GoogleWire:
    """Objects stored with `Content-Encoding: gzip`, as Google documents decompressive transcoding:
    who does not accept gzip gets the plain bytes, without ranges or anything to verify."""

    def __init__(self, packed: dict[str, bytes]) -> None:
        self.packed = packed
        self.ranges: list[str] = []

    def _about(self, name: str) -> dict[str, str]:
        md5 = base64.b64encode(hashlib.md5(self.packed[name]).digest()).decode()
        size = str(len(self.packed[name]))
        return {
            "name": name, "size": size, "md5Hash": md5, "generation": "7",
            "contentEncoding": "gzip",
        }  # fmt: skip

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        place, _, query = path.partition("?")
        if place == "/storage/v1/b/models/o":
            assert "contentEncoding" in query
            items = [self._about(name) for name in self.packed]
            return 200, {}, json.dumps({"items": items}).encode()
        name = urllib.parse.unquote(place.rpartition("/o/")[2])
        if name not in self.packed:
            return 404, {}, b""
        if place.startswith("/storage/"):
            return 200, {}, json.dumps(self._about(name)).encode()
        data = self.packed[name]
        if "gzip" not in headers.get("accept-encoding", ""):
            return 200, {"Warning": "214 UploadServer gunzipped"}, gzip.decompress(data)
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", "")):
            self.ranges.append(found[0])
        return 200, {"Content-Encoding": "gzip"}, data


def test_google_objects_that_are_stored_gzipped_arrive_unpacked(tmp_path: Path) -> None:
    """As `gsutil cp` and Google's own library do it; checked against the stored bytes' MD5."""
    big = DATA * 4
    wire = GoogleWire(
        {
            "m/config.json": gzip.compress(b'{"a": 1}', mtime=0),
            "m/w.bin": gzip.compress(big, 1, mtime=0),
            "m/data.csv.gz": gzip.compress(b"1,2", mtime=0),
        }
    )
    dest = tmp_path / "m"
    with scripted(wire.answer) as server:
        environ = {"STORAGE_EMULATOR_HOST": server.url, **PARTS}
        done = initialize("gs://models/m", dest, environ=environ)
        assert done.returncode == 0, done.stderr
        packed = wire.packed["m/data.csv.gz"]  # is what it is called: stays
        assert tree(dest) == {"config.json": b'{"a": 1}', "w.bin": big, "data.csv.gz": packed}
        assert len(wire.ranges) > 1
        marker = json.loads((dest / MARKER).read_text())
        facts = {path: (size, found) for path, size, _, found in marker["files"]}
        assert facts["w.bin"] == (len(big), f"crc32:{zlib.crc32(big):08x}")
        wire.ranges.clear()
        done = initialize("gs://models/m", dest, environ=environ)
        assert json.loads(done.stderr.splitlines()[-1])["outcome"] == "complete"
        assert wire.ranges == []
        environ["STORAGE_CACHE_DIR"] = str(tmp_path / "cache")
        for number in range(2):
            done = initialize("gs://models/m", tmp_path / f"n{number}", environ=environ)
            assert done.returncode == 0, done.stderr
            assert tree(tmp_path / f"n{number}") == tree(dest)
        assert json.loads(done.stderr.splitlines()[-1])["cache_hits"] == 3


def test_a_gzipped_google_object_that_arrived_is_not_fetched_again(tmp_path: Path) -> None:
    """The next run knows it by its version: its size is no longer the listed one."""
    wire = GoogleWire(
        {"m/a.json": gzip.compress(b"{}", mtime=0), "m/b.json": gzip.compress(b"[]", mtime=0)}
    )
    good, wire.packed["m/b.json"] = wire.packed["m/b.json"], b"damaged"
    with scripted(wire.answer) as server:
        environ = {"STORAGE_EMULATOR_HOST": server.url, "STORAGE_CONCURRENCY": "1"}
        done = initialize("gs://models/m", tmp_path / "m", environ=environ)
        assert done.returncode == 1
        wire.packed["m/b.json"] = good
        server.seen.clear()
        done = initialize("gs://models/m", tmp_path / "m", environ=environ)
        assert done.returncode == 0, done.stderr
        assert not [path for _, path, _ in server.seen if "a.json?alt=media" in path]
    assert tree(tmp_path / "m") == {"a.json": b"{}", "b.json": b"[]"}


@pytest.mark.parametrize(
    ("stored", "cause"),
    [
        (b"plain bytes, and nothing else", "Content-Encoding says gzip"),
        (gzip.compress(DATA, mtime=0)[:-20], "Content-Encoding says gzip"),
        (gzip.compress(bytes(1 << 20), mtime=0), "STORAGE_UNPACK_MAX_BYTES"),
    ],
)
def test_what_cannot_be_unpacked_is_an_error(stored: bytes, cause: str, tmp_path: Path) -> None:
    wire = GoogleWire({"m/w.bin": stored})
    with scripted(wire.answer) as server:
        environ = {"STORAGE_EMULATOR_HOST": server.url, "STORAGE_UNPACK_MAX_BYTES": "800Ki"}
        done = initialize("gs://models/m/w.bin", tmp_path / "m", environ=environ)
    assert done.returncode == 1
    assert cause in message(done)
    assert not (tmp_path / "m").exists()


def test_googles_token_service_may_be_away_for_a_moment(tmp_path: Path) -> None:
    """That is a fault like any other: tried again, and named if it stays."""
    environ = {
        "STORAGE_EMULATOR_HOST": "http://127.0.0.1:1", "STORAGE_ATTEMPTS": "2",
        "GOOGLE_APPLICATION_CREDENTIALS": service_account(tmp_path, "http://127.0.0.1:1"),
    }  # fmt: skip
    done = initialize("gs://models/m/w.bin", tmp_path / "m", environ=environ)
    assert done.returncode == 1
    assert "the token cannot be fetched" in message(done)


# --- Azure ---------------------------------------------------------------------------------------

ACCOUNT, KEY = "devstoreaccount1", base64.b64encode(b"0123456789abcdef" * 4).decode()


class AzureWire:
    """Blob service as documented: shared-key signatures checked, listings paged, ranges."""

    def __init__(self, blobs: dict[str, bytes], *, need: str) -> None:
        self.blobs, self.need = blobs, need

    def __call__(self, method: str, path: str, headers: Mapping[str, str], _: bytes) -> Answer:
        parts = urllib.parse.urlsplit(path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        if not self._allowed(method, parts, headers, query):
            return 403, {"x-ms-error-code": "AuthenticationFailed"}, b""
        if query.get("comp") == "list":
            return self._list(query)
        name = urllib.parse.unquote(parts.path).removeprefix(f"/{ACCOUNT}/models/")
        data = self.blobs.get(name)
        if data is None:
            return 404, {"x-ms-error-code": "BlobNotFound"}, b""
        etag = f'"{hashlib.sha1(data).hexdigest()}"'
        if headers.get("if-match", etag) != etag:
            return 412, {"x-ms-error-code": "ConditionNotMet"}, b""
        md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
        return 200, {"ETag": etag, "Content-MD5": md5}, data

    def _allowed(
        self,
        method: str,
        parts: urllib.parse.SplitResult,
        headers: Mapping[str, str],
        query: dict[str, str],
    ) -> bool:
        if self.need == "sas":
            return query.get("sig") == "abc="
        if self.need == "token":
            return headers.get("authorization") == "Bearer aad-token"
        own = sorted((k, v) for k, v in headers.items() if k.startswith("x-ms-"))
        text = f"{method}\n" + "\n" * 4 + "\n" * 4 + headers.get("if-match", "") + "\n" * 3
        names = ["content-encoding", "content-language", "content-length", "content-md5",
                 "content-type", "date", "if-modified-since", "if-match", "if-none-match",
                 "if-unmodified-since", "range"]  # fmt: skip
        text = "\n".join([method, *(headers.get(name, "") for name in names), ""])
        text += "".join(f"{k}:{v}\n" for k, v in own)
        text += f"/{ACCOUNT}{parts.path}"
        text += "".join(f"\n{k}:{v}" for k, v in sorted(query.items()))
        digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
        want = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
        return headers.get("authorization") == want

    def _list(self, query: dict[str, str]) -> Answer:
        names = sorted(n for n in self.blobs if n.startswith(query.get("prefix", "")))
        at = int(query.get("marker") or 0)
        rows = "".join(
            f"<Blob><Name>{name}</Name><Properties><Content-Length>{len(self.blobs[name])}"
            f"</Content-Length><Etag>{hashlib.sha1(self.blobs[name]).hexdigest()}</Etag>"
            "</Properties></Blob>"
            for name in names[at : at + 2]
        )
        marker = str(at + 2) if at + 2 < len(names) else ""
        body = f"<EnumerationResults><Blobs>{rows}</Blobs><NextMarker>{marker}</NextMarker>"
        return 200, {}, f"{body}</EnumerationResults>".encode()


BLOBS = {
    "cats/1/weights.bin": DATA, "cats/a b+c.json": b"{}", "cats/empty": b"", "cats-old/x": b"no",
    "dogs.tar": b"plain",
}  # fmt: skip
CATS = {"1/weights.bin": DATA, "a b+c.json": b"{}", "empty": b""}


@pytest.mark.parametrize("need", ["key", "sas", "token"])
def test_azure_blobs_with_every_kind_of_authorization(tmp_path: Path, need: str) -> None:
    with scripted(AzureWire(BLOBS, need=need)) as server:

        def token(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
            form = urllib.parse.parse_qs(body.decode())
            good = form.get("client_secret") == ["s3cret"] and path.startswith("/tenant/oauth2/")
            answer = {"access_token": "aad-token", "expires_in": 3600}
            return (200 if good else 401), {}, json.dumps(answer).encode()

        with scripted(token) as authority:
            connection = f"AccountName={ACCOUNT};BlobEndpoint={server.url}/{ACCOUNT}"
            environ = {"AZURE_STORAGE_CONNECTION_STRING": connection, **PARTS}
            if need == "key":
                environ["AZURE_STORAGE_ACCESS_KEY"] = KEY
            if need == "token":
                environ |= {
                    "AZ_CLIENT_ID": "id", "AZ_TENANT_ID": "tenant", "AZ_CLIENT_SECRET": "s3cret",
                    "AZURE_AUTHORITY_HOST": authority.url,
                }  # fmt: skip
            sas = "?sv=2021&sig=abc%3D" if need == "sas" else ""
            uri = f"https://{ACCOUNT}.blob.core.windows.net/models/cats{sas}"
            done = initialize(uri, tmp_path / "m", environ=environ)
            assert done.returncode == 0, done.stderr
            assert tree(tmp_path / "m") == CATS
            assert not {"abc%3D", "s3cret", KEY} & set(done.stderr.split('"'))
            environ.pop("AZURE_STORAGE_ACCESS_KEY", "")
            bad = {**environ, "AZ_CLIENT_SECRET": "wrong"}
            plain = f"https://{ACCOUNT}.blob.core.windows.net/models/cats"
            done = initialize(plain, tmp_path / "n", environ=bad)
            assert done.returncode == 1
            assert "access denied" in message(done)


def test_azure_other_spellings(tmp_path: Path) -> None:
    with scripted(AzureWire(BLOBS, need="key")) as server:
        connection = f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={server.url}/{ACCOUNT}"
        environ = {"AZURE_STORAGE_CONNECTION_STRING": connection}
        for number, uri in enumerate(
            (
                f"abfss://models@{ACCOUNT}.dfs.core.windows.net/cats",
                f"wasbs://models@{ACCOUNT}.blob.core.windows.net/cats/",
                f"azure://{ACCOUNT}/models/cats",
            )
        ):
            done = initialize(uri, tmp_path / str(number), environ=environ)
            assert done.returncode == 0, done.stderr
            assert tree(tmp_path / str(number)) == CATS


@pytest.mark.skipif(not os.environ.get("AZURITE"), reason="AZURITE=DIR of `npm install azurite`")
def test_azurite(tmp_path: Path) -> None:
    """The real emulator: signatures, listings and conditions judged by Microsoft's own code."""
    port = free_port()
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    script = Path(os.environ["AZURITE"]) / "node_modules/azurite/dist/src/blob/main.js"
    command = ["node", str(script), "--blobPort", str(port), "--inMemoryPersistence"]
    command += ["--skipApiVersionCheck", "--disableTelemetry"]
    with program(command, port, cwd=tmp_path):
        endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        upload_to_azure(endpoint, key, BLOBS)
        connection = f"AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={endpoint}"
        environ = {"AZURE_STORAGE_CONNECTION_STRING": connection, **PARTS}
        for number, path in enumerate(("cats", "cats/1/weights.bin")):
            uri = f"https://{ACCOUNT}.blob.core.windows.net/models/{path}"
            done = initialize(uri, tmp_path / str(number), environ=environ)
            assert done.returncode == 0, done.stderr
        assert tree(tmp_path / "0") == CATS
        assert tree(tmp_path / "1") == {"weights.bin": DATA}


def upload_to_azure(endpoint: str, key: str, blobs: Mapping[str, bytes]) -> None:
    """With a signature written out here, so that ours is not its own judge."""

    def put(path: str, query: dict[str, str], data: bytes, extra: dict[str, str]) -> None:
        quoted = urllib.parse.quote(path)
        stamp = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        own = {"x-ms-date": stamp, "x-ms-version": "2021-12-02", **extra}
        length = str(len(data)) if data else ""
        kind = "application/octet-stream"
        text = f"PUT\n\n\n{length}\n\n{kind}\n\n\n\n\n\n\n"
        text += "".join(f"{k}:{v}\n" for k, v in sorted(own.items()))
        text += f"/{ACCOUNT}/{ACCOUNT}/{quoted}"
        text += "".join(f"\n{k}:{v}" for k, v in sorted(query.items()))
        digest = hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()
        sign = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
        url = f"{endpoint}/{quoted}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        request = urllib.request.Request(
            url, data=data, method="PUT",
            headers={**own, "Authorization": sign, "Content-Type": kind},
        )  # fmt: skip
        urllib.request.urlopen(request, timeout=10).close()

    put("models", {"restype": "container"}, b"", {})
    for name, data in blobs.items():
        put(f"models/{name}", {}, data, {"x-ms-blob-type": "BlockBlob"})


def test_azure_files_are_walked_with_a_signature(tmp_path: Path) -> None:
    def directory(*entries: str) -> Answer:
        body = f"<EnumerationResults><Entries>{''.join(entries)}</Entries><NextMarker />"
        return 200, {}, f"{body}</EnumerationResults>".encode()

    def file(name: str, size: int) -> str:
        size_row = f"<Properties><Content-Length>{size}</Content-Length></Properties>"
        return f"<File><Name>{name}</Name>{size_row}</File>"

    listings = {
        "/share/cats": directory(
            file("config.json", 2), "<Directory><Name>1</Name><Properties/></Directory>"
        ),
        "/share/cats/1": directory(file("weights.bin", len(DATA))),
    }
    files = {"/share/cats/config.json": b"{}", "/share/cats/1/weights.bin": DATA}

    def answer(method: str, path: str, headers: Mapping[str, str], _: bytes) -> Answer:
        parts = urllib.parse.urlsplit(path)
        if not headers.get("authorization", "").startswith(f"SharedKey {ACCOUNT}:"):
            return 403, {}, b""
        if "comp=list" in parts.query:
            return listings[parts.path]
        if parts.path in files:
            return 200, {"x-ms-type": "File"}, files[parts.path]
        return 404, {}, b""

    with scripted(answer) as server:
        environ = {
            "AZURE_STORAGE_CONNECTION_STRING": f"FileEndpoint={server.url}",
            "AZURE_STORAGE_ACCESS_KEY": KEY, **PARTS,
        }  # fmt: skip
        uri = f"https://{ACCOUNT}.file.core.windows.net/share/cats"
        done = initialize(uri, tmp_path / "m", environ=environ)
        assert done.returncode == 0, done.stderr
        assert tree(tmp_path / "m") == {"config.json": b"{}", "1/weights.bin": DATA}
        done = initialize(f"{uri}/1/weights.bin", tmp_path / "n", environ=environ)
        assert tree(tmp_path / "n") == {"weights.bin": DATA}, done.stderr


# --- Hugging Face --------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def hub(cdn: str, *, private: bool = False) -> Callable[..., Answer]:
    """The hub's API as recorded: revision, paged tree, `resolve` with a redirect for LFS files."""
    oid = hashlib.sha256(DATA).hexdigest()
    config = b'{"a": 1}'
    blob = hashlib.sha1(b"blob %d\0" % len(config) + config).hexdigest()

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if private and headers.get("authorization") != "Bearer hf_secret":
            return 401, {"X-Error-Message": "Repository is gated"}, b""
        if path in ("/api/models/org/model/revision/main", "/api/models/org/model/revision/v1"):
            return 200, {}, json.dumps({"sha": COMMIT}).encode()
        tree_path = f"/api/models/org/model/tree/{COMMIT}"
        if path == f"{tree_path}?recursive=true":
            link = f'<{tree_path}?recursive=true&cursor=2>; rel="next"'
            page = [
                {"type": "directory", "path": "onnx", "oid": "x"},
                {"type": "file", "path": "config.json", "size": len(config), "oid": blob},
            ]
            return 200, {"Link": link}, json.dumps(page).encode()
        if path == f"{tree_path}?recursive=true&cursor=2":
            lfs = {"oid": oid, "size": len(DATA), "pointerSize": 134}
            page = [{"type": "file", "path": "onnx/model.onnx", "size": len(DATA), "lfs": lfs}]
            return 200, {}, json.dumps(page).encode()
        if path == f"/org/model/resolve/{COMMIT}/config.json":
            return 200, {}, config
        if path == f"/org/model/resolve/{COMMIT}/onnx/model.onnx":
            return 302, {"Location": f"{cdn}/signed/blob?Signature=abc"}, b""
        return 404, {"X-Error-Message": "Repository not found"}, b""

    return answer


def test_hugging_face(tmp_path: Path) -> None:
    expired = [True]

    def cdn(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        assert "authorization" not in headers
        if expired.pop() if expired else False:
            return 403, {}, b"expired"
        return 200, {}, DATA

    with scripted(cdn) as far, scripted(hub(far.url, private=True)) as near:
        environ = {"HF_ENDPOINT": near.url, "HF_TOKEN": "hf_secret", **PARTS}
        done = initialize("hf://org/model:v1", tmp_path / "m", environ=environ)
        assert done.returncode == 0, done.stderr
        assert tree(tmp_path / "m") == {"config.json": b'{"a": 1}', "onnx/model.onnx": DATA}
        assert {auth for _, _, auth in far.seen} == {""}
        assert "hf_secret" not in done.stderr
        environ.pop("HF_TOKEN")
        done = initialize("hf://org/model", tmp_path / "n", environ=environ)
        assert done.returncode == 1
        assert "needs HF_TOKEN" in message(done)


# --- OCI -----------------------------------------------------------------------------------------


def layer(members: dict[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return packed.getvalue()


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def describe(data: bytes, kind: str, **annotations: str) -> dict[str, object]:
    found: dict[str, object] = {"mediaType": kind, "digest": digest_of(data), "size": len(data)}
    return found | ({"annotations": annotations} if annotations else {})


GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYERS = [
    layer({"etc/passwd": b"x", "models/1/weights.bin": DATA, "models/old.bin": b"old"}),
    layer(
        {"models/.wh.old.bin": b"", "models/config.json": b"{}", "models/1/extra": b"e"},
        {"models/latest": "1", "models/settings.json": "config.json"},
    ),
]
CONFIG = b"{}"
MODEL = {
    "1/weights.bin": DATA, "config.json": b"{}", "1/extra": b"e", "settings.json": b"{}",
}  # fmt: skip


def image_manifest() -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2, "mediaType": IMAGE,
            "config": describe(CONFIG, "application/vnd.oci.image.config.v1+json"),
            "layers": [describe(data, GZIP) for data in LAYERS],
        }
    ).encode()  # fmt: skip


def test_an_image_behind_a_token_service_and_a_redirect(tmp_path: Path) -> None:
    manifest = image_manifest()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    index = json.dumps(
        {"manifests": [
            {"digest": "sha256:" + "0" * 64, "platform": {"architecture": "s390x", "os": "linux"}},
            {"digest": digest_of(manifest), "platform": {"architecture": machine, "os": "linux"}},
        ]}
    ).encode()  # fmt: skip
    blobs = {digest_of(data): data for data in LAYERS}

    def store(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        assert "authorization" not in headers
        return 200, {}, blobs[path.removeprefix("/store/")]

    def registry(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        url = f"http://{headers['host']}"
        if path.startswith("/token?"):
            good = headers.get("authorization") == "Basic " + base64.b64encode(b"u:p").decode()
            return (200 if good else 401), {}, b'{"token": "t0ken"}'
        if headers.get("authorization") != "Bearer t0ken":
            challenge = f'Bearer realm="{url}/token",service="reg",scope="repository:a/m:pull"'
            return 401, {"WWW-Authenticate": challenge}, b""
        if path == "/v2/a/m/manifests/v1":
            return 200, {"Content-Type": INDEX}, index
        if path == f"/v2/a/m/manifests/{digest_of(manifest)}":
            return 200, {"Content-Type": IMAGE}, manifest
        if path.startswith("/v2/a/m/blobs/"):
            return 307, {"Location": f"{far.url}/store/{path.rpartition('/')[2]}"}, b""
        return 404, {}, b""

    with scripted(store) as far, scripted(registry) as server:
        host = server.url.removeprefix("http://")
        auths = {host: {"auth": base64.b64encode(b"u:p").decode()}}
        (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
        environ = {
            "KSERVE_OCI_INSECURE_REGISTRY": "true",
            "KSERVE_OCI_DOCKER_CONFIG": str(tmp_path / "config.json"),
            **PARTS,
        }
        for _ in range(2):
            done = initialize(f"oci://{host}/a/m:v1", tmp_path / "m", environ=environ)
            assert done.returncode == 0, done.stderr
            assert tree(tmp_path / "m") == MODEL
        assert json.loads(done.stderr.splitlines()[-1])["outcome"] == "complete"
        done = initialize(f"oci://{host}/a/m:v2", tmp_path / "n", environ=environ)
        assert "no a/m:v2" in message(done)
        blobs[digest_of(LAYERS[1])] = LAYERS[1][:-1] + b"?"
        done = initialize(f"oci://{host}/a/m:v1", tmp_path / "o", environ=environ)
        assert done.returncode == 1
        assert "sha256 is" in message(done)
        assert not (tmp_path / "o").exists()


@pytest.mark.skipif(not shutil.which("docker-registry"), reason="apt-get install docker-registry")
def test_a_real_registry_with_an_image_and_an_artifact(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "registry.yml").write_text(
        f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {tmp_path}/store\n"
        f"http:\n  addr: 127.0.0.1:{port}\n"
    )
    command = ["docker-registry", "serve", str(tmp_path / "registry.yml")]
    with program(command, port):
        base = f"http://127.0.0.1:{port}"

        def send(method: str, url: str, data: bytes, kind: str) -> str:
            request = urllib.request.Request(
                url, data=data, method=method, headers={"Content-Type": kind}
            )
            with urllib.request.urlopen(request, timeout=10) as response:
                return str(response.headers.get("Location") or "")

        def push(name: str, blobs: list[bytes], manifest: bytes) -> None:
            for data in blobs:
                place = send("POST", f"{base}/v2/{name}/blobs/uploads/", b"", "text/plain")
                joint = "&" if "?" in place else "?"
                place = urllib.parse.urljoin(base, place)
                target = f"{place}{joint}digest={urllib.parse.quote(digest_of(data))}"
                send("PUT", target, data, "application/octet-stream")
            send("PUT", f"{base}/v2/{name}/manifests/v1", manifest, IMAGE)

        push("a/image", [*LAYERS, CONFIG], image_manifest())
        title = {"org.opencontainers.image.title": "sub/weights.bin"}
        artifact = {
            "schemaVersion": 2, "mediaType": IMAGE,
            "config": describe(CONFIG, "application/vnd.oci.empty.v1+json"),
            "layers": [describe(DATA, "application/octet-stream", **title)],
        }  # fmt: skip
        push("a/artifact", [DATA, CONFIG], json.dumps(artifact).encode())
        environ = {"KSERVE_OCI_INSECURE_REGISTRY": "true", **PARTS}
        for name, expected in (("image", MODEL), ("artifact", {"sub/weights.bin": DATA})):
            uri = f"oci://127.0.0.1:{port}/a/{name}:v1"
            done = initialize(uri, tmp_path / name, environ=environ)
            assert done.returncode == 0, done.stderr
            assert tree(tmp_path / name) == expected


# --- HDFS ----------------------------------------------------------------------------------------


def test_webhdfs(tmp_path: Path) -> None:
    files = {"/models/cats/weights.bin": DATA, "/models/cats/sub/config.json": b"{}"}

    def status(path: str) -> dict[str, object] | None:
        if path in files:
            return {"type": "FILE", "length": len(files[path]), "modificationTime": 7, "fileId": 1}
        if any(name.startswith(path.rstrip("/") + "/") for name in files):
            return {"type": "DIRECTORY", "length": 0, "modificationTime": 7, "fileId": 2}
        return None

    def webhdfs(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        parts = urllib.parse.urlsplit(path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        name = urllib.parse.unquote(parts.path).removeprefix("/webhdfs/v1")
        kind = {"Content-Type": "application/json"}
        found = status(name)
        if query.get("user.name") != "ann":
            error = {"exception": "AccessControlException", "message": "denied"}
            return 403, kind, json.dumps({"RemoteException": error}).encode()
        if found is None:
            error = {"exception": "FileNotFoundException", "message": f"{name} does not exist"}
            return 404, kind, json.dumps({"RemoteException": error}).encode()
        if query["op"] == "GETFILESTATUS":
            return 200, kind, json.dumps({"FileStatus": found}).encode()
        if query["op"] == "LISTSTATUS":
            prefix = name.rstrip("/") + "/"
            below = sorted({f.removeprefix(prefix).split("/")[0] for f in files if prefix in f})
            rows = [{"pathSuffix": b, **(status(prefix + b) or {})} for b in below]
            return 200, kind, json.dumps({"FileStatuses": {"FileStatus": rows}}).encode()
        return 200, {"Content-Type": "application/octet-stream"}, files[name]

    with scripted(webhdfs) as server:
        secret = tmp_path / "secret"
        secret.mkdir()
        (secret / "USER_PROXY").write_text("ann\n")
        environ = {"HDFS_SECRET_DIR": str(secret)}
        base = server.url.replace("http", "webhdfs")
        done = initialize(f"{base}/models/cats", tmp_path / "m", environ=environ)
        assert done.returncode == 0, done.stderr
        assert tree(tmp_path / "m") == {"weights.bin": DATA, "sub/config.json": b"{}"}
        (secret / "HDFS_NAMENODE").write_text(server.url)
        done = initialize("hdfs://models/cats/weights.bin", tmp_path / "n", environ=environ)
        assert tree(tmp_path / "n") == {"weights.bin": DATA}, done.stderr
        done = initialize(f"{base}/models/dogs", tmp_path / "o", environ=environ)
        assert done.returncode == 1
        assert "does not exist" in message(done)


def test_webhdfs_is_patient_and_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    """A gateway's error page, a transfer that ends early, an empty directory."""
    opened: list[int] = []
    asked: list[str] = []

    def webhdfs(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        parts = urllib.parse.urlsplit(path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        asked.append(query["op"])
        kind = {"Content-Type": "application/json"}
        file = {"type": "FILE", "length": len(DATA), "modificationTime": 7, "fileId": 1}
        folder = {"type": "DIRECTORY", "length": 0, "modificationTime": 7, "fileId": 2}
        if asked.count("LISTSTATUS") == 1 and query["op"] == "LISTSTATUS":
            return 503, {"Content-Type": "text/html"}, b"<html>later</html>"
        if query["op"] == "GETFILESTATUS":
            found = file if parts.path.endswith("w.bin") else folder
            return 200, kind, json.dumps({"FileStatus": found}).encode()
        if query["op"] == "LISTSTATUS":
            rows = [{"pathSuffix": "w.bin", **file}, {"pathSuffix": "void", **folder}]
            rows = [] if parts.path.endswith("void") else rows
            return 200, kind, json.dumps({"FileStatuses": {"FileStatus": rows}}).encode()
        opened.append(int(query.get("offset", 0)))
        data = DATA[opened[-1] :]
        if len(opened) == 1:
            out = {"Content-Length": str(len(data)), "Connection": "close"}
            return 200, out, data[:300_000]
        return 200, {"Content-Type": "application/octet-stream"}, data

    with scripted(webhdfs) as server:
        uri = f"{server.url.replace('http', 'webhdfs')}/models/cats"
        done = initialize(uri, tmp_path / "m", environ={"LOG_LEVEL": "INFO"})
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") == {"w.bin": DATA}
    assert (tmp_path / "m" / "void").is_dir()
    assert opened[0] == 0
    assert len(opened) == 2
    assert '"hdfs.client"' not in done.stderr


def test_the_deadline_holds_while_a_library_waits_for_data(tmp_path: Path) -> None:
    over = threading.Event()

    def webhdfs(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if "op=OPEN" in path:
            over.wait(40)
            return 500, {}, b""
        file = {"type": "FILE", "length": 5, "modificationTime": 7, "fileId": 1}
        return 200, {"Content-Type": "application/json"}, json.dumps({"FileStatus": file}).encode()

    with scripted(webhdfs) as server:
        uri = f"{server.url.replace('http', 'webhdfs')}/models/w.bin"
        limits = {"STORAGE_STALL_SECONDS": "600", "STORAGE_DEADLINE_SECONDS": "1"}
        done = initialize(uri, tmp_path / "m", environ=limits, timeout_s=30)
        over.set()
    assert done.returncode == 1
    assert "not done after 1 s" in message(done)
    assert not (tmp_path / "m").exists()


def test_an_unreachable_namenode_is_one_clear_line(tmp_path: Path) -> None:
    environ = {"STORAGE_ATTEMPTS": "2"}
    done = initialize("webhdfs://127.0.0.1:1/models", tmp_path / "m", environ=environ)
    assert done.returncode == 1
    assert message(done).endswith(
        "WebHDFS: Failed to establish a new connection: [Errno 111] Connection refused"
    )


# --- extras --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "environ", "module", "extra"),
    [
        ("git+https://127.0.0.1/repo.git", {}, "dulwich", "git"),
        ("webhdfs://127.0.0.1:1/x", {}, "hdfs", "hdfs"),
        ("s3://bucket/x", {"AWS_PROFILE": "team"}, "botocore", "s3"),
        ("gs://bucket/x", {"GOOGLE_APPLICATION_CREDENTIALS": "/x.json"}, "google.auth", "gcs"),
    ],
)
def test_a_missing_extra_names_itself(
    tmp_path: Path, uri: str, environ: dict[str, str], module: str, extra: str
) -> None:
    blocker = tmp_path / "sitecustomize.py"
    blocker.write_text(
        "import sys\nclass Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    path = f"{tmp_path}:{Path(__file__).resolve().parents[2]}"
    done = initialize(uri, tmp_path / "m", environ={**environ, "PYTHONPATH": path})
    assert done.returncode == 1
    assert f"pip install 'turnout[{extra}]'" in message(done)


def test_only_what_the_uri_needs_is_imported(tmp_path: Path) -> None:
    """Budget of an init container's start: modules (a bare interpreter has 31), and no SDK."""
    code = (
        "import sys\nbare = len(sys.modules)\n"
        "import storage_initializer.__main__ as m, json\n"
        "status = m.main(sys.argv[1:])\n"
        "heavy = [n for n in ('boto3', 'botocore', 'requests', 'google.auth', 'dulwich', 'hdfs',\n"
        "         'ssl', 'asyncio', 'concurrent') if n in sys.modules]\n"
        "print(json.dumps([status, len(sys.modules) - bare + 31, heavy]))\n"
    )
    (tmp_path / "model.bin").write_bytes(b"x")
    with scripted(lambda *_: (200, {"ETag": '"x"'}, b"data")) as server:
        s3 = {
            "AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        }  # fmt: skip
        for number, (uri, environ) in enumerate(
            [(str(tmp_path / "model.bin"), {}), (f"{server.url}/x.bin", {}), ("s3://bkt/x", s3)]
        ):
            done = subprocess.run(
                [sys.executable, "-c", code, uri, str(tmp_path / f"m{number}")],
                env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environ},
                cwd=Path(__file__).resolve().parents[2],
                capture_output=True,
                text=True,
                timeout=30,
            )
            status, modules, heavy = json.loads(done.stdout)
            assert status == 0, done.stderr
            assert heavy == []
            assert modules <= 140, f"{uri}: {modules} modules"
