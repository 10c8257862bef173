"""What Knative's webhook says about a revision's pod: rules between fields that tables cannot
express.

Source: spec/knative 1.3 to 1.8, checked against Knative Serving's own validation (2026-08).
"""

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

from knative import keys
from knative.api.problems import Path, Report

JSON = Any

RESERVED_ENV = frozenset({"PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"})
RESERVED_PORTS = frozenset({8008, 8012, 8013, 8022, 9090, 9091})
RESERVED_MOUNTS = frozenset({"/", "/dev", "/dev/log"})
MAX_TIMEOUT_S = 600
"""Knative's `max-revision-timeout-seconds` unless an administrator raised it."""

_WRITABLE = ("emptyDir", "persistentVolumeClaim", "ephemeral")
"""Volume sources that may be mounted without readOnly."""

_DEFAULTED_READ_ONLY = ("secret", "configMap", "projected")
"""Sources for which Knative fills in readOnly, but only in ordinary containers."""

_IMAGE = re.compile(
    r"((?P<registry>[A-Za-z0-9.-]+(:[0-9]+)?)/)?(?P<name>[a-z0-9_./-]{2,255})"
    r"(:[A-Za-z0-9_.-]{1,128})?(@sha256:[0-9a-f]{64})?\Z"
)
"""Image references as Knative parses them; a repository name of one letter is refused."""

_POD: Path = ("spec", "template", "spec")


def check(spec: Mapping[str, JSON], report: Report) -> None:
    """All rules on `spec.template.spec`, which has passed the field tables."""
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
    several = len(spec["containers"]) > 1
    for path, container in _containers(spec):
        name = container.get("name")
        if name == "queue-proxy":
            report.error((*path, "name"), "queue-proxy is Knative's own container")
        if name and name in names:
            report.error((*path, "name"), f"{name} is used by another container")
        names.setdefault(name or "", path)
        serving = not _is_init(path) and (not several or bool(container.get("ports")))
        _check_container(container, path, report, serving=serving)
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


def _check_container(
    container: Mapping[str, JSON], path: Path, report: Report, *, serving: bool
) -> None:
    image = container.get("image")
    if not image:
        report.error(path, "image is required")
    elif not _IMAGE.match(image):
        report.error((*path, "image"), f"Knative cannot parse the image reference {image}")
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
            if not serving:
                report.need(keys.FLAG_MULTI_CONTAINER_PROBING, (*path, kind))
            _check_probe(probe, kind, container, (*path, kind), report)
    security = container.get("securityContext") or {}
    if security.get("privileged") is True:
        report.error((*path, "securityContext", "privileged"), "Knative accepts only false here")


def _check_probe(
    probe: Mapping[str, JSON],
    kind: str,
    container: Mapping[str, JSON],
    path: Path,
    report: Report,
) -> None:
    if kind == "readinessProbe" and not probe.get("periodSeconds"):
        for field in ("failureThreshold", "timeoutSeconds"):
            if probe.get(field):
                report.error(
                    (*path, field),
                    "goes with periodSeconds only; without both Knative probes aggressively by"
                    " itself",
                )
    if (probe.get("successThreshold") or 1) != 1 and kind != "readinessProbe":
        report.error((*path, "successThreshold"), "must be 1 here")
    named = ((container.get("ports") or [{}])[0]).get("name") or "http"
    for handler in ("httpGet", "tcpSocket"):
        port = (probe.get(handler) or {}).get("port")
        if isinstance(port, str) and port not in ("", named):
            report.error(
                (*path, handler, "port"),
                f'"{port}" is not the name of the serving port; leave it out, Knative fills it in',
            )


def _check_volumes(spec: Mapping[str, JSON], report: Report) -> None:
    volumes = {v["name"]: (i, v) for i, v in enumerate(spec.get("volumes") or [])}
    mounted: set[str] = set()
    for path, container in _containers(spec):
        for index, mount in enumerate(container.get("volumeMounts") or []):
            here = (*path, "volumeMounts", index)
            mounted.add(mount["name"])
            where = posixpath.normpath(mount["mountPath"])
            if where in RESERVED_MOUNTS:
                report.error((*here, "mountPath"), f"{where} cannot be mounted over")
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
    """Only emptyDir, claims and ephemeral volumes may be mounted writable."""
    if mount.get("readOnly"):
        return
    claim = volume.get("persistentVolumeClaim")
    if claim and claim.get("readOnly"):
        report.error(path, f"{mount['name']} is read-only; add readOnly: true to the mount")
    if any(volume.get(source) is not None for source in _WRITABLE):
        return
    source = next((key for key in volume if key != "name" and volume[key] is not None), "")
    filled_in = source in _DEFAULTED_READ_ONLY and not _is_init(path) and "readOnly" not in mount
    if source and not filled_in:
        report.error(
            path,
            f"{mount['name']} is a volume of type {source}; Knative wants readOnly: true on the"
            f" mount",
        )
