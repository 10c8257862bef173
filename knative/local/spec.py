"""Compiled manifests as the engine sees them: frozen, checked, one type per thing. No I/O.

`workload.parse` makes these from plain dicts. Units: seconds, bytes, millicores. Fields keep
Knative's meaning and defaults (spec section 1); Kubernetes fields that have no meaning on one
machine are absent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from .scaling import Scaling

Json: TypeAlias = Mapping[str, Any]

ProbeKind = Literal["http", "tcp", "exec", "grpc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    kind: ProbeKind
    path: str = "/"
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    command: tuple[str, ...] = ()
    service: str = ""
    period_s: float = 0.0
    """0: aggressive, as Knative probes a container without a readiness probe of its own."""
    timeout_s: float = 1.0
    initial_delay_s: float = 0.0
    failure_threshold: int = 3
    success_threshold: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    volume: str
    path: str
    sub_path: str = ""
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Env:
    """A literal `value`, or a `source` such as `{"secretKeyRef": {"name": ..., "key": ...}}`."""

    name: str
    value: str = ""
    source: Json | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvFrom:
    kind: Literal["configMap", "secret"]
    name: str
    prefix: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    cpu_request_m: int = 0
    memory_request: int = 0
    cpu_limit_m: int = 0
    memory_limit: int = 0
    """0: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    env: tuple[Env, ...] = ()
    env_from: tuple[EnvFrom, ...] = ()
    mounts: tuple[Mount, ...] = ()
    port: int | None = None
    """containerPort; exactly one container of a pod has one."""
    h2c: bool = False
    readiness: Probe | None = None
    liveness: Probe | None = None
    startup: Probe | None = None
    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    name: str
    kind: Literal["emptyDir", "secret", "configMap", "projected", "pvc", "hostPath", "image"]
    source: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """What a revision runs: one pod's containers and volumes, limits and timeouts."""

    containers: tuple[Container, ...]
    init_containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    concurrency: int = 0
    """containerConcurrency; 0 is unlimited."""
    timeout_s: float = 300.0
    response_start_s: float = 300.0
    idle_s: float = 0.0
    """0: off."""
    scaling: Scaling = field(default_factory=Scaling)
    pod_ports: tuple[int, ...] = ()
    """Ports on which containers of the pod call one another."""

    @property
    def serving(self) -> Container:
        """The container that carries the port."""
        return next(container for container in self.containers if container.port is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One entry of `spec.traffic`."""

    percent: int = 0
    tag: str = ""
    revision: str = ""
    """Empty: the latest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    name: str
    namespace: str
    template: Template
    traffic: tuple[Target, ...] = (Target(percent=100),)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    rollout_s: float = 0.0
    raw_template: Json = field(default_factory=dict)
    """The revision template as it was given: what is remembered of old revisions."""
    fingerprint: str = ""
    """Digest of everything that makes a revision: a change makes a new one."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Everything `up` was given."""

    services: tuple[Service, ...]
    secrets: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    """`namespace/name` -> key -> bytes."""
    config_maps: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    others: tuple[Json, ...] = ()
    """Brokers, Triggers, PingSources, SinkBindings: for the eventing side."""
    warnings: tuple[str, ...] = ()
