"""A transformer in one pod with its predictor waits for it before it says that it is ready.

Knative probes one container of a pod, the one with the port. Without this the pod would get
requests while the model beside it is still loading.
"""

import http.client
import time
from typing import TYPE_CHECKING

from .errors import LoadFailed

if TYPE_CHECKING:
    from .settings import Settings

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5
_TRY_S = 2.0


def until_ready(settings: "Settings", model: str) -> None:
    """Ask until the predictor is ready for `model`. Raises LoadFailed after `predictor_wait_s`.

    Only a refused connection and "not ready" (503, UNAVAILABLE) are waited for: a predictor that
    answers anything else is there, and requests will tell what is wrong.
    """
    host = settings.predictor_host.rpartition("://")[2].rstrip("/")
    ready = _grpc_ready if settings.predictor_protocol == "grpc-v2" else _http_ready
    path = f"/v1/models/{model}"
    if settings.predictor_protocol != "v1":
        path = f"/v2/models/{model}/ready"
    end = time.monotonic() + settings.predictor_wait_s
    pause = _FIRST_PAUSE_S
    while not ready(host, model, path):
        if time.monotonic() > end:
            raise LoadFailed(
                f"the predictor at {settings.predictor_host} is not ready after"
                f" {settings.predictor_wait_s:g} s: look into its log"
            )
        time.sleep(pause)
        pause = min(_LONGEST_PAUSE_S, pause * 1.3)


def _http_ready(host: str, model: str, path: str) -> bool:
    connection = http.client.HTTPConnection(host, timeout=_TRY_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status != 503
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _grpc_ready(host: str, model: str, path: str) -> bool:
    import grpc

    from . import oip

    with grpc.insecure_channel(host) as channel:
        ask = channel.unary_unary(
            f"/{oip.SERVICE}/ModelReady",
            request_serializer=oip.ModelReadyRequest.SerializeToString,
            response_deserializer=oip.ModelReadyResponse.FromString,
        )
        try:
            found: bool = ask(oip.ModelReadyRequest(name=model), timeout=_TRY_S).ready
        except grpc.RpcError as error:
            waiting = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            return error.code() not in waiting
        return found
