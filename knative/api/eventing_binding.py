"""Knative's SinkBinding: tells a workload where its events go (`K_SINK`). Passed through."""

from knative.api import core, eventing
from knative.api.problems import Report
from knative.api.resource import Resource
from knative.api.schema import Field, Free, Obj, Table, silent

SPEC = Obj(
    name="SinkBindingSpec",
    fields={
        "subject": Field(
            type=Obj(
                name="BindingSubject",
                fields={
                    "apiVersion": Field(type=core.TEXT, required=True),
                    "kind": Field(type=core.TEXT, required=True),
                    "namespace": Field(type=core.NAME),
                    "name": Field(type=core.OBJECT_NAME),
                    "selector": Field(type=Table(of=Free())),
                },
            ),
            required=True,
        ),
        "sink": Field(type=eventing.DESTINATION, required=True),
        "ceOverrides": Field(type=Table(of=Free())),
    },
)
FIELDS: dict[str, Field] = {
    "spec": Field(type=SPEC, required=True),
    "status": silent("written by a controller"),
}


def check(resource: Resource, report: Report) -> None:
    """A sink must say where."""
    eventing.check_destination(resource.spec["sink"], ("spec", "sink"), report)
