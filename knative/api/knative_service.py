"""Knative's own Service: what its webhook accepts, as field tables and rules between fields.

Used twice: for Services in the input (passed through), and on everything the compiler makes, so
that
what we print is what a cluster takes. Source: spec/knative 1.1-1.12.
"""

import re
from collections.abc import Mapping
from typing import Any

from knative import keys
from knative.api import core, knative_pod, pod, scaling
from knative.api.problems import Path, Report
from knative.api.resource import Resource
from knative.api.schema import Bool, Field, Int, Listing, Obj, Str, refused, silent

JSON = Any

SERVICE_NAME = r"[a-z]([-a-z0-9]*[a-z0-9])?"
REVISION_SPEC = Obj(
    name="RevisionSpec",
    fields={
        "containerConcurrency": Field(type=Int(minimum=0, maximum=1000)),
        "timeoutSeconds": Field(type=Int(minimum=0)),
        "responseStartTimeoutSeconds": Field(type=Int(minimum=0)),
        "idleTimeoutSeconds": Field(type=Int(minimum=0)),
        "initContainers": Field(type=pod.INIT_CONTAINERS, flag=keys.FLAG_INIT_CONTAINERS),
        "containers": Field(type=Listing(of=core.CONTAINER, min_items=1), required=True),
        **pod.POD_FIELDS,
    },
)
TRAFFIC = Listing(
    of=Obj(
        name="TrafficTarget",
        fields={
            "tag": Field(
                type=Str(
                    pattern=SERVICE_NAME, expect="lower-case letters, digits and '-'", max_length=63
                )
            ),
            "revisionName": Field(type=core.TEXT),
            "configurationName": refused("Knative refuses it on a Service; use revisionName"),
            "latestRevision": Field(type=Bool()),
            "percent": Field(type=Int(minimum=0, maximum=100)),
            "url": refused("it is the controller's answer; remove it"),
        },
    ),
    unique="tag",
)
SPEC = Obj(
    name="ServiceSpec",
    fields={
        "template": Field(
            type=Obj(
                name="RevisionTemplate",
                fields={
                    "metadata": Field(
                        type=Obj(
                            name="TemplateMeta",
                            fields={
                                "name": Field(type=core.NAME),
                                "labels": Field(type=core.TEXT_MAP),
                                "annotations": Field(type=core.TEXT_MAP),
                                "creationTimestamp": silent("written by clients"),
                                "namespace": silent("the Service's"),
                            },
                        )
                    ),
                    "spec": Field(type=REVISION_SPEC, required=True),
                },
            ),
            required=True,
        ),
        "traffic": Field(type=TRAFFIC),
    },
)
FIELDS: dict[str, Field] = {
    "spec": Field(type=SPEC, required=True),
    "status": silent("written by the controller"),
}
_TEMPLATE: Path = ("spec", "template")


def check(resource: Resource, report: Report) -> None:
    """Knative's rules between fields. Runs after the tables found nothing wrong."""
    service = resource.data
    if len(resource.name) > 63:
        report.error(
            ("metadata", "name"), f"is {len(resource.name)} characters long; Knative allows 63"
        )
    elif not re.fullmatch(SERVICE_NAME, resource.name):
        report.error(
            ("metadata", "name"),
            f"{resource.name} cannot name a Service: lower-case letters, digits and '-', beginning"
            " with a letter",
        )
    for key in resource.annotations:
        if key.startswith(keys.AUTOSCALING):
            report.error(
                ("metadata", "annotations", key),
                "autoscaling annotations belong on spec.template.metadata.annotations",
            )
    template = service["spec"]["template"]
    metadata = template.get("metadata") or {}
    name = metadata.get("name")
    if name and not name.startswith(f"{resource.name}-"):
        report.error((*_TEMPLATE, "metadata", "name"), f'must begin with "{resource.name}-"')
    annotations = metadata.get("annotations") or {}
    scaling.check(annotations, (*_TEMPLATE, "metadata", "annotations"), report)
    check_durations(annotations, (*_TEMPLATE, "metadata", "annotations"), report)
    check_durations(resource.annotations, ("metadata", "annotations"), report)
    knative_pod.check(template["spec"], report)
    _check_traffic(service["spec"].get("traffic") or [], report)


def _check_traffic(traffic: list[Mapping[str, JSON]], report: Report) -> None:
    if not traffic:
        return
    total = 0
    for index, target in enumerate(traffic):
        total += target.get("percent") or 0
        latest, revision = target.get("latestRevision"), target.get("revisionName")
        if (latest is True and revision) or (latest is False and not revision):
            report.error(
                ("spec", "traffic", index),
                "needs exactly one of latestRevision: true and revisionName",
            )
    if total != 100:
        report.error(("spec", "traffic"), f"the percentages add up to {total}, not 100")


def check_durations(annotations: Mapping[str, str], path: Path, report: Report) -> None:
    """Durations outside the autoscaling group: Go durations of whole seconds."""
    for key, least_s in ((keys.PROGRESS_DEADLINE, 1), (keys.ROLLOUT_DURATION, 0)):
        text = annotations.get(key)
        if not text:
            continue
        try:
            seconds = scaling.duration_s(text)
        except ValueError:
            seconds = -1.0
        if seconds < least_s or seconds != int(seconds):
            report.error(
                (*path, key),
                f'must be whole seconds, {least_s} or more, such as 600s, not "{text}"',
            )
