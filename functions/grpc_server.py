"""The grpcio door: services on an HTTP/2 port, on the same event loop as everything else."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc
import grpc.aio

from .errors import (
    FunctionsError,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    ModelTimeout,
    NotSupported,
    Overloaded,
    UpstreamStatus,
    UpstreamTimeout,
)

logger = logging.getLogger(__name__)

_CODES: tuple[tuple[type[FunctionsError], grpc.StatusCode], ...] = (
    (InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (ModelNotFound, grpc.StatusCode.NOT_FOUND),
    (ModelNotReady, grpc.StatusCode.UNAVAILABLE),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (ModelTimeout, grpc.StatusCode.DEADLINE_EXCEEDED),
    (UpstreamTimeout, grpc.StatusCode.DEADLINE_EXCEEDED),
    (NotSupported, grpc.StatusCode.UNIMPLEMENTED),
)

_BY_HTTP_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ABORTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def status_of(error: FunctionsError) -> grpc.StatusCode:
    """The gRPC status of a fault; an HTTP status chosen by user code or an upstream is translated,
    a gRPC upstream's own code is passed on."""
    if isinstance(error, UpstreamStatus) and error.grpc_code:
        return grpc.StatusCode[error.grpc_code]
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    status = error.http_status()
    default = grpc.StatusCode.INVALID_ARGUMENT if 400 <= status < 500 else grpc.StatusCode.INTERNAL
    return _BY_HTTP_STATUS.get(status, default)


def text_of(error: FunctionsError) -> str:
    """The details that go with it: an upstream's own text as it came."""
    return error.text if isinstance(error, UpstreamStatus) else str(error)


def lower_metadata(context: Any) -> dict[str, str]:
    """Request metadata as hooks see headers; binary (`-bin`) entries are left out."""
    return {
        key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)
    }


def answer_to_await(
    fault: Callable[[BaseException], BaseException],
) -> tuple[asyncio.Future[Any], Callable[[Any, BaseException | None], None]]:
    """A future, and the engine's `done` that settles it; an error goes through `fault` first."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def done(answer: Any, error: BaseException | None) -> None:
        if future.done():
            return  # the client has gone
        if error is not None:
            future.set_exception(fault(error))
        else:
            future.set_result(answer)

    return future, done


Method = Callable[[Any, Any], Any]


def handler(service: str, methods: Mapping[str, tuple[Method, Any]]) -> grpc.GenericRpcHandler:
    """Unary methods: name -> (coroutine function of (message, context), request message class; None
    where it takes the bytes)."""
    return grpc.method_handlers_generic_handler(
        service,
        {
            name: grpc.unary_unary_rpc_method_handler(
                method,
                request_deserializer=message and message.FromString,
                response_serializer=_serialize,
            )
            for name, (method, message) in methods.items()
        },
    )


def _serialize(message: Any) -> bytes:
    data: bytes = message if isinstance(message, bytes) else message.SerializeToString()
    return data


def reflect(server: grpc.aio.Server, services: Iterable[str], pool: Any) -> None:
    """Tell clients such as grpcurl of services, whose schema is in `pool`, if grpcio-reflection is
    installed."""
    try:
        from grpc_reflection.v1alpha import reflection, reflection_pb2
    except ImportError:
        return
    pool.AddSerializedFile(reflection_pb2.DESCRIPTOR.serialized_pb)
    reflection.enable_server_reflection((*services, reflection.SERVICE_NAME), server, pool)


async def start(
    handlers: list[grpc.GenericRpcHandler],
    host: str,
    port: int,
    max_bytes: int,
    extend: Callable[[grpc.aio.Server], None] | None = None,
) -> tuple[grpc.aio.Server, int]:
    """A started server and its port; `extend` may add to it before. Raises OSError when the port is
    taken."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", max_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 1),
        ]
    )
    server.add_generic_rpc_handlers(tuple(handlers))
    if extend is not None:
        extend(server)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(target)
    except RuntimeError as exc:
        raise OSError(f"cannot listen on {target} for gRPC: {exc}") from exc
    await server.start()
    logger.info("gRPC on %s:%d", host, bound, extra={"grpc_port": bound})
    return server, bound
