"""The gateway's HTTP/1.1 side towards clients: heads parsed by llhttp, bodies passed through.

One object a connection. Pipelined requests wait their turn; reading pauses meanwhile. HTTP/2 with
prior knowledge is recognised by its preface and handed to `h2_inbound`. `Upgrade` (websockets)
turns the connection into a pipe once the pod has agreed. CONNECT is taken for hosts of this engine
only, and loops back into this gateway: that is how gRPC clients use a proxy.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Protocol, cast

import httptools

from . import heads, wire
from .exchange import Exchange

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HIGH_WATER = 256 * 1024
HELD_BYTES = 64 * 1024
"""What a client may send ahead while its pod decides about an Upgrade."""

LINGER_BYTES = 1024 * 1024
LINGER_S = 2.0
"""How much of a body, and for how long, is read after an answer that did not wait for it."""


class Connection(Protocol):
    """A client connection that can be told to end."""

    def close_when_idle(self) -> None: ...
    def close_now(self) -> None: ...


class Handler(Protocol):
    """What the gateway does with requests."""

    max_header_bytes: int

    def handle(self, exchange: Exchange) -> None: ...
    def accepts_connect(self, host: str, port: int) -> bool: ...
    def opened(self, connection: Connection) -> None: ...
    def closed(self, connection: Connection) -> None: ...
    def http2(self, transport: asyncio.Transport, peer: str, data: bytes) -> asyncio.Protocol: ...


class Inbound(asyncio.Protocol):
    """One client connection."""

    def __init__(self, handler: Handler, loop: asyncio.AbstractEventLoop) -> None:
        self._handler = handler
        self._loop = loop
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made
        self._peer = ""
        self._parser = httptools.HttpRequestParser(self)
        self._early: bytes | None = b""
        """First bytes until it is clear which protocol the client speaks; then None."""
        self._url = b""
        self._headers: wire.Headers = []
        self._header_bytes = 0
        self._receiving: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        """Exchanges in order of arrival; the first one is being answered."""
        self._pipe: Callable[[bytes], None] | None = None
        self._held = b""
        """Bytes after an Upgrade request, until the pod has decided."""
        self._held_back = False
        self._awaiting_switch = False
        self._chunked = False
        self._keep_alive = True
        self._closing = False
        self._lingering = 0
        """Body bytes still to be thrown away after an early answer."""
        self._out: list[bytes] = []
        self._flushing = False
        self._pauses = 0
        self._broken = False

    # --- asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if peer else "127.0.0.1"
        self._handler.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._broken = True
        self._handler.closed(self)
        for exchange in list(self._queue):
            exchange.client_gone()
        self._queue.clear()
        if self._pipe is not None:
            self._pipe(b"")

    def data_received(self, data: bytes) -> None:
        if self._pipe is not None:
            self._pipe(data)
            return
        if self._awaiting_switch:
            self._held += data
            if len(self._held) > HELD_BYTES and not self._held_back:
                self._held_back = True
                self.pause_request()
            return
        if self._early is not None:
            data = self._early + data
            if _PREFACE.startswith(data[: len(_PREFACE)]):
                self._early = data
                if len(data) >= len(_PREFACE):
                    self._become_http2(data)
                return
            self._early = None
        self._feed(data)

    def eof_received(self) -> bool:
        """The client hung up. As in Go's server (and so in Knative), half-closing counts too: it
        is how most clients that lose patience look, and their requests should free their pod."""
        if self._pipe is not None:
            self._pipe(b"")
        return False

    def pause_writing(self) -> None:
        if self._queue:
            self._queue[0].pause_response()

    def resume_writing(self) -> None:
        if self._queue:
            self._queue[0].resume_response()

    def close_when_idle(self) -> None:
        """Shutting down: finish what is being answered, take nothing new."""
        self._closing = True
        if not self._queue and not self._broken:
            self._transport.close()

    def close_now(self) -> None:
        """Shutting down, patience over."""
        if not self._broken:
            self._transport.abort()

    # --- parsing ---

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            if self._awaiting_switch:
                self._held += rest
            elif rest and not self._broken:
                self.data_received(rest)
        except (httptools.HttpParserError, heads.BadRequest) as error:
            self._reject(400, f"not a valid HTTP request: {error}")

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._header_bytes += len(url)
        if self._header_bytes > self._handler.max_header_bytes:
            raise heads.BadRequest("request head too large")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._receiving is None:
            self._headers.append((name.lower(), value))
            self._header_bytes += len(name) + len(value)
            if self._header_bytes > self._handler.max_header_bytes:
                raise heads.BadRequest("request head too large")

    def on_headers_complete(self) -> None:
        parser = self._parser
        method, version = parser.get_method(), parser.get_http_version()
        request = heads.read(method, self._url, version, self._headers, self._peer)
        if request.method == b"CONNECT":
            self._connect(request)
            return
        keep_alive = self._parser.should_keep_alive()
        if self._parser.should_upgrade():
            if request.upgrade.lower() == b"h2c":
                request.upgrade = b""  # an offer we do not take up: answer in HTTP/1.1
            self._awaiting_switch = True
        exchange = Exchange(request, self, self._loop)
        self._receiving = exchange
        self._keep_alive = keep_alive and not self._closing
        self._queue.append(exchange)
        if len(self._queue) == 1:
            self._handler.handle(exchange)
        else:
            self.pause_request()

    def on_body(self, body: bytes) -> None:
        if self._receiving is not None:
            self._receiving.request_body(body)
        elif self._lingering:
            self._lingering -= len(body)
            if self._lingering <= 0:
                self._transport.close()

    def on_message_complete(self) -> None:
        exchange, self._receiving = self._receiving, None
        if exchange is not None:
            exchange.request_end()
        elif self._lingering:
            self._transport.close()

    def _connect(self, request: wire.Request) -> None:
        if self._queue or not self._handler.accepts_connect(request.authority, request.port):
            self._reject(
                403, f"CONNECT {request.authority}:{request.port}: only services of this engine"
            )
            return
        self._transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self._parser = httptools.HttpRequestParser(self)
        self._early = b""

    def _reject(self, status: int, message: str) -> None:
        """Answer a message that is not a request, behind whatever is being answered; then close."""
        self._keep_alive = False
        if self._broken:
            return
        if not (self._queue and self._queue[0].started):
            body = wire.error_body(status, message)
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
                (b"connection", b"close"),
            ]
            self._transport.write(wire.encode_head(wire.status_line(status), headers) + body)
        self._transport.close()

    def _become_http2(self, data: bytes) -> None:
        self._early = None
        self._handler.closed(self)
        protocol = self._handler.http2(self._transport, self._peer, data)
        self._transport.set_protocol(protocol)

    # --- Downstream ---

    def send_head(self, status: int, headers: wire.Headers) -> None:
        if self._broken:
            return
        if status < 200:
            if status == 101:
                request = self._queue[0].request
                headers = [
                    *headers,
                    (b"connection", b"Upgrade"),
                    (b"upgrade", request.upgrade),
                ]
            self._write(wire.encode_head(wire.status_line(status), headers))
            return
        request = self._queue[0].request
        bodiless = request.method == b"HEAD" or status in (204, 304)
        self._chunked = False
        if not bodiless and not any(name == b"content-length" for name, _ in headers):
            if self._parser.get_http_version() == "1.1" or self._awaiting_switch:
                self._chunked = True
                headers.append((b"transfer-encoding", b"chunked"))
            else:
                self._keep_alive = False
        unread = self._queue[0] is self._receiving and request.has_body
        if not self._keep_alive or self._closing or self._awaiting_switch or unread:
            self._keep_alive = False
            headers.append((b"connection", b"close"))
        self._write(wire.encode_head(wire.status_line(status), headers))

    def send_body(self, data: bytes) -> None:
        if self._broken or not data:
            return
        if self._chunked:
            self._write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._write(data)

    def send_end(self, trailers: wire.Headers) -> None:
        if self._broken:
            return
        if self._chunked:
            lines = b"".join(b"%b: %b\r\n" % item for item in trailers)
            self._write(b"0\r\n" + lines + b"\r\n")
            self._chunked = False
        self.flush()
        finished = self._queue.popleft()
        if finished is self._receiving:
            self._receiving = None
            if finished.request.has_body:
                self._linger()
                return
        if not self._keep_alive or (self._closing and not self._queue):
            self._transport.close()
        elif self._queue:
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        if self._queue and not self._broken:
            exchange = self._queue[0]
            exchange.arrived = monotonic()
            self.resume_request()
            self._handler.handle(exchange)

    def _linger(self) -> None:
        """Answered before the body was read: read on for a while, then close. Closing at once
        would reset the connection, and the client might never see the answer."""
        self._lingering = LINGER_BYTES
        self._pauses = 0
        self._transport.resume_reading()
        self._loop.call_later(LINGER_S, self._transport.close)

    def can_append(self) -> bool:
        return self._chunked

    def abort(self) -> None:
        self.flush()
        if self._queue:
            self._queue.popleft()
        self._keep_alive = False
        self._transport.abort()

    def switch(self, exchange: Exchange) -> None:
        self.flush()

    def pipe(self, sink: Callable[[bytes], None]) -> None:
        """Hand all further bytes to `sink` (empty bytes: the client has finished)."""
        self._pipe = sink
        held, self._held = self._held, b""
        if self._held_back:
            self._held_back = False
            self.resume_request()
        if held:
            sink(held)

    def write_raw(self, data: bytes) -> None:
        """Bytes of a switched connection; empty bytes close it."""
        if self._broken:
            return
        if data:
            self._transport.write(data)
        else:
            self._transport.close()

    def pause_request(self) -> None:
        self._pauses += 1
        if self._pauses == 1 and not self._broken:
            self._transport.pause_reading()

    def resume_request(self) -> None:
        self._pauses = max(0, self._pauses - 1)
        if self._pauses == 0 and not self._broken:
            self._transport.resume_reading()

    # --- writing ---

    def _write(self, data: bytes) -> None:
        """Collect what one turn of the loop produces: head and body leave in one packet."""
        self._out.append(data)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        self._flushing = False
        if self._out and not self._broken:
            data = b"".join(self._out)
            self._out.clear()
            self._transport.write(data)
