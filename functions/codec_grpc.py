"""V2 over gRPC: ModelInferRequest -> InferRequest -> InferResponse -> ModelInferResponse.

Raw contents stay where they are (`protowire`): views of the message that came, pieces of the one
that goes. Typed contents become arrays through the buffer of `array.array`. The answer is raw when
the request was (or asks for binary data), typed otherwise.
"""

import array
from typing import Any

from google.protobuf.message import DecodeError

from . import codec_v2, oip, protowire
from .buffers import Buffer
from .engine import Codec
from .errors import InvalidRequest
from .inference import InferRequest, InferResponse, Tensor, new_id
from .model import Call, ServedModel
from .wire import v2

CONTENTS: dict[str, str] = {
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
"""Datatype -> field of InferTensorContents; FP16 and BF16 travel raw only."""

_PARAMETER_FIELDS = {
    bool: "bool_param",
    int: "int64_param",
    str: "string_param",
    float: "double_param",
}


RAW_INPUT = 7
RAW_OUTPUT = 6
"""Field numbers of raw_input_contents and raw_output_contents."""


class GrpcRoute:
    """What the HTTP routes say, for a gRPC call."""

    __slots__ = ("model", "verb", "version")

    def __init__(self, model: str, version: str) -> None:
        self.model = model
        self.version = version
        self.verb = "infer"


class GrpcCodec(Codec):
    name = "grpc-v2"

    def reads_in_place(self, body: Any, route: Any) -> bool:
        """Typed contents are converted."""
        return bool(body.raw)

    def writes_in_place(self, result: Any, call: Call) -> bool:
        return codec_v2.writes_in_place(result, call.payload)

    def decode(self, body: Any, route: Any, call: Call) -> Any:
        request = to_request(body)
        call.payload = request
        call.request_id = call.request_id or request.id
        return request

    def apply(self, model: ServedModel, route: Any, payload: Any, call: Call) -> Any:
        return model.v2(payload, call)

    def encode(self, result: Any, route: Any, call: Call) -> Any:
        return from_response(result, call.payload)


class GrpcBody:
    """A ModelInferRequest as it came: all but the raw contents parsed, these as views of it."""

    __slots__ = ("message", "raw")

    def __init__(self, data: bytes | memoryview) -> None:
        """Raises ValueError when it is no such message."""
        head, self.raw = protowire.cut_fields(memoryview(data), RAW_INPUT)
        try:
            self.message = oip.ModelInferRequest.FromString(head)
        except DecodeError as exc:
            raise ValueError(str(exc)) from None


def to_request(body: GrpcBody) -> InferRequest:
    """Raises InvalidRequest."""
    message, raw = body.message, body.raw
    if not message.inputs:
        raise InvalidRequest("the request has no inputs")
    if raw and len(raw) != len(message.inputs):
        raise InvalidRequest(
            f"there are {len(message.inputs)} inputs, but {len(raw)} raw_input_contents"
        )
    try:
        inputs = [
            _to_tensor(tensor, raw[index] if raw else None)
            for index, tensor in enumerate(message.inputs)
        ]
    except v2.Malformed as problem:
        raise InvalidRequest(str(problem)) from None
    parameters = to_parameters(message.parameters)
    wanted = {
        output.name: to_parameters(output.parameters).get("binary_data")
        for output in message.outputs
    }
    return InferRequest(
        message.model_name,
        inputs,
        message.id,
        parameters,
        model_version=message.model_version,
        from_grpc=True,
        wanted=v2.Wanted(bool(raw) or bool(parameters.get("binary_data_output")), wanted or None),
    )


def _to_tensor(tensor: Any, raw: memoryview | None) -> Tensor:
    where = f"input {tensor.name!r}"
    if tensor.datatype not in v2.ITEM_BYTES:
        raise v2.Malformed(f"{where}: unknown datatype {tensor.datatype!r}")
    shape = v2.check_shape(list(tensor.shape), where)
    parameters = to_parameters(tensor.parameters)
    if raw is not None:
        if tensor.HasField("contents"):
            raise v2.Malformed(f"{where} has contents, although raw_input_contents are used")
        v2.check_binary_size(len(raw), shape, tensor.datatype, where)
        return Tensor(tensor.name, shape, tensor.datatype, parameters=parameters, raw=raw)
    field = CONTENTS.get(tensor.datatype)
    if field is None:
        raise v2.Malformed(f"{where}: {tensor.datatype} must be sent in raw_input_contents")
    for used, _ in tensor.contents.ListFields():
        if used.name != field:
            raise v2.Malformed(f"{where}: {tensor.datatype} belongs into {field}, not {used.name}")
    values = getattr(tensor.contents, field)
    if len(values) != v2.element_count(shape):
        raise v2.Malformed(f"{where}: {len(values)} elements do not fill shape {shape}")
    return Tensor(tensor.name, shape, tensor.datatype, to_array(tensor, values, shape), parameters)


_CODES = {"int_contents": "i", "int64_contents": "q", "uint_contents": "I", "uint64_contents": "Q",
          "fp32_contents": "f", "fp64_contents": "d", "bool_contents": "B"}  # fmt: skip


def to_array(tensor: Any, values: Any, shape: list[int]) -> Any:
    import numpy as np

    from . import tensors

    dtype = tensors.DTYPES[tensor.datatype]
    if tensor.datatype == "BYTES":
        flat = np.empty(len(values), dtype=object)
        flat[:] = list(values)
        return tensors.in_shape(tensor.name, flat, shape)
    wide = np.asarray(array.array(_CODES[CONTENTS[tensor.datatype]], values))
    if dtype.kind in "iu" and wide.size and wide.dtype.itemsize > dtype.itemsize:
        limits = np.iinfo(dtype)
        if wide.max() > limits.max or wide.min() < limits.min:
            raise v2.Malformed(
                f"input {tensor.name!r}: a number is out of range for {tensor.datatype}"
            )
    return tensors.in_shape(tensor.name, wide.astype(dtype, copy=False), shape)


def to_parameters(entries: Any) -> dict[str, Any]:
    found = {}
    for name, value in entries.items():
        chosen = value.WhichOneof("parameter_choice")
        if chosen is not None:
            found[name] = getattr(value, chosen)
    return found


def set_parameters(target: Any, parameters: dict[str, Any]) -> None:
    for name, value in parameters.items():
        field = _PARAMETER_FIELDS.get(type(value))
        if field is not None:
            setattr(target[name], field, value)


def from_response(response: InferResponse, request: InferRequest) -> list[Buffer]:
    """A serialized ModelInferResponse in pieces. Raises InvalidRequest for a requested output that
    is not there."""
    outputs = codec_v2.select(response, request)
    message = oip.ModelInferResponse(
        model_name=response.model_name,
        model_version=response.model_version,
        id=response.id or request.id or new_id(),
    )
    set_parameters(message.parameters, response.parameters)
    raw = request.wanted.binary_default or any(
        request.wanted.is_binary(tensor.name) or tensor.datatype in v2.BINARY_ONLY
        for tensor in outputs
    )  # one raw output makes all raw: the protocol does not mix them
    contents: list[Buffer] = []
    for tensor in outputs:
        target = message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        set_parameters(target.parameters, tensor.parameters)
        if raw:
            contents.append(tensor.fixed_raw())
        else:
            _fill_contents(target.contents, tensor)
    return protowire.with_fields(message.SerializeToString(), RAW_OUTPUT, contents)


def _fill_contents(contents: Any, tensor: Tensor) -> None:
    field = getattr(contents, CONTENTS[tensor.datatype])
    values = tensor.as_numpy().ravel()
    if tensor.datatype == "BYTES":
        from . import tensors

        field.extend(tensors.to_bytes(item) for item in values.tolist())
    else:
        field.extend(values.tolist())
