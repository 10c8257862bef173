"""The messages of Seldon's gRPC services (`seldon.protos`); needs protobuf (extra router-grpc).

The schema is the table below: names and numbers are Seldon's wire format (spec/seldon 3.1), and for
`tensorflow.TensorProto` TensorFlow's. It lives in a descriptor pool of its own, so that another
copy of these packages in the process is not disturbed.
Notation: `number name type`; `*` repeated, `?` a member of the message's one choice, `map<...>`.
"""

import re
from typing import Any, Final

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    empty_pb2,
    message_factory,
    struct_pb2,
)

SERVICE: Final = "seldon.protos.Seldon"

_SELDON: Final[dict[str, str]] = {
    "SeldonMessage": "1 status Status, 2 meta Meta, 3 data DefaultData?, 4 binData bytes?,"
    " 5 strData string?, 6 jsonData google.protobuf.Value?, 7 customData google.protobuf.Any?",
    "DefaultData": "1 names string*, 2 tensor Tensor?, 3 ndarray google.protobuf.ListValue?,"
    " 4 tftensor tensorflow.TensorProto?",
    "Tensor": "1 shape int32*, 2 values double*",
    "Meta": "1 puid string, 2 tags map<google.protobuf.Value>, 3 routing map<int32>,"
    " 4 requestPath map<string>, 5 metrics Metric*",
    "Metric": "1 key string, 2 type MetricType, 3 value float, 4 tags map<string>",
    "SeldonMessageList": "1 seldonMessages SeldonMessage*",
    "Status": "1 code int32, 2 info string, 3 reason string, 4 status StatusFlag",
    "Feedback": "1 request SeldonMessage, 2 response SeldonMessage, 3 reward float,"
    " 4 truth SeldonMessage",
    "SeldonModelMetadataRequest": "1 name string",
    "SeldonMessageMetadata": "1 messagetype string, 2 schema google.protobuf.Value, 3 name string,"
    " 4 datatype string, 5 shape int64*",
    "SeldonModelMetadata": "1 name string, 2 versions string*, 3 platform string,"
    " 4 inputs SeldonMessageMetadata*, 5 outputs SeldonMessageMetadata*, 6 custom map<string>",
    "SeldonGraphMetadata": "1 name string, 2 models map<SeldonModelMetadata>,"
    " 3 inputs SeldonMessageMetadata*, 4 outputs SeldonMessageMetadata*",
}
_ENUMS: Final = {
    "MetricType": {"COUNTER": 0, "GAUGE": 1, "TIMER": 2},
    "StatusFlag": {"SUCCESS": 0, "FAILURE": 1},
}
_TENSORFLOW: Final = {
    "TensorShapeProto": "2 dim Dim*, 3 unknown_rank bool",
    "Dim": "1 size int64, 2 name string",
    "TensorProto": "1 dtype DataType, 2 tensor_shape TensorShapeProto, 3 version_number int32,"
    " 4 tensor_content bytes, 5 float_val float*, 6 double_val double*, 7 int_val int32*,"
    " 8 string_val bytes*, 10 int64_val int64*, 11 bool_val bool*, 13 half_val int32*,"
    " 16 uint32_val uint32*, 17 uint64_val uint64*",
}
_TENSORFLOW_ENUMS: Final = {
    "DataType": {
        "DT_INVALID": 0, "DT_FLOAT": 1, "DT_DOUBLE": 2, "DT_INT32": 3, "DT_UINT8": 4,
        "DT_INT16": 5, "DT_INT8": 6, "DT_STRING": 7, "DT_INT64": 9, "DT_BOOL": 10,
        "DT_BFLOAT16": 14, "DT_UINT16": 17, "DT_HALF": 19, "DT_UINT32": 22, "DT_UINT64": 23,
    }
}  # fmt: skip

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {
    name: getattr(_Field, f"TYPE_{name.upper()}")
    for name in ("bool", "string", "bytes", "double", "float", "int32", "int64", "uint32", "uint64")
}
_FIELD = re.compile(r"(\d+) (\w+) ([^,]+)")


def _file(
    package: str,
    schema: dict[str, str],
    enums: dict[str, dict[str, int]],
    imports: tuple[str, ...],
) -> descriptor_pb2.FileDescriptorProto:
    name = f"router_fn/seldon/{package}.proto"
    file = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3")
    file.dependency.extend(imports)
    for enum_name, values in enums.items():
        enum = file.enum_type.add(name=enum_name)
        for value_name, number in values.items():
            enum.value.add(name=value_name, number=number)
    for message_name, fields in schema.items():
        message = file.message_type.add(name=message_name)
        for number, field_name, kind in _FIELD.findall(fields):
            _add_field(message, package, enums, int(number), field_name, kind)
    return file


def _add_field(
    message: Any, package: str, enums: dict[str, dict[str, int]], number: int, name: str, kind: str
) -> None:
    field = message.field.add(name=name, number=number)
    if name in ("messagetype", "datatype"):
        field.json_name = name
    repeated = kind.endswith("*") or kind.startswith("map<")
    field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    if kind.endswith("?"):
        if not message.oneof_decl:
            message.oneof_decl.add(name="choice")
        field.oneof_index = 0
    kind = kind.rstrip("*?")
    if kind.startswith("map<"):
        entry_name = name[0].upper() + name[1:] + "Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        _add_field(entry, package, enums, 1, "key", "string")
        _add_field(entry, package, enums, 2, "value", kind[4:-1])
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{package}.{message.name}.{entry_name}"
    elif kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _Field.TYPE_ENUM if kind in enums else _Field.TYPE_MESSAGE
        field.type_name = f".{kind}" if "." in kind else f".{package}.{kind}"


def _load() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    for known in (any_pb2, empty_pb2, struct_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    known_names = ("google/protobuf/any.proto", "google/protobuf/struct.proto")
    tensorflow = _file("tensorflow", _TENSORFLOW, _TENSORFLOW_ENUMS, ())
    pool.AddSerializedFile(tensorflow.SerializeToString())
    seldon = _file("seldon.protos", _SELDON, _ENUMS, (*known_names, tensorflow.name))
    pool.AddSerializedFile(seldon.SerializeToString())
    messages = {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"seldon.protos.{name}"))
        for name in _SELDON
    }
    empty = pool.FindMessageTypeByName("google.protobuf.Empty")
    return {**messages, "Empty": message_factory.GetMessageClass(empty)}


MESSAGES: Final = _load()
"""Message classes by name."""
