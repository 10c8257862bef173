"""Knative's own Broker and Trigger: what its admission would refuse, said before it is applied."""

from collections.abc import Mapping
from typing import Any

from events import delivery, filters
from knative.api.problems import Report, parse
from knative.api.resource import Resource

JSON = Any

_TRIGGER = ("broker", "brokerRef", "filter", "filters", "subscriber", "delivery")
_BROKER = ("config", "delivery")
ORDER = "kafka.eventing.knative.dev/delivery.order"


def check_trigger(resource: Resource, report: Report) -> None:
    """`spec` of a Trigger: broker, subscriber, filters, delivery."""
    spec = _spec(resource, report, _TRIGGER)
    if spec is None:
        return
    if not spec.get("broker") and not spec.get("brokerRef"):
        report.error(("spec", "broker"), "is missing: the Broker whose events it takes")
    if not spec.get("subscriber"):
        report.error(("spec", "subscriber"), "is missing: who gets the events")
    _tell(report, (), delivery.check_destination(spec.get("subscriber"), "subscriber"))
    _tell(report, (), filters.check(spec))
    _tell(report, ("delivery",), delivery.check(spec.get("delivery")))
    order = resource.annotations.get(ORDER)
    if order not in (None, "ordered", "unordered"):
        path = ("metadata", "annotations", ORDER)
        report.error(path, f'must be ordered or unordered, not "{order}"')
    _warn(spec, report)


def check_broker(resource: Resource, report: Report) -> None:
    """`spec` of a Broker: config and delivery."""
    if resource.data.get("spec") is None:
        return
    spec = _spec(resource, report, _BROKER)
    if spec is not None:
        _tell(report, ("delivery",), delivery.check(spec.get("delivery")))


def _warn(spec: Mapping[str, JSON], report: Report) -> None:
    subscriber = spec.get("subscriber")
    uri = str(subscriber.get("uri") or "") if isinstance(subscriber, Mapping) else ""
    if uri.endswith((":predict", "/infer")):
        report.warning(
            ("spec", "subscriber", "uri"),
            "a predict URL answers with a body that is not a CloudEvent, which the broker counts as"
            " a failed delivery and repeats; an InferenceTrigger puts a sink in between",
        )
    block = spec.get("delivery")
    if isinstance(block, Mapping) and not block.get("deadLetterSink"):
        report.note(
            ("spec", "delivery"),
            "replaces the Broker's delivery as a whole: its deadLetterSink is not used",
        )


def _spec(resource: Resource, report: Report, known: tuple[str, ...]) -> Mapping[str, JSON] | None:
    spec = resource.data.get("spec")
    if not isinstance(spec, Mapping):
        report.error(("spec",), "must be a mapping")
        return None
    for key in spec:
        if key not in known:
            report.error(("spec", key), f"unknown field (expected {', '.join(known)})")
    return spec


def _tell(report: Report, prefix: tuple[str, ...], found: list[tuple[str, str]]) -> None:
    for path, message in found:
        report.error(("spec", *prefix, *parse(path)), message)
