"""Plain Knative objects (dicts) into `spec` types, with every problem reported at once. No I/O.

The compiler has validated what it emits; this module checks what *running here* needs: a command
for every container, references that resolve, one serving port. Kinds it does not know are left out
with a warning.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypeVar

from knative import keys

from . import quantities, spec
from .errors import InvalidWorkload
from .port_words import declared_ports
from .scaling import Defaults, make_scaling

EVENTING_KINDS = frozenset({"Broker", "Trigger", "PingSource", "SinkBinding", "ContainerSource"})
SILENT_KINDS = frozenset({"Namespace", "ServiceAccount", "Role", "RoleBinding"})
"""Kinds that mean nothing on one machine and deserve no warning."""

DEFAULT_NAMESPACE = "default"
DEFAULT_PORT = 8080

_VOLUME_KINDS: dict[str, Any] = {
    "emptyDir": "emptyDir",
    "secret": "secret",
    "configMap": "configMap",
    "projected": "projected",
    "persistentVolumeClaim": "pvc",
    "hostPath": "hostPath",
    "image": "image",
}
_PROBES: dict[str, spec.ProbeKind] = {
    "httpGet": "http",
    "tcpSocket": "tcp",
    "exec": "exec",
    "grpc": "grpc",
}

_T = TypeVar("_T")


class _Commands(NamedTuple):
    """How containers without a command of their own can run."""

    mapped: Mapping[str, Sequence[str]]
    images: bool


class _Problems:
    """Collects `path: message` lines; `at` makes a deeper path."""

    def __init__(self, path: str = "", lines: list[str] | None = None) -> None:
        self.path = path
        self.lines: list[str] = [] if lines is None else lines

    def at(self, part: str) -> "_Problems":
        return _Problems(f"{self.path}.{part}" if self.path else part, self.lines)

    def add(self, message: str) -> None:
        self.lines.append(f"{self.path}: {message}")

    def read(self, parse: Callable[[], _T], default: _T) -> _T:
        try:
            return parse()
        except (ValueError, TypeError) as error:
            self.add(str(error))
            return default


def parse(
    objects: Iterable[spec.Json],
    *,
    defaults: Defaults | None = None,
    commands: Mapping[str, Sequence[str]] | None = None,
    images: bool = False,
) -> spec.Workload:
    """All objects of one `up`. `commands` maps images without a command to one (`--map`); with
    `images` an image may do without, because a container engine will run it.

    Raises InvalidWorkload with every problem found.
    """
    problems = _Problems()
    runnable = _Commands(commands or {}, images)
    services: dict[str, spec.Service] = {}
    secrets: dict[str, dict[str, bytes]] = {}
    config_maps: dict[str, dict[str, bytes]] = {}
    others: list[spec.Json] = []
    warnings: list[str] = []
    for item in objects:
        kind, group = str(item.get("kind", "")), str(item.get("apiVersion", "")).split("/")[0]
        metadata = item.get("metadata") or {}
        key = f"{metadata.get('namespace') or DEFAULT_NAMESPACE}/{metadata.get('name', '')}"
        here = problems.at(f"{kind} {key}")
        if kind == "Service" and group == "serving.knative.dev":
            if key in services:
                here.add("is defined twice")
            services[key] = _service(item, here, defaults or Defaults(), runnable)
        elif kind == "Secret":
            secrets[key] = _data(item, here, "stringData")
        elif kind == "ConfigMap":
            config_maps[key] = _data(item, here, "data", binary="binaryData")
        elif kind in EVENTING_KINDS:
            others.append(item)
        elif kind not in SILENT_KINDS:
            warnings.append(f"{kind} {key}: not run by the local engine ({item.get('apiVersion')})")
    if problems.lines:
        raise InvalidWorkload(problems.lines)
    return spec.Workload(
        services=tuple(services.values()),
        secrets=secrets,
        config_maps=config_maps,
        others=tuple(others),
        warnings=tuple(warnings),
    )


def _data(
    item: spec.Json, problems: _Problems, text_field: str, *, binary: str = "data"
) -> dict[str, bytes]:
    values: dict[str, bytes] = {}
    for key, text in (item.get(binary) or {}).items():
        try:
            values[key] = base64.b64decode(str(text), validate=True)
        except binascii.Error:
            problems.at(f"{binary}.{key}").add("is not base64")
    for key, text in (item.get(text_field) or {}).items():
        values[key] = str(text).encode()
    return values


def _service(
    item: spec.Json,
    problems: _Problems,
    defaults: Defaults,
    commands: "_Commands",
) -> spec.Service:
    metadata, body = item.get("metadata") or {}, item.get("spec") or {}
    annotations = _strings(metadata.get("annotations"))
    template = body.get("template") or {}
    rollout = annotations.get("serving.knative.dev/rollout-duration", "0")
    here = problems.at("spec.template")
    return spec.Service(
        name=str(metadata.get("name", "")),
        namespace=str(metadata.get("namespace") or DEFAULT_NAMESPACE),
        labels=_strings(metadata.get("labels")),
        annotations=annotations,
        template=_template(template, here, defaults, commands),
        traffic=_traffic(body.get("traffic"), problems.at("spec.traffic")),
        rollout_s=problems.read(lambda: quantities.parse_duration(rollout), 0.0),
        raw_template=template,
        fingerprint=fingerprint(template, commands.mapped),
    )


def fingerprint(template: spec.Json, commands: Mapping[str, Sequence[str]]) -> str:
    """Digest of a revision template; key order and formatting do not matter."""
    text = json.dumps([template, {k: list(v) for k, v in commands.items()}], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _traffic(entries: Any, problems: _Problems) -> tuple[spec.Target, ...]:
    if not entries:
        return (spec.Target(percent=100),)
    targets = tuple(
        spec.Target(
            percent=int(entry.get("percent") or 0),
            tag=str(entry.get("tag") or ""),
            revision=str(entry.get("revisionName") or ""),
        )
        for entry in entries
    )
    if (total := sum(target.percent for target in targets)) != 100:
        problems.add(f"the percentages add up to {total}, not 100")
    return targets


def _template(
    template: spec.Json,
    problems: _Problems,
    defaults: Defaults,
    commands: "_Commands",
) -> spec.Template:
    metadata, body = template.get("metadata") or {}, template.get("spec") or {}
    annotations = _strings(metadata.get("annotations"))
    concurrency = int(body.get("containerConcurrency") or 0)
    timeout_s = float(body.get("timeoutSeconds") or 300)
    here = problems.at("spec")
    containers = _containers(body, "containers", here, commands)
    _check_ports(containers, here)
    if len(containers) == 1 and containers[0].port is None:
        containers = (_with_port(containers[0]),)
    return spec.Template(
        containers=containers,
        init_containers=_containers(body, "initContainers", here, commands),
        volumes=_volumes(body.get("volumes"), here),
        labels=_strings(metadata.get("labels")),
        annotations=annotations,
        name=str(metadata.get("name") or ""),
        concurrency=concurrency,
        timeout_s=timeout_s,
        response_start_s=min(timeout_s, float(body.get("responseStartTimeoutSeconds") or 300)),
        idle_s=float(body.get("idleTimeoutSeconds") or 0),
        scaling=problems.at("metadata").read(
            lambda: make_scaling(annotations, concurrency, defaults), make_scaling({}, 0)
        ),
        pod_ports=problems.at("metadata").read(
            lambda: tuple(declared_ports(annotations.get(keys.POD_PORTS, ""))), ()
        ),
    )


def _check_ports(containers: Sequence[spec.Container], problems: _Problems) -> None:
    serving = [container for container in containers if container.port is not None]
    if not containers:
        problems.add("a pod needs a container")
    elif len(serving) > 1 or (len(containers) > 1 and not serving):
        problems.at("containers").add("exactly one container of a pod must have `ports`")


def _with_port(container: spec.Container) -> spec.Container:
    return replace(container, port=DEFAULT_PORT)


def _containers(
    body: spec.Json, name: str, problems: _Problems, commands: "_Commands"
) -> tuple[spec.Container, ...]:
    default = "init-container" if name == "initContainers" else "user-container"
    entries = body.get(name) or []
    return tuple(
        _container(
            entry,
            problems.at(f"{name}[{index}]"),
            default if len(entries) == 1 else f"{default}-{index}",
            commands,
        )
        for index, entry in enumerate(entries)
    )


def _container(
    entry: spec.Json, problems: _Problems, default_name: str, commands: "_Commands"
) -> spec.Container:
    image = str(entry.get("image") or "")
    command = tuple(str(part) for part in entry.get("command") or ())
    command = command or mapped(image, commands.mapped)
    if not command and not commands.images:
        problems.at("command").add(
            f"image {image!r} has no command here; say how to run it on this machine: "
            f"--map '{image}=COMMAND', or give the container a `command`"
        )
    ports = entry.get("ports") or []
    resources = problems.at("resources").read(
        lambda: _resources(entry.get("resources") or {}), spec.Resources()
    )
    return spec.Container(
        name=str(entry.get("name") or default_name),
        image=image,
        command=command,
        args=tuple(str(part) for part in entry.get("args") or ()),
        working_dir=str(entry.get("workingDir") or ""),
        env=tuple(_env(item) for item in entry.get("env") or ()),
        env_from=tuple(_env_from(item) for item in entry.get("envFrom") or ()),
        mounts=tuple(_mount(item) for item in entry.get("volumeMounts") or ()),
        port=int(ports[0].get("containerPort") or DEFAULT_PORT) if ports else None,
        h2c=bool(ports) and ports[0].get("name") == "h2c",
        readiness=_probe(entry.get("readinessProbe")),
        liveness=_probe(entry.get("livenessProbe"), period_s=10.0),
        startup=_probe(entry.get("startupProbe"), period_s=10.0),
        resources=resources,
    )


def mapped(image: str, commands: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The command that `--map` gives an image: exact name first, then without tag or digest."""
    untagged = image.split("@")[0]
    if ":" in untagged.rsplit("/", 1)[-1]:
        untagged = untagged.rsplit(":", 1)[0]
    return tuple(commands.get(image) or commands.get(untagged) or ())


def _env(item: spec.Json) -> spec.Env:
    value = item.get("value")
    return spec.Env(
        name=str(item.get("name")),
        value="" if value is None else str(value),
        source=item.get("valueFrom"),
    )


def _env_from(item: spec.Json) -> spec.EnvFrom:
    kind: Literal["configMap", "secret"] = "secret" if "secretRef" in item else "configMap"
    reference = item.get(f"{kind}Ref") or {}
    return spec.EnvFrom(
        kind=kind,
        name=str(reference.get("name", "")),
        prefix=str(item.get("prefix") or ""),
        optional=bool(reference.get("optional")),
    )


def _mount(item: spec.Json) -> spec.Mount:
    return spec.Mount(
        volume=str(item.get("name")),
        path=str(item.get("mountPath")).rstrip("/") or "/",
        sub_path=str(item.get("subPath") or ""),
        read_only=bool(item.get("readOnly")),
    )


def _volumes(entries: Any, problems: _Problems) -> tuple[spec.Volume, ...]:
    volumes: list[spec.Volume] = []
    for index, entry in enumerate(entries or ()):
        source = next((key for key in entry if key in _VOLUME_KINDS), None)
        if source is None:
            kinds = ", ".join(_VOLUME_KINDS)
            problems.at(f"volumes[{index}]").add(f"has no source this machine knows: {kinds}")
            continue
        volumes.append(
            spec.Volume(
                name=str(entry.get("name")),
                kind=_VOLUME_KINDS[source],
                source=entry.get(source) or {},
            )
        )
    return tuple(volumes)


def _probe(item: Any, *, period_s: float = 0.0) -> spec.Probe | None:
    if not item:
        return None
    key = next((key for key in _PROBES if key in item), "tcpSocket")
    handler = item.get(key) or {}
    return spec.Probe(
        kind=_PROBES[key],
        path=str(handler.get("path") or "/"),
        host=str(handler.get("host") or ""),
        headers=tuple(
            (str(header.get("name")), str(header.get("value")))
            for header in handler.get("httpHeaders") or ()
        ),
        command=tuple(str(part) for part in handler.get("command") or ()),
        service=str(handler.get("service") or ""),
        period_s=float(item.get("periodSeconds") or period_s),
        timeout_s=float(item.get("timeoutSeconds") or 1),
        initial_delay_s=float(item.get("initialDelaySeconds") or 0),
        failure_threshold=int(item.get("failureThreshold") or 3),
        success_threshold=int(item.get("successThreshold") or 1),
    )


def _resources(item: spec.Json) -> spec.Resources:
    requests, limits = item.get("requests") or {}, item.get("limits") or {}

    def millicores(source: spec.Json) -> int:
        return int(quantities.parse_quantity(source.get("cpu", 0)) * 1000)

    def size(source: spec.Json) -> int:
        return int(quantities.parse_quantity(source.get("memory", 0)))

    return spec.Resources(
        cpu_request_m=millicores(requests) or millicores(limits),
        memory_request=size(requests) or size(limits),
        cpu_limit_m=millicores(limits),
        memory_limit=size(limits),
    )


def _strings(values: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in (values or {}).items()}
