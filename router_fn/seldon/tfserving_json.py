"""TensorFlow Serving's REST API in front of nodes that are called over gRPC (spec/seldon 2.6, 6).

Pure; needs protobuf (extra router-grpc). A request's rows or columns become the tensors that the
model's signature asks for, and the answer comes back in the form of the request.
"""

import base64
import json
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from functions.wire import tensorflow
from router_fn.seldon import tftensor
from router_fn.seldon.messages import SeldonError
from router_fn.seldon.protos import MESSAGES, POOL
from router_fn.seldon.tfserving_grpc import METADATA as METADATA_METHOD
from router_fn.seldon.tfserving_grpc import fill, leaves, metadata_request, shape_of

STATUS_METHOD: Final = "/tensorflow.serving.ModelService/GetModelStatus"

_STRING: Final = 7


class Asked:
    """One request in JSON: `instances` (rows) or `inputs` (columns), and a signature."""

    def __init__(self, body: bytes, model: str) -> None:
        """Raises SeldonError (400)."""
        self.model = model
        try:
            self._document = tensorflow.parse_json(body)
            self.signature = tensorflow.signature_name(self._document)
        except tensorflow.Malformed as error:
            raise SeldonError(str(error), status=400) from error
        self._rows = "instances" in self._document

    def request(self, signature: Any) -> bytes:
        """The bytes of the PredictRequest. Raises SeldonError (400)."""
        document, names = self._document, sorted(signature.inputs)
        try:
            if self._rows and "inputs" in document:
                raise tensorflow.Malformed("give either instances or inputs, not both")
            if self._rows:
                given: dict[str, Any] = tensorflow.rows_to_columns(document["instances"], names)
            else:
                given = tensorflow.column_values(document["inputs"], names)
            values = {name: _bytes_for_b64(value) for name, value in given.items()}
        except (tensorflow.Malformed, RecursionError) as error:
            raise SeldonError(str(error), status=400) from error
        request = MESSAGES["PredictRequest"]()
        request.model_spec.name = self.model
        request.model_spec.signature_name = self.signature
        for name, value in values.items():
            shape = shape_of(value, f"input {name}")
            fill(request.inputs[name], list(leaves(value)), shape, signature.inputs[name].dtype)
        return bytes(request.SerializeToString())

    def answer(self, reply: bytes) -> bytes:
        """The JSON of a PredictResponse. Raises SeldonError (502)."""
        try:
            outputs = MESSAGES["PredictResponse"].FromString(reply).outputs
            values = {name: _lists(name, outputs[name]) for name in sorted(outputs)}
        except (DecodeError, SeldonError, ValueError) as error:
            text = f"TensorFlow Serving's answer cannot be read: {error}"
            raise SeldonError(text, status=502) from error
        answer: Any = next(iter(values.values())) if len(values) == 1 else values
        if not self._rows:
            return json.dumps({"outputs": answer}, ensure_ascii=False).encode()
        counts = {len(value) if isinstance(value, list) else -1 for value in values.values()}
        if len(counts) > 1 or -1 in counts:
            text = "the outputs have no common number of rows: ask with `inputs` instead"
            raise SeldonError(text, status=502)
        if len(values) > 1:
            columns = zip(*values.values(), strict=True)
            answer = [dict(zip(values, row, strict=True)) for row in columns]
        return json.dumps({"predictions": answer}, ensure_ascii=False).encode()


def _bytes_for_b64(value: Any) -> Any:
    """Nested lists with bytes in place of `b64` objects. Raises Malformed."""
    if isinstance(value, list):
        return [_bytes_for_b64(one) for one in value]
    return tensorflow.decode_b64(value) if tensorflow.is_b64(value) else value


def _lists(name: str, tensor: Any) -> Any:
    """A tensor's values; texts are plain unless the output is called `*_bytes`."""
    document = json_format.MessageToDict(tensor, descriptor_pool=POOL)
    values = json.loads(tftensor.to_lists(document))
    plain = tensor.dtype == _STRING and not name.endswith("_bytes")
    return _plain(values) if plain else values


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return base64.b64decode(value["b64"]).decode("utf-8", "replace")


# --- what a model is ------------------------------------------------------------------------------


class Page(NamedTuple):
    """A GET of the REST API: the method that knows, its request, and the answer as JSON."""

    method: str
    request: Callable[[str], bytes]
    json: Callable[[bytes], bytes]


def _status_request(model: str) -> bytes:
    request = MESSAGES["GetModelStatusRequest"]()
    request.model_spec.name = model
    return bytes(request.SerializeToString())


def _status(answer: bytes) -> bytes:
    versions = MESSAGES["GetModelStatusResponse"].FromString(answer).model_version_status
    shown = [
        {
            "version": str(one.version),
            "state": tensorflow.STATE_NAMES.get(one.state, "UNKNOWN"),
            "status": {
                "error_code": _CODES.get(one.status.error_code, "UNKNOWN"),
                "error_message": one.status.error_message,
            },
        }
        for one in versions
    ]
    return json.dumps({"model_version_status": shown}).encode()


def _metadata(answer: bytes) -> bytes:
    message = MESSAGES["GetModelMetadataResponse"].FromString(answer)
    signatures = MESSAGES["SignatureDefMap"].FromString(message.metadata["signature_def"].value)
    spec = message.model_spec
    shown = json_format.MessageToDict(
        signatures, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    document = {
        "model_spec": {
            "name": spec.name,
            "signature_name": spec.signature_name,
            "version": str(spec.version.value),
        },
        "metadata": {"signature_def": shown},
    }
    return json.dumps(document).encode()


STATUS: Final = Page(STATUS_METHOD, _status_request, _status)
METADATA: Final = Page(METADATA_METHOD, metadata_request, _metadata)

_CODES: Final = dict(
    enumerate((
        *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"),
        *("ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"),
        *("ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"),
        "UNAUTHENTICATED",
    ))
)  # fmt: skip
