"""Seldon's wrapper API over HTTP: predictions, transforms, route, aggregate, feedback, health,
metadata."""

import logging
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from . import answers, hooks, jsonio
from . import seldon_message as sm
from .answers import JSON, Answer
from .engine import Codec
from .errors import FunctionsError, NotSupported
from .model import Call, ServedModel

logger = logging.getLogger(__name__)

PATHS = {
    "/predict": "predict",
    "/api/v1.0/predictions": "predict",
    "/api/v0.1/predictions": "predict",
    "/send-feedback": "send_feedback",
    "/api/v1.0/feedback": "send_feedback",
    "/api/v0.1/feedback": "send_feedback",
    "/transform-input": "transform_input",
    "/transform-output": "transform_output",
    "/route": "route",
    "/aggregate": "aggregate",
}

READS = {
    "/health/ping": "ping",
    "/health/status": "health",
    "/api/v1.0/health/status": "health",
    "/metadata": "metadata",
    "/api/v1.0/metadata": "metadata",
}


def query_json(target: bytes) -> bytes:
    """The body of a GET: its query parameter `json`."""
    query = target.partition(b"?")[2].decode("latin-1")
    return parse_qs(query).get("json", [""])[0].encode()


class SeldonCodec(Codec):
    name = "seldon"

    def decode(self, body: Any, route: Any, call: Call) -> Any:
        if route.verb in READS.values():
            return {}
        return sm.parse(body)

    def apply(self, model: ServedModel, route: Any, payload: Any, call: Call) -> Any:
        target = getattr(model, "target", None)
        if target is None:
            raise NotSupported("the seldon protocol serves user classes (the python runtime)")
        unit = self.settings.environ.get("PREDICTIVE_UNIT_ID", "")
        image = self.settings.environ.get("PREDICTIVE_UNIT_IMAGE", "")
        return _VERBS[route.verb](Unit(target, unit, image), payload)

    def encode(self, result: Any, route: Any, call: Call) -> Any:
        if isinstance(result, str):
            return Answer(200, result.encode(), answers.TEXT)
        status = 200
        own = result.get("status") if isinstance(result, Mapping) else None
        if (
            isinstance(own, Mapping)
            and isinstance(own.get("code"), int)
            and 200 <= own["code"] <= 599
        ):
            status = own["code"]
        return Answer(status, jsonio.dumps(result), JSON)

    def refuse(self, error: FunctionsError) -> Answer:
        cause = error.__cause__
        info = str(cause) if cause is not None and error.http_status() == 500 else str(error)
        body = sm.fault(error.http_status(), info)
        return Answer(error.http_status(), jsonio.dumps(body), JSON, error.response_headers())


class Unit:
    """A user object and where it stands in the graph."""

    def __init__(self, target: Any, unit: str, image: str) -> None:
        self.target = target
        self.unit = unit
        self.image = image

    def hook(self, name: str) -> Callable[..., Any] | None:
        return hooks.find(self.target, name)

    def answer(self, result: Any, requests: list[Any], kind: str) -> dict[str, Any]:
        """Payload and meta around a result, with what the model reports about itself."""
        tags_hook, metrics_hook = self.hook("tags"), self.hook("metrics")
        tags = dict(tags_hook()) if tags_hook else {}
        metrics = list(metrics_hook()) if metrics_hook else []
        if hasattr(result, "data") and hasattr(result, "tags") and hasattr(result, "metrics"):
            tags.update(result.tags or {})
            metrics.extend(result.metrics or [])
            result = result.data
        fields = sm.result_fields(result, kind, self.class_names())
        return {**fields, "meta": sm.merge_meta(requests, tags, metrics, self.unit, self.image)}

    def class_names(self) -> Any:
        names = getattr(self.target, "class_names", None)
        return names() if callable(names) else names

    def raw(self, verb: str, message: Any) -> Any:
        """The `_raw` hook's result, or None when there is no such hook."""
        names = [verb + "_raw", "predict_rest"] if verb == "predict" else [verb + "_raw"]
        found = next((hook for name in names if (hook := self.hook(name)) is not None), None)
        return None if found is None else found(message)

    def meta_argument(self, hook: Callable[..., Any], message: Any) -> dict[str, Any]:
        return {"meta": message.get("meta")} if hooks.takes_keyword(hook, "meta") else {}


def _transform(verb: str) -> Callable[[Unit, Any], Any]:
    def run(unit: Unit, message: Any) -> Any:
        raw = unit.raw(verb, message)
        if raw is not None:
            return raw
        values, names, kind = sm.payload(message)
        hook = unit.hook(verb)
        if hook is None and verb == "predict":
            raise NotSupported("this model has no predict method")
        result = values
        if hook is not None:
            extra = unit.meta_argument(hook, message)
            result = hook(values, names, **extra) if extra else hooks.trimmed(hook)(values, names)
        return unit.answer(result, [message], kind)

    return run


def _route(unit: Unit, message: Any) -> Any:
    raw = unit.raw("route", message)
    if raw is not None:
        return raw
    values, names, kind = sm.payload(message)
    hook = unit.hook("route")
    if hook is None:
        raise sm.BadData("Route not defined")
    extra = unit.meta_argument(hook, message)
    branch = hook(values, names, **extra) if extra else hooks.trimmed(hook)(values, names)
    if not hasattr(branch, "__index__") or isinstance(branch, bool):
        raise sm.BadData(f"Routing response must be int but got {branch}")
    return unit.answer([[int(branch)]], [message], kind)


def _aggregate(unit: Unit, body: Any) -> Any:
    messages = body.get("seldonMessages") if isinstance(body, Mapping) else body
    if not isinstance(messages, list) or not messages:
        raise sm.BadData(f"Invalid request data type: {body}")
    raw = unit.raw("aggregate", body)
    if raw is not None:
        return raw
    hook = unit.hook("aggregate")
    if hook is None:
        raise sm.BadData("Aggregate not defined")
    parts = [sm.payload(message) for message in messages]
    result = hook([values for values, _, _ in parts], [names for _, names, _ in parts])
    return unit.answer(result, messages, parts[0][2])


def _feedback(unit: Unit, body: Any) -> Any:
    if not isinstance(body, Mapping):
        raise sm.BadData(f"Invalid request data type: {body}")
    raw = unit.raw("send_feedback", body)
    if raw is not None:
        return raw
    request = body.get("request")
    values: Any = None
    names: list[str] = []
    kind, truth = "tensor", None
    if isinstance(request, Mapping) and isinstance(request.get("data"), Mapping):
        values, names, kind = sm.payload(request)
    if isinstance(body.get("truth"), Mapping) and isinstance(body["truth"].get("data"), Mapping):
        truth = sm.payload(body["truth"])[0]
    hook = unit.hook("send_feedback")
    meta = sm.merge_meta([], {}, [], unit.unit, unit.image)
    if hook is None:
        return {"data": {"ndarray": []}, "meta": meta}
    response = body.get("response")
    routing = ((response or {}).get("meta") or {}).get("routing") or {}
    branch = routing.get(unit.unit) if isinstance(routing, Mapping) else None
    reward = body.get("reward", 0.0)
    if hooks.takes_keyword(hook, "routing"):
        result = hook(values, names, reward, truth, routing=branch)
    else:
        result = hooks.trimmed(hook)(values, names, reward, truth, branch)
    if result is None:
        return {"data": {"ndarray": []}, "meta": meta}
    return unit.answer(result, [], kind)


def _ping(unit: Unit, _: Any) -> Any:
    return "pong"


def _health(unit: Unit, _: Any) -> Any:
    hook = unit.hook("health_status")
    return unit.answer("healthy" if hook is None else hook(), [], "tensor")


def _metadata(unit: Unit, _: Any) -> Any:
    name, _, version = unit.image.rpartition(":")
    document: dict[str, Any] = {
        "name": name or unit.image,
        "versions": [version] if name else [],
        "platform": "",
        "inputs": [],
        "outputs": [],
        "custom": {},
    }
    hook = unit.hook("init_metadata")
    found = hook() if hook is not None else None
    if isinstance(found, Mapping):
        document.update(found)
    return document


_VERBS: dict[str, Callable[[Unit, Any], Any]] = {
    "predict": _transform("predict"),
    "transform_input": _transform("transform_input"),
    "transform_output": _transform("transform_output"),
    "route": _route,
    "aggregate": _aggregate,
    "send_feedback": _feedback,
    "ping": _ping,
    "health": _health,
    "metadata": _metadata,
}
