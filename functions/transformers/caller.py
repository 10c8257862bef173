"""What the answer has to know of its request, from `preprocess` to `postprocess`."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asked."""

    v2: bool
    """It speaks V2 (REST or gRPC), not V1."""
    count: int = 1
    """Instances in the request."""
    document: Any = None
    """The request as JSON, for templates that look into it."""


_KEY = "turnout-transformer-caller"


def remember(headers: dict[str, Any], caller: Caller) -> None:
    """Keep `caller` for the other hook of the same request: hooks share the headers, as KServe's
    samples know."""
    headers[_KEY] = caller


def recall(headers: dict[str, Any]) -> Caller:
    found: Caller = headers.pop(_KEY)
    return found
