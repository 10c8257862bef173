"""Knative's Trigger. Passed through (spec/knative 3.2)."""

from collections.abc import Mapping
from typing import Any

from knative.api import core, eventing
from knative.api.problems import Path, Report
from knative.api.resource import Resource
from knative.api.schema import Field, Free, Listing, Obj, Table, silent

JSON = Any

_DIALECTS = ("exact", "prefix", "suffix", "all", "any", "not", "cesql")

SPEC = Obj(
    name="TriggerSpec",
    fields={
        "broker": Field(type=core.OBJECT_NAME),
        "brokerRef": Field(type=Table(of=Free())),
        "filter": Field(
            type=Obj(name="TriggerFilter", fields={"attributes": Field(type=core.TEXT_MAP)})
        ),
        "filters": Field(type=Listing(of=Free())),
        "subscriber": Field(type=eventing.DESTINATION, required=True),
        "delivery": Field(type=eventing.DELIVERY),
    },
)
FIELDS: dict[str, Field] = {
    "spec": Field(type=SPEC, required=True),
    "status": silent("written by a controller"),
}


def check(resource: Resource, report: Report) -> None:
    """Broker, subscriber, filters and delivery."""
    spec = resource.spec
    if bool(spec.get("broker")) == bool(spec.get("brokerRef")):
        report.error(("spec",), "exactly one of broker and brokerRef is needed")
    eventing.check_destination(spec["subscriber"], ("spec", "subscriber"), report)
    if spec.get("delivery"):
        eventing.check_delivery(spec["delivery"], ("spec", "delivery"), report)
    if spec.get("filter") and spec.get("filters"):
        report.warning(("spec", "filter"), "has no effect beside filters")
    for index, item in enumerate(spec.get("filters") or []):
        _check_filter(item, ("spec", "filters", index), report)


def _check_filter(item: JSON, path: Path, report: Report) -> None:
    if not isinstance(item, Mapping) or len(item) != 1:
        report.error(path, f"a filter is a mapping with exactly one of {', '.join(_DIALECTS)}")
        return
    dialect, value = next(iter(item.items()))
    if dialect not in _DIALECTS:
        report.error((*path, dialect), f"unknown filter dialect; known: {', '.join(_DIALECTS)}")
    elif dialect in ("all", "any"):
        for index, inner in enumerate(value if isinstance(value, list) else ()):
            _check_filter(inner, (*path, dialect, index), report)
        if not isinstance(value, list) or not value:
            report.error((*path, dialect), "must be a list of at least one filter")
    elif dialect == "not":
        _check_filter(value, (*path, dialect), report)
    elif dialect == "cesql":
        if not isinstance(value, str) or not value:
            report.error((*path, dialect), "must be a CESQL expression")
    elif not isinstance(value, Mapping) or not value:
        report.error((*path, dialect), "must map attribute names to text")
    else:
        for name, text in value.items():
            if not isinstance(text, str) or not text:
                report.error((*path, dialect, name), "must be text, not empty")
