"""Open Inference Protocol V2: JSON <-> gRPC messages. Inside the router a body is always JSON.

Tensor data in JSON is a flat or nested list; in gRPC it is typed `contents`, or raw little-endian
bytes (`raw_*_contents`, one per tensor, in order). BYTES elements that are UTF-8 become JSON
strings; others have no JSON form and are refused. Raises ValueError with what is wrong.
"""

import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from router_fn.oip import MESSAGES

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_RAW = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
_PARAMETER_FIELDS = (
    (bool, "bool_param"),
    (int, "int64_param"),
    (float, "double_param"),
    (str, "string_param"),
)


def request_to_message(body: bytes, model_name: str) -> Any:
    """A ModelInferRequest from a V2 JSON request."""
    document = _object(body)
    message = MESSAGES["ModelInferRequest"](model_name=model_name, id=str(document.get("id", "")))
    _set_parameters(message.parameters, document)
    raw = _add_tensors(message.inputs, _list(document, "inputs"))
    message.raw_input_contents.extend(raw)
    for output in document.get("outputs") or ():
        _set_parameters(message.outputs.add(name=str(output["name"])).parameters, output)
    return message


def request_to_json(message: Any) -> bytes:
    """The V2 JSON request of a ModelInferRequest."""
    document: dict[str, Any] = {"id": message.id} if message.id else {}
    _get_parameters(message.parameters, document)
    document["inputs"] = list(_tensors(message.inputs, message.raw_input_contents))
    if message.outputs:
        document["outputs"] = [_named(output) for output in message.outputs]
    return json.dumps(document).encode()


def response_to_message(body: bytes) -> Any:
    """A ModelInferResponse from a V2 JSON response."""
    document = _object(body)
    message = MESSAGES["ModelInferResponse"](
        model_name=str(document.get("model_name", "")),
        model_version=str(document.get("model_version", "")),
        id=str(document.get("id", "")),
    )
    _set_parameters(message.parameters, document)
    message.raw_output_contents.extend(_add_tensors(message.outputs, _list(document, "outputs")))
    return message


def response_to_json(message: Any) -> bytes:
    """The V2 JSON response of a ModelInferResponse."""
    document: dict[str, Any] = {"model_name": message.model_name}
    if message.model_version:
        document["model_version"] = message.model_version
    if message.id:
        document["id"] = message.id
    _get_parameters(message.parameters, document)
    document["outputs"] = list(_tensors(message.outputs, message.raw_output_contents))
    return json.dumps(document).encode()


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ValueError("the body is no V2 message: it must be a JSON object")
    return document


def _list(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    tensors = document.get(name)
    if not isinstance(tensors, list) or not all(isinstance(t, dict) for t in tensors):
        raise ValueError(f"the body is no V2 message: it has no list of {name}")
    return tensors


def _add_tensors(target: Any, tensors: Sequence[dict[str, Any]]) -> list[bytes]:
    """Fill typed contents; FP16 has none, and then every tensor of the message must be raw."""
    use_raw = any(tensor.get("datatype") == "FP16" for tensor in tensors)
    raw: list[bytes] = []
    for tensor in tensors:
        name, datatype, shape = (tensor.get(key) for key in ("name", "datatype", "shape"))
        if (
            not isinstance(name, str)
            or not isinstance(shape, list)
            or not isinstance(datatype, str)
        ):
            raise ValueError("a tensor needs name, datatype and shape")
        data = list(_flat(tensor.get("data")))
        added = target.add(name=name, datatype=datatype)
        _set_parameters(added.parameters, tensor)
        try:
            added.shape.extend(shape)
            if datatype == "BYTES":
                data = [item.encode() if isinstance(item, str) else bytes(item) for item in data]
            if use_raw:
                raw.append(_pack(datatype, data))
            elif datatype in _CONTENTS:
                getattr(added.contents, _CONTENTS[datatype]).extend(data)
            else:
                raise ValueError(f"datatype {datatype!r} has no JSON form")
        except (TypeError, struct.error, OverflowError) as error:
            raise ValueError(f"tensor {name!r}: {error}") from None
    return raw


def _flat(data: Any) -> Iterator[Any]:
    if isinstance(data, list):
        stack = [iter(data)]
        while stack:
            for item in stack[-1]:
                if isinstance(item, list):
                    stack.append(iter(item))
                    break
                yield item
            else:
                stack.pop()
    elif data is None:
        raise ValueError("a tensor has no data")
    else:
        yield data


def _pack(datatype: str, data: Sequence[Any]) -> bytes:
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(item)) + item for item in data)
    if datatype not in _RAW:
        raise ValueError(f"datatype {datatype!r} has no raw form here")
    return struct.pack(f"<{len(data)}{_RAW[datatype]}", *data)


def _unpack(datatype: str, raw: bytes) -> list[Any]:
    if datatype == "BYTES":
        items, at = [], 0
        while at < len(raw):
            if at + 4 > len(raw) or (end := at + 4 + struct.unpack_from("<I", raw, at)[0]) > len(
                raw
            ):
                raise ValueError("raw BYTES contents are cut off")
            items.append(_text(raw[at + 4 : end]))
            at = end
        return items
    if datatype not in _RAW:
        raise ValueError(f"datatype {datatype!r} has no JSON form")
    size = struct.calcsize(_RAW[datatype])
    if len(raw) % size:
        raise ValueError(
            f"raw contents of {len(raw)} bytes are no whole number of {datatype} elements"
        )
    return list(struct.unpack(f"<{len(raw) // size}{_RAW[datatype]}", raw))


def _text(item: bytes) -> str:
    try:
        return item.decode()
    except UnicodeDecodeError:
        raise ValueError("a BYTES element is not UTF-8, so it has no JSON form") from None


def _tensors(tensors: Any, raw: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    if raw and len(raw) != len(tensors):
        raise ValueError(f"{len(tensors)} tensors, but {len(raw)} raw contents")
    for index, tensor in enumerate(tensors):
        document: dict[str, Any] = {
            "name": tensor.name,
            "shape": list(tensor.shape),
            "datatype": tensor.datatype,
        }
        _get_parameters(tensor.parameters, document)
        if raw:
            document["data"] = _unpack(tensor.datatype, raw[index])
        elif tensor.datatype in _CONTENTS:
            data = list(getattr(tensor.contents, _CONTENTS[tensor.datatype]))
            document["data"] = (
                [_text(item) for item in data] if tensor.datatype == "BYTES" else data
            )
        else:
            raise ValueError(f"datatype {tensor.datatype!r} has no JSON form")
        yield document


def _named(output: Any) -> dict[str, Any]:
    document = {"name": output.name}
    _get_parameters(output.parameters, document)
    return document


def _set_parameters(target: Any, document: dict[str, Any]) -> None:
    parameters = document.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise ValueError("parameters must be an object")
    for key, value in parameters.items():
        for kind, field in _PARAMETER_FIELDS:
            if isinstance(value, kind):
                try:
                    setattr(target[key], field, value)
                except ValueError:
                    target[key].uint64_param = value
                break
        else:
            target[key].string_param = json.dumps(value)


def _get_parameters(source: Any, document: dict[str, Any]) -> None:
    if source:
        document["parameters"] = {
            key: getattr(parameter, parameter.WhichOneof("parameter_choice") or "string_param")
            for key, parameter in source.items()
        }
