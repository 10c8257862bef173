"""A transformer in one pod with its predictor waits for it before it says that it is ready.

Knative probes one container of a pod, the one with the port. Without this the pod would get
requests while the model beside it is still loading.
"""

import asyncio
import http.client
import time
from typing import TYPE_CHECKING

from .errors import LoadFailed, UpstreamError, UpstreamStatus

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
    ready = _grpc_ready if settings.predictor_protocol == "grpc-v2" else _http_ready
    end = time.monotonic() + settings.predictor_wait_s
    pause = _FIRST_PAUSE_S
    while not ready(settings, model):
        if time.monotonic() > end:
            raise LoadFailed(
                f"the predictor at {settings.predictor_host} is not ready after"
                f" {settings.predictor_wait_s:g} s: look into its log"
            )
        time.sleep(pause)
        pause = min(_LONGEST_PAUSE_S, pause * 1.3)


def _http_ready(settings: "Settings", model: str) -> bool:
    host = settings.predictor_host.rpartition("://")[2].rstrip("/")
    path = f"/v1/models/{model}"
    if settings.predictor_protocol != "v1":
        path = f"/v2/models/{model}/ready"
    connection = http.client.HTTPConnection(host, timeout=_TRY_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status != 503
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _grpc_ready(settings: "Settings", model: str) -> bool:
    from .predictor.client import import_grpc, tls_context
    from .predictor.connection import Broken
    from .predictor.dialling import Unreachable
    from .predictor.target import parse

    try:
        target = parse(
            settings.predictor_host, use_ssl=settings.predictor_use_ssl, environ=settings.environ
        )
    except ValueError:
        return True  # nothing to wait for; the transformer says what is wrong with it

    async def ask() -> bool:
        predictor = import_grpc().Grpc(
            target,
            context=tls_context(settings, "h2") if target.tls else None,
            max_bytes=settings.max_body_bytes,
        )
        try:
            ready: bool = await predictor.is_ready(model, _TRY_S)
            return ready
        except UpstreamStatus as status:
            return status.grpc_code not in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
        except (UpstreamError, Unreachable, Broken, TimeoutError):
            return False
        finally:
            predictor.close()

    return asyncio.run(ask())
