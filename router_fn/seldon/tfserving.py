"""SeldonMessages to TensorFlow Serving's REST predict and back (spec/seldon 3.4, 3.5).

Pure. `request_of` makes the upstream body, `answer_of` the SeldonMessage of what came back.

* `data` (ndarray, tensor, tftensor) becomes `{"instances": …, "signature_name": …}`
  in row format, the numbers as they stand; names are dropped.
* a `jsonData` object goes upstream word for word, and the reply comes back as `jsonData`.
* `predictions` come back in the kind of data that was sent, named `t:0`, `t:1`, ...; predictions of
  rank 1 become one row, as they always did.

Faults of the original that are mended: an error of the server keeps its status and comes as a
Seldon `status` with the server's words; input that cannot be converted is 400, not 500.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final, Literal

from router_fn.seldon import tftensor
from router_fn.seldon.messages import SeldonError, compose, failure, loads, members

Kind = Literal["ndarray", "tensor", "tftensor", "jsonData"]
MAX_SPELLED: Final = 64
_BLANKS: Final = b" \t\r\n"
_OF_NUMBERS: Final = b"-+0123456789.eE" + _BLANKS
"""What a list of numbers consists of, but for its brackets and commas."""
_NOTHING = re.compile(rb"\[\s*\]")
_UPSTREAM: Final = "TFSERVING_ERROR"


@dataclass(frozen=True, slots=True)
class Request:
    """What goes upstream, and what the answer needs to know of the question."""

    upstream: bytes
    kind: Kind
    meta: dict[bytes, bytes]


def request_of(body: bytes, signature_name: str) -> Request:
    """The upstream request of a SeldonMessage. Raises SeldonError (400)."""
    sent = _at_once(body) or _step_by_step(body)
    meta = members(sent.get("meta", b"{}"))
    if "jsonData" in sent:
        if sent["jsonData"][:1] != b"{":
            raise SeldonError(
                "jsonData must be an object that TensorFlow Serving takes", status=400
            )
        return Request(sent["jsonData"], "jsonData", meta)
    try:
        kind, pieces = _instances(sent)
    except ValueError as error:
        raise SeldonError(f"data cannot be read: {error}", status=400) from error
    signature = json.dumps(signature_name, ensure_ascii=False).encode()
    head, tail = b'{"instances":', b',"signature_name":'
    return Request(b"".join((head, *pieces, tail, signature, b"}")), kind, meta)


_Sent = dict[str, bytes]
"""Raw texts of what counts in a message: `meta`, and one of `jsonData`, `ndarray`, `tftensor`, or
`shape` and `values`."""


def _at_once(body: bytes) -> _Sent:
    """Found in one pass over the message, which may be large; {} for what is not as usual."""
    native = _decoder()
    if native is None:
        return {}
    decode, refused = native
    try:
        message = decode(body)
    except refused:
        return {}
    found: _Sent = {"meta": bytes(message.meta)}
    if message.data is None:
        return {}
    if message.data.ndarray:
        return found | {"ndarray": bytes(message.data.ndarray)}
    tensor = message.data.tensor
    if tensor is not None and tensor.shape and tensor.values:
        return found | {"shape": bytes(tensor.shape), "values": bytes(tensor.values)}
    return {}


@cache
def _decoder() -> tuple[Callable[[bytes], Any], tuple[type[Exception], ...]] | None:
    """For messages with an ndarray or a tensor, if msgspec is installed."""
    try:
        import msgspec
    except ImportError:
        return None
    raw = msgspec.Raw
    tensor = msgspec.defstruct("Tensor", [("shape", raw, raw(b"")), ("values", raw, raw(b""))])
    data = msgspec.defstruct("Data", [("ndarray", raw, raw(b"")), ("tensor", tensor | None, None)])
    message = msgspec.defstruct("Message", [("data", data | None, None), ("meta", raw, raw(b"{}"))])
    decode = msgspec.json.Decoder(message).decode
    return decode, (msgspec.DecodeError, RecursionError)


def _step_by_step(body: bytes) -> _Sent:
    """The same for any message, with its faults named. Raises SeldonError (400)."""
    fields = members(body)
    if not fields:
        raise SeldonError("the request must be a JSON object", status=400)
    found: _Sent = {"meta": fields.get(b"meta", b"{}")}
    if b"data" in fields:
        data = members(fields[b"data"])
        if b"tensor" in data and b"ndarray" not in data:
            tensor = members(data[b"tensor"])
            shape, values = tensor.get(b"shape", b"null"), tensor.get(b"values", b"null")
            return found | {"shape": shape, "values": values}
        for name in ("ndarray", "tftensor"):
            if name.encode() in data:
                return found | {name: data[name.encode()]}
        raise SeldonError("data has no ndarray, tensor or tftensor", status=400)
    if b"jsonData" in fields:
        return found | {"jsonData": fields[b"jsonData"]}
    sent = next((name for name in ("strData", "binData") if name.encode() in fields), None)
    what = f"{sent} cannot be converted" if sent else "the request has no data"
    raise SeldonError(f"{what}: send data or jsonData", status=400)


def _instances(sent: _Sent) -> tuple[Kind, list[bytes]]:
    """The instances as pieces of JSON."""
    if "ndarray" in sent:
        if sent["ndarray"][:1] != b"[":
            raise SeldonError("data.ndarray must be an array", status=400)
        return "ndarray", [sent["ndarray"]]
    if "shape" in sent:
        return "tensor", _reshaped(sent["shape"], sent["values"])
    return "tftensor", [tftensor.to_lists(loads(sent["tftensor"]))]


def _reshaped(shape_text: bytes, values: bytes) -> list[bytes]:
    """The values nested by their shape, each number as it is written: pieces of JSON, as the whole
    may be large. `values` is JSON."""
    shape = loads(shape_text)
    left = values.translate(None, _OF_NUMBERS)
    if left[:1] != b"[" or left.translate(None, b",") != b"[]" or not tftensor.is_shape(shape):
        raise SeldonError("data.tensor needs a shape and numeric values", status=400)
    count = 0 if _NOTHING.match(values) else len(left) - 1
    if math.prod(shape) != count:
        raise SeldonError(f"{count} values do not have the shape {shape}", status=400)
    if not shape:
        return [values[1:-1].strip(_BLANKS)]
    if not count:
        return [json.dumps(tftensor.empty(shape)).encode()]
    rows: list[bytes] = _rows_of(shape[-1]).findall(values, 1, len(values) - 1)
    for depth, size in enumerate(reversed(shape[1:-1]), 1):
        between = b"]" * depth + b"," + b"[" * depth
        rows = [between.join(rows[at : at + size]) for at in range(0, len(rows), size)]
    if len(shape) == 1:
        return [b"[", rows[0], b"]"]
    depth = len(shape) - 1
    between = b"]" * depth + b"," + b"[" * depth
    pieces = [piece for row in rows for piece in (between, row)]
    return [b"[" * len(shape), *pieces[1:], b"]" * len(shape)]


@lru_cache(maxsize=64)
def _rows_of(size: int) -> re.Pattern[bytes]:
    """So many values, and the comma behind them. Cutting 25,000 numbers one by one takes three
    times as long. Short rows are spelled out: that is faster still."""
    more = rb",[^,]++" * (size - 1) if size <= MAX_SPELLED else rb"(?:,[^,]++){%d}+" % (size - 1)
    return re.compile(rb"([^,]++" + more + rb"),?")


def answer_of(
    request: Request, status: int, body: bytes, image: Mapping[str, str]
) -> tuple[int, bytes]:
    """Status and SeldonMessage for what TensorFlow Serving answered. `image`: node to image."""
    if status != 200:
        return _error_status(status), failure(_error_status(status), _cause(body), _UPSTREAM)
    meta = _meta(request.meta, image)
    fields = members(body)
    if request.kind == "jsonData":
        if not fields:
            text = json.dumps(body.decode("utf-8", "replace"), ensure_ascii=False).encode()
            return 200, compose({b"strData": text, b"meta": meta})
        return 200, compose({b"jsonData": body.strip(b" \t\r\n"), b"meta": meta})
    predictions = fields.get(b"predictions")
    if predictions is None or predictions[:1] != b"[":
        return 502, failure(502, "TensorFlow Serving answered no predictions", _UPSTREAM)
    try:
        data = _data(request.kind, predictions)
    except ValueError as error:
        return 502, failure(502, f"the predictions cannot be read: {error}", _UPSTREAM)
    return 200, compose({b"data": data, b"meta": meta})


def _error_status(status: int) -> int:
    return status if 400 <= status < 600 else 502


def _cause(body: bytes) -> str:
    error = members(body).get(b"error", b"")
    if error[:1] == b'"':
        return str(json.loads(error))
    return body[:2000].decode("utf-8", "replace")


def _data(kind: Kind, text: bytes) -> bytes:
    """Predictions as `data`. Names count the second axis, whatever the rank."""
    predictions: Any = loads(text)
    shape = _shape(predictions)
    if len(shape) < 2:  # numbers, texts or objects: one row of them
        text, predictions = b"[" + text + b"]", [predictions]
        shape = [1, *shape]
    names = b'["t:' + b'","t:'.join(b"%d" % at for at in range(shape[1])) + b'"]'
    if not shape[1]:
        names = b"[]"
    flat = None if kind == "ndarray" else _flat(predictions, shape)
    if flat is None:
        return compose({b"names": names, b"ndarray": text})
    if kind == "tftensor":
        made = tftensor.of_numbers(flat, shape)
    else:
        made = {"shape": shape, "values": flat}
    packed = json.dumps(made, separators=(",", ":")).encode()
    return compose({b"names": names, kind.encode(): packed})


def _shape(value: Any) -> list[int]:
    """The shape of nested lists, as far down as it is regular."""
    shape: list[int] = []
    level = [value]
    while level and all(isinstance(one, list) for one in level):
        sizes = {len(one) for one in level}
        if len(sizes) > 1:
            break
        shape.append(sizes.pop())
        level = [element for one in level for element in one]
    return shape


def _flat(value: Any, shape: list[int]) -> list[Any] | None:
    """Row-major numbers, None if there is anything else."""
    level = [value]
    for _ in shape:
        level = [element for one in level for element in one]
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in level)
    return level if numbers else None


def _meta(request_meta: Mapping[bytes, bytes], image: Mapping[str, str]) -> bytes:
    """What a node passes on of the request's meta, with its own place in the request path."""
    meta = {key: request_meta[key] for key in (b"puid", b"tags", b"metrics") if key in request_meta}
    path = members(request_meta.get(b"requestPath", b"{}"))
    for node, name in image.items():
        path.setdefault(node.encode(), json.dumps(name, ensure_ascii=False).encode())
    if path:
        meta[b"requestPath"] = compose(path)
    return compose(meta)
