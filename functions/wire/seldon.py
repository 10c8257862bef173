"""Seldon's gRPC interface as data: messages and services of `seldon.protos` (spec/seldon 3.1).

Standard library only: `file_descriptors` gives FileDescriptorProtos in protobuf's JSON form, which
the router and the model server each load into a descriptor pool of their own, so that another copy
of these packages in the process (user code with an SDK) is not disturbed. Names and numbers are the
wire format's; those of `tensorflow.TensorProto` are TensorFlow's.
Notation: `number name type`; `*` repeated, `?` a member of the message's one choice, `map<...>`.
"""

import re
from typing import Any, Final

PACKAGE: Final = "seldon.protos"

MESSAGES: Final[dict[str, str]] = {
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
    "TensorInfo": "1 name string, 2 dtype DataType, 3 tensor_shape TensorShapeProto",
    "SignatureDef": "1 inputs map<TensorInfo>, 2 outputs map<TensorInfo>, 3 method_name string,"
    " 4 defaults map<TensorProto>",
}
_TENSORFLOW_ENUMS: Final = {
    "DataType": {
        "DT_INVALID": 0, "DT_FLOAT": 1, "DT_DOUBLE": 2, "DT_INT32": 3, "DT_UINT8": 4,
        "DT_INT16": 5, "DT_INT8": 6, "DT_STRING": 7, "DT_COMPLEX64": 8, "DT_INT64": 9,
        "DT_BOOL": 10, "DT_QINT8": 11, "DT_QUINT8": 12, "DT_QINT32": 13, "DT_BFLOAT16": 14,
        "DT_QINT16": 15, "DT_QUINT16": 16, "DT_UINT16": 17, "DT_COMPLEX128": 18, "DT_HALF": 19,
        "DT_RESOURCE": 20, "DT_VARIANT": 21, "DT_UINT32": 22, "DT_UINT64": 23,
    }
}  # fmt: skip

SERVING: Final = "tensorflow.serving"
SERVING_MESSAGES: Final = {
    "ModelSpec": "1 name string, 2 version google.protobuf.Int64Value?, 3 signature_name string,"
    " 4 version_label string?",
    "PredictRequest": "1 model_spec ModelSpec, 2 inputs map<tensorflow.TensorProto>,"
    " 3 output_filter string*",
    "PredictResponse": "1 outputs map<tensorflow.TensorProto>, 2 model_spec ModelSpec",
    "GetModelMetadataRequest": "1 model_spec ModelSpec, 2 metadata_field string*",
    "GetModelMetadataResponse": "1 model_spec ModelSpec, 2 metadata map<google.protobuf.Any>",
    "SignatureDefMap": "1 signature_def map<tensorflow.SignatureDef>",
    "InferenceTask": "1 model_spec ModelSpec, 2 method_name string",
    "MultiInferenceRequest": "1 tasks InferenceTask*",
    "StatusProto": "1 error_code int32, 2 error_message string",
    "ModelVersionStatus": "1 version int64, 2 state int32, 3 status StatusProto",
    "GetModelStatusRequest": "1 model_spec ModelSpec",
    "GetModelStatusResponse": "1 model_version_status ModelVersionStatus*",
}
"""TensorFlow Serving's messages as far as a router reads them: what it does not know of one (the
examples of Classify, say) it keeps."""

SERVICES: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "Generic": {
        "TransformInput": ("SeldonMessage", "SeldonMessage"),
        "TransformOutput": ("SeldonMessage", "SeldonMessage"),
        "Route": ("SeldonMessage", "SeldonMessage"),
        "Aggregate": ("SeldonMessageList", "SeldonMessage"),
        "SendFeedback": ("Feedback", "SeldonMessage"),
    },
    "Model": {
        "Predict": ("SeldonMessage", "SeldonMessage"),
        "SendFeedback": ("Feedback", "SeldonMessage"),
        "Metadata": ("Empty", "SeldonModelMetadata"),
    },
    "Router": {
        "Route": ("SeldonMessage", "SeldonMessage"),
        "SendFeedback": ("Feedback", "SeldonMessage"),
    },
    "Transformer": {"TransformInput": ("SeldonMessage", "SeldonMessage")},
    "OutputTransformer": {"TransformOutput": ("SeldonMessage", "SeldonMessage")},
    "Combiner": {"Aggregate": ("SeldonMessageList", "SeldonMessage")},
    "Seldon": {
        "Predict": ("SeldonMessage", "SeldonMessage"),
        "SendFeedback": ("Feedback", "SeldonMessage"),
        "ModelMetadata": ("SeldonModelMetadataRequest", "SeldonModelMetadata"),
        "GraphMetadata": ("Empty", "SeldonGraphMetadata"),
    },
}
"""service -> method -> (request, response); `Empty` is google.protobuf's."""

_SCALARS: Final = (
    *("bool", "string", "bytes", "double", "float", "int32", "int64", "uint32", "uint64"),
)
_FIELD = re.compile(r"(\d+) (\w+) ([^,]+)")
_TENSORFLOW_FILE: Final = "turnout/tensorflow.proto"


def file_descriptors() -> list[dict[str, Any]]:
    """FileDescriptorProtos as JSON objects, in the order of their dependencies.

    google/protobuf's any, empty, struct and wrappers must be in the pool already.
    """
    known = [f"google/protobuf/{name}.proto" for name in ("any", "empty", "struct", "wrappers")]
    seldon = _file("turnout/seldon.proto", PACKAGE, MESSAGES, _ENUMS)
    seldon["dependency"] = [*known, _TENSORFLOW_FILE]
    seldon["service"] = [
        {
            "name": service,
            "method": [
                {"name": name, "inputType": _type_name(takes), "outputType": _type_name(gives)}
                for name, (takes, gives) in methods.items()
            ],
        }
        for service, methods in SERVICES.items()
    ]
    tensorflow = _file(_TENSORFLOW_FILE, "tensorflow", _TENSORFLOW, _TENSORFLOW_ENUMS)
    serving = _file("turnout/tensorflow_serving.proto", SERVING, SERVING_MESSAGES, {})
    serving["dependency"] = [*known, _TENSORFLOW_FILE]
    return [tensorflow, serving, seldon]


def _type_name(message: str) -> str:
    return ".google.protobuf.Empty" if message == "Empty" else f".{PACKAGE}.{message}"


def _file(
    name: str, package: str, schema: dict[str, str], enums: dict[str, dict[str, int]]
) -> dict[str, Any]:
    return {
        "name": name,
        "package": package,
        "syntax": "proto3",
        "enumType": [
            {"name": enum, "value": [{"name": n, "number": v} for n, v in values.items()]}
            for enum, values in enums.items()
        ],
        "messageType": [
            _message(message, fields, package, enums) for message, fields in schema.items()
        ],
    }


def _message(
    name: str, fields: str, package: str, enums: dict[str, dict[str, int]]
) -> dict[str, Any]:
    message: dict[str, Any] = {"name": name, "field": []}
    for number, field_name, kind in _FIELD.findall(fields):
        field: dict[str, Any] = {"name": field_name, "number": int(number), "label": _label(kind)}
        if kind.endswith("?"):
            message["oneofDecl"] = [{"name": "choice"}]
            field["oneofIndex"] = 0
        kind = kind.rstrip("*?")
        if kind.startswith("map<"):
            entry = field_name[0].upper() + field_name[1:] + "Entry"
            members = [
                {"name": "key", "number": 1, "label": "LABEL_OPTIONAL", "type": "TYPE_STRING"},
                {"name": "value", "number": 2, "label": "LABEL_OPTIONAL"}
                | _type(kind[4:-1], package, enums),
            ]
            nested = {"name": entry, "field": members, "options": {"mapEntry": True}}
            message.setdefault("nestedType", []).append(nested)
            field |= {"type": "TYPE_MESSAGE", "typeName": f".{package}.{name}.{entry}"}
        else:
            field |= _type(kind, package, enums)
        message["field"].append(field)
    return message


def _label(kind: str) -> str:
    repeated = kind.endswith("*") or kind.startswith("map<")
    return "LABEL_REPEATED" if repeated else "LABEL_OPTIONAL"


def _type(kind: str, package: str, enums: dict[str, dict[str, int]]) -> dict[str, Any]:
    if kind in _SCALARS:
        return {"type": f"TYPE_{kind.upper()}"}
    full = f".{kind}" if "." in kind else f".{package}.{kind}"
    return {"type": "TYPE_ENUM" if kind in enums else "TYPE_MESSAGE", "typeName": full}
