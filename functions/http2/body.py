"""The body of a message while it arrives: in one buffer where its length can be known."""

PREFIX_BYTES = 5
"""gRPC's: whether the message is compressed, and its length."""

_TRUST = 16
"""A buffer is made for up to this many times what has arrived: claims cost the sender something."""

_NOTHING = memoryview(b"")


class Body:
    """Pieces of one body; a gRPC message's prefix tells how much room it needs."""

    __slots__ = ("_chunks", "_room", "size")

    def __init__(self) -> None:
        self._chunks: list[bytes | bytearray] = []
        self._room = 0  # at the end of the last chunk
        self.size = 0

    def add(self, piece: memoryview) -> None:
        """Take a copy of a piece."""
        length = len(piece)
        if not self._chunks:
            self._begin(piece, length)
            return
        part = min(self._room, length)
        if part:
            self._fill(piece[:part])
        if part < length:
            self._grow(piece[part:])

    def _begin(self, piece: memoryview, length: int) -> None:
        claimed = PREFIX_BYTES + int.from_bytes(piece[1:5], "big") if length >= 5 else length
        if length >= claimed or piece[0] > 1:  # all of it, or no gRPC message
            self._chunks.append(bytes(piece))
            self.size = length
        else:
            self._grow(piece, claimed)

    def _grow(self, piece: memoryview, claimed: int = 0) -> None:
        length = len(piece)
        if self.size >= PREFIX_BYTES:
            claimed = self.claimed
        capacity = min(claimed - self.size, _TRUST * (self.size + length))
        chunk = bytearray(max(capacity, length))
        self._chunks.append(chunk)
        self._room = len(chunk)
        self._fill(piece)

    def _fill(self, piece: memoryview) -> None:
        chunk = self._chunks[-1]
        assert isinstance(chunk, bytearray)
        start = len(chunk) - self._room
        chunk[start : start + len(piece)] = piece
        self._room -= len(piece)
        self.size += len(piece)

    @property
    def claimed(self) -> int:
        """The whole size as the prefix has it; 0 while that is not there."""
        if self.size < PREFIX_BYTES:
            return 0
        first = self._chunks[0]
        if len(first) < PREFIX_BYTES:
            first = b"".join(self._chunks)
        return PREFIX_BYTES + int.from_bytes(first[1:PREFIX_BYTES], "big")

    def room(self, at_most: int) -> memoryview:
        """Where the next bytes may be received; say `received` then. Empty when there is none."""
        if not self._room:
            return _NOTHING
        chunk = self._chunks[-1]
        start = len(chunk) - self._room
        return memoryview(chunk)[start : start + at_most]

    def received(self, count: int) -> None:
        self._room -= count
        self.size += count

    def whole(self) -> memoryview:
        """All that has arrived."""
        chunks = self._chunks
        if not chunks:
            return _NOTHING
        if len(chunks) > 1:
            last = memoryview(chunks[-1])
            chunks[:] = [b"".join([*chunks[:-1], last[: len(last) - self._room]])]
            self._room = 0
        return memoryview(chunks[0])[: self.size].toreadonly()
