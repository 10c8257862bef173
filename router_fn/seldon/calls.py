"""Calls of nodes: the router's calls, with a time taken of each."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from functions.wire.http1_head import ResponseHead
from router_fn.calls import Call, Target, make_head
from router_fn.seldon.graph import Unit
from router_fn.seldon.traversal import Message, OriginalMessage

if TYPE_CHECKING:
    from router_fn.seldon.heads import SeldonHead
    from router_fn.seldon.metrics import SeldonMetrics


class NodeCall(Call):
    """One call of one node."""

    def __init__(
        self, target: Target, head: "SeldonHead", body: bytes, unit: Unit, metrics: "SeldonMetrics"
    ) -> None:
        super().__init__(target, head, body)
        self._unit = unit
        self._metrics = metrics
        self._method = "post"
        self.on_done: Callable[[int], None] | None = None
        """Told of the status when the call is over; 0: there was none."""
        self._began = time.monotonic()

    def settle(self, status: int, body: bytes, head: ResponseHead) -> None:
        self._note(status)
        super().settle(status, body, head)

    def fail(self, error: BaseException) -> None:
        if self.pending:
            self._note(0)
        super().fail(error)

    def _note(self, code: int) -> None:
        path = self.target.url.target
        taken = time.monotonic() - self._began
        self._metrics.called(self._unit, path, self._method, code, taken)
        if self.on_done is not None:
            self.on_done(code)

    def post(self, message: Message, puid: bytes) -> None:
        """Send a message, with what its own header fields are."""
        head = self.incoming
        fields = b"Content-Type: %b\r\nSeldon-Puid: %b\r\n" % (message.content_type, puid)
        encoding = getattr(head, "encoding", b"")
        if encoding and isinstance(message, OriginalMessage):
            fields += b"Content-Encoding: %b\r\n" % encoding
        self.extra_head += fields
        self.begin()

    def get(self) -> None:
        self._method = "get"
        target = self.target
        text = make_head(b"GET", target.url, target.origin, self.incoming.forwarded)
        self._message = (text + b"\r\n", b"")
        self.begin()
