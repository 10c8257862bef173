"""The graph as a gRPC service (h2c): the Open Inference Protocol on GRPC_PORT. Needs the extra
router-grpc.

ModelInfer becomes a V2 JSON request to the graph and its answer goes back as ModelInferResponse,
whatever model name the client uses. A graph whose answer is no V2 message is an error that says so.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from functions.wire.http1_head import RequestHead
from router_fn import oip, tensors

if TYPE_CHECKING:
    from router_fn.server import Router

logger = logging.getLogger(__name__)

_HEALTH: Final = "grpc.health.v1.Health"
_SERVING: Final = b"\x08\x01"
_NOT_SERVING: Final = b"\x08\x02"

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class GrpcExchange:
    """What a `Run` needs of an exchange, answered into a future."""

    started = False
    streams = False

    def __init__(
        self, head: RequestHead, body: bytes, future: "asyncio.Future[tuple[int, bytes]]"
    ) -> None:
        self.head = head
        self.body = body
        self.on_abort: Any = None
        self.on_answer: Any = None
        """Called once, when the request is over."""
        self._future = future
        future.add_done_callback(self._over)

    @property
    def open(self) -> bool:
        return not self._future.done()

    def respond(
        self, status: int, body: bytes = b"", content_type: bytes = b"", extra: bytes = b""
    ) -> None:
        if not self._future.done():
            self._future.set_result((status, body))

    def drop(self) -> None:
        self.respond(500)

    def _over(self, future: "asyncio.Future[tuple[int, bytes]]") -> None:
        if self.on_answer is not None:
            self.on_answer()


class GrpcListener:
    """A server on GRPC_PORT: when it starts and stops, and `grpc.health.v1.Health/Check` for the
    probes of Kubernetes (hand-encoded: one enum field)."""

    def __init__(self, max_bytes: int, is_ready: Callable[[], bool]) -> None:
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 1),
            ]
        )
        self.port = 0
        self._is_ready = is_ready
        check = grpc.unary_unary_rpc_method_handler(self._check)  # bytes in, bytes out
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_HEALTH, {"Check": check}),)
        )

    async def _check(self, request: bytes, context: Any) -> bytes:
        return _SERVING if self._is_ready() else _NOT_SERVING

    async def start(self, host: str, port: int) -> None:
        """Raises OSError when the port cannot be had."""
        try:
            self.port = self._server.add_insecure_port(f"{host or '[::]'}:{port}")
        except RuntimeError as error:
            raise OSError(f"gRPC port {port}: {error}") from error
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        await self._server.stop(grace_s)


class GrpcFront(GrpcListener):
    """The Open Inference Protocol on GRPC_PORT."""

    def __init__(self, router: "Router", max_bytes: int) -> None:
        super().__init__(max_bytes, lambda: router.ready)
        self._router = router
        methods = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                method,
                request_deserializer=oip.MESSAGES[f"{name}Request"].FromString,
                response_serializer=oip.MESSAGES[f"{name}Response"].SerializeToString,
            )
            for name, method in methods.items()
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(oip.SERVICE, handlers),)
        )

    async def _live(self, request: Any, context: Any) -> Any:
        return oip.MESSAGES["ServerLiveResponse"](live=True)

    async def _ready(self, request: Any, context: Any) -> Any:
        kind = "ModelReadyResponse" if hasattr(request, "version") else "ServerReadyResponse"
        return oip.MESSAGES[kind](ready=self._router.ready)

    async def _server_metadata(self, request: Any, context: Any) -> Any:
        return oip.MESSAGES["ServerMetadataResponse"](name="turnout-router", version="2")

    async def _model_metadata(self, request: Any, context: Any) -> Any:
        return oip.MESSAGES["ModelMetadataResponse"](name=request.name, platform="turnout_graph")

    async def _infer(self, request: Any, context: Any) -> Any:
        try:
            body = tensors.request_to_json(request)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        headers = [(b"Host", b"grpc")]
        for name, value in context.invocation_metadata():
            if not name.endswith("-bin"):
                headers.append((name.encode(), value.encode() if isinstance(value, str) else value))
        status, answer = await self._run(body, headers)
        if 200 <= status < 300:
            try:
                message = tensors.response_to_message(answer)
            except ValueError as error:
                await context.abort(grpc.StatusCode.INTERNAL, f"the graph's answer: {error}")
            message.model_name = message.model_name or request.model_name
            message.id = message.id or request.id
            return message
        await context.abort(CODES.get(status, grpc.StatusCode.INTERNAL), _cause(answer))
        return None

    async def _run(self, body: bytes, headers: list[tuple[bytes, bytes]]) -> tuple[int, bytes]:
        future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        exchange = GrpcExchange(RequestHead(b"POST", b"/", 1, headers), body, future)
        self._router.run_apart(exchange)
        try:
            return await future
        except asyncio.CancelledError:
            if exchange.on_abort is not None:
                exchange.on_abort()
            raise


def _cause(body: bytes) -> str:
    """The most telling line of an error body."""
    try:
        document = json.loads(body)
        return str(document.get("cause") or document.get("error") or document)
    except (ValueError, AttributeError):
        return body[:200].decode("utf-8", "replace")
