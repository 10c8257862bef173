"""TensorFlow Serving's messages (packages `tensorflow` and `tensorflow.serving`); needs protobuf.

In a pool of their own (see `functions.protos`), so that TensorFlow itself can be in the process.
"""

from typing import Any

from functions import protos

from .descriptor import DESCRIPTOR_SET

_messages = protos.load_messages(DESCRIPTOR_SET)


def __getattr__(name: str) -> Any:
    """Message classes by their short name: `tfs.PredictRequest`, `tfs.TensorProto`."""
    for package in ("tensorflow.serving", "tensorflow"):
        found = _messages.get(f"{package}.{name}")
        if found is not None:
            return found
    raise AttributeError(f"the protocol has no message {name}")
