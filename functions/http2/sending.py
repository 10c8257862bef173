"""The way out of a connection: frames, windows, turns. The buffers that were handed in are sent as
they are."""

import asyncio
from collections.abc import Sequence
from typing import Generic, TypeVar, cast

from functions.buffers import Buffer, joined

from . import frames
from .body import Body

_TURN_BYTES = 1 << 20
"""What one stream may send before it is another's turn."""

_LARGEST_SENT_FRAME = 1 << 20
_SMALL_BYTES = 4096
"""Pieces up to this are joined before they are written."""


class Stream:
    """One call on a connection, as far as both ends know it."""

    __slots__ = ("body", "end", "id", "unsent", "window")

    def __init__(self, stream_id: int, window: int) -> None:
        self.id = stream_id
        self.window = window
        """How much the peer takes yet."""
        self.body = Body()
        """What has arrived."""
        self.unsent: list[memoryview] = []
        self.end: bytes | None = None
        """What follows the last of `unsent`: a frame; nothing but the end of the stream when it is
        empty; None when there may be more to send."""


S = TypeVar("S", bound=Stream)


class Sender(Generic[S]):
    """One end of a connection, as far as it writes."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._window = self._first_window = frames.DEFAULT_WINDOW
        self._frame_bytes = frames.MIN_FRAME_BYTES
        self._waiting: dict[int, S] = {}
        """Streams with something unsent, the next in turn first."""
        self.write_paused = False

    def _sent(self, stream: S, out: list[Buffer]) -> None:
        """All of the stream is in `out`, its end too."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's, but keep to its interface.
        self._transport = cast("asyncio.Transport", transport)

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._waiting:
            self._flush()

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _send(self, stream: S, before: bytes, pieces: Sequence[Buffer], end: bytes | None) -> None:
        """Send `before`, a frame, then the pieces as DATA, as far as the windows allow at once, and
        the rest as they open."""
        stream.unsent += [memoryview(piece) for piece in pieces if len(piece)]
        stream.end = end
        out: list[Buffer] = [before]
        if stream.id in self._waiting:
            pass
        elif stream.unsent and (self.write_paused or not self._take_unsent(stream, out)):
            self._waiting[stream.id] = stream
        elif not stream.unsent:
            self._take_end(stream, out)
        self._write(out)
        if self._waiting:
            self._flush()  # it was only its turn that was over

    def _take_unsent(self, stream: S, out: list[Buffer]) -> bool:
        """Move as much of the stream into frames as both windows and its turn allow; whether that
        is all."""
        pieces = stream.unsent
        left = _TURN_BYTES
        largest = min(self._frame_bytes, _LARGEST_SENT_FRAME)
        while pieces:
            room = min(self._window, stream.window, largest, left)
            if room <= 0:
                return False
            at = len(out)
            out.append(b"")
            size = 0
            while pieces and size < room:
                piece = pieces[0]
                if len(piece) > room - size:
                    pieces[0] = piece[room - size :]
                    piece = piece[: room - size]
                else:
                    del pieces[0]
                size += len(piece)
                out.append(piece)
            self._window -= size
            stream.window -= size
            left -= size
            flags = frames.END_STREAM if not pieces and stream.end == b"" else 0
            out[at] = frames.head(frames.DATA, flags, stream.id, size)
        return True

    def _take_end(self, stream: S, out: list[Buffer]) -> None:
        if stream.end is not None:
            if stream.end:
                out.append(stream.end)
            self._sent(stream, out)

    def _flush(self) -> None:
        """Send what windows and the transport have room for, in turns."""
        progress = True
        while progress and self._waiting and not self.write_paused:
            progress = False
            out: list[Buffer] = []
            for stream in list(self._waiting.values()):
                before = len(out)
                del self._waiting[stream.id]
                if self._take_unsent(stream, out):
                    self._take_end(stream, out)
                else:
                    self._waiting[stream.id] = stream
                if len(out) > before:
                    progress = True
                    break
            self._write(out)

    def _write(self, out: list[Buffer]) -> None:
        """One write of few buffers: small ones are joined."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        buffers = joined(out, _SMALL_BYTES)
        if len(buffers) == 1:
            transport.write(buffers[0])
        elif buffers:
            transport.writelines(buffers)
