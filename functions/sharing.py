"""Several workers, one listening socket: who accepts the next connection.

The kernel wakes every worker for a new connection, and the first to call accept gets it: often the
same one several times, while clients keep their connections for hours. So every worker notes on a
board in shared memory whether its models are ready and how many connections it has, and leaves a
new connection to a sibling that is better off:

* a worker whose models are not loaded, while a sibling's are: for as long as that is so;
* a worker with more connections than a ready sibling: for `PATIENCE_S`, should that be busy.
"""

import asyncio
import logging
import mmap
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

logger = logging.getLogger(__name__)

PATIENCE_S = 0.005
"""How long a connection is left to a sibling that has fewer."""

RECHECK_S = 0.05
"""How often a worker that is not ready looks whether a sibling still is; also how old the numbers
on the board may be."""

_SLOT = struct.Struct("<ii")


class Board:
    """(ready, connections) of each worker; made by the master, inherited by the workers."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._memory = mmap.mmap(-1, _SLOT.size * workers)

    def write(self, slot: int, ready: bool, connections: int) -> None:
        _SLOT.pack_into(self._memory, slot * _SLOT.size, ready, connections)

    def clear(self, slot: int) -> None:
        """The worker of this slot is gone."""
        self.write(slot, False, 0)

    def patience(self, slot: int) -> float | None:
        """How long this worker should leave a connection to the others: None for as long as they
        are ready, 0 not at all."""
        entries = list(_SLOT.iter_unpack(self._memory[: _SLOT.size * self.workers]))
        ready, own = entries.pop(slot)
        others = [connections for is_ready, connections in entries if is_ready]
        if not others:
            return 0.0
        if not ready:
            return None
        return PATIENCE_S if min(others) < own else 0.0


class Acceptor:
    """Accepts for one worker. All methods are for its loop."""

    def __init__(
        self,
        listener: socket.socket,
        board: Board,
        slot: int,
        *,
        ready: Callable[[], bool],
        connections: Callable[[], int],
        adopt: Callable[[socket.socket], Coroutine[Any, Any, None]],
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._board = board
        self._slot = slot
        self._ready = ready
        self._connections = connections
        self._adopt = adopt
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._note()
        self._watch()

    def close(self) -> None:
        """Stop accepting; the siblings go on."""
        self._closed = True
        self._loop.remove_reader(self._listener.fileno())
        if self._timer is not None:
            self._timer.cancel()
        self._board.clear(self._slot)

    def _note(self) -> None:
        """Keep the board up to date while nothing happens, too."""
        self._write()
        self._timer = self._loop.call_later(RECHECK_S, self._note)

    def _write(self) -> None:
        self._board.write(self._slot, self._ready(), self._connections())

    def _watch(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener.fileno(), self._readable)

    def _readable(self) -> None:
        self._write()
        patience = self._board.patience(self._slot)
        if patience == 0.0:
            self._accept()
            return
        self._loop.remove_reader(self._listener.fileno())
        if patience is None:
            self._loop.call_later(RECHECK_S, self._watch)
        else:
            self._loop.call_later(patience, self._accept_and_watch)

    def _accept_and_watch(self) -> None:
        """The siblings had their chance."""
        if not self._closed:
            self._accept()
            self._watch()

    def _accept(self) -> None:
        """One connection; if there are more, the loop says so again."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # a sibling was quicker, or the client has gone
        except OSError as error:  # no file descriptors left: what is open must end first
            logger.error("a connection cannot be accepted: %s", error)
            self._loop.remove_reader(self._listener.fileno())
            self._loop.call_later(RECHECK_S, self._watch)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._adopt(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._board.write(self._slot, self._ready(), self._connections() + len(self._tasks))
