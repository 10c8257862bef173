"""What the answer has to know of its request, from `preprocess` to `postprocess`."""

from dataclasses import dataclass
from typing import Any

from functions.inference import InferRequest


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asked."""

    v2: bool
    """It speaks V2 (REST or gRPC), not V1."""
    count: int = 1
    """Instances in the request."""
    document: Any = None
    """The request as JSON, for templates that look into it."""

    def wants_v1(self, predictor_protocol: str) -> bool:
        """The predictor gets a V1 body; `auto` follows the caller (and is converted if need
        be)."""
        return predictor_protocol == "v1" or (predictor_protocol == "auto" and not self.v2)


def is_v2(payload: Any) -> bool:
    return isinstance(payload, InferRequest)


KEY = "caller"
"""Where `preprocess` leaves it in the request's context."""
