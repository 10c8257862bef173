"""SeldonMessage as JSON: what user code gets of it, and how its results go back (spec
"SeldonMessage").

Pure functions over dicts and arrays. Deliberate differences from Seldon's wrapper: `tftensor` is
read without TensorFlow, numpy integers are routes, a model that returns None is the model's fault
(500).
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import FunctionsError, InvalidRequest

KINDS = ("ndarray", "tensor", "tftensor")

_TF_FIELDS = {
    "DT_FLOAT": ("floatVal", "<f4"),
    "DT_DOUBLE": ("doubleVal", "<f8"),
    "DT_INT32": ("intVal", "<i4"),
    "DT_UINT8": ("intVal", "<u1"),
    "DT_INT8": ("intVal", "<i1"),
    "DT_INT16": ("intVal", "<i2"),
    "DT_INT64": ("int64Val", "<i8"),
    "DT_BOOL": ("boolVal", "?"),
    "DT_STRING": ("stringVal", "O"),
}


class BadData(InvalidRequest):
    """MICROSERVICE_BAD_DATA."""


class BadResult(FunctionsError):
    """The model returned what has no place in a message."""


def parse(body: bytes) -> Any:
    """The request's JSON, from a JSON body or the form field `json`. Raises BadData."""
    text = body
    if text.startswith(b"json="):
        from urllib.parse import parse_qs

        text = parse_qs(text.decode("latin-1")).get("json", [""])[0].encode()
    try:
        return json.loads(text)
    except ValueError:
        raise BadData("Can't find JSON in data") from None


def payload(message: Any) -> tuple[Any, list[str], str]:
    """(X, names, kind) of a message; kind is a key of KINDS, jsonData, strData or binData."""
    if not isinstance(message, Mapping):
        raise BadData(f"Invalid request data type: {message}")
    data = message.get("data")
    if isinstance(data, Mapping):
        names = data.get("names")
        values, kind = _array(data)
        return values, names if isinstance(names, list) else [], kind
    if "jsonData" in message:
        return message["jsonData"], [], "jsonData"
    if isinstance(message.get("strData"), str):
        return message["strData"], [], "strData"
    if "binData" in message:
        try:
            return base64.b64decode(message["binData"], validate=True), [], "binData"
        except (binascii.Error, TypeError, ValueError):
            raise BadData("binData is not base64") from None
    raise BadData(f"Invalid request data type: {message}")


def _array(data: Mapping[str, Any]) -> tuple[Any, str]:
    try:
        if "tensor" in data:
            tensor = data["tensor"]
            return np.array(tensor["values"]).reshape(tensor.get("shape", [-1])), "tensor"
        if "tftensor" in data:
            return _from_tftensor(data["tftensor"]), "tftensor"
        return np.array(data.get("ndarray", [])), "ndarray"
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise BadData(f"the data cannot be read: {exc}") from None


def _from_tftensor(proto: Any) -> Any:
    field, dtype = _TF_FIELDS[proto.get("dtype", "DT_FLOAT")]
    shape = [int(dim["size"]) for dim in proto.get("tensorShape", {}).get("dim", [])]
    if "tensorContent" in proto:
        return np.frombuffer(base64.b64decode(proto["tensorContent"]), dtype=dtype).reshape(shape)
    values = proto.get(field, [])
    if dtype == "O":
        values = [base64.b64decode(value) for value in values]
    return np.array(values, dtype=dtype).reshape(shape)


def _to_tftensor(array: Any) -> Any:
    for name, (field, dtype) in _TF_FIELDS.items():
        if dtype != "O" and array.dtype == np.dtype(dtype):
            values = array.ravel().tolist()
            if name == "DT_INT64":
                values = [str(value) for value in values]
            dims = [{"size": str(size)} for size in array.shape]
            return {"dtype": name, "tensorShape": {"dim": dims}, field: values}
    raise BadResult(f"an array of {array.dtype} has no tftensor form")


def result_fields(result: Any, kind: str, class_names: Any) -> dict[str, Any]:
    """The payload fields for what user code returned. Raises BadResult."""
    if isinstance(result, str):
        return {"strData": result}
    if isinstance(result, (bytes, bytearray)):
        return {"binData": base64.b64encode(result).decode()}
    if isinstance(result, Mapping):
        return {"jsonData": dict(result)}
    if not isinstance(result, (list, np.ndarray)):
        raise BadResult(
            f"Unknown data type returned as payload (must be list or np array):{result}"
        )
    array = np.asarray(result)
    names = names_of(array, class_names)
    if array.dtype.kind not in "fiub":
        return {"data": {"names": names, "ndarray": array.tolist()}}
    if kind == "ndarray":
        return {"data": {"names": names, "ndarray": array.tolist()}}
    if kind == "tftensor":
        return {"data": {"names": names, "tftensor": _to_tftensor(array)}}
    tensor = {"shape": list(array.shape), "values": array.ravel().tolist()}
    return {"data": {"names": names, "tensor": tensor}}


def names_of(array: Any, class_names: Any) -> list[str]:
    """`class_names()` of the model for rank two and more, else t:0 … by the second axis."""
    if array.ndim < 2:
        return []
    if class_names is not None:
        return [str(name) for name in class_names]
    return [f"t:{index}" for index in range(array.shape[1])]


def merge_meta(
    requests: list[Any], tags: Mapping[str, Any], metrics: list[Any], unit: str, image: str
) -> dict[str, Any]:
    """The answer's meta: the requests' own (later wins), the model's tags and metrics, the path."""
    meta: dict[str, Any] = {}
    all_tags: dict[str, Any] = {}
    path: dict[str, Any] = {unit: image} if unit else {}
    all_metrics: list[Any] = []
    for message in requests:
        own = message.get("meta") if isinstance(message, Mapping) else None
        if not isinstance(own, Mapping):
            continue
        if own.get("puid"):
            meta["puid"] = own["puid"]
        all_tags.update(own.get("tags") or {})
        path.update(own.get("requestPath") or {})
        all_metrics.extend(own.get("metrics") or [])
    all_tags.update(tags)
    all_metrics.extend(metrics)
    for key, value in (("tags", all_tags), ("metrics", all_metrics), ("requestPath", path)):
        if value:
            meta[key] = value
    return meta


def fault(status: int, info: str) -> dict[str, Any]:
    """The wrapper's error body."""
    reason = "MICROSERVICE_BAD_DATA" if 400 <= status < 500 else "MICROSERVICE_INTERNAL_ERROR"
    return {"status": {"code": -1, "info": info, "reason": reason, "status": 1}}
