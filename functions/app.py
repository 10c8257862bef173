"""The Flask app: everything off the hot path (lists, status, metadata, the repository,
documentation).

It is imported at the first request that needs it and runs on a thread: reading the repository's
plain dicts from there is safe; what changes them goes to the event loop (`on_loop`).
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any

import flask
from werkzeug.exceptions import HTTPException

from .errors import FunctionsError, InvalidRequest, LoadFailed, ModelNotReady, NotSupported
from .wire import v2

if TYPE_CHECKING:
    from .repository import Entry, Repository

LOAD_WAIT_S = 3600.0
"""How long a load request may hold its connection."""


OnLoop = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine where the repository lives, and waits for it."""


def create_app(repository: "Repository", loop: asyncio.AbstractEventLoop) -> flask.Flask:
    """The app for one server. `loop` is where the repository lives."""
    from . import pages

    app = flask.Flask("functions", static_folder=None)
    app.url_map.merge_slashes = False  # a doubled slash is another path, not a redirect
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.register_error_handler(FunctionsError, _own_error)
    protocols = repository.settings.protocol
    seldon_only = set(protocols) <= {"seldon", "grpc-seldon"}
    app.register_error_handler(HTTPException, _seldon_error if seldon_only else _http_error)

    def on_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(LOAD_WAIT_S)

    @app.get("/")
    def alive() -> flask.Response:
        return answer({"status": "alive"})

    for path in ("/readyz", "/livez", "/healthz", "/metrics"):
        _answered_elsewhere(app, path, "GET")
    if "v1" in protocols:
        _register_v1(app, repository, on_loop)
    if "v2" in protocols:
        _register_v2(app, repository, on_loop)
        _register_repository(app, repository, on_loop)
    pages.register(app, repository)
    return app


def _answered_elsewhere(app: flask.Flask, path: str, method: str) -> None:
    """What the hot path answers; here so that other methods are 405 and not 404."""
    app.add_url_rule(path, path, lambda **_: flask.abort(404), methods=[method])


def answer(value: Any, status: int = 200) -> flask.Response:
    """Compact JSON, as every protocol here writes it."""
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return flask.Response(body, status, content_type="application/json")


def _own_error(error: FunctionsError) -> flask.Response:
    response = answer({"error": str(error)}, error.http_status())
    response.headers.update(error.response_headers())
    return response


def _seldon_error(error: HTTPException) -> flask.Response:
    """The error body of Seldon's wrapper."""
    from . import seldon_message as sm

    code = error.code or 500
    return answer(sm.fault(code, _said(error), sm.INTERNAL_ERROR), code)


def _said(error: HTTPException) -> str:
    request = flask.request
    texts = {
        404: f"there is nothing at {request.path}",
        405: f"{request.method} is not allowed for {request.path}",
    }
    return texts.get(error.code or 500, error.description or error.name)


def _http_error(error: HTTPException) -> flask.Response:
    code = error.code or 500
    response = answer({"error": _said(error)}, code)
    valid = getattr(error, "valid_methods", None)
    if code == 405 and valid:
        response.headers["allow"] = ", ".join(sorted(valid))
    return response


def _register_v1(app: flask.Flask, repository: "Repository", on_loop: OnLoop) -> None:
    @app.get("/v1/models")
    def list_models() -> flask.Response:
        return answer({"models": list(repository.entries)})

    @app.get("/v1/models/<name>")
    def model_status(name: str) -> flask.Response:
        on_loop(repository.checked_entry(name))
        return answer({"name": name, "ready": True})

    @app.post("/v1/models/<name>:<verb>")
    def unknown_verb(name: str, verb: str) -> flask.Response:
        flask.abort(404)


def _register_v2(app: flask.Flask, repository: "Repository", on_loop: OnLoop) -> None:
    from . import __version__

    extensions = ["model_repository", "model_repository_extension", "binary_tensor_data"]

    @app.get("/v2")
    @app.get("/v2/")
    def server_metadata() -> flask.Response:
        return answer({"name": "turnout", "version": __version__, "extensions": extensions})

    @app.get("/v2/models")
    def list_v2_models() -> flask.Response:
        return answer({"models": list(repository.entries)})

    @app.get("/v2/models/<name>")
    @app.get("/v2/models/<name>/versions/<version>")
    def model_metadata(name: str, version: str = "") -> flask.Response:
        entry = repository.entry(name)
        if version:
            repository.ready_entry(name, version)
        return answer(metadata_of(entry))

    for path in ("/v2/health/live", "/v2/health/ready"):
        _answered_elsewhere(app, path, "GET")
    _answered_elsewhere(app, "/v2/models/<name>/infer", "POST")
    _answered_elsewhere(app, "/v2/models/<name>/versions/<version>/infer", "POST")

    @app.get("/v2/models/<name>/ready")
    @app.get("/v2/models/<name>/versions/<version>/ready")
    def model_ready(name: str, version: str = "") -> flask.Response:
        on_loop(repository.checked_entry(name, version))
        return answer({"name": name, "ready": True})


def metadata_of(entry: "Entry") -> Any:
    """Spec "Model Metadata": platform and tensors are known once the model is loaded."""
    info = entry.model.info if entry.model is not None else None
    if info is None:
        return v2.metadata(entry.name, (), "", [], [])
    return v2.metadata(
        entry.name,
        info.versions,
        info.platform,
        [spec.to_json() for spec in info.inputs],
        [spec.to_json() for spec in info.outputs],
    )


def _register_repository(app: flask.Flask, repository: "Repository", on_loop: OnLoop) -> None:
    """Triton's model repository extension, and KServe's answers to load and unload."""

    def patiently(coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            on_loop(coroutine)
        except FutureTimeout:
            raise NotSupported(f"loading takes longer than {LOAD_WAIT_S:g} s") from None

    @app.post("/v2/repository/index")
    def index() -> flask.Response:
        try:
            wanted = json.loads(flask.request.data or b"{}")
        except ValueError as exc:
            raise InvalidRequest(f"Unrecognized request format: {exc}") from None
        found = repository.index()
        if isinstance(wanted, dict) and wanted.get("ready") is True:
            found = [entry for entry in found if entry["state"] == "READY"]
        return answer(found)

    @app.post("/v2/repository/models/<name>/load")
    def load(name: str) -> flask.Response:
        try:
            patiently(repository.load(name))
        except LoadFailed as error:
            raise ModelNotReady(name, f"it could not be loaded: {error}") from error
        return answer({"name": name, "load": True})

    @app.post("/v2/repository/models/<name>/unload")
    def unload(name: str) -> flask.Response:
        async def run() -> None:
            repository.unload(name)
            await repository.settled(name)

        patiently(run())
        return answer({"name": name, "unload": True})
