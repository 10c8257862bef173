"""From a parsed HTTP request to a model call and back: the hot path. No Flask here.

A request head is resolved to a `Route` once; clients on keep-alive connections repeat their heads,
so the next request with the same head finds its route ready (`RequestHead.context`). Whatever no
route here matches goes to the Flask app (`app.py`) on a thread.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from . import answers, codec_v2, faults, jsonio
from .answers import Answer, Stream
from .errors import FunctionsError, InvalidRequest
from .model import Call, ServedModel
from .wire import v1, v2
from .wire.http1 import Exchange
from .wire.http1_head import RequestHead

if TYPE_CHECKING:
    from .repository import Entry, Repository

logger = logging.getLogger(__name__)

_READY = b'{"ready":true}'
_NOT_READY = b'{"ready":false}'


class Route:
    """What a request head means. Shared by all requests with this head; never changed."""

    __slots__ = ("headers", "is_json", "json_length", "model", "serve", "verb", "version")

    def __init__(self, serve: Callable[[Exchange, "Route"], None], head: RequestHead) -> None:
        self.serve = serve
        self.model = ""
        self.verb = ""
        self.version = ""
        self.headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in head.headers
        }
        self.json_length = self.headers.get(v2.HEADER_LENGTH)
        self.is_json = v1.is_json_type(self.headers.get("content-type", ""))


class Front:
    """The handler of the HTTP server."""

    def __init__(self, repository: "Repository", cold: Callable[[Exchange, Route], None]) -> None:
        self.repository = repository
        self.cold = cold
        self.protocols = frozenset(repository.settings.protocol)
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, exchange: Exchange) -> None:
        head = exchange.head
        route = head.context
        if route is None:
            route = head.context = self.resolve(head)
        route.serve(exchange, route)  # type: ignore[attr-defined]

    # --- routing -------------------------------------------------------------------------------

    def resolve(self, head: RequestHead) -> Route:
        path = head.target.partition(b"?")[0].decode("latin-1")
        method = head.method
        if method in (b"GET", b"HEAD"):
            if path in ("/readyz", "/v2/health/ready"):
                return Route(self.readyz, head)
            if path in ("/livez", "/healthz", "/v2/health/live"):
                return Route(self.livez, head)
        elif method == b"POST" and path.startswith("/v1/models/") and "v1" in self.protocols:
            name, colon, verb = path[len("/v1/models/") :].rpartition(":")
            if colon and verb in v1.VERBS and name and "/" not in name:
                route = Route(self.v1, head)
                route.model, route.verb = unquote(name), verb
                return route
        elif method == b"POST" and path.startswith("/v2/models/") and "v2" in self.protocols:
            parts = path[len("/v2/models/") :].split("/")
            if parts[-1] == "infer" and (
                len(parts) == 2 or (len(parts) == 4 and parts[1] == "versions")
            ):
                route = Route(self.v2, head)
                route.model, route.verb = unquote(parts[0]), "infer"
                route.version = unquote(parts[2]) if len(parts) == 4 else ""
                return route
        return Route(self.cold, head)

    # --- health --------------------------------------------------------------------------------

    def readyz(self, exchange: Exchange, route: Route) -> None:
        if self.repository.ready:
            exchange.respond(200, _READY, answers.JSON)
        else:
            exchange.respond(503, _NOT_READY, answers.JSON)

    def livez(self, exchange: Exchange, route: Route) -> None:
        exchange.respond(200, b'{"live":true}', answers.JSON)

    # --- V1 ------------------------------------------------------------------------------------

    def v1(self, exchange: Exchange, route: Route) -> None:
        try:
            entry = self.repository.ready_entry(route.model)
        except FunctionsError as error:
            self.respond(exchange, answers.from_error(error))
            return
        self.call(exchange, entry, route, decode_v1, model_v1, encode_v1)

    # --- V2 ------------------------------------------------------------------------------------

    def v2(self, exchange: Exchange, route: Route) -> None:
        try:
            entry = self.repository.ready_entry(route.model, route.version)
        except FunctionsError as error:
            self.respond(exchange, answers.from_error(error))
            return
        self.call(exchange, entry, route, decode_v2, model_v2, encode_v2)

    # --- calling a model -----------------------------------------------------------------------

    def call(
        self,
        exchange: Exchange,
        entry: "Entry",
        route: Route,
        decode: Callable[[bytes, Route, Call], Any],
        apply: Callable[[ServedModel, Route, Any, Call], Any],
        encode: Callable[[Any, Route, Call], Answer | Stream],
    ) -> None:
        """decode -> apply -> encode, wherever this model's calls run; then answer."""
        model, runner = entry.model, entry.runner
        assert model is not None
        assert runner is not None
        body = exchange.body
        call = Call(dict(route.headers), route.headers.get("x-request-id", ""))

        def work() -> Answer | Stream:
            return encode(apply(model, route, decode(body, route, call), call), route, call)

        def done(answer: Any, error: BaseException | None) -> None:
            if error is not None:
                answer = answers.from_error(faults.classify(error, entry.name, call.request_id))
            self.respond(exchange, answer)

        try:
            if model.is_async:
                runner.spawn(
                    self._work_async(model, body, route, call, decode, apply, encode), done
                )
            elif runner.inline_for(len(body)):
                since = time.perf_counter()
                try:
                    answer = work()
                except Exception as error:  # the request is owned here
                    done(None, error)
                    return
                runner.measured(time.perf_counter() - since)
                done(answer, None)
            else:
                runner.submit(work, (), done)
        except FunctionsError as error:
            self.respond(exchange, answers.from_error(error))

    @staticmethod
    async def _work_async(
        model: ServedModel,
        body: bytes,
        route: Route,
        call: Call,
        decode: Callable[..., Any],
        apply: Callable[..., Any],
        encode: Callable[..., Any],
    ) -> Any:
        return encode(await apply(model, route, decode(body, route, call), call), route, call)

    # --- answering -----------------------------------------------------------------------------

    def respond(self, exchange: Exchange, answer: Answer | Stream) -> None:
        if isinstance(answer, Stream):
            task = asyncio.get_running_loop().create_task(self._stream(exchange, answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            exchange.on_abort = task.cancel  # type: ignore[assignment]
            return
        extra = answers.field_lines(answer.headers) if answer.headers else b""
        exchange.respond(answer.status, answer.body, answer.content_type, extra)

    async def _stream(self, exchange: Exchange, stream: Stream) -> None:
        """Send pieces as they come. A fault half-way drops the connection: the client sees a
        cut."""
        exchange.start(200, stream.content_type, answers.field_lines(stream.headers))
        try:
            async for piece in _pieces(stream.pieces):
                exchange.send(piece.encode() if isinstance(piece, str) else bytes(piece))
                while exchange.backed_up and exchange.open:
                    await asyncio.sleep(0.01)
        except Exception:
            logger.exception("a streamed answer broke off")
            exchange.drop()
            return
        exchange.finish()


async def _pieces(source: Any) -> Any:
    if hasattr(source, "__aiter__"):
        async for piece in source:
            yield piece
        return
    end = object()
    while True:
        piece = await asyncio.to_thread(next, source, end)
        if piece is end:
            return
        yield piece


def decode_v1(body: bytes, route: Route, call: Call) -> Any:
    """JSON bodies decoded and checked; bodies of other types as bytes."""
    if route.is_json or (route.is_json is None and (not body or v1.looks_like_json(body))):
        payload = jsonio.loads(body)
        problem = v1.check_lists(payload)
        if problem is not None:
            raise InvalidRequest(problem)
        return payload
    return body


def model_v1(model: ServedModel, route: Route, payload: Any, call: Call) -> Any:
    return model.v1(route.verb, payload, call)


def encode_v1(result: Any, route: Route, call: Call) -> Answer | Stream:
    return answers.from_result(result, call.response_headers, call.status or 200)


def decode_v2(body: bytes, route: Route, call: Call) -> Any:
    request = codec_v2.decode(body, route.model, route.version, route.json_length, route.is_json)
    call.request_id = call.request_id or request.id
    return request


def model_v2(model: ServedModel, route: Route, request: Any, call: Call) -> Any:
    call.payload = request
    return model.v2(request, call)


def encode_v2(response: Any, route: Route, call: Call) -> Answer:
    return codec_v2.encode(response, call.payload, call)
