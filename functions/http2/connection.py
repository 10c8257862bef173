"""One connection, whichever end of it: frames in and out, windows, settings, header blocks.

Bytes are received into one scratch buffer per event loop; the rest of a large DATA frame into the
very buffer that its message will be read from. What is sent are the buffers that were handed in.
"""

import asyncio

from . import frames
from .frames import ProtocolError
from .sending import S, Sender

MAX_FRAME_BYTES = 1 << 22
"""Of a DATA frame that we accept; larger frames mean fewer of them."""

MAX_HEADER_BYTES = 65536
"""Of a header block, and of any frame but DATA."""

SCRATCH_BYTES = 1 << 18

_DIRECT_BYTES = 32768
"""At least so much of a DATA frame is received in place; less is worth no call of its own."""

_MOST_UNSENT_BYTES = 1 << 22
"""Beyond this in the transport's buffer (which are heads and replies, as bodies wait) a peer that
does not read is not read from either."""


class Scratch:
    """Where the connections of one event loop receive, one after the other."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(SCRATCH_BYTES))


class Connection(Sender[S], asyncio.BufferedProtocol):
    """What `server_connection.ServerConnection` and `functions.predictor.http2.Http2` have in
    common."""

    def __init__(self, scratch: Scratch) -> None:
        super().__init__()
        self._scratch = scratch.view
        self.streams: dict[int, S] = {}
        self._greeted = False
        self._settled = False
        self._rest = b""  # of a frame that is not complete
        self._direct = False
        self._data_left = self._pad_left = 0  # of a DATA frame whose beginning has been handed on
        self._data_stream: S | None = None
        self._data_flags = self._data_id = 0
        self._unreturned = 0
        self._block: tuple[int, int, bytes] | None = None  # headers to be continued
        self._reading_paused = False
        self._over = False

    # --- for subclasses to fill in -------------------------------------------------------------

    def _greet(self, data: memoryview) -> int | None:
        """How many of the peer's first bytes are no frames; None: too few to tell. Raises
        ProtocolError."""
        raise NotImplementedError

    def _headers(self, stream_id: int, flags: int, block: bytes) -> None:
        raise NotImplementedError

    def _data(self, stream: S) -> None:
        """More of the body is there."""
        raise NotImplementedError

    def _ended(self, stream: S) -> None:
        """The peer sends no more on it."""
        raise NotImplementedError

    def _reset(self, stream_id: int, code: int) -> None:
        raise NotImplementedError

    def _go_away(self, last_id: int, code: int) -> None:
        raise NotImplementedError

    def _max_streams(self, count: int) -> None:
        """The peer's setting."""

    def _settings_are_there(self) -> None:
        """The peer's first frame."""

    def _pong(self, payload: bytes) -> None:
        """The answer to a ping."""

    def _broken(self, error: ProtocolError) -> None:
        raise NotImplementedError

    # --- reading -------------------------------------------------------------------------------

    def resume_writing(self) -> None:
        transport = self._transport
        if self._reading_paused and transport is not None and not transport.is_closing():
            self._reading_paused = False
            transport.resume_reading()
        super().resume_writing()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._data_left >= _DIRECT_BYTES and self._data_stream is not None:
            room = self._data_stream.body.room(self._data_left)
            if room:
                self._direct = True
                return room
        rest = len(self._rest)
        if not rest:
            return self._scratch
        self._scratch[:rest] = self._rest
        return self._scratch[rest:]

    def buffer_updated(self, nbytes: int) -> None:
        try:
            if self._direct:
                self._direct = False
                self._data_left -= nbytes
                if self._data_stream is not None:
                    self._data_stream.body.received(nbytes)
                    self._data_arrived(self._data_stream)
            else:
                end = len(self._rest) + nbytes
                self._rest = b""
                self._take(self._scratch, end)
                if self.write_paused:
                    self._hold_back()
        except ProtocolError as error:
            self._over = True
            self._broken(error)

    def _hold_back(self) -> None:
        transport = self._transport
        if (
            transport is not None
            and not transport.is_closing()
            and transport.get_write_buffer_size() > _MOST_UNSENT_BYTES
        ):
            self._reading_paused = True
            transport.pause_reading()

    def _take(self, view: memoryview, end: int) -> None:
        """Read frames. Raises ProtocolError."""
        if self._over:
            return
        at = 0
        if not self._greeted:
            greeting = self._greet(view[:end])
            if greeting is None:
                self._rest = bytes(view[:end])
                return
            self._greeted = True
            at = greeting
        while at < end and not self._over:
            if self._data_left:
                piece = view[at : min(end, at + self._data_left)]
                at += len(piece)
                self._data_left -= len(piece)
                if self._data_stream is not None:
                    self._data_stream.body.add(piece)
                    self._data_arrived(self._data_stream)
                continue
            if self._pad_left:
                skipped = min(self._pad_left, end - at)
                self._pad_left -= skipped
                at += skipped
                continue
            if end - at < frames.HEAD_BYTES:
                break
            high, low, kind, flags, stream_id = frames.read_head(view, at)
            length = high << 16 | low
            stream_id &= frames.MAX_WINDOW  # without the reserved bit
            start = at + frames.HEAD_BYTES
            if kind == frames.DATA:
                if flags & frames.PADDED and length:
                    if start == end:
                        break
                    self._pad_left = view[start]
                    at = start + 1
                else:
                    at = start
                self._begin_data(stream_id, flags, length)
                continue
            if length > MAX_HEADER_BYTES:
                raise ProtocolError(frames.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            at = start + length
            if at > end:
                at = start - frames.HEAD_BYTES
                break
            self._control(kind, flags, stream_id, bytes(view[start:at]))
        if at < end and not self._over:
            self._rest = bytes(view[at:end])

    def _begin_data(self, stream_id: int, flags: int, length: int) -> None:
        if length > MAX_FRAME_BYTES:
            raise ProtocolError(frames.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
        if not self._settled or self._block is not None or not stream_id:
            raise ProtocolError(frames.PROTOCOL_ERROR, "a DATA frame out of place")
        padding = 0
        if flags & frames.PADDED:
            padding = self._pad_left + 1
            if padding > length:
                raise ProtocolError(frames.PROTOCOL_ERROR, "more padding than its frame")
        self._data_left = length - padding
        self._data_flags, self._data_id = flags, stream_id
        self._data_stream = self.streams.get(stream_id)
        self._unreturned += length
        if self._unreturned > 2**29:  # give the window back before it is used up
            self.write(frames.window_update(0, self._unreturned))
            self._unreturned = 0
        if not self._data_left and self._data_stream is not None:
            self._data_arrived(self._data_stream)

    def _data_arrived(self, stream: S) -> None:
        self._data(stream)
        if not self._data_left:
            if self._data_flags & frames.END_STREAM and self._data_stream is stream:
                self._ended(stream)
            self._data_stream = None

    def _ignore_data(self, stream: S) -> None:
        """What still comes of its body is of no use."""
        if self._data_stream is stream:
            self._data_stream = None

    # --- everything but DATA -------------------------------------------------------------------

    def _control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if not self._settled:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise ProtocolError(frames.PROTOCOL_ERROR, "HTTP/2 begins with settings")
        elif self._block is not None and kind != frames.CONTINUATION:
            raise ProtocolError(frames.PROTOCOL_ERROR, "headers without their end")
        frames.check(kind, stream_id, len(payload))
        match kind:
            case frames.HEADERS:
                self._header_part(stream_id, flags, frames.unpadded(flags, payload))
            case frames.CONTINUATION:
                if self._block is None or self._block[0] != stream_id:
                    raise ProtocolError(frames.PROTOCOL_ERROR, "a continuation of nothing")
                _, first, so_far = self._block
                self._header_part(
                    stream_id,
                    flags & frames.END_HEADERS | first & frames.END_STREAM,
                    so_far + payload,
                )
            case frames.RST_STREAM:
                self._reset(stream_id, int.from_bytes(payload, "big"))
            case frames.SETTINGS:
                self._settings(flags, payload)
            case frames.PING:
                if flags & frames.ACK:
                    self._pong(payload)
                else:
                    self.write(frames.frame(frames.PING, frames.ACK, 0, payload))
            case frames.GOAWAY:
                last = int.from_bytes(payload[:4], "big") & frames.MAX_WINDOW
                self._go_away(last, int.from_bytes(payload[4:8], "big"))
            case frames.WINDOW_UPDATE:
                more = int.from_bytes(payload, "big") & frames.MAX_WINDOW
                self._window_opens(stream_id, more)
            case frames.PUSH_PROMISE:
                raise ProtocolError(frames.PROTOCOL_ERROR, "a push, although none was allowed")
            case _:
                pass  # PRIORITY means nothing any more; unknown kinds are ignored (RFC 9113 5.5)

    def _header_part(self, stream_id: int, flags: int, block: bytes) -> None:
        if len(block) > MAX_HEADER_BYTES:
            raise ProtocolError(frames.ENHANCE_YOUR_CALM, "headers that are too long")
        if flags & frames.END_HEADERS:
            self._block = None
            self._headers(stream_id, flags, block)
        else:
            self._block = stream_id, flags, block

    def _window_opens(self, stream_id: int, more: int) -> None:
        if not stream_id:
            self._window += more
            if not more or self._window > frames.MAX_WINDOW:
                raise ProtocolError(
                    frames.FLOW_CONTROL_ERROR if more else frames.PROTOCOL_ERROR,
                    f"a window update of {more}",
                )
        else:
            stream = self.streams.get(stream_id)
            if stream is None:
                return
            stream.window += more
            if not more or stream.window > frames.MAX_WINDOW:
                code = frames.FLOW_CONTROL_ERROR if more else frames.PROTOCOL_ERROR
                self.write(frames.reset(stream_id, code))
                self._reset(stream_id, code)
        if self._waiting:
            self._flush()

    def _settings(self, flags: int, payload: bytes) -> None:
        if flags & frames.ACK:
            if payload:
                raise ProtocolError(frames.FRAME_SIZE_ERROR, "an acknowledgement with settings")
            return
        if len(payload) % 6:
            raise ProtocolError(frames.FRAME_SIZE_ERROR, f"settings of {len(payload)} bytes")
        for at in range(0, len(payload), 6):
            name = int.from_bytes(payload[at : at + 2], "big")
            value = int.from_bytes(payload[at + 2 : at + 6], "big")
            if name == frames.MAX_CONCURRENT_STREAMS:
                self._max_streams(value)
            elif name == frames.INITIAL_WINDOW_SIZE:
                if value > frames.MAX_WINDOW:
                    raise ProtocolError(frames.FLOW_CONTROL_ERROR, f"a window of {value}")
                for stream in self.streams.values():
                    stream.window += value - self._first_window
                    if stream.window > frames.MAX_WINDOW:
                        raise ProtocolError(frames.FLOW_CONTROL_ERROR, "a window too large")
                self._first_window = value
            elif name == frames.MAX_FRAME_SIZE:
                if not frames.MIN_FRAME_BYTES <= value < 1 << 24:
                    raise ProtocolError(frames.PROTOCOL_ERROR, f"frames of {value} bytes")
                self._frame_bytes = value
            elif name == frames.ENABLE_PUSH and value > 1:
                raise ProtocolError(frames.PROTOCOL_ERROR, f"a push setting of {value}")
        self.write(frames.SETTINGS_ACK)
        if not self._settled:
            self._settled = True
            self._settings_are_there()
        if self._waiting:
            self._flush()
