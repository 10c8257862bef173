"""Messages that a client has compressed (`grpc-encoding`)."""

import zlib

ENCODINGS = {b"gzip": 31, b"deflate": 15}
"""grpc-encoding -> zlib's window bits."""


class TooLarge(Exception):
    """More than the limit when unpacked."""


def unpack(data: memoryview, encoding: bytes, max_bytes: int) -> memoryview:
    """Raises TooLarge; ValueError when `data` is not what it says."""
    unpacker = zlib.decompressobj(ENCODINGS[encoding])
    try:
        found = unpacker.decompress(data, max_bytes + 1)
    except zlib.error as exc:
        raise ValueError(str(exc)) from None
    if len(found) > max_bytes:
        raise TooLarge
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("it is cut off, or something follows it")
    return memoryview(found)
