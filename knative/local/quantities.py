"""Durations and Kubernetes resource quantities: `90s`, `1m30s`, `500m`, `2Gi` to numbers. Pure."""

import re
from decimal import Decimal, InvalidOperation

_GO_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_SUFFIXES: dict[str, Decimal] = {
    **{suffix: Decimal(10) ** (3 * index - 9) for index, suffix in enumerate("num")},
    **{suffix: Decimal(10) ** (3 * index + 3) for index, suffix in enumerate("kMGTPE")},
    **{f"{prefix}i": Decimal(2) ** (10 * (index + 1)) for index, prefix in enumerate("KMGTPE")},
    "": Decimal(1),
}
_QUANTITY = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)([numkMGTPE]|[KMGTPE]i)?")


def parse_duration(text: str) -> float:
    """Seconds of a Go duration (`1m30s`, `0.5s`); a bare `0` is allowed, other bare numbers are
    not."""
    stripped = text.strip()
    if stripped == "0":
        return 0.0
    total, position = 0.0, 0
    for match in _GO_PART.finditer(stripped):
        if match.start() != position:
            break
        total += float(match[1]) * _GO_UNITS[match[2]]
        position = match.end()
    if not stripped or position != len(stripped):
        raise ValueError(
            f"{text!r} is not a duration; write a number with a unit, such as 6s or 1m30s"
        )
    return total


def parse_quantity(text: str | int | float) -> Decimal:
    """The number behind a Kubernetes quantity: `500m` -> 0.5, `2Gi` -> 2147483648, `1e3` ->
    1000."""
    match = _QUANTITY.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is not a quantity such as 500m, 2 or 1Gi")
    try:
        return Decimal(match[1]) * _SUFFIXES[match[2] or ""]
    except InvalidOperation as error:  # pragma: no cover - the pattern admits decimals only
        raise ValueError(f"{text!r} is not a quantity") from error
