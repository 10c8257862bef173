"""Knative's delivery rules as tables and pure functions: what is retried, and how long to wait.

Used by the local broker, by the adapter's own sending and by the compiler's checks. No clock, no
I/O. Source: Knative Eventing, `spec.delivery`, and the broker's HTTP client (which statuses it
retries, Retry-After, back-off); vectors in tests/unit/events/test_delivery.py are Knative's own.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Literal

Problem = tuple[str, str]
FIELDS = (
    "retry",
    "backoffPolicy",
    "backoffDelay",
    "timeout",
    "retryAfterMax",
    "deadLetterSink",
    "format",
)
RETRIED_STATUSES = frozenset({404, 408, 409, 429})
"""Statuses below 500 that Knative retries; a sleeping, moved or busy service answers with these."""

RETRY_AFTER_STATUSES = frozenset({429, 503})
MAX_BACKOFF_S = 24 * 3600.0
"""Exponential delays stop growing here, or attempt 60 would wait longer than the universe is
old."""

_DURATION = re.compile(
    r"P(?!\Z)(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+(?:\.\d+)?)D)?"
    r"(?:T(?!\Z)(?:(?P<hours>\d+(?:\.\d+)?)H)?(?:(?P<minutes>\d+(?:\.\d+)?)M)?"
    r"(?:(?P<seconds>\d+(?:[.,]\d+)?)S)?)?\Z"
)
_SECONDS = {"weeks": 604800, "days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}


class Verdict(Enum):
    """What a delivery attempt came to."""

    DELIVERED = "delivered"
    RETRY = "retry"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A resolved delivery block. None of `backoff_delay_s`: retries follow without waiting."""

    retry: int = 0
    """Attempts after the first."""
    backoff_policy: Literal["linear", "exponential"] = "exponential"
    backoff_delay_s: float | None = None
    timeout_s: float | None = None
    """Per attempt; None: the broker's own limit."""
    retry_after_max_s: float | None = None
    """None: Retry-After is not honoured (Knative's default)."""
    dead_letter_sink: Mapping[str, Any] | None = None
    """A Knative Destination (`ref` and/or `uri`)."""
    format: Literal["binary", "json"] = "binary"


BROKER_DEFAULT = Delivery(retry=10, backoff_policy="exponential", backoff_delay_s=0.2)
"""config-br-defaults of a stock Knative: applies when neither Trigger nor Broker says anything."""


def parse_duration(text: str) -> float:
    """Seconds of an ISO 8601 duration (`PT0.2S`, `P1DT12H`). Months and years have no length:
    refused."""
    found = _DURATION.match(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{text!r} is not an ISO 8601 duration such as PT0.5S or PT10M")
    return sum(
        float(value.replace(",", ".")) * _SECONDS[unit]
        for unit, value in found.groupdict().items()
        if value
    )


def check(block: Any, *, retry_after: bool = False) -> list[Problem]:
    """Every problem of a delivery block; `retry_after`: the cluster has `delivery-retryafter`
    on."""
    if block is None:
        return []
    if not isinstance(block, Mapping):
        return [("", "must be a map")]
    problems: list[Problem] = [
        (key, f"unknown field (expected one of {', '.join(FIELDS)})")
        for key in block
        if key not in FIELDS
    ]
    retry = block.get("retry")
    if retry is not None and (isinstance(retry, bool) or not isinstance(retry, int) or retry < 0):
        problems.append(("retry", f"must be a whole number of attempts >= 0, not {retry!r}"))
    if block.get("backoffPolicy") not in (None, "linear", "exponential"):
        problems.append(("backoffPolicy", "must be linear or exponential"))
    if block.get("format") not in (None, "json", "binary"):
        problems.append(("format", "must be json or binary"))
    for name in ("backoffDelay", "timeout", "retryAfterMax"):
        if block.get(name) is None:
            continue
        try:
            seconds = parse_duration(block[name])
            if name == "timeout" and seconds <= 0:
                problems.append((name, "must be longer than nothing"))
        except ValueError as error:
            problems.append((name, str(error)))
    if block.get("retryAfterMax") is not None and not retry_after:
        problems.append(
            ("retryAfterMax", "Knative refuses it unless delivery-retryafter is enabled")
        )
    problems += check_destination(block.get("deadLetterSink"), "deadLetterSink")
    return problems


def check_destination(value: Any, path: str) -> list[Problem]:
    """Problems of a Knative Destination: `ref` and/or `uri`, the uri absolute unless there is a
    ref."""
    if value is None:
        return []
    if not isinstance(value, Mapping) or not (value.get("ref") or value.get("uri")):
        return [(path, "needs `ref` (kind, name, apiVersion) or `uri`")]
    problems: list[Problem] = []
    ref, uri = value.get("ref"), value.get("uri")
    if ref is not None:
        if not isinstance(ref, Mapping):
            problems.append((f"{path}.ref", "must be a map with kind, name and apiVersion"))
        else:
            problems += [
                (f"{path}.ref.{key}", "is missing") for key in ("kind", "name") if not ref.get(key)
            ]
    if uri is not None and not ref and not re.match(r"https?://[^/\s]+", str(uri)):
        problems.append((f"{path}.uri", f"{uri!r} must be absolute (http://...) without a ref"))
    return problems


def parse(block: Mapping[str, Any] | None, default: Delivery = BROKER_DEFAULT) -> Delivery:
    """The resolved block; an absent one is `default`, a present one replaces it as a whole.

    (A Trigger that sets only `retry` loses the broker's dead letter sink: Knative's rule, kept.)
    """
    if not block:
        return default
    return Delivery(
        retry=int(block.get("retry") or 0),
        backoff_policy=block.get("backoffPolicy") or "exponential",
        backoff_delay_s=_optional(block.get("backoffDelay")),
        timeout_s=_optional(block.get("timeout")),
        retry_after_max_s=_optional(block.get("retryAfterMax")),
        dead_letter_sink=block.get("deadLetterSink"),
        format=block.get("format") or "binary",
    )


def classify(status: int | None) -> Verdict:
    """What a status means; None or a negative number: no response at all."""
    if status is None or status < 0 or status >= 500 or status in RETRIED_STATUSES:
        return Verdict.RETRY
    return Verdict.DELIVERED if 200 <= status < 300 else Verdict.FAILED


def backoff_s(delivery: Delivery, n: int) -> float:
    """Wait before retry number `n`, counted from the broker's own origin (see `first_n`)."""
    if delivery.backoff_delay_s is None:
        return 0.0
    if delivery.backoff_policy == "linear":
        return min(delivery.backoff_delay_s * n, MAX_BACKOFF_S)
    return min(delivery.backoff_delay_s * 2.0 ** min(n, 64), MAX_BACKOFF_S)


def first_n(broker_class: str) -> int:
    """Where `n` starts: 0 in the channel-based broker (d, 2d, 4d ...), 1 in Kafka's (2d, 4d, 8d
    ...)."""
    return 1 if broker_class.startswith("Kafka") else 0


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds a Retry-After header asks for (seconds or a date); None: absent or unreadable."""
    if value is None:
        return None
    text = value.strip()
    seconds = whole_seconds(text)
    if seconds is not None:
        return seconds
    from email.utils import parsedate_to_datetime  # rarely needed, and it brings sockets along

    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    if when.tzinfo is None:
        return None
    return max(0.0, (when - now).total_seconds())


def whole_seconds(text: str) -> float | None:
    """A Retry-After in seconds; None: a date, rubbish, or longer than anybody waits."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def wait_s(
    delivery: Delivery, n: int, *, status: int | None, retry_after: str | None, now: datetime
) -> float:
    """Wait before retry `n`: the back-off, or longer if the receiver asked and we may listen."""
    backoff = backoff_s(delivery, n)
    if delivery.retry_after_max_s is None or status not in RETRY_AFTER_STATUSES:
        return backoff
    asked = retry_after_s(retry_after, now)
    return backoff if asked is None else max(backoff, min(asked, delivery.retry_after_max_s))


def _optional(text: str | None) -> float | None:
    return None if text is None else parse_duration(text)
