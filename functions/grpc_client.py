"""A transformer's call to a predictor that speaks V2 over gRPC."""

import functools
from typing import TYPE_CHECKING, Any

import grpc

from . import codec_grpc, oip
from .errors import UpstreamError, UpstreamStatus, UpstreamTimeout
from .inference import InferRequest, InferResponse, Tensor

if TYPE_CHECKING:
    from .settings import Settings

_HTTP = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 503,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
}


@functools.cache
def _method(target: str, retries: int) -> Any:
    """One channel per predictor; UNAVAILABLE is tried again by the channel itself."""
    policy = (
        '{"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":%d,"initialBackoff":"0.1s",'
        '"maxBackoff":"1s","backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE"]}}]}'
    )
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    ]
    if retries:
        options.append(("grpc.service_config", policy % (retries + 1)))
    channel = grpc.insecure_channel(target, options=options)
    return channel.unary_unary(
        f"/{oip.SERVICE}/ModelInfer",
        request_serializer=oip.ModelInferRequest.SerializeToString,
        response_deserializer=oip.ModelInferResponse.FromString,
    )


def infer(
    base: str, request: InferRequest, headers: dict[str, str], settings: "Settings"
) -> InferResponse:
    """Raises UpstreamError, UpstreamTimeout or UpstreamStatus."""
    from .upstream import FORWARDED

    target = base.partition("://")[2]
    target = target if ":" in target else f"{target}:80"
    message = oip.ModelInferRequest(
        model_name=request.model_name, model_version=request.model_version, id=request.id
    )
    codec_grpc.set_parameters(message.parameters, request.parameters)
    for tensor in request.inputs:
        entry = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        codec_grpc.set_parameters(entry.parameters, {
            k: v for k, v in tensor.parameters.items() if k != "binary_data_size"
        })  # fmt: skip
        message.raw_input_contents.append(bytes(tensor.raw()))
    metadata = [(name, headers[name]) for name in FORWARDED if name in headers]
    try:
        answer = _method(target, settings.predictor_retries)(
            message, timeout=settings.predictor_timeout_s, metadata=metadata
        )
    except grpc.RpcError as exc:
        raise _translated(exc, target, settings.predictor_timeout_s) from exc
    return to_response(answer)


def _translated(exc: Any, target: str, timeout_s: float) -> UpstreamError:
    code, details = exc.code(), exc.details() or ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return UpstreamTimeout(target, timeout_s)
    if code in _HTTP:
        return UpstreamStatus(target, _HTTP[code], details)
    return UpstreamError(target, f"cannot be reached: {details[:200]}")


def to_response(message: Any) -> InferResponse:
    raw = message.raw_output_contents
    outputs = []
    for index, tensor in enumerate(message.outputs):
        if raw:
            outputs.append(Tensor(tensor.name, list(tensor.shape), tensor.datatype, raw=raw[index]))
        else:
            values = getattr(tensor.contents, codec_grpc.CONTENTS[tensor.datatype])
            array = codec_grpc.to_array(tensor, values, list(tensor.shape))
            outputs.append(Tensor(tensor.name, datatype=tensor.datatype, data=array))
    return InferResponse(message.id, message.model_name, outputs, message.model_version)
