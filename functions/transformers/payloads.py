"""Between callers and predictors of either protocol: what a request holds, what goes on, what comes
back.

A caller speaks V1 (a dict with `instances`, or a raw body) or V2 (an InferRequest, over REST or
gRPC); so does the predictor, independently. Nothing here knows pictures or texts.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from functions import tensors
from functions.errors import AnswerUnusable, InvalidRequest
from functions.inference import InferRequest, InferResponse, Tensor
from functions.wire import v1

from .caller import Caller

Array = np.ndarray[Any, Any]

_PLAIN_ALPHABET = bytes.maketrans(b"-_", b"+/")
_DATA_URL = re.compile(rb"data:[\w.+/-]*(?:;[\w=-]+)*;base64,")


# --- what the request holds


def items(payload: Any, field: str, kind: str, names: Sequence[str], limit: int) -> list[Any]:
    """The images or texts of a request: str or bytes each, or an array for a numeric V2 input.

    `names` are members that hold one, in the order they are looked for. Raises InvalidRequest.
    """
    if isinstance(payload, InferRequest):
        found: list[Any] = _of_tensor(payload, field, kind)
    elif isinstance(payload, (bytes, bytearray, memoryview)):
        found = [bytes(payload)]
    else:
        rows, problem = v1.instances_of(payload)
        if rows is None:
            raise InvalidRequest(f"{problem}; or send the {kind} itself as the body")
        found = [member(row, field, kind, names, index) for index, row in enumerate(rows)]
    if not found:
        raise InvalidRequest(f"the request holds no {kind}")
    if len(found) > limit:
        raise InvalidRequest(
            f"the request holds {len(found)} {kind}s, more than {limit}: send several requests"
        )
    return found


def _of_tensor(request: InferRequest, field: str, kind: str) -> list[Any]:
    tensor = request.get_input_by_name(field) if field else request.inputs[0]
    if tensor is None:
        given = ", ".join(tensor.name for tensor in request.inputs)
        raise InvalidRequest(f"the request has no input {field!r} (it has {given})")
    array = tensor.as_numpy()
    if tensor.datatype != "BYTES":
        return [array]
    if array.ndim > 2 or (array.ndim == 2 and array.shape[1] != 1):
        raise InvalidRequest(
            f"input {tensor.name!r} must have shape [n] or [n, 1], one {kind} each, not"
            f" {tensor.shape}"
        )
    elements: list[Any] = array.ravel().tolist()
    return elements


def member(row: Any, field: str, kind: str, names: Sequence[str], index: int) -> Any:
    """What holds the image or text in a V1 instance. Raises InvalidRequest."""
    if not isinstance(row, dict):
        if field:
            raise InvalidRequest(f"instance {index} must be an object with {field!r}")
        return row
    if field:
        if field not in row:
            raise InvalidRequest(f"instance {index} has no {field!r}")
        return row[field]
    for name in names:
        if name in row:
            return row[name]
    if len(row) == 1:
        return next(iter(row.values()))
    raise InvalidRequest(
        f"instance {index} has none of {', '.join(names)}: send one, or set the transformer's"
        " parameter field"
    )


def encoded_bytes(value: Any, where: str, limit: int) -> bytes:
    """The bytes behind a JSON value: base64 text (of either alphabet), a data URL or `{"b64": …}`;
    bytes that are no base64 as they are. Raises InvalidRequest."""
    if isinstance(value, dict) and set(value) == {"b64"}:
        value = value["b64"]
    if isinstance(value, str):
        text = value.encode("utf-8", "replace")
        raw = None
    elif isinstance(value, (bytes, bytearray)):
        text = raw = bytes(value)
    else:
        raise InvalidRequest(f'{where} must be base64 text or {{"b64": TEXT}}')
    text = text[match.end() :] if (match := _DATA_URL.match(text)) else text
    if len(text) > (limit * 4 // 3 + 4 if raw is None else limit * 2):
        raise InvalidRequest(f"{where} is larger than {limit} bytes: send a smaller one")
    packed = b"".join(text.split())
    if raw is None:  # RFC 4648's other alphabet, and padding left out, are common in URLs
        packed = packed.translate(_PLAIN_ALPHABET) + b"=" * (-len(packed) % 4)
    try:
        decoded = base64.b64decode(packed, validate=True)
    except binascii.Error as error:
        if raw is None:
            raise InvalidRequest(f"{where} is not base64: {error}") from None
        decoded = raw
    if not decoded:
        raise InvalidRequest(f"{where} is empty")
    if len(decoded) > limit:
        raise InvalidRequest(
            f"{where} has {len(decoded)} bytes, more than {limit}: send a smaller one"
        )
    return decoded


# --- what goes on to the predictor


def to_v2(payload: Any, model: str, named: Sequence[tuple[str, Array]]) -> InferRequest:
    """A V2 request with these tensors, under the id of the caller's."""
    known = isinstance(payload, InferRequest)
    return InferRequest(
        payload.model_name if known else model,
        [Tensor(name, data=array) for name, array in named],
        payload.id if known else "",
        dict(payload.parameters) if known else None,
    )


# --- what comes back


def scores(result: Any, output: str, predictor: str) -> Array:
    """The predictor's numbers, one row an instance. Raises AnswerUnusable."""
    if isinstance(result, InferResponse):
        if not result.outputs:
            raise AnswerUnusable(predictor, "has no outputs")
        tensor = result.get_output_by_name(output) if output else result.outputs[0]
        if tensor is None:
            given = ", ".join(tensor.name for tensor in result.outputs)
            raise AnswerUnusable(predictor, f"has no output {output!r} (it has {given})")
        try:
            return tensor.as_numpy()
        except InvalidRequest as error:
            raise AnswerUnusable(predictor, f"cannot be read: {error}") from None
    rows = _predictions(result, predictor)
    if output:
        try:
            rows = [row[output] for row in rows]
        except (KeyError, TypeError):
            raise AnswerUnusable(predictor, f"has predictions without {output!r}") from None
    try:
        return np.asarray(rows)
    except ValueError:
        raise AnswerUnusable(predictor, "has predictions of different lengths") from None


def _predictions(result: Any, predictor: str) -> list[Any]:
    rows = result.get("predictions") if isinstance(result, dict) else None
    if not isinstance(rows, list):
        raise AnswerUnusable(predictor, 'has no "predictions", a list')
    return rows


def passed_on(result: Any, caller: Caller, predictor: str) -> Any:
    """The predictor's answer in the protocol of the caller."""
    if isinstance(result, InferResponse) or not caller.v2:
        return result  # the server writes tensors as V1 predictions itself
    rows = _predictions(result, predictor)
    if any(isinstance(row, dict) for row in rows):
        from functions import jsonio

        rows = [jsonio.dumps(row).decode() for row in rows]
    try:
        return InferResponse("", "", [Tensor("output-0", data=np.asarray(rows))])
    except (TypeError, ValueError):
        raise AnswerUnusable(predictor, "has predictions that make no tensor") from None


def as_datatype(array: Array, datatype: str) -> Array:
    """Contiguous, of a V2 datatype; whole-number types are rounded and limited to their range."""
    dtype = tensors.DTYPES[datatype]
    if dtype.kind in "iu" and array.dtype != dtype:
        limits = np.iinfo(dtype)
        rounded = np.rint(array) if array.dtype.kind == "f" else array.astype(np.int64)
        array = np.clip(rounded, limits.min, limits.max)
    return np.ascontiguousarray(array, dtype=dtype)
