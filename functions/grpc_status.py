"""gRPC's status codes; no grpcio is needed to know them."""

from enum import IntEnum


class Status(IntEnum):
    """Names and numbers as in gRPC's statuscodes.md."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


def quoted(text: str) -> bytes:
    """A status's text as `grpc-message` has it: percent-encoded UTF-8."""
    data = text.encode("utf-8", "replace")
    if data.isascii() and text.isprintable() and b"%" not in data:
        return data
    return b"".join(
        b"%c" % byte if 0x20 <= byte < 0x7F and byte != 0x25 else b"%%%02X" % byte for byte in data
    )
