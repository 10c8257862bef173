"""What both HTTP/2 sides share: one `h2` connection on one transport. The door to h2.

HTTP/2 is spoken in clear text with prior knowledge (h2c), as Knative does inside a cluster; gRPC
is the reason. Flow control is honoured in both directions: bytes that the peer's window does not
admit wait in the stream, received bytes are acknowledged only once they have been passed on.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from . import wire

WINDOW_BYTES = 1024 * 1024
"""Receive window of a connection; streams get the default 64 KiB."""

MAX_STREAMS = 256
HIGH_WATER = 64 * 1024
"""Unsent bytes of one stream at which its source is asked to pause."""


@dataclass(slots=True)
class Outgoing:
    """Bytes of one stream that wait for the peer's window."""

    chunks: deque[bytes] = field(default_factory=deque)
    size: int = 0
    ended: bool = False
    trailers: wire.Headers = field(default_factory=list)
    paused: bool = False


class Frames:
    """An `h2` connection with its outgoing queues; the owner handles events."""

    def __init__(self, transport: asyncio.Transport, *, client: bool) -> None:
        self.transport = transport
        self.connection = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=client, header_encoding=None, validate_inbound_headers=True
            )
        )
        self.queues: dict[int, Outgoing] = {}
        self.connection.local_settings.max_concurrent_streams = MAX_STREAMS
        self.connection.initiate_connection()
        self.connection.increment_flow_control_window(WINDOW_BYTES)
        self.flush()

    def receive(self, data: bytes) -> list[h2.events.Event]:
        """Events of received bytes. Raises h2.exceptions.ProtocolError."""
        events: list[h2.events.Event] = self.connection.receive_data(data)
        return events

    def headers(self, stream: int, headers: wire.Headers, *, end: bool = False) -> None:
        """Raises h2.exceptions.ProtocolError when the stream is not there any more."""
        self.connection.send_headers(stream, headers, end_stream=end)
        if not end:
            self.queues[stream] = Outgoing()

    def body(self, stream: int, data: bytes) -> bool:
        """Queue bytes; True when the source should pause."""
        queue = self.queues.get(stream)
        if queue is None:
            return False
        queue.chunks.append(data)
        queue.size += len(data)
        self.pump(stream)
        queue.paused = queue.size > HIGH_WATER
        return queue.paused

    def end(self, stream: int, trailers: wire.Headers) -> None:
        queue = self.queues.get(stream)
        if queue is not None:
            queue.ended, queue.trailers = True, trailers
            self.pump(stream)

    def pump(self, stream: int) -> bool:
        """Send what the window admits; True when a paused source may go on."""
        queue = self.queues.get(stream)
        if queue is None:
            return False
        try:
            return self._pump(stream, queue)
        except h2.exceptions.ProtocolError:
            self.queues.pop(stream, None)  # reset by the peer; its event is on the way
            return False

    def _pump(self, stream: int, queue: Outgoing) -> bool:
        connection = self.connection
        while queue.chunks:
            room = min(
                connection.local_flow_control_window(stream), connection.max_outbound_frame_size
            )
            if room <= 0:
                break
            chunk = queue.chunks.popleft()
            if len(chunk) > room:
                queue.chunks.appendleft(chunk[room:])
                chunk = chunk[:room]
            queue.size -= len(chunk)
            connection.send_data(stream, chunk)
        if queue.ended and not queue.chunks:
            if queue.trailers:
                connection.send_headers(stream, queue.trailers, end_stream=True)
            else:
                connection.end_stream(stream)
            del self.queues[stream]
            return False
        if queue.paused and queue.size <= HIGH_WATER // 2:
            queue.paused = False
            return True
        return False

    def acknowledge(self, stream: int, size: int) -> None:
        """Bytes have been passed on: open the windows again."""
        if size:
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self.connection.acknowledge_received_data(size, stream)

    def reset(self, stream: int, code: int) -> None:
        self.queues.pop(stream, None)
        try:
            self.connection.reset_stream(stream, code)
        except h2.exceptions.ProtocolError:
            return  # it is closed already

    def flush(self) -> None:
        """Write what `h2` has produced."""
        data = self.connection.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)


PROTOCOL_ERROR = 1
INTERNAL_ERROR = 2
REFUSED = 7
CANCEL = 8


def regular(headers: Iterable[tuple[bytes, bytes]]) -> wire.Headers:
    """Headers without pseudo-headers."""
    return [(bytes(name), bytes(value)) for name, value in headers if not name.startswith(b":")]


def pseudo(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    """A pseudo-header's value, or empty."""
    return next((bytes(value) for key, value in headers if key == name), b"")
