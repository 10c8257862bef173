"""Wire tensors <-> numpy arrays. The only place where elements are looked at; numpy is imported
here.

Binary data becomes views of the body. JSON lists go through `array.array`, which is faster than
numpy's own inference, and strict: a string or null among numbers is a TypeError, not a NaN.
"""

import array
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import InvalidRequest
from .wire import v2

Array = np.ndarray[Any, Any]

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype("<f4"),
    "BYTES": np.dtype(object),
}
"""Datatype -> dtype of its array. numpy has no bfloat16: BF16 is widened to float32, exactly."""

DATATYPES: dict[np.dtype[Any], str] = {
    dtype: name for name, dtype in DTYPES.items() if name not in ("BF16", "BYTES")
}


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The V2 datatype of a numpy dtype. Raises TypeError for dates, complex and structured ones."""
    name = DATATYPES.get(dtype) or DATATYPES.get(dtype.newbyteorder("="))
    if name is not None:
        return name
    if dtype.kind in "OSU":
        return "BYTES"
    if dtype.name == "bfloat16":
        return "BF16"
    raise TypeError(f"numpy dtype {dtype} has no V2 datatype")


# --- in
# --------------------------------------------------------------------------------------------


def decode(
    name: str, datatype: str, shape: list[int], data: Any, raw: bytes | memoryview | None
) -> Array:
    """An input's array. Raises InvalidRequest."""
    if raw is not None:
        return decode_raw(name, datatype, shape, raw)
    if data is None:
        raise InvalidRequest(f"input {name!r} has no data")
    return decode_json(name, datatype, shape, data)


def decode_raw(name: str, datatype: str, shape: list[int], raw: bytes | memoryview) -> Array:
    """A view of `raw` (BYTES and BF16: a copy). Raises InvalidRequest."""
    try:
        v2.check_binary_size(len(raw), shape, datatype, f"input {name!r}")
    except v2.Malformed as problem:
        raise InvalidRequest(str(problem)) from None
    if datatype == "BYTES":
        elements = split_bytes(name, raw, v2.element_count(shape))
        flat = np.empty(len(elements), dtype=object)
        flat[:] = elements
        return in_shape(name, flat, shape)
    if datatype == "BF16":
        wide = np.frombuffer(raw, dtype="<u2").astype("<u4") << 16
        return in_shape(name, wide.view("<f4"), shape)
    if datatype == "BOOL":
        flags = np.frombuffer(raw, dtype=np.uint8)
        if flags.size and flags.max() > 1:
            raise InvalidRequest(f"input {name!r}: a BOOL byte must be 0 or 1")
        return in_shape(name, flags.view(np.bool_), shape)
    return in_shape(name, np.frombuffer(raw, dtype=DTYPES[datatype]), shape)


def in_shape(name: str, flat: Array, shape: list[int]) -> Array:
    """`flat`, whose size is that of the shape. Raises InvalidRequest: an empty tensor may claim
    dimensions that numpy cannot hold."""
    try:
        return flat.reshape(shape)
    except (ValueError, OverflowError):
        raise InvalidRequest(f"input {name!r}: shape {shape} is too large") from None


def split_bytes(name: str, raw: bytes | memoryview, count: int) -> list[bytes]:
    """BYTES elements: each a 4-byte little-endian length and that many bytes. Raises
    InvalidRequest."""
    elements: list[bytes] = []
    at, end = 0, len(raw)
    view = memoryview(raw)
    while at < end:
        if end - at < 4 or len(elements) == count:
            break
        (length,) = struct.unpack_from("<I", view, at)
        at += 4
        if length > end - at:
            raise InvalidRequest(
                f"input {name!r}: a BYTES element claims {length} bytes, {end - at} are left"
            )
        elements.append(bytes(view[at : at + length]))
        at += length
    if at != end or len(elements) != count:
        raise InvalidRequest(
            f"input {name!r}: its bytes do not hold exactly the {count} BYTES elements of its shape"
        )
    return elements


_ARRAY_CODES = {
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP32": "f",
    "FP64": "d",
}
"""`array.array` checks the range of integers; a float too large for FP32 becomes infinite there."""

_FP32_MAX = float(np.finfo(np.float32).max)


def decode_json(name: str, datatype: str, shape: list[int], data: Any) -> Array:
    """A JSON list, flat or nested. Raises InvalidRequest for wrong types, ranges and shapes."""
    code = _ARRAY_CODES.get(datatype)
    if code is not None:
        try:  # nearly every one: flat, of the right numbers, and as many as the shape says
            flat = np.frombuffer(array.array(code, data), dtype=DTYPES[datatype])
            if datatype != "FP32" or not _overflowed(flat):
                return flat.reshape(shape)
        except (TypeError, ValueError, OverflowError):
            pass  # found out and told below
    elif datatype in v2.BINARY_ONLY:
        raise InvalidRequest(f"input {name!r}: {datatype} must be sent as binary data")
    dtype = DTYPES[datatype]
    flat = _strings(name, data) if datatype == "BYTES" else _numbers(name, datatype, dtype, data)
    return _shaped(name, shape, flat)


def _shaped(name: str, shape: list[int], flat: Array) -> Array:
    expected = math.prod(shape)
    if flat.size != expected:
        raise InvalidRequest(
            f"input {name!r}: {flat.size} elements do not fill shape {shape} ({expected} elements)"
        )
    return in_shape(name, flat, shape)


def _numbers(name: str, datatype: str, dtype: np.dtype[Any], data: list[Any]) -> Array:
    """Flat array of exactly `dtype`."""
    code = _ARRAY_CODES.get(datatype)
    if code is not None:
        try:
            exact: Array = np.frombuffer(array.array(code, data), dtype=dtype)
        except OverflowError:
            raise InvalidRequest(
                f"input {name!r}: a number is out of range for {datatype}"
            ) from None
        except TypeError:
            pass
        else:
            if datatype == "FP32" and _overflowed(exact):
                raise InvalidRequest(f"input {name!r}: a number is out of range for {datatype}")
            return exact
    wide = _nested(name, datatype, dtype, data)
    if wide.dtype == dtype:
        return wide
    if dtype.kind == "b":
        if wide.dtype.kind == "b":
            return wide
        if wide.dtype.kind in "iu" and (not wide.size or (wide.min() >= 0 and wide.max() <= 1)):
            return wide.astype(np.bool_)
        raise InvalidRequest(f"input {name!r}: BOOL data must be true or false")
    if wide.size:
        limits: Any = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
        if wide.max() > limits.max or wide.min() < limits.min:
            raise InvalidRequest(f"input {name!r}: a number is out of range for {datatype}")
    return wide.astype(dtype)


def from_buffer(buffer: Any, dtype: str) -> Array:
    found: Array = np.frombuffer(buffer, dtype=dtype)
    return found


def narrow(name: str, datatype: str, shape: list[int], wide: Array) -> Array:
    """64-bit numbers of a JSON document in the datatype and shape of their input.

    Raises InvalidRequest as `decode_json` does.
    """
    dtype = DTYPES[datatype]
    if wide.dtype == dtype:
        found = wide
    elif dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if wide.size and (wide.max() > limits.max or wide.min() < limits.min):
            raise InvalidRequest(f"input {name!r}: a number is out of range for {datatype}")
        found = wide.astype(dtype)
    else:
        with np.errstate(over="ignore"):  # looked for in the next line
            found = wide.astype(dtype)
        if _overflowed(found):
            raise InvalidRequest(f"input {name!r}: a number is out of range for {datatype}")
    return _shaped(name, shape, found)


def _overflowed(narrow: Array) -> bool:
    """JSON has no infinity: one in the float32 array was a number too large for it."""
    if narrow.size <= 64:  # builtins are quicker than numpy here
        return not math.isfinite(sum(narrow.tolist()))
    with np.errstate(over="ignore"):  # a sum may overflow where no element has
        suspicious = not np.isfinite(narrow.sum())
    return suspicious and bool(np.isinf(narrow).any())


def _nested(name: str, datatype: str, dtype: np.dtype[Any], data: list[Any]) -> Array:
    """The slow path: nested lists, booleans, and everything that is wrong."""
    try:
        found = np.asarray(data)
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"input {name!r}: its data is ragged or too large for {datatype}"
        ) from None
    if found.size == 0:
        return np.empty(0, dtype=dtype)
    if dtype.kind == "u" and found.dtype.kind == "f":
        # numpy has no integer type for 2**63 beside small numbers and makes floats of them.
        plain = np.asarray(data, dtype=object).ravel().tolist()
        if all(type(item) is int for item in plain):
            try:
                return np.asarray(plain, dtype=dtype)
            except OverflowError:
                raise InvalidRequest(
                    f"input {name!r}: a number is out of range for {datatype}"
                ) from None
    kinds = {"f": "fiu", "i": "iu", "u": "iu", "b": "biu"}[dtype.kind]
    if found.dtype.kind == "O" and dtype.kind in "iu":
        raise InvalidRequest(
            f"input {name!r}: a number is out of range for {datatype}, or no number"
        )
    if found.dtype.kind not in kinds:
        raise InvalidRequest(f"input {name!r}: its data is not of datatype {datatype}")
    return found.ravel()


def _strings(name: str, data: list[Any]) -> Array:
    flat: list[Any] = []
    if any(type(item) is list for item in data):
        _check_regular(name, data)
    stack = [iter(data)]
    while stack:  # nested lists, without recursion
        for item in stack[-1]:
            if type(item) is list:
                if len(stack) > v2.MAX_RANK:
                    raise InvalidRequest(f"input {name!r}: its data is nested too deeply")
                stack.append(iter(item))
                break
            if type(item) is not str:
                raise InvalidRequest(f"input {name!r}: BYTES data in JSON must be strings")
            flat.append(item)
        else:
            stack.pop()
    found = np.empty(len(flat), dtype=object)
    found[:] = flat
    return found


def _check_regular(name: str, data: list[Any]) -> None:
    """Nested lists must be as long as their neighbours, as numpy has it for numbers."""
    level = data
    while level:
        lengths = {len(item) if type(item) is list else -1 for item in level}
        if len(lengths) > 1:
            raise InvalidRequest(f"input {name!r}: its data is ragged")
        if lengths == {-1}:
            return
        level = [inner for item in level for inner in item]


# --- out
# -------------------------------------------------------------------------------------------


def adopt(value: Any, datatype: str = "") -> tuple[Array, str]:
    """An array to send and its datatype. A `datatype` that was announced stays when it can carry
    the numbers (float64 announced as FP32 is narrowed); otherwise it is the array's own."""
    found: Array = value if isinstance(value, np.ndarray) else np.asarray(value)
    if found.dtype.kind == "M":
        found = found.astype(np.str_).astype(object)
    own = DATATYPES.get(found.dtype) or datatype_of(found.dtype)
    if own == "BF16":
        found = found.astype(np.float32)
    if not datatype or datatype == own:
        return found, own
    wanted = DTYPES.get(datatype)
    if wanted == found.dtype:
        return found, datatype  # float32 announced as BF16
    if wanted is not None and _carries(wanted, found):
        return found.astype(wanted), datatype
    return found, own


def _carries(wanted: np.dtype[Any], array: Array) -> bool:
    """Numbers of the array are still themselves (floats: rounded) as this type."""
    if wanted.kind == "f":
        return array.dtype.kind in "fiu"
    if wanted.kind not in "iu" or array.dtype.kind not in "iu":
        return False
    limits = np.iinfo(wanted)
    return not array.size or bool(limits.min <= array.min() and array.max() <= limits.max)


def texts(name: str, datatype: str, array: Array) -> list[str]:
    """Elements of BYTES as text. Raises InvalidRequest."""
    if datatype != "BYTES":
        raise InvalidRequest(f"tensor {name!r} is {datatype}: only BYTES are texts")
    try:
        return [x.decode() if isinstance(x, bytes) else str(x) for x in array.ravel().tolist()]
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"tensor {name!r} is no UTF-8: {exc}") from None


def holds_bytes(data: list[Any]) -> bool:
    """The (nested) list is of bytes, which JSON never is."""
    first: Any = data
    while isinstance(first, list) and first:
        first = first[0]
    return isinstance(first, bytes)


def of_bytes(data: list[Any], shape: Sequence[int]) -> Array:
    """Elements as they are: numpy's own type for bytes drops zeros at their ends."""
    found: Array = np.array(data, dtype=object)
    return found.reshape(tuple(shape) or found.shape)


def encode_raw(value: Array, datatype: str) -> bytes | memoryview:
    """Little-endian, row-major bytes; a view when the array is that already."""
    if datatype == "BYTES":
        return b"".join(
            struct.pack("<I", len(item)) + item for item in map(to_bytes, value.ravel().tolist())
        )
    if datatype == "BF16":
        return _narrow(value)
    plain = np.ascontiguousarray(value, dtype=DTYPES[datatype])
    return plain.reshape(-1).view(np.uint8).data if plain.size else b""


def _narrow(value: Array) -> bytes:
    """float32 -> bfloat16, rounded to nearest even; NaN stays NaN."""
    bits = np.ascontiguousarray(value, dtype="<f4").view("<u4")
    rounded = (bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16
    quiet = (bits >> 16) | 0x40
    is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return np.where(is_nan, quiet, rounded).astype("<u2").tobytes()


def to_bytes(item: Any) -> bytes:
    if isinstance(item, bytes):
        return item
    return item.encode("utf-8") if isinstance(item, str) else str(item).encode("utf-8")


def encode_json(name: str, value: Array, datatype: str) -> Any:
    """A flat array that orjson writes, or a list of strings. Raises InvalidRequest."""
    if datatype in v2.BINARY_ONLY:
        raise InvalidRequest(
            f"output {name!r} is {datatype}, which has no JSON form: ask for it with"
            " binary_data: true"
        )
    if datatype == "BYTES":
        return [_text(name, item) for item in value.ravel().tolist()]
    if value.ndim == 1 and value.flags.c_contiguous and value.dtype.isnative:
        return value
    flat = np.ascontiguousarray(value).reshape(-1)
    return flat if flat.dtype.isnative else flat.astype(flat.dtype.newbyteorder("="))


def _text(name: str, item: Any) -> str:
    if isinstance(item, bytes):
        try:
            return item.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidRequest(
                f"output {name!r} is not UTF-8 text: ask for it with binary_data: true"
            ) from None
    return item if isinstance(item, str) else str(item)


def as_array(value: Any) -> Array:
    """numpy arrays as they are; lists, scalars, tensors and frames converted."""
    if isinstance(value, np.ndarray):
        return value
    detach = getattr(value, "detach", None)
    if callable(detach):  # a torch tensor; numpy has no bfloat16
        plain = detach().cpu()
        found: Array = (plain.float() if str(plain.dtype) == "torch.bfloat16" else plain).numpy()
        return found
    return np.asarray(value)
