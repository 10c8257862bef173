"""One connection to an upstream: requests out, one at a time, answers in.

The connection knows bytes and framing; what an answer means (redirects, retries, statuses) is the
business of the call that it serves (`Receiver`). It reports to it exactly once: `replied`, or
`failed`, or for a stream `stream_data` ... `stream_end`.
"""

import asyncio
import zlib
from typing import TYPE_CHECKING, Protocol, cast

from functions.wire.http1_chunked import BadChunk, ChunkedDecoder
from functions.wire.http1_head import BadHead, HeadCache, ResponseHead, parse_response_head
from router_fn.calls_core import UpstreamCore
from router_fn.errors import UpstreamError

if TYPE_CHECKING:
    from router_fn.pool import Origin

MAX_HEAD_BYTES = 65536
_INFLATE_STEP = 1 << 20
"""Bytes inflated at a time: a gzip bomb meets the limit before it fills the memory."""

_plain_heads: HeadCache[ResponseHead] = HeadCache()
"""Heads of answers that need nothing special: a length, 2xx-5xx but no redirect, no coding,
keep-alive."""


def _is_plain(head: ResponseHead) -> bool:
    return (
        head.length >= 0
        and head.keep_alive
        and not head.encoding
        and head.status >= 200
        and not 300 <= head.status < 400
    )


class TooLarge(Exception):
    """The answer is longer than we are willing to hold."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


class Receiver(Protocol):
    """Who gets the answer."""

    @property
    def inflates(self) -> bool:
        """We asked for gzip ourselves, so we undo it; otherwise the client did, and gets it as it
        is."""
        ...

    def replied(self, status: int, body: bytes, head: ResponseHead) -> None: ...

    def failed(self, error: UpstreamError) -> None: ...

    def unsent(self) -> None:
        """A reused connection closed before anything was sent: try another one."""
        ...

    def wants_stream(self, head: ResponseHead) -> bool:
        """True to get the body in pieces instead of whole. Asked once per answer, off the fast
        path."""
        ...

    def stream_data(self, data: bytes) -> None: ...

    def stream_end(self) -> None: ...


class UpstreamConnection(UpstreamCore, asyncio.Protocol):
    """A keep-alive connection owned by an `Origin`: idle in its pool, or serving one receiver. The
    one-packet path is in the core."""

    def __init__(self, origin: "Origin") -> None:
        super().__init__(origin, origin.pool, origin.idle, origin.waiting, _plain_heads.heads)
        self.give_up = self.abandon
        """`abandon`, bound once: what a request sets as its `on_abort`."""
        self._limit = origin.max_response_bytes
        self._reset()

    def _reset(self) -> None:
        self._head = None
        self._buffer = b""
        self._pieces: list[bytes] = []
        self._wire = 0
        self._stored = 0
        self._decoder: ChunkedDecoder | None = None
        self._inflate: zlib._Decompress | None = None
        self._streaming = False

    # --- the pool's side -----------------------------------------------------------------------

    def hand_over(self, receiver: Receiver) -> None:
        """Somebody else takes over the rest of the answer."""
        self._receiver = receiver

    def abandon(self) -> None:
        """The receiver lost interest: an answer would be read in vain, so the connection goes."""
        self._receiver = None
        self.alive = False
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        self.alive = False
        if self._transport is not None:
            self._transport.close()

    def pause(self) -> None:
        if self.alive and self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self.alive and self._transport is not None:
            self._transport.resume_reading()

    # --- the transport's side ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's, but keep to its interface.
        self._transport = cast("asyncio.Transport", transport)
        self.write = self._transport.write

    def eof_received(self) -> bool:
        self.alive = False
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        self._origin.lost(self)
        receiver = self._receiver
        if receiver is None:
            return
        head = self._head
        if head is not None and head.length < 0 and not head.chunked and exc is None:
            self._complete(reusable=False)  # the end of the connection is the end of the body
            return
        self._receiver = None
        if (
            not self._fresh
            and head is None
            and not self._buffer
            and self._transport is not None
            and self._transport.get_write_buffer_size() > 0
        ):
            # It had closed before our whole request left this process: nobody can have acted on it.
            receiver.unsent()
            return
        if head is None and not self._buffer:
            reason = "closed the connection without an answer"
        else:
            reason = "closed the connection in the middle of its answer"
        receiver.failed(UpstreamError(reason, kind="closed"))

    # --- reading an answer ---------------------------------------------------------------------

    def _feed(self, data: bytes) -> None:
        if self._receiver is None:  # an answer nobody asked for
            self.close()
            return
        try:
            self._read(data)
        except (BadHead, BadChunk, zlib.error) as bad:
            self._fail(f"sent garbage: {bad}", "garbage")
        except TooLarge as big:
            self._fail(f"sent an answer of more than {big.limit} bytes", "too_large")

    def _read(self, data: bytes) -> None:
        while self._head is None:
            data = self._buffer + data if self._buffer else data
            end = data.find(b"\r\n\r\n") + 4
            if end <= 3:
                if len(data) > MAX_HEAD_BYTES:
                    raise BadHead(502, "the response head is too long")
                self._buffer = data
                return
            block, data, self._buffer = data[:end], data[end:], b""
            head = parse_response_head(block)
            if head.status == 101:
                raise BadHead(502, "a protocol switch nobody asked for")
            if head.status < 200:
                if not data:
                    return
                continue
            if _is_plain(head):
                _plain_heads.put(block, head)
            self._begin_body(head)
        self._body(self._head, data)

    def _begin_body(self, head: ResponseHead) -> None:
        self._head = head
        receiver = self._receiver
        self._streaming = receiver is not None and receiver.wants_stream(head)
        if head.length > self._limit and not self._streaming:
            raise TooLarge(self._limit)
        if head.chunked:
            self._decoder = ChunkedDecoder()
        if head.encoding in (b"gzip", b"x-gzip") and receiver is not None and receiver.inflates:
            self._inflate = zlib.decompressobj(wbits=31)

    def _body(self, head: ResponseHead, data: bytes) -> None:
        """Take in what arrived; `_wire` counts it as the framing does, `_stored` as we keep it."""
        done, clean = False, True
        if self._decoder is not None:
            pieces = self._decoder.feed(data)
            done, clean = self._decoder.done, not self._decoder.rest
        else:
            pieces = [data] if data else []
            if head.length >= 0:
                missing = head.length - self._wire
                done, clean = len(data) >= missing, len(data) <= missing
                if not clean:
                    pieces = [data[:missing]]
                self._wire += len(data)
        for piece in pieces:
            self._take(piece)
        if done:
            self._complete(reusable=clean and head.keep_alive)

    def _take(self, piece: bytes) -> None:
        inflate = self._inflate
        while True:
            plain = piece if inflate is None else inflate.decompress(piece, _INFLATE_STEP)
            if plain:
                self._stored += len(plain)
                if self._streaming:
                    if self._receiver is not None:
                        self._receiver.stream_data(plain)
                elif self._stored > self._limit:
                    raise TooLarge(self._limit)
                else:
                    self._pieces.append(plain)
            if inflate is None or not inflate.unconsumed_tail:
                return
            piece = inflate.unconsumed_tail

    def _complete(self, reusable: bool) -> None:
        head, receiver = self._head, self._receiver
        assert head is not None
        if self._inflate is not None and self._stored and not self._inflate.eof:
            self._fail("sent garbage: its gzip body is cut off", "garbage")
            return
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        streaming = self._streaming
        self._receiver = None
        self._reset()
        if reusable:
            self._fresh = False
            self._origin.release(self)
        else:
            self._origin.answered()
            self.close()
        if receiver is not None:
            if streaming:
                receiver.stream_end()
            else:
                receiver.replied(head.status, body, head)

    def _fail(self, reason: str, kind: str) -> None:
        receiver = self._receiver
        self.abandon()
        if receiver is not None:
            receiver.failed(UpstreamError(reason, kind=kind))
