"""What travels from the caller to the predictor: header fields, and the time that is left."""

import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

from functions.errors import BadHookResult

ALWAYS = (
    "authorization",
    "b3",
    "baggage",
    "traceparent",
    "tracestate",
    "x-b3-*",
    "x-request-id",
)
"""Request id, both kinds of trace (and W3C baggage) and the caller's own authorization."""

NEVER = frozenset(
    {
        "connection", "content-encoding", "content-length", "content-type", "expect", "host",
        "keep-alive", "inference-header-content-length", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""They describe one message or one connection."""

DEADLINE_HEADERS = ("grpc-timeout", "x-envoy-expected-rq-timeout-ms")
"""Headers of an HTTP request that say how long its caller waits: gRPC's (`250m`, `10S`; n, u, m,
S, M, H) and Envoy's, in milliseconds, which Istio's gateways set."""

_GRPC_UNITS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "S": 1.0, "M": 60.0, "H": 3600.0}


class Forwarder:
    """Chooses header fields by name (`x-tenant`) or by prefix (`x-tenant-*`)."""

    def __init__(self, more: Iterable[str] = ()) -> None:
        wanted = [name.lower() for name in (*ALWAYS, *more)]
        self._exact = {name for name in wanted if not name.endswith("*")} - NEVER
        self._prefixes = tuple(name[:-1] for name in wanted if name.endswith("*"))

    def choose(self, headers: Mapping[str, str]) -> list[tuple[str, str]]:
        """The fields to send on, in the order they came in; names in lower case."""
        exact, prefixes = self._exact, self._prefixes
        return [
            (name, value)
            for name, value in headers.items()
            if name in exact or (name.startswith(prefixes) and name not in NEVER)
        ]


def added(headers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Fields that hooks ask for, names in lower case as HTTP/2 wants them. Those that describe the
    message are not theirs. Raises BadHookResult for a name that is none."""
    fields = []
    for name, value in headers.items():
        lower = str(name).lower()
        if not _NAME.fullmatch(lower):
            raise BadHookResult(f"context.predictor_headers has {name!r}, which is no header name")
        if lower not in NEVER:
            fields.append((lower, str(value)))
    return fields


_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")


def field_lines(fields: Iterable[tuple[str, str]]) -> bytes:
    """Fields as HTTP/1.1 writes them. Values that hooks put there must not break the framing:
    line ends become blanks."""
    return "".join(
        f"{name}: {_LINE_ENDS.sub(' ', str(value))}\r\n" for name, value in fields
    ).encode("latin-1", "replace")


_LINE_ENDS = re.compile(r"[\r\n\0]+")


def deadline_of(headers: Mapping[str, str]) -> float:
    """When the caller stops waiting, on `time.monotonic`'s clock; 0 when it does not say."""
    found = 0.0
    for name in DEADLINE_HEADERS:
        text = headers.get(name)
        seconds = _seconds(name, text) if text is not None else None
        if seconds is not None:
            at = time.monotonic() + seconds
            found = min(found, at) if found else at
    return found


def _seconds(name: str, text: str) -> float | None:
    """None for what is no such value: a caller's odd header must not fail its request."""
    if name == "grpc-timeout":
        if 2 <= len(text) <= 9 and text[:-1].isascii() and text[:-1].isdigit():
            unit = _GRPC_UNITS.get(text[-1])
            return None if unit is None else int(text[:-1]) * unit
        return None
    return int(text) / 1000 if text.isascii() and text.isdigit() and len(text) < 12 else None
