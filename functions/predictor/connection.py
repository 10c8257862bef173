"""One HTTP/1.1 connection to a predictor: one request at a time, its answer read in place.

The body of an answer is received straight into the one buffer that its tensors will be views of
(`BufferedProtocol`), and request bodies go out as the list of buffers they are in.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from functions.buffers import Buffer
from functions.wire.http1_chunked import BadChunk, ChunkedDecoder
from functions.wire.http1_head import BadHead, HeadCache, ResponseHead, parse_response_head

if TYPE_CHECKING:
    from .pool import Pool

_SCRATCH_BYTES = 65536
_MAX_HEAD_BYTES = 65536
_SMALL_BYTES = 32768
"""Below this one buffer for head and body costs less than two for the kernel."""

_heads: HeadCache[ResponseHead] = HeadCache()


class Broken(Exception):
    """The exchange failed; the connection is closed.

    `stale`: a kept connection was closed without a byte of an answer, as a server does whose
    keep-alive time is over.
    """

    def __init__(self, reason: str, *, stale: bool = False) -> None:
        super().__init__(reason)
        self.stale = stale


class Response:
    """A whole answer."""

    __slots__ = ("body", "head", "status")

    def __init__(self, head: ResponseHead, body: Buffer) -> None:
        self.status = head.status
        self.head = head
        self.body = body

    def field(self, name: bytes) -> str | None:
        """The first value of a field; `name` in lower case."""
        for key, value in self.head.headers:
            if key.lower() == name:
                return value.decode("latin-1")
        return None


class Connection(asyncio.BufferedProtocol):
    """Owned by a `Pool`: idle there, or serving one `exchange`."""

    def __init__(self, pool: "Pool", max_bytes: int) -> None:
        self._pool = pool
        self._max_bytes = max_bytes
        self._transport: asyncio.Transport | None = None
        self._scratch = bytearray(_SCRATCH_BYTES)
        self._waiter: asyncio.Future[Response] | None = None
        self.alive = True
        """False once either side has begun to close it."""
        self.idle_since = 0.0
        self._used = False
        self._unasked = ""
        self._reset()

    def _reset(self) -> None:
        self._head: ResponseHead | None = None
        self._read = b""  # of a head that is not complete
        self._body: bytearray | None = None  # of known length, being filled
        self._view = memoryview(b"")
        self._filled = 0
        self._pieces: list[bytes] = []  # of a body of unknown length
        self._size = 0
        self._decoder: ChunkedDecoder | None = None

    # --- the pool's side -----------------------------------------------------------------------

    async def exchange(self, head: bytes, body: Sequence[Buffer]) -> Response:
        """Send one request, wait for its answer. Raises Broken.

        A cancelled exchange closes the connection: its answer would be in the way of the next.
        """
        transport = self._transport
        assert transport is not None
        assert self._waiter is None
        if not self.alive:  # the other side closed it, or spoke first, before it was asked
            raise Broken(self._unasked or _CLOSED, stale=self._used)
        waiter: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiter = waiter
        if sum(map(len, body)) < _SMALL_BYTES:
            transport.write(b"".join([head, *body]))
        else:
            transport.writelines([head, *body])
        try:
            return await waiter
        finally:
            self._waiter = None
            if not waiter.done() or waiter.cancelled():
                self.abort()

    @property
    def reusable(self) -> bool:
        return self.alive and self._waiter is None

    def close(self) -> None:
        self.alive = False
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        self.alive = False
        if self._transport is not None:
            self._transport.abort()

    # --- the transport's side ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's, but keep to its interface.
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview | bytearray:
        return self._view if self._body is not None else self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        if self._waiter is None or self._waiter.done():  # an answer nobody asked for
            if not self._used:
                self._unasked = _greeting(bytes(self._scratch[: min(nbytes, 8)]))
            self.abort()
            return
        if self._body is not None:
            self._filled += nbytes
            self._view = self._view[nbytes:]
            if not self._view:
                self._complete(self._body)
            return
        try:
            self._take(bytes(memoryview(self._scratch)[:nbytes]))
        except (BadHead, BadChunk) as bad:
            self._fail(f"sent garbage: {bad}")

    def eof_received(self) -> bool:
        self.alive = False
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        self._pool.lost(self)
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        head = self._head
        if head is not None and head.length < 0 and not head.chunked and exc is None:
            # The end of the connection is the end of the body.
            waiter.set_result(Response(head, b"".join(self._pieces)))
        elif head is None and not self._read:
            waiter.set_exception(Broken(_CLOSED, stale=self._used))
        else:
            waiter.set_exception(Broken("closed the connection in the middle of its answer"))

    # --- reading an answer ---------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        while self._head is None:
            data = self._read + data if self._read else data
            end = data.find(b"\r\n\r\n") + 4
            if end <= 3:
                _check_start(data)
                if len(data) > _MAX_HEAD_BYTES:
                    raise BadHead(502, "the response head is too long")
                self._read = data
                return
            block, data, self._read = data[:end], data[end:], b""
            head = _heads.get(block)
            if head is None:
                _check_start(block)
                head = parse_response_head(block)
                _heads.put(block, head)
            if head.status == 101:
                raise BadHead(502, "a protocol switch nobody asked for")
            if head.status < 200:
                if not data:
                    return
                continue
            self._begin_body(head)
        self._take_body(self._head, data)

    def _begin_body(self, head: ResponseHead) -> None:
        self._head = head
        if head.encoding:
            raise BadHead(502, f"a body coded with {head.encoding.decode('latin-1')}, unasked")
        if head.length > self._max_bytes:
            self._too_large()
        if head.chunked:
            self._decoder = ChunkedDecoder()

    def _take_body(self, head: ResponseHead, data: bytes) -> None:
        if self._waiter is None or self._waiter.done():
            return  # refused already
        if self._decoder is not None:
            for piece in self._decoder.feed(data):
                self._keep(piece)
            if self._decoder.done:
                self.alive = self.alive and not self._decoder.rest
                self._complete(b"".join(self._pieces))
        elif head.length < 0:
            self._keep(data)
        elif len(data) >= head.length:
            self.alive = self.alive and len(data) == head.length
            self._complete(data[: head.length])
        else:
            body = self._body = bytearray(head.length)
            self._view = memoryview(body)
            self._view[: len(data)] = data
            self._view = self._view[len(data) :]

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max_bytes:
            self._too_large()
        elif piece:
            self._pieces.append(piece)

    def _too_large(self) -> None:
        self._fail(f"sent an answer of more than {self._max_bytes} bytes")

    def _complete(self, body: Buffer) -> None:
        head, waiter, transport = self._head, self._waiter, self._transport
        assert head is not None
        assert transport is not None
        if not head.keep_alive or transport.get_write_buffer_size():
            # In the second case it answered before it had our whole request.
            self.alive = False
        self._used = True
        self._reset()
        if not self.alive:
            transport.close()
        if waiter is not None and not waiter.done():
            waiter.set_result(Response(head, body))

    def _fail(self, reason: str) -> None:
        waiter = self._waiter
        self.abort()
        if waiter is not None and not waiter.done():
            waiter.set_exception(Broken(reason))


_CLOSED = "closed the connection without an answer"


def _greeting(data: bytes) -> str:
    """What is wrong with a server that speaks first, as gRPC's do."""
    try:
        _check_start(data)
    except BadHead as bad:
        return f"sent garbage: {bad}"
    return "sent garbage: an answer before it was asked"


def _check_start(data: bytes) -> None:
    """Say at once what it is when it is no HTTP/1: the usual mistakes have telling first bytes."""
    start = data[:8]
    if start[:2] in (b"\x15\x03", b"\x16\x03"):
        raise BadHead(
            502, "its answer is TLS: give the predictor as https://… or --predictor-use-ssl true"
        )
    if len(start) >= 4 and start[:2] == b"\x00\x00" and start[3] in (4, 7):
        raise BadHead(502, "its answer is HTTP/2: a gRPC port wants --predictor-protocol grpc-v2")
    if not b"HTTP/1.".startswith(start[:7]):
        raise BadHead(502, "its answer is no HTTP/1")
