"""Reflection: the schema is the published one, and each question has its answer."""

import asyncio
from typing import Any

from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2

from functions import grpc_reflection
from functions.grpc_status import Status
from functions.http2.server import Server
from functions.seldon_protos import POOL
from functions.wire import seldon
from tests.fakes_http2 import Client, message

Request = reflection_pb2.ServerReflectionRequest


def shape(file: Any) -> Any:
    return {
        made.name: {
            (field.name, field.number, field.label, field.type, field.type_name,
             field.HasField("oneof_index"))
            for field in made.field
        }
        for made in file.message_type
    }  # fmt: skip


def test_the_schema_is_grpcs_own() -> None:
    published = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(published)
    ours = grpc_reflection._file()
    assert shape(ours) == shape(published)
    assert ours.package == published.package
    assert ours.service[0] == published.service[0]


def asked(*requests: Any, tail: bytes = b"") -> tuple[list[Any], int | None]:
    """The answers on one stream, and its status."""
    found: list[Any] = []
    status: list[int | None] = []

    async def run() -> None:
        names = [f"{seldon.PACKAGE}.{service}" for service in seldon.SERVICES]
        methods = grpc_reflection.methods(names, POOL)
        client = Client(Server({f"/{name}".encode(): m for name, m in methods.items()}))
        body = b"".join(message(request.SerializeToString()) for request in requests) + tail
        stream = client.ask(body, f"/{grpc_reflection.SERVICE}/ServerReflectionInfo")
        data = client.data(stream)
        while data:
            end = 5 + int.from_bytes(data[1:5], "big")
            found.append(reflection_pb2.ServerReflectionResponse.FromString(data[5:end]))
            data = data[end:]
        status.append(client.status(stream))

    asyncio.run(run())
    return found, status[0]


def test_questions_on_one_stream() -> None:
    answers, status = asked(
        Request(list_services="*", host="h"),
        Request(file_containing_symbol="seldon.protos.Model"),
        Request(file_containing_symbol="no.such.Thing"),
        Request(file_by_filename="grpc/reflection/v1alpha/reflection.proto"),
        Request(file_by_filename="no.proto"),
        Request(all_extension_numbers_of_type="google.protobuf.Struct"),
        Request(file_containing_extension=reflection_pb2.ExtensionRequest(
            containing_type="google.protobuf.Struct", extension_number=7)),
        Request(),
    )  # fmt: skip
    assert status == Status.OK
    listed, found, unknown, by_name, no_file, numbers, no_extension, nothing = answers
    assert grpc_reflection.SERVICE in [one.name for one in listed.list_services_response.service]
    assert (listed.valid_host, listed.original_request.host) == ("h", "h")
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(data)
        for data in found.file_descriptor_response.file_descriptor_proto
    ]
    assert "Model" in [service.name for service in files[0].service]
    assert {name for file in files for name in file.dependency} <= {file.name for file in files}
    assert len(by_name.file_descriptor_response.file_descriptor_proto) == 1
    assert numbers.all_extension_numbers_response.base_type_name == "google.protobuf.Struct"
    codes = [one.error_response.error_code for one in (unknown, no_file, no_extension, nothing)]
    assert codes == [Status.NOT_FOUND] * 4


def test_what_is_no_question() -> None:
    answers, status = asked(Request(list_services="*"), tail=message(b"\xff"))
    assert (len(answers), status) == (1, Status.INVALID_ARGUMENT)
