"""The grpcio door of the way to a predictor: V2 over gRPC, one call, without retries.

Raw tensors neither go through protobuf's parser nor through its serializer, each of which would
copy them twice: they are appended to, and cut out of, the message as the wire format has them.
"""

import os
import ssl
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from functions import codec_grpc, oip
from functions.errors import UpstreamError, UpstreamStatus
from functions.inference import InferRequest, InferResponse, Tensor
from functions.wire import v2

from . import documents
from .connection import Buffer
from .pool import Unreachable
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

_RAW_INPUT = 7
_RAW_OUTPUT = 6
"""Field numbers of raw_input_contents and raw_output_contents."""


class Grpc:
    """Calls of one predictor. For one event loop."""

    def __init__(self, target: Target, *, ca_file: str, verify: bool, max_bytes: int) -> None:
        self.target = target
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", max_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_retries", 0),  # `client` retries, with the server's own patience
            # A predictor that has come back is seen within a second, not within two minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        if target.tls:
            credentials, more = _credentials(target, ca_file, verify)
            self._channel = grpc.aio.secure_channel(target.address, credentials, options + more)
        else:
            self._channel = grpc.aio.insecure_channel(target.address, options)
        self._infer = self._channel.unary_unary(f"/{oip.SERVICE}/ModelInfer")
        self._live = self._channel.unary_unary(f"/{oip.SERVICE}/ServerLive")

    @property
    def name(self) -> str:
        return f"grpc{'s' if self.target.tls else ''}://{self.target.address}"

    async def infer(
        self, request: InferRequest, metadata: Sequence[tuple[str, str]], timeout_s: float
    ) -> InferResponse:
        """Raises UpstreamStatus, UpstreamError, Unreachable or TimeoutError."""
        body = encode(request)
        try:
            answer = await self._infer(body, timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as exc:
            raise self._translated(exc) from exc
        except grpc.aio.UsageError as exc:
            raise UpstreamError(self.name, f"cannot be called: {exc}") from exc
        try:
            response = decode(answer)
        except (v2.Malformed, ValueError, KeyError) as exc:
            raise UpstreamError(self.name, f"sent an answer that is no V2 response: {exc}") from exc
        return documents.checked(response, self.name)

    async def poke(self, metadata: Sequence[tuple[str, str]], timeout_s: float) -> int:
        """A request wakes a sleeping service; an open connection alone would not. The answer's
        status, as HTTP has it."""
        try:
            await self._live(b"", timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as exc:
            return _HTTP.get(exc.code().name, 500)
        return 200

    def _translated(self, exc: grpc.aio.AioRpcError) -> Exception:
        code, details = exc.code().name, exc.details() or ""
        if code == "DEADLINE_EXCEEDED":
            return TimeoutError(details)
        low = details.lower()
        if code == "RESOURCE_EXHAUSTED" and "received message larger" in low:
            return UpstreamError(self.name, f"sent an answer that is too large: {details}")
        if code == "UNAVAILABLE":
            if "http1.x" in low or "http/1" in low:
                return UpstreamError(
                    self.name,
                    "speaks HTTP/1, not gRPC, on this port: use --predictor-protocol v2, or its"
                    " gRPC port",
                )
            if "handshake" in low or "certificate" in low or "ssl" in low:
                return Unreachable(f"TLS: {_connect_reason(details)}", retryable=False)
            if "dns" in low or "name resolution" in low:
                return Unreachable(
                    f"its name {self.target.host!r} cannot be resolved ({details[:200]})",
                    retryable=False,
                )
            if "failed to connect" in low or "connection refused" in low:
                return Unreachable(_connect_reason(details), retryable=True)
            if any(word in low for word in ("socket closed", "connection reset", "goaway", "eof")):
                return UpstreamError(self.name, f"broke the connection off: {details[:200]}")
        if code in ("UNKNOWN", "INTERNAL") and ("http2" in low or "trailers" in low):
            return UpstreamError(self.name, f"sent garbage: {details[:200]}")
        return UpstreamStatus(self.name, _HTTP.get(code, 500), details, grpc_code=code)

    async def close(self) -> None:
        await self._channel.close(None)


def _connect_reason(details: str) -> str:
    """grpc names every address it tried; the cause is at the end."""
    if "refused" in details:
        return "connection refused"
    return details.rpartition("Last error: ")[2][:200]


def _credentials(
    target: Target, ca_file: str, verify: bool
) -> tuple[grpc.ChannelCredentials, list[tuple[str, Any]]]:
    """grpcio cannot skip the verification; without it, the certificate that the server shows at
    the first look is the one that is trusted. Raises Unreachable when there is none to look at."""
    if verify:
        roots = None
        if ca_file:
            with open(ca_file, "rb") as file:
                roots = file.read()
        return grpc.ssl_channel_credentials(root_certificates=roots), []
    try:
        shown = ssl.get_server_certificate((target.host, target.port), timeout=10.0)
    except OSError as exc:
        raise Unreachable(f"TLS: {exc}", retryable=True) from exc
    return (
        grpc.ssl_channel_credentials(root_certificates=shown.encode()),
        [("grpc.ssl_target_name_override", _name_in(shown) or target.host)],
    )


def _name_in(certificate: str) -> str:
    """A name that the certificate is for. The standard library parses only files."""
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False) as file:
        file.write(certificate)
    try:
        found: Any = ssl._ssl._test_decode_cert(file.name)  # type: ignore[attr-defined]
    finally:
        os.unlink(file.name)
    names = [value for kind, value in found.get("subjectAltName", ()) if kind == "DNS"]
    names += [value for part in found.get("subject", ()) for key, value in part if
              key == "commonName"]  # fmt: skip
    return names[0] if names else ""


# --- messages ------------------------------------------------------------------------------------


def encode(request: InferRequest) -> bytes:
    """A serialized ModelInferRequest; tensors are raw."""
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
    pieces: list[Buffer] = [message.SerializeToString()]
    for raw in raws:
        pieces.append(_LENGTH_TAG[_RAW_INPUT] + _varint(len(raw)))
        pieces.append(raw)
    return b"".join(pieces)


_LENGTH_TAG = {number: bytes([number << 3 | 2]) for number in (_RAW_INPUT, _RAW_OUTPUT)}
"""Tags of length-delimited fields (wire type 2)."""


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def cut_raw(data: bytes, number: int) -> tuple[bytes, list[memoryview]]:
    """(message without the raw contents of field `number`, these as views of `data`).

    Raises ValueError when `data` is no message.
    """
    view = memoryview(data)
    rest: list[Buffer] = []
    raws: list[memoryview] = []
    wanted = number << 3 | 2
    at = kept = 0
    end = len(data)
    while at < end:
        start = at
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == 2:
            length, at = _read_varint(data, at)
            at += length
            if at > end:
                raise ValueError("the message is cut off")
            if tag == wanted:
                rest.append(view[kept:start])
                raws.append(view[at - length : at])
                kept = at
        elif kind == 0:
            _, at = _read_varint(data, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind} in the message")
    if not raws:
        return data, raws
    rest.append(view[kept:])
    return b"".join(rest), raws


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("the message is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def decode(data: bytes) -> InferResponse:
    """Raises v2.Malformed or ValueError."""
    from google.protobuf.message import DecodeError

    head, raws = cut_raw(data, _RAW_OUTPUT)
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
