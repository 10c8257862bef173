"""`python -m functions.oip.compile`: descriptor.py from open_inference.proto."""

from pathlib import Path

from functions import protos

HERE = Path(__file__).parent


def descriptor() -> bytes:
    return protos.compile_descriptor(["open_inference.proto"], str(HERE))


if __name__ == "__main__":
    protos.write_descriptor(descriptor(), str(HERE / "descriptor.py"))
