"""What an earlier run, a killed one, another version of the source or of the journal has left."""

import errno
import fcntl
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage_initializer import download, fetch, fetching, publish, retry
from storage_initializer.client import Client
from storage_initializer.destinations import plan
from storage_initializer.errors import DeadlineExceeded, DestinationError, StorageError
from storage_initializer.settings import Settings
from storage_initializer.staging import FileRecord, Staging
from tests.fakes_storage import FaultyServer, faulty_server, small_volume, tree

DATA = random.Random(6).randbytes(6_000_000)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with faulty_server() as running:
        yield running


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    with small_volume(tmp_path / "mount") as place:
        yield place


def settings(**extra: str) -> Settings:
    base = {
        "STORAGE_PART_BYTES": "256Ki",
        "STORAGE_CONCURRENCY": "1",
        "STORAGE_BACKOFF_SECONDS": "0.01",
        "STORAGE_PROGRESS_SECONDS": "0",
    }
    return Settings.from_env(base | extra)


def control() -> retry.Control:
    return retry.Control(attempts=1, back_off_s=0.01, back_off_max_s=0.01)


def staged_before(
    source: object, dest: Path, files: dict[str, bytes], chosen: Settings | None = None
) -> Path:
    """The staging directory of a run that was killed when it had `files`."""
    chosen = chosen or settings()
    (destination,) = plan([(str(source), dest)], chosen)
    left = Staging.open(dest, destination.identity(chosen), control())
    for path, data in files.items():
        place = left.target(path)
        place.write_bytes(data)
        status = place.stat()
        left.record(FileRecord(path, len(data), "a version", "", status.st_mtime_ns))
    left.close()
    return left.root


def test_what_the_source_has_no_more_is_not_published(tmp_path: Path) -> None:
    source, dest = tmp_path / "source", tmp_path / "models"
    (source / "1").mkdir(parents=True)
    (source / "1" / "model.bin").write_bytes(b"new")
    (source / "kept-empty").mkdir()
    gone = {"1/gone.bin": b"x", "2/deep/gone.bin": b"y", "top.bin": b"z"}
    root = staged_before(source, dest, gone)
    (root / "tree" / "1" / "half-written").write_bytes(b"h")
    fetch(str(source), dest, settings())
    assert tree(dest) == {"1/model.bin": b"new"}
    assert {path.name for path in dest.iterdir() if path.is_dir()} == {"1", "kept-empty"}
    assert not root.exists()


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"m/a/b": b"1", "m/c": b"2"}, {"m": b"3"}),
        ({"m/a/b": b"1", "n": b"2"}, {"m/a": b"3", "n": b"2"}),
        ({"m": b"1"}, {"m/a/b": b"2", "m/c": b"3"}),
    ],
    ids=["file", "file-below", "directory"],
)
@pytest.mark.parametrize("mode", ["copy", "hardlink"])
def test_what_was_a_directory_may_have_become_a_file(
    tmp_path: Path, before: dict[str, bytes], now: dict[str, bytes], mode: str
) -> None:
    source, dest = tmp_path / "source", tmp_path / "models"
    chosen = settings(STORAGE_LOCAL_MODE=mode)
    become(source, now)
    staged_before(source, dest, before, chosen)
    fetch(str(source), dest, chosen)
    assert tree(dest) == now


@pytest.mark.parametrize("by_then", ["the same", "the old one again", "a third one"])
def test_a_run_killed_while_it_replaced_a_tree_leaves_nothing_of_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_then: str
) -> None:
    """Killed when the new files are in place and the old ones not yet gone."""
    source, dest = tmp_path / "source", tmp_path / "models"
    old, new = (
        {"same": b"1", "old": b"2", "d/old": b"3"},
        {"same": b"1", "new": b"4", "d/new": b"5"},
    )
    become(source, old)
    fetch(str(source), dest, settings())
    become(source, new)
    with monkeypatch.context() as patch:
        patch.setattr(publish, "remove_files", killed)
        with pytest.raises(Killed):
            fetch(str(source), dest, settings())
    assert publish.read_marker(dest) is None  # half replaced: complete for nobody
    want = {"the same": new, "the old one again": old, "a third one": {"third": b"6"}}[by_then]
    become(source, want)
    fetch(str(source), dest, settings())
    assert tree(dest) == want


@pytest.mark.parametrize("filled", [False, True], ids=["renamed", "entry-by-entry"])
def test_what_a_run_killed_at_its_very_end_has_left_is_swept_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filled: bool
) -> None:
    source, dest = tmp_path / "source", tmp_path / "models"
    become(source, {"a": b"1", "b/c": b"2"})
    if filled:
        become(dest, {"mine": b"0"})
    with monkeypatch.context() as patch:
        patch.setattr(Staging, "remove", killed)
        with pytest.raises(Killed):
            fetch(str(source), dest, settings())
    assert list(tmp_path.rglob("*turnout-staging"))
    assert fetch(str(source), dest, settings()).outcome == "complete"
    assert not list(tmp_path.rglob("*turnout-staging"))


def become(directory: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    for path, data in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)


class Killed(Exception):
    pass


def killed(*_: object) -> None:
    raise Killed


def test_a_resumed_run_needs_room_for_the_rest_only(server: FaultyServer, tmpfs: Path) -> None:
    """8 MB, a model of 6: what has come takes room that need not be free a second time."""
    file = server.add("/model.bin", DATA, faults=["close:4000000"] + ["status:403"] * 20)
    with pytest.raises(StorageError):
        fetch(f"{server.url}/model.bin", tmpfs, settings())
    file.faults = []
    fetch(f"{server.url}/model.bin", tmpfs, settings())
    assert tree(tmpfs) == {"model.bin": DATA}


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b'{"part":["model.bin"]}'], id="short"),
        pytest.param([b'{"file":[1]}', b'{"forget":["x"]}'], id="other-layout"),
        pytest.param([b'{"part":["model.bin","v",6000000,1,"a","b"]}'], id="no-numbers"),
        pytest.param([b'{"part":["mod', b"\x00" * 500, b"[1]", b"7", b"{}"], id="torn"),
    ],
)
def test_a_journal_that_is_damaged_or_of_another_layout_is_no_obstacle(
    server: FaultyServer, tmp_path: Path, lines: list[bytes]
) -> None:
    server.add("/model.bin", DATA)
    root = staged_before(f"{server.url}/model.bin", tmp_path / "m", {})
    with (root / "journal").open("ab") as journal:
        journal.write(b"\n".join(lines))
    fetch(f"{server.url}/model.bin", tmp_path / "m", settings())
    assert tree(tmp_path / "m") == {"model.bin": DATA}


@pytest.mark.parametrize("part_bytes", ["128Ki", "512Ki", "8Mi"])
def test_parts_of_another_size_are_not_taken_for_ours(
    server: FaultyServer, tmp_path: Path, part_bytes: str
) -> None:
    file = server.add("/model.bin", DATA, faults=["close:4000000"] + ["status:403"] * 20)
    with pytest.raises(StorageError):
        fetch(f"{server.url}/model.bin", tmp_path / "m", settings())
    file.faults = []
    fetch(f"{server.url}/model.bin", tmp_path / "m", settings(STORAGE_PART_BYTES=part_bytes))
    assert tree(tmp_path / "m") == {"model.bin": DATA}


def test_ranges_of_what_cannot_be_told_apart_are_not_fetched_side_by_side(
    server: FaultyServer, tmp_path: Path
) -> None:
    """Neither ETag nor Last-Modified: two ranges could be of two versions."""
    server.add("/model.bin", DATA, etag=False)
    fetch(f"{server.url}/model.bin", tmp_path / "m", settings(STORAGE_CONCURRENCY="4"))
    assert tree(tmp_path / "m") == {"model.bin": DATA}
    assert [wanted for _, wanted, _ in server.requests] == ["bytes=0-0", ""]


def test_a_stream_that_always_breaks_at_one_byte_is_given_up(
    server: FaultyServer, tmp_path: Path
) -> None:
    server.add("/model.bin", DATA, ranges=False, faults=["close:50000"] * 50)
    with pytest.raises(StorageError):
        fetch(f"{server.url}/model.bin", tmp_path / "m", settings(STORAGE_ATTEMPTS="3"))
    assert len(server.requests) < 8


def test_removing_a_staging_directory_leaves_the_next_holders_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the lock's end and the directory's another initializer may have begun there."""
    dest = tmp_path / "m"
    first = Staging.open(dest, "one", control())
    others: list[Staging] = []
    rmdir = Path.rmdir

    def another_begins(path: Path) -> None:
        if path == first.root and not others:
            others.append(Staging.open(dest, "two", control()))
        rmdir(path)

    monkeypatch.setattr(Path, "rmdir", another_begins)
    first.remove()
    (second,) = others
    assert second.tree.is_dir()
    assert (second.root / "lock").exists()
    assert (second.root / "journal").exists()
    second.remove()
    assert not second.root.exists()


def test_a_file_system_without_locks_is_told_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / "model.bin").write_bytes(b"model")
    with pytest.raises(DestinationError, match="ENOLCK"):
        fetch(str(tmp_path / "model.bin"), tmp_path / "m", settings())


def test_a_cache_without_locks_costs_speed_only(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add("/model.bin", DATA)
    cache, flock = tmp_path / "cache", fcntl.flock
    refused: list[int] = []

    def refuse(fd: int, how: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").startswith(str(cache)):
            refused.append(fd)
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", refuse)
    done = fetch(f"{server.url}/model.bin", tmp_path / "m", settings(STORAGE_CACHE_DIR=str(cache)))
    assert done.outcome == "fetched"
    assert tree(tmp_path / "m") == {"model.bin": DATA}
    assert refused


def test_a_read_only_cache_is_used(server: FaultyServer, tmp_path: Path, tmpfs: Path) -> None:
    server.add("/a.bin", DATA[:2_000_000])
    server.add("/b.bin", DATA[2_000_000:4_000_000])
    environ = settings(STORAGE_CACHE_DIR=str(tmpfs))
    fetch(f"{server.url}/a.bin", tmp_path / "a", environ)
    subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=True)
    assert fetch(f"{server.url}/a.bin", tmp_path / "again", environ).cache_hits == 1
    assert fetch(f"{server.url}/b.bin", tmp_path / "b", environ).cache_hits == 0
    assert tree(tmp_path / "again") == {"a.bin": DATA[:2_000_000]}
    assert tree(tmp_path / "b") == {"b.bin": DATA[2_000_000:4_000_000]}


def test_a_server_cannot_ask_for_more_than_five_minutes() -> None:
    one = control()
    one.slow_down(86_400.0)
    assert 0 < one.closed_for_s() <= retry.RETRY_AFTER_MAX_S


def test_threads_that_hang_hold_a_failure_up_once_not_each(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 threads inside a connection that is not made: the deadline ends the fetch all the same."""
    released, inside, connect = threading.Event(), [], Client.connect

    def hang(self: Client, request: object) -> object:
        if threading.current_thread().name.startswith("fetch-"):
            inside.append(request)
            released.wait(60)
        return connect(self, request)  # type: ignore[arg-type]

    monkeypatch.setattr(Client, "connect", hang)
    monkeypatch.setattr(download, "STOP_PATIENCE_S", 1.0)
    monkeypatch.setattr(fetching, "STOP_PATIENCE_S", 1.0)
    pairs = []
    for number in range(16):
        server.add(f"/{number}.bin", DATA[:300_000])
        pairs.append((f"{server.url}/{number}.bin", tmp_path / "m"))
    environ = settings(STORAGE_CONCURRENCY="16", STORAGE_DEADLINE_SECONDS="2")
    began = time.monotonic()
    try:
        with pytest.raises(DeadlineExceeded):
            fetching.fetch_all(pairs, environ)
        assert time.monotonic() - began < 12
        assert len(inside) > 10
    finally:
        released.set()


def test_a_hard_link_of_an_earlier_run_is_not_written_through(
    server: FaultyServer, tmp_path: Path
) -> None:
    """The node cache's blob may be the model that another pod is serving."""
    environ = settings(STORAGE_CACHE_DIR=str(tmp_path / "cache"), STORAGE_LOCAL_MODE="hardlink")
    uri, other = f"{server.url}/model.bin", random.Random(7).randbytes(len(DATA))
    file = server.add("/model.bin", DATA)
    fetch(uri, tmp_path / "cached", environ)
    (destination,) = plan([(uri, tmp_path / "m")], environ)
    left = Staging.open(tmp_path / "m", destination.identity(environ), control())
    (blob,) = (tmp_path / "cache" / "blobs").iterdir()
    os.link(blob, left.target("model.bin"))  # killed before it was noted
    left.close()
    file.data = other
    fetch(uri, tmp_path / "m", environ)
    assert tree(tmp_path / "m") == {"model.bin": other}
    assert blob.read_bytes() == DATA


def test_a_bind_mount_of_its_own_file_system_is_a_mount_point(tmp_path: Path, tmpfs: Path) -> None:
    """It can be renamed as little as any other, but `ismount` does not see it."""
    volume, dest = tmpfs / "sub path", tmpfs / "my models"
    volume.mkdir()
    dest.mkdir()
    (tmp_path / "model.bin").write_bytes(b"model")
    subprocess.run(["mount", "--bind", str(volume), str(dest)], check=True)
    try:
        fetch(str(tmp_path / "model.bin"), dest, settings())
        assert tree(volume) == {"model.bin": b"model"}
    finally:
        subprocess.run(["umount", str(dest)], check=True)
    assert sorted(path.name for path in tmpfs.iterdir()) == ["my models", "sub path"]
