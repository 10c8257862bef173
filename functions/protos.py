"""Protobuf messages from descriptors kept in this package, in a pool of their own.

Generated `_pb2` modules register in the process-wide pool, where user code that imports kserve,
tritonclient or TensorFlow has registered the same names already: the second one fails. They are
also tied to the protobuf version that generated them. A descriptor in its own pool is neither.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def load_messages(descriptor_set: bytes) -> dict[str, Any]:
    """Message classes by full name from a serialized FileDescriptorSet (files in dependency
    order)."""
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file
    for file in files:
        pool.Add(file)
    found: dict[str, Any] = {}
    for file in files:
        prefix = file.package + "."
        for message in file.message_type:
            name = prefix + message.name
            found[name] = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
    return found


def compile_descriptor(proto_files: list[str], include: str) -> bytes:
    """Run protoc (grpcio-tools): the FileDescriptorSet of the files and what they import."""
    import tempfile
    from pathlib import Path

    from grpc_tools import protoc

    with tempfile.NamedTemporaryFile(suffix=".binpb") as out:
        arguments = [
            "protoc",
            f"-I{include}",
            f"-I{Path(protoc.__file__).parent / '_proto'}",
            "--include_imports",
            f"--descriptor_set_out={out.name}",
            *proto_files,
        ]
        if protoc.main(arguments) != 0:
            raise RuntimeError(f"protoc failed for {', '.join(proto_files)}")
        return Path(out.name).read_bytes()


def write_descriptor(descriptor_set: bytes, target: str) -> None:
    """A Python file with the bytes: package data that every installer copies."""
    import base64
    import textwrap
    from pathlib import Path

    text = "\n".join(textwrap.wrap(base64.b85encode(descriptor_set).decode(), 96))
    Path(target).write_text(
        '"""Generated from the .proto files beside it by compile.py; do not edit."""\n\n'
        "import base64\n\nDESCRIPTOR_SET = base64.b85decode(\n"
        f'    r"""\n{text}\n""".replace("\\n", "")\n)\n',
        encoding="utf-8",
    )
