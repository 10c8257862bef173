"""Messages of the Open Inference Protocol over gRPC (package `inference`); needs protobuf (extra
router-grpc).

The schema is the table below, in our own words; numbers and names are the protocol's. It is
registered in a descriptor pool of its own, so that a process which has loaded another library's
copy of the same package is not disturbed. Field notation: `number name type`; `*` marks a repeated
field, `map` a map from string to InferParameter.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"

_PARAMETERS = "4 parameters map"
_TENSOR = (
    f"1 name string, 2 datatype string, 3 shape int64*, {_PARAMETERS}, 5 contents "
    f"InferTensorContents"
)
_METADATA = "1 name string, 2 datatype string, 3 shape int64*"

SCHEMA: dict[str, str] = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "1 live bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "1 ready bool",
    "ModelReadyRequest": "1 name string, 2 version string",
    "ModelReadyResponse": "1 ready bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "1 name string, 2 version string, 3 extensions string*",
    "ModelMetadataRequest": "1 name string, 2 version string",
    "ModelMetadataResponse.TensorMetadata": _METADATA,
    "ModelMetadataResponse": "1 name string, 2 versions string*, 3 platform string, "
    "4 inputs ModelMetadataResponse.TensorMetadata*, 5 outputs "
    "ModelMetadataResponse.TensorMetadata*",
    "InferParameter": "1 bool_param bool?, 2 int64_param int64?, 3 string_param string?, "
    "4 double_param double?, 5 uint64_param uint64?",
    "InferTensorContents": "1 bool_contents bool*, 2 int_contents int32*, 3 int64_contents int64*, "
    "4 uint_contents uint32*, 5 uint64_contents uint64*, 6 fp32_contents float*, 7 "
    "fp64_contents double*, "
    "8 bytes_contents bytes*",
    "ModelInferRequest.InferInputTensor": _TENSOR,
    "ModelInferRequest.InferRequestedOutputTensor": "1 name string, 2 parameters map",
    "ModelInferRequest": "1 model_name string, 2 model_version string, 3 id string, "
    f"{_PARAMETERS}, 5 inputs ModelInferRequest.InferInputTensor*, "
    "6 outputs ModelInferRequest.InferRequestedOutputTensor*, 7 raw_input_contents bytes*",
    "ModelInferResponse.InferOutputTensor": _TENSOR,
    "ModelInferResponse": "1 model_name string, 2 model_version string, 3 id string, "
    f"{_PARAMETERS}, 5 outputs ModelInferResponse.InferOutputTensor*, 6 raw_output_contents bytes*",
}

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "double": _Field.TYPE_DOUBLE,
    "float": _Field.TYPE_FLOAT,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
}


def _describe() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="router_fn/oip.proto", package="inference", syntax="proto3"
    )
    made: dict[str, Any] = {}
    # Outer messages first, so that nested ones have somewhere to go.
    for full in sorted(SCHEMA, key=lambda name: name.count(".")):
        outer, _, inner = full.rpartition(".")
        message = made[outer].nested_type.add() if outer else file.message_type.add()
        message.name = inner
        made[full] = message
    for full, fields in SCHEMA.items():
        for text in filter(None, fields.split(", ")):
            _add_field(made[full], full, *text.split(" "))
    return file


def _add_field(message: Any, full: str, number: str, name: str, kind: str) -> None:
    field = message.field.add(name=name, number=int(number), json_name=name)
    field.label = (
        _Field.LABEL_REPEATED if kind[-1] == "*" or kind == "map" else _Field.LABEL_OPTIONAL
    )
    if kind[-1] == "?":  # a member of the message's one choice
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    kind = kind.rstrip("*?")
    if kind == "map":
        entry = message.nested_type.add(name="ParametersEntry")
        entry.options.map_entry = True
        _add_field(entry, "", "1", "key", "string")
        _add_field(entry, "", "2", "value", "InferParameter")
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".inference.{full}.ParametersEntry"
    elif kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".inference.{kind}"


def _load() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_describe())  # type: ignore[no-untyped-call, unused-ignore]
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}"))
        for name in SCHEMA
    }


MESSAGES = _load()
"""Message classes by name within the package."""
