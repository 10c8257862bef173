"""Knative's Broker. Passed through (spec/knative 3.1)."""

from knative.api import core, eventing
from knative.api.problems import Report
from knative.api.resource import Resource
from knative.api.schema import Field, Obj, silent

SPEC = Obj(
    name="BrokerSpec",
    fields={
        "config": Field(
            type=Obj(
                name="BrokerConfig",
                fields={
                    "apiVersion": Field(type=core.TEXT),
                    "kind": Field(type=core.TEXT),
                    "name": Field(type=core.OBJECT_NAME),
                    "namespace": Field(type=core.NAME),
                    "group": Field(type=core.TEXT),
                },
            )
        ),
        "delivery": Field(type=eventing.DELIVERY),
    },
)
FIELDS: dict[str, Field] = {
    "spec": Field(type=SPEC),
    "status": silent("written by a controller"),
}


def check(resource: Resource, report: Report) -> None:
    """The delivery block."""
    delivery = resource.spec.get("delivery")
    if delivery:
        eventing.check_delivery(delivery, ("spec", "delivery"), report)
