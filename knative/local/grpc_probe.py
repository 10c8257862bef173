"""gRPC health checks (`grpc.health.v1.Health/Check`) for probes of kind `grpc`, on plain HTTP/2.

One request on one connection; the two messages are small enough to be written and read by hand:
`HealthCheckRequest.service` is field 1 (string), `HealthCheckResponse.status` is field 1 (enum, 1
= SERVING). Source: gRPC health checking protocol.
"""

import asyncio

import h2.config
import h2.connection
import h2.events

SERVING = b"\x08\x01"
_HEADERS = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/grpc.health.v1.Health/Check"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
    ("user-agent", "kube-probe/turnout"),
)
_MAX_ANSWER = 64 * 1024


async def check(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, service: str) -> bool:
    """Whether the server says SERVING. Raises OSError or ValueError for anything that is no
    answer."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
    connection.initiate_connection()
    name = service.encode()
    message = b"\x0a" + bytes([len(name)]) + name if name else b""
    if len(name) > 127:
        raise ValueError("the service name of a gRPC probe has at most 127 bytes")
    connection.send_headers(1, [(":authority", "localhost"), *_HEADERS])
    connection.send_data(1, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
    writer.write(connection.data_to_send())
    body, status = b"", b""
    while len(body) < _MAX_ANSWER:
        data = await reader.read(16384)
        if not data:
            return False
        for event in connection.receive_data(data):
            match event:
                case h2.events.DataReceived():
                    body += event.data or b""
                case h2.events.TrailersReceived() | h2.events.ResponseReceived():
                    found = dict(event.headers or [])
                    status = found.get(b"grpc-status", status)
                case h2.events.StreamEnded():
                    return status == b"0" and body[5:] == SERVING
                case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                    return False
                case _:
                    pass
        writer.write(connection.data_to_send())
    return False
