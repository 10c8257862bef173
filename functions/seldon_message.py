"""SeldonMessage as JSON: what user code gets of it, and how its results go back (spec
"SeldonMessage").

Pure functions over dicts and arrays. Deliberate differences from Seldon's wrapper: `tftensor` is
read without TensorFlow, numpy integers are routes, a model that returns None is the model's fault
(500), what is no message is 400 where the wrapper stumbles (500) or answers 200.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .errors import FunctionsError, InvalidRequest

BAD_DATA = "MICROSERVICE_BAD_DATA"
INTERNAL_ERROR = "MICROSERVICE_INTERNAL_ERROR"
BAD_METRIC = "MICROSERVICE_BAD_METRIC"
BAD_METADATA = "MICROSERVICE_BAD_METADATA"

METRIC_TYPES = ("COUNTER", "GAUGE", "TIMER")

_TF_FIELDS = {
    "DT_FLOAT": ("floatVal", "<f4"),
    "DT_DOUBLE": ("doubleVal", "<f8"),
    "DT_INT32": ("intVal", "<i4"),
    "DT_UINT8": ("intVal", "<u1"),
    "DT_INT8": ("intVal", "<i1"),
    "DT_INT16": ("intVal", "<i2"),
    "DT_UINT16": ("intVal", "<u2"),
    "DT_INT64": ("int64Val", "<i8"),
    "DT_UINT32": ("uint32Val", "<u4"),
    "DT_UINT64": ("uint64Val", "<u8"),
    "DT_BOOL": ("boolVal", "?"),
    "DT_STRING": ("stringVal", "O"),
}
_TF_NUMBERS = {1: "DT_FLOAT", 2: "DT_DOUBLE", 3: "DT_INT32", 7: "DT_STRING", 9: "DT_INT64"}
_AS_TEXT = ("DT_INT64", "DT_UINT64")
"""protobuf's JSON writes these as strings."""


class BadData(InvalidRequest):
    """The request is no SeldonMessage, or not the one that the verb needs."""


class BadResult(FunctionsError):
    """User code returned what has no place in a message."""

    def __init__(self, message: str, reason: str = INTERNAL_ERROR, status: int = 500) -> None:
        self.reason = reason
        self._status = status
        super().__init__(message)

    def http_status(self) -> int:
        return self._status


class Result:
    """What a model returned, with names of its own for the columns (a data frame's, say)."""

    __slots__ = ("names", "value")

    def __init__(self, value: Any, names: Sequence[str] | None = None) -> None:
        self.value = value
        self.names = names


# --- requests -------------------------------------------------------------------------------------


def payload(message: Any) -> tuple[Any, list[str], str]:
    """(X, names, kind) of a message. Raises BadData, BadResult for ragged data (500, as ever).

    `kind` is ndarray, tensor, tftensor, jsonData, strData or binData; when a message has several,
    the order is data, jsonData, strData, binData.
    """
    if not isinstance(message, Mapping):
        raise invalid(message)
    meta_of(message)
    if "data" in message:
        data = message["data"]
        if not isinstance(data, Mapping):
            raise BadData("data must be an object with ndarray, tensor or tftensor")
        names = data.get("names")
        values, kind = _array(data)
        return values, names if isinstance(names, list) else [], kind
    if "jsonData" in message:
        return message["jsonData"], [], "jsonData"
    if "strData" in message:
        if not isinstance(message["strData"], str):
            raise BadData("strData must be a string")
        return message["strData"], [], "strData"
    if "binData" in message:
        try:
            return base64.b64decode(message["binData"], validate=True), [], "binData"
        except (binascii.Error, TypeError, ValueError):
            raise BadData("binData is not base64") from None
    raise invalid(message)


def invalid(value: Any) -> BadData:
    """For what is no message at all."""
    return BadData(f"Invalid request data type: {str(value)[:500]}")


def meta_of(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message's meta, {} if it has none. Raises BadData for one of the wrong shape."""
    meta = message.get("meta")
    if meta is None:
        return {}
    if not isinstance(meta, Mapping):
        raise BadData("meta must be an object")
    for name, kind, what in (
        *((name, Mapping, "an object") for name in ("tags", "requestPath", "routing")),
        ("metrics", list, "a list"),
    ):
        if meta.get(name) is not None and not isinstance(meta[name], kind):
            raise BadData(f"meta.{name} must be {what}")
    return meta


def _array(data: Mapping[str, Any]) -> tuple[Any, str]:
    try:
        if "tensor" in data:
            tensor = data["tensor"]
            values = np.array(tensor.get("values", []))
            return values.reshape(tensor["shape"]), "tensor"
        if "tftensor" in data:
            return _from_tftensor(data["tftensor"]), "tftensor"
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as exc:
        raise BadData(f"the data cannot be read: {type(exc).__name__}: {exc}") from None
    rows = data.get("ndarray", [])
    if not isinstance(rows, list | np.ndarray):
        raise BadData("data.ndarray must be a list")
    try:
        return np.array(rows), "ndarray"
    except ValueError as exc:
        raise BadResult(f"data.ndarray is ragged: {exc}") from None


def _from_tftensor(proto: Any) -> Any:
    name = proto.get("dtype", "DT_FLOAT")
    field, dtype = _TF_FIELDS[_TF_NUMBERS.get(name, name)]
    dims = (proto.get("tensorShape") or {}).get("dim", [])
    shape = [int(dim.get("size", 0)) for dim in dims]
    if "tensorContent" in proto and dtype != "O":
        content = base64.b64decode(proto["tensorContent"], validate=True)
        return np.frombuffer(content, dtype=dtype).reshape(shape)
    values = proto.get(field, [])
    if dtype == "O":
        values = [base64.b64decode(value, validate=True) for value in values]
    array = np.array(values, dtype=dtype)
    if array.size == 1:  # one value stands for all
        return np.full(shape, array[0], dtype=dtype)
    return array.reshape(shape)


# --- answers --------------------------------------------------------------------------------------


def result_fields(result: Any, kind: str, class_names: Any) -> dict[str, Any]:
    """The payload fields for what user code returned. Raises BadResult."""
    if isinstance(result, Result):
        class_names, result = result.names or class_names, result.value
    if isinstance(result, str):
        return {"strData": result}
    if isinstance(result, bytes | bytearray):
        return {"binData": base64.b64encode(result).decode()}
    if isinstance(result, Mapping):
        return {"jsonData": dict(result)}
    if result is None:
        raise BadResult("the model returned None: it must return an array, list, text or dict")
    if not isinstance(result, list | np.ndarray):
        shown = f"{type(result).__name__} {str(result)[:200]}"
        text = f"the model returned {shown}; it must return an array, list, text or dict"
        raise BadResult(text, BAD_DATA, 400)
    array = _as_array(result)
    names = names_of(array, class_names)
    if array.dtype.kind not in "fiu":
        plain = result if isinstance(result, list) else array.tolist()
        return {"data": {"names": names, "ndarray": plain}}
    if kind == "ndarray":
        return {"data": {"names": names, "ndarray": array.tolist()}}
    if kind == "tftensor":
        return {"data": {"names": names, "tftensor": _to_tftensor(array)}}
    tensor = {"shape": list(array.shape), "values": array.ravel().tolist()}
    return {"data": {"names": names, "tensor": tensor}}


def _as_array(result: Any) -> Any:
    try:
        return np.asarray(result)
    except ValueError as exc:
        raise BadResult(f"the model returned a ragged list: {exc}") from None


def _to_tftensor(array: Any) -> Any:
    for name, (field, dtype) in _TF_FIELDS.items():
        if dtype != "O" and array.dtype == np.dtype(dtype):
            values = array.ravel().tolist()
            if name in _AS_TEXT:
                values = [str(value) for value in values]
            dims = [{"size": str(size)} for size in array.shape]
            return {"dtype": name, "tensorShape": {"dim": dims}, field: values}
    raise BadResult(f"an array of {array.dtype} has no tftensor form")


def names_of(array: Any, class_names: Any) -> list[str]:
    """`class_names()` of the model for rank two and more, else t:0 … by the second axis."""
    if array.ndim < 2:
        return []
    if class_names is not None:
        return [str(name) for name in class_names]
    return [f"t:{index}" for index in range(array.shape[1])]


def merge_meta(
    requests: Sequence[Any], tags: Any, metrics: Sequence[Any], unit: str, image: str
) -> dict[str, Any]:
    """The answer's meta: the requests' (the first puid, the last tags), the model's tags and
    metrics, and the path; `image` loses to what a request says of the same unit."""
    meta: dict[str, Any] = {}
    all_tags: dict[str, Any] = {}
    path: dict[str, Any] = {unit: image} if unit else {}
    all_metrics: list[Any] = []
    for message in requests:
        own = meta_of(message)
        if own.get("puid"):
            meta.setdefault("puid", own["puid"])
        all_tags.update(own.get("tags") or {})
        path.update(own.get("requestPath") or {})
        all_metrics.extend(own.get("metrics") or [])
    all_tags.update(tags)
    all_metrics.extend(metrics)
    for key, value in (("tags", all_tags), ("metrics", all_metrics), ("requestPath", path)):
        if value:
            meta[key] = value
    return meta


def checked_metrics(metrics: Any) -> list[Any]:
    """What `metrics()` returned: dicts of type, key and value. Raises BadResult (BAD_METRIC)."""
    if not isinstance(metrics, list | tuple) or not all(_is_metric(metric) for metric in metrics):
        text = f"metrics() must give dicts with type, key and value, not {str(metrics)[:200]}"
        raise BadResult(text, BAD_METRIC)
    return list(metrics)


def _is_metric(metric: Any) -> bool:
    return (
        isinstance(metric, Mapping)
        and metric.get("type") in METRIC_TYPES
        and isinstance(metric.get("key"), str)
        and isinstance(metric.get("value"), int | float | np.number)
        and isinstance(metric.get("tags") or {}, Mapping)
    )


def fault(status: int, info: str, reason: str = "") -> dict[str, Any]:
    """The wrapper's error body."""
    reason = reason or (BAD_DATA if 400 <= status < 500 else INTERNAL_ERROR)
    return {"status": {"code": -1, "info": info, "reason": reason, "status": 1}}
