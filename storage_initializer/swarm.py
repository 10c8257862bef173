"""Small files: one thread, many connections, only the plain good answer.

Why not the engine's threads: a file of 100 KiB is some ten system calls, and with eight threads
each of them hands the interpreter lock over (48 futex calls a file were counted, two thirds of the
CPU). One thread that waits for all connections at once needs none, so it can also keep enough
requests under way for a distant server, where the latency and not the work is the limit.

Everything unusual is somebody else's: an answer that is not `200` with the expected length and
version, a wrong checksum, a broken or stalled connection puts the file into the engine's queue,
whose threads know about retries, redirects, throttling and resuming. A source that answers
unusually `REFUSALS` times in a row is left to them altogether. The number of connections grows by
one with every good answer, up to `STORAGE_SMALL_CONCURRENCY`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections import deque

from . import digest, retry
from .errors import StorageError, from_os_error
from .items import HttpSource, Source
from .transfer import File, check_version, write_all
from .wire import Connection, Request, Response, Tls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .download import Engine

SMALL_BYTES = 256 * 1024
"""Beyond this a request's own cost is small beside its bytes, and the threads share the hashing."""
HEAD_BYTES = 16 * 1024
START_WITH = 4
REFUSALS = 3
TICK_S = 1.0

Key = tuple[str, str, int, Tls]


class Line:
    """One connection and the file that comes through it."""

    __slots__ = (
        "began",
        "body",
        "conn",
        "end",
        "file",
        "key",
        "moved",
        "need",
        "response",
        "source",
        "view",
    )

    def __init__(self, conn: Connection, key: Key) -> None:
        self.conn = conn
        self.key = key
        self.view = memoryview(bytearray(HEAD_BYTES + SMALL_BYTES))
        self.file: File | None = None
        self.source: HttpSource | None = None
        self.response: Response | None = None
        self.body = self.end = self.need = 0
        self.began = self.moved = 0.0


class Swarm:
    """`add` from any thread; everything else happens in the swarm's own."""

    def __init__(self, engine: Engine, limit: int) -> None:
        self._engine = engine
        self._client = engine.client
        self._control = engine.control
        self._limit = limit
        self._window = min(START_WITH, limit)
        self._waiting: deque[File] = deque()
        self._opened: deque[tuple[Key, Connection | None]] = deque()
        self._opening = 0
        self._prepared: tuple[File, HttpSource, Request] | None = None
        self._idle: dict[Key, list[Line]] = {}
        self._flying: set[Line] = set()
        self._refusals: dict[int, int] = {}
        self._sources: dict[int, HttpSource | None] = {}
        """By id, None for those that bring no requests: asking a protocol costs 40 µs."""
        self._closing = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._selector = selectors.DefaultSelector()
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._ringer.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._checked_at = 0.0
        self._hungry = False

    # -- from other threads ------------------------------------------------------------------------

    def add(self, file: File) -> bool:
        """Take the file, or leave it to the threads."""
        size = file.item.size
        if size is None or size > SMALL_BYTES or file.item.gzipped:
            return False
        if self._refusals.get(id(file.source), 0) >= REFUSALS:
            return False
        self._waiting.append(file)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="small", daemon=True)
                self._thread.start()
                return True
        if self._hungry:
            self._hungry = False
            self.ring()
        return True

    def ring(self) -> None:
        with contextlib.suppress(OSError):  # full: it rings already
            self._ringer.send(b"!")

    def close(self) -> None:
        self._closing = True
        self.ring()
        with self._lock:  # one that `add` is just starting cannot be waited for yet
            thread = self._thread
        if thread is not None:
            thread.join()
        self._selector.close()
        self._bell.close()
        self._ringer.close()

    # -- the loop ----------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while not self._control.stopped.is_set():
                self._take_opened()
                self._issue()
                if self._closing and not (self._waiting or self._flying or self._prepared):
                    return
                for key, _ in self._selector.select(self._patience_s()):
                    if key.data is None:
                        with contextlib.suppress(OSError):
                            self._bell.recv(4096)
                    elif key.data.conn.sock.fileno() >= 0:  # not closed earlier in this round
                        self._read(key.data)
                self._look_for_stalls()
        except OSError as exc:
            self._engine.fail(from_os_error(exc, ""))
        except BaseException as exc:  # this thread owns its files; raised by whoever waits for them
            self._engine.fail(exc)

    def _patience_s(self) -> float | None:
        """How long to wait for the sockets. `add` appends first and looks at `_hungry` then, this
        does it the other way round: no file is overlooked."""
        self._hungry = not self._waiting and not self._prepared
        if self._hungry and self._waiting:
            return 0.0
        if self._flying:
            return min(TICK_S, self._client.stall_s / 4)
        if self._waiting or self._prepared:
            return min(TICK_S, max(0.01, self._control.closed_for_s()))
        return None

    def _take_opened(self) -> None:
        while self._opened:
            key, conn = self._opened.popleft()
            self._opening -= 1
            if conn is None:
                self._window = self._limit = max(1, len(self._flying))
                if not self._flying and not self._opening:
                    self._give_up()
                continue
            line = Line(conn, key)
            self._selector.register(conn.sock, selectors.EVENT_READ, line)
            self._idle.setdefault(key, []).append(line)

    def _give_up(self) -> None:
        """No connection at all: the threads try again, with patience, and know what to say."""
        if self._prepared:
            self._engine.put(self._engine.start, self._prepared[0])
            self._prepared = None
        while self._waiting:
            self._engine.put(self._engine.start, self._waiting.popleft())

    def _issue(self) -> None:
        """Send requests while there are files, connections and permission."""
        while len(self._flying) < self._window and self._control.closed_for_s() <= 0:
            if self._prepared is None and not self._prepare():
                return
            if self._prepared is None:
                continue
            file, source, request = self._prepared
            lines = self._idle.get((*request.origin, request.tls))
            if not lines:
                self._open_more(request)
                return
            self._prepared = None
            self._launch(lines.pop(), file, source, request)

    def _prepare(self) -> bool:
        """The next file's request; False when no file waits."""
        try:
            file = self._waiting.popleft()
        except IndexError:
            return False
        source = self._http(file.source)
        if source is None or self._refusals.get(id(source), 0) >= REFUSALS:
            self._engine.put(self._engine.start, file)
            return True
        try:
            self._prepared = file, source, source.request(file.item, 0, None)
        except StorageError:
            self._engine.put(self._engine.start, file)
        return True

    def _http(self, source: Source) -> HttpSource | None:
        key = id(source)
        if key not in self._sources:
            self._sources[key] = source if isinstance(source, HttpSource) else None
        return self._sources[key]

    def _open_more(self, request: Request) -> None:
        """Connections are opened aside: a handshake is several round trips."""
        wanted = self._window - len(self._flying) - self._opening
        for _ in range(min(wanted, 1 + len(self._waiting))):
            self._opening += 1
            threading.Thread(target=self._open, args=(request,), daemon=True).start()

    def _open(self, request: Request) -> None:
        conn = None
        with contextlib.suppress(Exception):  # the threads meet it too, and know what to say
            conn = self._client.connect(request)
            conn.sock.setblocking(False)
        self._opened.append(((*request.origin, request.tls), conn))
        self.ring()

    def _launch(self, line: Line, file: File, source: HttpSource, request: Request) -> None:
        line.file, line.source, line.response = file, source, None
        line.body = line.end = line.need = 0
        file.began = line.began = line.moved = time.monotonic()
        line.conn.where = request.where
        self._flying.add(line)
        head = self._client.head(request)
        try:
            sent = line.conn.sock.send(head)
        except OSError:
            sent = 0
        if sent != len(head):
            self._lost(line)

    # -- answers -----------------------------------------------------------------------------------

    def _read(self, line: Line) -> None:
        file = line.file
        if file is None:  # an idle connection speaks: it says good-bye
            self._drop(line)
            return
        sock = line.conn.sock
        while True:
            space = line.view[line.end : line.need or len(line.view)]
            try:
                count = sock.recv_into(space)
            except OSError as exc:
                if not _must_wait(exc):
                    self._lost(line)
                return
            if not count:
                self._lost(line)
                return
            line.end += count
            line.moved = time.monotonic()
            if line.response is None and not self._head(line, file):
                return
            if line.need and line.end >= line.need:
                self._complete(line, file)
                return
            if count < len(space) and not line.conn.tls:
                return

    def _head(self, line: Line, file: File) -> bool:
        """Whether to go on reading: the head is not here yet, or it is the good one."""
        data = bytes(line.view[: min(line.end, HEAD_BYTES)])
        at = data.find(b"\r\n\r\n")
        if at < 0:
            if line.end >= HEAD_BYTES:
                self._refuse(line, file)
                return False
            return True
        try:
            response = Response(line.conn, data[:at], "GET")
            check_version(file, response)
        except StorageError:
            self._refuse(line, file)
            return False
        plain = response.status == 200 and not response.chunked
        length = response.length
        if not plain or length is None or length != file.item.size:
            if response.status in retry.THROTTLING:
                wait_s = retry.retry_after_s(response.headers) or 0.0
                self._control.slow_down(max(wait_s, self._control.back_off_s))
            self._refuse(line, file)
            return False
        line.response, line.body = response, at + 4
        line.need = line.body + length
        if line.end > line.need:
            self._refuse(line, file)
            return False
        return True

    def _complete(self, line: Line, file: File) -> None:
        response, source, item = line.response, line.source, file.item
        if response is None or source is None:
            raise AssertionError("a complete line has an answer")
        body = line.view[line.body : line.need]
        try:
            checks = source.checks(item, response.headers)
        except StorageError:
            self._refuse(line, file)
            return
        check = digest.choose(checks, self._engine.settings.verify)
        name = check[0] if check else "crc32"
        hasher = digest.new_for(name, len(body)) or digest.Crc32()
        hasher.update(body)
        found = hasher.hexdigest()
        self._refusals[id(source)] = 0
        self._window = min(self._limit, self._window + 1)
        if check and found != check[1]:
            self._engine.put(self._engine.damaged, file, check, found)
        else:
            try:
                self._write(file, body)
            except OSError as exc:
                raise from_os_error(exc, str(file.staging.dest)) from exc
            self._engine.progress.add(len(body))
            self._engine.finish(file, f"{name}:{found}")
        self._flying.discard(line)
        line.file = None
        if response.keep:
            line.conn.used = True
            self._idle.setdefault(line.key, []).append(line)
        else:
            self._drop(line)

    @staticmethod
    def _write(file: File, body: memoryview) -> None:
        file.path = file.staging.target(file.item.path)
        fd = os.open(file.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            write_all(fd, body, 0)
        finally:
            os.close(fd)

    # -- the unusual -------------------------------------------------------------------------------

    def _refuse(self, line: Line, file: File) -> None:
        """Not the plain good answer: the threads shall ask again."""
        key = id(file.source)
        self._refusals[key] = self._refusals.get(key, 0) + 1
        self._drop(line)
        self._engine.put(self._engine.start, file)

    def _lost(self, line: Line) -> None:
        file = line.file
        stale = line.conn.used and line.end == 0
        if file is None:
            self._drop(line)
        elif stale:  # kept too long: nothing was answered, the request goes to another connection
            self._drop(line)
            self._waiting.appendleft(file)
        else:
            self._control.retries += 1
            self._refuse(line, file)

    def _drop(self, line: Line) -> None:
        self._flying.discard(line)
        idle = self._idle.get(line.key, [])
        if line in idle:
            idle.remove(line)
        self._selector.unregister(line.conn.sock)
        line.conn.close()
        line.file = None

    def _look_for_stalls(self) -> None:
        now, limit = time.monotonic(), self._client.stall_s
        if now - self._checked_at < min(TICK_S, limit / 4):
            return
        self._checked_at = now
        for line in list(self._flying):
            if line.file is not None:
                self._engine.check_limits(line.file)
            slow = line.end < (now - line.began) * self._client.min_speed
            if now - line.moved > limit or (now - line.began > limit and slow):
                self._lost(line)


def _must_wait(exc: OSError) -> bool:
    """Nothing there yet; `ssl` is not imported for the sake of plain connections."""
    return isinstance(exc, BlockingIOError) or type(exc).__name__.startswith("SSLWant")
