"""From a container's manifest to argv, environment, working directory and limits of a process.

Order as in Kubernetes: envFrom, then env, then what Knative adds; `$(NAME)` refers to variables
defined before, `$$(NAME)` is a literal. Mount paths are mapped last (`volumes.PathMap`).
"""

import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import images, spec
from .errors import PodFailed
from .port_words import replace_addresses, replace_in_env, replace_port
from .settings import EngineSettings, pod_environment
from .volumes import PathMap, Sources

LOOPBACK = "127.0.0.1,localhost,::1"
_REFERENCE = re.compile(r"\$(?:\$|\(([A-Za-z_.-][\w.-]*)\))")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a pod is: what Knative puts into K_* and the downward API into fields."""

    pod: str
    namespace: str
    service: str
    revision: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    limits: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the container runs: directories, gateway, port (None: not the serving container)."""

    pod_dir: Path
    volumes: Mapping[str, Path]
    gateway_url: str
    port: int | None = None
    init: bool = False
    sink_env: Mapping[str, str] | None = None
    """K_SINK and company, when a SinkBinding points here."""
    pod_ports: Mapping[int, int] = field(default_factory=dict)
    """Ports between the containers of the pod: the manifest's -> the ones they have here."""


def make_launch(
    container: spec.Container,
    identity: Identity,
    place: Place,
    settings: EngineSettings,
    sources: Sources,
) -> Launch:
    """Everything the spawner needs. Raises PodFailed when a referenced Secret or key is missing."""
    mounted = PathMap(container.mounts, place.volumes)
    env = _environment(container, identity, place, settings, sources, mounted)
    temporary = mounted.target("/tmp") or str(place.pod_dir / "tmp")  # noqa: S108 - the pod's own
    Path(temporary).mkdir(parents=True, exist_ok=True)
    if images.runs_in_image(container, settings.container_engine, settings.commands):
        return _image_launch(container, identity, place, settings, sources)
    env["TMPDIR"] = temporary
    words = [mounted(expand(part, env)) for part in (*container.command, *container.args)]
    argv = _with_ports([word for word in words if word != ""], container, place)
    program = sys.executable if argv[0] in {"python", "python3"} else argv[0]
    return Launch(
        argv=(program, *argv[1:]),
        env=env,
        cwd=_working_dir(container, mounted, settings),
        limits=_limits(container.resources),
    )


def _image_launch(
    container: spec.Container,
    identity: Identity,
    place: Place,
    settings: EngineSettings,
    sources: Sources,
) -> Launch:
    """The client of docker or podman; inside the image, mount paths are what the manifest says."""
    unmapped = PathMap((), {})
    env = _environment(container, identity, place, settings, sources, unmapped)
    inherited = pod_environment(settings.environ, credentials=False)
    passed = {name: value for name, value in env.items() if inherited.get(name) != value}
    words = [expand(part, env) for part in (*container.command, *container.args)]
    arguments = _with_ports(words, container, place)
    run = images.run_words(
        settings.container_engine,
        container,
        pod=identity.pod,
        engine_id=str(settings.state_dir.resolve()),
        env=passed,
        arguments=arguments,
        volumes=place.volumes,
    )
    return Launch(argv=tuple(run), env=env, cwd=str(settings.root.resolve()), limits={})


def _moved_ports(container: spec.Container, place: Place) -> dict[int, int]:
    """Every port that is another one here: the serving container's own, and the pod's inner."""
    moved = dict(place.pod_ports)
    if place.port is not None and container.port is not None:
        moved[container.port] = place.port
    return moved


def _with_ports(words: list[str], container: spec.Container, place: Place) -> list[str]:
    for port, actual in _moved_ports(container, place).items():
        words = replace_port(words, port, actual)
    return [replace_addresses(word, place.pod_ports) for word in words]


def expand(text: str, env: Mapping[str, str]) -> str:
    """Kubernetes' `$(NAME)`: unknown names stay as they are, `$$` is one dollar sign."""

    def value(match: re.Match[str]) -> str:
        if match[1] is None:
            return "$"
        return env.get(match[1], match[0])

    return _REFERENCE.sub(value, text)


def _environment(
    container: spec.Container,
    identity: Identity,
    place: Place,
    settings: EngineSettings,
    sources: Sources,
    mounted: PathMap,
) -> dict[str, str]:
    trusted = place.init or _fetches(container, identity)
    env = pod_environment(settings.environ, credentials=trusted)
    env["PYTHONUNBUFFERED"] = (
        "1"  # logs arrive when they are written, as with a container's terminal
    )
    proxy = {"http_proxy": place.gateway_url, "no_proxy": LOOPBACK}
    env.update(proxy)
    env.update({name.upper(): value for name, value in proxy.items()})
    if trusted and settings.mirrors:
        env["STORAGE_MIRRORS"] = ",".join(settings.mirrors)
    if container.resources.cpu_limit_m and not place.init:
        # Without cgroups nothing else tells numeric libraries how many threads make sense here:
        # one per CPU in every pod would spend its time waiting at barriers.
        env["OMP_NUM_THREADS"] = str(max(1, container.resources.cpu_limit_m // 1000))
    declared: dict[str, str] = {}
    for source in container.env_from:
        declared.update(_env_from(source, identity.namespace, sources))
    for item in container.env:
        value = _env_value(item, identity, sources, container)
        if value is not None:
            declared[item.name] = expand(value, {**env, **declared})
    for port, actual in _moved_ports(container, place).items():
        declared = replace_in_env(declared, port, actual)
    declared = {k: replace_addresses(value, place.pod_ports) for k, value in declared.items()}
    env.update((name, mounted(value)) for name, value in declared.items())
    if identity.labels.get("turnout.dev/unit") == "router-fn":
        env["PROPAGATE_HEADERS"] = _with_trace(env.get("PROPAGATE_HEADERS", ""))
    env.update(place.sink_env or {})
    env.update(settings.extra_env)
    env["TERMINATION_LOG"] = str(place.pod_dir / f"{container.name}.termination")
    env["HOSTNAME"] = identity.pod
    if not place.init:
        env["K_SERVICE"] = env["K_CONFIGURATION"] = identity.service
        env["K_REVISION"] = identity.revision
        if place.port is not None:
            env["PORT"] = str(place.port)
    return env


def _with_trace(propagated: str) -> str:
    """A graph's router also passes the trace context on, so that the console can show which path
    a request took. Names as Go spells them: KServe's patterns see canonical names."""
    names = [name.strip() for name in propagated.split(",") if name.strip()]
    return ",".join(
        [*names, *(name for name in ("Traceparent", "Tracestate") if name not in names)]
    )


def _fetches(container: spec.Container, identity: Identity) -> bool:
    """Serving containers that read storage themselves: our event units, and model servers of the
    stock profile (they fetch what STORAGE_URI names)."""
    if identity.labels.get("turnout.dev/unit") == "events":
        return True
    return any(item.name == "STORAGE_URI" for item in container.env)


def _env_from(source: spec.EnvFrom, namespace: str, sources: Sources) -> dict[str, str]:
    held = sources.secrets if source.kind == "secret" else sources.config_maps
    data = held.get(f"{namespace}/{source.name}")
    if data is None:
        if source.optional:
            return {}
        raise PodFailed(
            "CreateContainerConfigError",
            f"envFrom: there is no {source.kind} {namespace}/{source.name}; add its YAML to `up`",
        )
    return {source.prefix + key: value.decode(errors="replace") for key, value in data.items()}


def _env_value(
    item: spec.Env, identity: Identity, sources: Sources, container: spec.Container
) -> str | None:
    """The value, or None for an optional reference that does not resolve."""
    if not item.source:
        return item.value
    for kind, held in (
        ("secretKeyRef", sources.secrets),
        ("configMapKeyRef", sources.config_maps),
    ):
        reference = item.source.get(kind)
        if reference is None:
            continue
        found = held.get(f"{identity.namespace}/{reference.get('name')}", {})
        value = found.get(str(reference.get("key")))
        if value is not None:
            return value.decode(errors="replace")
        if reference.get("optional"):
            return None
        raise PodFailed(
            "CreateContainerConfigError",
            f"env {item.name}: {kind} {identity.namespace}/{reference.get('name')} has no key "
            f"{reference.get('key')}; add its YAML to `up`",
        )
    if "fieldRef" in item.source:
        return _field(str(item.source["fieldRef"].get("fieldPath")), identity)
    if "resourceFieldRef" in item.source:
        return _resource_field(str(item.source["resourceFieldRef"].get("resource")), container)
    return ""


def _field(path: str, identity: Identity) -> str:
    plain: dict[str, Callable[[], str]] = {
        "metadata.name": lambda: identity.pod,
        "metadata.namespace": lambda: identity.namespace,
        "metadata.uid": lambda: identity.pod,
        "status.podIP": lambda: "127.0.0.1",
        "status.hostIP": lambda: "127.0.0.1",
        "spec.nodeName": lambda: "localhost",
        "spec.serviceAccountName": lambda: "default",
    }
    if path in plain:
        return plain[path]()
    match = re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path)
    if match:
        held = identity.labels if match[1] == "labels" else identity.annotations
        return held.get(match[2], "")
    raise PodFailed("CreateContainerConfigError", f"fieldRef {path} means nothing on this machine")


def _resource_field(resource: str, container: spec.Container) -> str:
    limits = container.resources
    values = {
        "limits.cpu": max(1, -(-limits.cpu_limit_m // 1000)),
        "requests.cpu": max(1, -(-limits.cpu_request_m // 1000)),
        "limits.memory": limits.memory_limit,
        "requests.memory": limits.memory_request,
    }
    return str(values.get(resource, 0))


def _working_dir(container: spec.Container, mounted: PathMap, settings: EngineSettings) -> str:
    if container.working_dir:
        mapped = mounted(container.working_dir)
        if Path(mapped).is_dir():
            return mapped
    return str(settings.root.resolve())


def _limits(resources: spec.Resources) -> dict[str, int]:
    """Resource limits a plain process can have. No RLIMIT_AS: address space is not memory
    (models map files, runtimes reserve arenas); `memory.Watch` looks after memory limits
    instead."""
    return {"RLIMIT_CORE": 0}


def split_command(text: str) -> tuple[str, ...]:
    """The words of a `--map IMAGE=COMMAND`, shell quoting understood, no shell involved."""
    return tuple(shlex.split(text))
