"""Seldon's built-in units: routers, a model and a combiner that need no service (spec/seldon 2.3).

The semantics of the last two are those of the Java engine, which documented examples still use.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from router_fn.seldon.graph import Unit
from router_fn.seldon.messages import SeldonError, compose, members

_SIMPLE_DATA: Final = {
    "names": ["class0", "class1", "class2"],
    "tensor": {"shape": [1, 3], "values": [0.1, 0.9, 0.5]},
}
_SIMPLE_METRICS: Final = [
    {"key": "mymetric_counter", "type": "COUNTER", "value": 1},
    {"key": "mymetric_gauge", "type": "GAUGE", "value": 100},
    {"key": "mymetric_timer", "type": "TIMER", "value": 22.1},
]


def route(unit: Unit, draw: float) -> int:
    """The child a built-in router chooses; `draw` is a random number in [0, 1)."""
    if unit.implementation == "RANDOM_ABTEST":
        return 0 if draw < float(unit.parameters.get("ratioA", 0.5)) else 1
    return 0


def simple_model(body: bytes) -> bytes:
    """A fixed answer; text and binary input come back."""
    fields = members(body)
    if not fields:
        raise SeldonError("the request must be a JSON object with data", status=400)
    meta = members(fields.get(b"meta", b"{}"))
    meta[b"metrics"] = json.dumps(_SIMPLE_METRICS).encode()
    answer = {b"meta": compose(meta)}
    for kind in (b"binData", b"strData"):
        if kind in fields:
            return compose({**answer, kind: fields[kind]})
    return compose({**answer, b"data": json.dumps(_SIMPLE_DATA).encode()})


def average(outputs: Sequence[bytes]) -> bytes:
    """The element-wise mean of two-dimensional data of one shape; the rest is the first child's."""
    rows = [_matrix(output, number) for number, output in enumerate(outputs)]
    shape = (len(rows[0]), len(rows[0][0]) if rows[0] else 0)
    for number, matrix in enumerate(rows):
        if len(matrix) != shape[0] or any(len(row) != shape[1] for row in matrix):
            raise SeldonError(f"the answers to average differ in shape (child {number})")
    mean = [
        [sum(cells) / len(cells) for cells in zip(*row, strict=True)]
        for row in zip(*rows, strict=True)
    ]
    fields = members(outputs[0])
    data = members(fields[b"data"])
    if b"tensor" in data:
        flat = [cell for row in mean for cell in row]
        data[b"tensor"] = json.dumps({"shape": list(shape), "values": flat}).encode()
    else:
        data[b"ndarray"] = json.dumps(mean).encode()
    return compose({**fields, b"data": compose(data)})


def _matrix(output: bytes, number: int) -> list[list[float]]:
    try:
        data = json.loads(output)["data"]
    except (ValueError, RecursionError, LookupError, TypeError):
        raise SeldonError(f"child {number} answered no data to average") from None
    matrix: Any = None
    if isinstance(data, dict) and isinstance(data.get("tensor"), dict):
        matrix = _reshaped(data["tensor"])
    elif isinstance(data, dict):
        matrix = data.get("ndarray")
    if not isinstance(matrix, list) or not all(isinstance(row, list) for row in matrix):
        raise SeldonError(f"child {number} answered no two-dimensional data to average")
    for row in matrix:
        for cell in row:
            if isinstance(cell, bool) or not isinstance(cell, int | float):
                raise SeldonError(f"child {number} answered {json.dumps(cell)[:40]}, not a number")
    return matrix


def _reshaped(tensor: dict[str, Any]) -> list[list[float]] | None:
    shape, values = tensor.get("shape"), tensor.get("values")
    if not isinstance(shape, list) or len(shape) != 2 or not isinstance(values, list):
        return None
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        return None
    height, width = shape
    if len(values) != height * width:
        return None
    return [values[at * width : (at + 1) * width] for at in range(height)]
