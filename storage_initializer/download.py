"""The download engine: threads that turn items into verified files in a staging tree.

Theory of operation. `submit` puts a file into one queue; each of N threads takes the next task.
A middling file is one request. A big file whose source takes ranges becomes parts (`parts`), put at
the *front* of the queue so that big files finish early; each part is written at its offset
(`pwrite`, no shared position) and noted in the journal with its CRC, so that a killed run goes on
where it stopped. The thread that finishes the last part verifies the file. Small files go to the
one thread of `swarm` first, and come here only if their answer is not the plain good one. The first
final error stops all threads; `close` waits for them. One buffer per thread is all the memory the
data needs.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from . import digest, parts, retry
from .errors import (
    Changed,
    Corrupt,
    LimitExceeded,
    ShortBody,
    StorageError,
    Throttled,
    TransferFailed,
    from_os_error,
)
from .items import CopySource, HttpSource, Item, Source
from .logs import Log
from .progress import Progress
from .retry import Control, Retry
from .settings import Settings
from .staging import FileRecord, Staging
from .transfer import Batch, File, Stream, check_version, total_length

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cache import NodeCache
    from .client import Client
    from .swarm import Swarm
    from .wire import Response

logger = Log(__name__)

BUFFER_BYTES = 1 << 18
"""A few of them stay in a core's own cache; a megabyte each does not."""
IN_ORDER_PARTS = 8
"""Files up to this many parts stay one stream when their checksum needs the bytes in order."""
CACHE_PATIENCE_BYTES_PER_S = 1 << 20
"""Another initializer that fetches slower than this is no longer waited for."""
STOP_PATIENCE_S = 3.0
"""What a thread gets to notice that the fetch has failed."""
CORRUPT_ATTEMPTS = 3
"""A wrong checksum is fetched again this often in all: the damage may be in transit."""


class Engine:
    """Threads, queue and failure state. `client` and `control` are shared with the providers."""

    def __init__(
        self,
        settings: Settings,
        client: Client,
        control: Control,
        progress: Progress,
        cache: NodeCache | None = None,
    ) -> None:
        self.settings = settings
        self.client = client
        self.control = control
        self.progress = progress
        self._queue: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()
        self._wakeup = threading.Condition()
        self._closing = False
        self._cache = cache
        self._local = threading.local()
        self._threads: list[threading.Thread] = []
        self._swarm: Swarm | None = None
        # The cache waits for locks, a full check asks further questions: both want a thread a file.
        self._swarming = settings.small_concurrency and cache is None and settings.verify != "full"
        self._swarm_lock = threading.Lock()
        self.error: BaseException | None = None

    # -- the queue ---------------------------------------------------------------------------------

    def submit(self, source: Source, item: Item, staging: Staging, receiver: Batch) -> None:
        """Download `item`; `receiver` is told in a worker thread."""
        file = File(source, item, staging, receiver)
        swarm = self._swarm or self._new_swarm(source)
        if swarm is None or not swarm.add(file):
            self.put(self.start, file)

    def _new_swarm(self, source: Source) -> Swarm | None:
        """Only when there is something for it: what is copied needs no sockets at all."""
        if not self._swarming or isinstance(source, CopySource):
            return None
        from .swarm import Swarm

        with self._swarm_lock:
            if self._swarm is None:
                self._swarm = Swarm(self, self.settings.small_concurrency)
            return self._swarm

    def call(self, function: Callable[..., None], *args: object) -> None:
        """Run anything else in a worker thread (cache hits, copies)."""
        self.put(function, *args)

    def put(self, function: Callable[..., None], *args: object, front: bool = False) -> None:
        with self._wakeup:
            (self._queue.appendleft if front else self._queue.append)((function, args))
            idle = len(self._threads)
            if idle < self.settings.concurrency and not self._closing:
                thread = threading.Thread(target=self._work, name=f"fetch-{idle}", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._wakeup.notify()

    def _work(self) -> None:
        while True:
            with self._wakeup:
                while not self._queue:
                    if self._closing:
                        return
                    self._wakeup.wait()
                function, args = self._queue.popleft()
            if self.control.stopped.is_set():
                continue
            try:
                function(*args)
            except retry.Cancelled:
                continue
            except Changed as exc:
                self._abandon(args[0], exc)
            except OSError as exc:
                file = next((arg for arg in args if isinstance(arg, File)), None)
                self.fail(from_os_error(exc, str(file.staging.dest) if file else ""))
            except BaseException as exc:  # this thread owns the task; the error is raised in wait
                self.fail(exc)

    def _abandon(self, task: object, error: Changed) -> None:
        if not isinstance(task, File):
            self.fail(error)
            return
        with task.lock:
            first, task.abandoned = not task.abandoned, True
        if first:
            task.restart()
            task.receiver.changed(error)

    def fail(self, error: BaseException) -> None:
        """Remember the first error and stop everything."""
        with self._wakeup:
            if self.error is None and not self.control.stopped.is_set():
                self.error = error
            self.control.stopped.set()
            self._queue.clear()
            self._wakeup.notify_all()
        self.client.abort()
        if self._swarm is not None:
            self._swarm.ring()

    def close(self) -> None:
        if self._swarm is not None:
            self._swarm.close()
        with self._wakeup:
            self._closing = True
            self._wakeup.notify_all()
        # One that is inside a library which does not come back must not hold the failure up.
        ends = time.monotonic() + STOP_PATIENCE_S if self.control.stopped.is_set() else None
        for thread in self._threads:
            thread.join(None if ends is None else max(0.0, ends - time.monotonic()))

    # -- files -------------------------------------------------------------------------------------

    def _buffer(self) -> memoryview:
        view: memoryview | None = getattr(self._local, "view", None)
        if view is None:
            view = self._local.view = memoryview(bytearray(BUFFER_BYTES))
        return view

    def start(self, file: File) -> None:
        file.began = time.monotonic()
        item, source = file.item, file.source
        file.path = file.staging.target(item.path)
        if self._cache is None or not item.version or getattr(source, "local", False):
            self._fetch(file)
            return
        # One initializer of the node fetches, the others wait and take its file.
        scope = f"{source.shown} {getattr(source, 'scope', '')}"
        file.key = self._cache.key(scope, item.ref or item.path, item.version, item.size)
        patience_s = self.settings.stall_s + (item.size or 0) / CACHE_PATIENCE_BYTES_PER_S
        file.lock_fd = self._cache.lock(file.key, patience_s)
        found = self._cache.take(file.key, file.path)
        if found is not None:
            file.key = ""
            self.progress.from_cache(item.size or 0)
            self._finished(file, found)
            return
        self._fetch(file)

    def _fetch(self, file: File) -> None:
        item, source = file.item, file.source
        if isinstance(source, CopySource):
            self._copy(file, source)
            return
        if not isinstance(source, HttpSource):
            raise TypeError(f"{type(source).__name__} is neither an HttpSource nor a CopySource")
        size = item.size
        # Ranges of what has neither a version nor a checksum could be of two versions.
        provable = item.version or item.checks
        if item.ranges and provable and size is not None and size > self._split_from(item):
            parts.start(self, file, source, size)
        else:
            self.whole(file, source)

    def _split_from(self, item: Item) -> int:
        """From which size on parallel ranges are worth it.

        A checksum that needs the bytes in order (MD5, SHA) is computed while they pass; for ranges
        the file would have to be read again. Up to a few parts' worth the single stream wins.
        """
        step = self.settings.part_bytes
        check = digest.choose(item.checks, self.settings.verify)
        in_order = check is not None and check[0] not in digest.COMBINABLE
        return step * IN_ORDER_PARTS if in_order else step * 3 // 2

    def _copy(self, file: File, source: CopySource) -> None:
        with contextlib.suppress(FileNotFoundError):
            file.path.unlink()
        policy = Retry(self.control)
        while True:
            try:
                source.copy(file.item, file.path)
                break
            except StorageError as exc:
                with contextlib.suppress(FileNotFoundError):
                    file.path.unlink()
                policy.failed(exc)
        size = file.path.stat().st_size
        if file.item.size is not None and size != file.item.size:
            raise Changed(file.where)
        self.progress.add(size)
        check = digest.choose(file.item.checks, self.settings.verify)
        found = ""
        if check:
            actual = digest.of_file(file.path, check[0])
            if actual != check[1]:
                raise Corrupt(file.where, check[0], check[1], actual)
            found = f"{check[0]}:{actual}"
        elif self.settings.verify == "full":
            found = f"crc32:{digest.of_file(file.path, 'crc32')}"
        self.finish(file, found)

    def whole(self, file: File, source: HttpSource) -> None:
        """One stream, resumed where it broke when the server can."""
        policy = Retry(self.control)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        file.fd = os.open(file.path, flags, 0o644)
        try:
            stream = Stream(file, self.settings)
            reached = 0
            while True:
                try:
                    self._read_stream(stream, file, source)
                    break
                except StorageError as exc:
                    self.check_limits(file)
                    # From the start again and no further than before is no progress.
                    policy.failed(exc, progressed=stream.position > reached)
                    reached = max(reached, stream.position)
                    if not (file.item.ranges and file.item.version):
                        self.progress.add(-stream.position)
                        stream.restart()
            found = stream.digest()
        finally:
            file.close()
        expected = stream.check
        if expected and found != f"{expected[0]}:{expected[1]}":
            self.damaged(file, expected, found.partition(":")[2])
            return
        self.finish(file, found)

    def _read_stream(self, stream: Stream, file: File, source: HttpSource) -> None:
        """One request; everything that arrives goes to disk and into the checksum."""
        start = stream.position
        stop = None
        if start and start == file.item.size:
            return
        response = self.ask(file, source, start, stop)
        try:
            check_version(file, response)
            if start and response.status != 206:  # the whole again: the server cannot resume
                self.progress.add(-start)
                stream.restart()
                start = 0
            total = total_length(response, start, file.where)
            if file.item.size is not None and total is not None and total != file.item.size:
                raise Changed(file.where)
            if start == 0:
                stream.begin(source.checks(file.item, response.headers))
            self.pump(response, stream.write, file)
            expected = file.item.size if file.item.size is not None else total
            if expected is not None and stream.position < expected:
                raise TransferFailed(
                    file.where, f"body ended at byte {stream.position} of {expected}"
                )
            if expected is not None and stream.position > expected:
                raise Changed(file.where)
        except BaseException:
            response.discard()
            raise
        response.done()

    def ask(self, file: File, source: HttpSource, start: int, stop: int | None) -> Response:
        """Send one request for a range; refusals become errors, an answer of 200/206 returns."""
        self.control.gate()
        self.control.check()
        response = self.client.send(source.request(file.item, start, stop))
        status = response.status
        if status not in (200, 206):
            if status == 416 and start == 0 and not file.item.size:
                response.done()
                response = self.client.send(source.request(file.item, 0, None))
                if response.status == 200:
                    return response
                status = response.status
            headers = response.headers
            body = response.read(1 << 20)
            raise refusal(source, file.item, status, headers, body)
        if limit_s := self.settings.file_timeout_s:  # a buffer that fills slowly must not hide it
            response.end_at(file.began + limit_s)
        return response

    def pump(
        self,
        response: Response,
        write: Callable[[memoryview], None],
        file: File,
        wanted: int = sys.maxsize,
    ) -> None:
        """The body, or its first `wanted` bytes: a server may send more than it was asked for."""
        buffer = self._buffer()
        settings = self.settings
        while wanted:
            try:
                count = response.read_into(buffer[:wanted])
            except ShortBody as exc:
                if exc.got:
                    write(buffer[: exc.got])
                    self.progress.add(exc.got)
                raise
            if not count:
                return
            wanted -= count
            write(buffer[:count])
            self.progress.add(count)
            if settings.file_timeout_s or settings.deadline_s:
                self.check_limits(file)

    def check_limits(self, file: File) -> None:
        self.control.check(f"downloading {file.item.path}")
        limit = self.settings.file_timeout_s
        if limit and time.monotonic() - file.began > limit:
            raise LimitExceeded(
                f"{file.where}: not done after {limit:g} s", "STORAGE_FILE_TIMEOUT_SECONDS"
            )

    # -- the end of a file -------------------------------------------------------------------------

    def damaged(self, file: File, expected: tuple[str, str], found: str) -> None:
        error = Corrupt(file.where, expected[0], expected[1], found)
        file.corrupt += 1
        file.restart()
        file.path.unlink(missing_ok=True)
        if file.corrupt >= CORRUPT_ATTEMPTS:
            raise error
        logger.warning("wrong checksum, fetching again: %s", error)
        self.control.retries += 1
        self.start(file)

    def finish(self, file: File, found: str) -> None:
        """The file is there and verified; `found` is its digest."""
        if file.item.gzipped:
            from . import archive

            found = archive.unpack_gzipped(
                file.staging, file.item.path, self.settings, self.control
            )
        self._finished(file, found)

    def _finished(self, file: File, found: str) -> None:
        status = file.path.stat()
        if file.item.mode & 0o111 and status.st_nlink == 1 and not file.path.is_symlink():
            file.path.chmod(0o755)  # not through a link: its permissions are the source's
        record = FileRecord(
            file.item.path, status.st_size, file.item.version, found, status.st_mtime_ns
        )
        file.staging.record(record)
        if self._cache is not None and file.key:
            self._cache.put(file.key, file.path, found)
        file.unlock()
        self.progress.file_done()
        file.receiver.done(record)


def refusal(
    source: HttpSource, item: Item, status: int, headers: Mapping[str, str], body: bytes
) -> StorageError:
    """The provider's explanation; statuses that ask for patience are the same everywhere."""
    error = source.explain(item, status, headers, body)
    if status in retry.THROTTLING and not isinstance(error, Throttled):
        return Throttled(
            f"{source.shown} ({item.path})", f"answered {status}", retry.retry_after_s(headers)
        )
    return error
