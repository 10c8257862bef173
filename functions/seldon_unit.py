"""A user's object behind Seldon's contract, whatever transport asks (spec "Python user-model
contract").

Signatures are read once, when the unit is made: whether a hook takes `meta` is never found out by
calling it. Messages are JSON objects; `raw` hooks get what the transport has (a JSON object over
REST, a protobuf message over gRPC), and their answers go out as they are.
"""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import hooks, seldon_metadata
from . import seldon_message as sm
from .seldon_metrics import UserMetrics

VERBS = ("predict", "transform_input", "transform_output", "route", "aggregate", "send_feedback")
METHODS = {
    "predict": "predict",
    "transform_input": "inputtransform",
    "transform_output": "outputtransform",
    "route": "router",
    "aggregate": "aggregate",
    "send_feedback": "feedback",
    "health": "health",
}
"""Verb -> the label `method` of user metrics."""

_RAW_ALIASES = {"predict": ("predict_rest", "predict_grpc")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Where a unit stands: Seldon's environment contract."""

    unit: str = ""
    image: str = ""
    predictor: str = ""
    deployment: str = ""
    version: str = ""
    """Label `version` of the predictor."""
    returns_metrics: bool = True
    """INCLUDE_METRICS_IN_CLIENT_RESPONSE."""


class Unit:
    """One user object. Calls may come from several threads."""

    def __init__(self, target: Any, identity: Identity, metadata: seldon_metadata.Metadata) -> None:
        self.target = target
        self.identity = identity
        self.metadata = metadata
        self.metrics = UserMetrics(
            deployment=identity.deployment,
            predictor=identity.predictor,
            predictor_version=identity.version,
            unit=identity.unit,
            image=identity.image,
        )
        found = {name: hooks.find(target, name) for name in (*VERBS, "health_status")}
        self._hooks = {name: _plain(name, hook) for name, hook in found.items() if hook is not None}
        self._raw = {verb: _raw_hook(target, verb) for verb in (*VERBS, "health_status")}
        self._tags = hooks.find(target, "tags")
        self._metrics = hooks.find(target, "metrics")
        self._class_names = hooks.find(target, "class_names")

    def raw(self, verb: str) -> Callable[..., Any] | None:
        """The hook that takes whole messages, if there is one."""
        return self._raw.get(verb)

    def run(self, verb: str, message: Any) -> Any:
        """Answer a message with the plain hooks. Raises BadData, BadResult and what user code
        raises."""
        if verb == "aggregate":
            return self._aggregate(message)
        if verb == "send_feedback":
            return self._feedback(message)
        if verb == "health":
            hook = self._hooks.get("health_status")
            return self._answer(verb, hook() if hook else "healthy", [], "tensor")
        values, names, kind = sm.payload(message)
        hook = self._hooks.get(verb)
        if verb == "route":
            return self._route(hook, values, names, kind, message)
        if hook is not None:
            result = hook(values, names, message.get("meta"))
        else:  # a transform changes nothing; a model without predict predicts nothing
            result = values if verb != "predict" else []
        return self._answer(verb, result, [message], kind)

    def _route(self, hook: Any, values: Any, names: list[str], kind: str, message: Any) -> Any:
        if hook is None:
            raise sm.BadData("Route not defined")
        branch = hook(values, names, message.get("meta"))
        if not hasattr(branch, "__index__"):
            shown = str(branch)[:200]
            raise sm.BadData(f"Routing response must be int but got {shown}")
        return self._answer("route", [[int(branch)]], _puid_only(message), kind)

    def _aggregate(self, body: Any) -> Any:
        messages = messages_of(body)
        hook = self._hooks.get("aggregate")
        parts = [sm.payload(message) for message in messages]
        if hook is None:
            raise sm.BadData("Aggregate not defined")
        if not parts:
            raise sm.BadData("there is nothing to aggregate")
        result = hook([values for values, _, _ in parts], [names for _, names, _ in parts])
        return self._answer("aggregate", result, messages, parts[0][2])

    def _feedback(self, body: Any) -> Any:
        feedback = feedback_of(body)
        request, response = feedback.get("request") or {}, feedback.get("response") or {}
        values, names, kind = _numbers(request)
        truth, _, _ = _numbers(feedback.get("truth") or {})
        routing = (response.get("meta") or {}).get("routing") or {}
        reward = float(feedback.get("reward") or 0.0)
        self.metrics.rewarded(reward)
        hook = self._hooks.get("send_feedback")
        result = None
        if hook is not None:
            result = hook(values, names, reward, truth, routing.get(self.identity.unit))
        told = _puid_only(request)
        if result is not None:
            return self._answer("send_feedback", result, told, kind)
        tags, metrics = self._reported()
        self.metrics.observe(METHODS["send_feedback"], metrics)
        empty: dict[str, Any] = {"ndarray": []} if kind == "ndarray" else {"tensor": {"shape": [0]}}
        return {"data": empty, "meta": self._meta(told, tags, metrics)}

    def _answer(self, verb: str, result: Any, requests: Sequence[Any], kind: str) -> dict[str, Any]:
        """Payload and meta around a result, with what the model reports about itself."""
        tags, metrics = self._reported()
        if all(hasattr(result, name) for name in ("data", "tags", "metrics")):
            tags.update(result.tags or {})
            metrics.extend(sm.checked_metrics(result.metrics or []))
            result = result.data
        fields = sm.result_fields(result, kind, self.class_names())
        self.metrics.observe(METHODS[verb], metrics)
        return {**fields, "meta": self._meta(requests, tags, metrics)}

    def _reported(self) -> tuple[dict[str, Any], list[Any]]:
        """What the model says of itself after a call."""
        tags = dict(self._tags()) if self._tags else {}
        return tags, sm.checked_metrics(self._metrics()) if self._metrics else []

    def _meta(self, requests: Sequence[Any], tags: Any, metrics: Sequence[Any]) -> dict[str, Any]:
        told = metrics if self.identity.returns_metrics else []
        return sm.merge_meta(requests, tags, told, self.identity.unit, self.identity.image)

    def harvest(self, verb: str, answer: Any) -> None:
        """Count the metrics in a raw hook's own answer."""
        meta = answer.get("meta") if isinstance(answer, Mapping) else None
        reported = meta.get("metrics") if isinstance(meta, Mapping) else None
        if reported:
            self.metrics.observe(METHODS[verb], sm.checked_metrics(reported))

    def class_names(self) -> Any:
        """What `class_names()` gives, or the attribute of that name (deprecated)."""
        if self._class_names is not None:
            return self._class_names()
        names = getattr(self.target, "class_names", None)
        return None if callable(names) else names


def messages_of(body: Any) -> list[Any]:
    """The messages to aggregate: a list, or `{"seldonMessages": [...]}`. Raises BadData."""
    messages = body.get("seldonMessages") if isinstance(body, Mapping) else body
    if not isinstance(messages, list):
        raise sm.invalid(body)
    return messages


def _puid_only(message: Mapping[str, Any]) -> list[Any]:
    """What answers to routing and feedback keep of a request's meta: they are for the orchestrator,
    the message itself goes on with its own."""
    puid = sm.meta_of(message).get("puid")
    return [{"meta": {"puid": puid}}] if puid else []


_FEEDBACK = ("request", "response", "reward", "truth")


def feedback_of(body: Any) -> Mapping[str, Any]:
    """A Feedback message. Raises BadData."""
    if not isinstance(body, Mapping):
        raise sm.invalid(body)
    for name, value in body.items():
        if name not in _FEEDBACK:
            raise sm.BadData(f"feedback has no field {name!r}, only {', '.join(_FEEDBACK)}")
        if name == "reward":
            if value is not None and (isinstance(value, bool) or not _is_number(value)):
                raise sm.BadData(f"reward must be a number, not {str(value)[:100]!r}")
        elif value is not None and not isinstance(value, Mapping):
            raise sm.BadData(f"{name} must be a message")
        elif value is not None:
            sm.meta_of(value)
    return body


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _numbers(message: Mapping[str, Any]) -> tuple[Any, list[str], str]:
    """Only `data` of a feedback's messages is read; without it there is an empty array. Numbers are
    doubles, as in the protobuf message that feedback is to Seldon."""
    if not isinstance(message.get("data"), Mapping):
        return np.array([]), [], "tensor"
    values, names, kind = sm.payload(message)
    return (values.astype(float) if values.dtype.kind in "iu" else values), names, kind


def _plain(name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook with the arguments it takes; a coroutine function runs to its end."""
    wanted = hooks.trimmed(hook)
    if name == "send_feedback":

        def feedback(values: Any, names: Any, reward: float, truth: Any, routing: Any) -> Any:
            if hooks.takes_keyword(hook, "routing"):
                return hook(values, names, reward, truth, routing=routing)
            return wanted(values, names, reward, truth, routing)

        return _finished(feedback)
    if name in ("aggregate", "health_status"):
        return _finished(wanted)
    if hooks.takes_keyword(hook, "meta") or hooks.takes_any_keyword(hook):
        return _finished(lambda values, names, meta: hook(values, names, meta=meta))
    return _finished(lambda values, names, meta: wanted(values, names))


def _finished(hook: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        result = hook(*arguments)
        return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result

    return call


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _raw_hook(target: Any, verb: str) -> Callable[..., Any] | None:
    names = (f"{verb}_raw", *_RAW_ALIASES.get(verb, ()))
    return next((hook for name in names if (hook := hooks.find(target, name)) is not None), None)
