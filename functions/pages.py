"""`/openapi.json` and `/docs`: what this server speaks, for people and for tools. Off the hot
path."""

import json
from collections.abc import Sequence
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
    if "seldon" in protocols:  # all of it is in its own document
        predict = _operation("Predict (Seldon)", _errors(400, 500, 503), "SeldonMessage")
        paths |= {
            "/api/v1.0/predictions": {"post": predict},
            "/seldon.json": {"get": _operation("OpenAPI document of Seldon's wrapper", {})},
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Turnout model server: {', '.join(repository.entries) or 'no models'}",
            "version": __version__,
        },
        "paths": paths,
        "x-models": list(repository.entries),
        "components": {"schemas": _SCHEMAS},
    }


def _operation(
    summary: str,
    responses: dict[str, Any],
    body: str = "",
    *,
    path: bool = False,
    beside: Sequence[str] = (),
) -> Any:
    """`beside`: parameters of the path after the model's name."""
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": "OK"}, **responses},
    }
    if path:
        operation["parameters"] = [_MODEL, *({**_MODEL, "name": name} for name in beside)]
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
        "/v2/models": {"get": _operation("Models of this server", {})},
        **_v2_model(one, ()),
        **_v2_model(one + "/versions/{version}", ("version",)),
        "/v2/repository/index": {"post": _operation("Models known to this server", {})},
        load + "/load": {"post": _operation("Load a model", _errors(404, 503), path=True)},
        load + "/unload": {"post": _operation("Unload a model", _errors(404), path=True)},
    }


def _v2_model(one: str, beside: Sequence[str]) -> dict[str, Any]:
    def operation(summary: str, *codes: int, body: str = "") -> Any:
        return _operation(summary, _errors(*codes), body, path=True, beside=beside)

    infer = operation("Infer (V2)", 400, 404, 413, 500, 503, 504, body="V2Request")
    return {
        one: {"get": operation("Model metadata", 404)},
        one + "/ready": {"get": operation("Model ready?", 404, 503)},
        one + "/infer": {"post": infer},
    }


def _tensorflow_paths() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for which, beside in (
        ("", ()),
        ("/versions/{version}", ("version",)),
        ("/labels/{label}", ("label",)),
    ):
        one = "/v1/models/{model}" + which

        def operation(summary: str, body: str = "", beside: Sequence[str] = beside) -> Any:
            answers = _errors(400, 404, 500, 501, 503)
            return _operation(summary, answers, body, path=True, beside=beside)

        found |= {
            one: {"get": operation("States of the versions")},
            one + "/metadata": {"get": operation("Signatures")},
            one + ":predict": {"post": operation("Predict", "TensorFlowRequest")},
            one + ":classify": {"post": operation("Classify", "ExamplesRequest")},
            one + ":regress": {"post": operation("Regress", "ExamplesRequest")},
        }
    return found


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
    "TensorFlowRequest": {
        "type": "object",
        "description": "one of instances (rows) and inputs (columns)",
        "properties": {
            "signature_name": {"type": "string"},
            "instances": {"type": "array", "minItems": 1, "items": {}},
            "inputs": {},
        },
    },
    "ExamplesRequest": {
        "type": "object",
        "required": ["examples"],
        "properties": {
            "signature_name": {"type": "string"},
            "context": {"type": "object"},
            "examples": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        },
    },
    "SeldonMessage": {
        "type": "object",
        "description": "one of data (ndarray or tensor), jsonData, strData and binData",
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
