"""Core Secret, ConfigMap and ServiceAccount: passed through, checked for shape only."""

import base64

from knative.api import core, pod
from knative.api.problems import Report
from knative.api.resource import Resource
from knative.api.schema import Bool, Field, Listing, Obj, Table

FIELDS: dict[str, Field] = {
    "data": Field(type=Table(of=core.TEXT)),
    "stringData": Field(type=Table(of=core.TEXT)),
    "binaryData": Field(type=Table(of=core.TEXT)),
    "type": Field(type=core.TEXT),
    "immutable": Field(type=Bool()),
    "secrets": Field(
        type=Listing(
            of=Obj(
                name="ObjectReference",
                fields={
                    key: Field(type=core.TEXT)
                    for key in ("name", "namespace", "kind", "apiVersion", "uid", "fieldPath")
                },
            )
        )
    ),
    "imagePullSecrets": Field(type=pod.LOCAL_REFS),
    "automountServiceAccountToken": Field(type=Bool()),
}


def check(resource: Resource, report: Report) -> None:
    """What is called data in a Secret is base64."""
    groups = ("data", "binaryData") if resource.kind == "Secret" else ("binaryData",)
    for group in groups:
        for key, value in (resource.data.get(group) or {}).items():
            try:
                base64.b64decode(value, validate=True)
            except ValueError:
                report.error((group, key), "must be base64; plain text goes under stringData")
