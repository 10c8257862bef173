"""Steps that are gRPC: `serviceUrl: grpc://HOST:PORT/MODEL` is called with ModelInfer. Needs the
extra router-grpc.

The step's input and answer are V2 JSON like any other; the translation is `tensors`. gRPC errors
that are answers of the model become HTTP statuses, so that `dependency`, retries and conditions
work as ever; the rest are transport errors.
"""

import asyncio
import json
from typing import Any

import grpc
import grpc.aio

from functions.wire.headers import Headers
from router_fn import oip, tensors
from router_fn.errors import UpstreamError
from router_fn.fibers import Wait
from router_fn.replies import Reply
from router_fn.urls import Url

_METHOD = f"/{oip.SERVICE}/ModelInfer"

STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
}
"""gRPC code -> HTTP status of the step's answer; what is not here is 500."""


class GrpcTarget:
    """One gRPC upstream of the graph. The channel is opened by the first call and shared by all."""

    def __init__(self, url: Url, timeout_s: float | None, max_bytes: int) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self.model = url.target.strip("/").partition("?")[0]
        if not self.model or "/" in self.model:
            raise ValueError(f"{url}: a gRPC step names its model, as in {url.origin}/MODEL")
        self._max_bytes = max_bytes
        self._infer: Any = None
        self._channel: Any = None

    def channel(self) -> Any:
        """The channel, opened when first wanted."""
        if self._channel is None:
            options = [
                ("grpc.max_receive_message_length", self._max_bytes),
                ("grpc.max_send_message_length", -1),
            ]
            place = f"{self.url.host}:{self.url.port}"
            if self.url.scheme == "grpcs":
                credentials = grpc.ssl_channel_credentials()
                self._channel = grpc.aio.secure_channel(place, credentials, options)
            else:
                self._channel = grpc.aio.insecure_channel(place, options)
        return self._channel

    def _method(self) -> Any:
        if self._infer is None:
            self._infer = self.channel().unary_unary(
                _METHOD,
                request_serializer=oip.MESSAGES["ModelInferRequest"].SerializeToString,
                response_deserializer=oip.MESSAGES["ModelInferResponse"].FromString,
            )
        return self._infer

    async def infer(self, body: bytes, headers: Headers, timeout_s: float | None) -> Reply:
        """One call. Raises UpstreamError."""
        try:
            message = tensors.request_to_message(body, self.model)
        except ValueError as error:
            return Reply(400, json.dumps({"error": str(error)}).encode())
        metadata = [(name.decode().lower(), value.decode("latin-1")) for name, value in headers]
        limit = timeout_s or self.timeout_s
        try:
            answer = await self._method()(message, metadata=metadata, timeout=limit)
            return Reply(200, tensors.response_to_json(answer))
        except grpc.aio.AioRpcError as error:
            return self._failure(error, limit)
        except ValueError as error:
            raise UpstreamError(f"sent garbage: {error}", kind="garbage") from error

    def _failure(self, error: Any, limit: float | None) -> Reply:
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise UpstreamError(f"gave no whole answer within {limit or 0:g} s", kind="timeout")
        if code is grpc.StatusCode.UNAVAILABLE and "connect" in details.lower():
            raise UpstreamError(f"cannot connect: {details}", kind="connect", retryable=True)
        return Reply(STATUSES.get(code, 500), json.dumps({"error": details}).encode())

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()


class GrpcCall(Wait[Reply]):
    """A `Wait` over one call: a task, since grpc.aio speaks asyncio."""

    def __init__(
        self, target: GrpcTarget, body: bytes, headers: Headers, timeout_s: float | None
    ) -> None:
        self._task = asyncio.get_running_loop().create_task(target.infer(body, headers, timeout_s))
        self._task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[Reply]") -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self.resolve(task.result())
        else:
            self.fail(error)

    def cancel(self) -> None:
        super().cancel()
        self._task.cancel()
