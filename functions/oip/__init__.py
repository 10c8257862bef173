"""Messages of the Open Inference Protocol over gRPC (package `inference`); needs protobuf.

    from functions import oip
    oip.ModelInferRequest(model_name="iris")

Kept as a descriptor in a pool of its own; see `functions.protos`.
"""

from typing import Any

from functions import protos

from .descriptor import DESCRIPTOR_SET

SERVICE = "inference.GRPCInferenceService"

METHODS = (
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
)
"""Every method is unary: NameRequest -> NameResponse."""

_messages = protos.load_messages(DESCRIPTOR_SET)


def __getattr__(name: str) -> Any:
    """Message classes by their short name."""
    try:
        return _messages[f"inference.{name}"]
    except KeyError:
        raise AttributeError(f"the protocol has no message {name}") from None
