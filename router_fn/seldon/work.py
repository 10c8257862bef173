"""What one request to the orchestrator does, from the first call to the answer."""

import json
import logging
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from functions.wire.http1 import Exchange
from router_fn.errors import UpstreamError
from router_fn.fibers import Fiber, Wait, cancel_all
from router_fn.replies import Reply
from router_fn.seldon import messages, payload_log
from router_fn.seldon.graph import Predictor, Unit
from router_fn.seldon.messages import SeldonError
from router_fn.seldon.traversal import (
    AGGREGATE,
    JSON,
    PREDICT,
    ROUTE,
    TRANSFORM_INPUT,
    TRANSFORM_OUTPUT,
    Message,
    NodeAnswered,
    OriginalMessage,
    Traversal,
    content_type_of,
    send_feedback,
)

if TYPE_CHECKING:
    from router_fn.seldon.front import SeldonServer
    from router_fn.seldon.heads import SeldonHead

logger = logging.getLogger(__name__)

MAX_ROUTING_HEADER: Final = 4096
"""A longer Seldon-Routing header is left out: clients and proxies limit heads."""


class Work:
    """A request under way: a fiber, and who waits for it (nobody, if it is a shadow's copy).

    It is also the `Context` of its traversal.
    """

    service = "predictions"
    method = "post"
    """For metrics."""

    def __init__(
        self,
        server: "SeldonServer",
        predictor: Predictor,
        exchange: Exchange | None,
        head: "SeldonHead",
        puid: bytes,
    ) -> None:
        self.server = server
        self.predictor = predictor
        self.exchange = exchange
        self.head = head
        self.puid = puid
        self.traversal = Traversal(server.deployment, self)
        self._fiber: Fiber[Message] | None = None
        self._began = time.monotonic()
        traces = server.traces
        self._span = traces.request(head.trace, self.service) if traces is not None else None

    @staticmethod
    def of_call(
        server: "SeldonServer", exchange: Exchange, unit: Unit, head: "SeldonHead", puid: bytes,
        call: Callable[[], Wait[Reply]],
    ) -> "Work":  # fmt: skip
        """Work that passes one node's answer on."""
        return _PassOn(server, unit, exchange, head, puid, call)

    async def answer(self) -> Message:
        """The answer's body. Raises NodeAnswered or SeldonError."""
        raise NotImplementedError

    def start(self) -> None:
        if self.exchange is not None:
            self.exchange.on_abort = self.give_up
        self._fiber = Fiber(self.answer())
        self._fiber.attach(self)

    def give_up(self) -> None:
        """Nobody waits any more."""
        self.server.shadowing.discard(self)
        if self._fiber is not None:
            self._fiber.detach()
            self._fiber.cancel()

    def resume(self, fiber: Wait[Message]) -> None:
        """The answer is there."""
        self.server.shadowing.discard(self)
        status, body, content_type = self._outcome(fiber)
        if self._span is not None and self.server.traces is not None:
            self.server.traces.end(self._span, status)
        if self.exchange is None:
            return
        taken = time.monotonic() - self._began
        self.server.metrics.answered(self.predictor, self.service, self.method, status, taken)
        routing = self._routing()
        extra = self.server.fields(self.head, self.puid, routing)
        self.exchange.respond(status, body, content_type if body else b"", extra)

    def _outcome(self, fiber: Wait[Message]) -> tuple[int, bytes, bytes]:
        if not fiber.is_error:
            message = fiber.result()
            return 200, message.body, message.content_type
        error = fiber.error
        if isinstance(error, NodeAnswered):
            return error.status, error.body, error.content_type
        if isinstance(error, SeldonError):
            return error.status, messages.failure(error.status, error.info), JSON
        if isinstance(error, UpstreamError):
            return 500, messages.failure(500, str(error)), JSON
        logger.error("a request failed", exc_info=error)
        return 500, messages.failure(500, "internal error"), JSON

    def _routing(self) -> bytes:
        routing = self.traversal.routing
        if not routing:
            return b""
        text = json.dumps(routing, separators=(",", ":")).encode()  # ASCII, so fit for a header
        return text if len(text) <= MAX_ROUTING_HEADER else b""

    # --- traversal.Context ------------------------------------------------------------------

    def call(self, unit: Unit, path: str, message: Message, /) -> Wait[Reply]:
        return self.server.post(unit, path, message, self.head, self.puid, self._span)

    def passed(self, unit: Unit, what: str, message: Message, /) -> None:
        wanted = "response" if what == "feedback" else what
        if unit.log_mode not in ("all", wanted) or self.head.skips_log:
            return
        body = message.body
        if isinstance(message, OriginalMessage):
            body = payload_log.plain(body, self.head.encoding)
        kind = what if what == "feedback" else f"inference.{what}"
        log, puid = self.server.payload_log(), self.puid
        log.offer(self.predictor, unit, kind, body, message.content_type, puid)

    def draw(self) -> float:
        return random.random()  # noqa: S311 - a lottery, not a secret


class Prediction(Work):
    """A message through the graph."""

    def __init__(
        self,
        server: "SeldonServer",
        predictor: Predictor,
        exchange: Exchange | None,
        head: "SeldonHead",
        puid: bytes,
        body: bytes,
    ) -> None:
        super().__init__(server, predictor, exchange, head, puid)
        self._body = body

    async def answer(self) -> Message:
        root = self.predictor.root
        message = await self.traversal.run(
            root, OriginalMessage(self._body, self.head.content_type)
        )
        if self.server.deployment.protocol != "seldon":
            return message
        # Routes are what feedback needs later; without a router there is nothing to learn.
        routed = any(ROUTE in unit.methods for unit in root.walk())
        images = {unit.name: unit.image for unit in self.traversal.visited if unit.image}
        if not routed and not images:
            return message
        routing = self.traversal.routing if routed else {}
        body = messages.with_meta(message.body, routing, images)
        return Message(body, message.content_type)


class Feedback(Work):
    """A reward, to the nodes that gave the answer it is for."""

    service = "feedback"

    async def answer(self) -> Message:
        assert self.exchange is not None
        body = self.exchange.body
        if not messages.members(body):
            raise SeldonError("the feedback must be a JSON object", status=400)
        answer = await send_feedback(self.traversal, self.predictor.root, body)
        self.traversal.routing.clear()
        return Message(b"{}" if answer is None else answer)


class GraphMetadata(Work):
    """What all nodes say of themselves."""

    service = "metadata"
    method = "get"

    async def answer(self) -> Message:
        root = self.predictor.root
        units = [unit for unit in root.walk() if unit.service_url and unit.methods]
        fibers = [Fiber(self._metadata(unit)) for unit in units]
        try:
            answers = [await fiber for fiber in fibers]
        finally:
            cancel_all(fibers)
        models = {unit.name: answer for unit, answer in zip(units, answers, strict=True)}
        document = {
            "name": self.predictor.name,
            "models": models,
            "graphinputs": models.get(_entrance(root).name, {}).get("inputs", []),
            "graphoutputs": models.get(_exit(root).name, {}).get("outputs", []),
        }
        return Message(json.dumps(document, ensure_ascii=False).encode("utf-8", "replace"))

    async def _metadata(self, unit: Unit) -> dict[str, Any]:
        """A node's own metadata; just its name, if it has none to tell."""
        try:
            reply = await self.server.get(unit, "/metadata", self.head)
            answer = json.loads(reply.body) if reply.status == 200 else None
        except UpstreamError as error:
            raise SeldonError(str(error), node=unit.name) from error
        except (ValueError, RecursionError):
            answer = None
        return answer if isinstance(answer, dict) else {"name": unit.name}


def _entrance(unit: Unit) -> Unit:
    """The node that a request meets first."""
    while unit.children and not unit.methods & {PREDICT, TRANSFORM_INPUT}:
        unit = unit.children[0]
    return unit


def _exit(unit: Unit) -> Unit:
    """The node that has the last word."""
    while unit.children and not unit.methods & {TRANSFORM_OUTPUT, AGGREGATE}:
        unit = unit.children[0]
    return unit


class _PassOn(Work):
    """One node's answer, as it is."""

    service = "status"
    method = "get"

    def __init__(
        self,
        server: "SeldonServer",
        unit: Unit,
        exchange: Exchange,
        head: "SeldonHead",
        puid: bytes,
        call: Callable[[], Wait[Reply]],
    ) -> None:
        super().__init__(server, server.live[0], exchange, head, puid)
        self._unit = unit
        self._call = call

    async def answer(self) -> Message:
        try:
            reply = await self._call()
        except UpstreamError as error:
            raise SeldonError(str(error), node=self._unit.name) from error
        if reply.status != 200:
            raise NodeAnswered(self._unit, reply, content_type_of(reply))
        return Message(reply.body, content_type_of(reply))
