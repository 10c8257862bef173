"""What the HTTP doors of this unit share: error bodies, the webhook handshake, health, metrics."""

from collections.abc import Callable
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from functions.wire import container


def make_app(name: str, metrics: Callable[[], str], max_body_bytes: int) -> Flask:
    """A Flask app with /readyz, /metrics and JSON error bodies."""
    app = Flask(name, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = max_body_bytes

    @app.get(container.READY_PATH)
    def ready() -> Response:
        return Response("ok", mimetype="text/plain")

    @app.get("/metrics")
    def show_metrics() -> Response:
        return Response(metrics(), content_type="text/plain; version=0.0.4")

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        response = problem(error.code or 500, error.description or "")
        for header, value in error.get_headers():
            if header == "Allow":
                response.headers[header] = value
        return response

    return app


def problem(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """`{"error": message}` with a status."""
    response: Any = jsonify({"error": message})
    response.status_code = status
    response.headers.extend(headers or {})
    return response  # type: ignore[no-any-return]


def handshake(per_minute: int = 0) -> Response:
    """CloudEvents webhook 4: consent is in the headers, for all who ask by OPTIONS; 0: any rate."""
    response = Response(status=200)
    response.headers["Allow"] = "POST, OPTIONS"
    origin = request.headers.get("WebHook-Request-Origin")
    if origin:
        response.headers["WebHook-Allowed-Origin"] = origin
        if request.headers.get("WebHook-Request-Rate"):
            response.headers["WebHook-Allowed-Rate"] = str(per_minute) if per_minute else "*"
    return response
