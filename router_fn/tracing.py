"""W3C trace context and OTLP/HTTP spans in JSON, with the standard library. Loaded only when an
endpoint is set.

One SERVER span per request, child of the client's `traceparent` when there is one; one CLIENT span
per call of a step, whose id goes upstream in that call's own `traceparent`. Spans wait in a bounded
queue and leave in batches; when the collector is away or too slow they are dropped and counted, and
requests never notice.

Sources: W3C Trace Context (level 1); OpenTelemetry protocol, OTLP/HTTP with the JSON encoding.
"""

import json
import logging
import random
import re
import time
from collections import deque
from typing import Any, Final

from functions.wire.headers import Headers, first

logger = logging.getLogger(__name__)

_TRACEPARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
MAX_QUEUED: Final = 4096
MAX_BATCH: Final = 512
KIND_SERVER, KIND_CLIENT = 2, 3
_ERROR: Final = 2


class Span:
    """One timed piece of a trace. Mutable until ended; times are nanoseconds since the epoch."""

    __slots__ = (
        "attributes",
        "end",
        "error",
        "kind",
        "name",
        "parent",
        "sampled",
        "span_id",
        "start",
        "state",
        "trace_id",
    )

    def __init__(
        self, name: str, kind: int, trace_id: bytes, parent: bytes, sampled: bool, state: bytes
    ) -> None:
        self.name = name
        self.kind = kind
        self.trace_id = trace_id
        self.parent = parent
        self.sampled = sampled
        self.state = state
        self.span_id = b"%016x" % random.getrandbits(64)
        self.start = time.time_ns()
        self.end = 0
        self.error = ""
        self.attributes: dict[str, str | int] = {}

    def fields(self) -> bytes:
        """The header lines that carry this span on."""
        lines = b"Traceparent: 00-%b-%b-%02d\r\n" % (self.trace_id, self.span_id, self.sampled)
        return lines + (b"Tracestate: %b\r\n" % self.state if self.state else b"")

    def to_json(self) -> dict[str, Any]:
        """The OTLP form: ids in hex, times as decimal strings."""
        span: dict[str, Any] = {
            "traceId": self.trace_id.decode(),
            "spanId": self.span_id.decode(),
            "name": self.name,
            "kind": self.kind,
            "startTimeUnixNano": str(self.start),
            "endTimeUnixNano": str(self.end),
            "attributes": [_attribute(key, value) for key, value in self.attributes.items()],
        }
        if self.parent:
            span["parentSpanId"] = self.parent.decode()
        if self.state:
            span["traceState"] = self.state.decode("latin-1")
        if self.error:
            span["status"] = {"code": _ERROR, "message": self.error}
        return span


def _attribute(key: str, value: str | int) -> dict[str, Any]:
    kind = "intValue" if isinstance(value, int) else "stringValue"
    return {"key": key, "value": {kind: str(value)}}


class Tracer:
    """Makes spans and keeps the finished ones until somebody takes a batch."""

    def __init__(self, service_name: str, sample_ratio: float = 1.0) -> None:
        self._service_name = service_name
        self._sample_ratio = sample_ratio
        self._finished: deque[Span] = deque()
        self.dropped = 0

    def server_span(self, headers: Headers) -> Span:
        """A request's span: continues the client's trace, or begins one."""
        match = _TRACEPARENT.fullmatch(first(headers, b"traceparent") or b"")
        if match is not None and match[1].strip(b"0") and match[2].strip(b"0"):
            sampled = bool(int(match[3], 16) & 1)
            state = first(headers, b"tracestate") or b""
            return Span("graph", KIND_SERVER, match[1], match[2], sampled, state)
        sampled = random.random() < self._sample_ratio  # noqa: S311 - a lottery, not a secret
        return Span("graph", KIND_SERVER, b"%032x" % random.getrandbits(128), b"", sampled, b"")

    def child(self, parent: Span, name: str) -> Span:
        return Span(
            name, KIND_CLIENT, parent.trace_id, parent.span_id, parent.sampled, parent.state
        )

    def end(self, span: Span, status: int = 0, error: str = "") -> None:
        """Finish a span; nothing happens for one that is not sampled."""
        if not span.sampled or span.end:
            return
        span.end = time.time_ns()
        if status:
            span.attributes["http.response.status_code"] = status
        span.error = error or (f"status {status}" if status >= 500 else "")
        if len(self._finished) >= MAX_QUEUED:
            self.dropped += 1
        else:
            self._finished.append(span)

    def take_batch(self) -> bytes | None:
        """Up to MAX_BATCH finished spans as an OTLP request body, None when there are none."""
        if not self._finished:
            return None
        count = min(len(self._finished), MAX_BATCH)
        spans = [self._finished.popleft().to_json() for _ in range(count)]
        resource = {"attributes": [_attribute("service.name", self._service_name)]}
        scope = {"scope": {"name": "turnout.router"}, "spans": spans}
        return json.dumps(
            {"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}
        ).encode()
