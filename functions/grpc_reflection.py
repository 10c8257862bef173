"""Server reflection (`grpc.reflection.v1alpha`): tells grpcurl and the like of the services."""

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError

from .grpc_status import Status
from .http2.call import ServerCall
from .http2.server import Method
from .protos import load_messages

SERVICE = "grpc.reflection.v1alpha.ServerReflection"
_PACKAGE = SERVICE.rpartition(".")[0]

_STRING, _INT32, _BYTES, _MESSAGE = 9, 5, 12, 11
_ONE, _MANY = 1, 3

_Fields = dict[str, tuple[int, int, int | str]]
"""Name -> number, label, type: a scalar's number or a message's name."""

_MESSAGES: dict[str, _Fields] = {
    "ServerReflectionRequest": {
        "host": (1, _ONE, _STRING),
        "file_by_filename": (3, _ONE, _STRING),
        "file_containing_symbol": (4, _ONE, _STRING),
        "file_containing_extension": (5, _ONE, "ExtensionRequest"),
        "all_extension_numbers_of_type": (6, _ONE, _STRING),
        "list_services": (7, _ONE, _STRING),
    },
    "ExtensionRequest": {
        "containing_type": (1, _ONE, _STRING),
        "extension_number": (2, _ONE, _INT32),
    },
    "ServerReflectionResponse": {
        "valid_host": (1, _ONE, _STRING),
        "original_request": (2, _ONE, "ServerReflectionRequest"),
        "file_descriptor_response": (4, _ONE, "FileDescriptorResponse"),
        "all_extension_numbers_response": (5, _ONE, "ExtensionNumberResponse"),
        "list_services_response": (6, _ONE, "ListServiceResponse"),
        "error_response": (7, _ONE, "ErrorResponse"),
    },
    "FileDescriptorResponse": {"file_descriptor_proto": (1, _MANY, _BYTES)},
    "ExtensionNumberResponse": {
        "base_type_name": (1, _ONE, _STRING),
        "extension_number": (2, _MANY, _INT32),
    },
    "ListServiceResponse": {"service": (1, _MANY, "ServiceResponse")},
    "ServiceResponse": {"name": (1, _ONE, _STRING)},
    "ErrorResponse": {"error_code": (1, _ONE, _INT32), "error_message": (2, _ONE, _STRING)},
}
_CHOICES = {"ServerReflectionRequest": 3, "ServerReflectionResponse": 4}
"""Message -> number of the first field of its oneof."""


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="grpc/reflection/v1alpha/reflection.proto", package=_PACKAGE, syntax="proto3"
    )
    for message, fields in _MESSAGES.items():
        made = file.message_type.add(name=message)
        if message in _CHOICES:
            made.oneof_decl.add(name="message_" + message.removeprefix("ServerReflection").lower())
        for name, (number, label, kind) in fields.items():
            field = made.field.add(name=name, number=number, label=label)
            if isinstance(kind, str):
                field.type = _MESSAGE
                field.type_name = f".{_PACKAGE}.{kind}"
            else:
                field.type = kind
            if number >= _CHOICES.get(message, 99):
                field.oneof_index = 0
    service = file.service.add(name="ServerReflection")
    service.method.add(
        name="ServerReflectionInfo",
        input_type=f".{_PACKAGE}.ServerReflectionRequest",
        output_type=f".{_PACKAGE}.ServerReflectionResponse",
        client_streaming=True,
        server_streaming=True,
    )
    return file


def methods(services: Iterable[str], pool: Any) -> dict[str, Method]:
    """The service's one method, a stream, for services whose schema is in `pool`."""
    file = _file()
    pool.AddSerializedFile(file.SerializeToString())
    files = descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()
    messages = load_messages(files)
    names = (*services, SERVICE)
    kind = messages[f"{_PACKAGE}.ServerReflectionRequest"]
    response = messages[f"{_PACKAGE}.ServerReflectionResponse"]

    def tell(call: ServerCall, data: memoryview) -> None:
        try:
            request = kind.FromString(bytes(data))
        except DecodeError as exc:
            call.fail(Status.INVALID_ARGUMENT, f"the request is none of reflection's: {exc}")
            return
        answer = response(valid_host=request.host, original_request=request)
        try:
            _fill(answer, request, names, pool)
        except KeyError as exc:
            answer.error_response.error_code = Status.NOT_FOUND
            answer.error_response.error_message = str(exc.args[0]) if exc.args else "not found"
        call.send([answer.SerializeToString()])

    return {f"{SERVICE}/ServerReflectionInfo": Method(tell, is_stream=True)}


def _fill(answer: Any, request: Any, names: tuple[str, ...], pool: Any) -> None:
    """Raises KeyError for what there is not."""
    asked = request.WhichOneof("message_request")
    if asked == "list_services":
        answer.list_services_response.SetInParent()
        for name in names:
            answer.list_services_response.service.add(name=name)
    elif asked == "all_extension_numbers_of_type":
        message = pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
        numbers = sorted(extension.number for extension in pool.FindAllExtensions(message))
        answer.all_extension_numbers_response.base_type_name = message.full_name
        answer.all_extension_numbers_response.extension_number.extend(numbers)
    else:
        found = _found(request, asked, pool)
        answer.file_descriptor_response.file_descriptor_proto.extend(
            file.serialized_pb for file in _closure(found)
        )


def _found(request: Any, asked: str | None, pool: Any) -> Any:
    if asked == "file_by_filename":
        return pool.FindFileByName(request.file_by_filename)
    if asked == "file_containing_symbol":
        return pool.FindFileContainingSymbol(request.file_containing_symbol)
    if asked == "file_containing_extension":
        wanted = request.file_containing_extension
        message = pool.FindMessageTypeByName(wanted.containing_type)
        return pool.FindExtensionByNumber(message, wanted.extension_number).file
    raise KeyError("the request asks for nothing")


def _closure(file: Any, seen: set[str] | None = None) -> Iterator[Any]:
    """A file and all that it imports, each once."""
    seen = set() if seen is None else seen
    if file.name in seen:
        return
    seen.add(file.name)
    yield file
    for imported in file.dependencies:
        yield from _closure(imported, seen)
