"""One gRPC call as a server sees it: its head, its answer."""

import re
import struct
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from functions.buffers import Buffer
from functions.grpc_status import Status, quoted

from . import frames
from .headers import Fields, literal
from .sending import Stream

if TYPE_CHECKING:
    from .server_connection import Method, ServerConnection

_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])\Z")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}

_PSEUDO = frozenset({b":method", b":path", b":scheme", b":authority"})
_NEVER = frozenset({
    b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade",
})  # fmt: skip
"""Fields of HTTP/1 that make a request of HTTP/2 malformed (RFC 9113 8.2.2)."""

_MAX_TEXT_BYTES = 4096
"""Of a status's text, encoded: clients limit the trailers they take (grpcio: to 8 KiB)."""


class RequestHead:
    """The fields of a request; equal blocks share one."""

    __slots__ = ("encoding", "http_status", "is_malformed", "metadata", "path", "refusal",
                 "timeout_s")  # fmt: skip

    def __init__(self, fields: Fields | None) -> None:
        """`fields`: None when there were too many."""
        self.path = b""
        self.metadata: dict[str, str] = {}
        """The caller's own fields, without binary (`-bin`) ones."""
        self.timeout_s = 0.0
        """0: the caller sets no limit."""
        self.encoding = b"identity"
        """Of messages that are marked as compressed."""
        self.is_malformed = False
        """No request of HTTP/2 at all."""
        self.http_status = 200
        """Another one when it is no gRPC call."""
        self.refusal: tuple[Status, str] | None = None
        if fields is None:
            self.refusal = Status.RESOURCE_EXHAUSTED, "the request's metadata is too large"
        else:
            self._read(fields)

    def _read(self, fields: Fields) -> None:
        pseudo: dict[bytes, bytes] = {}
        kind = b""
        regular = False
        for name, value in fields:
            if name[:1] == b":":
                if regular or name in pseudo or name not in _PSEUDO:
                    self.is_malformed = True
                pseudo[name] = value
                continue
            regular = True
            if name == b"content-type":
                kind = value
            elif name == b"te":
                self.is_malformed |= value != b"trailers"
            elif name == b"grpc-timeout":
                self._read_timeout(value)
            elif name == b"grpc-encoding":
                self.encoding = value
            elif name in _NEVER or not name or name != name.lower():
                self.is_malformed = True
            elif not name.startswith(b"grpc-") and not name.endswith(b"-bin"):
                self.metadata[name.decode("latin-1")] = value.decode("utf-8", "replace")
        self.path = pseudo.get(b":path", b"")
        if not self.path or b":method" not in pseudo or b":scheme" not in pseudo:
            self.is_malformed = True
        elif pseudo[b":method"] != b"POST":
            self.http_status = 405
        elif kind != b"application/grpc" and not kind.startswith(
            (b"application/grpc+", b"application/grpc;")
        ):
            self.http_status = 415

    def _read_timeout(self, value: bytes) -> None:
        match = _TIMEOUT.match(value)
        if match is None:
            text = value.decode("latin-1")
            self.refusal = Status.INTERNAL, f"grpc-timeout {text!r} is none"
            return
        self.timeout_s = max(1e-9, int(match[1]) * _UNITS[match[2]])


_OPENING = b"\x88" + b"".join([
    literal(b"content-type", b"application/grpc"),
    literal(b"grpc-accept-encoding", b"identity, deflate, gzip"),
])  # fmt: skip
"""`:status 200` and what every answer begins with."""

_OK = literal(b"grpc-status", b"0")


class ServerCall(Stream):
    """A call under way. Answer it once: with `respond`, `fail`, or `send` ... `finish`. Answering
    one that has been given up does nothing."""

    __slots__ = ("_connection", "_opened", "claimed", "counted", "deadline", "head", "initial",
                 "is_abandoned", "is_answered", "is_running", "method", "on_cancel", "received",
                 "since")  # fmt: skip

    def __init__(self, connection: "ServerConnection", stream_id: int, head: RequestHead) -> None:
        super().__init__(stream_id, connection.first_window)
        self._connection = connection
        self._opened = False
        self.head = head
        self.method: Method | None = None
        self.since = time.monotonic()
        self.deadline = self.since + head.timeout_s if head.timeout_s else 0.0
        """When the caller stops waiting (`time.monotonic`); 0: it did not say."""
        self.initial: list[tuple[str, str]] = []
        """Metadata to begin the answer with."""
        self.on_cancel: Callable[[], object] | None = None
        """Called, once, when the caller gives up or its time is over before the answer."""
        self.received = False
        """The whole request is here."""
        self.is_running = False
        """It has been handed to its method, which owes an answer."""
        self.is_answered = False
        """Or nobody waits any more."""
        self.is_abandoned = False
        """Nobody waits, but its method does not know: it is still at work."""
        self.claimed = 0
        """Bytes of the request as its message's prefix has it; 0 while that is not here."""
        self.counted = 0
        """Bytes of it in the server's count of unfinished requests."""

    def metadata(self) -> dict[str, str]:
        """The caller's fields by their lower-case names, as hooks see headers; the caller's own."""
        return dict(self.head.metadata)

    # --- answers -------------------------------------------------------------------------------

    def respond(self, message: Sequence[Buffer]) -> None:
        """One message, in pieces, and status OK."""
        if self._connection.is_full:
            self.fail(Status.RESOURCE_EXHAUSTED, "too many answers are left unread")
        elif self._end():
            pieces = [_prefix(message), *message]
            self._connection.answer(self, self._opening(), pieces, _trailer(self.id, _OK))

    def fail(self, status: int, text: str) -> None:
        if not self._end():
            return
        block = literal(b"grpc-status", b"%d" % status)
        if text:
            block += literal(b"grpc-message", _cut(quoted(text)))
        self.unsent.clear()  # of a stream of messages, or of nothing
        if self._opened or self.initial:
            self._connection.answer(self, self._opening(), [], _trailer(self.id, block))
        else:
            self._connection.answer(self, b"", [], _trailer(self.id, _OPENING + block))

    def refuse(self, http_status: int) -> None:
        """What is no gRPC call is answered in plain HTTP."""
        if self._end():
            block = literal(b":status", b"%d" % http_status)
            if http_status == 405:
                block += literal(b"allow", b"POST")
            block += literal(b"grpc-status", b"%d" % Status.INTERNAL)
            self._connection.answer(self, b"", [], _trailer(self.id, block))

    def send(self, message: Sequence[Buffer]) -> None:
        """One message of several."""
        if self._connection.is_full:
            self.fail(Status.RESOURCE_EXHAUSTED, "too many answers are left unread")
        elif not self.is_answered:
            pieces = [_prefix(message), *message]
            self._connection.answer(self, self._opening(), pieces, None)

    def finish(self) -> None:
        """After the last message."""
        if self._end():
            self._connection.answer(self, self._opening(), [], _trailer(self.id, _OK))

    def _end(self) -> bool:
        """Whether there is somebody to answer, and nothing has been answered."""
        if self.is_abandoned:
            self.is_abandoned = False
            self._connection.returned()
            return False
        if self.is_answered:
            return False
        self.is_answered = True
        self.on_cancel = None
        if self.is_running:
            self.is_running = False
            self._connection.returned()
        return True

    def _opening(self) -> bytes:
        """The HEADERS frame that begins the answer, if it has not been sent."""
        if self._opened:
            return b""
        self._opened = True
        block = _OPENING
        for name, value in self.initial:
            clean = value.encode("ascii", "replace")
            block += literal(name.encode(), bytes(b for b in clean if 0x20 <= b < 0x7F))
        return frames.head(frames.HEADERS, frames.END_HEADERS, self.id, len(block)) + block

    # --- the server's side ---------------------------------------------------------------------

    def start(self) -> None:
        """Its method is at work."""
        if not self.is_running and not self.is_answered:
            self.is_running = True
            self._connection.at_work += 1

    def pause(self) -> None:
        """Its method has done with one message of several."""
        if self.is_running:
            self.is_running = False
            self._connection.returned()

    def cancel(self) -> None:
        """Nobody waits any more."""
        if self.is_answered:
            return
        self.is_answered = True
        self.is_abandoned = self.is_running
        callback, self.on_cancel = self.on_cancel, None
        if callback is not None:
            callback()

    def give_up(self, status: Status, text: str) -> None:
        """Answer in the place of the method, which may go on."""
        is_abandoned, callback = self.is_running, self.on_cancel
        self.is_running = False
        self.fail(status, text)
        self.is_abandoned = is_abandoned
        if callback is not None:
            callback()


def _prefix(message: Sequence[Buffer]) -> bytes:
    return struct.pack(">BI", 0, sum(map(len, message)))


def _trailer(stream_id: int, block: bytes) -> bytes:
    flags = frames.END_HEADERS | frames.END_STREAM
    return frames.head(frames.HEADERS, flags, stream_id, len(block)) + block


def _cut(text: bytes) -> bytes:
    """Not in the middle of a percent sign's digits."""
    if len(text) <= _MAX_TEXT_BYTES:
        return text
    end = text.rfind(b"%", _MAX_TEXT_BYTES - 2, _MAX_TEXT_BYTES)
    return text[: end if end >= 0 else _MAX_TEXT_BYTES]
