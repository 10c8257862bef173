"""Large bytes fields of protobuf messages, left where they are.

A parser copies each of them out of the message and a serializer copies it in again. Tensors are
too large for that: they are cut out of a received message as views, and a message to be sent is a
list of pieces with the very buffers in it. All else of a message goes through protobuf.
"""

from collections.abc import Iterable

from .buffers import Buffer


def field_start(number: int, length: int) -> bytes:
    """What stands before the contents of a length-delimited field (wire type 2)."""
    return varint(number << 3 | 2) + varint(length)


def varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def with_fields(head: bytes, number: int, contents: Iterable[Buffer]) -> list[Buffer]:
    """A message in pieces: `head`, and the bytes field `number` once for each of `contents`."""
    pieces: list[Buffer] = [head]
    for content in contents:
        pieces.append(field_start(number, len(content)))
        pieces.append(content)
    return pieces


def cut_fields(view: memoryview, number: int) -> tuple[bytes, list[memoryview]]:
    """(message without the bytes field `number`, its contents as they lie in `view`).

    Raises ValueError when it is no message.
    """
    rest: list[memoryview] = []
    found: list[memoryview] = []
    wanted = number << 3 | 2
    at = kept = 0
    end = len(view)
    while at < end:
        start = at
        tag = view[at]
        at += 1
        if tag > 0x7F:
            tag, at = _read_varint(view, start)
        kind = tag & 7
        if kind == 2:
            length, at = _read_varint(view, at)
            at += length
            if at > end:
                raise ValueError("the message is cut off")
            if tag == wanted:
                if start > kept:
                    rest.append(view[kept:start])
                found.append(view[at - length : at])
                kept = at
        elif kind == 0:
            _, at = _read_varint(view, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind} in the message")
    if kept < end:
        rest.append(view[kept:])
    return b"".join(rest), found


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("the message is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
