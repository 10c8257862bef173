"""One client's connection, and the exchange of request and answer on it. Part of `http1`, which
explains the whole."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from functions.wire.http1_chunked import LAST_CHUNK, BadChunk, ChunkedDecoder, encode_chunk
from functions.wire.http1_core import NO_BODY, ConnectionCore, ExchangeCore
from functions.wire.http1_head import BadHead, RequestHead, parse_request_head

if TYPE_CHECKING:
    from functions.wire.http1 import Server

logger = logging.getLogger(__name__)

_LINGER_S = 2.0
"""How long a refused client may go on sending before the connection is cut: long enough to read the
refusal, which a reset would destroy."""

_LARGE_BYTES = 131072
"""A longer body may be worth receiving in place (`http1_direct`)."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client may cost. Sizes in bytes, times in seconds; None means no limit."""

    max_head_bytes: int = 65536
    """Request line and fields together; more is 431 (414 when the target alone is longer than half
    of it)."""
    max_body_bytes: int | None = 64 << 20
    """Decoded request body; more is 413."""
    read_timeout_s: float | None = 60.0
    """From the first byte of a request to its last; then 408 and close. Cuts slow-loris clients."""
    idle_timeout_s: float | None = 180.0
    """Keep-alive without a request."""
    response_timeout_s: float | None = 60.0
    """From the request's last byte to the answer (for a stream: between two pieces); then the
    connection is dropped, as Go's WriteTimeout does."""
    write_timeout_s: float | None = 60.0
    """How long a client may leave an answer unread while our buffer for it is full."""
    max_connections: int = 16384
    """Open at once; a further one is answered 503 and closed."""


class Exchange(ExchangeCore):
    """One request and the one answer to it. `respond` is in the core."""

    __slots__ = ()

    _connection: "Connection | None"

    @property
    def open(self) -> bool:
        """False once answered, or when nobody waits for an answer any more."""
        return self._connection is not None

    def _full_answer(
        self, connection: "Connection", status: int, body: bytes, content_type: bytes, extra: bytes
    ) -> bytes:
        """An answer in all its variants; the common one is spelled out in `respond`."""
        if status not in NO_BODY:
            extra += b"Content-Length: %d\r\n" % len(body)
        if self.head.method == b"HEAD" or status in NO_BODY:
            body = b""
        prefix = connection.server.make_prefix(status, content_type)
        return prefix + extra + connection.connection_field(self.head) + b"\r\n" + body

    def respond_pieces(
        self,
        status: int,
        pieces: Sequence[bytes | bytearray | memoryview],
        content_type: bytes = b"",
        extra: bytes = b"",
    ) -> None:
        """Answer with a body in several buffers, which nobody may change any more."""
        connection = self._connection
        if connection is None:
            return
        if self.head.method == b"HEAD" or status in NO_BODY:
            self.respond(status, b"".join(pieces), content_type, extra)
            return
        self._connection = self.on_abort = None
        extra += b"Content-Length: %d\r\n" % sum(map(len, pieces))
        prefix = connection.server.make_prefix(status, content_type)
        head = prefix + extra + connection.connection_field(self.head) + b"\r\n"
        connection.writelines([head, *pieces])
        connection.answered()

    def start(self, status: int, content_type: bytes = b"", extra: bytes = b"") -> None:
        """Begin a streamed answer; `send` pieces, then `finish`."""
        connection = self._connection
        if connection is None:
            return
        self.started = True
        prefix = connection.server.make_prefix(status, content_type)
        self._raw = self.head.minor == 0 or status in NO_BODY or self.head.method == b"HEAD"
        if self._raw:  # HTTP/1.0 knows no chunks: the end of the connection is the end of the body
            connection.keep_alive = False
        else:
            extra += b"Transfer-Encoding: chunked\r\n"
        connection.write(prefix + extra + connection.connection_field(self.head) + b"\r\n")

    def send(self, data: bytes) -> None:
        """One piece of a started answer; goes out at once."""
        connection = self._connection
        if connection is None or not data:
            return
        connection.touched = connection.server.now
        if self.head.method != b"HEAD":
            connection.write(data if self._raw else encode_chunk(data))

    def finish(self) -> None:
        """End a started answer."""
        connection = self._connection
        if connection is None:
            return
        self._connection = self.on_abort = None
        if not self._raw:
            connection.write(LAST_CHUNK)
        connection.answered()

    def drop(self) -> None:
        """Close the connection without (the rest of) an answer: the client sees a truncated one."""
        connection, self._connection = self._connection, None
        self.on_abort = None
        if connection is not None:
            connection.drop()

    @property
    def backed_up(self) -> bool:
        """True while the client reads more slowly than we write; a stream should pause its
        source."""
        return self._connection is not None and self._connection.write_paused

    def abort(self) -> None:
        """The connection is gone: nobody waits any more."""
        self._connection = None
        callback, self.on_abort = self.on_abort, None
        if callback is not None:
            callback()


class Connection(ConnectionCore, asyncio.Protocol):
    """One client. Reads one request at a time; later ones wait in `_buffer`. The one-packet path is
    in the core."""

    server: "Server"
    _exchange: Exchange | None

    def __init__(self, server: "Server") -> None:
        super().__init__(server)
        self.write_paused = False
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self._received = 0
        self._decoder: ChunkedDecoder | None = None
        self._advancing = False
        self._paused_at = 0.0

    # --- the transport's side ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's, but keep to its interface.
        self._transport = cast("asyncio.Transport", transport)
        self.write = self._transport.write
        server = self.server
        server.connections.add(self)
        if len(server.connections) > server.limits.max_connections:
            self._refuse(503, "too many connections")

    def eof_received(self) -> bool:
        self._eof = True
        if self._exchange is None:
            head = self._head
            if head is None or self._lingering or not self.server.takes_cut_bodies:
                return False
            body = b"".join(self._pieces)
            self._head = self._decoder = None
            self._pieces = []
            self._dispatch(head, body)
        self._probe()
        return True  # the client may only have finished sending; it still gets its answer

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.connections.discard(self)
        self._lingering = True
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abort()
            self.server.finished(self)

    def pause_writing(self) -> None:
        self.write_paused = True
        self._paused_at = self.server.now

    def resume_writing(self) -> None:
        self.write_paused = False
        exchange = self._exchange
        if exchange is not None:
            if exchange.on_drained is not None:
                exchange.on_drained()
        elif self._buffer:
            self._advance()

    # --- reading -------------------------------------------------------------------------------

    def _feed(self, data: bytes) -> None:
        if self._lingering:
            return
        if self._head is not None and not self._decoder:
            self._pieces.append(data)
            self._received += len(data)
            if self._received >= self._head.length:
                self._advance()
            return
        self._buffer = self._buffer + data if self._buffer else data
        if self._exchange is None:
            self._advance()
        elif len(self._buffer) > self.server.limits.max_head_bytes and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def _advance(self) -> None:
        """Take requests from the buffer until it holds none, or one is being answered."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._exchange is None and not self._lingering and not self.write_paused:
                if self._head is None and not self._read_head():
                    break
                if not self._read_body():
                    break
        except BadHead as bad:
            self._refuse(bad.status, bad.reason)
        except BadChunk as bad:
            self._refuse(400, str(bad))
        finally:
            self._advancing = False
        if self._reading_paused and self._exchange is None and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()
        if self._eof and self._exchange is None and not self._lingering:
            self.close()

    def _read_head(self) -> bool:
        """True when `_head` is there; the rest of the buffer belongs to its body and beyond."""
        data = self._buffer
        if data.startswith(
            (b"\r", b"\n")
        ):  # RFC 9112 2.2: an empty line before a request is nothing
            stripped = data[2:] if data.startswith(b"\r\n") else b""
            if data == b"\r":
                return False
            if not stripped and data != b"\r\n":
                raise BadHead(400, "the request head is malformed")
            self._buffer = data = stripped
        if not data:
            return False
        limits = self.server.limits
        end = data.find(b"\r\n\r\n") + 4
        if end <= 3 or end > limits.max_head_bytes:
            if len(data) > limits.max_head_bytes or end > 3:
                target_end = data.find(b"\r\n")
                if not 0 <= target_end <= limits.max_head_bytes // 2:
                    raise BadHead(414, "the request target is too long")
                raise BadHead(431, "the request head is too long")
            if data.count(b"\n") != data.count(b"\r\n"):  # would never end in CR LF CR LF
                raise BadHead(400, "the request head is malformed")
            return False
        block = data[:end]
        heads = self.server.heads
        head = heads.get(block)
        if head is None:
            head = parse_request_head(block)
            limit = limits.max_body_bytes
            if limit is not None and head.length > limit:
                raise BadHead(413, f"a body may have {limit} bytes")
            heads.put(block, head)  # only what is acceptable: the one-packet path asks no more
        self._head = head
        self._buffer = b""
        rest = data[end:]
        self._pieces = [rest] if rest else []
        self._received = len(rest)
        if head.chunked:
            self._decoder = ChunkedDecoder()
            self._buffer, self._pieces, self._received = rest, [], 0
        if head.expect_continue and not rest and head.length:
            self.write(_CONTINUE)
        if head.length > _LARGE_BYTES and self.server.takes_views is not None:
            return not self._receive_directly(head, rest)
        return True

    def _receive_directly(self, head: RequestHead, start: bytes) -> bool:
        """Have the rest of a body received in place, if that is worth it and the handler takes it;
        whether it will be."""
        from functions.wire import http1_direct

        transport, takes_views = self._transport, self.server.takes_views
        if transport is None or transport.is_closing() or self._eof or takes_views is None:
            return False
        if not http1_direct.is_worth_it(head.length, len(start)) or not takes_views(head):
            return False
        self._pieces = []
        self._switch(transport, http1_direct.DirectBody(self, head.length, start))
        return True

    @staticmethod
    def _switch(transport: asyncio.Transport, protocol: asyncio.BaseProtocol) -> None:
        transport.pause_reading()  # uvloop looks at the kind of protocol when reading begins
        transport.set_protocol(protocol)
        transport.resume_reading()

    def received_directly(self, body: memoryview) -> None:
        """All of a body is there that was received in place."""
        transport, head = self._transport, self._head
        if transport is not None and not transport.is_closing():
            self._switch(transport, self)
        if head is not None and not self._lingering:
            self._head = None
            self._dispatch(head, body)  # type: ignore[arg-type]

    def _read_body(self) -> bool:
        """True when a request was complete and has been handed to the handler."""
        head = self._head
        assert head is not None
        if self._decoder is not None:
            if not self._read_chunks(self._decoder):
                return False
            body = b"".join(self._pieces)
            self._buffer = self._decoder.rest
        else:
            if self._received < head.length:
                return False
            pieces = self._pieces
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._buffer = b""
            if len(body) > head.length:
                body, self._buffer = body[: head.length], body[head.length :]
        self._head = self._decoder = None
        self._pieces = []
        self._dispatch(head, body)
        return True

    def _read_chunks(self, decoder: ChunkedDecoder) -> bool:
        data, self._buffer = self._buffer, b""
        for piece in decoder.feed(data):
            self._pieces.append(piece)
            self._received += len(piece)
        limit = self.server.limits.max_body_bytes
        if limit is not None and self._received > limit:
            raise BadHead(413, f"a body may have {limit} bytes")
        if len(self._pieces) > 1024:  # many tiny chunks: keep the list short
            self._pieces = [b"".join(self._pieces)]
        return decoder.done

    def _handler_failed(self, exchange: Exchange, error: Exception) -> None:
        logger.error("a request failed", exc_info=error)
        exchange.on_abort = None
        exchange.respond(500, b'{"error":"internal error"}', b"application/json")

    # --- answering -----------------------------------------------------------------------------

    def writelines(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        if self._transport is not None:
            self._transport.writelines(pieces)

    def connection_field(self, head: RequestHead) -> bytes:
        """What to tell the client about the connection's future, if it does not go without
        saying."""
        if not self.keep_alive or self.server.draining:
            return b"Connection: close\r\n"
        return b"Connection: keep-alive\r\n" if head.minor == 0 else b""

    def _refuse(self, status: int, reason: str) -> None:
        """Answer what was no acceptable request, then close in a way that lets the answer
        arrive."""
        self._lingering = True
        self._head = self._decoder = None
        self._buffer, self._pieces = b"", []
        self.touched = self.server.now
        body = b'{"error":"%s"}' % reason.encode()
        prefix = self.server.make_prefix(status, b"application/json")
        self.write(
            prefix + b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
        )
        transport = self._transport
        if transport is not None and not transport.is_closing():
            if self._reading_paused:
                transport.resume_reading()
            if transport.can_write_eof():
                transport.write_eof()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- time ----------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Enforce the time limits; called by the server's one timer."""
        limits = self.server.limits
        waited = now - self.touched
        if self.write_paused:
            if (
                limits.write_timeout_s is not None
                and now - self._paused_at > limits.write_timeout_s
            ):
                self.drop()
        elif self._lingering:
            if waited > _LINGER_S:
                self.drop()
        elif self._exchange is not None:
            if self._eof:
                self._probe()
            if limits.response_timeout_s is not None and waited > limits.response_timeout_s:
                self.drop()
        elif self._head is not None or self._buffer:
            if limits.read_timeout_s is not None and waited > limits.read_timeout_s:
                self._refuse(408, "the request did not arrive in time")
        elif limits.idle_timeout_s is not None and waited > limits.idle_timeout_s:
            self.close()

    def close_if_idle(self) -> None:
        if self._exchange is None and self._head is None and not self._buffer:
            self.close()

    def _probe(self) -> None:
        """The client has stopped sending. Has it gone, or does it only wait?

        TCP does not tell; a write does: whoever is gone answers it with a reset. An interim
        response is a write that every HTTP/1.1 client must read over (RFC 9110 15.2).
        """
        exchange = self._exchange
        if exchange is not None and exchange.head.minor == 1 and not exchange.started:
            self.write(_CONTINUE)
