"""TensorFlow Serving's REST API: paths, forms and texts. Standard library only.

Spec "TensorFlow Serving", sections "REST URLs", "Predict", "Classify / regress".
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

VERBS = ("predict", "classify", "regress")

_MODEL = r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?"
_ACTION = re.compile(_MODEL + r":(predict|classify|regress)", re.IGNORECASE)
_STATUS = re.compile(_MODEL + r"(/metadata)?", re.IGNORECASE)
_INT64_MAX = (1 << 63) - 1

# The canonical codes of absl::Status, by number, and their HTTP statuses.
HTTP_STATUS = {
    0: 200, 1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409,
    11: 400, 12: 501, 13: 500, 14: 503, 15: 500, 16: 401,
}  # fmt: skip

START, LOADING, AVAILABLE, UNLOADING, END = 10, 20, 30, 40, 50
STATE_NAMES = {10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}


class Malformed(ValueError):
    """400; the text is the answer's error."""


class Target:
    """What a URL asks for."""

    __slots__ = ("action", "label", "model", "version")

    def __init__(self, model: str, version: str, label: str, action: str) -> None:
        self.model = model
        self.version = version
        self.label = label
        self.action = action
        """`status`, `metadata`, or one of VERBS."""


def parse_path(method: str, path: str) -> Target:
    """Raises Malformed for everything under /v1/ that is no request. The match is
    case-insensitive."""
    malformed = Malformed(f"Malformed request: {method} {path}")
    if method == "POST":
        match = _ACTION.fullmatch(path)
        action = match[4].lower() if match else ""
    elif method == "GET":
        if path.rstrip("/").lower() == "/v1/models":
            raise Malformed(f"Missing model name in request: {method} {path}")
        match = _STATUS.fullmatch(path)
        action = ("metadata" if match[4] else "status") if match else ""
    else:
        match, action = None, ""
    if match is None:
        raise malformed
    if match[2] and int(match[2]) > _INT64_MAX:
        raise malformed
    version = str(int(match[2])) if match[2] else ""
    return Target(unquote(match[1]), version, unquote(match[3] or ""), action)


def allows_preflight(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether an OPTIONS request comes from a page: its Origin is an http(s) URL."""
    origin = next((value for name, value in headers if name.lower() == b"origin"), b"")
    return re.match(rb"https?://", origin, re.IGNORECASE) is not None


def parse_json(body: bytes) -> Any:
    """TensorFlow Serving reads NaN and Infinity, and ignores what follows the object."""
    try:
        text = body.decode("utf-8").lstrip()
        if not text:
            raise Malformed("JSON Parse error: The document is empty")
        return json.JSONDecoder().raw_decode(text)[0]
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as exc:
        raise Malformed(f"JSON Parse error: {exc}") from None


def signature_name(document: Any) -> str:
    if not isinstance(document, dict):
        raise Malformed("JSON Value: is not an object")
    name = document.get("signature_name", "serving_default")
    if not isinstance(name, str):
        raise Malformed("'signature_name' key must be a string value.")
    return name or "serving_default"


def is_b64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and "b64" in value


def decode_b64(value: Any) -> bytes:
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise Malformed("Unable to base64 decode the value of a 'b64' object") from None


def bad_element(index: int, key: str, cause: str) -> Malformed:
    """What is wrong with one of the instances."""
    which = f"{index} key: {key}" if key else str(index)
    return Malformed(
        f"Failed to process element: {which} of 'instances' list. Error: INVALID_ARGUMENT: {cause}"
    )


def rows_to_columns(instances: Any, names: list[str]) -> dict[str, list[Any]]:
    """Row form: name -> list with one value an instance. `names` are the signature's inputs."""
    if not isinstance(instances, list) or not instances:
        raise Malformed("'instances' must be a list/array of at least one value")
    first = instances[0]
    if not isinstance(first, dict) or is_b64(first):
        if any(isinstance(row, dict) and not is_b64(row) for row in instances):
            raise Malformed("'instances' mixes objects and plain values")
        if len(names) != 1:
            raise Malformed(
                f"instances is a plain list, but expecting list of objects as multiple input"
                f" tensors required as per tensorinfo_map ({', '.join(names)})"
            )
        return {names[0]: instances}
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for index, row in enumerate(instances):
        if not isinstance(row, dict) or is_b64(row):
            raise Malformed("'instances' mixes objects and plain values")
        if set(row) != set(names):
            text = f"its keys {sorted(row)} are not the inputs {sorted(names)}"
            raise bad_element(index, "", text)
        for name, value in row.items():
            columns[name].append(value)
    return columns


def column_values(inputs: Any, names: list[str]) -> dict[str, Any]:
    """Column form: name -> value. Extra names are ignored, a missing one is a fault."""
    if isinstance(inputs, dict) and not is_b64(inputs):
        missing = [name for name in names if name not in inputs]
        if missing:
            raise Malformed(f"Missing named input tensor: {missing[0]}")
        return {name: inputs[name] for name in names}
    if len(names) != 1:
        raise Malformed(
            "inputs is a plain value/list, but expecting an object as multiple input tensors"
            f" required as per tensorinfo_map ({', '.join(names)})"
        )
    return {names[0]: inputs}


def feature_kind(values: list[Any]) -> tuple[str, list[Any]]:
    """A feature of an Example: its kind follows from its first element. Raises Malformed."""
    if not values:
        return "int64_list", []
    first = values[0]
    allowed: tuple[type, ...]
    if isinstance(first, (bool, int)):
        kind, allowed = "int64_list", (bool, int)
    elif isinstance(first, float):
        kind, allowed = "float_list", (float,)
    elif isinstance(first, str) or is_b64(first):
        kind, allowed = "bytes_list", (str, dict)
    else:
        raise Malformed(f"Unexpected element {first!r} in a feature")
    return kind, [_element(kind, value, allowed) for value in values]


def _element(kind: str, value: Any, allowed: tuple[type, ...]) -> Any:
    fits: bool = isinstance(value, allowed)
    if not fits or (isinstance(value, dict) and not is_b64(value)):
        raise Malformed("The elements of a feature are not all of one type")
    if kind == "bytes_list":
        return decode_b64(value) if isinstance(value, dict) else value.encode()
    if kind == "int64_list" and not -_INT64_MAX - 1 <= int(value) <= _INT64_MAX:
        raise Malformed("An integer of a feature is out of range for int64")
    return int(value) if kind == "int64_list" else value


def parse_examples(document: Any) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """`examples` (and `context`) of classify and regress. Raises Malformed."""
    examples = document.get("examples")
    if not isinstance(examples, list) or not examples:
        raise Malformed(
            "When method is classify/regress, key 'examples' is expected and was not found"
        )
    context = document.get("context")
    if context is not None and not isinstance(context, dict):
        raise Malformed("'context' must be an object")
    if any(not isinstance(example, dict) for example in examples):
        raise Malformed("Every element of 'examples' must be an object")
    return examples, context
