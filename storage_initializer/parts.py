"""Big files: several ranges at a time, each part noted as soon as it is there.

The file is divided into parts, the unit of the journal and of the CRCs; where the source tells in
which parts the object was uploaded, along those. One request asks for a *run* of consecutive parts,
up to `RUN_BYTES`: a request costs the server something, and it reads ahead in long answers; but in
very long ones it reads ahead so far that it and we take turns instead of working side by side
(SeaweedFS on one core: with 4 x 256 MiB both were idle for a quarter of the time). A killed run
still loses a part at most. Within a run every failure resumes at the byte that was reached.

How many runs go at a time follows from what they achieve: few connections that are fast are left
alone, slow ones get company, up to `STORAGE_CONCURRENCY`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping

from . import digest
from .errors import Changed, StorageError, TransferFailed
from .items import HttpSource, Item
from .logs import Log
from .retry import Retry
from .settings import MIB
from .transfer import File, RangesIgnored, Run, check_version, total_length

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .download import Engine

logger = Log(__name__)

RUN_BYTES = 32 * MIB
FEW_STREAMS = 4
"""So many runs of one file at first; more of them only while each is slower than `FAST_STREAM`."""
FAST_STREAM = 100e6
"""Bytes/s of one connection beyond which the server or a core is the limit and another connection
only costs (S3 itself gives one connection less than this)."""
LOOK_EVERY_S = 0.5
"""The first look comes after the slow start of the connections, each judges what came since."""
PART_BYTES_MAX = 64 * MIB
"""Uploaded parts beyond this are divided like any other file: a part is what a kill can cost."""


class Promised:
    """The checksums that the source tells of a file that comes in ranges: asked for once (S3 wants
    three requests), while the bytes come, so that nothing has to be waited for at the end."""

    def __init__(self, file: File, source: HttpSource) -> None:
        self._item = file.item
        self._source = source
        self._lock = threading.Lock()
        self._checks: Mapping[str, str] | None = None

    def ask_early(self) -> None:
        with contextlib.suppress(StorageError):  # asked again, and told of, at the end
            self.checks()

    def checks(self) -> Mapping[str, str]:
        with self._lock:
            if self._checks is None:
                self._checks = self._source.checks(self._item, {})
            return self._checks


def part_bytes(item: Item, default: int) -> int:
    """Size of this file's parts: as it was uploaded if that is told and sensible."""
    return item.part_bytes if MIB <= item.part_bytes <= PART_BYTES_MAX else default


def runs(missing: list[int], step: int, streams: int) -> list[tuple[int, int]]:
    """Missing parts, ascending, as (first, count): long runs, but enough of them to keep `streams`
    busy, and shorter ones at the end: what the server has read ahead by then is still to be sent
    when it has nothing else to do."""
    found: list[tuple[int, int]] = []
    longest = 0
    for number, index in enumerate(missing):
        first, count = found[-1] if found else (index, 0)
        if index == first + count and count < longest:
            found[-1] = (first, count + 1)
        else:
            longest = max(1, min(RUN_BYTES // step, (len(missing) - number) // streams))
            found.append((index, 1))
    return found


def start(engine: Engine, file: File, source: HttpSource, size: int) -> None:
    """Open the file, see what an earlier run has left, queue the rest before everything else."""
    item, step = file.item, part_bytes(file.item, engine.settings.part_bytes)
    file.part_bytes, file.parts = step, -(-size // step)
    file.crcs = file.staging.parts(item.path, item.version, size, step)
    file.fd = os.open(file.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    if os.fstat(file.fd).st_size != size:
        file.restart()
        os.ftruncate(file.fd, size)
    for known in file.crcs:
        engine.progress.bytes_skipped += min(step, size - known * step)
    missing = [index for index in range(file.parts) if index not in file.crcs]
    promised = file.promised = Promised(file, source)
    if not missing:
        _finish(engine, file, source, size)
        return
    streams = engine.settings.concurrency
    file.pending = runs(missing, step, streams)
    file.pending.reverse()
    file.got, file.look_at = 0, time.monotonic() + LOOK_EVERY_S
    engine.put(promised.ask_early, front=True)  # behind the runs that are put before it
    for _ in range(min(FEW_STREAMS, streams, len(file.pending))):
        engine.put(_run, engine, file, source, size, front=True)


def _more(engine: Engine, file: File) -> bool:
    """Whether another connection is worth it: those at work are slow ones."""
    now = time.monotonic()
    if now < file.look_at:
        return False
    slow = file.got < FAST_STREAM * (now - file.look_at + LOOK_EVERY_S) * file.active
    file.got, file.look_at = 0, now + LOOK_EVERY_S
    return slow and bool(file.pending) and file.active < engine.settings.concurrency


def _run(engine: Engine, file: File, source: HttpSource, size: int) -> None:
    """A file that must start again does so when its last active run has left: an earlier start
    would have two writers."""
    with file.lock:
        if file.ending is not None or not file.pending:
            return
        file.active += 1
        first, count = file.pending.pop()
    try:
        _fetch(engine, file, source, size, first, count)
    except (RangesIgnored, Changed) as exc:
        with file.lock:
            file.ending = file.ending or exc
    with file.lock:
        file.active -= 1
        resolve = file.ending is not None and file.active == 0 and not file.abandoned
        file.abandoned = file.abandoned or resolve
        another = bool(file.pending) and file.ending is None
    if another:
        engine.put(_run, engine, file, source, size, front=True)
    if resolve:
        _start_again(engine, file, source)


def _fetch(
    engine: Engine, file: File, source: HttpSource, size: int, first: int, count: int
) -> None:
    item, last = file.item, False

    def done(index: int, crc: int) -> None:
        nonlocal last
        if item.version:
            file.staging.record_part(item.path, item.version, size, file.part_bytes, index, crc)
        with file.lock:
            file.crcs[index] = crc
            last = len(file.crcs) == file.parts

    def write(data: memoryview) -> None:
        run.write(data)
        with file.lock:
            file.got += len(data)
            more = _more(engine, file)
        if more:
            engine.put(_run, engine, file, source, size, front=True)

    run = Run(file, first, min(size, (first + count) * file.part_bytes), done)
    policy = Retry(engine.control)
    while run.position < run.stop and file.ending is None:
        before = run.position
        try:
            _read(engine, run, write, file, source, size)
        except StorageError as exc:
            engine.check_limits(file)
            policy.failed(exc, progressed=run.position > before)
    if last:
        _finish(engine, file, source, size)


def _read(
    engine: Engine,
    run: Run,
    write: Callable[[memoryview], None],
    file: File,
    source: HttpSource,
    size: int,
) -> None:
    response = engine.ask(file, source, run.position, run.stop)
    try:
        check_version(file, response)
        if response.status == 200:
            raise RangesIgnored
        if total_length(response, run.position, file.where) not in (size, None):
            raise Changed(file.where)
        if response.length is not None and response.length != run.stop - run.position:
            raise TransferFailed(
                file.where,
                f"asked for {run.stop - run.position} bytes, the answer has {response.length}",
            )
        engine.pump(response, write, file, run.stop - run.position)
        if run.position < run.stop:
            raise TransferFailed(file.where, f"range ended {run.stop - run.position} bytes early")
    except BaseException:
        response.discard()
        raise
    response.done()


def _start_again(engine: Engine, file: File, source: HttpSource) -> None:
    file.restart()
    if isinstance(file.ending, Changed):
        file.receiver.changed(file.ending)
        return
    logger.info("no ranges: %s ignores them, fetching in one stream", file.where)
    whole = File(file.source, file.item.but(ranges=False), file.staging, file.receiver)
    whole.path, whole.began = file.path, file.began
    whole.key, whole.lock_fd, file.lock_fd = file.key, file.lock_fd, -1
    engine.put(engine.whole, whole, source, front=True)  # a task of its own: it may end in Changed


def _finish(engine: Engine, file: File, source: HttpSource, size: int) -> None:
    crc = 0
    for index in range(file.parts):
        length = min(file.part_bytes, size - index * file.part_bytes)
        crc = digest.combine_crc32(crc, file.crcs[index], length)
    file.close()
    if file.promised is None:
        raise AssertionError("`start` has asked before anything can end")
    expected = digest.choose(file.promised.checks(), engine.settings.verify)
    name, found = "crc32", f"{crc:08x}"
    if expected and expected[0] == f"{digest.CRC_OF_PARTS}{file.part_bytes}":
        composed = digest.crc_of_parts([file.crcs[index] for index in range(file.parts)])
        if composed != expected[1]:
            engine.damaged(file, expected, composed)
            return
    elif expected:
        if expected[0] != "crc32":
            name, found = expected[0], digest.of_file(file.path, expected[0])
        if found != expected[1]:
            engine.damaged(file, expected, found)
            return
    engine.finish(file, f"{name}:{found}")
