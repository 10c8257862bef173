"""One request and its answer on their way through the gateway, whatever the protocols.

An exchange stands between a `Downstream` (the client's connection or stream) and an `Upstream` (a
pod's). It owns what they must not know: the deadline, the buffered body while a pod starts,
back-pressure in both directions, and who is told when either side goes away. Callbacks only; no
task per request.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from . import wire

REQUEST_BUFFER_BYTES = 64 * 1024
"""Body bytes held while there is no pod yet; then the client is asked to wait (TCP
back-pressure).
"""


class Downstream(Protocol):
    """The client's side."""

    def send_head(self, status: int, headers: wire.Headers) -> None: ...
    def send_body(self, data: bytes) -> None: ...
    def send_end(self, trailers: wire.Headers) -> None: ...
    def can_append(self) -> bool:
        """More body bytes may follow although the answer was complete in the pod's mind."""
        ...

    def abort(self) -> None:
        """Break the answer off so that the client notices."""
        ...

    def pause_request(self) -> None: ...
    def resume_request(self) -> None: ...
    def switch(self, exchange: "Exchange") -> None:
        """The pod accepted an upgrade: bytes pass unread from now on."""
        ...


class Upstream(Protocol):
    """The pod's side."""

    def send_body(self, data: bytes) -> None: ...
    def send_end(self) -> None: ...
    def cancel(self) -> None: ...
    def pause_response(self) -> None: ...
    def resume_response(self) -> None: ...


class Exchange:
    """See the module docstring. `on_done` is called exactly once, when nothing more will happen."""

    __slots__ = (
        "_body_done",
        "_buffer",
        "_buffered",
        "_deadline",
        "_idle_s",
        "_loop",
        "_paused",
        "_start_deadline",
        "_timer",
        "_written_at",
        "arrived",
        "bytes_out",
        "done",
        "downstream",
        "failure",
        "first_byte",
        "on_done",
        "on_timeout",
        "request",
        "started",
        "status",
        "upstream",
    )

    def __init__(
        self, request: wire.Request, downstream: Downstream, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.request = request
        self.arrived = monotonic()
        self.upstream: Upstream | None = None
        self.started = False
        self.done = False
        self.status = 0
        self.failure = ""
        """Why the gateway answered instead of the pod; empty otherwise."""
        self.first_byte = 0.0
        self.bytes_out = 0
        self.on_done: Callable[[Exchange], None] | None = None
        self.on_timeout: Callable[[Exchange], str] | None = None
        self.downstream = downstream
        self._loop = loop
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._body_done = False
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = self._start_deadline = self._idle_s = 0.0
        self._written_at = 0.0

    # --- limits ---

    def limit(self, total_s: float, start_s: float, idle_s: float) -> None:
        """Start the clocks, all counted from the request's arrival; 0 is no limit."""
        self._deadline = self.arrived + total_s if total_s else 0.0
        self._start_deadline = self.arrived + start_s if start_s and start_s < total_s else 0.0
        self._idle_s = idle_s
        self._written_at = self.arrived
        self._arm()

    def _arm(self) -> None:
        due = self._deadline
        if self._start_deadline and not self.started:
            due = min(due, self._start_deadline) if due else self._start_deadline
        if self._idle_s:
            idle = self._written_at + self._idle_s
            due = min(due, idle) if due else idle
        if due:
            self._timer = self._loop.call_later(max(0.0, due - monotonic()), self._check_limits)

    def _check_limits(self) -> None:
        now = monotonic() + 0.001
        expired = (
            (self._deadline and now >= self._deadline)
            or (self._start_deadline and not self.started and now >= self._start_deadline)
            or (self._idle_s and now >= self._written_at + self._idle_s)
        )
        if not expired:
            self._arm()
            return
        message = self.on_timeout(self) if self.on_timeout else "request timeout"
        if not self.started:
            self.refuse(504, message)
            return
        self.failure = message
        self._cancel_upstream()
        if self.downstream.can_append():
            self.downstream.send_body(message.encode())
            self.downstream.send_end([])
        else:
            self.downstream.abort()
        self._finish()

    # --- from the client ---

    def request_body(self, data: bytes) -> None:
        if self.upstream is not None:
            self.upstream.send_body(data)
        elif not self.done:
            self._buffer.append(data)
            self._buffered += len(data)
            if self._buffered > REQUEST_BUFFER_BYTES and not self._paused:
                self._paused = True
                self.downstream.pause_request()

    def request_end(self) -> None:
        self._body_done = True
        if self.upstream is not None:
            self.upstream.send_end()

    def client_gone(self) -> None:
        """The client hung up: nobody waits for the answer any more."""
        if not self.done:
            self.failure = self.failure or "client went away"
            self.status = self.status or 499
            self._cancel_upstream()
            self._finish()

    def pause_response(self) -> None:
        if self.upstream is not None:
            self.upstream.pause_response()

    def resume_response(self) -> None:
        if self.upstream is not None:
            self.upstream.resume_response()

    # --- from the pod ---

    def attach(self, upstream: Upstream) -> None:
        """The head has been sent to a pod; now the body."""
        self.upstream = upstream
        if self._buffer:
            chunks, self._buffer = self._buffer, []
            for chunk in chunks:
                upstream.send_body(chunk)
        if self._paused:
            self._paused = False
            self.downstream.resume_request()
        if self._body_done:
            upstream.send_end()

    def detach(self) -> None:
        """The connection to the pod was lost before it mattered; another `attach` follows."""
        self.upstream = None

    @property
    def body_untouched(self) -> bool:
        """No byte of a body has left for a pod: the request could be sent again."""
        return not self.request.has_body

    def pause_request(self) -> None:
        self.downstream.pause_request()

    def resume_request(self) -> None:
        self.downstream.resume_request()

    def interim(self, status: int, headers: wire.Headers) -> None:
        """A 1xx on the way to the real answer."""
        if not self.done:
            self.downstream.send_head(status, headers)

    def response_head(self, status: int, headers: wire.Headers) -> None:
        if self.done:
            return
        self.started = True
        self.status = status
        self.first_byte = self._written_at = monotonic()
        self.downstream.send_head(status, headers)

    def response_body(self, data: bytes) -> None:
        if self.done:
            return
        self.bytes_out += len(data)
        if self._idle_s:
            self._written_at = monotonic()
        self.downstream.send_body(data)

    def response_end(self, trailers: wire.Headers) -> None:
        if self.done:
            return
        self.upstream = None
        self.downstream.send_end(trailers)
        self._finish()

    def switched(self, headers: wire.Headers) -> None:
        """101: both sides become a pipe; total time no longer counts (as with hijacked
        connections)."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.started = True
        self.status = 101
        self.first_byte = monotonic()
        self.downstream.send_head(101, headers)
        self.downstream.switch(self)

    def upstream_failed(self, message: str, status: int = 502) -> None:
        """The pod cannot be reached, or broke its answer off."""
        if self.done:
            return
        self.upstream = None
        if not self.started:
            self.refuse(status, message)
            return
        self.failure = message
        self.downstream.abort()
        self._finish()

    # --- the gateway's own answers ---

    def refuse(self, status: int, message: str, headers: wire.Headers | None = None) -> None:
        """An error of the gateway's own, as JSON."""
        self.failure = message
        body = wire.error_body(status, message)
        self.respond(status, [(b"content-type", b"application/json"), *(headers or [])], body)

    def respond(self, status: int, headers: wire.Headers, body: bytes) -> None:
        """A whole answer that no pod gave."""
        if self.done:
            return
        self._cancel_upstream()
        self.started = True
        self.status = status
        self.first_byte = monotonic()
        self.bytes_out = len(body)
        self.downstream.send_head(status, [*headers, (b"content-length", b"%d" % len(body))])
        if body and self.request.method != b"HEAD":
            self.downstream.send_body(body)
        self.downstream.send_end([])
        self._finish()

    def _cancel_upstream(self) -> None:
        if self.upstream is not None:
            upstream, self.upstream = self.upstream, None
            upstream.cancel()

    def _finish(self) -> None:
        self.done = True
        self._buffer.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._paused:
            self._paused = False
            self.downstream.resume_request()
        if self.on_done is not None:
            callback, self.on_done = self.on_done, None
            callback(self)
