"""SinkBinding, IntegrationSource, PingSource: passed through; who they send to must be named."""

from collections.abc import Mapping

from events import delivery
from knative.api.problems import Report, parse
from knative.api.resource import Resource
from knative.api.schema import Field, Free

FIELDS: dict[str, Field] = {"spec": Field(type=Free()), "status": Field(type=Free())}


def check(resource: Resource, report: Report) -> None:
    """`spec.sink` is a Destination; a binding also names its subject."""
    spec = resource.data.get("spec")
    if not isinstance(spec, Mapping):
        report.error(("spec",), "must be a mapping")
        return
    if not spec.get("sink"):
        report.error(("spec", "sink"), "is missing: where events go")
    for path, message in delivery.check_destination(spec.get("sink"), "sink"):
        report.error(("spec", *parse(path)), message)
    if resource.kind == "SinkBinding" and not spec.get("subject"):
        report.error(("spec", "subject"), "is missing: who is told where events go")
