"""Passed through."""

from knative.api.problems import Report
from knative.api.resource import Resource
from knative.api.schema import Field, Free

FIELDS: dict[str, Field] = {"spec": Field(type=Free()), "status": Field(type=Free())}


def check(resource: Resource, report: Report) -> None:
    """Nothing yet."""
