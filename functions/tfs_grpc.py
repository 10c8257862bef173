"""TensorFlow Serving's gRPC services over models of the `tensorflow` runtime."""

from typing import TYPE_CHECKING, Any

import numpy as np

from . import grpc_server, tensors, tfs, tfs_rest
from .engine import Codec, Engine
from .errors import FunctionsError, InvalidRequest, ModelNotFound, NotSupported, StatusError
from .grpc_server import Method, ServerCall
from .grpc_status import Status
from .model import Call, ServedModel

if TYPE_CHECKING:
    from .repository import Repository

Array = np.ndarray[Any, Any]

SERVICES = "tensorflow.serving"
"""The package of the services."""

MAX_MESSAGE_BYTES = 1024
"""Status texts are cut here, as TensorFlow Serving does."""

_DT = {
    "FP32": 1, "FP64": 2, "INT32": 3, "UINT8": 4, "INT16": 5, "INT8": 6, "BYTES": 7, "INT64": 9,
    "BOOL": 10, "UINT16": 17, "FP16": 19, "UINT32": 22, "UINT64": 23,
}  # fmt: skip
_DATATYPES = {number: name for name, number in _DT.items()}
_FIELDS = {
    "FP32": "float_val", "FP64": "double_val", "INT32": "int_val", "UINT8": "int_val",
    "INT16": "int_val", "INT8": "int_val", "UINT16": "int_val", "BYTES": "string_val",
    "INT64": "int64_val", "BOOL": "bool_val", "UINT32": "uint32_val", "UINT64": "uint64_val",
    "FP16": "half_val",
}  # fmt: skip


def to_array(name: str, proto: Any) -> Array:
    """TensorProto -> array: `tensor_content`, or typed values (one value fills the shape)."""
    datatype = _DATATYPES.get(proto.dtype)
    if datatype is None:
        raise InvalidRequest(f"input {name}: dtype {proto.dtype} is not supported")
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if any(size < 0 for size in shape):
        raise InvalidRequest(f"input {name}: shape {shape} must not be negative")
    count = int(np.prod(shape, dtype=object))
    if proto.tensor_content:
        if datatype == "BYTES":
            raise InvalidRequest(f"input {name}: strings belong into string_val")
        return tensors.decode_raw(name, datatype, shape, proto.tensor_content)
    values = getattr(proto, _FIELDS[datatype])
    dtype = tensors.DTYPES[datatype]
    if datatype == "BYTES":
        flat = np.empty(len(values), dtype=object)
        flat[:] = list(values)
    elif datatype == "FP16":
        flat = np.array(values, dtype=np.uint16).view(np.float16)
    else:
        try:
            flat = np.array(values, dtype=dtype)
        except OverflowError:
            raise InvalidRequest(f"input {name}: a number is out of range for {datatype}") from None
    if 1 <= len(flat) < count:  # the last value fills the rest
        flat = np.concatenate([flat, np.full(count - len(flat), flat[-1], dtype=flat.dtype)])
    if len(flat) != count:
        raise InvalidRequest(f"input {name}: {len(flat)} values do not fill shape {shape}")
    return flat.reshape(shape)


def from_array(array: Array) -> Any:
    """Array -> TensorProto with typed values, as TensorFlow Serving replies."""
    datatype = tensors.datatype_of(array.dtype)
    if datatype not in _DT:
        raise NotSupported(f"an output of type {array.dtype} cannot be sent")
    proto = tfs.TensorProto(dtype=_DT[datatype])
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    flat = array.ravel()
    if datatype == "FP16":
        flat = flat.view(np.uint16)
    field = getattr(proto, _FIELDS[datatype])
    values = flat.tolist()
    field.extend(map(tensors.to_bytes, values) if datatype == "BYTES" else values)
    return proto


class TfsGrpcCodec(Codec):
    name = "grpc-v1"

    def decode(self, body: Any, route: Any, call: Call) -> Any:
        return body

    def apply(self, model: ServedModel, route: Any, payload: Any, call: Call) -> Any:
        if route.verb == "multi":
            return _multi(model, payload)
        version, signature = _signature(model, payload.model_spec)
        if route.verb == "predict":
            return _predict(version, signature, payload)
        return _examples(version, signature, payload, route.verb)

    def encode(self, result: Any, route: Any, call: Call) -> Any:
        return [result.SerializeToString()]


class Precondition(InvalidRequest):
    """FAILED_PRECONDITION over gRPC."""


def _pick(model: Any, spec: Any) -> Any:
    if not hasattr(model, "pick"):
        raise NotSupported("this model is not of the tensorflow runtime")
    chosen = spec.WhichOneof("version_choice")
    version = str(spec.version.value) if chosen == "version" else ""
    return model.pick(version, spec.version_label if chosen == "version_label" else "")


def _signature(model: Any, spec: Any) -> tuple[Any, Any]:
    """The version and the signature that a ModelSpec names. Raises Precondition and _pick's."""
    version = _pick(model, spec)
    name = spec.signature_name or "serving_default"
    if name not in version.signatures:
        raise Precondition(f'Serving signature key "{name}" not found.')
    return version, version.signatures[name]


def _fill_spec(target: Any, request: Any, version: Any, signature: Any) -> None:
    target.name = request.model_spec.name
    target.version.value = version.number
    target.signature_name = signature.name


def _predict(version: Any, signature: Any, request: Any) -> Any:
    sent, wanted = set(request.inputs), set(signature.inputs)
    defaults = {name: _ours(proto) for name, proto in signature.definition.defaults.items()}
    if sent - wanted or wanted - sent - set(defaults):
        raise InvalidRequest(
            f"input size does not match signature: {len(sent)}!={len(wanted)}"
            f" sent: {{{','.join(sorted(sent))}}} expected: {{{','.join(sorted(wanted))}}}"
        )
    filters = list(request.output_filter)
    for name in filters:
        if name not in signature.outputs:
            raise InvalidRequest(f"output tensor alias not found in signature: {name}")
    if len(set(filters)) != len(filters):
        raise InvalidRequest("duplicate output tensor alias in output_filter")
    inputs = {}
    for name, proto in {**defaults, **request.inputs}.items():
        array = to_array(name, proto)
        if array.dtype != tensors.DTYPES[signature.inputs[name].datatype]:
            raise InvalidRequest(
                f"input {name} must be {signature.inputs[name].datatype}, the request has"
                f" {array.dtype}"
            )
        inputs[name] = array
    outputs = version.run(signature, inputs)
    response = tfs.PredictResponse()
    for name, array in outputs.items():
        if not filters or name in filters:
            response.outputs[name].CopyFrom(from_array(array))
    _fill_spec(response.model_spec, request, version, signature)
    return response


def _ours(message: Any) -> Any:
    """TensorFlow's own TensorProto as ours: the same message of another descriptor pool."""
    return tfs.TensorProto.FromString(message.SerializeToString())


def _examples(version: Any, signature: Any, request: Any, verb: str) -> Any:
    result = _example_result(version, signature, _serialized(request.input), verb)
    make = tfs.RegressionResponse if verb == "regress" else tfs.ClassificationResponse
    response = make(result=result)
    _fill_spec(response.model_spec, request, version, signature)
    return response


def _serialized(given: Any) -> list[bytes]:
    """The examples of an Input, each with the context merged in. Raises InvalidRequest."""
    if given.HasField("example_list_with_context"):
        listed = given.example_list_with_context
        serialized = []
        for example in listed.examples:
            merged = tfs.Example()
            merged.CopyFrom(listed.context)
            merged.MergeFrom(example)
            serialized.append(merged.SerializeToString())
    else:
        serialized = [e.SerializeToString() for e in given.example_list.examples]
    if not serialized:
        raise InvalidRequest("Input is empty")
    return serialized


def _example_result(version: Any, signature: Any, serialized: list[bytes], verb: str) -> Any:
    """A RegressionResult or ClassificationResult."""
    result = tfs_rest.run_examples(version, signature, serialized, verb)
    if verb == "regress":
        regression = tfs.RegressionResult()
        for value in result.tolist():
            regression.regressions.add(value=value)
        return regression
    classification = tfs.ClassificationResult()
    for row in tfs_rest.class_rows(result, len(serialized)):
        found = classification.classifications.add()
        for label, score in row:
            found.classes.add(label=label, score=score)
    return classification


_TASKS = {"tensorflow/serving/classify": "classify", "tensorflow/serving/regress": "regress"}


def _multi(model: Any, request: Any) -> Any:
    """Several signatures of one model on the same examples."""
    serialized = _serialized(request.input)
    response = tfs.MultiInferenceResponse()
    asked = set()
    for task in request.tasks:
        verb = _TASKS.get(task.method_name)
        if verb is None:
            raise NotSupported(f"Unsupported signature method_name: {task.method_name}")
        if task.model_spec.name != request.tasks[0].model_spec.name:
            raise InvalidRequest("all tasks of a MultiInferenceRequest must name the same model")
        version, signature = _signature(model, task.model_spec)
        if signature.name in asked:
            raise InvalidRequest(f"Duplicate evaluation of signature: {signature.name}")
        asked.add(signature.name)
        result = _example_result(version, signature, serialized, verb)
        found = response.results.add()
        kind = "regression_result" if verb == "regress" else "classification_result"
        getattr(found, kind).CopyFrom(result)
        _fill_spec(found.model_spec, task, version, signature)
    return response


def _name_of(request: Any) -> str:
    """The model that a request is for; a MultiInferenceRequest's tasks name it."""
    asked = request.tasks[:1] if hasattr(request, "tasks") else [request]
    return str(asked[0].model_spec.name) if asked else ""


class _Route:
    __slots__ = ("model", "verb", "version")

    def __init__(self, model: str, verb: str) -> None:
        self.model = model
        self.verb = verb
        self.version = ""


class PredictionService:
    """Predict, Classify, Regress, MultiInference, GetModelMetadata."""

    def __init__(self, repository: "Repository", engine: Engine) -> None:
        self.repository = repository
        self.engine = engine
        self.codec = TfsGrpcCodec(repository.settings)

    def methods(self) -> dict[str, Method]:
        found = {
            "Predict": self._method("predict", tfs.PredictRequest),
            "Classify": self._method("classify", tfs.ClassificationRequest),
            "Regress": self._method("regress", tfs.RegressionRequest),
            "MultiInference": self._method("multi", tfs.MultiInferenceRequest),
            "GetModelMetadata": grpc_server.coroutine(
                self.metadata, tfs.GetModelMetadataRequest, told
            ),
        }
        return {f"{SERVICES}.PredictionService/{name}": method for name, method in found.items()}

    def _method(self, verb: str, kind: Any) -> Method:
        def ask(call: ServerCall, data: memoryview) -> None:
            request = grpc_server.read(call, kind, data)
            if request is None:
                return
            name = _name_of(request)
            grpc_server.execute(
                self.engine,
                lambda: self._entry(name),
                self.codec,
                _Route(name, verb),
                request,
                len(data),
                call,
                Call(call.metadata()),
                told,
            )

        return Method(ask)

    def _entry(self, name: str) -> Any:
        if not name:
            raise InvalidRequest("Missing ModelSpec")
        try:
            return self.repository.ready_entry(name)
        except ModelNotFound:
            raise StatusError(404, f"Servable not found for request: Latest({name})") from None

    async def metadata(self, request: Any) -> Any:
        response = tfs.GetModelMetadataResponse()
        if list(request.metadata_field) != ["signature_def"]:
            raise InvalidRequest(
                "GetModelMetadataRequest must specify at least one metadata_field: signature_def"
            )
        entry = self._entry(request.model_spec.name)
        version = _pick(entry.model, request.model_spec)
        definitions = tfs.SignatureDefMap()
        for name, signature in version.signatures.items():
            # Same message, other pool: TensorFlow's own bytes are read by ours.
            definitions.signature_def[name].ParseFromString(
                signature.definition.SerializeToString()
            )
        packed = response.metadata["signature_def"]
        packed.type_url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
        packed.value = definitions.SerializeToString()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version.number
        return response


def told(error: FunctionsError) -> tuple[Status, str]:
    """The status and its text, as TensorFlow Serving has them."""
    status = grpc_server.status_of(error)
    if isinstance(error, Precondition):
        status = Status.FAILED_PRECONDITION
    text = str(error)
    if len(text) > MAX_MESSAGE_BYTES:
        text = text[:MAX_MESSAGE_BYTES] + "...TRUNCATED"
    return status, text
