"""Seldon's Python contract (spec "Python user-model contract"), served over V1 and V2.

`predict(X, names[, meta])`, around it `transform_input` and `transform_output`; `predict_raw` and
the like get a SeldonMessage-shaped dict (`{"data": {"names": [...], "ndarray": [...]}}`) and win
over the plain hooks. A class with only `transform_input` (a transformer) answers what it returns.
`tags` and `metrics` are reported as `meta` beside V1 predictions. Signatures are read once, at
load.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from functions import hooks, tensors
from functions.errors import InvalidRequest, NotSupported
from functions.inference import InferRequest, InferResponse, Tensor, new_id
from functions.model import Call, ModelInfo, ServedModel
from functions.wire import v1

STAGES = ("transform_input", "predict", "transform_output")
OTHER = ("route", "aggregate", "send_feedback")


class SeldonHooks(ServedModel):
    """A user object whose hooks are spelled as Seldon spells them."""

    def __init__(self, target: Any, *, threads: int = 1) -> None:
        self.target = target
        self.threads = threads
        self._plan = [hook for stage in STAGES if (hook := _stage(target, stage)) is not None]
        self._tags = hooks.find(target, "tags")
        self._metrics = hooks.find(target, "metrics")
        self.info = ModelInfo(platform="python_seldon", properties=_init_metadata(target))
        versions = self.info.properties.get("versions")
        if isinstance(versions, list):
            self.info.versions = tuple(str(version) for version in versions)

    def v1(self, verb: str, payload: Any, call: Call) -> Any:
        if verb != "predict":
            raise NotSupported(f"this model has no {verb} method")
        if isinstance(payload, Mapping):
            rows, problem = v1.instances_of(payload)
            if rows is None:
                raise InvalidRequest(problem or "the body is not usable")
            values, names = _matrix(rows)
        else:
            values, names = payload, []  # bytes, as binData would come
        result = self._run(values, names, call)
        answer: dict[str, Any] = {"predictions": result}
        meta = self._meta()
        if meta:
            answer["meta"] = meta
        return answer

    def v2(self, request: InferRequest, call: Call) -> InferResponse:
        first = request.inputs[0]
        names = request.parameters.get("names") or first.parameters.get("names") or []
        if isinstance(names, str):
            names = names.split(",")
        result = tensors.as_array(self._run(first.as_numpy(), names, call))
        return InferResponse(
            request.id or new_id(), request.model_name, [Tensor("output-0", data=result)]
        )

    def _run(self, values: Any, names: list[str], call: Call) -> Any:
        if not self._plan:
            raise NotSupported("this model has neither predict nor a transform hook")
        for stage, hook in self._plan:
            since = time.perf_counter()
            values = hook(values, names)
            call.spent("predict" if stage == "predict" else "preprocess", since)
            data = getattr(values, "data", None)
            if hasattr(values, "tags") and data is not None and not isinstance(values, np.ndarray):
                values = data  # a response object with data, tags and metrics
        return values

    def _meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = {}
        if self._tags is not None:
            meta["tags"] = self._tags()
        if self._metrics is not None:
            meta["metrics"] = self._metrics()
        return meta


def _stage(target: Any, stage: str) -> tuple[str, Callable[[Any, list[str]], Any]] | None:
    """The hook of a stage as a function of (values, names), or None when the class has none."""
    raw = hooks.find(target, stage + "_raw")
    if raw is not None:
        call_raw = raw

        def from_message(values: Any, names: list[str]) -> Any:
            return _unwrap(call_raw(_wrap(values, names)))

        return stage, from_message
    plain = hooks.find(target, stage)
    if plain is None:
        return None
    takes_meta = hooks.takes_keyword(plain, "meta")
    trimmed = hooks.trimmed(plain)
    if not takes_meta:
        return stage, lambda values, names: trimmed(values, names)
    with_meta = plain
    return stage, lambda values, names: with_meta(values, names, meta={})


def _wrap(values: Any, names: list[str]) -> dict[str, Any]:
    if isinstance(values, (bytes, bytearray)):
        return {"binData": bytes(values)}
    if isinstance(values, str):
        return {"strData": values}
    plain = values.tolist() if hasattr(values, "tolist") else values
    return {"data": {"names": list(names), "ndarray": plain}}


def _unwrap(message: Any) -> Any:
    """The payload of a SeldonMessage-shaped dict; anything else as it is."""
    if not isinstance(message, Mapping):
        return message
    data = message.get("data")
    if isinstance(data, Mapping):
        if "ndarray" in data:
            return data["ndarray"]
        tensor = data.get("tensor")
        if isinstance(tensor, Mapping):
            return np.asarray(tensor.get("values", [])).reshape(tensor.get("shape", [-1]))
    for key in ("jsonData", "strData", "binData"):
        if key in message:
            return message[key]
    return message


def _matrix(rows: list[Any]) -> tuple[Any, list[str]]:
    """Instances as an array, and the feature names when the instances are objects."""
    if rows and isinstance(rows[0], dict):
        names = list(rows[0])
        try:
            return np.array([[row[name] for name in names] for row in rows]), names
        except (KeyError, TypeError, ValueError):
            raise InvalidRequest("all instances must have the same features") from None
    try:
        return np.asarray(rows), []
    except ValueError:
        raise InvalidRequest(
            "the instances are ragged: every one must have the same shape"
        ) from None


def _init_metadata(target: Any) -> dict[str, Any]:
    init = hooks.find(target, "init_metadata")
    found = init() if init is not None else None
    return dict(found) if isinstance(found, Mapping) else {}
