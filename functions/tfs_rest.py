"""TensorFlow Serving's REST API over models of the `tensorflow` runtime.

Order of checks as there: JSON -> signature's type -> model and version -> signature ->
instances/inputs.
"""

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from . import jsonio, tensors
from .answers import JSON, Answer
from .engine import Codec
from .errors import InvalidRequest, NotSupported, StatusError
from .model import Call, ServedModel
from .wire import tensorflow as wire

if TYPE_CHECKING:
    from .repository import Entry

Array = np.ndarray[Any, Any]


class TfsCodec(Codec):
    """predict, classify and regress."""

    name = "tensorflow"

    def decode(self, body: Any, route: Any, call: Call) -> Any:
        try:
            document = wire.parse_json(body)
            return document, wire.signature_name(document)
        except wire.Malformed as problem:
            raise InvalidRequest(str(problem)) from None

    def apply(self, model: ServedModel, route: Any, payload: Any, call: Call) -> Any:
        versioned = _versioned(model)
        document, signature_name = payload
        version = versioned.pick(route.version, route.label)
        signature = version.signature(signature_name)
        try:
            if route.verb == "predict":
                return predict(version, signature, document)
            return examples_result(version, signature, document, route.verb)
        except wire.Malformed as problem:
            raise InvalidRequest(str(problem)) from None

    def encode(self, result: Any, route: Any, call: Call) -> Any:
        return json_answer(result)


def _versioned(model: Any) -> Any:
    if not hasattr(model, "pick"):
        raise NotSupported("this model is not of the tensorflow runtime: use V1 or V2")
    return model


def json_answer(value: Any, status: int = 200) -> Answer:
    """JSON with NaN and Infinity as TensorFlow Serving writes them; arrays on one line."""
    if all(isinstance(entry, list) for entry in value.values()):
        lines = ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
        return Answer(status, f"{{\n{lines}\n}}".encode(), JSON)
    return Answer(status, json.dumps(value, indent=4).encode(), JSON)


def predict(version: Any, signature: Any, document: dict[str, Any]) -> dict[str, Any]:
    """Row form -> `predictions`, column form -> `outputs`. Raises Malformed, InvalidRequest."""
    has_rows, has_columns = "instances" in document, "inputs" in document
    if has_rows and has_columns:
        raise wire.Malformed(
            "Not formatted correctly expecting only one of 'instances' or 'inputs' keys"
        )
    if not (has_rows or has_columns):
        raise wire.Malformed("Missing 'inputs' or 'instances' key")
    names = list(signature.inputs)
    if has_rows:
        columns: dict[str, Any] = wire.rows_to_columns(document["instances"], names)
        inputs = {name: _column(signature.inputs[name], rows) for name, rows in columns.items()}
    else:
        columns = wire.column_values(document["inputs"], names)
        inputs = {name: to_array(signature.inputs[name], value) for name, value in columns.items()}
    outputs = version.run(signature, inputs)
    if has_columns:
        plain = {name: to_json(name, array) for name, array in outputs.items()}
        return {"outputs": next(iter(plain.values())) if len(plain) == 1 else plain}
    return {"predictions": _rows(outputs)}


def _column(spec: Any, rows: list[Any]) -> Array:
    """One input of all instances; a fault names the first instance that has it."""
    try:
        return to_array(spec, rows)
    except wire.Malformed as problem:
        first = None
        for index, row in enumerate(rows):
            try:
                array = to_array(spec, row)
            except wire.Malformed as cause:
                raise wire.bad_element(index, spec.name, str(cause)) from None
            if first is not None and array.shape != first:
                text = f"its shape {list(array.shape)} is not that of the first, {list(first)}"
                raise wire.bad_element(index, spec.name, text) from None
            first = array.shape
        raise problem from None


def _rows(outputs: dict[str, Array]) -> list[Any]:
    """Row form: one value (or one object of values) an instance. All outputs have one length."""
    count = None
    for name, array in outputs.items():
        if not array.ndim:
            raise wire.Malformed(
                f"Tensor name: {name} has no shape information: its value is one number for all"
                " instances; ask in column form ('inputs')"
            )
        if count is None:
            count = len(array)
        if len(array) != count:
            raise wire.Malformed(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {count}"
            )
    plain = {name: to_json(name, array) for name, array in outputs.items()}
    if len(plain) == 1:
        only: list[Any] = next(iter(plain.values()))
        return only
    return [{name: values[at] for name, values in plain.items()} for at in range(count or 0)]


def to_array(spec: Any, value: Any) -> Array:
    """JSON value -> array of the signature's dtype, strictly. Raises Malformed, StatusError
    (501)."""
    if spec.datatype in ("FP16", "BF16", ""):
        kind = spec.datatype or "its type"
        raise StatusError(501, f"Tensor {spec.name} of {kind} is not supported in JSON")
    if spec.datatype == "BYTES":
        return _strings(spec, value)
    wanted = tensors.DTYPES[spec.datatype]
    try:
        found = np.asarray(value)
        kinds: tuple[type, ...] = (int, float) if wanted.kind == "f" else (int,)
        if found.dtype.kind in ("O" if wanted.kind == "f" else "Of") and _all(value, kinds):
            found = np.array(value, dtype=wanted)  # integers above 2**63 come as float or object
    except OverflowError:
        raise wire.Malformed(
            f"Tensor {spec.name}: a number is out of range for {spec.datatype}"
        ) from None
    except ValueError:
        raise wire.Malformed(f"Tensor {spec.name}: its elements have different shapes") from None
    if found.size == 0:
        return found.astype(wanted)
    accepted = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}[wanted.kind]
    if found.dtype.kind not in accepted or (accepted != "b" and _has_bool(value)):
        sample = found.ravel()[0] if found.dtype.kind != "O" else value
        raise wire.Malformed(
            f"JSON Value: {_short(sample)} Type: {_type(found)} is not of expected type:"
            f" {_TYPE_NAMES[wanted.kind]}"
        )
    if wanted.kind in "iu":
        limits = np.iinfo(wanted)
        if found.max() > limits.max or found.min() < limits.min:
            raise wire.Malformed(
                f"JSON Value: {_short(found.max())} is out of range for {spec.datatype}"
            )
    return found.astype(wanted)


def _all(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whether nested lists hold nothing but numbers of these kinds."""
    if isinstance(value, list):
        return all(_all(entry, kinds) for entry in value)
    return isinstance(value, kinds) and not isinstance(value, bool)


_TYPE_NAMES = {"f": "float", "i": "int", "u": "uint", "b": "bool"}


def _has_bool(value: Any) -> bool:
    """numpy reads true beside numbers as 1; look only where a list could hide one."""
    while isinstance(value, list):
        if any(isinstance(entry, bool) for entry in value):
            return True
        if any(isinstance(entry, list) for entry in value):
            return any(_has_bool(entry) for entry in value)
        return False
    return isinstance(value, bool)


def _type(found: Array) -> str:
    if found.dtype.kind == "O" and not found.ndim and found.item() is None:
        return "Null"
    return {"U": "String", "b": "Bool", "f": "Number", "i": "Number", "u": "Number"}.get(
        found.dtype.kind, "Object"
    )


def _short(value: Any) -> str:
    text = json.dumps(value.item() if hasattr(value, "item") else value, default=str)
    return text if len(text) < 100 else text[:100] + "…"


def _strings(spec: Any, value: Any) -> Array:
    shape: list[int] = []
    probe = value
    while isinstance(probe, list):
        shape.append(len(probe))
        if not probe:
            break
        probe = probe[0]
    flat: list[bytes] = []
    _flatten(spec, value, shape, 0, flat)
    found = np.empty(len(flat), dtype=object)
    found[:] = flat
    return found.reshape(shape)


def _flatten(spec: Any, value: Any, shape: list[int], depth: int, flat: list[bytes]) -> None:
    if depth < len(shape):
        if not isinstance(value, list) or len(value) != shape[depth]:
            raise wire.Malformed(f"Tensor {spec.name}: its elements have different shapes")
        for entry in value:
            _flatten(spec, entry, shape, depth + 1, flat)
    elif wire.is_b64(value):
        flat.append(wire.decode_b64(value))
    elif isinstance(value, str):
        flat.append(value.encode())
    else:
        raise wire.Malformed(f"JSON Value: {_short(value)} is not of expected type: string")


def to_json(name: str, array: Array) -> Any:
    """Nested lists; strings of outputs named `*_bytes` as {"b64": ...}."""
    if array.dtype.kind in "OSU":
        return _texts(array.tolist(), name.endswith("_bytes"))
    if array.dtype == np.float32:
        # The shortest text that reads back as this float32, not as its float64 neighbour.
        if array.ndim and np.isfinite(array).all():
            return jsonio.loads(jsonio.dumps(np.ascontiguousarray(array)))
        flat = [float(str(v)) for v in array.ravel()]
        return np.asarray(flat, dtype=np.float64).reshape(array.shape).tolist()
    return array.tolist()


def _texts(value: Any, as_bytes: bool) -> Any:
    import base64

    if isinstance(value, list):
        return [_texts(entry, as_bytes) for entry in value]
    raw = value if isinstance(value, bytes) else str(value).encode()
    return {"b64": base64.b64encode(raw).decode()} if as_bytes else raw.decode("utf-8", "replace")


# --- classify and regress -------------------------------------------------------------------------


def serialized_examples(document: dict[str, Any]) -> list[bytes]:
    """`examples` as serialized tf.Example messages; `context` is merged into each."""
    from . import tfs

    examples, context = wire.parse_examples(document)
    found = []
    for example in examples:
        message = tfs.Example()
        for source in (context or {}, example):
            for name, value in source.items():
                kind, values = wire.feature_kind(value if isinstance(value, list) else [value])
                feature = message.features.feature[name]
                feature.Clear()
                getattr(feature, kind).value.extend(values)
        found.append(message.SerializeToString())
    return found


def run_examples(version: Any, signature: Any, serialized: list[bytes], verb: str) -> Any:
    """The outputs of a classify or regress signature. Raises InvalidRequest."""
    if list(signature.inputs) != ["inputs"]:
        raise InvalidRequest(f"Expected one input tensor named inputs for {verb}")
    feed = np.empty(len(serialized), dtype=object)
    feed[:] = serialized
    outputs = version.run(signature, {"inputs": feed})
    if verb == "regress":
        values = outputs.get("outputs")
        if values is None:
            raise InvalidRequest("Expected an output named outputs for regress")
        return np.asarray(values).reshape(len(serialized), -1)[:, 0]
    classes, scores = outputs.get("classes"), outputs.get("scores")
    if classes is None and scores is None:
        raise InvalidRequest("Expected outputs named classes or scores for classify")
    return classes, scores


def examples_result(version: Any, signature: Any, document: dict[str, Any], verb: str) -> Any:
    serialized = serialized_examples(document)
    result = run_examples(version, signature, serialized, verb)
    if verb == "regress":
        return {"results": to_json("", result)}
    return {
        "results": [
            [[label, score] for label, score in row] for row in class_rows(result, len(serialized))
        ]
    }


def class_rows(result: Any, count: int) -> list[list[tuple[str, float]]]:
    """[(label, score), ...] an example; a missing side is "" or 0."""
    classes, scores = result
    shape = (scores if scores is not None else classes).shape
    width = shape[1] if len(shape) > 1 else 1
    labels = (
        _texts(classes.reshape(count, -1).tolist(), False)
        if classes is not None
        else [[""] * width] * count
    )
    values = (
        to_json("", scores.reshape(count, -1)) if scores is not None else [[0.0] * width] * count
    )
    return [list(zip(labels[i], values[i], strict=False)) for i in range(count)]


# --- status and metadata --------------------------------------------------------------------------


def statuses(entry: "Entry", version: str) -> list[tuple[int, Any]]:
    """Version and `Status` of all versions (or one), the newest first. Raises StatusError (404)."""
    model: Any = entry.model
    known = model.statuses if model is not None and hasattr(model, "statuses") else {}
    chosen = {n: s for n, s in known.items() if not version or str(n) == version}
    if not chosen:
        raise StatusError(
            404,
            f"Could not find version {version} of model {entry.name}"
            if version and known
            else f"Could not find any versions of model {entry.name}",
        )
    return sorted(chosen.items(), reverse=True)


def status_document(entry: "Entry", version: str) -> dict[str, Any]:
    """Raises StatusError (404)."""
    return {
        "model_version_status": [
            {
                "version": str(number),
                "state": wire.STATE_NAMES[status.state],
                "status": {
                    "error_code": "UNKNOWN" if status.error else "OK",
                    "error_message": status.error,
                },
            }
            for number, status in statuses(entry, version)
        ]
    }


def metadata_document(entry: "Entry", version: str, label: str) -> dict[str, Any]:
    chosen = _versioned(entry.model).pick(version, label)
    signatures = {name: _signature(s) for name, s in chosen.signatures.items()}
    return {
        "model_spec": {"name": entry.name, "signature_name": "", "version": str(chosen.number)},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }


def _signature(signature: Any) -> dict[str, Any]:
    definition = signature.definition
    return {
        "inputs": {alias: _info(info) for alias, info in sorted(definition.inputs.items())},
        "outputs": {alias: _info(info) for alias, info in sorted(definition.outputs.items())},
        "method_name": definition.method_name,
        "defaults": {},
    }


def _info(info: Any) -> dict[str, Any]:
    names = type(info).DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_number
    return {
        "dtype": names[info.dtype].name,
        "tensor_shape": {
            "dim": [{"size": str(d.size), "name": d.name} for d in info.tensor_shape.dim],
            "unknown_rank": info.tensor_shape.unknown_rank,
        },
        "name": info.name,
    }
