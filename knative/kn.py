"""The `kn` commands that make compiled Services, and what `kn` cannot say (spec/knative 1.14).

`kn service create NAME -f FILE` takes any single Service; flags alone cannot say init containers,
several
containers, probes in full, or objects that are not Services. So every Service gets the command with
flags when flags suffice, else the command with a file and the reason.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from knative import emit, keys

JSON = Any

_SCALE_FLAGS = {
    "min-scale": "--scale-min",
    "max-scale": "--scale-max",
    "initial-scale": "--scale-init",
    "activation-scale": "--scale-activation",
    "metric": "--scale-metric",
    "target": "--scale-target",
    "target-utilization-percentage": "--scale-utilization",
    "window": "--scale-window",
}
_POD_SAID = {
    *("containers", "containerConcurrency", "timeoutSeconds", "serviceAccountName"),
    *("imagePullSecrets", "volumes", "nodeSelector"),
}
_POD_LOSSES = {"responseStartTimeoutSeconds", "automountServiceAccountToken"}
_CONTAINER_SAID = {
    *("name", "image", "imagePullPolicy", "command", "args", "env", "envFrom", "ports"),
    *("readinessProbe", "resources", "securityContext", "volumeMounts"),
}


def commands(objects: Sequence[Mapping[str, JSON]]) -> str:
    """A shell script: one command per object, comments where a file or kubectl is needed."""
    lines = [
        "#!/bin/sh",
        "# The kn commands for these objects. Files are those of `turnout compile -o .`",
        "set -e",
    ]
    files = emit.to_files([dict(o) for o in objects])
    for item, file in zip(objects, files, strict=True):
        lines.append("")
        if item["kind"] != "Service":
            lines.append(f"# kn cannot make a {item['kind']} like this one:")
            lines.append(shlex.join(["kubectl", "apply", "-f", file]))
            continue
        reasons = list(unsayable(item))
        name, namespace = item["metadata"]["name"], item["metadata"]["namespace"]
        base = ["kn", "service", "create", name, "--namespace", namespace]
        if reasons:
            lines.append(f"# flags cannot say: {', '.join(reasons)}")
            lines.append(shlex.join([*base, "--filename", file]))
        else:
            if lost := list(unsaid(item)):
                lines.append(
                    f"# not said by flags, so left to Knative's default: {', '.join(lost)}"
                )
            lines.append(_wrapped([*base, *flags(item)]))
    return "\n".join(lines) + "\n"


def _wrapped(words: Sequence[str]) -> str:
    """One flag a line, so that a long command can be read."""
    lines: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--") and lines[-1]:
            lines.append([])
        lines[-1].append(word)
    return " \\\n  ".join(shlex.join(line) for line in lines)


def unsayable(item: Mapping[str, JSON]) -> Iterator[str]:
    """What this Service has that kn's flags cannot express."""
    pod = item["spec"]["template"]["spec"]
    if pod.get("initContainers"):
        yield "initContainers"
    if len(pod["containers"]) > 1:
        yield "several containers"
    said = _POD_SAID | _POD_LOSSES | {"initContainers"}
    yield from sorted(key for key in pod if key not in said)
    container = pod["containers"][0]
    yield from sorted(key for key in container if key not in _CONTAINER_SAID)
    for variable in container.get("env") or []:
        if set(variable.get("valueFrom") or {}) - {"configMapKeyRef", "secretKeyRef"}:
            yield f"env {variable['name']}"
    for volume in pod.get("volumes") or []:
        if not set(volume) - {"name"} <= {
            "emptyDir",
            "configMap",
            "secret",
            "persistentVolumeClaim",
        }:
            yield f"volume {volume['name']}"
    if any("subPath" in mount for mount in container.get("volumeMounts") or []):
        yield "subPath"
    if item["spec"].get("traffic"):
        yield "traffic (use kn service update --traffic)"


def unsaid(item: Mapping[str, JSON]) -> Iterator[str]:
    """What gets lost with flags, without changing what the Service does."""
    pod = item["spec"]["template"]["spec"]
    if pod.get("responseStartTimeoutSeconds", 300) != 300:
        yield f"responseStartTimeoutSeconds {pod['responseStartTimeoutSeconds']}"
    if "automountServiceAccountToken" in pod:
        yield "automountServiceAccountToken false"
    if (pod["containers"][0].get("securityContext") or {}).get("readOnlyRootFilesystem"):
        yield "readOnlyRootFilesystem true"


def flags(item: Mapping[str, JSON]) -> list[str]:
    """The flags for a Service that has nothing unsayable."""
    metadata, template = item["metadata"], item["spec"]["template"]
    pod = template["spec"]
    container = pod["containers"][0]
    words = ["--image", container["image"]]
    words += [*_command(container), *_env(container)]
    words += _numbers(pod, container)
    words += _annotations(metadata, template)
    words += _labels(metadata, template)
    words += _volumes(pod, container)
    words += _security(container)
    if pod.get("serviceAccountName"):
        words += ["--service-account", pod["serviceAccountName"]]
    for secret in pod.get("imagePullSecrets") or []:
        words += ["--pull-secret", secret["name"]]
    for key, value in (pod.get("nodeSelector") or {}).items():
        words += ["--node-selector", f"{key}={value}"]
    return words


def _command(container: Mapping[str, JSON]) -> list[str]:
    words: list[str] = []
    for word in container.get("command") or []:
        words.append(f"--cmd={word}")
    for word in container.get("args") or []:
        words.append(f"--arg={word}")
    for port in container.get("ports") or []:
        name = f"{port['name']}:" if port.get("name") else ""
        words += ["--port", f"{name}{port['containerPort']}"]
    probe = (container.get("readinessProbe") or {}).get("httpGet")
    if probe:
        words += ["--probe-readiness", f"http::{probe.get('port', 0)}:{probe.get('path', '/')}"]
    return words


def _env(container: Mapping[str, JSON]) -> list[str]:
    words: list[str] = []
    for variable in container.get("env") or []:
        source = variable.get("valueFrom")
        if not source:
            words += ["--env", f"{variable['name']}={variable.get('value', '')}"]
        for key, kind in (("secretKeyRef", "secret"), ("configMapKeyRef", "cm")):
            if source and source.get(key):
                found = source[key]
                words += [
                    "--env-value-from",
                    f"{variable['name']}={kind}:{found['name']}:{found['key']}",
                ]
    for source in container.get("envFrom") or []:
        for key, kind in (("secretRef", "secret"), ("configMapRef", "cm")):
            if source.get(key):
                words += ["--env-from", f"{kind}:{source[key]['name']}"]
    return words


def _numbers(pod: Mapping[str, JSON], container: Mapping[str, JSON]) -> list[str]:
    words: list[str] = []
    if pod.get("containerConcurrency"):
        words += ["--concurrency-limit", str(pod["containerConcurrency"])]
    if pod.get("timeoutSeconds"):
        words += ["--timeout", str(pod["timeoutSeconds"])]
    for group, flag in (("requests", "--request"), ("limits", "--limit")):
        for name, amount in ((container.get("resources") or {}).get(group) or {}).items():
            words += [flag, f"{name}={amount}"]
    return words


def _annotations(metadata: Mapping[str, JSON], template: Mapping[str, JSON]) -> list[str]:
    words: list[str] = []
    for key, value in ((template.get("metadata") or {}).get("annotations") or {}).items():
        short = key.removeprefix(keys.AUTOSCALING)
        if key != short and short in _SCALE_FLAGS:
            words += [_SCALE_FLAGS[short], value]
        else:
            words += ["--annotation-revision", f"{key}={value}"]
    for key, value in (metadata.get("annotations") or {}).items():
        words += ["--annotation-service", f"{key}={value}"]
    return words


def _labels(metadata: Mapping[str, JSON], template: Mapping[str, JSON]) -> list[str]:
    words: list[str] = []
    for key, value in (metadata.get("labels") or {}).items():
        if key == keys.KNATIVE_VISIBILITY:
            words.append("--cluster-local")
        else:
            words += ["--label-service", f"{key}={value}"]
    for key, value in ((template.get("metadata") or {}).get("labels") or {}).items():
        words += ["--label-revision", f"{key}={value}"]
    return words


def _volumes(pod: Mapping[str, JSON], container: Mapping[str, JSON]) -> list[str]:
    volumes = {volume["name"]: volume for volume in pod.get("volumes") or []}
    words: list[str] = []
    for mount in container.get("volumeMounts") or []:
        words += ["--mount", f"{mount['mountPath']}={mount['name']}"]
        volume = volumes[mount["name"]]
        words += ["--volume", f"{mount['name']}={_volume(volume)}"]
    return words


def _volume(volume: Mapping[str, JSON]) -> str:
    if "secret" in volume:
        return f"secret:{volume['secret']['secretName']}"
    if "configMap" in volume:
        return f"cm:{volume['configMap']['name']}"
    if "persistentVolumeClaim" in volume:
        claim = volume["persistentVolumeClaim"]
        return f"pvc:{claim['claimName']}" + (":readOnly=true" if claim.get("readOnly") else "")
    scratch = volume["emptyDir"]
    parts = [f"type={scratch['medium']}"] if scratch.get("medium") else []
    parts += [f"size={scratch['sizeLimit']}"] if scratch.get("sizeLimit") else []
    return "emptyDir:" + ",".join(parts) if parts else f"emptyDir:{volume['name']}"


def _security(container: Mapping[str, JSON]) -> list[str]:
    """kn knows two profiles only; `strict` is exactly our hardening."""
    context = container.get("securityContext") or {}
    words = ["--security-context", "strict"] if context.get("runAsNonRoot") else []
    if context.get("runAsUser") is not None:
        words += ["--user", str(context["runAsUser"])]
    return words
