"""The client's end of HTTP/2 for gRPC: many unary calls on one connection."""

import asyncio
import time
from collections.abc import Callable, Sequence

from functions.buffers import Buffer
from functions.http2 import frames
from functions.http2.connection import MAX_FRAME_BYTES, MAX_HEADER_BYTES, Connection, Scratch
from functions.http2.frames import ProtocolError
from functions.http2.headers import Fields, HeaderReader
from functions.http2.sending import Stream

from .connection import Broken
from .dialling import Unreachable

STALE_S = 1.0
"""A connection that has answered before and is closed sooner than this after a call, without a word
of an answer, was being closed when we wrote: nobody has begun with the call."""

_PREFACE = b"".join([
    frames.PREFACE,
    frames.settings({
        frames.HEADER_TABLE_SIZE: 0,  # equal blocks have equal meanings then
        frames.ENABLE_PUSH: 0,
        frames.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW,
        frames.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
    }),
    frames.window_update(0, frames.MAX_WINDOW - frames.DEFAULT_WINDOW),
])  # fmt: skip


class Answer:
    """What came back on one stream. `headers` has those of the trailer too; names are bytes."""

    __slots__ = ("body", "headers")

    def __init__(self, headers: dict[bytes, bytes], body: memoryview) -> None:
        self.headers = headers
        self.body = body


class _Call(Stream):
    """One call under way."""

    __slots__ = ("headers", "started", "waiter")

    def __init__(self, stream_id: int, window: int) -> None:
        super().__init__(stream_id, window)
        self.waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.headers: dict[bytes, bytes] = {}
        self.started = time.monotonic()


class Http2(Connection[_Call]):
    """One connection."""

    def __init__(self, max_bytes: int, lost: "Callable[[Http2], None]", scratch: Scratch) -> None:
        """`max_bytes` limits the body of an answer; `lost` is called when the connection is."""
        super().__init__(scratch)
        self._max_bytes = max_bytes
        self._lost = lost
        self._next = 1
        self.max_streams = 100
        """Calls at once; the peer may ask for fewer, more are not worth one connection."""
        self._reader: HeaderReader[dict[bytes, bytes]] = HeaderReader(MAX_HEADER_BYTES, _by_name)
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """The peer's first frame, its settings, is there; Broken when none will come."""
        self._answered = False
        self._heard = 0.0
        self.usable = True
        """New calls may be made."""

    @property
    def speaks_h2(self) -> bool:
        """False when a TLS peer has not agreed to HTTP/2."""
        assert self._transport is not None
        tls = self._transport.get_extra_info("ssl_object")
        return tls is None or tls.selected_alpn_protocol() == "h2"

    @property
    def active(self) -> int:
        return len(self.streams)

    # --- calls ---------------------------------------------------------------------------------

    async def call(self, block: bytes, body: Sequence[Buffer]) -> Answer:
        """One request with this header block and body. Raises Broken; Unreachable when the peer
        surely has not begun with it."""
        stream_id, self._next = self._next, self._next + 2
        if stream_id > 2**30:
            self.usable = False  # the numbers are used up: the next call gets a new connection
        call = self.streams[stream_id] = _Call(stream_id, self._first_window)
        head = frames.head(frames.HEADERS, frames.END_HEADERS, stream_id, len(block))
        self._send(call, head + block, body, b"")
        try:
            return await call.waiter
        finally:
            if self._forget(stream_id) is not None:
                self.write(frames.reset(stream_id, frames.CANCEL))  # given up: no need to go on
                if self._heard < call.started:
                    # Not a word in all that time: perhaps the way there is dead. The next call
                    # finds out on a connection of its own.
                    self.usable = False
            if not self.usable and not self.streams:
                self.close()

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.close()

    # --- the transport's side ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.write(_PREFACE)

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._over = True
        self._lost(self)
        self._fail_settling(Broken("closed the connection without an answer: is this a gRPC port?"))
        now = time.monotonic()
        for stream_id, call in list(self.streams.items()):
            if call.headers:
                error: Exception = Broken("closed the connection in the middle of its answer")
            elif self._answered and now - call.started < STALE_S:
                error = Unreachable("it closed the connection", retryable=True)
            else:
                error = Broken("closed the connection without an answer")
            self._fail(stream_id, error)

    def buffer_updated(self, nbytes: int) -> None:
        self._heard = time.monotonic()
        super().buffer_updated(nbytes)

    def _fail_settling(self, error: Exception) -> None:
        if not self.settled.done():
            self.settled.set_exception(error)
            self.settled.exception()  # it need not interest anybody

    def _broken(self, error: ProtocolError) -> None:
        told = error if isinstance(error, _Mistaken) else f"sent garbage: {error}"
        broken = Broken(str(told))
        self.usable = False
        self._fail_settling(broken)
        for stream_id in list(self.streams):
            self._fail(stream_id, broken)
        if self._transport is not None:
            self._transport.abort()

    # --- frames --------------------------------------------------------------------------------

    def _greet(self, data: memoryview) -> int | None:
        """A server's first frame is SETTINGS; the usual mistakes look otherwise."""
        start = bytes(data[:5])
        if start == b"HTTP/"[: len(start)]:
            raise _Mistaken(
                "speaks HTTP/1, not gRPC, on this port: use --predictor-protocol v2, or its gRPC"
                " port"
            )
        if start[:2] in (b"\x15\x03", b"\x16\x03"):
            raise _Mistaken(
                "sent garbage: its answer is TLS: give the predictor as https://… or"
                " --predictor-use-ssl true"
            )
        if len(start) >= 4 and start[3] != frames.SETTINGS:
            raise _Mistaken("sent garbage: its answer is no HTTP/2")
        return 0 if len(data) >= frames.HEAD_BYTES else None

    def _settings_are_there(self) -> None:
        if not self.settled.done():
            self.settled.set_result(None)

    def _max_streams(self, count: int) -> None:
        self.max_streams = min(100, count)

    def _headers(self, stream_id: int, flags: int, block: bytes) -> None:
        headers = self._reader.read(block)
        call = self.streams.get(stream_id)
        if call is None:
            return  # given up
        call.headers = {**call.headers, **headers} if call.headers else headers
        if flags & frames.END_STREAM:
            self._ended(call)

    def _data(self, stream: _Call) -> None:
        if stream.body.size > self._max_bytes:
            self._ignore_data(stream)
            self.write(frames.reset(stream.id, frames.CANCEL))
            self._fail(stream.id, Broken(f"sent an answer of more than {self._max_bytes} bytes"))

    def _ended(self, stream: _Call) -> None:
        self._forget(stream.id)
        self._answered = True
        if stream.unsent:  # it answered early: the rest of the request will not be sent
            self.write(frames.reset(stream.id, frames.NO_ERROR))
        if not stream.waiter.done():
            stream.waiter.set_result(Answer(stream.headers, stream.body.whole()))

    def _reset(self, stream_id: int, code: int) -> None:
        call = self.streams.get(stream_id)
        if call is None:
            return
        if code == frames.NO_ERROR and b"grpc-status" in call.headers:
            self._ended(call)  # it answered without waiting for all of the request
        elif code == frames.REFUSED_STREAM:
            self._fail(stream_id, Unreachable("it refused the call", retryable=True))
        else:
            self._fail(stream_id, Broken(f"broke the call off (HTTP/2 error {code})"))

    def _go_away(self, last_id: int, code: int) -> None:
        """No new calls; those after `last_id` have not been looked at."""
        self.usable = False
        for stream_id in [each for each in self.streams if each > last_id]:
            self._fail(stream_id, Unreachable("it is shutting down", retryable=True))
        if not self.streams:
            self.close()

    def _forget(self, stream_id: int) -> _Call | None:
        self._waiting.pop(stream_id, None)
        call = self.streams.pop(stream_id, None)
        if call is not None:
            self._ignore_data(call)
        return call

    def _fail(self, stream_id: int, error: Exception) -> None:
        call = self._forget(stream_id)
        if call is not None and not call.waiter.done():
            call.waiter.set_exception(error)


class _Mistaken(ProtocolError):
    """Not the peer that was meant; the text says it all."""

    def __init__(self, reason: str) -> None:
        super().__init__(frames.PROTOCOL_ERROR, reason)


def _by_name(fields: Fields | None) -> dict[bytes, bytes]:
    if fields is None:
        raise ProtocolError(frames.ENHANCE_YOUR_CALM, "headers that are too long")
    return dict(fields)
