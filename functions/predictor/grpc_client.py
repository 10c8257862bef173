"""V2 over gRPC: one call to a predictor, without retries.

Raw tensors neither go through protobuf's parser nor through its serializer (`protowire`).
"""

import asyncio
import ssl
import struct
import time
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from google.protobuf.message import DecodeError

from functions import codec_grpc, oip, protowire
from functions.buffers import Buffer
from functions.errors import UpstreamError, UpstreamStatus
from functions.grpc_status import Status
from functions.http2.connection import Scratch
from functions.http2.headers import literal
from functions.inference import InferRequest, InferResponse, Tensor
from functions.wire import v2

from . import documents
from .connection import Broken
from .dialling import CONNECT_S, Unreachable, connect
from .http2 import Answer, Http2
from .target import Target

_HTTP = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}
"""gRPC's own table of HTTP statuses (google.rpc.Code)."""

_OF_HTTP = {
    400: "INTERNAL", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "UNIMPLEMENTED",
    429: "UNAVAILABLE", 502: "UNAVAILABLE", 503: "UNAVAILABLE", 504: "UNAVAILABLE",
}  # fmt: skip
"""Where something on the way answers in plain HTTP (gRPC's "HTTP to gRPC Status Code Mapping")."""

_NUMBERS = frozenset(Status)

_METADATA_NEVER = frozenset({"te", "content-type", "user-agent", "grpc-timeout", "grpc-encoding"})

Fields = Iterable[tuple[str, str]]


class Grpc:
    """Calls of one predictor. For one event loop."""

    def __init__(self, target: Target, *, context: ssl.SSLContext | None, max_bytes: int) -> None:
        """`context` is needed for https targets and must offer `h2`."""
        self.target = target
        self._context = context
        self._max_bytes = max_bytes
        self._scratch = Scratch()
        self._connections: list[Http2] = []
        self._dialling: asyncio.Task[None] | None = None
        self._starts: dict[str, bytes] = {}
        scheme = b"\x87" if target.tls else b"\x86"  # entries of HPACK's static table
        self._start = b"".join([
            b"\x83", scheme,
            literal(b":authority", target.authority.encode()),
        ])  # fmt: skip
        self._end = b"".join([
            literal(b"te", b"trailers"),
            literal(b"content-type", b"application/grpc"),
            literal(b"user-agent", b"grpc-turnout"),
        ])  # fmt: skip

    @property
    def name(self) -> str:
        return f"grpc{'s' if self.target.tls else ''}://{self.target.address}"

    async def infer(self, request: InferRequest, fields: Fields, left_s: float) -> InferResponse:
        """Raises UpstreamStatus, UpstreamError, Unreachable, Broken or TimeoutError."""
        message = encode(request)
        answer = await self._call("ModelInfer", message, fields, left_s)
        try:
            response = decode(answer)
        except (v2.Malformed, ValueError, KeyError) as exc:
            raise UpstreamError(self.name, f"sent an answer that is no V2 response: {exc}") from exc
        return documents.checked(response, self.name)

    async def is_ready(self, model: str, left_s: float) -> bool:
        """Whether it serves this model. Raises as `infer` does."""
        message = oip.ModelReadyRequest(name=model).SerializeToString()
        answer = await self._call("ModelReady", [message], (), left_s)
        try:
            ready: bool = oip.ModelReadyResponse.FromString(bytes(answer)).ready
        except DecodeError as exc:
            raise UpstreamError(self.name, f"sent an answer that is none: {exc}") from exc
        return ready

    async def poke(self, fields: Fields, left_s: float) -> int:
        """The status, as HTTP has it, of a request that costs the predictor nothing: a request
        wakes a sleeping service, an open connection alone would not."""
        try:
            await self._call("ServerLive", [], fields, left_s)
        except UpstreamStatus as status:
            return status.http_status()
        return 200

    # --- one call ------------------------------------------------------------------------------

    async def _call(
        self, method: str, message: list[Buffer], fields: Fields, left_s: float
    ) -> memoryview:
        """The answer's message. Raises UpstreamStatus for a status other than OK."""
        prefix = struct.pack(">BI", 0, documents.total(message))
        since = time.monotonic()
        async with asyncio.timeout(left_s):
            connection = await self._take()
            block = self._block(method, fields, left_s)
            answer = await connection.call(block, [prefix, *message])
        try:
            self._check(answer)
        except UpstreamStatus as status:
            # A server that knows the deadline may say that it is over before our own clock does.
            if status.grpc_code == "DEADLINE_EXCEEDED" and time.monotonic() - since > 0.9 * left_s:
                raise TimeoutError from status
            raise
        body = answer.body
        if len(body) < 5 or len(body) - 5 != int.from_bytes(body[1:5], "big"):
            raise UpstreamError(self.name, f"sent garbage: {len(body)} bytes are no gRPC message")
        if body[0]:
            raise UpstreamError(self.name, "sent garbage: a compressed message, unasked")
        return body[5:]

    def _block(self, method: str, fields: Fields, left_s: float) -> bytes:
        milliseconds = max(1, int(left_s * 1000))
        limit = f"{milliseconds}m" if milliseconds < 10**8 else f"{milliseconds // 1000}S"
        start = self._starts.get(method)
        if start is None:
            path = f"{self.target.path}/{oip.SERVICE}/{method}"
            start = self._starts[method] = b"".join(
                [self._start, literal(b":path", path.encode()), self._end]
            )
        parts = [start, literal(b"grpc-timeout", limit.encode())]
        for name, value in fields:
            if name not in _METADATA_NEVER and not name.startswith(":"):
                text = str(value).encode("ascii", "replace")
                clean = bytes(byte for byte in text if 0x20 <= byte < 0x7F)
                parts.append(literal(name.encode(), clean, secret=name == "authorization"))
        return b"".join(parts)

    def _check(self, answer: Answer) -> None:
        """Raises UpstreamStatus or UpstreamError unless the status is OK."""
        headers = answer.headers
        number = headers.get(b"grpc-status")
        if number == b"0":
            return
        if number is not None:
            known = number.isdigit() and int(number) in _NUMBERS
            code = Status(int(number)).name if known else "UNKNOWN"
            details = unquote_to_bytes(headers.get(b"grpc-message", b"")).decode("utf-8", "replace")
            raise UpstreamStatus(self.name, _HTTP[code], details, grpc_code=code)
        status = headers.get(b":status", b"")
        kind = headers.get(b"content-type", b"").decode("latin-1")
        if status.isdigit() and status != b"200":
            text = documents.error_text(answer.body) or f"HTTP {int(status)}"
            code = _OF_HTTP.get(int(status), "UNKNOWN")
            raise UpstreamStatus(self.name, int(status), text, grpc_code=code)
        raise UpstreamError(
            self.name, f"sent garbage: an answer without grpc-status (content-type {kind!r})"
        )

    # --- connections ---------------------------------------------------------------------------

    async def _take(self) -> Http2:
        """A connection that has room for one more call."""
        while True:
            for connection in self._connections:
                if connection.usable and connection.active < connection.max_streams:
                    return connection
            if self._dialling is None:
                task = asyncio.get_running_loop().create_task(self._dial())
                self._dialling = task
                task.add_done_callback(self._dialled)
            await asyncio.shield(self._dialling)

    async def _dial(self) -> None:
        connection = await connect(
            self.target,
            lambda: Http2(self._max_bytes, self._lost, self._scratch),
            self._context,
            tunnel=True,
        )
        if not connection.speaks_h2:
            connection.close()
            raise Unreachable(
                "TLS: it does not offer HTTP/2: no gRPC port? (--predictor-protocol v2)",
                retryable=False,
            )
        try:  # how many calls at once it takes
            await asyncio.wait_for(connection.settled, CONNECT_S)
        except TimeoutError:
            connection.close()
            raise Unreachable(
                f"it said nothing for {CONNECT_S:g} s: is this a gRPC port?", retryable=False
            ) from None
        if not connection.usable:
            raise Broken("closed the connection at once")
        self._connections.append(connection)

    def _dialled(self, task: "asyncio.Task[None]") -> None:
        self._dialling = None
        if not task.cancelled():
            task.exception()  # whoever waits for the connection has it too

    def _lost(self, connection: Http2) -> None:
        if connection in self._connections:
            self._connections.remove(connection)

    def close(self) -> None:
        for connection in list(self._connections):
            connection.close()


# --- messages ------------------------------------------------------------------------------------


def encode(request: InferRequest) -> list[Buffer]:
    """A serialized ModelInferRequest in pieces; tensors are raw, and the very buffers they are
    in."""
    message = oip.ModelInferRequest(
        model_name=request.model_name, model_version=request.model_version, id=request.id
    )
    codec_grpc.set_parameters(message.parameters, request.parameters)
    raws: list[Buffer] = []
    for tensor in request.inputs:
        entry = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        kept = {k: v for k, v in tensor.parameters.items() if k != "binary_data_size"}
        if kept:
            codec_grpc.set_parameters(entry.parameters, kept)
        raws.append(tensor.raw())
    return protowire.with_fields(message.SerializeToString(), codec_grpc.RAW_INPUT, raws)


def decode(data: memoryview) -> InferResponse:
    """Raises v2.Malformed or ValueError."""
    head, raws = protowire.cut_fields(data, codec_grpc.RAW_OUTPUT)
    try:
        message = oip.ModelInferResponse.FromString(head)
    except DecodeError as exc:
        raise ValueError(str(exc)) from None
    if raws and len(raws) != len(message.outputs):
        raise v2.Malformed(f"{len(message.outputs)} outputs, {len(raws)} raw_output_contents")
    outputs = []
    for index, tensor in enumerate(message.outputs):
        shape = v2.check_shape(list(tensor.shape), f"output {tensor.name!r}")
        datatype = v2.check_datatype(tensor.datatype, f"output {tensor.name!r}")
        if raws:
            v2.check_binary_size(len(raws[index]), shape, datatype, f"output {tensor.name!r}")
            outputs.append(Tensor(tensor.name, shape, datatype, raw=raws[index]))
        else:
            values = getattr(tensor.contents, codec_grpc.CONTENTS[datatype])
            array = codec_grpc.to_array(tensor, values, shape)
            outputs.append(Tensor(tensor.name, datatype=datatype, data=array))
    return InferResponse(
        message.id,
        message.model_name,
        outputs,
        message.model_version,
        codec_grpc.to_parameters(message.parameters),
    )
