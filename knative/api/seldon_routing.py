"""The part of a SeldonDeployment that the router reads: predictors, shares, graphs, parameters.

Its grammar belongs to `router_fn.seldon.graph`; here are only the fields it knows, without those
that shape pods, so that an edit of a container does not roll the router.
"""

from collections.abc import Mapping
from typing import Any

from knative.api import seldon_words as words
from knative.api.resource import Resource

JSON = Any
Object = dict[str, JSON]

_TRUE = frozenset({"true", "1", "y", "yes", "t", "on"})
_FALSE = frozenset({"false", "0", "n", "no", "f", "off"})
"""Spellings of BOOL parameters that Seldon's wrapper accepts (spec/seldon_tfserving 4)."""


def annotations(resource: Resource) -> dict[str, str]:
    """The deployment's annotations; those of the spec win."""
    return {**resource.annotations, **(resource.spec.get("annotations") or {})}


Routes = Mapping[tuple[str, str], Mapping[str, JSON]]
"""(predictor, node) -> what the compiler adds to a node: serviceUrl, image, serverProtocol."""


def routing_spec(resource: Resource, routes: Routes | None = None) -> Object:
    """What the router gets; without `routes` the nodes have no URLs yet."""
    spec = resource.spec
    result: Object = {
        "kind": "SeldonDeployment",
        "name": resource.name,
        "namespace": resource.namespace,
        "protocol": words.protocol_of(spec),
    }
    if timeout := timeout_ms(resource):
        result["timeoutMs"] = timeout
    if (size := annotations(resource).get(words.LOG_QUEUE, "")).isdigit():
        result["logQueueSize"] = int(size)
    alone = sum(not p.get("shadow") for p in spec["predictors"]) == 1
    result["predictors"] = [
        _predictor(resource, p, routes or {}, alone=alone) for p in spec["predictors"]
    ]
    return result


def timeout_ms(resource: Resource) -> int:
    """Limit of each call of a node; 0: none. Nodes are called over REST or over gRPC, all alike."""
    spec = resource.spec
    grpc = any(
        words.is_grpc(spec, node.unit)
        for predictor in spec["predictors"]
        for node in words.walk(predictor["graph"], ())
    )
    key = words.GRPC_TIMEOUT if grpc else words.REST_TIMEOUT
    try:
        return words.timeout_ms(annotations(resource).get(key, "0"))
    except ValueError:
        return 0  # reported by the check


def _predictor(
    resource: Resource, predictor: Mapping[str, JSON], routes: Routes, *, alone: bool
) -> Object:
    result: Object = {"name": predictor["name"]}
    if predictor.get("shadow"):
        result["shadow"] = True
    if predictor.get("traffic") is not None and (predictor.get("shadow") or not alone):
        result["traffic"] = int(predictor["traffic"])
    result["labels"] = {"version": labels(predictor)["version"]}
    result["graph"] = _unit(resource, predictor["graph"], predictor["name"], routes)
    return result


def labels(predictor: Mapping[str, JSON]) -> dict[str, str]:
    """The predictor's labels; `version` is its name unless given (spec/seldon_tfserving 1.4)."""
    return {"version": predictor["name"], **(predictor.get("labels") or {})}


def _unit(resource: Resource, unit: Mapping[str, JSON], predictor: str, routes: Routes) -> Object:
    result: Object = {"name": unit["name"]}
    for key in ("type", "methods"):
        if unit.get(key):
            result[key] = unit[key]
    if implementation := words.implementation_of(unit):
        result["implementation"] = implementation
    if unit.get("parameters"):
        result["parameters"] = parameters(unit)
    endpoint = unit.get("endpoint") or {}
    if endpoint.get("service_host"):
        result["endpoint"] = dict(endpoint)
    logger = unit.get("logger") or {}
    if logger.get("mode"):
        broker = f"{words.BROKER}/{resource.namespace}/default"
        result["logger"] = {"url": logger.get("url") or broker, "mode": logger["mode"]}
    result |= routes.get((predictor, unit["name"]), {})
    if unit.get("children"):
        result["children"] = [
            _unit(resource, child, predictor, routes) for child in unit["children"]
        ]
    return result


def parameters(unit: Mapping[str, JSON]) -> list[Object]:
    """A unit's parameters with one spelling of true and false."""
    return [{**p, "value": _value(p)} for p in unit.get("parameters") or []]


def _value(parameter: Mapping[str, JSON]) -> str:
    text = str(parameter["value"])
    if parameter.get("type") == "BOOL":
        word = text.lower()
        return "true" if word in _TRUE else "false" if word in _FALSE else text
    return text
