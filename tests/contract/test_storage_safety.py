"""Killed at random, out of space, read-only, several at once: never half a model.

`TURNOUT_KILL_RUNS` (default 12) raises the number of kill -9 rounds; 100 and more for a soak.
"""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes_storage import (
    MARKER,
    FaultyServer,
    environment,
    faulty_server,
    initialize,
    small_volume,
    tree,
)

KILL_RUNS = int(os.environ.get("TURNOUT_KILL_RUNS", "12"))
BIG = random.Random(1).randbytes(6_000_000)


def start(*arguments: object, environ: dict[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "storage_initializer", *map(str, arguments)],
        env=environment(environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def make_source(directory: Path) -> dict[str, bytes]:
    """A tree with everything that is awkward: nesting, empty files, many entries at the top."""
    rng = random.Random(2)
    files = {f"top-{index}.bin": rng.randbytes(20_000) for index in range(12)}
    files |= {f"deep/{index}/model.bin": rng.randbytes(200_000) for index in range(6)}
    files |= {"empty": b"", "big.bin": BIG}
    for path, data in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)
    return files


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    with small_volume(tmp_path / "mount") as place:
        yield place


@pytest.mark.timeout(120 + 10 * KILL_RUNS)
@pytest.mark.parametrize("mounted", [False, True], ids=["directory", "mount-point"])
def test_killed_at_random_moments_the_tree_is_absent_or_complete(
    tmp_path: Path, mounted: bool, request: pytest.FixtureRequest
) -> None:
    if mounted:
        place = request.getfixturevalue("tmpfs")
        subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
    else:
        place = tmp_path / "models"
        place.mkdir()
    files = make_source(tmp_path / "source")
    rng = random.Random(3)
    with faulty_server() as server:
        for path, data in files.items():
            server.add(f"/{path}", data)
        # The tree over HTTP as 20 sources of one destination: real downloads with ranges.
        arguments: list[object] = []
        for path in files:
            if "/" not in path:
                arguments += [f"{server.url}/{path}", place]
        sub = place / "sub" if mounted else tmp_path / "other"
        arguments += [tmp_path / "source" / "deep", sub]
        top = {path: data for path, data in files.items() if "/" not in path}
        deep = {path.removeprefix("deep/"): data for path, data in files.items() if "/" in path}
        environ = {"STORAGE_PART_BYTES": "256Ki", "STORAGE_BACKOFF_SECONDS": "0.01"}
        kills = 0
        for round_number in range(KILL_RUNS // 2 + 1):
            process = start(*arguments, environ=environ)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0.05, 0.45))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
            process.wait(10)
            assert_absent_or_complete(place, top, atomic=not mounted)
            if round_number % 3 == 2:
                done = initialize(*arguments, environ=environ)
                assert done.returncode == 0, done.stderr
                inner = {f"sub/{path}": data for path, data in deep.items()}
                assert tree(place) == top | (inner if mounted else {})
                assert tree(sub) == deep
                assert not list(place.glob(".turnout-staging*"))
                assert not list(tmp_path.glob(".*.turnout-staging"))
                wipe(place)
        assert kills, "no process lived long enough to be killed"
        done = initialize(*arguments, environ=environ)
        assert done.returncode == 0, done.stderr
        assert_absent_or_complete(place, top, atomic=not mounted)
        assert (place / MARKER).exists()


def assert_absent_or_complete(place: Path, files: dict[str, bytes], *, atomic: bool) -> None:
    """A marker vouches for the whole. Where the directory is renamed, its mere content does."""
    if not (place / MARKER).exists():
        assert not atomic or not place.exists() or not any(place.iterdir())
        return
    for path, data in files.items():
        assert (place / path).read_bytes() == data, path


def wipe(place: Path) -> None:
    for entry in place.iterdir():
        if entry.is_dir():
            subprocess.run(["rm", "-rf", str(entry)], check=True)
        else:
            entry.unlink()


def test_a_directory_appears_in_one_step(tmp_path: Path) -> None:
    """A reader that knows nothing of markers never sees a part of the tree."""
    files = make_source(tmp_path / "source")
    dest, seen, stop = tmp_path / "models", set(), threading.Event()

    def watch() -> None:
        while not stop.is_set():
            with contextlib.suppress(FileNotFoundError):
                seen.add(len(list(dest.iterdir())))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert initialize(tmp_path / "source", dest).returncode == 0
    finally:
        stop.set()
        watcher.join()
    complete = len({path.split("/")[0] for path in files}) + 1
    assert seen <= {complete}


def test_a_full_volume_is_a_clean_failure(tmp_path: Path, tmpfs: Path) -> None:
    with faulty_server() as server:
        server.add("/model.bin", BIG * 2)
        done = initialize(f"{server.url}/model.bin", tmpfs / "m")
        assert done.returncode == 1
        assert "bytes free" in done.stderr  # said before anything was fetched
        assert len(server.requests) == 1
    assert not (tmpfs / "m").exists()


def test_a_volume_that_fills_up_meanwhile_is_a_clean_failure(tmp_path: Path, tmpfs: Path) -> None:
    """Space was there at the check, then somebody else took it."""
    with faulty_server() as server:
        server.add("/model.bin", BIG, faults=["stall:2000000"])
        environ = {"STORAGE_STALL_SECONDS": "1.5"}
        process = start(f"{server.url}/model.bin", tmpfs / "m", environ=environ)
        try:
            deadline = time.monotonic() + 10
            while len(server.requests) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            (tmpfs / "ballast").write_bytes(b"x" * 4_000_000)
            assert process.wait(20) == 1
        finally:
            process.kill()
            process.wait(5)
    assert not (tmpfs / "m").exists()


def test_a_file_size_limit_is_a_clean_failure(tmp_path: Path) -> None:
    """The same without root: EFBIG instead of ENOSPC."""
    with faulty_server() as server:
        server.add("/model.bin", BIG)
        limited = ("prlimit", "--fsize=1000000")
        done = initialize(f"{server.url}/model.bin", tmp_path / "m", prefix=limited)
    assert done.returncode == 1
    assert f"the file system of {tmp_path / 'm'} is full" in done.stderr
    assert not (tmp_path / "m").exists()


def test_a_read_only_destination_that_is_complete_is_a_no_op(tmp_path: Path, tmpfs: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"model")
    assert initialize(tmp_path / "model.bin", tmpfs).returncode == 0
    subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=True)
    done = initialize(tmp_path / "model.bin", tmpfs)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1])["outcome"] == "complete"
    (tmp_path / "other.bin").write_bytes(b"other")
    done = initialize(tmp_path / "other.bin", tmpfs)
    assert done.returncode == 1
    assert "is read-only and holds" in done.stderr


def test_a_read_only_destination_that_somebody_provided_is_taken(
    tmp_path: Path, tmpfs: Path
) -> None:
    (tmpfs / "model.bin").write_bytes(b"provided")
    subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=True)
    (tmp_path / "model.bin").write_bytes(b"model")
    done = initialize(tmp_path / "model.bin", tmpfs)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1])["outcome"] == "provided"


def test_several_initializers_of_one_destination_take_turns(tmp_path: Path) -> None:
    with faulty_server() as server:
        server.add("/model.bin", BIG)
        uri = f"{server.url}/model.bin"
        processes = [start(uri, tmp_path / "m", environ={}) for _ in range(4)]
        assert [process.wait(60) for process in processes] == [0] * 4
        whole = [wanted for _, wanted, _ in server.requests if wanted != "bytes=0-0"]
        assert len(whole) == 1  # one fetched, three found it complete
    assert tree(tmp_path / "m") == {"model.bin": BIG}


def test_sigterm_ends_quickly_and_the_next_run_goes_on(tmp_path: Path) -> None:
    with faulty_server() as server:
        file = server.add("/model.bin", BIG, faults=["stall:1000000", "stall:3500000"])
        environ = {"STORAGE_PART_BYTES": "256Ki", "STORAGE_CONCURRENCY": "2"}
        process = start(f"{server.url}/model.bin", tmp_path / "m", environ=environ)
        try:
            deadline = time.monotonic() + 10
            journal = tmp_path / ".m.turnout-staging" / "journal"
            while time.monotonic() < deadline:
                if journal.exists() and journal.read_bytes().count(b'"part"') >= 3 + 11:
                    break
                time.sleep(0.01)
            process.terminate()
            assert process.wait(5) == 1
        finally:
            process.kill()
        file.faults = []
        server.requests.clear()
        done = initialize(f"{server.url}/model.bin", tmp_path / "m", environ=environ)
        assert done.returncode == 0, done.stderr
        starts = {re.match(r"bytes=(\d+)-", wanted)[1] for _, wanted, _ in server.requests[1:]}
        assert "0" not in starts  # what the first run had is not asked for again
    assert tree(tmp_path / "m") == {"model.bin": BIG}


# --- node cache ----------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with faulty_server() as running:
        yield running


def fetched(server: FaultyServer) -> int:
    return sum(1 for _, wanted, _ in server.requests if wanted != "bytes=0-0")


def test_the_second_pod_of_a_node_downloads_nothing(server: FaultyServer, tmp_path: Path) -> None:
    server.add("/model.bin", BIG)
    environ = {"STORAGE_CACHE_DIR": str(tmp_path / "cache"), "STORAGE_PART_BYTES": "1Mi"}
    uri = f"{server.url}/model.bin"
    assert initialize(uri, tmp_path / "pod-1", environ=environ).returncode == 0
    server.requests.clear()
    done = initialize(uri, tmp_path / "pod-2", environ=environ)
    assert done.returncode == 0, done.stderr
    assert fetched(server) == 0
    assert json.loads(done.stderr.splitlines()[-1])["cache_hits"] == 1
    assert tree(tmp_path / "pod-2") == {"model.bin": BIG}
    (tmp_path / "pod-2" / "model.bin").write_bytes(b"scribble")  # its own copy
    assert initialize(uri, tmp_path / "pod-3", environ=environ).returncode == 0
    assert tree(tmp_path / "pod-3") == {"model.bin": BIG}


def test_concurrent_pods_of_a_node_download_once(server: FaultyServer, tmp_path: Path) -> None:
    server.add("/model.bin", BIG)
    environ = {"STORAGE_CACHE_DIR": str(tmp_path / "cache"), "STORAGE_PART_BYTES": "1Mi"}
    uri = f"{server.url}/model.bin"
    pods = [start(uri, tmp_path / f"pod-{n}", environ=environ) for n in range(4)]
    assert [pod.wait(60) for pod in pods] == [0] * 4
    assert fetched(server) == 6  # six runs of one part each
    for number in range(4):
        assert tree(tmp_path / f"pod-{number}") == {"model.bin": BIG}


def test_the_cache_forgets_the_least_recently_used(server: FaultyServer, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    environ = {"STORAGE_CACHE_DIR": str(cache), "STORAGE_CACHE_MAX_BYTES": "250000"}
    for name in ("a", "b", "c"):
        server.add(f"/{name}.bin", name.encode() * 100_000)

    def get(name: str, pod: str) -> None:
        done = initialize(f"{server.url}/{name}.bin", tmp_path / pod, environ=environ)
        assert done.returncode == 0, done.stderr

    for number, name in enumerate(["a", "b", "a", "c"]):  # c pushes b out, not a
        get(name, f"pod-{number}")
    assert len(list((cache / "blobs").iterdir())) == 2
    server.requests.clear()
    get("a", "again-a")
    assert fetched(server) == 0
    get("b", "again-b")
    assert fetched(server) == 1


def test_a_broken_cache_costs_speed_only(server: FaultyServer, tmp_path: Path) -> None:
    server.add("/model.bin", BIG)
    uri = f"{server.url}/model.bin"
    (tmp_path / "file").touch()
    environ = {"STORAGE_CACHE_DIR": str(tmp_path / "file")}
    done = initialize(uri, tmp_path / "pod-1", environ=environ)
    assert done.returncode == 0, done.stderr
    environ = {"STORAGE_CACHE_DIR": str(tmp_path / "cache")}
    assert initialize(uri, tmp_path / "pod-2", environ=environ).returncode == 0
    for blob in (tmp_path / "cache" / "blobs").iterdir():
        blob.chmod(0o644)
        blob.write_bytes(b"damaged")
    done = initialize(uri, tmp_path / "pod-3", environ=environ)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "pod-3") == {"model.bin": BIG}


@pytest.mark.parametrize("how", ["other boot", "written through"])
def test_a_blob_that_may_have_changed_is_read_before_it_is_used(
    server: FaultyServer, tmp_path: Path, how: str
) -> None:
    server.add("/model.bin", BIG)
    uri = f"{server.url}/model.bin"
    environ = {"STORAGE_CACHE_DIR": str(tmp_path / "cache")}
    assert initialize(uri, tmp_path / "pod-1", environ=environ).returncode == 0
    (blob,) = (tmp_path / "cache" / "blobs").iterdir()
    (entry,) = (tmp_path / "cache" / "index").iterdir()
    status = blob.stat()
    blob.chmod(0o644)
    blob.write_bytes(bytes(len(BIG)))  # as long as before, but zeros
    if how == "other boot":
        os.utime(blob, ns=(status.st_atime_ns, status.st_mtime_ns))
        entry.write_text(json.dumps(json.loads(entry.read_text()) | {"boot": "another"}))
    done = initialize(uri, tmp_path / "pod-2", environ=environ)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "pod-2") == {"model.bin": BIG}
    entry.write_text(json.dumps(json.loads(entry.read_text()) | {"boot": "another"}))
    server.requests.clear()
    assert initialize(uri, tmp_path / "pod-3", environ=environ).returncode == 0
    assert fetched(server) == 0  # an undamaged one is used after all
    assert tree(tmp_path / "pod-3") == {"model.bin": BIG}


@pytest.mark.timeout(120 + 10 * KILL_RUNS)
def test_killed_while_it_writes_the_cache(server: FaultyServer, tmp_path: Path) -> None:
    """Two initializers at a time, SIGKILL at random moments: a blob is what its name says."""
    rng = random.Random(9)
    names = [f"{index}.bin" for index in range(6)]
    files = {name: rng.randbytes(1_500_000) for name in names}
    for name, data in files.items():
        server.add(f"/{name}", data)
    cache = tmp_path / "cache"
    environ = {"STORAGE_CACHE_DIR": str(cache), "STORAGE_CACHE_MAX_BYTES": "7000000"}
    environ |= {"STORAGE_PART_BYTES": "256Ki"}
    kills = 0
    for number in range(max(6, KILL_RUNS // 2)):
        pods = [tmp_path / f"{number}-{pod}" for pod in "ab"]
        arguments = [[w for n in names for w in (f"{server.url}/{n}", pod)] for pod in pods]
        processes = [start(*words, environ=environ) for words in arguments]
        time.sleep(rng.uniform(0.05, 0.6))
        for process in processes:
            kills += process.poll() is None
            process.kill()
            process.wait(10)
        for blob in (cache / "blobs").glob("[0-9a-f]*") if cache.exists() else ():
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
        done = initialize(*arguments[0], environ=environ)
        assert done.returncode == 0, done.stderr
        assert tree(pods[0]) == files
        shutil.rmtree(pods[0])
    assert kills
