"""What people and log collectors see: log lines, the bar, the progress lines, the library."""

import io
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import storage_initializer
from functions.wire import container
from storage_initializer import cli, fetching, library_logs, logs, publish, room, staging
from storage_initializer.errors import NoSpace, NotFound, StorageError, from_os_error
from storage_initializer.progress import Progress, Reporter, bar, human
from storage_initializer.providers import local
from storage_initializer.providers.local import copy_file
from storage_initializer.settings import Settings

QUIET = Settings.from_env({"STORAGE_PROGRESS_SECONDS": "0"})


def test_log_lines_have_the_keys_of_every_unit() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "hello %s", ("you",), None)
    record.extra_key = 7
    ours = json.loads(library_logs.JsonLogFormatter().format(record))
    theirs = json.loads(container.JsonLogFormatter("storage_initializer").format(record))
    assert list(ours) == list(theirs)
    assert ours == theirs


def test_the_bar_tells_what_is_known() -> None:
    progress = Progress()
    progress.expect(4, 1_000_000)
    progress.add(500_000)
    assert "? files" in bar(progress, 1e6).replace("/", " ").replace("0 ?", "?")
    progress.listed = True
    progress.skip(0)
    line = bar(progress, 250_000.0)
    assert " 50%" in line
    assert "500.0 kB of 1.0 MB" in line
    assert "1/4 files" in line
    assert "ETA 0:02" in line


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (3.2e12, "3.2 TB")]
)
def test_sizes_for_people(count: float, text: str) -> None:
    assert human(count) == text


def test_progress_lines_are_json_off_a_terminal(caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress()
    progress.expect(1, 100)
    progress.add(40)
    with caplog.at_level("INFO"), Reporter(progress, 0.01, stream=io.StringIO()):
        deadline = time.monotonic() + 5
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.005)
    record = caplog.records[0]
    assert (record.message, vars(record)["bytes"], vars(record)["files"]) == ("fetching", 40, 0)


def test_a_terminal_gets_a_bar_and_a_clean_line_afterwards() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    with Reporter(Progress(), 0.01, stream=terminal):
        deadline = time.monotonic() + 5
        while not terminal.getvalue() and time.monotonic() < deadline:
            time.sleep(0.005)
    assert terminal.getvalue().startswith("\r[")
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_the_termination_message_goes_only_where_kubernetes_wants_it(tmp_path: Path) -> None:
    logs.write_termination_message(str(tmp_path / "absent"), "x")
    assert not (tmp_path / "absent").exists()
    (tmp_path / "log").touch()
    logs.write_termination_message(str(tmp_path / "log"), "ü" * 5000)
    assert (tmp_path / "log").stat().st_size <= logs.TERMINATION_LOG_BYTES


def test_the_library_fetches_and_reports(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "model.bin").write_bytes(b"12345")
    assert not storage_initializer.is_complete(tmp_path / "m")
    report = storage_initializer.fetch(str(tmp_path / "src"), tmp_path / "m", QUIET)
    assert (report.outcome, report.files, report.bytes) == ("fetched", 1, 5)
    assert storage_initializer.is_complete(tmp_path / "m")
    report = storage_initializer.fetch(str(tmp_path / "src"), tmp_path / "m", QUIET)
    assert (report.outcome, report.bytes_fetched) == ("complete", 0)
    (tmp_path / "m" / "model.bin").write_bytes(b"1234")
    assert not storage_initializer.is_complete(tmp_path / "m")
    report = storage_initializer.fetch(str(tmp_path / "src"), tmp_path / "m", QUIET)
    assert (tmp_path / "m" / "model.bin").read_bytes() == b"12345"
    with pytest.raises(NotFound):
        storage_initializer.fetch(str(tmp_path / "nothing"), tmp_path / "n", QUIET)
    assert issubclass(NotFound, storage_initializer.StorageError)


def test_threads_of_a_server_may_fetch_at_once(tmp_path: Path) -> None:
    """Into one directory and into several; each with settings of its own, sources as paths."""
    source = tmp_path / "src"
    source.mkdir()
    for number in range(20):
        (source / f"{number}.bin").write_bytes(bytes([number]) * 1000)
    wanted = Settings.from_env(
        {"STORAGE_ALLOW_PATTERNS": "1*.bin", "STORAGE_PROGRESS_SECONDS": "0"}
    )

    def one(number: int) -> str:
        dest = tmp_path / ("shared" if number % 2 else f"own-{number}")
        return storage_initializer.fetch(source, dest, QUIET if number % 2 else wanted).outcome

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(one, range(8)))
    assert outcomes[0::2] == ["fetched"] * 4
    assert sorted(outcomes[1::2]) == ["complete"] * 3 + ["fetched"]
    assert len(list((tmp_path / "shared").glob("*.bin"))) == 20
    assert len(list((tmp_path / "own-0").glob("*.bin"))) == 11
    assert not list(tmp_path.glob(".*"))


def test_destinations_of_one_volume_share_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each alone would fit; together they are refused. Links need none."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "model.bin").write_bytes(bytes(600))

    copied: list[int] = []

    def copy(source: str, target: Path) -> None:
        copy_file(source, target)
        copied.append(600)

    def statvfs(_: object) -> os.statvfs_result:
        free = 1600 - sum(copied)  # the first fetch has 1600 and leaves 1000
        return os.statvfs_result((1, 1, 1600, free, free, 0, 0, 0, 0, 255))

    monkeypatch.setattr(local, "copy_file", copy)

    monkeypatch.setattr(room.os, "statvfs", statvfs)
    pairs = [(tmp_path / "src", tmp_path / "a"), (tmp_path / "src", tmp_path / "b")]
    fetching.fetch_all(pairs[:1], QUIET)
    with pytest.raises(NoSpace, match="1,200 are needed"):
        fetching.fetch_all([(pairs[0][0], tmp_path / name) for name in ("c", "d")], QUIET)
    linked = Settings.from_env({"STORAGE_LOCAL_MODE": "hardlink", "STORAGE_PROGRESS_SECONDS": "0"})
    fetching.fetch_all([(pairs[0][0], tmp_path / name) for name in ("e", "f")], linked)


def test_a_directory_of_somebody_else_is_never_removed(tmp_path: Path) -> None:
    """In the place of a file of the model; one that an earlier version of the model had may go."""
    source, dest = tmp_path / "src", tmp_path / "m"
    (source / "weights").mkdir(parents=True)
    (source / "weights" / "old").write_bytes(b"old")
    (dest / "more").mkdir(parents=True)
    (dest / "more" / "precious").write_bytes(b"kept")
    assert storage_initializer.fetch(source, dest, QUIET).outcome == "fetched"
    (source / "weights" / "old").unlink()
    (source / "weights").rmdir()
    (source / "weights").write_bytes(b"new")
    assert storage_initializer.fetch(source, dest, QUIET).outcome == "fetched"
    assert (dest / "weights").read_bytes() == b"new"
    (source / "more").write_bytes(b"clash")
    with pytest.raises(StorageError, match="more/precious is there; remove it"):
        storage_initializer.fetch(source, dest, QUIET)
    assert (dest / "more" / "precious").read_bytes() == b"kept"
    assert storage_initializer.is_complete(dest)


def test_a_fault_of_ours_is_told_to_the_pod_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    monkeypatch.setenv("STORAGE_TERMINATION_LOG", str(log))
    monkeypatch.setattr(cli, "run", lambda *_: 1 // 0)
    monkeypatch.setattr(logs, "_sink", None)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    assert cli.main(["/a", "/b"]) == 1
    assert log.read_text().startswith("unexpected ZeroDivisionError")
    assert "Traceback" in capsys.readouterr().err


def test_importing_the_package_imports_nothing() -> None:
    assert set(storage_initializer.__all__) == {"Report", "StorageError", "fetch", "is_complete"}
    with pytest.raises(AttributeError):
        _ = storage_initializer.nothing  # type: ignore[attr-defined]
    assert "storage_initializer" in sys.modules


@pytest.fixture
def rebooted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Settings], Path]:
    """A fetched model of two files on a node that was rebooted since."""

    def make(settings: Settings) -> Path:
        (tmp_path / "src").mkdir()
        (tmp_path / "src" / "model.bin").write_bytes(b"12345")
        (tmp_path / "src" / "labels").write_bytes(b"cat")
        storage_initializer.fetch(str(tmp_path / "src"), tmp_path / "m", settings)
        assert storage_initializer.is_complete(tmp_path / "m")
        for module in (publish, staging, fetching):
            monkeypatch.setattr(module, "boot_id", lambda: "another")
        return tmp_path / "m"

    return make


FULL = Settings.from_env({"STORAGE_PROGRESS_SECONDS": "0", "STORAGE_VERIFY": "full"})


def _damage(path: Path) -> None:
    """Other bytes, same size and mtime: what pages that were never written look like."""
    status = path.stat()
    path.write_bytes(b"\0" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_after_a_reboot_the_content_is_read_again(rebooted: Callable[[Settings], Path]) -> None:
    """Sizes and times prove little when unwritten pages may have been lost."""
    dest = rebooted(FULL)
    _damage(dest / "model.bin")
    assert not storage_initializer.is_complete(dest)
    report = storage_initializer.fetch(str(dest.parent / "src"), dest, FULL)
    assert (dest / "model.bin").read_bytes() == b"12345"
    assert (report.outcome, report.bytes_fetched) == ("fetched", 5)
    assert storage_initializer.is_complete(dest)


def test_after_a_reboot_it_is_read_once(rebooted: Callable[[Settings], Path]) -> None:
    dest = rebooted(FULL)
    report = storage_initializer.fetch(str(dest.parent / "src"), dest, FULL)
    assert (report.outcome, report.bytes_fetched) == ("complete", 0)
    marker = publish.read_marker(dest)
    assert marker is not None
    assert not publish.distrusted(marker)


def test_after_a_reboot_what_has_no_checksum_is_copied_again(
    rebooted: Callable[[Settings], Path],
) -> None:
    dest = rebooted(QUIET)
    _damage(dest / "model.bin")
    report = storage_initializer.fetch(str(dest.parent / "src"), dest, QUIET)
    assert (dest / "model.bin").read_bytes() == b"12345"
    assert (report.outcome, report.bytes_fetched) == ("fetched", 8)


def test_a_full_check_mends_what_was_damaged_in_place(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "model.bin").write_bytes(b"12345")
    storage_initializer.fetch(str(tmp_path / "src"), tmp_path / "m", FULL)
    _damage(tmp_path / "m" / "model.bin")
    storage_initializer.fetch(str(tmp_path / "src"), tmp_path / "m", FULL)
    assert (tmp_path / "m" / "model.bin").read_bytes() == b"12345"


def test_a_synced_tree_is_trusted_after_a_reboot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.bin").write_bytes(b"12345")
    settings = Settings.from_env({"STORAGE_PROGRESS_SECONDS": "0", "STORAGE_SYNC": "true"})
    storage_initializer.fetch(str(tmp_path / "model.bin"), tmp_path / "m", settings)
    marker = publish.read_marker(tmp_path / "m")
    assert marker is not None
    assert marker.synced
    monkeypatch.setattr(publish, "boot_id", lambda: "another")
    assert storage_initializer.is_complete(tmp_path / "m")


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"format": 99}', b"\xff"])
def test_a_damaged_marker_is_no_marker(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".turnout-storage.json").write_bytes(content)
    assert publish.read_marker(tmp_path) is None


def test_file_system_errors_become_ours() -> None:
    full = from_os_error(OSError(28, "No space left on device"), "/mnt/models")
    assert "is full; enlarge the volume" in str(full)
    assert isinstance(from_os_error(OSError(13, "Permission denied", "/x"), "/y"), StorageError)
    clash = from_os_error(OSError(21, "Is a directory", "/mnt/models/a"), "")
    assert "/mnt/models/a: the source has both a file and a directory" in str(clash)


@pytest.mark.parametrize("missing", ["nothing", "copy_file_range", "both"])
def test_local_copies_work_without_the_quick_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    import os

    def short(*_: object) -> int:
        return 0  # what virtual file systems answer

    if missing != "nothing":
        monkeypatch.delattr(os, "copy_file_range")
    if missing == "both":
        monkeypatch.setattr(os, "sendfile", short)
    data = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(data)
    local.copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == data


def test_a_hard_linked_source_keeps_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "run").write_text("#!/bin/sh")
    (tmp_path / "src" / "run").chmod(0o711)
    settings = Settings.from_env(
        {"STORAGE_PROGRESS_SECONDS": "0", "STORAGE_LOCAL_MODE": "hardlink"}
    )
    storage_initializer.fetch(str(tmp_path / "src"), tmp_path / "m", settings)
    assert (tmp_path / "src" / "run").stat().st_mode & 0o777 == 0o711


@pytest.fixture
def program() -> Iterator[io.StringIO]:
    """This process as the program `python -m storage_initializer`, its stderr in memory."""
    stream = io.StringIO()
    logs.configure("INFO", stream)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield stream
    logs._sink = None
    root.handlers[:] = handlers
    root.setLevel(level)


def test_the_program_writes_its_lines_without_logging(program: io.StringIO) -> None:
    log = logs.Log("storage_initializer.x")
    log.info("hello %s", "you", extra={"bytes": 7})
    log.warning("100 % sure")
    first, second = map(json.loads, program.getvalue().splitlines())
    record = logging.LogRecord(log.name, logging.INFO, "f", 1, "hello %s", ("you",), None)
    record.bytes = 7
    theirs = json.loads(container.JsonLogFormatter("storage_initializer").format(record))
    assert {**first, "ts": ""} == {**theirs, "ts": ""}
    assert list(first) == list(theirs)
    assert (second["level"], second["message"]) == ("WARNING", "100 % sure")


def test_the_level_is_respected(program: io.StringIO) -> None:
    logs.configure("WARNING", program)
    logs.Log("x").info("no")
    logs.Log("x").error("yes")
    assert [json.loads(line)["message"] for line in program.getvalue().splitlines()] == ["yes"]


def test_what_sdks_log_becomes_lines_like_ours(program: io.StringIO) -> None:
    logs.adopt()
    logging.getLogger("some.sdk").warning("careful: %s", "hot")
    logging.getLogger("botocore").info("chatter")
    (line,) = map(json.loads, program.getvalue().splitlines())
    assert (line["unit"], line["logger"]) == ("storage_initializer", "some.sdk")
    assert line["message"] == "careful: hot"


def test_a_library_leaves_logging_alone(caplog: pytest.LogCaptureFixture) -> None:
    before = logging.getLogger().handlers[:]
    logs.adopt()
    assert logging.getLogger().handlers == before
    with caplog.at_level("INFO"):
        logs.Log("storage_initializer.y").info("n: %d", 3, extra={"files": 2})
    (record,) = caplog.records
    assert (record.name, record.getMessage(), record.files) == ("storage_initializer.y", "n: 3", 2)  # type: ignore[attr-defined]
    assert record.filename == "test_reporting.py"
