"""A small HTTP server for a program that polls: /readyz and /metrics, nothing else. Standard
library."""

import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from functions.wire import container

logger = logging.getLogger(__name__)


class HealthServer:
    """Context manager: listens on all interfaces while the program polls."""

    def __init__(self, port: int, metrics: Callable[[], str]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                texts = {container.READY_PATH: lambda: "ok", "/metrics": metrics}
                make = texts.get(self.path.partition("?")[0])
                body = (make() if make else "not found").encode()
                self.send_response(200 if make else 404)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """No access log."""

        self._server = ThreadingHTTPServer(("0.0.0.0", port), Handler)  # noqa: S104 - a pod's port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "HealthServer":
        self._thread.start()
        host, port = self._server.server_address[:2]
        logger.info("listening on %s:%s", host, port, extra={"host": host, "port": port})
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
