"""SeldonMessages and their kin as texts: read what routing needs, edit without decoding the data.

Source: Seldon's wire formats (spec/seldon 2.2, 2.6 to 2.9, 3.1).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from router_fn import body as bodies
from router_fn.gjson.modifiers import items, raw
from router_fn.gjson.values import OBJECT, parse, string_of

ALL: Final = -1
"""The route to all children."""
NONE: Final = -2
"""The route to no child: the input is the answer."""


class SeldonError(Exception):
    """The request ends here with this answer of the orchestrator's own."""

    def __init__(self, info: str, *, status: int = 500, node: str = "") -> None:
        self.status = status
        self.info = f"{node}: {info}" if node else info
        super().__init__(self.info)


def failure(status: int, info: str, reason: str = "") -> bytes:
    """The orchestrator's error body (2.9), with the code of the status."""
    answer: dict[str, Any] = {"code": status, "info": info}
    if reason:
        answer["reason"] = reason
    answer["status"] = "FAILURE"
    return json.dumps({"status": answer}, ensure_ascii=False).encode()


def members(body: bytes) -> dict[bytes, bytes]:
    """The members of a JSON object as raw texts, in order (the last of equals counts); else {}."""
    native = _decoder()
    if native is not None:
        decode, refused = native
        try:
            return {key.encode(): bytes(value) for key, value in decode(body).items()}
        except refused:
            pass  # no object, no JSON, or something that only Go takes for JSON
    if not bodies.is_json(body):
        return {}
    document = parse(body)
    if document is None or body[document[1]] != OBJECT:
        return {}
    return {string_of(key): raw(value) for key, value in items(document) if key is not None}


@cache
def _decoder() -> tuple[Callable[[bytes], dict[str, Any]], tuple[type[Exception], ...]] | None:
    """Cuts an object into its members at native speed, if msgspec is installed."""
    try:
        import msgspec
    except ImportError:
        return None
    decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
    return decode, (msgspec.DecodeError, RecursionError)


def loads(text: bytes) -> Any:
    """Decode what is known to be JSON. Raises ValueError for what is nested too deeply."""
    try:
        import msgspec

        return msgspec.json.decode(text)
    except (ImportError, ValueError, RecursionError):
        pass
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def compose(fields: Mapping[bytes, bytes]) -> bytes:
    """A JSON object of raw texts. They may be large, and are copied once."""
    parts: list[bytes] = []
    for key, value in fields.items():
        parts += (b",", _quoted(key), b":", value)
    return b"".join((b"{", *parts[1:], b"}"))


def _quoted(key: bytes) -> bytes:
    return json.dumps(key.decode("utf-8", "replace"), ensure_ascii=False).encode()


def route_of(body: bytes) -> int:
    """The route that a router's answer names (2.2). Raises ValueError for what names none.

    `[[1]]`, `[1]`, `1`, tensor values and tftensor integers; only the first value counts. Any other
    SeldonMessage means all children.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("its answer is not JSON") from None
    if isinstance(answer, dict):
        data = answer.get("data")
        if not isinstance(data, dict):
            return ALL
        value: Any = data.get("ndarray")
        if isinstance(data.get("tensor"), dict):
            value = data["tensor"].get("values")
        elif isinstance(data.get("tftensor"), dict):
            tensor = data["tftensor"]
            value = tensor.get("intVal") or tensor.get("int64Val") or tensor.get("int_val")
        if value is None:
            return ALL
    else:
        value = answer
    while isinstance(value, list):
        if not value:
            raise ValueError("its route is empty")
        value = value[0]
    if isinstance(value, str) and value.lstrip("-").isdigit() and len(value) < 12:
        value = int(value)  # protobuf's JSON writes 64-bit integers as text
    route = _whole(value)
    if route is None:
        raise ValueError(f"its route {json.dumps(value)[:40]} is no whole number")
    return route


def _whole(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e9:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def chosen_route(body: bytes, node: str) -> int | None:
    """The branch that a feedback's `response.meta.routing` names for a node; None: it says none."""
    try:
        feedback = json.loads(body)
        route = feedback["response"]["meta"]["routing"][node]
    except (ValueError, RecursionError, LookupError, TypeError):
        return None
    return _whole(route)


def nodes_of_feedback(body: bytes) -> set[str]:
    """The nodes that the answer of a feedback names, in its request path and its routes."""
    try:
        meta = json.loads(body)["response"]["meta"]
        return {*(meta.get("requestPath") or {}), *(meta.get("routing") or {})}
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return set()


def aggregate_request(outputs: Sequence[bytes]) -> bytes:
    """What a combiner gets: a JSON array of its children's answers, as they are."""
    return b"[" + b",".join(output.strip(b" \t\r\n") for output in outputs) + b"]"


def tensorflow_request(body: bytes) -> bytes:
    """A TensorFlow request of a request or of the answer before it. Raises ValueError."""
    fields = members(body)
    if b"instances" in fields or b"inputs" in fields:
        return body
    if b"predictions" in fields:
        return compose({b"instances": fields[b"predictions"]})
    if b"outputs" in fields:
        return compose({b"inputs": fields[b"outputs"]})
    raise ValueError("needs `instances` or `inputs` (or `predictions`, `outputs` of a node before)")


def v2_request(body: bytes) -> bytes:
    """A V2 request of a request or of the answer before it. Raises ValueError."""
    fields = members(body)
    if b"inputs" in fields:
        return body
    if b"outputs" in fields:
        kept = {key: fields[key] for key in (b"id",) if key in fields}
        return compose({**kept, b"inputs": fields[b"outputs"]})
    raise ValueError("needs `inputs` (or `outputs` of a node before)")


def with_meta(body: bytes, routing: Mapping[str, int], images: Mapping[str, str]) -> bytes:
    """Add routes and request path to an answer's `meta`, the rest of the text as it is.

    What a node has already said of a route is replaced, of a path it is kept. An answer that is no
    JSON object stays unchanged.
    """
    fields = members(body)
    if not fields or not (routing or images):
        return body
    meta = members(fields.get(b"meta", b"{}"))
    for name, values, ours_win in ((b"routing", routing, True), (b"requestPath", images, False)):
        if not values:
            continue
        known = members(meta.get(name, b"{}"))
        for node, value in values.items():
            if ours_win or node.encode() not in known:
                known[node.encode()] = json.dumps(value, ensure_ascii=False).encode()
        meta[name] = compose(known)
    return compose({**fields, b"meta": compose(meta)})
