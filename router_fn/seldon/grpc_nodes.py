"""Nodes that are called over gRPC: a `serviceUrl` of `grpc://HOST:PORT`. Needs the extra
router-grpc.

The traversal stays what it is: messages are JSON texts between nodes and become protobuf for the
call (numbers are doubles then). Under the seldon protocol the services are Model, Transformer,
OutputTransformer, Router and Combiner; feedback of routers goes to Model too, as Seldon's executor
sends it. Under v2 it is ModelInfer, under tensorflow Predict. Status codes of an answer become HTTP
statuses. `pass_on` is for a client that speaks gRPC too: bytes in, bytes out, and codes stay codes.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from google.protobuf import empty_pb2, json_format

from functions.wire import seldon
from functions.wire.headers import Headers
from router_fn import oip
from router_fn.errors import UpstreamError
from router_fn.fibers import Wait
from router_fn.grpc_steps import STATUSES, GrpcTarget
from router_fn.replies import Reply
from router_fn.seldon import messages, tfserving_grpc, tfserving_json
from router_fn.seldon.graph import Unit
from router_fn.seldon.protos import MESSAGES
from router_fn.urls import Url, parse_url

if TYPE_CHECKING:
    from router_fn.seldon.metrics import SeldonMetrics

_METHODS: Final = {
    "/predict": ("Model", "Predict"),
    "/transform-input": ("Transformer", "TransformInput"),
    "/transform-output": ("OutputTransformer", "TransformOutput"),
    "/route": ("Router", "Route"),
    "/aggregate": ("Combiner", "Aggregate"),
    "/send-feedback": ("Model", "SendFeedback"),
    "/metadata": ("Model", "Metadata"),
}
_TENSORFLOW: Final = (tfserving_grpc.PREDICT, tfserving_grpc.METADATA)
_OTHERS: Final = re.compile(
    r"/v2/models/[^/]+(/ready|/infer)?|/v1/models/[^/]+(/metadata)?|/health/status"
)
_HEALTH: Final = "/grpc.health.v1.Health/Check"
_HEALTH_S: Final = 1.5
_HEALTHY: Final = b"\x08\x01"
_NOT_METADATA: Final = (b"accept", b"content-", b"grpc-", b"user-agent", b"connection", b"te")


class Refused(Exception):
    """A call of gRPC ended with this status."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class NodeTarget(GrpcTarget):
    """One node: a channel of its own, and its methods."""

    def __init__(self, url: Url, timeout_s: float | None, max_bytes: int) -> None:
        super().__init__(url, timeout_s, max_bytes)
        self._calls: dict[str, Any] = {}
        self._signatures = b""

    def _call(self, path: str) -> Any:
        known = self._calls.get(path)
        if known is None:
            service, method = _METHODS[path]
            _takes, gives = seldon.SERVICES[service][method]
            known = self._calls[path] = self.channel().unary_unary(
                f"/{seldon.PACKAGE}.{service}/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=MESSAGES[gives].FromString,
            )
        return known

    async def ask(self, path: str, body: bytes, headers: Headers) -> Reply:
        """One call of one of the node's paths. Raises UpstreamError."""
        if path == "/health/status" or path.endswith("/ready"):
            return await self._health(headers)
        if path in _TENSORFLOW:
            return await self._tensorflow(path, body, headers)
        if path.startswith("/v1/models/"):
            return await self._about_model(path, headers)
        if path.startswith("/v2/"):
            return await self._v2_metadata(headers)
        service, method = _METHODS[path]
        takes = seldon.SERVICES[service][method][0]
        try:
            message = _message(takes, body)
        except (ValueError, RecursionError, json_format.Error) as error:
            text = f"the message is no {takes}: {str(error)[:500]}"
            return Reply(400, messages.failure(400, text))
        try:
            answer = await self._call(path)(
                message, metadata=_metadata(headers), timeout=self.timeout_s
            )
        except grpc.aio.AioRpcError as error:
            return self._refusal(error)
        return Reply(200, _json(answer))

    async def _tensorflow(self, path: str, body: bytes, headers: Headers) -> Reply:
        """A call of TensorFlow Serving, bytes in and bytes out. What the model's signatures are is
        asked once, and again after a refusal."""
        if path == tfserving_grpc.METADATA and self._signatures:
            return Reply(200, self._signatures)
        call = self.channel().unary_unary(path)
        try:
            answer = await call(body, metadata=_metadata(headers), timeout=self.timeout_s)
        except grpc.aio.AioRpcError as error:
            self._signatures = b""
            return self._refusal(error)
        if path == tfserving_grpc.METADATA:
            self._signatures = answer
        return Reply(200, answer)

    async def pass_on(
        self, path: str, body: bytes, headers: Headers, limit_s: float | None
    ) -> Reply:
        """A call of any method, bytes in and bytes out. Raises Refused."""
        limits = [limit for limit in (limit_s, self.timeout_s) if limit]
        call = self.channel().unary_unary(path)
        try:
            answer = await call(
                body, metadata=_metadata(headers), timeout=min(limits) if limits else None
            )
        except grpc.aio.AioRpcError as error:
            raise Refused(error.code(), error.details() or error.code().name) from error
        return Reply(200, answer)

    async def _about_model(self, path: str, headers: Headers) -> Reply:
        """TensorFlow Serving's status or metadata of a model, as its REST API writes it."""
        pages = tfserving_json
        page = pages.METADATA if path.endswith("/metadata") else pages.STATUS
        call = self.channel().unary_unary(page.method)
        try:
            answer = await call(
                page.request(self.model), metadata=_metadata(headers), timeout=self.timeout_s
            )
        except grpc.aio.AioRpcError as error:
            return self._refusal(error)
        return Reply(200, page.json(answer))

    async def _health(self, headers: Headers) -> Reply:
        check = self.channel().unary_unary(_HEALTH)
        try:
            answer = await check(b"", metadata=_metadata(headers), timeout=self.timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return Reply(200, b'{"strData":"healthy"}')  # it answers, and knows no health
            return self._refusal(error)
        if answer == _HEALTHY:
            return Reply(200, b'{"strData":"healthy"}')
        return Reply(503, messages.failure(503, "the node is not serving"))

    async def _v2_metadata(self, headers: Headers) -> Reply:
        kind = oip.MESSAGES["ModelMetadataRequest"]
        ask = self.channel().unary_unary(
            f"/{oip.SERVICE}/ModelMetadata",
            request_serializer=kind.SerializeToString,
            response_deserializer=oip.MESSAGES["ModelMetadataResponse"].FromString,
        )
        try:
            request = kind(name=self.model)
            answer = await ask(request, metadata=_metadata(headers), timeout=self.timeout_s)
        except grpc.aio.AioRpcError as error:
            return self._refusal(error)
        return Reply(200, _json(answer))

    def _refusal(self, error: Any) -> Reply:
        """The node's own answer as a status. Raises UpstreamError if there was none."""
        self._failure(error, self.timeout_s)
        status = STATUSES.get(error.code(), 500)
        return Reply(status, messages.failure(status, error.details() or error.code().name))


async def is_serving(url: Url) -> bool:
    """Whether a server is there and, if it knows the health service, says that it serves."""
    async with grpc.aio.insecure_channel(f"{url.host}:{url.port}") as channel:
        try:
            return bool(await channel.unary_unary(_HEALTH)(b"", timeout=_HEALTH_S) == _HEALTHY)
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.UNIMPLEMENTED


def _message(kind: str, body: bytes) -> Any:
    """A protobuf message of a JSON text. Raises ValueError, ParseError."""
    if kind == "Empty":
        return empty_pb2.Empty()
    document = json.loads(body)
    if kind == "SeldonMessageList" and isinstance(document, list):
        document = {"seldonMessages": document}
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    return json_format.ParseDict(document, MESSAGES[kind](), ignore_unknown_fields=True)


def _json(answer: Any) -> bytes:
    return json.dumps(json_format.MessageToDict(answer), ensure_ascii=False).encode()


def _metadata(headers: Headers) -> list[tuple[str, str]]:
    """Headers that gRPC takes as metadata."""
    return [
        (name.lower().decode("ascii"), value.decode("ascii"))
        for name, value in headers
        if value.isascii()
        and not name.lower().startswith(_NOT_METADATA)
        and not name.lower().endswith(b"-bin")
    ]


class NodeCall(Wait[Reply]):
    """A `Wait` over one call: a task, since grpc.aio speaks asyncio."""

    def __init__(
        self, asking: Coroutine[Any, Any, Reply], unit: Unit, path: str, metrics: "SeldonMetrics"
    ) -> None:
        self._unit = unit
        self._path = path
        self._metrics = metrics
        self._began = time.monotonic()
        self.on_done: Callable[[int], None] | None = None
        self._task = asyncio.get_running_loop().create_task(asking)
        self._task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[Reply]") -> None:
        if task.cancelled():
            return
        error = task.exception()
        code = 0 if error is not None else task.result().status
        taken = time.monotonic() - self._began
        self._metrics.called(self._unit, self._path, "unary", code, taken)
        if self.on_done is not None:
            self.on_done(code)
        if error is None:
            self.resolve(task.result())
        else:
            self.fail(error)

    def cancel(self) -> None:
        super().cancel()
        self._task.cancel()


class GrpcNodes:
    """The channels of one router."""

    def __init__(self, timeout_s: float | None, max_bytes: int) -> None:
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._targets: dict[str, NodeTarget] = {}

    def call(
        self, unit: Unit, path: str, body: bytes, headers: Headers, metrics: "SeldonMetrics"
    ) -> NodeCall:
        if path not in (*_METHODS, *_TENSORFLOW) and not _OTHERS.fullmatch(path):
            raise UpstreamError(f"has no {path} over gRPC", kind="garbage")
        target = self._target(unit)
        if path.endswith("/infer"):
            kept = [(key.encode(), value.encode()) for key, value in _metadata(headers)]
            return NodeCall(target.infer(body, kept, None), unit, path, metrics)
        return NodeCall(target.ask(path, body, headers), unit, path, metrics)

    def pass_on(
        self, unit: Unit, path: str, body: bytes, headers: Headers, metrics: "SeldonMetrics",
        limit_s: float | None,
    ) -> NodeCall:  # fmt: skip
        """A call whose message is protobuf already. It fails with Refused."""
        asking = self._target(unit).pass_on(path, body, headers, limit_s)
        return NodeCall(asking, unit, path, metrics)

    def _target(self, unit: Unit) -> NodeTarget:
        target = self._targets.get(unit.name)
        if target is None:
            url = parse_url(f"{unit.service_url}/{unit.model_name}")
            target = self._targets[unit.name] = NodeTarget(url, self._timeout_s, self._max_bytes)
        return target

    async def close(self) -> None:
        for target in self._targets.values():
            await target.close()
