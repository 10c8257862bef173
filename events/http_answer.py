"""An HTTP/1.1 answer read piece by piece, whoever brings the pieces: sockets or an event loop.

    reader = AnswerReader()
    while not reader.feed(data): ...        # or reader.end() when the connection ended
    answer = reader.answer()

Heads and chunks are parsed by the wire's own strict parsers. No I/O.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from functions.wire.headers import lower_text
from functions.wire.http1_chunked import ChunkedDecoder
from functions.wire.http1_head import BadHead, ResponseHead, parse_response_head

MAX_HEAD_BYTES = 65536
MAX_ANSWER_BYTES = 64 << 20
"""An answer longer than this is an error, not a reason to run out of memory."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP response; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class AnswerTooLong(Exception):
    """The body is longer than allowed; `size` as far as it is known."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(f"the answer has more than {most} bytes")
        self.size = size
        self.most = most


class AnswerReader:
    """One answer. `feed` and `end` raise BadHead, BadChunk and `AnswerTooLong`."""

    __slots__ = (
        "_bodiless",
        "_buffer",
        "_chunks",
        "_head",
        "_most",
        "_pieces",
        "_size",
        "_surplus",
    )

    def __init__(self, most: int = MAX_ANSWER_BYTES, *, bodiless: bool = False) -> None:
        """`most`: bytes of a 2xx body (errors may always have 64 MiB); `bodiless`: to a HEAD."""
        self._most = most
        self._bodiless = bodiless
        self._buffer = b""
        self._head: ResponseHead | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._surplus = False
        self._chunks: ChunkedDecoder | None = None

    @property
    def started(self) -> bool:
        """Whether any byte has come."""
        return self._head is not None or bool(self._buffer)

    @property
    def keep_alive(self) -> bool:
        """Whether the connection may be used again, now that the answer is complete: not after
        bytes that belong to nothing."""
        head = self._head
        if head is None or not head.keep_alive or self._surplus:
            return False
        return self._chunks is None or not self._chunks.rest

    def feed(self, data: bytes) -> bool:
        """More bytes; True: the answer is complete."""
        head = self._head
        if head is None:
            buffer = self._buffer + data if self._buffer else data
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(buffer) > MAX_HEAD_BYTES:
                    raise BadHead(502, "the answer's head is too long")
                self._buffer = buffer
                return False
            head = parse_response_head(buffer[: end + 4])
            data = buffer[end + 4 :]
            self._buffer = b""
            if head.status < 200:  # 100 Continue and the like: the answer is still to come
                return bool(data) and self.feed(data)
            self._head = head
            if self._bodiless or head.status in (204, 304):
                self._surplus = bool(data)
                return True
            if not 200 <= head.status < 300:
                self._most = max(self._most, MAX_ANSWER_BYTES)
            if head.length > self._most:
                raise AnswerTooLong(head.length, self._most)
            self._chunks = ChunkedDecoder() if head.chunked else None
        if self._chunks is None:
            self._pieces.append(data)
            self._size += len(data)
        else:
            pieces = self._chunks.feed(data)
            self._pieces += pieces
            self._size += sum(map(len, pieces))
        if self._size > self._most:
            raise AnswerTooLong(self._size, self._most)
        if self._chunks is not None:
            return self._chunks.done
        if head.length < 0 or self._size < head.length:
            return False
        if self._size > head.length:
            self._surplus = True
            self._pieces = [b"".join(self._pieces)[: head.length]]
        return True

    def end(self) -> bool:
        """The connection ended; True: and with it the body, as some servers mark it."""
        head = self._head
        return head is not None and self._chunks is None and head.length < 0

    def answer(self) -> Answer:
        """The complete answer."""
        head = self._head
        assert head is not None
        fields = {lower_text(name): value.decode("latin-1") for name, value in head.headers}
        return Answer(head.status, fields, b"".join(self._pieces))
