"""Payloads of nodes that ask for it, as CloudEvents to a URL (spec/seldon 1.6): what goes into a
node and what comes out of it and all below it, and feedback.

Binary mode, types and extensions are Seldon's: `io.seldon.serving.inference.request|response` and
`io.seldon.serving.feedback`; `modelid` is the node, `requestid` the puid, `endpoint` the predictor.
A request is never held up: what does not fit into the queue is dropped, counted and told once.
"""

import gzip
import logging
import uuid
import zlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from functions.wire.http1_head import ResponseHead
from router_fn.calls import Call, Incoming, Target
from router_fn.errors import UpstreamError
from router_fn.seldon.graph import Predictor, Unit
from router_fn.urls import parse_url

if TYPE_CHECKING:
    from router_fn.pool import Pool
    from router_fn.seldon.graph import Deployment

logger = logging.getLogger(__name__)

SENDERS: Final = 10
"""Events under way at once."""
MAX_BYTES: Final = 64 << 20
"""Of all queued bodies together."""
TIMEOUT_S: Final = 10.0
_PREFIX: Final = b"io.seldon.serving."
_SKIPS: Final = frozenset((b"true", b"on", b"1"))


@dataclass(frozen=True, slots=True)
class Event:
    target: Target
    fields: bytes
    body: bytes


class PayloadLog:
    """The queue of one router. `offer` is for the loop's thread."""

    def __init__(self, deployment: "Deployment", pool: "Pool") -> None:
        self._pool = pool
        self._max_events = deployment.log_queue
        self._waiting: deque[Event] = deque()
        self._bytes = 0
        self._sending = 0
        self._targets: dict[str, Target] = {}
        self._incoming = Incoming([])
        self._incoming.default_type = False
        self._failing = False
        self.dropped = 0
        host = f"{deployment.name}.{deployment.namespace}.svc.cluster.local"
        self._common = (
            b"Ce-Specversion: 1.0\r\nCe-Source: http://%b/\r\n" % host.encode()
            + _fields(
                inferenceservicename=deployment.name,
                namespace=deployment.namespace,
                protocol=deployment.protocol,
            )
        )

    def offer(
        self, predictor: Predictor, unit: Unit, what: str, body: bytes, content_type: bytes,
        puid: bytes,
    ) -> None:  # fmt: skip
        """Queue an event; `what` is inference.request, inference.response or feedback."""
        if len(self._waiting) >= self._max_events or self._bytes + len(body) > MAX_BYTES:
            self.dropped += 1
            if self.dropped == 1 or self.dropped % 1000 == 0:
                logger.warning("the payload log is behind: %d events dropped", self.dropped)
            return
        fields = b"%bCe-Id: %b\r\nCe-Type: %b%b\r\nCe-Requestid: %b\r\n%bContent-Type: %b\r\n" % (
            self._common,
            str(uuid.uuid4()).encode(),
            _PREFIX,
            what.encode(),
            puid,
            _fields(modelid=unit.name, endpoint=predictor.name),
            content_type,
        )
        self._bytes += len(body)
        self._waiting.append(Event(self._target(unit.log_url), fields, body))
        self._next()

    @property
    def idle(self) -> bool:
        """Everything has been sent."""
        return not self._waiting and not self._sending

    def _target(self, url: str) -> Target:
        target = self._targets.get(url)
        if target is None:
            target = self._targets[url] = Target(self._pool, parse_url(url), TIMEOUT_S, "Never")
        return target

    def _next(self) -> None:
        while self._waiting and self._sending < SENDERS:
            event = self._waiting.popleft()
            self._bytes -= len(event.body)
            self._sending += 1
            call = _Sent(event.target, self._incoming, event.body)
            call.log = self
            call.extra_head = event.fields
            call.begin()

    def sent(self, problem: str) -> None:
        """An event has gone, or not; a failure is told when it begins."""
        self._sending -= 1
        if problem and not self._failing:
            logger.warning("payloads cannot be logged: %s", problem)
        self._failing = bool(problem)
        self._next()


class _Sent(Call):
    log: PayloadLog

    def settle(self, status: int, body: bytes, head: ResponseHead) -> None:
        super().settle(status, body, head)
        self.log.sent("" if status < 300 else f"{self.target.url} answered {status}")

    def fail(self, error: BaseException) -> None:
        super().fail(error)
        kind = error.kind if isinstance(error, UpstreamError) else type(error).__name__
        self.log.sent(f"{self.target.url}: {kind}")


def skips(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a request asks not to be logged: `Seldon-Skip-Logging: true`."""
    return any(
        name.lower() == b"seldon-skip-logging" and value.lower() in _SKIPS
        for name, value in headers
    )


def plain(body: bytes, encoding: bytes) -> bytes:
    """A body without its gzip."""
    if encoding.lower() != b"gzip":
        return body
    try:
        return gzip.decompress(body)
    except (OSError, EOFError, zlib.error):
        return body


def _fields(**extensions: str) -> bytes:
    """Header lines of CloudEvents extensions."""
    return b"".join(
        b"Ce-%b: %b\r\n" % (name.capitalize().encode(), value.encode("ascii", "replace"))
        for name, value in extensions.items()
    )
