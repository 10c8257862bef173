"""Core Secret, ConfigMap and ServiceAccount: passed through, checked for shape only."""

from knative.api import core, pod
from knative.api.problems import Report
from knative.api.resource import Resource
from knative.api.schema import Bool, Field, Free, Listing, Table

FIELDS: dict[str, Field] = {
    "data": Field(type=Table(of=core.TEXT)),
    "stringData": Field(type=Table(of=core.TEXT)),
    "binaryData": Field(type=Table(of=core.TEXT)),
    "type": Field(type=core.TEXT),
    "immutable": Field(type=Bool()),
    "secrets": Field(type=Listing(of=Free())),
    "imagePullSecrets": Field(type=pod.LOCAL_REFS),
    "automountServiceAccountToken": Field(type=Bool()),
}


def check(resource: Resource, report: Report) -> None:
    """Nothing beyond the table."""
