"""Kubernetes quantities to numbers."""

import re

_QUANTITY = re.compile(r"([0-9]*\.?[0-9]+)(m|k|[KMGTPE]i?)?\Z")
_FACTORS = {
    "": 1.0,
    "m": 1e-3,
    "k": 1e3,
    **{letter: 1000.0 ** (i + 2) for i, letter in enumerate("MGTPE")},
    **{f"{letter}i": 1024.0 ** (i + 1) for i, letter in enumerate("KMGTPE")},
}


def parse(text: object) -> float | None:
    """The number a quantity stands for (`500m` is 0.5, `2Gi` is 2147483648); None if it is none."""
    match = _QUANTITY.match(str(text))
    if not match:
        return None
    factor = _FACTORS.get(match[2] or "")
    return float(match[1]) * factor if factor is not None else None
