"""HTTP/2 without sockets: a transport that keeps what is written, and `h2` as a client of ours."""

import asyncio
import struct
from collections.abc import Iterable
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings

from functions.http2.server import Limits, Method, Server, ServerConnection


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: bytearray = bytearray()
        self.closing = self.aborted = False
        self.reading = True

    def write(self, data: Any) -> None:
        self.written += data

    def writelines(self, pieces: Iterable[Any]) -> None:
        for piece in pieces:
            self.written += piece

    def take(self) -> bytes:
        """What has been written since the last time."""
        taken, self.written = bytes(self.written), bytearray()
        return taken

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_extra_info(self, name: str) -> Any:
        return None


def receive(connection: asyncio.BufferedProtocol, data: bytes) -> None:
    """As a transport does it."""
    while data:
        buffer = connection.get_buffer(len(data))
        part = data[: len(buffer)]
        buffer[: len(part)] = part  # type: ignore[index]
        connection.buffer_updated(len(part))
        data = data[len(part) :]


def message(data: bytes, *, packed: int = 0) -> bytes:
    """With gRPC's prefix."""
    return struct.pack(">BI", packed, len(data)) + data


def frames_of(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """(kind, flags, stream, payload) of each."""
    found, at = [], 0
    while at < len(data):
        high, low, kind, flags, stream = struct.unpack_from(">BHBBI", data, at)
        at += 9 + (high << 16 | low)
        found.append((kind, flags, stream, bytes(data[at - (high << 16 | low) : at])))
    return found


class Client:
    """An `h2` client and the connection of our server that it is connected with."""

    def __init__(self, server: Server, settings: dict[Any, int] | None = None) -> None:
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        if settings:
            self.h2.local_settings = h2.settings.Settings(client=True, initial_values=settings)
        self.transport = Transport()
        self.connection = ServerConnection(server)
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]
        self.events: list[Any] = []
        self.consume = True
        self.h2.initiate_connection()
        self.exchange()

    def exchange(self) -> list[Any]:
        """Bytes back and forth until neither side has any; all events so far."""
        while True:
            data = self.h2.data_to_send()
            if data:
                receive(self.connection, data)
            answered = self.transport.take()
            if not data and not answered:
                return self.events
            for event in self.h2.receive_data(answered) if answered else ():
                self.events.append(event)
                if isinstance(event, h2.events.DataReceived) and self.consume:
                    self.h2.acknowledge_received_data(
                        event.flow_controlled_length or 0, event.stream_id or 0
                    )

    def headers(self, path: str = "/p.S/Echo", **fields: str) -> list[tuple[str, str]]:
        return [
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a"),
            ("te", "trailers"), ("content-type", "application/grpc"),
            *((name.replace("_", "-"), value) for name, value in fields.items()),
        ]  # fmt: skip

    def ask(self, body: bytes, path: str = "/p.S/Echo", **fields: str) -> int:
        """Begin a call and send all of it, as far as our windows allow; the stream's number."""
        stream: int = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, self.headers(path, **fields), end_stream=not body)
        while body:
            size = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            assert size > 0, "the server's window is shut"
            part, body = body[:size], body[size:]
            self.h2.send_data(stream, part, end_stream=not body)
        self.exchange()
        return stream

    def data(self, stream: int) -> bytes:
        return b"".join(
            event.data or b""
            for event in self.events
            if isinstance(event, h2.events.DataReceived) and event.stream_id == stream
        )

    def trailers(self, stream: int) -> dict[str, str]:
        """Fields of all header blocks of a stream; without grpc-status it is not answered."""
        found: dict[str, str] = {}
        for event in self.events:
            if (
                isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived)
                and event.stream_id == stream
            ):
                found.update((str(name), str(value)) for name, value in event.headers or ())
        return found

    def status(self, stream: int) -> int | None:
        number = self.trailers(stream).get("grpc-status")
        return None if number is None else int(number)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def echo_server(limits: Limits | None = None, **methods: Method) -> Server:
    """`/p.S/Echo`, and others by keyword."""
    found = {b"/p.S/Echo": Method(lambda call, data: call.respond([data]))}
    found |= {f"/p.S/{name}".encode(): method for name, method in methods.items()}
    return Server(found, limits)
