"""The chunked transfer coding (RFC 9112 7.1), both ways. Incremental and strict; no I/O."""

import re

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*")
_MAX_LINE_BYTES = 4096
_MAX_TRAILER_BYTES = 16384

LAST_CHUNK = b"0\r\n\r\n"


class BadChunk(Exception):
    """The coding is malformed; the connection cannot be used any further."""


def encode_chunk(data: bytes) -> bytes:
    """One chunk; `data` must not be empty (an empty chunk would end the body)."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class ChunkedDecoder:
    """Feed it bytes, collect pieces; `done` once the last chunk and the trailer are through.

    `feed(data)` returns the decoded pieces; after `done`, `rest` holds what follows the body.
    Trailer fields are checked and dropped. Raises BadChunk.
    """

    __slots__ = ("_buffer", "_need", "_state", "_trailer_bytes", "done", "rest")

    def __init__(self) -> None:
        self._buffer = b""
        self._state = 0  # 0 size line, 1 data, 2 line end after data, 3 trailer
        self._need = 0
        self._trailer_bytes = 0
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        pieces: list[bytes] = []
        data = self._buffer + data if self._buffer else data
        at = 0
        while not self.done:
            if self._state == 1:
                piece = data[at : at + self._need]
                if piece:
                    pieces.append(piece)
                    at += len(piece)
                    self._need -= len(piece)
                if self._need:
                    break
                self._state = 2
            elif self._state == 2:
                if len(data) - at < 2:
                    break
                if data[at : at + 2] != b"\r\n":
                    raise BadChunk("a chunk does not end in CR LF")
                at += 2
                self._state = 0
            else:
                end = data.find(b"\n", at, at + _MAX_LINE_BYTES)
                if end < 0:
                    if len(data) - at >= _MAX_LINE_BYTES:
                        raise BadChunk("a chunk line is too long")
                    break
                self._line(data[at : end + 1])
                at = end + 1
        self._buffer = data[at:] if not self.done else b""
        if self.done:
            self.rest = data[at:]
        return pieces

    def _line(self, line: bytes) -> None:
        if not line.endswith(b"\r\n"):
            raise BadChunk("a chunk line does not end in CR LF")
        text = line[:-2]
        if self._state == 0:
            match = _SIZE.fullmatch(text)
            if match is None:
                raise BadChunk("a chunk size is malformed")
            self._need = int(match[1], 16)
            self._state = 1 if self._need else 3
        elif text:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > _MAX_TRAILER_BYTES or _TRAILER.fullmatch(text) is None:
                raise BadChunk("the trailer is malformed or too long")
        else:
            self.done = True
