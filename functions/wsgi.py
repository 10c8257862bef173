"""Run a WSGI app for one `Exchange`: the bridge from the hot HTTP server to Flask.

The app runs on a thread of a small pool of its own, so neither a slow page nor a large document
delays a model call. It is created at the first request.
"""

import asyncio
import io
import logging
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote_to_bytes

from .wire import headers as wire_headers
from .wire.http1 import Exchange

logger = logging.getLogger(__name__)

THREADS = 4
"""Pages served at once."""


class WsgiBridge:
    """`bridge(exchange, route)` answers with what the app returns."""

    def __init__(self, create: Callable[[], Any]) -> None:
        self._create = create
        self._app: Any = None
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="pages")

    def __call__(self, exchange: Exchange, route: object) -> None:
        loop = asyncio.get_running_loop()

        def run() -> None:
            try:
                status, content_type, extra, body = self._run(exchange)
            except Exception:
                logger.exception("a page failed")
                status, content_type, extra, body = (
                    500, b"application/json", b"", b'{"error":"internal error"}',
                )  # fmt: skip
            try:
                loop.call_soon_threadsafe(exchange.respond, status, body, content_type, extra)
            except RuntimeError:  # the loop is closed: the process is on its way out
                return

        self._pool.submit(run)

    def _run(self, exchange: Exchange) -> tuple[int, bytes, bytes, bytes]:
        if self._app is None:
            self._app = self._create()
        started: list[Any] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None
        ) -> None:
            started[:] = [int(status.split(" ", 1)[0]), headers]

        pieces: Iterable[bytes] = self._app(environ(exchange), start_response)
        try:
            body = b"".join(pieces)
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()
        status, headers = started
        content_type, kept = b"", []
        for name, value in headers:
            raw = name.lower().encode("latin-1")
            if raw == b"content-type":
                content_type = value.encode("latin-1")
            elif raw not in wire_headers.FRAMING and raw not in wire_headers.HOP_BY_HOP:
                kept.append((name.encode("latin-1"), value.encode("latin-1")))
        return status, content_type, wire_headers.join(kept), body


def environ(exchange: Exchange) -> dict[str, Any]:
    """PEP 3333's environment of one request."""
    head = exchange.head
    path, _, query = head.target.partition(b"?")
    if path.startswith((b"http://", b"https://")):
        path = b"/" + path.split(b"/", 3)[3] if path.count(b"/") > 2 else b"/"
    values: dict[str, Any] = {
        "REQUEST_METHOD": head.method.decode("latin-1"),
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(exchange.body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(exchange.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in head.headers:
        key = name.decode("latin-1").upper().replace("-", "_")
        text = value.decode("latin-1")
        if key == "CONTENT_TYPE":
            values["CONTENT_TYPE"] = text
        elif key not in ("CONTENT_LENGTH", "TRANSFER_ENCODING"):
            key = "HTTP_" + key
            values[key] = f"{values[key]},{text}" if key in values else text
    return values
