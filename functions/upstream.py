"""A transformer's call to its predictor: the requests door, and gRPC V2 through `grpc_client`.

One session for the process, a budget of time over all tries, retries only where the predictor did
nothing with the request (connection refused, 503), statuses passed on as they are. The caller's
trace headers, request id and authorization travel along (KServe forwards three headers and no W3C
trace).
"""

import logging
import socket
import time
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter

from . import codec_v2, jsonio
from .errors import FunctionsError, UpstreamError, UpstreamStatus, UpstreamTimeout
from .inference import InferRequest, InferResponse, Tensor
from .wire import v2

if TYPE_CHECKING:
    from .settings import Settings

logger = logging.getLogger(__name__)

FORWARDED = (
    "authorization",
    "baggage",
    "traceparent",
    "tracestate",
    "x-b3-flags",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-request-id",
)

POOL = 100
"""Connections kept to the predictor; as many calls can be under way at once."""

RETRY_WAIT_S = 0.1


class _NoDelayAdapter(HTTPAdapter):
    """urllib3 drops TCP_NODELAY when it talks through a proxy, and a request leaves in two segments
    (head, body): with Nagle and delayed ACKs that is 40 ms a call."""

    def proxy_manager_for(self, proxy: Any, **proxy_kwargs: Any) -> Any:
        proxy_kwargs["socket_options"] = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        return super().proxy_manager_for(proxy, **proxy_kwargs)


class Predictor:
    """Stands in for `predict` of a class that has none."""

    def __init__(self, model: str, settings: "Settings") -> None:
        self.model = model
        self.settings = settings
        host = settings.predictor_host
        self.base = host.rstrip("/") if "://" in host else f"http://{host}"
        self.session = requests.Session()
        adapter = _NoDelayAdapter(pool_connections=1, pool_maxsize=POOL)
        self.session.mount("http://", adapter)
        self.session.mount("https://", adapter)

    def __call__(
        self, payload: Any, headers: dict[str, str], response_headers: dict[str, str]
    ) -> Any:
        """V1 bodies to a V1 predictor, InferRequests to a V2 one, converted where they differ.

        Raises UpstreamError, UpstreamTimeout or UpstreamStatus.
        """
        if self.settings.predictor_protocol == "v1":
            body = payload_to_v1(payload)
            answer = self._post(f"/v1/models/{self.model}:predict", body, headers)
            return self._json(answer)
        request = to_infer_request(payload, self.model)
        if self.settings.predictor_protocol == "grpc-v2":
            from .grpc_client import infer  # grpcio

            return infer(self.base, request, headers, self.settings)
        return self._infer(request, headers)

    def _infer(self, request: InferRequest, headers: dict[str, str]) -> InferResponse:
        body, json_length = codec_v2.encode_request(request)
        extra = {"content-type": "application/octet-stream", v2.HEADER_LENGTH: str(json_length)}
        if json_length == len(body):
            extra = {"content-type": "application/json"}
        answer = self._post(f"/v2/models/{request.model_name}/infer", body, headers, extra)
        try:
            return codec_v2.decode_response(answer.content, answer.headers.get(v2.HEADER_LENGTH))
        except (FunctionsError, v2.Malformed) as exc:
            raise UpstreamError(self.base, f"sent an answer that is no V2 response: {exc}") from exc

    def _post(
        self,
        path: str,
        body: bytes,
        headers: dict[str, str],
        extra: dict[str, str] | None = None,
    ) -> requests.Response:
        sent = {name: headers[name] for name in FORWARDED if name in headers}
        sent |= extra or {"content-type": "application/json"}
        deadline = time.monotonic() + self.settings.predictor_timeout_s
        tries = self.settings.predictor_retries + 1
        for attempt in range(1, tries + 1):
            try:
                answer = self._try(path, body, sent, deadline)
            except requests.exceptions.ConnectionError as exc:
                if attempt == tries or not _refused(exc):
                    raise UpstreamError(self.base, f"cannot be reached: {_short(exc)}") from exc
            else:
                if answer.status_code != 503 or attempt == tries:
                    return self._checked(answer)
            time.sleep(min(RETRY_WAIT_S * attempt, max(0.0, deadline - time.monotonic())))
        raise AssertionError("unreachable")

    def _try(
        self, path: str, body: bytes, headers: dict[str, str], deadline: float
    ) -> requests.Response:
        left = deadline - time.monotonic()
        limit = self.settings.predictor_timeout_s
        if left <= 0:
            raise UpstreamTimeout(self.base, limit)
        try:
            return self.session.post(
                self.base + path, data=body, headers=headers, timeout=left, allow_redirects=False
            )
        except requests.exceptions.Timeout as exc:
            raise UpstreamTimeout(self.base, limit) from exc

    def _checked(self, answer: requests.Response) -> requests.Response:
        if answer.status_code < 400:
            return answer
        try:
            text = answer.json()["error"]
        except (ValueError, KeyError, TypeError):
            text = answer.text[:500]
        raise UpstreamStatus(self.base, answer.status_code, str(text))

    def _json(self, answer: requests.Response) -> Any:
        try:
            return jsonio.loads(answer.content)
        except FunctionsError as exc:
            raise UpstreamError(self.base, f"sent an answer that is no JSON: {exc}") from exc


def _refused(exc: BaseException) -> bool:
    """The predictor cannot have begun with the request."""
    text = repr(exc)
    return "NewConnectionError" in text or "Connection refused" in text


def _short(exc: BaseException) -> str:
    text = str(exc)
    return "connection refused" if "refused" in text else text[:200]


def payload_to_v1(payload: Any) -> bytes:
    """A V1 body: dicts and lists as JSON, bytes as they are, an InferRequest as its first
    tensor's rows."""
    if isinstance(payload, (bytes, bytearray)):
        return bytes(payload)
    if isinstance(payload, InferRequest):
        payload = {"instances": payload.inputs[0].as_numpy().tolist()}
    return jsonio.dumps(payload)


def to_infer_request(payload: Any, model: str) -> InferRequest:
    """An InferRequest; V2 documents (dicts with `inputs`) and V1 `instances` are converted."""
    if isinstance(payload, InferRequest):
        return payload
    if isinstance(payload, dict) and "instances" in payload:
        from . import tensors

        array = tensors.as_array(payload["instances"])
        return InferRequest(model, [Tensor("input-0", data=array)])
    try:
        return codec_v2.from_document(payload, memoryview(b""), model, "")
    except v2.Malformed as problem:
        raise UpstreamError(
            model, f"cannot be asked: preprocess returned no V2 request ({problem})"
        ) from None
