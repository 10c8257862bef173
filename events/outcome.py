"""What became of an event: as the broker sees it, as the log tells it, as the journal keeps it.
Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import codec
from .delivery import whole_seconds
from .errors import DeliveryFailed, EventsError, InvalidEvent, Refused, TryAgain
from .event import Event
from .http import Answer

RETRY_AFTER_S = 1.0
FINAL_CLIENT_ERRORS_EXCEPT = frozenset({408, 409, 425, 429})
"""4xx of a graph that time may heal; every other one says that this input will never do."""
_LOGGED_ERROR = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the sender of the event gets to see, and what the log line says."""

    status: int
    kind: str
    """replied, done, duplicate, ignored, retry, refused: the metrics' and the log's word for it."""
    reply: Event | None = None
    message: codec.Message | None = field(default=None, repr=False)
    """The reply as it goes out, encoded once for the sender and the journal."""
    reason: str = ""
    retry_after_s: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def require_success(answer: Answer) -> None:
    """A graph's status as ours. Raises `Refused` for an input that will never do, else
    `TryAgain`."""
    status = answer.status
    if 200 <= status < 300:
        return
    excerpt = answer.body[:512].decode("utf-8", "replace")
    message = (
        f"the graph answered {status}: {excerpt}" if excerpt else f"the graph answered {status}"
    )
    final = 400 <= status < 500 and status not in FINAL_CLIENT_ERRORS_EXCEPT
    # 404 as text comes from an ingress that does not know the service (yet); as JSON, from a graph.
    if final and (status != 404 or "json" in answer.headers.get("content-type", "")):
        raise Refused(message)
    if 300 <= status < 400:
        raise Refused(f"{message} (redirects are not followed)")
    after = whole_seconds(answer.headers.get("retry-after", ""))
    raise DeliveryFailed(message, cause_status=status, retry_after_s=after)


def failure(error: EventsError) -> Outcome:
    """An error as the broker should see it: come back, or never."""
    if isinstance(error, TryAgain):
        return Outcome(
            status=error.status,
            kind="retry",
            reason=str(error),
            retry_after_s=error.retry_after_s or RETRY_AFTER_S,
        )
    status = error.status if isinstance(error, (Refused, InvalidEvent)) else _LOGGED_ERROR
    return Outcome(status=status, kind="refused", reason=str(error))


def ignored(reason: str) -> Outcome:
    """Not this trigger's business: acknowledged, nothing done."""
    return Outcome(status=204, kind="ignored", reason=reason)


def record(outcome: Outcome) -> bytes:
    """An outcome for the journal: a line with status and headers, then the reply's bytes."""
    headers, body = outcome.message or ({}, b"")
    return json.dumps({"status": outcome.status, "headers": headers}).encode() + b"\n" + body


def recorded(kept: bytes | None) -> Outcome:
    """A redelivery's outcome: the recorded reply (None: there was none)."""
    head, _, body = (kept or b'{"status": 204, "headers": {}}').partition(b"\n")
    value = json.loads(head)
    status, headers = int(value["status"]), value["headers"]
    if not headers:
        return Outcome(status=status, kind="duplicate")
    (reply,) = codec.decode(headers, body)
    return Outcome(status=status, kind="duplicate", reply=reply, message=(headers, body))
