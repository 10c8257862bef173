"""Containers: our defaults under the user's fields, hardened, in one fixed key order."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from knative import names

JSON = Any
Object = dict[str, JSON]

DEFAULT_PORT = 8080
"""Knative's default serving port; programs listen on $PORT."""

SERVER_RESOURCES: Mapping[str, Mapping[str, str]] = {
    "requests": {"cpu": "1", "memory": "2Gi"},
    "limits": {"cpu": "1", "memory": "2Gi"},
}
"""KServe's default for every component."""

ROUTER_RESOURCES: Mapping[str, Mapping[str, str]] = {
    "requests": {"cpu": "100m", "memory": "100Mi"},
    "limits": {"cpu": "1", "memory": "1Gi"},
}
"""KServe's default for graph routers."""

FETCHER_RESOURCES: Mapping[str, Mapping[str, str]] = {
    "requests": {"cpu": "100m", "memory": "100Mi"},
    "limits": {"cpu": "1", "memory": "1Gi"},
}
"""KServe's default for the storage initializer; Knative gives init containers none of its own."""

HARDENED: Mapping[str, JSON] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""Security context of our own images: they run as a numbered user and write below /tmp only."""

GUARDED: Mapping[str, JSON] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""Security context of images that are not ours: they may run as root or write beside their
files."""

_ORDER = (
    "name",
    "image",
    "imagePullPolicy",
    "command",
    "args",
    "workingDir",
    "env",
    "envFrom",
    "ports",
    "readinessProbe",
    "livenessProbe",
    "startupProbe",
    "resources",
    "securityContext",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "volumeMounts",
)


def merge(base: Mapping[str, JSON], user: Mapping[str, JSON]) -> Object:
    """The user's container fields over ours.

    args are appended; env, volumeMounts, resources and securityContext merge entry by entry with
    the
    user's winning; everything else replaces.
    """
    result = dict(base)
    for key, value in user.items():
        if value is None:
            continue
        mine = base.get(key)
        if key == "args" and mine:
            result[key] = [*mine, *value]
        elif key == "env" and mine:
            result[key] = merge_env(mine, value)
        elif key == "volumeMounts" and mine:
            result[key] = _merge_by("mountPath", mine, value)
        elif key == "resources" and mine:
            result[key] = _merge_resources(mine, value)
        elif key == "securityContext" and mine:
            result[key] = {**mine, **value}
        else:
            result[key] = value
    return tidy(result)


def merge_env(mine: Sequence[Object], theirs: Sequence[Object]) -> list[Object]:
    """Environment entries by name: theirs win, ours keep their place, new ones follow."""
    return _merge_by("name", mine, theirs)


def _merge_by(key: str, mine: Sequence[Object], theirs: Sequence[Object]) -> list[Object]:
    given = {item.get(key): item for item in theirs}
    kept = [given.pop(item.get(key), item) for item in mine]
    return [*kept, *given.values()]


def _merge_resources(mine: Mapping[str, JSON], theirs: Mapping[str, JSON]) -> Object:
    """Requests and limits entry by entry; a request never stays above a limit the user lowered."""
    limits = {**mine.get("limits", {}), **(theirs.get("limits") or {})}
    requests = {**mine.get("requests", {}), **(theirs.get("requests") or {})}
    asked = theirs.get("requests") or {}
    limited = theirs.get("limits") or {}
    for name in limited:
        if name not in asked and name in requests:
            requests[name] = limited[name]
    for name in asked:
        if name not in limited and name in limits:
            limits[name] = asked[name]
    return {"requests": requests, "limits": limits}


def tidy(container: Mapping[str, JSON]) -> Object:
    """Known keys in fixed order, empty ones dropped, the rest after them as given."""
    result = {key: container[key] for key in _ORDER if container.get(key) not in (None, [], {})}
    result |= {key: value for key, value in container.items() if key not in _ORDER}
    return result


def env(**variables: str) -> list[Object]:
    """Environment entries from plain text values."""
    return [{"name": name, "value": value} for name, value in variables.items()]


def is_grpc(protocol: str) -> bool:
    """Nothing but gRPC is among the protocols (comma-separated): our servers then have it on their
    one port."""
    return bool(protocol) and all(part.startswith("grpc") for part in protocol.split(","))


def serves_h2c(given: Mapping[str, JSON]) -> bool:
    """The user's port says gRPC: Knative and KServe read it from the name."""
    return any((port.get("name") or "") == "h2c" for port in given.get("ports") or [])


def http_port(given: Mapping[str, JSON]) -> int:
    """Where a user's container serves HTTP: its declared port, Knative's default without one (and
    beside gRPC's)."""
    first: Mapping[str, JSON] = next(iter(given.get("ports") or []), {})
    declared = 0 if serves_h2c(given) else int(first.get("containerPort") or 0)
    return declared or DEFAULT_PORT


def ready_probe(protocol: str = "", given: Mapping[str, JSON] | None = None) -> Object:
    """True only when the unit says so; Knative's queue-proxy runs it aggressively on cold start.

    A gRPC port speaks HTTP/2 only, so there the standard gRPC health service is asked, on the port
    that a user's container (`given`) names.
    """
    if is_grpc(protocol):
        first: Mapping[str, JSON] = next(iter((given or {}).get("ports") or []), {})
        return {"grpc": {"port": first.get("containerPort") or DEFAULT_PORT}}
    return {"httpGet": {"path": "/readyz"}}


def copied(resources: Mapping[str, Mapping[str, str]]) -> Object:
    """Our default resources as plain, changeable data."""
    return {key: dict(inner) for key, inner in resources.items()}


def ports(protocol: str = "") -> list[Object]:
    """The one serving port; gRPC needs HTTP/2 end to end, which Knative reads from the name."""
    if is_grpc(protocol):
        return [{"containerPort": DEFAULT_PORT, "name": "h2c"}]
    return [{"containerPort": DEFAULT_PORT}]


def tmp_mount() -> Object:
    """Writable /tmp beside a read-only root; `make_service` adds the volume behind it."""
    return {"name": names.TMP_VOLUME, "mountPath": "/tmp"}  # noqa: S108 (a path inside a container)


def flag_value(container: Mapping[str, JSON], *flags: str) -> str:
    """The value of the first of `flags` in a container's args, `--flag V` or `--flag=V`; else
    empty."""
    words: Iterable[str] = [
        str(w) for w in [*(container.get("command") or []), *(container.get("args") or [])]
    ]
    line = list(words)
    for position, word in enumerate(line):
        for flag in flags:
            if word == flag and position + 1 < len(line):
                return line[position + 1]
            if word.startswith(f"{flag}="):
                return word[len(flag) + 1 :]
    return ""


def env_value(container: Mapping[str, JSON], name: str) -> str:
    """The literal value of an environment entry; empty if absent or taken from elsewhere."""
    for item in container.get("env") or []:
        if item.get("name") == name:
            return str(item.get("value") or "")
    return ""


def is_ours(given: Mapping[str, JSON]) -> bool:
    """Whether a user's container runs `python -m functions`."""
    words = [*(given.get("command") or []), *(given.get("args") or [])]
    return words[1:3] == ["-m", "functions"]


_OWN_FLAGS = ("--transformer", "--transformer-config", "--model-class")
_OWN_VARIABLES = ("FUNCTIONS_TRANSFORMER", "FUNCTIONS_TRANSFORMER_CONFIG", "FUNCTIONS_MODEL_CLASS")


def wants_ours(given: Mapping[str, JSON]) -> bool:
    """A transformer's container that names no image but says what our server should do."""
    if given.get("image") or given.get("command"):
        return False
    return bool(
        flag_value(given, *_OWN_FLAGS) or any(env_value(given, name) for name in _OWN_VARIABLES)
    )


def is_ready_made(given: Mapping[str, JSON]) -> bool:
    """It runs one of our server's own transformers, whose files are in the model directory."""
    return bool(
        flag_value(given, *_OWN_FLAGS[:2])
        or any(env_value(given, name) for name in _OWN_VARIABLES[:2])
    )


def transformer_of(spec: Mapping[str, JSON]) -> Mapping[str, JSON] | None:
    """The container of an InferenceService's transformer, of its own or in the predictor's pod."""
    transformer = spec.get("transformer") or {}
    for item in transformer.get("containers") or []:
        first: Mapping[str, JSON] = item
        return first
    for item in spec["predictor"].get("containers") or []:
        if item.get("name") == names.TRANSFORMER_CONTAINER:
            together: Mapping[str, JSON] = item
            return together
    return None
