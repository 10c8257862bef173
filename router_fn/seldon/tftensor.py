"""TensorFlow's TensorProto in protobuf's JSON form, to nested lists and back. Pure.

Values stand one by one in a field of their type, or packed (little-endian) in `tensorContent`; too
few values mean that the last one fills the rest. Texts are base64, as protobuf's JSON writes bytes.
"""

import base64
import json
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from router_fn.seldon.messages import SeldonError

MAX_EMPTY: Final = 10_000
"""Lists that an empty tensor may be spelled out as."""
MAX_RANK: Final = 32
MAX_FILLED: Final = 1_000_000
"""Values that one given value may stand for."""

_TYPES: Final = (
    # number, name, field, format in tensorContent
    (1, "DT_FLOAT", "floatVal", "f"),
    (2, "DT_DOUBLE", "doubleVal", "d"),
    (3, "DT_INT32", "intVal", "i"),
    (4, "DT_UINT8", "intVal", "B"),
    (5, "DT_INT16", "intVal", "h"),
    (6, "DT_INT8", "intVal", "b"),
    (7, "DT_STRING", "stringVal", ""),
    (9, "DT_INT64", "int64Val", "q"),
    (10, "DT_BOOL", "boolVal", "?"),
    (17, "DT_UINT16", "intVal", "H"),
    (19, "DT_HALF", "halfVal", "e"),
    (22, "DT_UINT32", "uint32Val", "I"),
    (23, "DT_UINT64", "uint64Val", "Q"),
)
_BY_DTYPE: Final = {key: row for row in _TYPES for key in row[:2]}


def is_shape(shape: object) -> bool:
    """Whether it is a list of sizes that a tensor may have."""
    return (
        isinstance(shape, list)
        and len(shape) <= MAX_RANK
        and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape)
    )


def empty(shape: Sequence[int]) -> list[Any]:
    """Nested lists of a shape that has a 0 in it. Raises SeldonError (400)."""
    if math.prod(size for size in shape if size) > MAX_EMPTY:
        raise SeldonError("the shape is empty and too large", status=400)
    head, *rest = shape
    return [empty(rest) if rest else 0 for _ in range(head)]


def to_lists(tensor: object) -> bytes:
    """The tensor's values nested by its shape, as JSON. Raises SeldonError (400)."""
    if not isinstance(tensor, dict):
        raise SeldonError("data.tftensor must be an object", status=400)
    dtype = tensor.get("dtype", "DT_FLOAT")
    row = _BY_DTYPE.get(dtype) if isinstance(dtype, str | int) else None
    if row is None:
        raise SeldonError(f"data.tftensor of dtype {dtype!r} cannot be converted", status=400)
    shape = _shape(tensor)
    count = math.prod(shape)
    content = _get(tensor, "tensorContent", None)
    if content is not None:
        values = _unpacked(content, row[3])
    else:
        values = _listed(_get(tensor, row[2], None) or [], row[1])
    if 1 <= len(values) < count <= MAX_FILLED:
        values += values[-1:] * (count - len(values))
    if count != len(values):
        raise SeldonError(f"{len(values)} values do not have the shape {shape}", status=400)
    if not values:
        return json.dumps(empty(shape)).encode()
    for size in reversed(shape[1:]):
        values = [values[at : at + size] for at in range(0, len(values), size)]
    return json.dumps(values if shape else values[0]).encode()


def of_numbers(values: Sequence[Any], shape: Sequence[int]) -> dict[str, Any]:
    """A tensor of row-major numbers: DT_INT64 if all are whole and fit, else DT_DOUBLE."""
    dims = {"dim": [{"size": str(size)} for size in shape]}
    if all(isinstance(one, int) and -(1 << 63) <= one < 1 << 63 for one in values):
        return {"dtype": "DT_INT64", "tensorShape": dims, "int64Val": [str(one) for one in values]}
    return {"dtype": "DT_DOUBLE", "tensorShape": dims, "doubleVal": list(values)}


def _get(tensor: dict[Any, Any], name: str, default: Any) -> Any:
    """A field by its JSON name, or as it stands in the .proto."""
    plain = "".join("_" + c.lower() if c.isupper() else c for c in name)
    return tensor.get(name, tensor.get(plain, default))


def _shape(tensor: dict[Any, Any]) -> list[int]:
    field = _get(tensor, "tensorShape", None) or {}
    try:
        shape = [int(dim.get("size", 0)) for dim in field.get("dim", [])]
    except (AttributeError, TypeError, ValueError):
        shape = [-1]
    if not is_shape(shape):
        raise SeldonError("data.tftensor has no valid tensorShape", status=400)
    return shape


def _listed(values: object, dtype: str) -> list[Any]:
    """The values of a typed field; 64-bit integers may be texts, halves are their bits."""
    read: Callable[[Any], Any]
    if dtype == "DT_STRING":
        read = _text
    elif dtype == "DT_HALF":
        read = _half
    elif dtype in ("DT_FLOAT", "DT_DOUBLE"):
        read = _real
    else:
        read = _whole
    if not isinstance(values, list):
        raise SeldonError("data.tftensor has no values that can be read", status=400)
    try:
        return [read(value) for value in values]
    except (ValueError, TypeError, struct.error):
        text = f"data.tftensor has a value that is no {dtype}"
        raise SeldonError(text, status=400) from None


def _text(value: object) -> dict[str, str]:
    base64.b64decode(str(value), validate=True)
    return {"b64": str(value)}


def _half(value: Any) -> float:
    number: float = struct.unpack("<e", struct.pack("<H", value))[0]
    return number


def _real(value: object) -> float:
    """Also NaN, Infinity and -Infinity, which protobuf writes as texts."""
    if isinstance(value, str):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return value


def _whole(value: object) -> int | bool:
    if isinstance(value, str) and len(value) < 24:
        return int(value)
    if not isinstance(value, int):
        raise TypeError
    return value


def _unpacked(content: object, code: str) -> list[Any]:
    if not code:
        raise SeldonError("data.tftensor: texts belong into stringVal", status=400)
    try:
        packed = base64.b64decode(str(content), validate=True)
        return list(struct.unpack(f"<{len(packed) // struct.calcsize(code)}{code}", packed))
    except (ValueError, struct.error):
        raise SeldonError("data.tftensor has a broken tensorContent", status=400) from None
