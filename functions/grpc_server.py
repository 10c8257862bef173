"""The gRPC door: from a call on the port to a coroutine or to the engine, and back.

The port itself is `functions.http2.server`; no grpcio is in the way.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from . import faults
from .errors import (
    ClientGone,
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
from .grpc_status import Status
from .http2.call import ServerCall
from .http2.server import Limits, Method, Server
from .http2.server_connection import MAX_MESSAGE_BYTES
from .model import Call

if TYPE_CHECKING:
    from .engine import Codec, Engine
    from .repository import Entry
    from .settings import Settings

__all__ = ["Method", "Server", "ServerCall", "coroutine", "execute", "start"]

logger = logging.getLogger(__name__)

_STATUSES: tuple[tuple[type[FunctionsError], Status], ...] = (
    (InvalidRequest, Status.INVALID_ARGUMENT),
    (ModelNotFound, Status.NOT_FOUND),
    (ModelNotReady, Status.UNAVAILABLE),
    (Overloaded, Status.RESOURCE_EXHAUSTED),
    (ModelTimeout, Status.DEADLINE_EXCEEDED),
    (UpstreamTimeout, Status.DEADLINE_EXCEEDED),
    (NotSupported, Status.UNIMPLEMENTED),
)

_BY_HTTP_STATUS = {
    400: Status.INVALID_ARGUMENT,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.NOT_FOUND,
    409: Status.ABORTED,
    422: Status.INVALID_ARGUMENT,
    429: Status.RESOURCE_EXHAUSTED,
    499: Status.CANCELLED,
    501: Status.UNIMPLEMENTED,
    502: Status.UNAVAILABLE,
    503: Status.UNAVAILABLE,
    504: Status.DEADLINE_EXCEEDED,
}

Told = Callable[[FunctionsError], tuple[Status, str]]
"""What a service tells its callers of a fault."""


def status_of(error: FunctionsError) -> Status:
    """The gRPC status of a fault; an HTTP status chosen by user code or an upstream is translated,
    a gRPC upstream's own code is passed on."""
    if isinstance(error, UpstreamStatus) and error.grpc_code:
        return Status[error.grpc_code]
    for kind, code in _STATUSES:
        if isinstance(error, kind):
            return code
    status = error.http_status()
    default = Status.INVALID_ARGUMENT if 400 <= status < 500 else Status.INTERNAL
    return _BY_HTTP_STATUS.get(status, default)


def told(error: FunctionsError) -> tuple[Status, str]:
    """The status and its details: an upstream's own text as it came."""
    return status_of(error), error.text if isinstance(error, UpstreamStatus) else str(error)


def read(call: ServerCall, kind: Any, data: memoryview) -> Any:
    """A message of this class; None when it is none, which the caller has been told then."""
    try:
        return kind.FromString(bytes(data))
    except DecodeError as exc:
        call.fail(Status.INVALID_ARGUMENT, f"the request is no {kind.DESCRIPTOR.name}: {exc}")
        return None


# --- methods that are coroutines ------------------------------------------------------------------

_tasks: set[asyncio.Task[None]] = set()


def coroutine(
    function: Callable[[Any], Coroutine[Any, Any, Any]], kind: Any, tell: Told = told
) -> Method:
    """A method that takes a message of class `kind` and returns one. Cancelled when its caller
    goes."""

    def handler(call: ServerCall, data: memoryview) -> None:
        request = read(call, kind, data)
        if request is None:
            return
        loop = asyncio.get_running_loop()
        task = loop.create_task(_run(function(request), call, tell))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
        # Behind its first step, which is due already: what never begins could not answer the call.
        call.on_cancel = lambda: loop.call_soon(task.cancel)

    return Method(handler)


async def _run(work: Coroutine[Any, Any, Any], call: ServerCall, tell: Told) -> None:
    try:
        answer = await work
        call.respond([answer.SerializeToString()])
    except FunctionsError as error:
        call.fail(*tell(error))
    except asyncio.CancelledError:
        call.fail(Status.CANCELLED, "")
        raise
    except Exception:
        logger.exception("a gRPC call failed")
        call.fail(Status.INTERNAL, "internal error")


# --- methods that ask a model ---------------------------------------------------------------------


def execute(
    engine: "Engine",
    find: "Callable[[], Entry]",
    codec: "Codec",
    route: Any,
    body: Any,
    size: int,
    call: ServerCall,
    asked: Call,
    tell: Told = told,
) -> None:
    """Have the engine answer a call; the codec's answers are messages in pieces. `find` gives the
    model, or raises. When nobody waits for the answer any more, its work ends where it can."""
    asked.deadline = call.deadline
    entry: Entry | None = None

    def done(answer: Any, error: BaseException | None) -> None:
        assert entry is not None
        if error is not None:
            refuse(faults.classify(error, route.model, asked.request_id, asked.stage))
        else:
            status = _unanswered(call) if call.is_answered else 200
            entry.metrics.observe(codec.name, status, asked.timings)
            call.respond(answer)

    def refuse(error: FunctionsError) -> None:
        if entry is not None:
            status = _unanswered(call) if call.is_answered else error.http_status()
            entry.metrics.observe(codec.name, status, asked.timings)
        call.fail(*tell(error))

    call.on_cancel = asked.abandon
    try:
        entry = find()
        engine.execute(entry, codec, route, body, size, asked, done)
    except FunctionsError as error:
        refuse(error)


def _unanswered(call: ServerCall) -> int:
    """The status of a call that nobody waits for any more, as HTTP has it: its time was over, or
    its caller gave it up."""
    is_late = call.deadline and time.monotonic() >= call.deadline
    return ModelTimeout.status if is_late else ClientGone.status


async def start(methods: Mapping[str, Method], settings: "Settings") -> Server:
    """A server of these methods (`package.Service/Method`), started. Raises OSError when the port
    is taken."""
    limits = Limits(
        max_message_bytes=min(settings.max_body_bytes, MAX_MESSAGE_BYTES),
        max_streams=settings.grpc_max_streams,
    )
    server = Server({f"/{name}".encode(): method for name, method in methods.items()}, limits)
    port = settings.grpc_only_port or settings.grpc_port
    bound = await server.listen(settings.host, port)
    logger.info("gRPC on %s:%d", settings.host, bound, extra={"grpc_port": bound})
    return server
