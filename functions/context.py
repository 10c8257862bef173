"""What a hook that declares a parameter called `context` is given: one object per request.

def preprocess(self, payload, context):
    image = decode(payload["instances"][0]["image"])
    context["size"] = image.size          # for postprocess: no state in the instance
    return {"instances": [resize(image).tolist()]}

def postprocess(self, result, context):
    return {**result, "size": context["size"]}
"""

import asyncio
import concurrent.futures
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from .errors import ClientGone, NotSupported

if TYPE_CHECKING:
    from .model import Call
    from .outbound import Session

Remote = Callable[[Any, "Call", Mapping[str, str] | None], Awaitable[Any]]
"""Payload, call, header fields instead of the call's own -> the predictor's answer."""


class Context(dict[str, Any]):
    """A dict for whatever one hook wants to tell a later one of the same request, and what the
    server knows about the request.

    It lives as long as its request. Hooks of one request never run at the same time.
    """

    def __init__(
        self,
        call: "Call",
        model: str,
        verb: str,
        remote: Remote | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__()
        self._call = call
        self._remote = remote
        self._loop = loop
        self._session: Session | None = None
        self._asked: list[concurrent.futures.Future[Any]] = []
        """Calls to the predictor that threads wait for."""
        self._is_over = False
        self.model_name = model
        """The model of this server that was asked for."""
        self.verb = verb
        """`predict` or `explain` (V1), `infer` (V2)."""
        self.predictor_headers: dict[str, str] = {}
        """Further header fields (or gRPC metadata) for the call to the predictor."""

    @property
    def headers(self) -> dict[str, str]:
        """Header fields (or gRPC metadata) of the request; names in lower case."""
        return self._call.headers

    @property
    def response_headers(self) -> dict[str, str]:
        """Header fields for the answer; HTTP only."""
        return self._call.response_headers

    @property
    def request_id(self) -> str:
        """`x-request-id`, else the V2 request's own id, else empty."""
        return self._call.request_id

    def remaining_s(self) -> float:
        """Seconds until the caller stops waiting; infinity when it did not say."""
        deadline = self._call.deadline
        return max(0.0, deadline - time.monotonic()) if deadline else float("inf")

    @property
    def session(self) -> "Session":
        """A `requests.Session` for sync hooks that ask other services: connections shared by the
        process, the caller's trace and authorization sent on, its deadline kept."""
        if self._session is None:
            from .outbound import Session  # requests
            from .predictor.forwarding import Forwarder

            fields = dict(Forwarder().choose(self.headers))
            self._session = Session(fields, self.remaining_s)
        return self._session

    async def predict(self, payload: Any, headers: Mapping[str, str] | None = None) -> Any:
        """Ask the predictor, as the server would in the place of a `predict` hook: for hooks that
        ask more than once. `headers` stand for the request's: those that travel on are taken from
        them. Raises UpstreamError (its subclasses say what went wrong), NotSupported without a
        predictor."""
        return await self._ask()(payload, self._call, headers)

    def predict_blocking(self, payload: Any, headers: Mapping[str, str] | None = None) -> Any:
        """`predict` for sync hooks, which run on threads. Raises ClientGone, too, when nobody waits
        for the request's answer any more."""
        ask, loop = self._ask(), self._loop
        if loop is None or asyncio._get_running_loop() is not None:
            raise RuntimeError("predict_blocking is for sync hooks; others `await context.predict`")

        async def run() -> Any:
            return await ask(payload, self._call, headers)

        future = asyncio.run_coroutine_threadsafe(run(), loop)
        self._asked.append(future)
        if self._is_over:
            future.cancel()
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise ClientGone from None
        finally:
            self._asked.remove(future)

    def _ask(self) -> Remote:
        if self._remote is None:
            raise NotSupported(
                f"model {self.model_name} has no predictor: start the server with --predictor-host"
            )
        return self._remote


_current: ContextVar[Context] = ContextVar("turnout-context")


def enter(context: Context) -> None:
    """Make it the context of the task that runs a request's hooks."""
    _current.set(context)


def leave(context: Context) -> None:
    """Nobody waits for the request any more: hooks that still run on threads ask nobody else."""
    context._is_over = True
    for future in list(context._asked):
        future.cancel()


def current() -> Context:
    """The context of the request whose async hook is running. Raises LookupError elsewhere."""
    return _current.get()
