"""The gateway's HTTP/1.1 side towards pods: pooled connections, one request at a time each.

Nothing is retried, with one exception that no pod can notice: a *reused* connection that turns out
to be closed before a byte of the answer arrived, for a request without a body. Everything else
that goes wrong is the client's to know (502), as behind Knative's queue-proxy.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import cast

import httptools

from . import wire
from .exchange import Exchange

IDLE_S = 1.0
"""Connections unused for longer are not used again: servers commonly close after 2 s (gunicorn)."""

MAX_IDLE = 64
_HIGH_WATER = 256 * 1024

Failed = Callable[[Exchange, str], None]


class Pool:
    """Connections to one pod. `describe_failure` turns a broken connection into words for the
    client."""

    def __init__(
        self,
        host: str,
        port: int,
        loop: asyncio.AbstractEventLoop,
        describe_failure: Callable[[str], str] = str,
    ) -> None:
        self.host, self.port = host, port
        self.describe_failure = describe_failure
        self._loop = loop
        self._idle: list[Outbound] = []
        self._all: set[Outbound] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    def send(self, exchange: Exchange, head: bytes) -> None:
        """Send a request head (and then the exchange's body) on an idle or a new connection."""
        now = self._loop.time()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable(now):
                connection.begin(exchange, head, reused=True)
                return
            connection.close()
        self.send_fresh(exchange, head)

    def send_fresh(self, exchange: Exchange, head: bytes) -> None:
        """The same on a connection of its own."""
        task = self._loop.create_task(self._connect(exchange, head))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, exchange: Exchange, head: bytes) -> None:
        try:
            _, connection = await self._loop.create_connection(
                lambda: Outbound(self, self._loop), self.host, self.port
            )
        except OSError as error:
            reason = error.strerror or str(error)
            exchange.upstream_failed(self.describe_failure(f"cannot connect: {reason}"))
            return
        if exchange.done:
            self.keep(connection)
            return
        connection.begin(exchange, head, reused=False)

    def keep(self, connection: "Outbound") -> None:
        """A connection whose answer is complete."""
        if len(self._idle) < MAX_IDLE:
            connection.idle_since = self._loop.time()
            self._idle.append(connection)
        else:
            connection.close()

    def joined(self, connection: "Outbound") -> None:
        self._all.add(connection)

    def left(self, connection: "Outbound") -> None:
        self._all.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def close(self) -> None:
        """The pod has gone: break off what is still open."""
        for task in self._connecting:
            task.cancel()
        for connection in list(self._all):
            connection.close()
        self._idle.clear()


class Outbound(asyncio.Protocol):
    """One connection to a pod."""

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self.idle_since = 0.0
        self._pool = pool
        self._loop = loop
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._head = b""
        self._reused = False
        self._received = False
        self._headers: wire.Headers = []
        self._trailers: wire.Headers | None = None
        self._chunked_request = False
        self._request_done = False
        self._response_keep = False
        self._no_body = False
        self._status = 0
        self._pipe: Callable[[bytes], None] | None = None
        self._broken = False
        self._out: list[bytes] = []
        self._flushing = False

    def usable(self, now: float) -> bool:
        return not self._broken and now - self.idle_since < IDLE_S

    def begin(self, exchange: Exchange, head: bytes, *, reused: bool) -> None:
        """Send a request; the exchange pushes its body through `send_body`."""
        self._exchange = exchange
        self._head = head
        self._reused = reused
        self._received = self._request_done = False
        self._response_keep = False
        self._chunked_request = exchange.request.chunked
        self._no_body = exchange.request.method == b"HEAD"
        self._write(head)
        exchange.attach(self)

    def close(self) -> None:
        if not self._broken:
            self._transport.close()

    # --- asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._pool.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._broken = True
        self._pool.left(self)
        if self._pipe is not None:
            self._pipe(b"")
            return
        exchange = self._exchange
        if exchange is None:
            return
        if self._received and self._ends_with_connection():
            self._finish()
            return
        self._exchange = None
        untouched = not self._received and exchange.body_untouched and not exchange.done
        if self._reused and untouched:
            exchange.detach()
            self._pool.send_fresh(exchange, self._head)
            return
        what = (
            "the answer broke off" if self._received else "the connection closed without an answer"
        )
        exchange.upstream_failed(self._pool.describe_failure(what))

    def data_received(self, data: bytes) -> None:
        if self._pipe is not None:
            self._pipe(data)
            return
        if self._exchange is None:
            self._transport.close()  # bytes that nobody asked for
            return
        self._received = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            self._switched(rest)
        except httptools.HttpParserError as error:
            exchange, self._exchange = self._exchange, None
            self._transport.abort()
            if exchange is not None:
                exchange.upstream_failed(
                    self._pool.describe_failure(f"the answer is not valid HTTP: {error}")
                )

    def _switched(self, rest: bytes) -> None:
        """Bytes that came right behind a 101."""
        if self._pipe is not None and rest:
            self._pipe(rest)

    def pause_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.pause_request()

    def resume_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.resume_request()

    # --- parsing ---

    def on_message_begin(self) -> None:
        self._headers = []
        self._trailers = None

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._trailers is None:
            self._headers.append((name.lower(), value))
        else:
            self._trailers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        self._trailers = []
        self._status = status = self._parser.get_status_code()
        self._response_keep = self._parser.should_keep_alive()
        connection = [value for name, value in self._headers if name == b"connection"]
        dropped = wire.HOP_BY_HOP
        for value in connection:
            dropped = dropped.union([token.strip().lower() for token in value.split(b",")])
        headers = [item for item in self._headers if item[0] not in dropped]
        if status == 101:
            self._switch(exchange, headers)
        elif status < 200:
            exchange.interim(status, headers)
        else:
            exchange.response_head(status, headers)
            if self._no_body:
                self._loop.call_soon(self._finish_head)

    def on_body(self, body: bytes) -> None:
        if self._exchange is not None and not self._no_body:
            self._exchange.response_body(body)

    def on_message_complete(self) -> None:
        if self._status >= 200 and not self._no_body:
            self._finish()

    def _ends_with_connection(self) -> bool:
        """The answer had neither length nor chunks: its end is the end of the connection."""
        names = {name for name, _ in self._headers}
        return (
            self._status >= 200
            and b"content-length" not in names
            and b"transfer-encoding" not in names
        )

    def _finish_head(self) -> None:
        """HEAD: llhttp would wait for the body that Content-Length announces; there is none."""
        self._parser = httptools.HttpResponseParser(self)
        self._finish()

    def _finish(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        trailers = self._trailers or []
        if self._response_keep and self._request_done and not self._broken:
            self._pool.keep(self)
        elif not self._broken:
            self._transport.close()
        exchange.response_end(trailers)

    def _switch(self, exchange: Exchange, headers: wire.Headers) -> None:
        from .inbound import Inbound

        exchange.switched(headers)
        client = exchange.downstream
        if not isinstance(client, Inbound):
            self._transport.abort()
            return
        self._pipe = _Pipe(client.write_raw, lambda: exchange.response_end([])).pass_on
        client.pipe(_Pipe(self._write_raw, self._transport.close).pass_on)

    def _write_raw(self, data: bytes) -> None:
        if not self._broken and data:
            self._transport.write(data)

    # --- Upstream ---

    def send_body(self, data: bytes) -> None:
        if self._broken:
            return
        if self._chunked_request:
            self._write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._write(data)

    def send_end(self) -> None:
        self._request_done = True
        if self._chunked_request and not self._broken:
            self._write(b"0\r\n\r\n")

    def cancel(self) -> None:
        """The client is not interested any more: hang up, so that the pod can notice."""
        self._exchange = None
        if not self._broken:
            self._transport.abort()

    def pause_response(self) -> None:
        if not self._broken:
            self._transport.pause_reading()

    def resume_response(self) -> None:
        if not self._broken:
            self._transport.resume_reading()

    def _write(self, data: bytes) -> None:
        self._out.append(data)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._out and not self._broken:
            self._transport.write(b"".join(self._out))
        self._out.clear()


class _Pipe:
    """One direction of a switched connection; empty bytes mean its end."""

    __slots__ = ("_end", "_ended", "_write")

    def __init__(self, write: Callable[[bytes], None], end: Callable[[], None]) -> None:
        self._write = write
        self._end = end
        self._ended = False

    def pass_on(self, data: bytes) -> None:
        if self._ended:
            return
        self._write(data)
        if not data:
            self._ended = True
            self._end()
