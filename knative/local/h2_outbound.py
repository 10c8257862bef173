"""The gateway's HTTP/2 side towards pods whose port is named `h2c`: one shared connection per pod.

Streams are multiplexed on it; when it is lost, or the pod says it is going away, the next request
opens another. Concurrency limits are the throttle's business, not this module's.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import cast

import h2.events
import h2.exceptions

from . import h2_frames, wire
from .exchange import Exchange


class H2Pool:
    """The HTTP/2 connection to one pod, opened with the first request."""

    def __init__(
        self,
        host: str,
        port: int,
        loop: asyncio.AbstractEventLoop,
        describe_failure: Callable[[str], str],
    ) -> None:
        self.host, self.port = host, port
        self.describe_failure = describe_failure
        self._loop = loop
        self._current: H2Outbound | None = None
        self._open: set[H2Outbound] = set()
        self._waiting: list[tuple[Exchange, wire.Headers]] = []
        self._connecting: asyncio.Task[None] | None = None

    def send(self, exchange: Exchange, headers: wire.Headers) -> None:
        """Open a stream with these headers (pseudo-headers first)."""
        if self._current is not None and self._current.usable:
            self._current.begin(exchange, headers)
            return
        self._waiting.append((exchange, headers))
        if self._connecting is None:
            self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            _, connection = await self._loop.create_connection(
                lambda: H2Outbound(self, self._loop), self.host, self.port
            )
        except OSError as error:
            waiting, self._waiting = self._waiting, []
            message = self.describe_failure(f"cannot connect: {error.strerror or error}")
            for exchange, _ in waiting:
                exchange.upstream_failed(message)
            return
        finally:
            self._connecting = None
        self._current = connection
        self._open.add(connection)
        waiting, self._waiting = self._waiting, []
        for exchange, headers in waiting:
            if not exchange.done:
                self.send(exchange, headers)

    def lost(self, connection: "H2Outbound") -> None:
        self._open.discard(connection)
        if self._current is connection:
            self._current = None

    def close(self) -> None:
        """The pod has gone."""
        if self._connecting is not None:
            self._connecting.cancel()
        for connection in list(self._open):
            connection.close()


class H2Outbound(asyncio.Protocol):
    """One connection to a pod."""

    def __init__(self, pool: H2Pool, loop: asyncio.AbstractEventLoop) -> None:
        self.usable = False
        self._pool = pool
        self._loop = loop
        self._transport: asyncio.Transport
        self._frames: h2_frames.Frames
        self._streams: dict[int, UpStream] = {}
        self._flushing = False

    @property
    def frames(self) -> h2_frames.Frames:
        return self._frames

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._frames = h2_frames.Frames(self._transport, client=True)
        self.usable = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._pool.lost(self)
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            what = "the answer broke off" if stream.started else "closed without an answer"
            stream.exchange.upstream_failed(self._pool.describe_failure(what))

    def close(self) -> None:
        self._transport.close()

    def begin(self, exchange: Exchange, headers: wire.Headers) -> None:
        """Send a request head on a stream of its own."""
        try:
            number = self._frames.connection.get_next_available_stream_id()
            self._frames.headers(number, headers)
        except h2.exceptions.ProtocolError as error:
            exchange.upstream_failed(self._pool.describe_failure(f"HTTP/2: {error}"))
            return
        stream = UpStream(self, number, exchange)
        self._streams[number] = stream
        self.flush_soon()
        exchange.attach(stream)

    def data_received(self, data: bytes) -> None:
        try:
            for event in self._frames.receive(data):
                self._event(event)
        except h2.exceptions.ProtocolError:
            self._transport.abort()
            return
        self._frames.flush()

    def _event(self, event: h2.events.Event) -> None:
        number = getattr(event, "stream_id", 0) or 0
        stream = self._streams.get(number)
        match event:
            case h2.events.WindowUpdated():
                for waiting in [number] if number else list(self._frames.queues):
                    held = self._streams.get(waiting)
                    if self._frames.pump(waiting) and held is not None:
                        held.exchange.resume_request()
            case h2.events.ConnectionTerminated():
                self.usable = False
            case h2.events.DataReceived():
                size = event.flow_controlled_length or 0
                if stream is None:
                    self._frames.acknowledge(number, size)
                else:
                    stream.received(event.data or b"", size)
            case _ if stream is not None:
                self._stream_event(event, stream, number)
            case _:
                pass

    def _stream_event(self, event: h2.events.Event, stream: "UpStream", number: int) -> None:
        match event:
            case h2.events.ResponseReceived():
                headers = event.headers or []
                stream.started = True
                status = int(h2_frames.pseudo(headers, b":status") or b"502")
                stream.exchange.response_head(status, h2_frames.regular(headers))
            case h2.events.TrailersReceived():
                stream.trailers = h2_frames.regular(event.headers or [])
            case h2.events.StreamEnded():
                del self._streams[number]
                stream.exchange.response_end(stream.trailers)
                if number in self._frames.queues:  # answered before the request was complete
                    self._frames.reset(number, 0)
            case h2.events.StreamReset():
                del self._streams[number]
                self._frames.queues.pop(number, None)
                stream.exchange.upstream_failed(
                    self._pool.describe_failure(f"stream reset (code {event.error_code})")
                )
            case _:
                pass

    def drop(self, number: int) -> None:
        self._streams.pop(number, None)

    def flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if not self._transport.is_closing():
            self._frames.flush()


class UpStream:
    """One request at a pod: the exchange's Upstream."""

    __slots__ = (
        "_connection",
        "_number",
        "_paused",
        "_unacknowledged",
        "exchange",
        "started",
        "trailers",
    )

    def __init__(self, connection: H2Outbound, number: int, exchange: Exchange) -> None:
        self.exchange = exchange
        self.started = False
        self.trailers: wire.Headers = []
        self._connection = connection
        self._number = number
        self._paused = False
        self._unacknowledged = 0

    def received(self, data: bytes, size: int) -> None:
        if self._paused:
            self._unacknowledged += size
        else:
            self._connection.frames.acknowledge(self._number, size)
        self.exchange.response_body(data)

    def send_body(self, data: bytes) -> None:
        if self._connection.usable and self._connection.frames.body(self._number, data):
            self.exchange.pause_request()
        self._connection.flush_soon()

    def send_end(self) -> None:
        if self._connection.usable:
            self._connection.frames.end(self._number, [])
            self._connection.flush_soon()

    def cancel(self) -> None:
        self._connection.drop(self._number)
        if self._connection.usable:
            self._connection.frames.reset(self._number, h2_frames.CANCEL)
            self._connection.flush_soon()

    def pause_response(self) -> None:
        self._paused = True

    def resume_response(self) -> None:
        self._paused = False
        size, self._unacknowledged = self._unacknowledged, 0
        if size and self._connection.usable:
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self._connection.frames.acknowledge(self._number, size)
            self._connection.flush_soon()
