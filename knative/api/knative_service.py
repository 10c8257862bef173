"""Knative's own Service: what its webhook accepts, as field tables and rules between fields.

Used twice: for Services in the input (passed through), and on everything the compiler makes, so
that
what we print is what a cluster takes. Source: spec/knative 1.1-1.12.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from knative import keys
from knative.api import core, pod, scaling
from knative.api.problems import Path, Report
from knative.api.resource import Resource
from knative.api.schema import Bool, Field, Int, Listing, Obj, Str, refused, silent

JSON = Any

SERVICE_NAME = r"[a-z]([-a-z0-9]*[a-z0-9])?"
RESERVED_ENV = frozenset({"PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"})
RESERVED_PORTS = frozenset({8008, 8012, 8013, 8022, 9090, 9091})
RESERVED_MOUNTS = frozenset({"/", "/dev", "/dev/log"})
MAX_TIMEOUT_S = 600
"""Knative's `max-revision-timeout-seconds` unless an administrator raised it."""

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
            "url": silent("written by the controller"),
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
_POD: Path = ("spec", "template", "spec")


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
    _check_pod(template["spec"], report)
    _check_traffic(service["spec"].get("traffic") or [], report)


def _check_pod(spec: Mapping[str, JSON], report: Report) -> None:
    timeout = spec.get("timeoutSeconds") or 0
    if timeout > MAX_TIMEOUT_S:
        report.warning(
            (*_POD, "timeoutSeconds"),
            f"{timeout} s is above Knative's limit of {MAX_TIMEOUT_S} s, unless an administrator"
            " raised max-revision-timeout-seconds in the ConfigMap config-defaults",
        )
    if spec.get("automountServiceAccountToken") is True:
        report.error((*_POD, "automountServiceAccountToken"), "Knative accepts only false here")
    if len(spec["containers"]) > 1:
        report.need(keys.FLAG_MULTI_CONTAINER, (*_POD, "containers"))
    _check_ports(spec["containers"], report)
    names: dict[str, Path] = {}
    for path, container in _containers(spec):
        name = container.get("name")
        if name == "queue-proxy":
            report.error((*path, "name"), "queue-proxy is Knative's own container")
        if name and name in names:
            report.error((*path, "name"), f"{name} is used by another container")
        names.setdefault(name or "", path)
        _check_container(container, path, report)
    _check_volumes(spec, report)


def _containers(spec: Mapping[str, JSON]) -> Iterator[tuple[Path, Mapping[str, JSON]]]:
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group) or []):
            yield (*_POD, group, index), container


def _is_init(path: Path) -> bool:
    return "initContainers" in path


def _check_ports(containers: list[Mapping[str, JSON]], report: Report) -> None:
    with_ports = [i for i, c in enumerate(containers) if c.get("ports")]
    path: Path = (*_POD, "containers")
    if len(containers) > 1 and len(with_ports) != 1:
        report.error(path, "of several containers exactly one, the serving one, declares ports")
    for index in with_ports:
        ports = containers[index]["ports"]
        if len(ports) > 1:
            report.error((*path, index, "ports"), "Knative serves one port; declare only that one")
        number = ports[0].get("containerPort")
        if number in RESERVED_PORTS:
            report.error(
                (*path, index, "ports", 0, "containerPort"), f"{number} is Knative's own port"
            )


def _check_container(container: Mapping[str, JSON], path: Path, report: Report) -> None:
    if not container.get("image"):
        report.error(path, "image is required")
    reserved = RESERVED_ENV - {"PORT"} if _is_init(path) else RESERVED_ENV
    for index, variable in enumerate(container.get("env") or []):
        if variable["name"] in reserved:
            report.error(
                (*path, "env", index, "name"), f"{variable['name']} is set by Knative itself"
            )
    for kind in ("readinessProbe", "livenessProbe", "startupProbe"):
        probe = container.get(kind)
        if probe and _is_init(path):
            report.error((*path, kind), "init containers have no probes")
        elif probe:
            _check_probe(probe, kind, (*path, kind), report)
    security = container.get("securityContext") or {}
    if security.get("privileged") is True:
        report.error((*path, "securityContext", "privileged"), "Knative accepts only false here")


def _check_probe(probe: Mapping[str, JSON], kind: str, path: Path, report: Report) -> None:
    if kind == "readinessProbe" and probe.get("periodSeconds") == 0:
        for field in ("failureThreshold", "timeoutSeconds"):
            if probe.get(field):
                report.error(
                    (*path, field), "an aggressive probe (periodSeconds 0) sets its own; remove it"
                )
    if (probe.get("successThreshold") or 1) != 1 and kind != "readinessProbe":
        report.error((*path, "successThreshold"), "must be 1 here")


def _check_volumes(spec: Mapping[str, JSON], report: Report) -> None:
    volumes = {v["name"]: (i, v) for i, v in enumerate(spec.get("volumes") or [])}
    mounted: set[str] = set()
    for path, container in _containers(spec):
        for index, mount in enumerate(container.get("volumeMounts") or []):
            here = (*path, "volumeMounts", index)
            mounted.add(mount["name"])
            if mount["mountPath"].rstrip("/") in RESERVED_MOUNTS | {""}:
                report.error((*here, "mountPath"), f"{mount['mountPath']} cannot be mounted over")
            if mount["name"] not in volumes:
                report.error((*here, "name"), f"no volume is called {mount['name']}")
                continue
            _check_mount(mount, volumes[mount["name"]][1], here, report)
    for name, (index, volume) in volumes.items():
        if name not in mounted:
            report.error(
                (*_POD, "volumes", index), f"no container mounts {name}; Knative refuses that"
            )
        claim = volume.get("persistentVolumeClaim")
        if claim and not claim.get("readOnly"):
            report.need(keys.FLAG_PVC_WRITE, (*_POD, "volumes", index, "persistentVolumeClaim"))


def _check_mount(
    mount: Mapping[str, JSON], volume: Mapping[str, JSON], path: Path, report: Report
) -> None:
    """Only emptyDir, PVC, ephemeral, hostPath and csi may be mounted writable.

    Knative fills in readOnly for ordinary containers, but not for init containers.
    """
    if mount.get("readOnly"):
        return
    claim = volume.get("persistentVolumeClaim")
    if claim and claim.get("readOnly"):
        report.error(path, f"{mount['name']} is read-only; add readOnly: true to the mount")
    for source in ("secret", "configMap", "projected"):
        if volume.get(source) is None:
            continue
        if _is_init(path) or "readOnly" in mount:
            report.error(
                path,
                f"{mount['name']} is a {source} volume; Knative wants readOnly: true on the mount",
            )


def _check_traffic(traffic: list[Mapping[str, JSON]], report: Report) -> None:
    if not traffic:
        return
    total = 0
    for index, target in enumerate(traffic):
        total += target.get("percent") or 0
        latest, revision = target.get("latestRevision"), target.get("revisionName")
        if bool(latest) == bool(revision):
            report.error(
                ("spec", "traffic", index),
                "needs exactly one of latestRevision: true and revisionName",
            )
    if total != 100:
        report.error(("spec", "traffic"), f"the percentages add up to {total}, not 100")
