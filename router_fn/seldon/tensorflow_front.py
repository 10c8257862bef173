"""A Seldon graph of the tensorflow protocol as TensorFlow Serving's gRPC services, on GRPC_PORT.
Needs the extra router-grpc.

PredictionService, and GetModelStatus of ModelService. Messages are bytes: of a request only the
ModelSpec is read, and the node's own model name is written behind it (in protobuf the last value of
a field counts, and messages merge). An answer becomes the next node's request by taking its tensors
over (spec/seldon 2.6). Statuses are the node's own. What has no gRPC form is UNIMPLEMENTED, with
what to do about it.
"""

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
from google.protobuf.message import DecodeError

from functions.wire.http1 import Exchange
from functions.wire.http1_head import RequestHead
from router_fn.fibers import Wait
from router_fn.grpc_front import CODES, GrpcExchange, GrpcListener
from router_fn.grpc_steps import STATUSES
from router_fn.replies import Reply
from router_fn.seldon.graph import Deployment, Predictor, Unit
from router_fn.seldon.grpc_front import headers_of
from router_fn.seldon.grpc_nodes import Refused
from router_fn.seldon.heads import SeldonHead
from router_fn.seldon.messages import SeldonError
from router_fn.seldon.protos import MESSAGES
from router_fn.seldon.tfserving_grpc import METADATA, PREDICT
from router_fn.seldon.tfserving_json import STATUS_METHOD
from router_fn.seldon.traversal import (
    AGGREGATE,
    ROUTE,
    Message,
    OriginalMessage,
    Traversal,
)
from router_fn.seldon.work import Work

if TYPE_CHECKING:
    from router_fn.seldon.front import SeldonServer

logger = logging.getLogger(__name__)

PROTOBUF: Final = b"application/protobuf"

_SERVICE: Final = "/tensorflow.serving.PredictionService/"
_CLASSIFY, _REGRESS = f"{_SERVICE}Classify", f"{_SERVICE}Regress"
_MULTI: Final = f"{_SERVICE}MultiInference"
_METHODS: Final = (PREDICT, _CLASSIFY, _REGRESS, _MULTI, METADATA, STATUS_METHOD)
_ABOUT: Final = (METADATA, STATUS_METHOD)
"""What asks one node, not the graph."""


class TensorflowFront(GrpcListener):
    """TensorFlow Serving's services on GRPC_PORT."""

    def __init__(self, server: "SeldonServer", max_bytes: int) -> None:
        super().__init__(max_bytes, lambda: server.ready)
        self._front = server
        self._unfit = {id(one): unfit(one.root) for one in server.deployment.predictors}
        for predictor in server.live:
            if self._unfit[id(predictor)]:
                why = self._unfit[id(predictor)]
                logger.warning("GRPC_PORT: %s: no inference over gRPC: %s", predictor.name, why)
        services: dict[str, dict[str, Any]] = {}
        for method in _METHODS:
            _, service, name = method.split("/")
            handler = grpc.unary_unary_rpc_method_handler(self._method(method))
            services.setdefault(service, {})[name] = handler
        self._server.add_generic_rpc_handlers(
            tuple(
                grpc.method_handlers_generic_handler(service, handlers)
                for service, handlers in services.items()
            )
        )

    def _method(self, method: str) -> Any:
        async def answer(body: bytes, context: Any) -> Any:
            headers = await headers_of(context)
            try:
                return await self._run(method, body, headers, context.time_remaining())
            except Refused as refused:
                await context.abort(refused.code, refused.details)

        return answer

    async def _run(
        self, method: str, body: bytes, headers: list[tuple[bytes, bytes]], left_s: float | None
    ) -> bytes:
        """The answer's bytes. Raises Refused."""
        name = model_of(method, body)
        server = self._front
        request = RequestHead(b"POST", method.encode(), 1, headers)
        head = SeldonHead(request, server.paths, traced=server.traces is not None)
        future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        exchange = GrpcExchange(request, body, future)
        ends = None if left_s is None else asyncio.get_running_loop().time() + left_s
        work = self._work(method, name, cast("Exchange", exchange), head, ends)
        work.start()
        try:
            _, answer = await future
        except asyncio.CancelledError:
            work.give_up()
            raise
        if work.refused is not None:
            raise work.refused
        return answer

    def _work(
        self, method: str, name: str, exchange: Exchange, head: SeldonHead, ends: float | None
    ) -> "TensorflowWork":
        server = self._front
        if method in _ABOUT:
            unit = server.unit_of(name) if name else server.live[0].root
            if unit is None or not unit.service_url:
                text = f"there is no node {name!r} that has a service"
                raise Refused(grpc.StatusCode.NOT_FOUND, text)
            return _About(server, server.live[0], exchange, head, method, ends, unit)
        predictor = server.draw()
        if name and name not in server.names_of(predictor):
            text = f"there is no model {name!r} here; the name may be left out"
            raise Refused(grpc.StatusCode.NOT_FOUND, text)
        if why := self._unfit[id(predictor)]:
            raise Refused(grpc.StatusCode.UNIMPLEMENTED, why)
        for shadow in server.shadows:
            copied = random.random() * 100 < shadow.traffic  # noqa: S311 - a lottery, no secret
            if copied and server.takes_shadow and not self._unfit[id(shadow)]:
                copy = TensorflowWork(server, shadow, None, head, method, ends, exchange.body)
                server.shadowing.add(copy)
                copy.start()
        return TensorflowWork(server, predictor, exchange, head, method, ends, exchange.body)


def unfit(root: Unit) -> str:
    """Why a graph cannot be walked with TensorFlow's messages; empty if it can."""
    for unit in root.walk():
        if unit.implementation == "SIMPLE_MODEL" or AGGREGATE in unit.methods:
            return f"{unit.name}: TensorFlow Serving's gRPC has no combiners and no SIMPLE_MODEL"
        if unit.built_in or not unit.methods:
            continue
        if ROUTE in unit.methods:
            return f"{unit.name}: TensorFlow Serving's gRPC has no routers but the built-in ones"
        if not unit.is_grpc:
            return (
                f"{unit.name} is called over REST: set `transport: grpc`, or the node's"
                " `endpoint.type: GRPC` (a serviceUrl of grpc://HOST:PORT)"
            )
    return ""


def model_of(method: str, body: bytes) -> str:
    """The model that a request names, empty if none. Raises Refused."""
    try:
        if method == _MULTI:
            tasks = MESSAGES["MultiInferenceRequest"].FromString(body).tasks
            return str(tasks[0].model_spec.name) if tasks else ""
        return str(MESSAGES["GetModelStatusRequest"].FromString(body).model_spec.name)
    except DecodeError as error:
        text = f"the request cannot be read: {error}"
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, text) from error


def addressed(method: str, body: bytes, model: str) -> bytes:
    """A request for a node's model; version, label and signature stay."""
    if method == _MULTI:
        request = MESSAGES["MultiInferenceRequest"].FromString(body)
        names = [task.model_spec.name for task in request.tasks]
        for task, name in zip(request.tasks, names, strict=True):
            if name == names[0]:  # one that names another model is the node's to refuse
                task.model_spec.name = model
        return bytes(request.SerializeToString())
    named = MESSAGES["GetModelStatusRequest"]()  # ModelSpec is field 1 of all requests
    named.model_spec.name = model
    return body + bytes(named.SerializeToString())


def next_request(answer: bytes, model: str) -> bytes:
    """A PredictRequest of the PredictResponse before it. Raises Refused."""
    try:
        response = MESSAGES["PredictResponse"].FromString(answer)
    except DecodeError as error:
        text = f"the answer for {model} to go on with cannot be read: {error}"
        raise Refused(grpc.StatusCode.INTERNAL, text) from error
    request = MESSAGES["PredictRequest"]()
    request.model_spec.name = model
    for name, tensor in response.outputs.items():
        request.inputs[name].CopyFrom(tensor)
    return bytes(request.SerializeToString())


class _Walk(Traversal):
    """A graph walked with TensorFlow's messages; `unfit` has said that it can be."""

    def __init__(self, deployment: Deployment, context: Work, method: str) -> None:
        super().__init__(deployment, context)
        self._method = method

    async def _ask(
        self, unit: Unit, duty: str, message: Message, *, chained: bool = True
    ) -> Message:
        self.visited.append(unit)
        if isinstance(message, OriginalMessage):
            body = addressed(self._method, message.body, unit.model_name)
        elif self._method == PREDICT:
            body = next_request(message.body, unit.model_name)
        else:
            name = self._method.rpartition("/")[2]
            text = f"{unit.name}: an answer of {name} is no request; only Predict can be chained"
            raise Refused(grpc.StatusCode.UNIMPLEMENTED, text)
        reply = await self.context.call(unit, self._method, Message(body, PROTOBUF))
        return Message(reply.body, PROTOBUF)


class TensorflowWork(Work):
    """A message of TensorFlow's through the graph."""

    method = "unary"

    def __init__(
        self,
        server: "SeldonServer",
        predictor: Predictor,
        exchange: Exchange | None,
        head: SeldonHead,
        method: str,
        ends: float | None,
        body: bytes,
    ) -> None:
        """`ends` is the client's deadline on the loop's clock, None without one."""
        self.service = method
        super().__init__(server, predictor, exchange, head, head.puid)
        self.traversal = _Walk(server.deployment, self, method)
        self.refused: Refused | None = None
        self._ends = ends
        self._body = body

    async def answer(self) -> Message:
        return await self.traversal.run(self.predictor.root, OriginalMessage(self._body, PROTOBUF))

    def call(self, unit: Unit, path: str, message: Message, /) -> Wait[Reply]:
        left_s = None
        if self._ends is not None:
            left_s = max(0.001, self._ends - asyncio.get_running_loop().time())
        return self.server.pass_on(
            unit, path, message.body, self.head, self.puid, left_s, self._span
        )

    def _outcome(self, fiber: Wait[Message]) -> tuple[int, bytes, bytes]:
        error = fiber.error if fiber.is_error else None
        if isinstance(error, SeldonError):
            code = CODES.get(error.status, grpc.StatusCode.INTERNAL)
            error = Refused(code, error.info)
        if isinstance(error, Refused):
            self.refused = error
            return STATUSES.get(error.code, 500), b"", PROTOBUF
        if error is not None:
            self.refused = Refused(grpc.StatusCode.INTERNAL, "internal error")
        return super()._outcome(fiber)


class _About(TensorflowWork):
    """One node's answer about its model."""

    def __init__(
        self,
        server: "SeldonServer",
        predictor: Predictor,
        exchange: Exchange,
        head: SeldonHead,
        method: str,
        ends: float | None,
        unit: Unit,
    ) -> None:
        super().__init__(server, predictor, exchange, head, method, ends, exchange.body)
        self._unit = unit

    async def answer(self) -> Message:
        unit = self._unit
        if not unit.is_grpc:
            raise Refused(grpc.StatusCode.UNIMPLEMENTED, unfit(unit))
        request = addressed(self.service, self._body, unit.model_name)
        reply = await self.call(unit, self.service, Message(request, PROTOBUF))
        return Message(reply.body, PROTOBUF)
