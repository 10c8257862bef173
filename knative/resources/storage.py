"""Model delivery: how an artifact's URI becomes files under a directory of the server.

Profile `init`: an init container fetches into an emptyDir that the server mounts read-only. Profile
`stock`: the server process fetches itself (STORAGE_URI) before it turns ready. `pvc://` is mounted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from knative import names
from knative.options import CompileOptions, Profile
from knative.resources import container

JSON = Any
Object = dict[str, JSON]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a pod needs so that its server finds the model."""

    init_containers: list[Object] = field(default_factory=list)
    volumes: list[Object] = field(default_factory=list)
    mounts: list[Object] = field(default_factory=list)
    """Mounts of the serving container."""
    env: list[Object] = field(default_factory=list)
    """Environment of the serving container."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Credentials and sizes of a fetch."""

    env: Sequence[Object] = ()
    env_from: Sequence[Object] = ()
    mounts: Sequence[Object] = ()
    volumes: Sequence[Object] = ()
    size_limit: str = ""
    writable: bool = False
    """The server may write into the model directory."""


def deliver(uri: str, options: CompileOptions, access: Access, *, own_server: bool) -> Delivery:
    """Deliver one URI to /mnt/models. `own_server`: the container is ours and can fetch itself."""
    if uri.startswith("pvc://"):
        return _mount_claim(uri, access)
    if options.profile is Profile.STOCK and own_server:
        return _fetch_in_server(uri, access)
    return fetch_first([(uri, names.MODEL_DIR)], names.MODEL_DIR, options, access)


def fetch_first(
    pairs: Sequence[tuple[str, str]], root: str, options: CompileOptions, access: Access
) -> Delivery:
    """An init container that fetches all (uri, directory) pairs into one emptyDir mounted at
    `root`."""
    mount = {"name": names.MODEL_VOLUME, "mountPath": root}
    fetcher = container.tidy(
        {
            "name": names.INIT_CONTAINER,
            "image": options.image("storage-initializer"),
            "command": ["python", "-m", "storage_initializer"],
            "args": [word for pair in pairs for word in pair],
            "env": list(access.env),
            "envFrom": list(access.env_from),
            "resources": {k: dict(v) for k, v in container.FETCHER_RESOURCES.items()},
            "securityContext": dict(container.HARDENED),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [mount, container.tmp_mount(), *access.mounts],
        }
    )
    server_mount = mount if access.writable else {**mount, "readOnly": True}
    return Delivery(
        init_containers=[fetcher],
        volumes=[_scratch(access), *access.volumes],
        mounts=[server_mount],
    )


def _fetch_in_server(uri: str, access: Access) -> Delivery:
    return Delivery(
        volumes=[_scratch(access), *access.volumes],
        mounts=[{"name": names.MODEL_VOLUME, "mountPath": names.MODEL_DIR}, *access.mounts],
        env=[*container.env(STORAGE_URI=uri), *access.env],
    )


def _scratch(access: Access) -> Object:
    limit = {"sizeLimit": access.size_limit} if access.size_limit else {}
    return {"name": names.MODEL_VOLUME, "emptyDir": limit}


def _mount_claim(uri: str, access: Access) -> Delivery:
    claim, _, path = uri.removeprefix("pvc://").partition("/")
    mount: Object = {"name": names.PVC_VOLUME, "mountPath": names.MODEL_DIR}
    if path.strip("/"):
        mount["subPath"] = path.strip("/")
    if not access.writable:
        mount["readOnly"] = True
    source: Object = {"claimName": claim}
    if not access.writable:
        source["readOnly"] = True
    return Delivery(
        volumes=[{"name": names.PVC_VOLUME, "persistentVolumeClaim": source}], mounts=[mount]
    )


def storage_env(container_: Mapping[str, JSON]) -> str:
    """A custom container's STORAGE_URI, which asks for delivery (KServe's contract)."""
    return container.env_value(container_, "STORAGE_URI")
