"""Bytes in whatever they are in."""

from collections.abc import Iterable

Buffer = bytes | bytearray | memoryview


def joined(pieces: Iterable[Buffer], small_bytes: int) -> list[Buffer]:
    """Neighbours of up to `small_bytes` in one buffer, larger ones as they are: few buffers to
    write, and no large one copied."""
    found: list[Buffer] = []
    small: list[Buffer] = []
    for piece in pieces:
        if len(piece) <= small_bytes:
            small.append(piece)
            continue
        if small:
            found.append(b"".join(small))
            small = []
        found.append(piece)
    if small:
        found.append(b"".join(small))
    return found
