"""The request and response logger: bodies as CloudEvents to a URL, never delaying a request.

Types and attributes are those of KServe's agent: `org.kubeflow.serving.inference.request|response`,
`id` the request's, extensions `inferenceservicename`, `namespace`, `component`, `endpoint`. The
queue is bounded in number and bytes; what does not fit is dropped and counted, and one thread
sends.
"""

import http.client
import logging
import queue
import threading
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .metrics import Registry
from .model import Call

if TYPE_CHECKING:
    from .front import Route
    from .settings import Settings

logger = logging.getLogger(__name__)

MAX_EVENTS = 1000
MAX_BYTES = 64 << 20
TIMEOUT_S = 5.0
PREFIX = "org.kubeflow.serving.inference."


class PayloadLog:
    """`offer` on the loop; a daemon thread posts."""

    def __init__(self, settings: "Settings", registry: Registry) -> None:
        self._settings = settings
        self._registry = registry
        self._url = urlsplit(settings.logger_url)
        self._queue: queue.SimpleQueue[tuple[dict[str, str], bytes] | None] = queue.SimpleQueue()
        self._bytes = 0
        self._lock = threading.Lock()
        self._dropped = 0
        self._thread = threading.Thread(target=self._send_all, name="payload-log", daemon=True)
        self._thread.start()

    def offer(self, model: str, call: Call, route: "Route", body: bytes, answer: Any) -> None:
        """Queue what the mode asks for, or count it as dropped."""
        mode = self._settings.logger_mode
        request_id = call.request_id or str(uuid.uuid4())
        if mode in ("all", "request"):
            content_type = route.headers.get("content-type", "application/json")
            self._put(model, "request", request_id, content_type, body)
        response = getattr(answer, "body", None)
        if mode in ("all", "response") and response is not None:
            self._put(
                model, "response", request_id, answer.content_type.decode("latin-1"), response
            )

    def _put(self, model: str, kind: str, request_id: str, content_type: str, body: bytes) -> None:
        with self._lock:
            if self._queue.qsize() >= MAX_EVENTS or self._bytes + len(body) > MAX_BYTES:
                self._dropped += 1
                self._registry.gauges["turnout_logger_dropped_total", ""] = float(self._dropped)
                if self._dropped == 1 or self._dropped % 1000 == 0:
                    logger.warning("the payload logger is behind: %d events dropped", self._dropped)
                return
            self._bytes += len(body)
        headers = {
            "ce-specversion": "1.0",
            "ce-id": request_id,
            "ce-type": PREFIX + kind,
            "ce-source": f"http://{self._settings.service or model}/",
            "ce-inferenceservicename": self._settings.service or model,
            "ce-namespace": self._settings.namespace,
            "ce-component": "predictor",
            "content-type": content_type,
        }
        self._queue.put(({k: v for k, v in headers.items() if v}, body))

    def _send_all(self) -> None:
        connection: http.client.HTTPConnection | None = None
        failing = False
        while True:
            event = self._queue.get()
            if event is None:
                return
            headers, body = event
            with self._lock:
                self._bytes -= len(body)
            try:
                connection = connection or self._connect()
                connection.request("POST", self._path(), body, headers)
                response = connection.getresponse()
                response.read()
                if response.status >= 300:
                    raise OSError(f"status {response.status}")
                failing = False
            except (OSError, http.client.HTTPException) as exc:
                if connection is not None:
                    connection.close()
                connection = None
                if not failing:
                    logger.warning("payloads cannot be logged to %s: %s", self._url.netloc, exc)
                failing = True

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S)
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)

    def _path(self) -> str:
        return (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what is queued, as far as the time allows."""
        self._queue.put(None)
        self._thread.join(timeout_s)
