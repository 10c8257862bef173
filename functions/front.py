"""From a parsed HTTP request to a model call and back: the hot path. No Flask here.

A request head is resolved to a `Route` once; clients on keep-alive connections repeat their heads,
so the next request with the same head finds its route ready (`RequestHead.context`). Whatever no
route here matches goes to the Flask app (`app.py`) on a thread.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from . import answers, codec_v1, codec_v2, faults, metrics
from .answers import Answer, Pieces, Stream
from .engine import Codec, Engine
from .errors import ClientGone, FunctionsError, InvalidRequest, StatusError
from .model import Call, ServedModel
from .wire import tensorflow, v1, v2
from .wire.http1 import Exchange
from .wire.http1_head import RequestHead

if TYPE_CHECKING:
    from .payload_log import PayloadLog
    from .repository import Entry, Repository
    from .seldon_rest import SeldonCodec

logger = logging.getLogger(__name__)

_READY = b'{"ready":true}'
_NOT_READY = b'{"ready":false}'


class Route:
    """What a request head means. Shared by all requests with this head; never changed."""

    __slots__ = (
        "codec", "encoding", "headers", "is_json", "json_length", "label", "model", "query",
        "request_id", "serve", "verb", "version",
    )  # fmt: skip

    def __init__(self, serve: Callable[[Exchange, "Route"], None], head: RequestHead) -> None:
        self.serve = serve
        self.codec: Codec | None = None
        self.model = ""
        self.verb = ""
        self.version = ""
        self.label = ""
        self.query = b""
        self.headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in head.headers
        }
        # Whoever gets the headers gets the body without its encoding.
        self.encoding = self.headers.pop("content-encoding", "")
        self.request_id = self.headers.get("x-request-id", "")
        self.json_length = self.headers.get(v2.HEADER_LENGTH)
        self.is_json = v1.is_json_type(self.headers.get("content-type", ""))


_HEADER_LENGTH = v2.HEADER_LENGTH.encode()


def has_binary_tensors(head: RequestHead) -> bool:
    """A V2 request whose tensors are read as views of its body anyway."""
    names = {name.lower() for name, _ in head.headers}
    return (
        head.target.startswith(b"/v2/")
        and _HEADER_LENGTH in names
        and b"content-encoding" not in names
    )


class Front:
    """The handler of the HTTP server."""

    def __init__(
        self, repository: "Repository", engine: Engine, cold: Callable[[Exchange, Route], None]
    ) -> None:
        self.repository = repository
        self.cold = cold
        self.protocols = frozenset(repository.settings.protocol)
        settings = repository.settings
        self.v1 = V1Codec(settings)
        self.v2 = V2Codec(settings)
        self.engine = engine
        self.payload_log: PayloadLog | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, exchange: Exchange) -> None:
        head = exchange.head
        route = head.context
        if route is None:
            route = head.context = self.resolve(head)
        if route.encoding and exchange.body:  # type: ignore[attr-defined]
            self._decode_first(exchange, route)  # type: ignore[arg-type]
            return
        route.serve(exchange, route)  # type: ignore[attr-defined]

    def _decode_first(self, exchange: Exchange, route: Route) -> None:
        """Serve a request once its body has lost its Content-Encoding; beside the loop."""
        limit = self.repository.settings.max_body_bytes

        async def run() -> None:
            from . import encodings

            try:
                exchange.body = await asyncio.to_thread(
                    encodings.decoded, exchange.body, route.encoding, limit
                )
            except FunctionsError as error:
                self.respond(exchange, (route.codec or self.v1).refuse(error))
                return
            entry = self.repository.entries.get(route.model)
            if exchange.open:
                route.serve(exchange, route)
            elif entry is not None and route.codec is not None:
                entry.metrics.observe(route.codec.name, ClientGone.status, {})

        self._keep(run())

    # --- routing -------------------------------------------------------------------------------

    def resolve(self, head: RequestHead) -> Route:
        path = head.target.partition(b"?")[0].decode("latin-1")
        method = head.method
        if "tensorflow" in self.protocols and path.lower().startswith("/v1/"):
            return self._resolve_tensorflow(head, path)
        if "seldon" in self.protocols:
            route = self._resolve_seldon(head, path)
            if route is not None:
                return route
        if method in (b"GET", b"HEAD"):
            if path in ("/readyz", "/v2/health/ready"):
                return Route(self.readyz, head)
            if path in ("/livez", "/healthz", "/v2/health/live"):
                return Route(self.livez, head)
            if path == "/metrics":
                return Route(self.metrics, head)
        elif method == b"POST" and path.startswith("/v1/models/") and "v1" in self.protocols:
            name, colon, verb = path[len("/v1/models/") :].rpartition(":")
            if colon and verb in v1.VERBS and name and "/" not in name:
                route = Route(self.predict, head)
                route.codec, route.model, route.verb = self.v1, unquote(name), verb
                return route
        elif method == b"POST" and path.startswith("/v2/models/") and "v2" in self.protocols:
            parts = path[len("/v2/models/") :].split("/")
            if parts[-1] == "infer" and (
                len(parts) == 2 or (len(parts) == 4 and parts[1] == "versions" and parts[2])
            ):
                route = Route(self.predict, head)
                route.codec, route.model, route.verb = self.v2, unquote(parts[0]), "infer"
                route.version = unquote(parts[2]) if len(parts) == 4 else ""
                return route
        return Route(self.cold, head)

    def _resolve_seldon(self, head: RequestHead, path: str) -> Route | None:
        """Seldon's paths name no model: they are for the main one."""
        from . import seldon_rest

        found = seldon_rest.find(head.method, path, head.target)
        if found is None:
            return None
        if isinstance(found, int):
            return Route(self.refuse_method, head)
        route = Route(self.predict, head)
        route.codec, route.model = self.seldon, self.repository.settings.model_name
        route.verb, route.query = found
        return route

    @cached_property
    def seldon(self) -> "SeldonCodec":
        """One for all requests: it keeps what it has found out about the models."""
        from . import seldon_rest

        return seldon_rest.SeldonCodec(self.repository.settings, self.repository.registry)

    def refuse_method(self, exchange: Exchange, route: Route) -> None:
        from . import seldon_rest

        self.respond(exchange, seldon_rest.refused(405, "the method is not allowed here"))

    def _resolve_tensorflow(self, head: RequestHead, path: str) -> Route:
        """Everything under /v1/ is TensorFlow Serving's when that protocol is on."""
        if head.method == b"OPTIONS" and tensorflow.allows_preflight(head.headers):
            return Route(self.nothing, head)
        try:
            target = tensorflow.parse_path(head.method.decode("latin-1"), path)
        except tensorflow.Malformed as problem:
            route = Route(self.refuse, head)
            route.verb = str(problem)
            return route
        serve = self.tfs_read if target.action in ("status", "metadata") else self.tfs_call
        route = Route(serve, head)
        route.model, route.version, route.label = target.model, target.version, target.label
        route.verb = target.action
        return route

    def nothing(self, exchange: Exchange, route: Route) -> None:
        self.respond(exchange, answers.Answer(200, b"", answers.JSON))

    def refuse(self, exchange: Exchange, route: Route) -> None:
        self.respond(exchange, answers.from_error(InvalidRequest(route.verb)))

    def tfs_call(self, exchange: Exchange, route: Route) -> None:
        """predict, classify, regress: a body that is no JSON is 400 even for an unknown model."""
        from . import tfs_rest

        codec = route.codec = route.codec or tfs_rest.TfsCodec(self.repository.settings)
        try:
            entry = self.repository.entries.get(route.model)
            if entry is None:
                codec.decode(exchange.body, route, Call({}))
                which = (
                    f"Specific({route.model}, {route.version})"
                    if route.version
                    else f"Latest({route.model})"
                )
                raise StatusError(404, f"Servable not found for request: {which}")
            self._call(exchange, self.repository.ready_entry(route.model), route, codec)
        except FunctionsError as error:
            self.respond(exchange, answers.from_error(error))

    def tfs_read(self, exchange: Exchange, route: Route) -> None:
        from . import tfs_rest

        try:
            entry = self.repository.entries.get(route.model)
            if entry is None:
                raise StatusError(404, f"Could not find any versions of model {route.model}")
            if route.verb == "status":
                document = tfs_rest.status_document(entry, route.version)
            else:
                entry = self.repository.ready_entry(route.model)
                document = tfs_rest.metadata_document(entry, route.version, route.label)
            self.respond(exchange, tfs_rest.json_answer(document))
        except FunctionsError as error:
            self.respond(exchange, answers.from_error(error))

    def side(self, exchange: Exchange) -> None:
        """The second port: health and metrics only, so that it can be open to scrapers alone."""
        head = exchange.head
        route = Route(self.metrics, head)
        path = head.target.partition(b"?")[0]
        if path == b"/readyz":
            self.readyz(exchange, route)
        elif path == b"/livez":
            self.livez(exchange, route)
        elif path == b"/metrics":
            self.metrics(exchange, route)
        else:
            exchange.respond(
                404, b'{"error":"this port has /metrics, /readyz and /livez"}', answers.JSON
            )

    # --- health --------------------------------------------------------------------------------

    def readyz(self, exchange: Exchange, route: Route) -> None:
        if self.repository.asks_models:
            self._keep(self._ask_models(exchange))
        else:
            self._say_ready(exchange, self.repository.ready)

    async def _ask_models(self, exchange: Exchange) -> None:
        self._say_ready(exchange, await self.repository.is_ready())

    def _say_ready(self, exchange: Exchange, is_ready: bool) -> None:
        if is_ready:
            exchange.respond(200, _READY, answers.JSON)
        else:
            exchange.respond(503, _NOT_READY, answers.JSON)

    def livez(self, exchange: Exchange, route: Route) -> None:
        exchange.respond(200, b'{"live":true}', answers.JSON)

    def metrics(self, exchange: Exchange, route: Route) -> None:
        exchange.respond(200, self.repository.scrape(self.engine.in_flight), metrics.CONTENT_TYPE)

    # --- predicting ----------------------------------------------------------------------------

    def predict(self, exchange: Exchange, route: Route) -> None:
        """Any request for a model: decode -> model -> encode, wherever this model's calls run."""
        codec = route.codec
        assert codec is not None
        try:
            entry = self.repository.ready_entry(route.model, route.version)
            self._call(exchange, entry, route, codec)
        except FunctionsError as error:
            known = self.repository.entries.get(route.model)
            if known is not None:  # not ready, or over the limit
                known.metrics.observe(codec.name, error.http_status(), {})
            self.respond(exchange, codec.refuse(error))

    def _call(self, exchange: Exchange, entry: "Entry", route: Route, codec: Codec) -> None:
        body = exchange.body
        call = Call(dict(route.headers), route.request_id)
        if self.engine.is_inline(entry, len(body)):
            # No callbacks: on the way of the quickest models even these would be felt.
            try:
                answer = self.engine.answer(entry, codec, route, body, call)
            except Exception as error:  # the request is owned here
                answer = self._refusal(codec, entry, call, error)
            self._finish(exchange, entry, route, codec, call, answer)
            return

        def done(answer: Any, error: BaseException | None) -> None:
            if error is not None:
                answer = self._refusal(codec, entry, call, error)
            self._finish(exchange, entry, route, codec, call, answer, is_gone=not exchange.open)

        exchange.on_abort = call.abandon
        self.engine.execute(entry, codec, route, body, len(body), call, done)

    @staticmethod
    def _refusal(codec: Codec, entry: "Entry", call: Call, error: BaseException) -> Any:
        return codec.refuse(faults.classify(error, entry.name, call.request_id, call.stage))

    def _finish(
        self,
        exchange: Exchange,
        entry: "Entry",
        route: Route,
        codec: Codec,
        call: Call,
        answer: Any,
        *,
        is_gone: bool = False,
    ) -> None:
        """`is_gone`: nobody waits for the answer any more."""
        status = ClientGone.status if is_gone else getattr(answer, "status", 200)
        entry.metrics.observe(codec.name, status, call.timings)
        body = exchange.body
        self.respond(exchange, answer)
        if self.payload_log is not None:
            self.payload_log.offer(entry.name, call, route, body, answer)

    # --- answering -----------------------------------------------------------------------------

    def respond(self, exchange: Exchange, answer: Answer | Pieces | Stream) -> None:
        if isinstance(answer, Answer):  # nearly every one
            extra = answers.field_lines(answer.headers) if answer.headers else b""
            exchange.respond(answer.status, answer.body, answer.content_type, extra)
        elif isinstance(answer, Pieces):
            extra = answers.field_lines(answer.headers) if answer.headers else b""
            exchange.respond_pieces(answer.status, answer.pieces, answer.content_type, extra)
        elif exchange.open:
            exchange.on_abort = self._keep(self._stream(exchange, answer)).cancel

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that is held on to until it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _stream(self, exchange: Exchange, stream: Stream) -> None:
        """Send pieces as they come. A fault half-way drops the connection: the client sees a
        cut."""
        exchange.start(200, stream.content_type, answers.field_lines(stream.headers))
        try:
            async for piece in _pieces(stream.pieces):
                exchange.send(
                    piece.encode() if isinstance(piece, str) else bytes(memoryview(piece))
                )
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


class V1Codec(Codec):
    name = "v1"

    def decode(self, body: bytes, route: Route, call: Call) -> Any:
        return codec_v1.decode(body, route.headers, route.is_json, call)

    def apply(self, model: ServedModel, route: Route, payload: Any, call: Call) -> Any:
        return model.v1(route.verb, payload, call)

    def encode(self, result: Any, route: Route, call: Call) -> Answer | Stream:
        return codec_v1.encode(result, route.model, call, self.settings)


class V2Codec(Codec):
    name = "v2"

    def reads_in_place(self, body: bytes, route: Route) -> bool:
        """Binary tensors are, behind a head of up to 100 kB."""
        return route.json_length is not None and len(route.json_length) < 6

    def writes_in_place(self, result: Any, call: Call) -> bool:
        return codec_v2.writes_in_place(result, call.payload)

    def decode(self, body: bytes, route: Route, call: Call) -> Any:
        request = codec_v2.decode(
            body, route.model, route.version, route.json_length, route.is_json
        )
        call.payload = request
        call.request_id = call.request_id or request.id
        return request

    def apply(self, model: ServedModel, route: Route, payload: Any, call: Call) -> Any:
        return model.v2(payload, call)

    def encode(self, result: Any, route: Route, call: Call) -> Answer | Pieces:
        return codec_v2.encode(result, call.payload, call)
