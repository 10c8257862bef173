"""Header blocks of HTTP/2 (RFC 7541), without tables: ours are plain literals, and the peer is told
to keep none either. So equal blocks have equal meanings, and are parsed once.
"""

from collections.abc import Iterable
from typing import Any

import hpack

from .connection import Broken

_KEPT_BLOCKS = 256
_KEPT_BYTES = 512
"""Longer blocks are not likely to come back."""


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


class HeaderReader:
    """Blocks of one connection, in the order they arrive."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._known: dict[bytes, dict[bytes, bytes]] = {}
        self._decoder: Any = None

    def read(self, block: bytes) -> dict[bytes, bytes]:
        """Names and values. Shared by equal blocks: not to be changed. Raises Broken."""
        headers = self._known.get(block)
        if headers is None:
            headers = self._decode(block)
            if len(block) < _KEPT_BYTES and len(self._known) < _KEPT_BLOCKS:
                self._known[block] = headers
        return headers

    def _decode(self, block: bytes) -> dict[bytes, bytes]:
        if self._decoder is None:
            self._decoder = hpack.Decoder(self._max_bytes)
            self._decoder.max_allowed_table_size = 0
            self._decoder.header_table_size = 0
        try:
            found: Iterable[tuple[bytes, bytes]] = self._decoder.decode(block, raw=True)
            return {bytes(name): bytes(value) for name, value in found}
        except hpack.HPACKError as exc:
            raise Broken(f"sent garbage: {exc}") from exc
