"""HTTP/2 as far as a gRPC client needs it: many unary calls on one connection, on the event loop.

grpcio's own asyncio client polls on a thread of its own and wakes the loop for every event, which
costs more than all of the protocol here. Frames are RFC 9113's.
"""

import asyncio
import struct
import time
from collections.abc import Callable, Sequence
from typing import cast

from .connection import Broken, Buffer
from .dialling import Unreachable
from .http2_headers import HeaderReader

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = (
    0, 1, 3, 4, 6, 7, 8, 9,
)  # fmt: skip
_END_STREAM, _END_HEADERS, _PADDED, _PRIORITY, _ACK = 0x1, 0x4, 0x8, 0x20, 0x1
_NO_ERROR, _REFUSED_STREAM, _CANCEL = 0, 7, 8

_MAX_WINDOW = 2**31 - 1
_MAX_FRAME_BYTES = 1 << 22
"""Of a frame that we accept; larger frames mean fewer of them."""
_MAX_HEADERS_BYTES = 65536

STALE_S = 1.0
"""A connection that has answered before and is closed sooner than this after a call, without a word
of an answer, was being closed when we wrote: nobody has begun with the call."""


def _frame(kind: int, flags: int, stream: int, length: int) -> bytes:
    return struct.pack(">BHBBI", length >> 16, length & 0xFFFF, kind, flags, stream)


_PREFACE = b"".join([
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    _frame(_SETTINGS, 0, 0, 24),
    # No header table, no pushes, the largest window, large frames.
    struct.pack(">HIHIHIHI", 1, 0, 2, 0, 4, _MAX_WINDOW, 5, _MAX_FRAME_BYTES),
    _frame(_WINDOW_UPDATE, 0, 0, 4) + struct.pack(">I", _MAX_WINDOW - 65535),
])  # fmt: skip

_SETTINGS_ACK = _frame(_SETTINGS, _ACK, 0, 0)


class Answer:
    """What came back on one stream. `headers` has those of the trailer too; names are bytes."""

    __slots__ = ("body", "headers")

    def __init__(self, headers: dict[bytes, bytes], body: bytes) -> None:
        self.headers = headers
        self.body = body


class _Stream:
    """One call under way."""

    __slots__ = ("headers", "pieces", "size", "started", "unsent", "waiter", "window")

    def __init__(self, waiter: "asyncio.Future[Answer]", window: int) -> None:
        self.waiter = waiter
        self.window = window
        self.headers: dict[bytes, bytes] = {}
        self.pieces: list[Buffer] = []
        self.size = 0
        self.unsent: list[memoryview] = []
        self.started = time.monotonic()


class Http2(asyncio.Protocol):
    """One connection."""

    def __init__(self, max_bytes: int, lost: "Callable[[Http2], None]") -> None:
        """`max_bytes` limits the body of an answer; `lost` is called when the connection is."""
        self._max_bytes = max_bytes
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, _Stream] = {}
        self._next = 1
        self._window = 65535
        self._first_window = 65535
        self._frame_bytes = 16384
        self.max_streams = 100
        """Calls at once; the peer may ask for fewer, more are not worth one connection."""
        self._rest = b""
        self._data_left = 0  # of a DATA frame whose beginning has been handed on
        self._data_stream: _Stream | None = None
        self._data_flags = 0
        self._data_id = 0
        self._received = 0
        self._block: tuple[int, int, bytes] | None = None  # headers to be continued
        self._headers = HeaderReader(_MAX_HEADERS_BYTES)
        self._settled = False
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
        return len(self._streams)

    # --- calls ---------------------------------------------------------------------------------

    async def call(self, block: bytes, body: Sequence[Buffer]) -> Answer:
        """One request with this header block and body. Raises Broken; Unreachable when the peer
        surely has not begun with it."""
        transport = self._transport
        assert transport is not None
        stream_id, self._next = self._next, self._next + 2
        if stream_id > 2**30:
            self.usable = False  # the numbers are used up: the next call gets a new connection
        stream = _Stream(asyncio.get_running_loop().create_future(), self._first_window)
        self._streams[stream_id] = stream
        out: list[Buffer] = [_frame(_HEADERS, _END_HEADERS, stream_id, len(block)), block]
        stream.unsent = [memoryview(piece).cast("B") for piece in body]
        self._take_unsent(stream_id, stream, out)
        if sum(map(len, out)) < 32768:
            transport.write(b"".join(out))
        else:
            transport.writelines(out)
        try:
            return await stream.waiter
        finally:
            if self._streams.pop(stream_id, None) is not None:
                self._send_reset(stream_id, _CANCEL)  # given up: the peer need not go on
                if self._heard < stream.started:
                    # Not a word in all that time: perhaps the way there is dead. The next call
                    # finds out on a connection of its own.
                    self.usable = False
            if not self.usable and not self._streams:
                self.close()

    def _take_unsent(self, stream_id: int, stream: _Stream, out: list[Buffer]) -> None:
        """Move as much of the request into frames as both windows allow."""
        pieces = stream.unsent
        while pieces:
            room = min(self._window, stream.window, self._frame_bytes)
            if room <= 0:
                return
            taken: list[Buffer] = []
            size = 0
            while pieces and size < room:
                piece = pieces[0]
                part = piece[: room - size]
                size += len(part)
                taken.append(part)
                if len(part) == len(piece):
                    pieces.pop(0)
                else:
                    pieces[0] = piece[len(part) :]
            self._window -= size
            stream.window -= size
            flags = 0 if pieces else _END_STREAM
            out.append(_frame(_DATA, flags, stream_id, size))
            out += taken

    def _send_unsent(self) -> None:
        """The peer has opened a window."""
        out: list[Buffer] = []
        for stream_id, stream in self._streams.items():
            if stream.unsent:
                self._take_unsent(stream_id, stream, out)
        if out and self._transport is not None:
            self._transport.writelines(out)

    def _send_reset(self, stream_id: int, code: int) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_frame(_RST_STREAM, 0, stream_id, 4) + struct.pack(">I", code))

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.close()

    # --- the transport's side ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(_PREFACE)

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._lost(self)
        self._fail_settling(Broken("closed the connection without an answer: is this a gRPC port?"))
        now = time.monotonic()
        for stream_id, stream in list(self._streams.items()):
            if stream.headers:
                error: Exception = Broken("closed the connection in the middle of its answer")
            elif self._answered and now - stream.started < STALE_S:
                error = Unreachable("it closed the connection", retryable=True)
            else:
                error = Broken("closed the connection without an answer")
            self._fail(stream_id, error)

    def _fail_settling(self, error: Exception) -> None:
        if not self.settled.done():
            self.settled.set_exception(error)
            self.settled.exception()  # it need not interest anybody

    def _fail_all(self, error: Exception) -> None:
        self._fail_settling(error)
        for stream_id in list(self._streams):
            self._fail(stream_id, error)

    def data_received(self, data: bytes) -> None:
        self._heard = time.monotonic()
        try:
            self._take(data)
        except (Broken, struct.error, ValueError, IndexError) as bad:
            error = bad if isinstance(bad, Broken) else Broken(f"sent garbage: {bad}")
            self.usable = False
            self._fail_all(error)
            if self._transport is not None:
                self._transport.abort()

    def _take(self, data: bytes) -> None:
        if self._rest:
            data, self._rest = self._rest + data, b""
        if not self._settled:
            if len(data) < 9:
                _check_start(data)
                self._rest = data
                return
            _check_start(data)
        at, end = 0, len(data)
        view = memoryview(data)
        while at < end:
            if self._data_left:
                piece = view[at : at + self._data_left]
                at += len(piece)
                self._data_left -= len(piece)
                self._data(piece, last=not self._data_left)
                continue
            if end - at < 9:
                break
            high, low, kind, flags, stream_id = struct.unpack_from(">BHBBI", data, at)
            length = high << 16 | low
            if length > _MAX_FRAME_BYTES:
                raise Broken(f"sent garbage: a frame of {length} bytes")
            if kind == _DATA and not flags & _PADDED:
                at += 9
                self._begin_data(stream_id, flags, length)
                continue
            if end - at < 9 + length:
                break
            at += 9
            self._control(kind, flags, stream_id, data[at : at + length])
            at += length
        self._rest = data[at:] if at < end else b""

    # --- frames --------------------------------------------------------------------------------

    def _begin_data(self, stream_id: int, flags: int, length: int) -> None:
        self._data_left = length
        self._open_data(stream_id, flags, length)
        if not length:
            self._data(memoryview(b""), last=True)

    def _open_data(self, stream_id: int, flags: int, length: int) -> None:
        self._data_flags, self._data_id = flags, stream_id
        self._data_stream = self._streams.get(stream_id)
        self._received += length
        if self._received > 2**29:  # give the window back before it is used up
            update = _frame(_WINDOW_UPDATE, 0, 0, 4) + struct.pack(">I", self._received)
            self._received = 0
            if self._transport is not None:
                self._transport.write(update)

    def _data(self, piece: Buffer, *, last: bool) -> None:
        stream = self._data_stream
        if stream is None:
            return  # given up
        stream.size += len(piece)
        if stream.size > self._max_bytes:
            reason = f"sent an answer of more than {self._max_bytes} bytes"
            self._fail(self._data_id, Broken(reason))
            self._send_reset(self._data_id, _CANCEL)
            self._data_stream = None
            return
        if piece:
            stream.pieces.append(piece)
        if last and self._data_flags & _END_STREAM:
            self._finish(self._data_id)

    def _control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if not self._settled:
            if kind != _SETTINGS:
                raise Broken("sent garbage: HTTP/2 begins with settings")
            self._settled = True
        if self._block is not None and kind != _CONTINUATION:
            raise Broken("sent garbage: headers without their end")
        match kind:
            case 0:  # DATA, padded
                self._open_data(stream_id, flags, len(payload))
                self._data(payload[1 : len(payload) - payload[0]], last=True)
            case 1:  # HEADERS
                if flags & _PADDED:
                    payload = payload[1 : len(payload) - payload[0]]
                if flags & _PRIORITY:
                    payload = payload[5:]
                self._header_part(stream_id, flags, payload)
            case 9:  # CONTINUATION
                if self._block is None or self._block[0] != stream_id:
                    raise Broken("sent garbage: a continuation of nothing")
                _, first, so_far = self._block
                if len(so_far) + len(payload) > _MAX_HEADERS_BYTES:
                    raise Broken("sent garbage: headers that are too long")
                self._header_part(stream_id, flags | first & _END_STREAM, so_far + payload)
            case 3:  # RST_STREAM
                self._reset(stream_id, struct.unpack(">I", payload)[0])
            case 4:  # SETTINGS
                self._settings(flags, payload)
            case 6:  # PING
                if not flags & _ACK and self._transport is not None:
                    self._transport.write(_frame(_PING, _ACK, 0, len(payload)) + payload)
            case 7:  # GOAWAY
                self._go_away(*struct.unpack_from(">II", payload))
            case 8:  # WINDOW_UPDATE
                (more,) = struct.unpack(">I", payload)
                stream = self._streams.get(stream_id)
                if not stream_id:
                    self._window += more
                elif stream is not None:
                    stream.window += more
                self._send_unsent()
            case _:
                pass  # unknown kinds are to be ignored (RFC 9113 5.5)

    def _settings(self, flags: int, payload: bytes) -> None:
        if flags & _ACK:
            return
        for name, value in struct.iter_unpack(">HI", payload):
            if name == 3:
                self.max_streams = min(100, value)
            elif name == 4:
                for stream in self._streams.values():
                    stream.window += value - self._first_window
                self._first_window = value
            elif name == 5:
                self._frame_bytes = min(max(16384, value), 1 << 20)
        if self._transport is not None:
            self._transport.write(_SETTINGS_ACK)
        self._send_unsent()
        if not self.settled.done():
            self.settled.set_result(None)

    def _reset(self, stream_id: int, code: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if code == _NO_ERROR and b"grpc-status" in stream.headers:
            self._finish(stream_id)  # it answered without waiting for all of the request
        elif code == _REFUSED_STREAM:
            self._fail(stream_id, Unreachable("it refused the call", retryable=True))
        else:
            self._fail(stream_id, Broken(f"broke the call off (HTTP/2 error {code})"))

    def _go_away(self, last_id: int, code: int) -> None:
        """No new calls; those after `last_id` have not been looked at."""
        self.usable = False
        for stream_id in [each for each in self._streams if each > last_id & 0x7FFFFFFF]:
            self._fail(stream_id, Unreachable("it is shutting down", retryable=True))
        if not self._streams:
            self.close()

    # --- headers -------------------------------------------------------------------------------

    def _header_part(self, stream_id: int, flags: int, block: bytes) -> None:
        if not flags & _END_HEADERS:
            self._block = stream_id, flags, block
            return
        self._block = None
        headers = self._headers.read(block)
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        stream.headers = {**stream.headers, **headers} if stream.headers else headers
        if flags & _END_STREAM:
            self._finish(stream_id)

    def _finish(self, stream_id: int) -> None:
        stream = self._streams.pop(stream_id)
        self._answered = True
        if stream.unsent:  # it answered early: the rest of the request will not be sent
            self._send_reset(stream_id, _NO_ERROR)
        if not stream.waiter.done():
            stream.waiter.set_result(Answer(stream.headers, b"".join(stream.pieces)))

    def _fail(self, stream_id: int, error: Exception) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None and not stream.waiter.done():
            stream.waiter.set_exception(error)


def _check_start(data: bytes) -> None:
    """A server's first frame is SETTINGS; the usual mistakes look otherwise."""
    if data[:5] == b"HTTP/"[: len(data)] and data[:1] == b"H":
        raise Broken(
            "speaks HTTP/1, not gRPC, on this port: use --predictor-protocol v2, or its gRPC port"
        )
    if data[:2] in (b"\x15\x03", b"\x16\x03"):
        raise Broken(
            "sent garbage: its answer is TLS: give the predictor as https://… or"
            " --predictor-use-ssl true"
        )
    if len(data) >= 4 and data[3] != _SETTINGS:
        raise Broken("sent garbage: its answer is no HTTP/2")
