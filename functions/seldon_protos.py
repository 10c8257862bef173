"""The messages of Seldon's gRPC services (`seldon.protos`); needs protobuf (extra grpc).

The schema is `functions.wire.seldon`; here it is in a descriptor pool of its own.
"""

from typing import Any, Final

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    empty_pb2,
    json_format,
    message_factory,
    struct_pb2,
    wrappers_pb2,
)

from functions.wire import seldon

POOL: Final = descriptor_pool.DescriptorPool()
"""The schema, for server reflection too."""


def _load(pool: Any) -> dict[str, Any]:
    for known in (any_pb2, empty_pb2, struct_pb2, wrappers_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    for document in seldon.file_descriptors():
        file = json_format.ParseDict(document, descriptor_pb2.FileDescriptorProto())
        pool.AddSerializedFile(file.SerializeToString())
    names = {name: f"{seldon.PACKAGE}.{name}" for name in seldon.MESSAGES}
    names["Empty"] = "google.protobuf.Empty"
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(full))
        for name, full in names.items()
    }


MESSAGES: Final = _load(POOL)
"""Message classes by name."""
