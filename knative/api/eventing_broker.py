"""Broker (eventing.knative.dev/v1): passed through, checked as Knative's admission would."""

from knative.api import trigger_eventing
from knative.api.problems import Report
from knative.api.resource import Resource
from knative.api.schema import Field, Free

FIELDS: dict[str, Field] = {"spec": Field(type=Free()), "status": Field(type=Free())}


def check(resource: Resource, report: Report) -> None:
    """What Knative would refuse."""
    trigger_eventing.check_broker(resource, report)
