"""What happens to a request in a Seldon graph (spec/seldon 2.2), as coroutines on fibers.

    run(node, message): message = down(node, message)
                        no children: that is the answer; else route:
                          all children at once, one of them, or none
                        then aggregate, then up(node, answer)

A MODEL with children is a pipeline, its output is their input; a TRANSFORMER goes before its
children, an OUTPUT_TRANSFORMER after them. An answer other than 200 of any node ends the request
and is the answer; errors of our own name the node. Like the engine, no sockets and no clock here:
the world is a `Context`, and tests give a scripted one.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from router_fn import body as bodies
from router_fn.errors import UpstreamError
from router_fn.fibers import Fiber, Wait, cancel_all
from router_fn.replies import Reply
from router_fn.seldon import builtins, messages, tfserving
from router_fn.seldon.graph import Deployment, Unit
from router_fn.seldon.messages import ALL, NONE, SeldonError

JSON: Final = b"application/json"

PREDICT, TRANSFORM_INPUT, TRANSFORM_OUTPUT = "PREDICT", "TRANSFORM_INPUT", "TRANSFORM_OUTPUT"
ROUTE, AGGREGATE, SEND_FEEDBACK = "ROUTE", "AGGREGATE", "SEND_FEEDBACK"

SELDON_PATHS: Final = {
    PREDICT: "/predict",
    TRANSFORM_INPUT: "/transform-input",
    TRANSFORM_OUTPUT: "/transform-output",
    ROUTE: "/route",
    AGGREGATE: "/aggregate",
    SEND_FEEDBACK: "/send-feedback",
}


class Message:
    """A body on its way through the graph, and what its Content-Type says of it."""

    __slots__ = ("body", "content_type")

    def __init__(self, body: bytes, content_type: bytes = JSON) -> None:
        self.body = body
        self.content_type = content_type


class OriginalMessage(Message):
    """The client's own body, which may be encoded as its header says."""

    __slots__ = ()


class NodeAnswered(Exception):
    """A node answered something else than 200: that is what the client gets."""

    def __init__(self, unit: Unit, reply: Reply, content_type: bytes) -> None:
        super().__init__(f"{unit.name} answered {reply.status}")
        self.unit = unit
        self.status = reply.status
        self.body = reply.body
        self.content_type = content_type


class Context(Protocol):
    """The world of one request."""

    def call(self, unit: Unit, path: str, message: Message, /) -> Wait[Reply]:
        """POST a message to a path of a unit's service. The Wait fails with UpstreamError."""
        ...

    def draw(self) -> float:
        """A random number in [0, 1)."""
        ...

    def passed(self, unit: Unit, what: str, message: Message, /) -> None:
        """A message went into a unit that logs its payloads (`what`: request), or came out of it
        and all below it (response), or it was told of feedback."""
        ...


def path_of(deployment: Deployment, unit: Unit, duty: str) -> str:
    """Where a unit's service is asked for a duty, by protocol (2.1, 2.6)."""
    if deployment.protocol == "tensorflow":
        verb = {ROUTE: "route", AGGREGATE: "aggregate"}.get(duty, "predict")
        return f"/v1/models/{unit.model_name}:{verb}"
    if deployment.protocol == "v2":
        verb = {ROUTE: "route", AGGREGATE: "aggregate"}.get(duty, "infer")
        return f"/v2/models/{unit.model_name}/{verb}"
    return SELDON_PATHS[duty]


def content_type_of(reply: Reply) -> bytes:
    return reply.head.media_type if reply.head is not None and reply.head.media_type else JSON


class Traversal:
    """One request on its way. `routing` fills with what was decided."""

    def __init__(self, deployment: Deployment, context: Context) -> None:
        self.deployment = deployment
        self.context = context
        self.routing: dict[str, int] = {}
        self.visited: list[Unit] = []

    async def run(self, unit: Unit, message: Message) -> Message:
        """The answer of a unit and all below it. Raises NodeAnswered or SeldonError."""
        if unit.log_url:
            self.context.passed(unit, "request", message)
        message = await self._down(unit, message)
        if unit.children:
            message = await self._through(unit, message)
        if TRANSFORM_OUTPUT in unit.methods:
            message = await self._ask(unit, TRANSFORM_OUTPUT, message)
        if unit.log_url:
            self.context.passed(unit, "response", message)
        return message

    async def _down(self, unit: Unit, message: Message) -> Message:
        if unit.implementation == "SIMPLE_MODEL":
            self.visited.append(unit)
            self.routing[unit.name] = ALL
            return Message(builtins.simple_model(message.body))
        if TRANSFORM_INPUT in unit.methods:
            message = await self._ask(unit, TRANSFORM_INPUT, message)
        elif PREDICT in unit.methods:
            message = await self._ask(unit, PREDICT, message)
        else:
            return message
        self.routing[unit.name] = ALL
        return message

    async def _through(self, unit: Unit, message: Message) -> Message:
        route = await self._route(unit, message)
        if unit.methods - {TRANSFORM_OUTPUT, SEND_FEEDBACK}:
            self.routing[unit.name] = route
        if route == NONE:
            return message
        chosen = unit.children if route == ALL else (unit.children[route],)
        outputs = await self._all(chosen, message)
        if AGGREGATE not in unit.methods:
            return outputs[0]
        if unit.implementation == "AVERAGE_COMBINER":
            self.visited.append(unit)
            return Message(builtins.average([output.body for output in outputs]))
        for child, output in zip(chosen, outputs, strict=True):
            if not bodies.is_json(output.body):
                raise SeldonError(f"{child.name} answered what is not JSON", node=unit.name)
        request = messages.aggregate_request([output.body for output in outputs])
        return await self._ask(unit, AGGREGATE, Message(request), chained=False)

    async def _route(self, unit: Unit, message: Message) -> int:
        if ROUTE not in unit.methods:
            return ALL
        if unit.built_in:
            self.visited.append(unit)
            return builtins.route(unit, self.context.draw())
        try:
            answer = await self._ask(unit, ROUTE, message)
        except NodeAnswered as failed:
            raise SeldonError(
                f"the router answered {failed.status}", status=failed.status, node=unit.name
            ) from failed
        try:
            route = messages.route_of(answer.body)
        except ValueError as error:
            raise SeldonError(str(error), node=unit.name) from error
        if route not in (ALL, NONE) and not 0 <= route < len(unit.children):
            raise SeldonError(
                f"route {route}, but there are {len(unit.children)} children", node=unit.name
            )
        return route

    async def _all(self, children: Sequence[Unit], message: Message) -> list[Message]:
        """All at once; of several failures the one of the lowest index is told."""
        if len(children) == 1:
            return [await self.run(children[0], message)]
        fibers = [Fiber(self.run(child, message)) for child in children]
        try:
            return [await fiber for fiber in fibers]
        finally:
            cancel_all(fibers)

    async def _ask(
        self, unit: Unit, duty: str, message: Message, *, chained: bool = True
    ) -> Message:
        self.visited.append(unit)
        if unit.server_protocol == "tensorflow" and self.deployment.protocol == "seldon":
            return await self._ask_tensorflow(unit, message)
        body = self._chain(unit, message) if chained else message.body
        if unit.is_grpc and self.deployment.protocol == "tensorflow":
            return await self._ask_predict(unit, body)
        sent = message if body is message.body else Message(body)
        reply = await self._call(unit, path_of(self.deployment, unit, duty), sent)
        content_type = content_type_of(reply)
        if reply.status != 200:
            raise NodeAnswered(unit, reply, content_type)
        return Message(reply.body, content_type)

    async def _call(self, unit: Unit, path: str, message: Message) -> Reply:
        try:
            return await self.context.call(unit, path, message)
        except UpstreamError as error:
            status = 504 if error.kind == "timeout" else 500
            raise SeldonError(str(error), status=status, node=unit.name) from error

    def _chain(self, unit: Unit, message: Message) -> bytes:
        """The body in the form that a request of this protocol has (2.6)."""
        convert: Callable[[bytes], bytes] | None = {
            "tensorflow": messages.tensorflow_request,
            "v2": messages.v2_request,
        }.get(self.deployment.protocol)
        if convert is None:
            return message.body
        try:
            return convert(message.body)
        except ValueError as error:
            status = 400 if isinstance(message, OriginalMessage) else 500
            raise SeldonError(f"the message {error}", status=status, node=unit.name) from error

    async def _ask_tensorflow(self, unit: Unit, message: Message) -> Message:
        """A TensorFlow server behind a Seldon node: the conversion that a proxy container did."""
        if unit.is_grpc:
            return await self._ask_tensorflow_grpc(unit, message)
        request = tfserving.request_of(
            message.body, str(unit.parameters.get("signature_name", "serving_default"))
        )
        path = f"/v1/models/{unit.model_name}:predict"
        reply = await self._call(unit, path, Message(request.upstream))
        image = {unit.name: unit.image} if unit.image else {}
        status, body = tfserving.answer_of(request, reply.status, reply.body, image)
        if status != 200:
            raise NodeAnswered(unit, Reply(status, body), JSON)
        return Message(body)

    async def _ask_tensorflow_grpc(self, unit: Unit, message: Message) -> Message:
        """The same over gRPC."""
        from router_fn.seldon import tfserving_grpc as conversion  # needs protobuf

        asked = conversion.Asked(message.body, unit.model_name, unit.parameters)
        signature = None
        if asked.needs_signature:
            request = conversion.metadata_request(asked.model)
            reply = await self._ok(unit, conversion.METADATA, request)
            signature = conversion.signature_of(asked.signature, reply.body)
        request = conversion.request_of(asked, signature)
        reply = await self._ok(unit, conversion.PREDICT, request)
        return Message(conversion.answer_of(asked, reply.body, signature))

    async def _ask_predict(self, unit: Unit, body: bytes) -> Message:
        """A request of TensorFlow's REST API to a node that is called over gRPC."""
        from router_fn.seldon import tfserving_grpc, tfserving_json  # need protobuf

        asked = tfserving_json.Asked(body, unit.model_name)
        about = tfserving_grpc.metadata_request(unit.model_name)
        reply = await self._ok(unit, tfserving_grpc.METADATA, about)
        signature = tfserving_grpc.signature_of(asked.signature, reply.body)
        reply = await self._ok(unit, tfserving_grpc.PREDICT, asked.request(signature))
        return Message(asked.answer(reply.body))

    async def _ok(self, unit: Unit, path: str, body: bytes) -> Reply:
        reply = await self._call(unit, path, Message(body))
        if reply.status != 200:
            raise NodeAnswered(unit, reply, JSON)
        return reply


async def send_feedback(traversal: Traversal, unit: Unit, body: bytes) -> bytes | None:
    """Feedback (2.8): children first, along the routes of the answer; then the unit itself.

    Returns the unit's own answer, None if it makes no call.
    """
    route = messages.chosen_route(body, unit.name)
    children: Sequence[Unit] = unit.children
    if route == NONE:
        children = ()
    elif route is not None and 0 <= route < len(unit.children):
        children = (unit.children[route],)
    fibers: list[Fiber[bytes | None]] = [
        Fiber(send_feedback(traversal, child, body)) for child in children
    ]
    try:
        for fiber in fibers:
            await fiber
    finally:
        cancel_all(fibers)
    listens = SEND_FEEDBACK in unit.methods and not unit.built_in and not unit.server_protocol
    if not listens or traversal.deployment.protocol != "seldon":
        return None
    if unit.log_url:
        traversal.context.passed(unit, "feedback", Message(body))
    answer = await traversal._ask(unit, SEND_FEEDBACK, Message(body), chained=False)
    return answer.body
