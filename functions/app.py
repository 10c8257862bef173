"""The Flask app: everything off the hot path (lists, status, metadata, the repository,
documentation).

It is imported at the first request that needs it, and runs on a thread: reading the repository's
plain dicts from there is safe, changing them goes through the loop (`Bridge`).
"""

import json
from typing import TYPE_CHECKING, Any

import flask
from werkzeug.exceptions import HTTPException

from .errors import FunctionsError

if TYPE_CHECKING:
    from .repository import Repository


def create_app(repository: "Repository") -> flask.Flask:
    app = flask.Flask("functions", static_folder=None)
    app.register_error_handler(FunctionsError, _own_error)
    app.register_error_handler(HTTPException, _http_error)
    _register_health(app, repository)
    _register_v1(app, repository)
    return app


def answer(value: Any, status: int = 200) -> flask.Response:
    """Compact JSON, as every protocol here writes it."""
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return flask.Response(body, status, content_type="application/json")


def _own_error(error: FunctionsError) -> flask.Response:
    response = answer({"error": str(error)}, error.http_status())
    response.headers.update(error.response_headers())
    return response


def _http_error(error: HTTPException) -> flask.Response:
    request = flask.request
    texts = {
        404: f"there is nothing at {request.path}",
        405: f"{request.method} is not allowed for {request.path}",
    }
    code = error.code or 500
    response = answer({"error": texts.get(code, error.description or error.name)}, code)
    if code == 405 and getattr(error, "valid_methods", None):
        response.headers["allow"] = ", ".join(sorted(error.valid_methods))  # type: ignore[attr-defined]
    return response


def _register_health(app: flask.Flask, repository: "Repository") -> None:
    @app.get("/")
    def alive() -> flask.Response:
        return answer({"status": "alive"})


def _register_v1(app: flask.Flask, repository: "Repository") -> None:
    if "v1" not in repository.settings.protocol:
        return

    @app.get("/v1/models")
    def list_models() -> flask.Response:
        return answer({"models": list(repository.entries)})

    @app.get("/v1/models/<name>")
    def model_status(name: str) -> flask.Response:
        repository.entry(name)
        repository.ready_entry(name)
        return answer({"name": name, "ready": True})

    @app.post("/v1/models/<name>:<verb>")
    def unknown_verb(name: str, verb: str) -> flask.Response:
        flask.abort(404)
