"""SeldonMessages to TensorFlow Serving's gRPC Predict and back (spec/seldon 3.4, 3.5).

Pure; needs protobuf (extra router-grpc). `request_of` makes the bytes of a PredictRequest,
`answer_of` the SeldonMessage of the PredictResponse that came back.

* `data.tftensor` goes into the input named by parameter `model_input` as it is; other `data`
  becomes a tensor of the type that the model's signature has for that input.
* `data.tftensor` comes back, the output that parameter `model_output` names. Either parameter may
  be left out where the signature has just one.
* `customData` with a packed PredictRequest is sent as it is, and answered by `customData` with the
  PredictResponse: the way for several tensors.

Mended: the original always makes DT_FLOAT of numbers, whatever the model takes, and blames itself
(UNKNOWN) for input that cannot be converted.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from router_fn.seldon.messages import SeldonError, compose, loads, members
from router_fn.seldon.protos import MESSAGES, POOL

PREDICT: Final = "/tensorflow.serving.PredictionService/Predict"
METADATA: Final = "/tensorflow.serving.PredictionService/GetModelMetadata"
DEFAULT_SIGNATURE: Final = "serving_default"

_PACKED: Final = "tensorflow.serving.PredictRequest"
_FLOAT, _STRING, _BOOL, _HALF = 1, 7, 10, 19
_FIELDS: Final = {
    1: "float_val", 2: "double_val", 3: "int_val", 4: "int_val", 5: "int_val", 6: "int_val",
    7: "string_val", 9: "int64_val", 10: "bool_val", 17: "int_val", 19: "half_val",
    22: "uint32_val", 23: "uint64_val",
}  # fmt: skip
_REAL: Final = (1, 2, 19)
_KEPT: Final = (b"puid", b"tags", b"metrics", b"requestPath")
"""What of the request's meta a node passes on."""


class Asked:
    """A request as the conversion sees it: which model, which tensors."""

    def __init__(self, body: bytes, model: str, parameters: Mapping[str, Any]) -> None:
        """Raises SeldonError (400) for what is no SeldonMessage with data or customData."""
        self.model = model
        self.signature = str(parameters.get("signature_name") or DEFAULT_SIGNATURE)
        self.input = str(parameters.get("model_input") or "")
        self.output = str(parameters.get("model_output") or "")
        self.meta = members(members(body).get(b"meta", b""))
        try:
            document = loads(body)
            if not isinstance(document, dict):
                raise ValueError("it is no JSON object")
            self.message = json_format.ParseDict(
                {k: v for k, v in document.items() if k in ("data", "customData", *_OTHERS)},
                MESSAGES["SeldonMessage"](),
                ignore_unknown_fields=True,
                descriptor_pool=POOL,
            )
        except (ValueError, TypeError, RecursionError, json_format.Error) as error:
            text = f"the request is no SeldonMessage: {str(error)[:500]}"
            raise SeldonError(text, status=400) from error
        self.kind = self.message.WhichOneof("choice")
        if self.kind not in ("data", "customData"):
            what = f"{self.kind} cannot be converted" if self.kind else "the request has no data"
            raise SeldonError(f"{what}: send data or customData", status=400)

    @property
    def needs_signature(self) -> bool:
        """Whether `request_of` or `answer_of` must know the model's signature."""
        if self.kind == "customData":
            return False
        typed = self.message.data.WhichOneof("choice") == "tftensor"
        return not (typed and self.input and self.output)


_OTHERS: Final = ("strData", "binData", "jsonData")


def metadata_request(model: str) -> bytes:
    """The bytes of a GetModelMetadataRequest."""
    request = MESSAGES["GetModelMetadataRequest"](metadata_field=["signature_def"])
    request.model_spec.name = model
    return bytes(request.SerializeToString())


def signature_of(wanted: str, reply: bytes) -> Any:
    """The SignatureDef of a name in a GetModelMetadataResponse. Raises SeldonError (400, 502)."""
    try:
        metadata = MESSAGES["GetModelMetadataResponse"].FromString(reply).metadata
        packed = MESSAGES["SignatureDefMap"].FromString(metadata["signature_def"].value)
    except DecodeError as error:
        raise SeldonError("the model server's metadata cannot be read", status=502) from error
    found = packed.signature_def
    if wanted not in found:
        text = f"the model has no signature {wanted!r}; it has {', '.join(sorted(found))}"
        raise SeldonError(text, status=400)
    return found[wanted]


def request_of(asked: Asked, signature: Any = None) -> bytes:
    """The bytes of the PredictRequest. Raises SeldonError (400).

    `signature` is a SignatureDef, None if it is not needed.
    """
    if asked.kind == "customData":
        packed = asked.message.customData
        if packed.type_url.rpartition("/")[2] != _PACKED:
            raise SeldonError(f"customData must be a packed {_PACKED}", status=400)
        return bytes(packed.value)
    request = MESSAGES["PredictRequest"]()
    request.model_spec.name = asked.model
    request.model_spec.signature_name = asked.signature
    inputs = signature.inputs if signature is not None else {}
    name = asked.input or _only(inputs, "inputs", "model_input")
    tensor = request.inputs[name]
    data = asked.message.data
    match data.WhichOneof("choice"):
        case "tftensor":
            tensor.CopyFrom(data.tftensor)
        case "tensor":
            fill(tensor, list(data.tensor.values), list(data.tensor.shape), _dtype(inputs, name))
        case "ndarray":
            nested = json_format.MessageToDict(data.ndarray)
            fill(tensor, list(leaves(nested)), shape_of(nested), _dtype(inputs, name))
        case _:
            raise SeldonError("data has no ndarray, tensor or tftensor", status=400)
    return bytes(request.SerializeToString())


def answer_of(asked: Asked, reply: bytes, signature: Any = None) -> bytes:
    """The SeldonMessage of a PredictResponse. Raises SeldonError (502, 400)."""
    try:
        response = MESSAGES["PredictResponse"].FromString(reply)
    except DecodeError as error:
        raise SeldonError("TensorFlow Serving's answer cannot be read", status=502) from error
    message = MESSAGES["SeldonMessage"]()
    if asked.kind == "customData":
        message.customData.type_url = "type.googleapis.com/tensorflow.serving.PredictResponse"
        message.customData.value = reply
    else:
        outputs = signature.outputs if signature is not None else response.outputs
        name = asked.output or _only(outputs, "outputs", "model_output")
        if name not in response.outputs:
            has = ", ".join(sorted(response.outputs)) or "none"
            raise SeldonError(f"the model has no output {name!r}; it has {has}", status=400)
        message.data.tftensor.CopyFrom(response.outputs[name])
    text = json.dumps(json_format.MessageToDict(message, descriptor_pool=POOL), ensure_ascii=False)
    kept = {key: value for key, value in asked.meta.items() if key in _KEPT}
    fields = members(text.encode())
    return compose({**fields, b"meta": compose(kept)} if kept else fields)


def _only(tensors: Mapping[str, Any], what: str, parameter: str) -> str:
    if len(tensors) == 1:
        return next(iter(tensors))
    names = ", ".join(sorted(tensors)) or "unknown"
    raise SeldonError(f"the model's {what} are {names}: say which by {parameter}", status=400)


def _dtype(inputs: Mapping[str, Any], name: str) -> int:
    """The type of an input, 0 where it is not known."""
    return int(inputs[name].dtype) if name in inputs else 0


def shape_of(value: Any, what: str = "data.ndarray") -> list[int]:
    """The shape of nested lists. Raises SeldonError (400) for ragged ones."""
    shape = []
    level = [value]
    while level and isinstance(level[0], list):
        size = len(level[0])
        if any(not isinstance(one, list) or len(one) != size for one in level):
            raise SeldonError(f"{what} is ragged", status=400)
        shape.append(size)
        level = [element for one in level for element in one]
    if any(isinstance(one, list | dict) for one in level):
        raise SeldonError(f"{what} is ragged, or holds objects", status=400)
    return shape


def leaves(value: Any) -> Iterator[Any]:
    """What nested lists hold, row by row."""
    if isinstance(value, list):
        for element in value:
            yield from leaves(element)
    else:
        yield value


def fill(tensor: Any, values: list[Any], shape: list[int], dtype: int) -> None:
    """Put row-major values into a TensorProto. Raises SeldonError (400)."""
    count = 1
    for size in shape:
        count *= size
    if any(size < 0 for size in shape) or count != len(values):
        raise SeldonError(f"{len(values)} values do not have the shape {shape}", status=400)
    dtype = dtype or (_STRING if values and isinstance(values[0], str | bytes) else _FLOAT)
    field = _FIELDS.get(dtype)
    if field is None:
        raise SeldonError(f"an input of TensorFlow's type {dtype} cannot be sent", status=400)
    tensor.dtype = dtype
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    try:
        getattr(tensor, field).extend(_cast(value, dtype) for value in values)
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        raise SeldonError(
            f"the values are not what the model takes: {error}", status=400
        ) from error


def _cast(value: Any, dtype: int) -> Any:
    """A JSON value as a TensorProto's field takes it. Raises TypeError, ValueError."""
    if dtype == _STRING:
        if isinstance(value, bytes):
            return value
        if not isinstance(value, str):
            raise TypeError(f"{value!r} is no text")
        return value.encode()
    if dtype == _BOOL:
        if value not in (True, False):
            raise TypeError(f"{value!r} is neither true nor false")
        return bool(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    if dtype == _HALF:
        return struct.unpack("<H", struct.pack("<e", value))[0]
    if dtype in _REAL:
        return float(value)
    if value != int(value):
        raise ValueError(f"{value!r} is no whole number")
    return int(value)
