"""What stock Knative Serving admits, written down a second time as an oracle for compiled output.

Independent of the compiler and its lint on purpose. `problems(service, flags)` lists violations;
`flags` are the feature flags that are on besides Knative's defaults.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

POD_FIELDS = {
    "containers", "volumes", "initContainers", "containerConcurrency", "timeoutSeconds",
    "responseStartTimeoutSeconds", "idleTimeoutSeconds", "serviceAccountName", "imagePullSecrets",
    "enableServiceLinks", "automountServiceAccountToken",
}  # fmt: skip
POD_FLAGS = {
    "initContainers": "kubernetes.podspec-init-containers",
    "securityContext": "kubernetes.podspec-securitycontext",
    "nodeSelector": "kubernetes.podspec-nodeselector",
    "tolerations": "kubernetes.podspec-tolerations",
    "affinity": "kubernetes.podspec-affinity",
}
CONTAINER_FIELDS = {
    "name", "image", "imagePullPolicy", "command", "args", "env", "envFrom", "workingDir", "ports",
    "resources", "livenessProbe", "readinessProbe", "startupProbe", "securityContext",
    "terminationMessagePath", "terminationMessagePolicy", "volumeMounts",
}  # fmt: skip
SECURITY_FIELDS = {
    "capabilities", "readOnlyRootFilesystem", "runAsUser", "runAsGroup", "runAsNonRoot",
    "allowPrivilegeEscalation", "seccompProfile", "privileged",
}  # fmt: skip
NO_FLAG_VOLUMES = {"secret", "configMap", "projected", "emptyDir"}
RESERVED_ENV = {"PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"}
RESERVED_PORTS = {8008, 8012, 8013, 8022, 9090, 9091}


def problems(service: Mapping[str, Any], flags: Iterable[str] = ()) -> list[str]:
    """Violations, one line each; empty means Knative would take it."""
    found: list[str] = []
    if service.get("apiVersion") != "serving.knative.dev/v1" or service.get("kind") != "Service":
        return ["not a serving.knative.dev/v1 Service"]
    if set(service) - {"apiVersion", "kind", "metadata", "spec"}:
        found.append(f"unknown top-level fields {sorted(service)}")
    name = service["metadata"]["name"]
    if not LABEL.fullmatch(name) or name[0].isdigit():
        found.append(f"metadata.name {name!r} is no DNS-1035 label")
    for key in service["metadata"].get("annotations") or {}:
        if key.startswith("autoscaling.knative.dev/"):
            found.append(f"autoscaling annotation {key} on the Service instead of the template")
    if set(service["spec"]) - {"template", "traffic"}:
        found.append(f"spec has {sorted(service['spec'])}")
    template = service["spec"]["template"]
    found += _annotations(template.get("metadata", {}).get("annotations") or {})
    found += _pod(template["spec"], set(flags))
    if "traffic" in service["spec"]:
        total = sum(entry.get("percent", 0) for entry in service["spec"]["traffic"])
        if total != 100:
            found.append(f"traffic adds up to {total}")
    return found


def _annotations(annotations: Mapping[str, Any]) -> Iterable[str]:
    for key, value in annotations.items():
        if not isinstance(value, str):
            yield f"annotation {key} is {type(value).__name__}, not a string"
    scale = {
        side: int(annotations.get(f"autoscaling.knative.dev/{side}-scale", "0"))
        for side in ("min", "max")
    }
    if scale["max"] and scale["max"] < scale["min"]:
        yield "max-scale below min-scale"


def _pod(pod: Mapping[str, Any], flags: set[str]) -> Iterable[str]:
    for field in pod:
        flag = POD_FLAGS.get(field)
        if flag is None and field not in POD_FIELDS:
            yield f"pod field {field} is never allowed"
        elif flag is not None and flag not in flags:
            yield f"pod field {field} needs the flag {flag}"
    if not 0 <= pod.get("containerConcurrency", 0) <= 1000:
        yield "containerConcurrency outside 0..1000"
    if not 0 < pod.get("timeoutSeconds", 300) <= 600:
        yield "timeoutSeconds outside 1..600"
    main, first = pod["containers"], pod.get("initContainers") or []
    names = [container.get("name") for container in [*main, *first]]
    if len(set(names)) != len(names) or "queue-proxy" in names:
        yield f"container names {names}"
    volumes = {volume["name"]: volume for volume in pod.get("volumes") or []}
    mounted = {mount["name"] for c in [*main, *first] for mount in c.get("volumeMounts") or []}
    if set(volumes) != mounted:
        yield f"volumes {sorted(volumes)} but mounts {sorted(mounted)}"
    for volume in volumes.values():
        kinds = set(volume) - {"name"}
        if len(kinds) != 1 or not kinds <= NO_FLAG_VOLUMES:
            yield f"volume {volume['name']} is {sorted(kinds)}"
    if sum(len(container.get("ports") or []) for container in main) > 1:
        yield "more than one containerPort"
    for container in main:
        yield from _container(container, volumes, reserved=RESERVED_ENV)
    for container in first:
        if {"readinessProbe", "livenessProbe", "startupProbe"} & set(container):
            yield f"init container {container['name']} has a probe"
        if not container.get("resources"):
            yield f"init container {container['name']} has no resources (Knative gives none)"
        yield from _container(container, volumes, reserved=RESERVED_ENV - {"PORT"})


def _container(
    container: Mapping[str, Any], volumes: Mapping[str, Any], *, reserved: set[str]
) -> Iterable[str]:
    name = container.get("name")
    if extra := set(container) - CONTAINER_FIELDS:
        yield f"container {name} has {sorted(extra)}"
    if not container.get("image"):
        yield f"container {name} has no image"
    if extra := set(container.get("securityContext") or {}) - SECURITY_FIELDS:
        yield f"container {name} securityContext has {sorted(extra)}"
    for entry in container.get("env") or []:
        if entry["name"] in reserved:
            yield f"container {name} sets the reserved variable {entry['name']}"
        if "value" in entry and not isinstance(entry["value"], str):
            yield f"container {name} variable {entry['name']} is not a string"
        if "fieldRef" in (entry.get("valueFrom") or {}):
            yield f"container {name} variable {entry['name']} needs podspec-fieldref"
    for port in container.get("ports") or []:
        if port.get("name", "") not in {"", "http1", "h2c"}:
            yield f"container {name} port name {port['name']!r}"
        if port.get("containerPort") in RESERVED_PORTS:
            yield f"container {name} port {port['containerPort']} is reserved"
    paths = [mount["mountPath"] for mount in container.get("volumeMounts") or []]
    if len(set(paths)) != len(paths) or set(paths) & {"/", "/dev", "/dev/log"}:
        yield f"container {name} mounts {paths}"
    for mount in container.get("volumeMounts") or []:
        kind = next(iter(set(volumes[mount["name"]]) - {"name"}))
        if kind != "emptyDir" and not mount.get("readOnly"):
            yield f"container {name} mounts {mount['name']} writable"
    probe = container.get("readinessProbe") or {}
    if probe and not {"httpGet", "tcpSocket", "exec", "grpc"} & set(probe):
        yield f"container {name} readiness probe without a kind"
    if probe.get("periodSeconds") == 0 and {"failureThreshold", "timeoutSeconds"} & set(probe):
        yield f"container {name}: an aggressive probe takes no failureThreshold or timeoutSeconds"
