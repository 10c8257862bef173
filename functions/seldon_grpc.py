"""Seldon's gRPC services over user classes and prepackaged models: Model, Router, Transformer,
OutputTransformer, Combiner, Generic and Seldon, on one port (spec section 4).

Messages become the JSON objects that REST has, with numbers as doubles, and answers become messages
again; `raw` hooks get the message itself. Faults keep their meaning as status codes: bad input is
INVALID_ARGUMENT, a status that user code chose is translated, anything else is INTERNAL.
"""

import asyncio
import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf import json_format

from . import grpc_reflection, grpc_server, seldon_rest
from . import seldon_message as sm
from .engine import Codec, Engine
from .errors import FunctionsError, StatusError
from .grpc_server import Method, ServerCall
from .grpc_status import Status
from .model import Call, ServedModel
from .seldon_protos import MESSAGES, POOL
from .seldon_rest import SeldonCodec
from .seldon_unit import Unit
from .wire import seldon

if TYPE_CHECKING:
    from .repository import Repository

_VERBS = {
    "Predict": "predict",
    "TransformInput": "transform_input",
    "TransformOutput": "transform_output",
    "Route": "route",
    "Aggregate": "aggregate",
    "SendFeedback": "send_feedback",
    "Metadata": "metadata",
    "ModelMetadata": "metadata",
    "GraphMetadata": "graph_metadata",
}


class SeldonGrpcCodec(Codec):
    """The REST codec's units, asked with messages."""

    name = "grpc-seldon"
    joins = False

    def __init__(self, rest: SeldonCodec) -> None:
        super().__init__(rest.settings)
        self._rest = rest

    def decode(self, body: Any, route: Any, call: Call) -> Any:
        return body

    def apply(self, model: ServedModel, route: Any, payload: Any, call: Call) -> Any:
        if model.is_async:
            return asyncio.to_thread(self._run, model, route.verb, payload)
        return self._run(model, route.verb, payload)

    def _run(self, model: ServedModel, verb: str, message: Any) -> Any:
        unit = self._rest.unit(model)
        if verb == "metadata":
            return _metadata(unit)
        if verb == "graph_metadata":
            return _graph_metadata(unit)
        raw = unit.raw(verb)
        if raw is None:
            return to_message(unit.run(verb, to_json(message)))
        result = raw(message)
        if hasattr(result, "SerializeToString"):
            unit.harvest(verb, json_format.MessageToDict(result))
            return result
        unit.harvest(verb, result)
        return to_message(result)

    def encode(self, result: Any, route: Any, call: Call) -> Any:
        return [result.SerializeToString()]


# --- messages -------------------------------------------------------------------------------------


def to_json(message: Any) -> dict[str, Any]:
    """A request message as the JSON object that REST has; numbers are doubles."""
    kind = message.DESCRIPTOR.name
    if kind == "SeldonMessageList":
        return {"seldonMessages": [to_json(one) for one in message.seldonMessages]}
    if kind == "Feedback":
        parts = {
            name: to_json(getattr(message, name))
            for name in ("request", "response", "truth")
            if message.HasField(name)
        }
        return {**parts, "reward": message.reward}
    fields: dict[str, Any] = {"meta": {}}
    if message.HasField("meta"):
        fields["meta"] = json_format.MessageToDict(message.meta)
    choice = message.WhichOneof("choice")
    if choice == "data":
        fields["data"] = _data(message.data)
    elif choice == "jsonData":
        fields["jsonData"] = _value(message.jsonData)
    elif choice == "strData":
        fields["strData"] = message.strData
    elif choice == "binData":
        fields["binData"] = base64.b64encode(message.binData).decode()
    return fields


def _data(data: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"names": list(data.names)}
    choice = data.WhichOneof("choice")
    if choice == "tensor":
        shape, values = list(data.tensor.shape), np.array(data.tensor.values, dtype=float)
        fields["tensor"] = {"shape": shape, "values": values}
    elif choice == "tftensor":
        fields["tftensor"] = json_format.MessageToDict(data.tftensor)
    elif choice == "ndarray":
        fields["ndarray"] = [_value(value) for value in data.ndarray.values]
    return fields


def _value(value: Any) -> Any:
    """A google.protobuf.Value; its numbers are doubles, whole ones too."""
    kind = value.WhichOneof("kind")
    if kind == "list_value":
        return [_value(one) for one in value.list_value.values]
    if kind == "struct_value":
        return {key: _value(one) for key, one in value.struct_value.fields.items()}
    return None if kind in (None, "null_value") else getattr(value, kind)


def to_message(answer: Any) -> Any:
    """A SeldonMessage of a JSON object. Raises BadResult."""
    if not isinstance(answer, Mapping):
        raise sm.BadResult(f"the model returned {type(answer).__name__}, not a message")
    fields = dict(answer)
    data = fields.pop("data", None)
    tensor = data.get("tensor") if isinstance(data, Mapping) else None
    if isinstance(tensor, Mapping):  # the only payload that is large as a rule
        data = {key: value for key, value in data.items() if key != "tensor"}
    try:
        message = json_format.ParseDict(_json(fields), MESSAGES["SeldonMessage"]())
        if isinstance(data, Mapping):
            json_format.ParseDict(_json(data), message.data)
            message.data.SetInParent()
        if isinstance(tensor, Mapping):
            message.data.tensor.shape.extend(tensor.get("shape", []))
            message.data.tensor.values.extend(tensor.get("values", []))
            message.data.tensor.SetInParent()
    except (json_format.ParseError, TypeError, ValueError) as exc:
        raise sm.BadResult(f"the answer has no place in a SeldonMessage: {exc}") from None
    return message


def _json(value: Any) -> Any:
    """numpy's numbers and arrays as Python's."""
    if isinstance(value, Mapping):
        return {str(key): _json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_json(one) for one in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _metadata(unit: Unit) -> Any:
    document = _json(unit.metadata.read())
    return json_format.ParseDict(document, MESSAGES["SeldonModelMetadata"]())


def _graph_metadata(unit: Unit) -> Any:
    """Of a graph of one node."""
    model = _metadata(unit)
    graph = MESSAGES["SeldonGraphMetadata"](name=unit.identity.predictor)
    graph.models[unit.identity.unit or model.name].CopyFrom(model)
    graph.inputs.extend(model.inputs)
    graph.outputs.extend(model.outputs)
    return graph


# --- services -------------------------------------------------------------------------------------


class _Route:
    __slots__ = ("model", "verb", "version")

    def __init__(self, model: str, verb: str) -> None:
        self.model = model
        self.verb = verb
        self.version = ""


class SeldonServices:
    """All services, each method by its name."""

    def __init__(self, repository: "Repository", engine: Engine, rest: SeldonCodec) -> None:
        self.repository = repository
        self.engine = engine
        self.codec = SeldonGrpcCodec(rest)

    def methods(self) -> dict[str, Method]:
        """And reflection, as Seldon's wrapper has it."""
        found = {
            f"{seldon.PACKAGE}.{service}/{name}": self._method(_VERBS[name], MESSAGES[takes])
            for service, methods in seldon.SERVICES.items()
            for name, (takes, _) in methods.items()
        }
        names = [f"{seldon.PACKAGE}.{service}" for service in seldon.SERVICES]
        return {**found, **grpc_reflection.methods(names, POOL)}

    def _method(self, verb: str, kind: Any) -> Method:
        def ask(call: ServerCall, data: memoryview) -> None:
            request = grpc_server.read(call, kind, data)
            if request is None:
                return
            name = self.repository.settings.model_name
            asked = Call(call.metadata())
            asked.request_id = asked.headers.get("seldon-puid", "")
            if asked.request_id:
                call.initial.append(("seldon-puid", asked.request_id))
            grpc_server.execute(
                self.engine,
                lambda: self.repository.ready_entry(name),
                self.codec,
                _Route(name, verb),
                request,
                len(data),
                call,
                asked,
                _told,
            )

        return Method(ask)


def _told(error: FunctionsError) -> tuple[Status, str]:
    status, text, _ = seldon_rest.told(error)
    # A fault whose status is user code's own counts by that status.
    counted = StatusError(status, text) if isinstance(error, sm.BadResult) else error
    return grpc_server.status_of(counted), text
