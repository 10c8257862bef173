"""One client of a gRPC server: its calls, its limits, its end. Part of `server`, which explains the
whole."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from functions.buffers import Buffer
from functions.grpc_status import Status

from . import compression, frames
from .body import PREFIX_BYTES, Body
from .call import RequestHead, ServerCall
from .connection import Connection
from .frames import ProtocolError
from .headers import HeaderReader

if TYPE_CHECKING:
    from .server import Server

logger = logging.getLogger(__name__)

_DRAIN = b"draining"
"""A ping: once it has come back, the client knows that it should go."""

_DRAIN_PING_S = 1.0
"""A client that has not answered it by then is taken to know."""

MAX_MESSAGE_BYTES = frames.MAX_WINDOW - PREFIX_BYTES
"""What one stream's window lets through; protobuf's messages are no larger either."""

_SMALL_WINDOW_BYTES = 1024
"""No client opens a window by less, unless it has nothing else to do."""

_RESET_COST = 20
"""A call given up counts like so many frames without content: it may have been begun with."""

_REFUSAL_COST = 2
"""And one that is refused at its head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What clients may cost. Sizes in bytes, times in seconds."""

    max_message_bytes: int = 64 << 20
    """Of a request, unpacked; more is RESOURCE_EXHAUSTED."""
    max_streams: int = 1000
    """Calls at once on one connection: clients that know the protocol wait with further ones, those
    of others are refused. Also how many may be worked on: while methods are busy with calls that
    were given up, others wait."""
    max_metadata_bytes: int = 65536
    """Of one request; more is RESOURCE_EXHAUSTED."""
    max_unfinished_bytes: int = 1 << 30
    """Of all requests that have begun to arrive; a further piece is answered RESOURCE_EXHAUSTED."""
    max_unread_bytes: int = 256 << 20
    """Of the answers that one client leaves unread; a further one becomes RESOURCE_EXHAUSTED."""
    max_connections: int = 16384
    """Open at once; a further one is closed."""
    max_idle_frames_per_s: int = 10_000
    """Of one connection: frames that carry neither calls nor their content (pings, settings, tiny
    pieces, ...), and twenty times the calls that are given up; with two seconds' worth in
    advance."""
    greeting_timeout_s: float = 20.0
    """From the connection to its first frame."""
    frame_timeout_s: float = 60.0
    """For a frame, or headers, that have begun to arrive."""
    read_timeout_s: float = 300.0
    """For a request that has begun to arrive."""
    write_timeout_s: float = 60.0
    """How long a client may leave answers unread, or their window closed."""


class Method:
    """What answers a path: `handler(call, message)`, once, or for each message of a stream."""

    __slots__ = ("handler", "is_stream")

    def __init__(
        self, handler: Callable[[ServerCall, memoryview], None], *, is_stream: bool = False
    ) -> None:
        self.handler = handler
        self.is_stream = is_stream


class ServerConnection(Connection[ServerCall]):
    """One client."""

    def __init__(self, server: "Server") -> None:
        super().__init__(server.scratch)
        self._server = server
        self._reader: HeaderReader[RequestHead] = HeaderReader(
            server.limits.max_metadata_bytes, RequestHead
        )
        self._last_id = 0
        self.at_work = 0
        """Calls whose methods have not answered, those that were given up included."""
        self._delayed: dict[int, tuple[ServerCall, memoryview]] = {}
        self._is_starting = False
        self._calm = 2.0 * server.limits.max_idle_frames_per_s
        self._since = self._moved = self._ticked = time.monotonic()
        self._partial_since = self._paused_since = self._closing_since = 0.0
        self._draining_since = 0.0
        self._is_last = False  # the client knows that no further call is taken

    @property
    def first_window(self) -> int:
        return self._first_window

    @property
    def is_full(self) -> bool:
        """The client leaves too much unread."""
        if not self._waiting:
            return False
        unread = sum(len(piece) for call in self._waiting.values() for piece in call.unsent)
        return unread > self._server.limits.max_unread_bytes

    # --- the transport's side ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        server = self._server
        server.connections.add(self)
        if len(server.connections) > server.limits.max_connections or server.draining:
            self.close()
            return
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # clients that are no more
        self.write(server.greeting)

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        server = self._server
        server.connections.discard(self)
        for call in list(self.streams.values()):
            self._forget(call)
            call.cancel()
        server.settled()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._paused_since = time.monotonic()

    def close(self) -> None:
        """After what has been written."""
        self._over = True
        self._closing_since = self._closing_since or time.monotonic()
        if self._transport is not None:
            self._transport.close()

    def drop(self) -> None:
        self._over = True
        if self._transport is not None:
            self._transport.abort()

    def _broken(self, error: ProtocolError) -> None:
        logger.debug("a gRPC client broke the protocol: %s", error)
        self.write(frames.go_away(self._last_id, error.code, str(error)))
        for call in list(self.streams.values()):
            self._forget(call)
            call.cancel()
        self.close()

    def _greet(self, data: memoryview) -> int | None:
        length = len(frames.PREFACE)
        if not frames.PREFACE.startswith(bytes(data[:length])):
            raise ProtocolError(frames.PROTOCOL_ERROR, "HTTP/2 with prior knowledge is spoken here")
        return length if len(data) >= length else None

    # --- frames --------------------------------------------------------------------------------

    def _spend(self, count: int = 1) -> None:
        self._calm -= count
        if self._calm < 0:
            raise ProtocolError(frames.ENHANCE_YOUR_CALM, "too many frames that carry nothing")

    def _control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind not in (frames.HEADERS, frames.WINDOW_UPDATE):
            self._spend()
        super()._control(kind, flags, stream_id, payload)

    def _begin_data(self, stream_id: int, flags: int, length: int) -> None:
        if length < 64 and not flags & frames.END_STREAM:
            self._spend()
        if stream_id > self._last_id:
            raise ProtocolError(frames.PROTOCOL_ERROR, f"data of stream {stream_id}, not open")
        super()._begin_data(stream_id, flags, length)

    def _headers(self, stream_id: int, flags: int, block: bytes) -> None:
        head = self._reader.read(block)
        call = self.streams.get(stream_id)
        is_end = bool(flags & frames.END_STREAM)
        if call is not None:
            if call.received or not is_end:
                code = frames.STREAM_CLOSED if call.received else frames.PROTOCOL_ERROR
                raise ProtocolError(code, "a second header block")
            self._ended(call)
            return
        if not stream_id & 1:
            raise ProtocolError(frames.PROTOCOL_ERROR, f"a client opened stream {stream_id}")
        if stream_id <= self._last_id or self._is_last:
            self._spend(_RESET_COST)  # of a call that is over: it crossed our answer
            return
        self._last_id = stream_id
        limits = self._server.limits
        if len(self.streams) >= limits.max_streams:
            self._spend(_REFUSAL_COST)
            self.write(frames.reset(stream_id, frames.REFUSED_STREAM))
            return
        if head.is_malformed:
            self._spend(_REFUSAL_COST)
            self.write(frames.reset(stream_id, frames.PROTOCOL_ERROR))
            return
        call = self.streams[stream_id] = ServerCall(self, stream_id, head)
        call.method = self._server.methods.get(head.path)
        if head.refusal is None and head.http_status == 200 and call.method is not None:
            if is_end:
                self._ended(call)
            return
        call.received = is_end
        if head.refusal is not None:
            call.fail(*head.refusal)
        elif head.http_status != 200:
            call.refuse(head.http_status)
        else:
            call.fail(Status.UNIMPLEMENTED, "Method not found!")

    def _data(self, call: ServerCall) -> None:
        body = call.body
        server = self._server
        if call.received:
            raise ProtocolError(frames.STREAM_CLOSED, "data after the end of a stream")
        if call.is_answered:
            self._ignore_data(call)
            return
        server.unfinished += body.size - call.counted
        call.counted = body.size
        limits = server.limits
        claimed = call.claimed = call.claimed or body.claimed
        if claimed > limits.max_message_bytes + PREFIX_BYTES:
            call.fail(
                Status.RESOURCE_EXHAUSTED,
                f"Received message larger than max ({claimed - PREFIX_BYTES} vs."
                f" {limits.max_message_bytes})",
            )
        elif server.unfinished > max(limits.max_unfinished_bytes, limits.max_message_bytes):
            call.fail(Status.RESOURCE_EXHAUSTED, "the server holds too many unfinished requests")
        elif claimed and body.size >= claimed and call.method is not None:
            if call.method.is_stream:
                self._next_messages(call)
            elif body.size > claimed:
                call.fail(Status.UNIMPLEMENTED, "more than one message for a unary method")

    def _ended(self, call: ServerCall) -> None:
        if call.received:
            raise ProtocolError(frames.STREAM_CLOSED, "a stream that ends twice")
        self._uncount(call)
        call.received = True
        method = call.method
        if call.is_answered or method is None:
            if not call.unsent:
                self._forget(call)
            return
        if method.is_stream:
            if call.body.size:
                call.fail(Status.INTERNAL, "the last message is cut off")
            else:
                call.finish()
        elif call.claimed and call.body.size == call.claimed:
            self._dispatch(call, call.body.whole())
        elif call.body.size:
            call.fail(Status.INTERNAL, "the message is cut off")
        else:
            call.fail(Status.UNIMPLEMENTED, "a unary method without its message")

    def _reset(self, stream_id: int, code: int) -> None:
        if stream_id > self._last_id:
            raise ProtocolError(frames.PROTOCOL_ERROR, f"a reset of stream {stream_id}, not open")
        call = self.streams.get(stream_id)
        if call is not None:
            self._forget(call)
            call.cancel()
            self._spend(_RESET_COST)

    def _window_opens(self, stream_id: int, more: int) -> None:
        if stream_id > self._last_id:
            raise ProtocolError(frames.PROTOCOL_ERROR, f"a window of stream {stream_id}, not open")
        if more < _SMALL_WINDOW_BYTES or (stream_id and stream_id not in self.streams):
            self._spend()  # others are few, or follow what we sent
        super()._window_opens(stream_id, more)

    def _go_away(self, last_id: int, code: int) -> None:
        """The client makes no new calls."""
        self._is_last = True
        if not self.streams:
            self.close()

    # --- calls ---------------------------------------------------------------------------------

    def _dispatch(self, call: ServerCall, message: memoryview) -> None:
        """Hand a message, with its prefix, to the call's method, as soon as that may be."""
        self._delayed[call.id] = call, message
        self._start_delayed()

    def _start_delayed(self) -> None:
        if self._is_starting:
            return  # methods that answer at once come back here
        self._is_starting = True
        while self._delayed and self.at_work < self._server.limits.max_streams:
            call, message = self._delayed.pop(next(iter(self._delayed)))
            self._start(call, message)
        self._is_starting = False

    def returned(self) -> None:
        """A method has answered."""
        self.at_work -= 1
        if self._delayed:
            self._start_delayed()

    def _start(self, call: ServerCall, message: memoryview) -> None:
        packed = message[0]
        content = message[PREFIX_BYTES:]
        if not packed:
            self._server.run(call, content)
        elif packed > 1 or call.head.encoding == b"identity":
            call.fail(Status.INTERNAL, "a compressed message without its encoding")
        elif call.head.encoding not in compression.ENCODINGS:
            name = call.head.encoding.decode("latin-1")
            call.fail(Status.UNIMPLEMENTED, f"messages cannot be compressed with {name!r}")
        else:
            self._server.unpack(call, content)

    def _next_messages(self, call: ServerCall) -> None:
        """What has arrived of a stream of messages, one after the other."""
        whole = call.body.whole()
        while len(whole) >= PREFIX_BYTES and not call.is_answered:
            end = PREFIX_BYTES + int.from_bytes(whole[1:PREFIX_BYTES], "big")
            if len(whole) < end:
                break
            if whole[0]:
                call.fail(Status.UNIMPLEMENTED, "streams of compressed messages are not supported")
            else:
                self._server.run(call, whole[PREFIX_BYTES:end])
            whole = whole[end:]
        self._uncount(call)
        call.body = Body()
        call.claimed = 0
        if len(whole) and not call.is_answered:
            call.body.add(whole)
            self._data(call)

    def answer(
        self, call: ServerCall, before: bytes, pieces: Sequence[Buffer], end: bytes | None
    ) -> None:
        self._uncount(call)
        if not call.unsent:
            self._waiting.pop(call.id, None)
        self._send(call, before, pieces, end)

    def _sent(self, call: ServerCall, out: list[Buffer]) -> None:
        if not call.received:  # answered early: the rest of the request need not be sent
            out.append(frames.reset(call.id, frames.NO_ERROR))
        self._forget(call)
        if self._is_last and not self.streams:
            asyncio.get_running_loop().call_soon(self.close)

    def _uncount(self, call: ServerCall) -> None:
        self._server.unfinished -= call.counted
        call.counted = 0

    def _forget(self, call: ServerCall) -> None:
        self._uncount(call)
        self._ignore_data(call)
        self.streams.pop(call.id, None)
        self._waiting.pop(call.id, None)
        self._delayed.pop(call.id, None)

    def _write(self, out: list[Buffer]) -> None:
        if out:
            self._moved = self._server.now
        super()._write(out)

    # --- time, and the end ---------------------------------------------------------------------

    def tick(self, now: float) -> None:
        limits = self._server.limits
        if self._over:
            if now - self._closing_since > limits.write_timeout_s:
                self.drop()
            return
        if self._is_last and not self.streams:
            self.close()
            return
        gained = (now - self._ticked) * limits.max_idle_frames_per_s
        self._ticked = now
        self._calm = min(self._calm + gained, 2.0 * limits.max_idle_frames_per_s)
        if not (self._rest or self._block is not None):
            self._partial_since = 0.0
        elif not self._partial_since:
            self._partial_since = now
        unread_since = self._paused_since if self.write_paused else now
        if self._waiting:
            unread_since = min(unread_since, self._moved)
        if (
            (not self._settled and now - self._since > limits.greeting_timeout_s)
            or (self._partial_since and now - self._partial_since > limits.frame_timeout_s)
            or now - unread_since > limits.write_timeout_s
        ):
            self.drop()
            return
        if self._draining_since and now - self._draining_since > _DRAIN_PING_S:
            self._go_away_for_good()
        for call in list(self.streams.values()):
            if call.is_answered:
                continue
            if call.deadline and now > call.deadline:
                call.give_up(Status.DEADLINE_EXCEEDED, "Deadline Exceeded")
            elif not call.received and now - call.since > limits.read_timeout_s:
                text = f"the request did not arrive within {limits.read_timeout_s:g} s"
                call.give_up(Status.DEADLINE_EXCEEDED, text)

    def begin_draining(self) -> None:
        """Tell the client to go elsewhere with further calls; the ones on their way still count."""
        if self._over:
            return
        self.write(
            frames.go_away(frames.MAX_WINDOW, frames.NO_ERROR, "the server is shutting down")
            + frames.frame(frames.PING, 0, 0, _DRAIN)
        )
        self._draining_since = time.monotonic()

    def _pong(self, payload: bytes) -> None:
        if payload == _DRAIN and self._draining_since:
            self._go_away_for_good()

    def _go_away_for_good(self) -> None:
        self._draining_since = 0.0
        self._is_last = True
        self.write(frames.go_away(self._last_id, frames.NO_ERROR, "the server is shutting down"))
        if not self.streams:
            self.close()

    def cut_off(self) -> None:
        """The time for draining is over."""
        for call in list(self.streams.values()):
            if not call.is_answered:
                call.give_up(Status.UNAVAILABLE, "the server is shutting down")
        self.close()
