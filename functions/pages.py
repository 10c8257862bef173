"""`/openapi.json` and `/docs`: what this server speaks, for people and for tools. Off the hot
path."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flask

if TYPE_CHECKING:
    from .repository import Repository

PAGE = Path(__file__).with_name("docs.html")


def register(app: flask.Flask, repository: "Repository") -> None:
    @app.get("/openapi.json")
    def openapi() -> flask.Response:
        text = json.dumps(document(repository), ensure_ascii=False)
        return flask.Response(text, content_type="application/json")

    @app.get("/docs")
    def docs() -> flask.Response:
        page = PAGE.read_text(encoding="utf-8")
        response = flask.Response(page, content_type="text/html; charset=utf-8")
        # The page has its script and style inside; nothing else may be loaded or embedded.
        response.headers["content-security-policy"] = (
            "default-src 'none'; connect-src 'self'; img-src data:;"
            " script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'none'"
        )
        return response


_ERROR = {
    "description": "what is wrong, and whose fault it is (4xx the client's, 5xx ours)",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
_MODEL = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}


def document(repository: "Repository") -> dict[str, Any]:
    """OpenAPI 3.1 of the protocols that are on."""
    from . import __version__

    protocols = repository.settings.protocol
    paths: dict[str, Any] = {
        "/readyz": {"get": _operation("Ready to predict?", {"503": _ERROR})},
        "/livez": {"get": _operation("Alive?", {})},
        "/metrics": {"get": _operation("Prometheus metrics", {})},
    }
    if "v1" in protocols:
        paths |= _v1_paths()
    if "v2" in protocols:
        paths |= _v2_paths()
    if "tensorflow" in protocols:
        paths |= _tensorflow_paths()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Turnout model server: {', '.join(repository.entries) or 'no models'}",
            "version": __version__,
        },
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }


def _operation(
    summary: str, responses: dict[str, Any], body: str = "", *, path: bool = False
) -> Any:
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": "OK"}, **responses},
    }
    if path:
        operation["parameters"] = [_MODEL]
    if body:
        schema = {"$ref": f"#/components/schemas/{body}"}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    return operation


def _errors(*codes: int) -> dict[str, Any]:
    return {str(code): _ERROR for code in codes}


def _v1_paths() -> dict[str, Any]:
    answers = _errors(400, 404, 413, 500, 501, 503, 504)
    return {
        "/v1/models": {"get": _operation("Models of this server", {})},
        "/v1/models/{model}": {"get": _operation("Model status", _errors(404, 503), path=True)},
        "/v1/models/{model}:predict": {
            "post": _operation("Predict (V1)", answers, "V1Request", path=True)
        },
        "/v1/models/{model}:explain": {
            "post": _operation("Explain (V1)", answers, "V1Request", path=True)
        },
    }


def _v2_paths() -> dict[str, Any]:
    one = "/v2/models/{model}"
    load = "/v2/repository/models/{model}"
    return {
        "/v2": {"get": _operation("Server metadata", {})},
        "/v2/health/live": {"get": _operation("Alive?", {})},
        "/v2/health/ready": {"get": _operation("Ready?", _errors(503))},
        one: {"get": _operation("Model metadata", _errors(404), path=True)},
        one + "/ready": {"get": _operation("Model ready?", _errors(404, 503), path=True)},
        one + "/infer": {
            "post": _operation(
                "Infer (V2)", _errors(400, 404, 413, 500, 503, 504), "V2Request", path=True
            )
        },
        "/v2/repository/index": {"post": _operation("Models known to this server", {})},
        load + "/load": {"post": _operation("Load a model", _errors(404, 503), path=True)},
        load + "/unload": {"post": _operation("Unload a model", _errors(404), path=True)},
    }


def _tensorflow_paths() -> dict[str, Any]:
    one = "/v1/models/{model}"
    answers = _errors(400, 404, 500, 503)
    return {
        one + "/metadata": {"get": _operation("Signatures", answers, path=True)},
        one + ":classify": {"post": _operation("Classify", answers, "V1Request", path=True)},
        one + ":regress": {"post": _operation("Regress", answers, "V1Request", path=True)},
    }


_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {
            "enum": [
                "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64",
                "FP16", "FP32", "FP64", "BF16", "BYTES",
            ]
        },
        "parameters": {"type": "object"},
        "data": {"type": "array"},
    },
}  # fmt: skip

_SCHEMAS: dict[str, Any] = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
    },
    "V1Request": {
        "type": "object",
        "properties": {"instances": {"type": "array", "minItems": 1, "items": {}}},
    },
    "Tensor": _TENSOR,
    "V2Request": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {
                "type": "array",
                "minItems": 1,
                "items": {"$ref": "#/components/schemas/Tensor"},
            },
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
                },
            },
        },
    },
}
