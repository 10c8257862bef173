"""Header blocks (HPACK, RFC 7541).

What we send are plain literals, which need no table at the other end. What comes is decoded here;
`hpack` lends its static table and its Huffman decoder, its own decoder takes ten times as long. A
block that leaves the table as it is means the same when it comes again, so it is kept with what was
made of it: most calls of a client cost one look-up.
"""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from hpack.exceptions import HPACKError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from .frames import COMPRESSION_ERROR, ProtocolError

Fields = list[tuple[bytes, bytes]]

TABLE_BYTES = 4096
"""Of the dynamic table: the size that every peer begins with."""

_KEPT_BLOCKS = 128
_KEPT_BYTES = 2048
"""Longer blocks are not likely to come back."""

_STATIC: tuple[tuple[bytes, bytes], ...] = (
    (b"", b""),
    *((bytes(name), bytes(value)) for name, value in HeaderTable.STATIC_TABLE),
)
_FIRST_DYNAMIC = len(_STATIC)
_ENTRY_BYTES = 32
"""What an entry counts beyond its name and value (RFC 7541 4.1)."""


def literal(name: bytes, value: bytes, *, secret: bool = False) -> bytes:
    """A header field that no table keeps (RFC 7541 6.2.2; `secret`: and no proxy may, 6.2.3)."""
    return b"".join([b"\x10" if secret else b"\x00", _size(name), name, _size(value), value])


def _size(text: bytes) -> bytes:
    """A string's length, an integer with a 7-bit prefix (RFC 7541 5.1)."""
    length = len(text)
    if length < 127:
        return bytes([length])
    out = bytearray([127])
    length -= 127
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    out.append(length)
    return bytes(out)


class Decoder:
    """The blocks of one connection, in the order they arrive."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes` limits a list of fields, counted as HTTP/2 does (RFC 9113 6.5.2)."""
        self._max_bytes = max_bytes
        self._table: deque[tuple[bytes, bytes]] = deque()  # the newest first
        self._bytes = 0
        self._limit = TABLE_BYTES
        self.changed = False
        """The last block has changed the table."""

    def decode(self, block: bytes) -> Fields | None:
        """The fields in order; None when they are more than the limit (the table has been kept up
        to date all the same). Raises ProtocolError."""
        self.changed = False
        fields: Fields = []
        size = 0
        at, end = 0, len(block)
        try:
            while at < end:
                first = block[at]
                at += 1
                if first & 0x80:  # indexed
                    index = first & 0x7F
                    if index == 0x7F:
                        index, at = _integer(block, at, 0x7F)
                    field = self._entry(index)
                elif first & 0xE0 == 0x20:  # the table's new size
                    if fields:
                        raise ProtocolError(COMPRESSION_ERROR, "a table size after a field")
                    limit = first & 0x1F
                    if limit == 0x1F:
                        limit, at = _integer(block, at, 0x1F)
                    self._resize(limit)
                    continue
                else:
                    mask = 0x3F if first & 0x40 else 0x0F
                    index = first & mask
                    if index == mask:
                        index, at = _integer(block, at, mask)
                    if index:
                        name = self._entry(index)[0]
                    else:
                        name, at = _string(block, at)
                    value, at = _string(block, at)
                    field = name, value
                    if first & 0x40:
                        self._add(field)
                size += len(field[0]) + len(field[1]) + _ENTRY_BYTES
                if size <= self._max_bytes:
                    fields.append(field)
        except IndexError:
            raise ProtocolError(COMPRESSION_ERROR, "a header block that is cut off") from None
        except HPACKError as exc:
            raise ProtocolError(COMPRESSION_ERROR, f"a header block that is none: {exc}") from None
        return fields if size <= self._max_bytes else None

    def _entry(self, index: int) -> tuple[bytes, bytes]:
        if 0 < index < _FIRST_DYNAMIC:
            return _STATIC[index]
        at = index - _FIRST_DYNAMIC
        if not 0 <= at < len(self._table):
            raise ProtocolError(COMPRESSION_ERROR, f"header table index {index}")
        return self._table[at]

    def _add(self, field: tuple[bytes, bytes]) -> None:
        self.changed = True
        self._table.appendleft(field)
        self._bytes += len(field[0]) + len(field[1]) + _ENTRY_BYTES
        self._evict()

    def _resize(self, limit: int) -> None:
        if limit > TABLE_BYTES:
            raise ProtocolError(COMPRESSION_ERROR, f"a header table of {limit} bytes")
        self.changed = True
        self._limit = limit
        self._evict()

    def _evict(self) -> None:
        while self._bytes > self._limit:
            name, value = self._table.pop()
            self._bytes -= len(name) + len(value) + _ENTRY_BYTES


def _integer(block: bytes, at: int, value: int) -> tuple[int, int]:
    """The rest of an integer whose prefix is full (RFC 7541 5.1)."""
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 28:
            raise ProtocolError(COMPRESSION_ERROR, "an integer that is too large")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    first = block[at]
    at += 1
    length = first & 0x7F
    if length == 0x7F:
        length, at = _integer(block, at, 0x7F)
    end = at + length
    text = block[at:end]
    if len(text) != length:
        raise IndexError
    return (decode_huffman(text) if first & 0x80 else text), end


Made = TypeVar("Made")


class HeaderReader(Generic[Made]):
    """Blocks of one connection -> what `make` makes of their fields (None: of too many)."""

    def __init__(self, max_bytes: int, make: Callable[[Fields | None], Made]) -> None:
        self._make = make
        self._decoder = Decoder(max_bytes)
        self._known: dict[bytes, Made] = {}

    def read(self, block: bytes) -> Made:
        """Shared by equal blocks: not to be changed. Raises ProtocolError, and what `make` does."""
        made = self._known.get(block)
        if made is None:
            made = self._make(self._decoder.decode(block))
            if self._decoder.changed:
                self._known.clear()  # indices mean something else now
            elif len(block) < _KEPT_BYTES:
                if len(self._known) >= _KEPT_BLOCKS:
                    self._known.clear()  # those that do come again will be back
                self._known[block] = made
        return made
