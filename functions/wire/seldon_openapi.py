"""OpenAPI descriptions of Seldon's URLs, a deployment's and a single unit's, and a page of them."""

import html
from collections.abc import Mapping
from typing import Any


def page(title: str, document: Mapping[str, Any]) -> bytes:
    """A page for people: every URL, and the document itself."""
    rows = "".join(
        f"<tr><td>{method.upper()}</td><td><code>{html.escape(path)}</code></td>"
        f"<td>{html.escape(operation['summary'])}</td></tr>"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    title = html.escape(title)
    text = (
        f"<!DOCTYPE html><html lang=en><meta charset=utf-8><title>{title}</title>"
        "<style>body{font:16px sans-serif;margin:2em}td{padding:.3em 1em .3em 0}</style>"
        f"<h1>{title}</h1><table>{rows}</table>"
        "<p>Machine-readable: <a href=seldon.json>seldon.json</a></p></html>"
    )
    return text.encode()


def deployment(name: str) -> dict[str, Any]:
    """OpenAPI 3.0 of a whole deployment under the Seldon protocol."""
    message = {"$ref": "#/components/schemas/SeldonMessage"}
    feedback = {"$ref": "#/components/schemas/Feedback"}
    return {
        "openapi": "3.0.0",
        "info": {"title": name, "version": "v1.0"},
        "paths": {
            "/api/v1.0/predictions": {"post": _operation("Run the graph", message, message)},
            "/api/v1.0/feedback": {"post": _operation("Reward or truth", feedback, message)},
            "/api/v1.0/status": {"get": _operation("Is the graph ready?", None, None)},
            "/api/v1.0/status/{node}": {"get": _operation("One node's health", None, message)},
            "/api/v1.0/metadata": {"get": _operation("Metadata of the graph", None, {})},
            "/api/v1.0/metadata/{node}": {"get": _operation("Metadata of a node", None, {})},
        },
        "components": {"schemas": _SCHEMAS},
    }


def unit(name: str) -> dict[str, Any]:
    """OpenAPI 3.0 of one unit: Seldon's wrapper."""
    message = {"$ref": "#/components/schemas/SeldonMessage"}
    several = {"type": "array", "items": message}
    feedback = {"$ref": "#/components/schemas/Feedback"}
    verbs = {
        "/predict": ("Predict", message),
        "/transform-input": ("Transform a request", message),
        "/transform-output": ("Transform an answer", message),
        "/route": ("Choose a child", message),
        "/aggregate": ("Combine answers", several),
        "/send-feedback": ("Reward or truth", feedback),
    }
    return {
        "openapi": "3.0.0",
        "info": {"title": name, "version": "v1.0"},
        "paths": {
            **{path: {"post": _operation(*said, message)} for path, said in verbs.items()},
            "/api/v1.0/predictions": {"post": _operation("Predict", message, message)},
            "/api/v1.0/feedback": {"post": _operation("Reward or truth", feedback, message)},
            "/health/ping": {"get": _operation("Alive?", None, None)},
            "/health/status": {"get": _operation("The model's own health", None, message)},
            "/metadata": {"get": _operation("Metadata", None, {})},
        },
        "components": {"schemas": _SCHEMAS},
    }


def _operation(summary: str, takes: Any, gives: Any) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": summary}
    if takes is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": takes}}}
    answer: dict[str, Any] = {"description": "OK"}
    if gives is not None:
        answer["content"] = {"application/json": {"schema": gives}}
    operation["responses"] = {"200": answer}
    return operation


_ANY_OBJECT: dict[str, Any] = {"type": "object", "additionalProperties": True}
_MESSAGE = {"$ref": "#/components/schemas/SeldonMessage"}
_SCHEMAS: dict[str, Any] = {
    "SeldonMessage": {
        "type": "object",
        "properties": {
            "status": _ANY_OBJECT,
            "meta": {
                "type": "object",
                "properties": {
                    "puid": {"type": "string"},
                    "tags": _ANY_OBJECT,
                    "routing": {"type": "object", "additionalProperties": {"type": "integer"}},
                    "requestPath": {"type": "object", "additionalProperties": {"type": "string"}},
                    "metrics": {"type": "array", "items": _ANY_OBJECT},
                },
            },
            "data": {
                "type": "object",
                "properties": {
                    "names": {"type": "array", "items": {"type": "string"}},
                    "ndarray": {"type": "array", "items": {}},
                    "tensor": {
                        "type": "object",
                        "properties": {
                            "shape": {"type": "array", "items": {"type": "integer"}},
                            "values": {"type": "array", "items": {"type": "number"}},
                        },
                    },
                    "tftensor": _ANY_OBJECT,
                },
            },
            "binData": {"type": "string", "format": "byte"},
            "strData": {"type": "string"},
            "jsonData": {},
        },
    },
    "Feedback": {
        "type": "object",
        "properties": {
            "request": _MESSAGE,
            "response": _MESSAGE,
            "reward": {"type": "number"},
            "truth": _MESSAGE,
        },
    },
}
