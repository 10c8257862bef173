"""The orjson door: JSON bytes in and out at native speed, numpy arrays written from their
buffers."""

from typing import Any

import orjson

from .errors import InvalidRequest

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def loads(body: bytes | bytearray | memoryview | str) -> Any:
    """Strict JSON (no NaN, no trailing text). Raises InvalidRequest with the position."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise InvalidRequest(f"Unrecognized request format: {exc}") from None


def dumps(value: Any) -> bytes:
    """Compact JSON. numpy arrays and scalars, tensors, data frames and bytes (as UTF-8) are
    accepted.

    NaN and infinities become null, as KServe writes them. Raises TypeError for anything else.
    """
    try:
        return orjson.dumps(value, _plain, _OPTIONS)
    except orjson.JSONEncodeError as exc:
        raise TypeError(f"the model's answer cannot be written as JSON: {exc}") from exc


def _plain(value: Any) -> Any:
    """orjson's fallback for what it does not know: by capability, so that no library is
    imported."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8")
    if isinstance(value, (set, frozenset)):
        return list(value)
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return value.to_dict(orient="records")
    for method in ("tolist", "item"):
        convert = getattr(value, method, None)
        if callable(convert):
            return convert()
    raise TypeError(f"{type(value).__name__} has no JSON form")
