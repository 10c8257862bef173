"""V2 over REST: bytes -> InferRequest -> InferResponse -> bytes, JSON and binary tensors mixed
freely.

Binary tensors stay where they arrived: an input is a memoryview of the body, an output is written
from the array's own memory. Spec: "Inference", and the binary tensor data extension ("Binary tensor
extension").
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from . import json_tensors, jsonio
from .answers import BYTES, JSON, Answer, Pieces
from .errors import InvalidRequest
from .inference import InferRequest, InferResponse, Tensor, new_id
from .model import Call
from .wire import v2

_LARGE_BYTES = 65536
"""A larger tensor is worth a buffer of its own on the way out."""

_NOTHING = memoryview(b"")
_PLAIN = frozenset(v2.ITEM_BYTES) - v2.BINARY_ONLY
_NO_NUMBERS: Mapping[int, json_tensors.Numbers] = MappingProxyType({})


def decode(
    body: bytes, model: str, version: str, json_length: str | None, is_json: bool | None
) -> InferRequest:
    """Raises InvalidRequest. `json_length` is the header's text, None when it is absent."""
    if json_length is None:
        if is_json is False and body[:1] not in (b"{", b" ", b"\n", b"\r", b"\t"):
            raise InvalidRequest(f"a binary body needs the header {v2.HEADER_LENGTH}")
        if len(body) < json_tensors.MIN_BYTES:
            document, numbers = jsonio.loads(body), _NO_NUMBERS
            request = _plain_request(document, model, version)
            if request is not None:
                return request
        else:
            document, numbers = json_tensors.parse(body) or (jsonio.loads(body), _NO_NUMBERS)
        tail = _NOTHING
    else:
        document, tail = split(body, json_length)
        numbers = _NO_NUMBERS
    try:
        return from_document(document, tail, model, version, numbers)
    except v2.Malformed as problem:
        raise InvalidRequest(str(problem)) from None


def _plain_request(document: Any, model: str, version: str) -> InferRequest | None:
    """The request that nearly all are: one tensor, a flat list that fills its shape, nothing else
    but an id. None for any other, good or bad: `from_document` reads those.

    It says nothing that `from_document` does not; it is here because the two dozen calls on that
    way cost more than the model call of a small estimator leaves room for.
    """
    try:
        (entry,) = document["inputs"]
        name, shape, datatype, data = (
            entry["name"], entry["shape"], entry["datatype"], entry["data"],
        )  # fmt: skip
        if len(entry) != 4 or type(name) is not str or datatype not in _PLAIN:
            return None
        request_id = ""
        if len(document) != 1:
            request_id = document["id"]
            if len(document) != 2 or type(request_id) is not str:
                return None
        size = 1
        for length in shape:
            if type(length) is not int or length < 0:
                return None
            size *= length
        if (
            type(shape) is not list
            or type(data) is not list
            or len(data) != size
            or len(shape) > v2.MAX_RANK
            or (size and type(data[0]) is list)
        ):
            return None
    except (TypeError, KeyError, ValueError):
        return None
    tensor = Tensor(name, shape, datatype, data)
    return InferRequest(model, [tensor], request_id, model_version=version)


def split(body: bytes | bytearray | memoryview, json_length: str | None) -> tuple[Any, memoryview]:
    """(the JSON document, what follows it). Raises InvalidRequest."""
    if json_length is None:
        return jsonio.loads(body), memoryview(b"")
    if not json_length.isdecimal() or len(json_length) > 15:
        raise InvalidRequest(f"{v2.HEADER_LENGTH} must be a number of bytes")
    length = int(json_length)
    if length > len(body):
        raise InvalidRequest(f"{v2.HEADER_LENGTH} is {length}, but the body has {len(body)} bytes")
    view = memoryview(body)
    return jsonio.loads(view[:length]), view[length:]


def from_document(
    document: Any,
    tail: memoryview,
    model: str,
    version: str,
    numbers: Mapping[int, json_tensors.Numbers] = _NO_NUMBERS,
) -> InferRequest:
    """A checked request; binary inputs are slices of `tail`, `numbers` JSON arrays already
    converted.

    Raises Malformed.
    """
    inputs = []
    at = 0
    for index, parsed in enumerate(v2.parse_inputs(document)):
        name, shape, datatype, parameters, data, size = parsed
        if size is not None:
            v2.check_binary_size(size, shape, datatype, f"input {name!r}")
            if size > len(tail) - at:
                raise v2.Malformed(
                    f"input {name!r} claims {size} binary bytes, {len(tail) - at} are left"
                )
            raw = tail[at : at + size]
            tensor = Tensor(name, shape, datatype, None, parameters, raw=raw)
            at += size
        elif numbers and index in numbers:
            converted = numbers[index]
            tensor = Tensor.from_json(name, datatype, converted.array, converted.nested, parameters)
        else:
            assert data is not None
            v2.check_flat(data, shape, name)
            tensor = Tensor(name, shape, datatype, data, parameters)
        inputs.append(tensor)
    if at != len(tail):
        raise v2.Malformed(f"{len(tail) - at} bytes follow the last binary tensor")
    if len(inputs) > 1 and len({tensor.name for tensor in inputs}) != len(inputs):
        raise v2.Malformed("two inputs have the same name")
    return InferRequest(
        model,
        inputs,
        v2.parse_id(document),
        document.get("parameters"),
        model_version=version,
        wanted=v2.parse_wanted(document),
    )


def encode(response: InferResponse, request: InferRequest, call: Call) -> Answer | Pieces:
    """Raises InvalidRequest for a requested output that the model did not produce."""
    wanted = request.wanted
    outputs = response.outputs if wanted.outputs is None else select(response, request)
    documents: list[dict[str, Any]] = []
    pieces: list[bytes | memoryview] = []
    size = 0
    for tensor in outputs:
        document: dict[str, Any] = {
            "name": tensor.name,
            "shape": tensor.shape,
            "datatype": tensor.datatype,
        }
        if wanted is not v2.ALL_AS_JSON and wanted.is_binary(tensor.name):
            raw = tensor.raw()
            if len(raw) > _LARGE_BYTES:
                raw = tensor.fixed_raw()
            document["parameters"] = {**_kept(tensor), "binary_data_size": len(raw)}
            pieces.append(raw)
            size += len(raw)
        else:
            kept = _kept(tensor) if tensor.parameters else None
            if kept:
                document["parameters"] = kept
            document["data"] = tensor.json_data()
        documents.append(document)
    head: dict[str, Any] = {
        "model_name": response.model_name,
        "id": response.id or request.id or new_id(),
    }
    if response.model_version:
        head["model_version"] = response.model_version
    if response.parameters:
        head["parameters"] = response.parameters
    head["outputs"] = documents
    text = jsonio.dumps(head)
    headers = call.response_headers
    if not pieces:
        return Answer(call.status or 200, text, JSON, headers or None)
    headers = {**headers, "Inference-Header-Content-Length": str(len(text))}
    if size <= _LARGE_BYTES:
        return Answer(call.status or 200, b"".join([text, *pieces]), BYTES, headers)
    from .buffers import joined

    buffers = joined([text, *pieces], _LARGE_BYTES)
    return Pieces(call.status or 200, buffers, BYTES, headers)


def writes_in_place(response: InferResponse, request: InferRequest) -> bool:
    """The answer is numbers as binary data: neither texts to be joined nor JSON."""
    wanted = request.wanted
    return (
        wanted.binary_default
        and not wanted.outputs
        and all(tensor.datatype != "BYTES" for tensor in response.outputs)
    )


def _kept(tensor: Tensor) -> dict[str, Any]:
    """Parameters without those that describe the transport of this very message."""
    return {
        key: value
        for key, value in tensor.parameters.items()
        if key not in ("binary_data", "binary_data_size")
    }


def select(response: InferResponse, request: InferRequest) -> list[Tensor]:
    """The outputs that the request asks for, in its order; all when it names none."""
    names = request.wanted.outputs
    if names is None:
        return response.outputs
    by_name = {tensor.name: tensor for tensor in response.outputs}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise InvalidRequest(
            f"Unexpected inference output '{missing[0]}' for model '{request.model_name}'"
        )
    return [by_name[name] for name in names]
