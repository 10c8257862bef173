"""The part of the HTTP/1.1 server that every request passes. Part of `http1`, which explains it.

Here is only what the ordinary request needs, one that arrives in one packet with a head seen before
and is answered whole; everything else is in the subclasses (`http1_connection`, `http1`). So small,
because it exists twice: `_http1.c` is the same in C and takes the place of these classes when it
was built (`native`).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from functions.wire import native
from functions.wire.http1_head import RequestHead

if TYPE_CHECKING:
    from functions.wire.http1_connection import Connection, Exchange

NO_BODY = frozenset({204, 304})
"""Statuses whose answers have no body and no length."""


def _nowhere(data: bytes) -> None:
    """`write` of a connection that has no transport yet."""


class ServerCore:
    """What all connections of a server share."""

    def __init__(
        self,
        handler: "Callable[[Exchange], None]",
        make_exchange: "Callable[[Connection, RequestHead, bytes], Exchange]",
        known: dict[bytes, RequestHead],
    ) -> None:
        self.handler = handler
        self.make_exchange = make_exchange
        self.known = known
        """Heads seen before and found acceptable, byte for byte."""
        self.answers: dict[tuple[int, bytes, int], bytes] = {}
        """Whole heads by status, type and length, ready to send; emptied whenever the date changes.
        """
        self.now = 0.0
        self.in_flight = 0
        self.draining = False


class ExchangeCore:
    """One request and the one answer to it."""

    # Class-level defaults instead of assignments in __init__: one object a request, most of them
    # never changed.
    on_abort: Callable[[], object] | None = None
    """Called once, if the client goes away or the time is up before the answer is complete."""
    on_drained: Callable[[], None] | None = None
    """Called when the client has caught up after `backed_up` was true."""
    started = False
    """A streamed answer has begun."""
    streams = True
    """Whoever asked can take an answer piece by piece."""
    context: object = None
    """Free for the handler."""
    _raw = False

    def __init__(self, connection: Any, head: RequestHead, body: bytes) -> None:
        self._connection: Any = connection
        self.head = head
        self.body = body

    def respond(
        self, status: int, body: bytes = b"", content_type: bytes = b"", extra: bytes = b""
    ) -> None:
        """Answer. `extra` is further field lines, each ending in CR LF (`headers.join` makes
        them)."""
        connection = self._connection
        if connection is None:
            return
        self._connection = self.on_abort = None
        server = connection.server
        if extra or server.draining or not self.head.plain or status in NO_BODY:
            connection.write(self._full_answer(connection, status, body, content_type, extra))
        else:
            key = (status, content_type, len(body))
            connection.write((server.answers.get(key) or server.make_answer(*key)) + body)
        connection.answered()

    def _full_answer(
        self, connection: Any, status: int, body: bytes, content_type: bytes, extra: bytes
    ) -> bytes:
        raise NotImplementedError


class ConnectionCore:
    """One client's connection: a request in one packet, and the end of its answer."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.keep_alive = True
        self.touched: float = server.now
        self.write: Callable[[bytes], object] = _nowhere
        """The transport's own `write`, when there is one."""
        self._exchange: Any = None
        self._buffer = b""
        self._head: RequestHead | None = None
        """Read, its body still arriving."""
        self._lingering = False
        self._reading_paused = False
        self._eof = False

    def data_received(self, data: bytes) -> None:
        if self._exchange is None and self._head is None and not self._buffer:
            end = data.find(b"\r\n\r\n") + 4
            if end > 3:
                head = self.server.known.get(data[:end])
                if head is not None and head.length == len(data) - end and not self._lingering:
                    # The one-packet path: a head seen before and exactly its body.
                    self._dispatch(head, data[end:])
                    return
            if not self._lingering:
                self.touched = self.server.now
        self._feed(data)

    def _dispatch(self, head: RequestHead, body: bytes) -> None:
        """Hand a whole request to the handler."""
        server = self.server
        self.touched = server.now
        exchange = self._exchange = server.make_exchange(self, head, body)
        self.keep_alive = head.keep_alive
        server.in_flight += 1
        try:
            server.handler(exchange)
        except Exception as error:
            self._handler_failed(exchange, error)

    def answered(self) -> None:
        """The current request has its whole answer: read on, or close."""
        self._exchange = None
        server = self.server
        self.touched = server.now
        server.in_flight -= 1
        if not self.keep_alive or server.draining:
            self.close()
        elif self._buffer or self._eof or self._reading_paused:
            self._advance()
        if server.draining:
            server.settled()

    def _feed(self, data: bytes) -> None:
        raise NotImplementedError

    def _advance(self) -> None:
        raise NotImplementedError

    def _handler_failed(self, exchange: Any, error: Exception) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


if not TYPE_CHECKING:
    native.take(
        globals(), "functions.wire._http1", ("ServerCore", "ExchangeCore", "ConnectionCore")
    )
