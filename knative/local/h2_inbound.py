"""The gateway's HTTP/2 side towards clients: every stream is an exchange of its own.

So streams of one connection may go to different services and pods, and each counts as one request
for the autoscaler -- what a gRPC client that holds one connection for hours needs.
"""

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING

import h2.events
import h2.exceptions

from . import h2_frames, wire
from .exchange import Exchange

if TYPE_CHECKING:
    from .inbound import Handler


_FORBIDDEN = re.compile(rb"[\r\n\0]")


class H2Inbound(asyncio.Protocol):
    """One client connection; created when its preface has been seen."""

    def __init__(
        self,
        handler: "Handler",
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        peer: str,
        data: bytes,
    ) -> None:
        self._handler = handler
        self._loop = loop
        self._transport = transport
        self._peer = peer
        self._frames = h2_frames.Frames(transport, client=False)
        self._streams: dict[int, Stream] = {}
        self._broken = False
        self._flushing = False
        self._held: list[Stream] = []
        self._closing = False
        handler.opened(self)
        loop.call_soon(self.data_received, data)

    def data_received(self, data: bytes) -> None:
        if self._broken:
            return
        try:
            for event in self._frames.receive(data):
                self._event(event)
        except h2.exceptions.ProtocolError:
            self._frames.flush()
            self._transport.close()
            return
        self._frames.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._broken = True
        self._handler.closed(self)
        for stream in list(self._streams.values()):
            stream.exchange.client_gone()
        self._streams.clear()

    def close_when_idle(self) -> None:
        """Shutting down: no new streams; close after the last one."""
        self._closing = True
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._closing and not self._streams and not self._broken:
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self._frames.connection.close_connection()  # GOAWAY; nothing can follow it
            self._frames.flush()
            self._transport.close()

    def close_now(self) -> None:
        if not self._broken:
            self._transport.abort()

    def _event(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                self._request(event)
            case h2.events.DataReceived():
                stream = self._streams.get(event.stream_id)
                size = event.flow_controlled_length or 0
                if stream is None:
                    self._frames.acknowledge(event.stream_id, size)
                else:
                    stream.received(event.data or b"", size)
            case h2.events.StreamEnded():
                if (stream := self._streams.get(event.stream_id)) is not None:
                    stream.exchange.request_end()
            case h2.events.StreamReset():
                self._frames.queues.pop(event.stream_id, None)
                if (stream := self._streams.pop(event.stream_id, None)) is not None:
                    stream.exchange.client_gone()
            case h2.events.WindowUpdated():
                self._window(event.stream_id)
            case h2.events.ConnectionTerminated():
                self._transport.close()
            case _:
                pass

    def _request(self, event: h2.events.RequestReceived) -> None:
        headers = event.headers or []
        host = h2_frames.pseudo(headers, b":authority")
        plain = _join_cookies(h2_frames.regular(headers))
        host = host or next((value for name, value in plain if name == b"host"), b"")
        length = next((value for name, value in plain if name == b"content-length"), None)
        try:
            authority, port = wire.split_authority(host)
            content_length = int(length) if length is not None else None
        except ValueError:
            self._frames.reset(event.stream_id, h2_frames.PROTOCOL_ERROR)
            return
        if self._closing or not _is_clean(headers):
            refused = h2_frames.REFUSED if self._closing else h2_frames.PROTOCOL_ERROR
            self._frames.reset(event.stream_id, refused)
            return
        ended = event.stream_ended is not None
        request = wire.Request(
            h2_frames.pseudo(headers, b":method"),
            h2_frames.pseudo(headers, b":path") or b"/",
            authority,
            plain,
            host,
            0 if ended and content_length is None else content_length,
            chunked=not ended and content_length is None,
            peer=self._peer,
            port=port,
            http2=True,
        )
        if ended and request.method in (b"GET", b"HEAD", b"OPTIONS"):
            request.content_length = content_length
        stream = Stream(self, event.stream_id)
        stream.exchange = Exchange(request, stream, self._loop)
        self._streams[event.stream_id] = stream
        self._handler.handle(stream.exchange)

    def _window(self, stream_id: int) -> None:
        waiting = [stream_id] if stream_id else list(self._frames.queues)
        for number in waiting:
            if self._frames.pump(number) and (stream := self._streams.get(number)) is not None:
                stream.exchange.resume_response()

    # --- for streams ---

    @property
    def frames(self) -> h2_frames.Frames:
        return self._frames

    @property
    def broken(self) -> bool:
        return self._broken

    def flush_soon(self) -> None:
        """Write once per turn of the loop."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        held, self._held = self._held, []
        if not self._broken:
            for stream in held:
                stream.flush_head()
            self._frames.flush()

    def hold(self, stream: "Stream") -> None:
        """The stream's head goes out at the end of this turn of the loop."""
        self._held.append(stream)
        self.flush_soon()

    def drop(self, stream_id: int) -> None:
        self._streams.pop(stream_id, None)
        if self._closing:
            self._loop.call_soon(self._loop.call_soon, self._close_if_done)  # after the flush


def _is_clean(headers: list[tuple[bytes, bytes]]) -> bool:
    """Nothing in the head would mean something else in an HTTP/1.1 request made from it."""
    path, method = h2_frames.pseudo(headers, b":path"), h2_frames.pseudo(headers, b":method")
    if not method.isalpha() or not (path.startswith(b"/") or path == b"*"):
        return False
    if any(byte <= 32 or byte == 127 for byte in path):
        return False
    return not any(_FORBIDDEN.search(value) for _, value in headers)


def _join_cookies(headers: wire.Headers) -> wire.Headers:
    """HTTP/2 may split Cookie into several fields; HTTP/1.1 servers expect one."""
    cookies = [value for name, value in headers if name == b"cookie"]
    if len(cookies) < 2:
        return headers
    others = [item for item in headers if item[0] != b"cookie"]
    return [*others, (b"cookie", b"; ".join(cookies))]


class Stream:
    """One request on an HTTP/2 connection: the exchange's Downstream."""

    __slots__ = ("_connection", "_head", "_number", "_paused", "_unacknowledged", "exchange")

    def __init__(self, connection: H2Inbound, number: int) -> None:
        self._connection = connection
        self._number = number
        self._paused = False
        self._unacknowledged = 0
        self._head: wire.Headers | None = None
        self.exchange: Exchange

    def received(self, data: bytes, size: int) -> None:
        """Body bytes; the window opens again only when nobody asked us to pause."""
        if self._paused:
            self._unacknowledged += size
        else:
            self._connection.frames.acknowledge(self._number, size)
        if data:
            self.exchange.request_body(data)

    def send_head(self, status: int, headers: wire.Headers) -> None:
        if self._connection.broken or status == 101:
            return
        if status < 200:
            return
        # Held until the end of this turn of the loop: an answer without body has to end with its
        # head (gRPC calls that "trailers-only" and reads its status nowhere else).
        self._head = [(b":status", b"%d" % status), *headers]
        self._connection.hold(self)

    def flush_head(self, *, end: bool = False) -> None:
        """Send the head if it is still held."""
        if self._head is not None:
            head, self._head = self._head, None
            with contextlib.suppress(h2.exceptions.ProtocolError):  # reset meanwhile
                self._connection.frames.headers(self._number, head, end=end)

    def send_body(self, data: bytes) -> None:
        if self._connection.broken or not data:
            return
        self.flush_head()
        if self._connection.frames.body(self._number, data):
            self.exchange.pause_response()
        self._connection.flush_soon()

    def send_end(self, trailers: wire.Headers) -> None:
        if not self._connection.broken:
            self.flush_head(end=not trailers)
            self._connection.frames.end(self._number, trailers)
            self._connection.flush_soon()
        self._connection.drop(self._number)

    def can_append(self) -> bool:
        return False

    def abort(self) -> None:
        if not self._connection.broken:
            self._connection.frames.reset(self._number, h2_frames.INTERNAL_ERROR)
            self._connection.flush_soon()
        self._connection.drop(self._number)

    def pause_request(self) -> None:
        self._paused = True

    def resume_request(self) -> None:
        self._paused = False
        size, self._unacknowledged = self._unacknowledged, 0
        if size and not self._connection.broken:
            self._connection.frames.acknowledge(self._number, size)
            self._connection.flush_soon()

    def switch(self, exchange: Exchange) -> None:
        """HTTP/2 has no Upgrade."""
        self.abort()
