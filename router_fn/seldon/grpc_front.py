"""A Seldon graph as a gRPC service, `seldon.protos.Seldon` on GRPC_PORT. Needs router-grpc.

A message becomes its JSON form, goes through the graph as a REST request does, and the answer comes
back as a message (numbers in `ndarray`, `jsonData` and tags are doubles: protobuf's Value).
Errors keep their meaning as status codes; the puid travels as metadata `seldon-puid`.
"""

import asyncio
import json
import uuid
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from google.protobuf import json_format

from functions.wire.http1_head import RequestHead
from router_fn.grpc_front import CODES, GrpcExchange, GrpcListener
from router_fn.seldon import messages
from router_fn.seldon.protos import MESSAGES, POOL

if TYPE_CHECKING:
    from router_fn.seldon.front import SeldonServer

_SERVICE: Final = "seldon.protos.Seldon"
_METHODS: Final = {
    "Predict": ("SeldonMessage", "SeldonMessage", "/api/v1.0/predictions"),
    "SendFeedback": ("Feedback", "SeldonMessage", "/api/v1.0/feedback"),
    "ModelMetadata": ("SeldonModelMetadataRequest", "SeldonModelMetadata", "/api/v1.0/metadata/"),
    "GraphMetadata": ("Empty", "SeldonGraphMetadata", "/api/v1.0/metadata"),
}


class SeldonGrpcFront(GrpcListener):
    """Seldon's service on GRPC_PORT."""

    def __init__(self, server: "SeldonServer", max_bytes: int) -> None:
        super().__init__(max_bytes, lambda: server.ready)
        self._front = server
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._method(name),
                request_deserializer=MESSAGES[takes].FromString,
                response_serializer=MESSAGES[gives].SerializeToString,
            )
            for name, (takes, gives, _) in _METHODS.items()
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_SERVICE, handlers),)
        )
        self._reflect()

    def _reflect(self) -> None:
        """Tell clients such as grpcurl what there is, if grpcio-reflection is installed."""
        try:
            from grpc_reflection.v1alpha import reflection, reflection_pb2
        except ImportError:
            return
        POOL.AddSerializedFile(reflection_pb2.DESCRIPTOR.serialized_pb)
        names = (_SERVICE, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server, POOL)

    def _method(self, name: str) -> Any:
        _, gives, path = _METHODS[name]
        makes = MESSAGES[gives]

        async def answer(request: Any, context: Any) -> Any:
            verb, target = b"POST", path
            if name.endswith("Metadata"):
                verb, target = b"GET", path + getattr(request, "name", "")
            try:
                body = json.dumps(json_format.MessageToDict(request, descriptor_pool=POOL)).encode()
            except (ValueError, json_format.Error) as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            status, answered = await self._run(verb, target, body, context)
            if status != 200:
                code = CODES.get(status, grpc.StatusCode.INTERNAL)
                await context.abort(code, _cause(answered))
            try:
                return json_format.ParseDict(
                    _renamed(name, json.loads(answered)),
                    makes(),
                    ignore_unknown_fields=True,
                    descriptor_pool=POOL,
                )
            except (ValueError, RecursionError, json_format.Error) as error:
                text = f"the answer is no {gives}: {error}"
                await context.abort(grpc.StatusCode.INTERNAL, text[:1000])

        return answer

    async def _run(self, verb: bytes, target: str, body: bytes, context: Any) -> tuple[int, bytes]:
        headers = await headers_of(context)
        future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        head = RequestHead(verb, target.encode(), 1, headers)
        exchange = GrpcExchange(head, body, future)
        self._front.handle(exchange)  # type: ignore[arg-type]
        try:
            return await future
        except asyncio.CancelledError:
            if exchange.on_abort is not None:
                exchange.on_abort()
            raise


async def headers_of(context: Any) -> list[tuple[bytes, bytes]]:
    """A call's metadata as header fields, with a puid, which the client is told at once."""
    headers = [(b"Host", b"grpc")]
    for key, value in context.invocation_metadata():
        if not key.endswith("-bin") and key != "user-agent":
            text = value.encode() if isinstance(value, str) else value
            headers.append((key.encode(), text))
    puid = next((v for k, v in headers if k == b"seldon-puid"), uuid.uuid4().hex.encode())
    headers = [field for field in headers if field[0] != b"seldon-puid"]
    headers.append((b"seldon-puid", puid))
    await context.send_initial_metadata((("seldon-puid", puid.decode("latin-1")),))
    return headers


def _renamed(name: str, answer: Any) -> Any:
    """REST's graph metadata calls its ends otherwise than the message does."""
    if name == "GraphMetadata" and isinstance(answer, dict):
        answer["inputs"] = answer.pop("graphinputs", [])
        answer["outputs"] = answer.pop("graphoutputs", [])
    return answer


def _cause(body: bytes) -> str:
    """What an error body says."""
    status = messages.members(messages.members(body).get(b"status", b""))
    info = status.get(b"info", b"")
    text = messages.loads(info) if info[:1] == b'"' else body.decode("utf-8", "replace")
    return str(text)[:1000]
