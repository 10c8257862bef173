"""Frames: numbers, heads, and what is wrong with them (RFC 9113, sections 4 to 7)."""

import struct

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9
"""Kinds."""

END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
"""Flags."""

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 5, 6, 7, 8, 9
ENHANCE_YOUR_CALM = 11
"""Error codes."""

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6
"""Settings."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""A client's first words."""

DEFAULT_WINDOW = 65535
MAX_WINDOW = 2**31 - 1
MIN_FRAME_BYTES = 16384
"""The largest payload that may be sent to a peer that has not said more."""

_HEAD = struct.Struct(">BHBBI")
HEAD_BYTES = _HEAD.size
read_head = _HEAD.unpack_from
"""(data, offset) -> high byte and low bytes of the payload's length, kind, flags, stream."""


class ProtocolError(Exception):
    """The peer broke the protocol in a way that ends the connection."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    length = len(payload)
    return _HEAD.pack(length >> 16, length & 0xFFFF, kind, flags, stream) + payload


def head(kind: int, flags: int, stream: int, length: int) -> bytes:
    return _HEAD.pack(length >> 16, length & 0xFFFF, kind, flags, stream)


def settings(values: dict[int, int]) -> bytes:
    payload = b"".join(struct.pack(">HI", name, value) for name, value in values.items())
    return frame(SETTINGS, 0, 0, payload)


SETTINGS_ACK = frame(SETTINGS, ACK, 0, b"")


def window_update(stream: int, more: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, more.to_bytes(4, "big"))


def reset(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def go_away(last_stream: int, code: int, reason: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last_stream, code) + reason.encode()[:200])


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload of a HEADERS frame without padding and priority. Raises ProtocolError."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise ProtocolError(FRAME_SIZE_ERROR, "a padded frame without its padding's length")
        start, end = 1, end - payload[0]
    if flags & WITH_PRIORITY:
        start += 5
    if start > end:
        raise ProtocolError(PROTOCOL_ERROR, "more padding than the frame has room for")
    return payload[start:end]


SIZES = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
"""Kinds whose payload has exactly this many bytes."""


def check(kind: int, stream: int, length: int) -> None:
    """What can be said of a frame by itself. Raises ProtocolError."""
    if SIZES.get(kind, length) != length:
        raise ProtocolError(FRAME_SIZE_ERROR, f"a frame of kind {kind} with {length} bytes")
    if kind in (SETTINGS, PING, GOAWAY):
        if stream:
            raise ProtocolError(PROTOCOL_ERROR, f"a frame of kind {kind} on stream {stream}")
    elif not stream and kind < CONTINUATION + 1 and kind != WINDOW_UPDATE:
        raise ProtocolError(PROTOCOL_ERROR, f"a frame of kind {kind} on stream 0")
    if kind == GOAWAY and length < 8:
        raise ProtocolError(FRAME_SIZE_ERROR, f"GOAWAY with {length} bytes")
