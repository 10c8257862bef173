"""`python -m functions.tfs.compile`: descriptor.py from the .proto files."""

from pathlib import Path

from functions import protos

HERE = Path(__file__).parent


def descriptor() -> bytes:
    return protos.compile_descriptor(["tensorflow.proto", "serving.proto"], str(HERE))


if __name__ == "__main__":
    protos.write_descriptor(descriptor(), str(HERE / "descriptor.py"))
