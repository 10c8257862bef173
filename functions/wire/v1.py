"""KServe's V1 protocol (TensorFlow Serving's row form): plain dicts in, plain dicts out.

Standard library only; spec "Model server", sections "HTTP endpoints" and "Failure table".
"""

from collections.abc import Mapping
from typing import Any

VERBS = ("predict", "explain")


def check_lists(payload: Any) -> str | None:
    """KServe's one check of a V1 body, before any hook runs: the problem, or None."""
    if type(payload) is dict:
        if type(payload.get("instances")) is list and "inputs" not in payload:
            return None  # nearly every request
        for key in ("instances", "inputs"):
            if key in payload and not isinstance(payload[key], list):
                if key == "inputs" and isinstance(payload[key], Mapping):
                    continue
                return f'Expected "{key}" to be a list'
    return None


def instances_of(payload: Any) -> tuple[list[Any] | None, str | None]:
    """`inputs` (it wins) or `instances` of a body: (list, None) or (None, problem)."""
    if type(payload) is dict and "inputs" not in payload:
        rows = payload.get("instances")
        if type(rows) is list:
            return rows, None
    if not isinstance(payload, Mapping):
        return None, 'the body must be a JSON object with "instances"'
    problem = check_lists(payload)
    if problem is not None:
        return None, problem
    rows = payload.get("inputs", payload.get("instances"))
    if not isinstance(rows, list):
        return None, 'the body needs "instances" (or "inputs"), a list'
    return rows, None


def is_json_type(content_type: str) -> bool | None:
    """True for JSON, False for other types, None when the type says nothing (absent, or curl's
    default).

    Parameters such as `; charset=utf-8` do not matter.
    """
    media = content_type.partition(";")[0].strip().lower()
    if media in ("", "application/x-www-form-urlencoded", "text/plain"):
        return None
    return media == "application/json" or (
        media.startswith("application/") and media.endswith("+json")
    )


def looks_like_json(body: bytes) -> bool:
    """Sniffing for bodies of unknown type: a JSON object or list."""
    return body.lstrip(b" \t\r\n")[:1] in (b"{", b"[")
