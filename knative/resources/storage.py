"""Model delivery: how an artifact's URI becomes files under a directory of the server.

Profile `init`: an init container fetches into an emptyDir that the server mounts read-only. Profile
`stock`: the server process fetches itself (STORAGE_URI) before it turns ready; only our own server
can.
`pvc://` is mounted, `oci://` is mounted as an image volume when asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from knative import keys, names
from knative.api.problems import Path
from knative.api.resource import Resource
from knative.options import Profile
from knative.resources import access, container
from storage_initializer.uri import PLACEHOLDER

if TYPE_CHECKING:
    from knative.compiler import Context

JSON = Any
Object = dict[str, JSON]

Source = tuple[str, str]
"""(URI, directory it goes to)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a pod needs so that its server finds the model."""

    init_containers: list[Object] = field(default_factory=list)
    volumes: list[Object] = field(default_factory=list)
    mounts: list[Object] = field(default_factory=list)
    """Mounts of the serving container."""
    env: list[Object] = field(default_factory=list)
    """Environment of the serving container."""
    env_from: list[Object] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One component's wish for files."""

    sources: Sequence[Source]
    path: Path
    """Where the wish is in the manifest, for messages."""
    account: str = ""
    """ServiceAccount whose secrets the fetcher may use."""
    account_path: Path = ()
    """Where the manifest names the account; empty: the predictor's field."""
    own_server: bool = False
    """The container is ours and can fetch by itself."""
    env: Sequence[Object] = ()
    """Further environment of the fetcher."""


def deliver(resource: Resource, context: "Context", order: Order) -> Delivery:
    """Deliver all sources of one component; reports URIs that nothing can fetch."""
    if not order.sources or not _check(resource, context, order):
        return Delivery()
    mounted = [s for s in order.sources if _is_mounted(s[0], resource, context)]
    fetched = [s for s in order.sources if s not in mounted]
    parts = [_mount(index, source, resource, context) for index, source in enumerate(mounted)]
    if fetched:
        parts.append(_fetch(fetched, resource, context, order))
    return Delivery(
        init_containers=[c for p in parts for c in p.init_containers],
        volumes=[v for p in parts for v in p.volumes],
        mounts=[m for p in parts for m in p.mounts],
        env=[e for p in parts for e in p.env],
        env_from=[e for p in parts for e in p.env_from],
    )


def _check(resource: Resource, context: "Context", order: Order) -> bool:
    report = context.report(resource)
    good = True
    for text, directory in order.sources:
        plain = text.replace("oci+native://", "oci://", 1)
        if text.startswith(PLACEHOLDER):
            continue
        for message in _uri_problems(plain):
            report.error(order.path, message)
            good = False
        if text.startswith("file://") or "://" not in text:
            report.warning(order.path, f"{text} is a path inside the pod's own image or volumes")
        if ".." in PurePosixPath(directory).parts:
            report.error(order.path, f"{directory}: a mount path must not contain ..")
            good = False
    return good


def _uri_problems(text: str) -> list[str]:
    from storage_initializer import uri

    try:
        return [message for _, message in uri.check(text)]
    except ValueError as error:  # urlsplit on brackets and the like
        return [f"{text}: {error}"]


def _is_mounted(text: str, resource: Resource, context: "Context") -> bool:
    """Whether the files come as a volume of their own instead of being fetched."""
    if text.startswith(("pvc://", "oci+native://")):
        return True
    wanted = resource.annotations.get(keys.IMAGE_VOLUME)
    by_image = wanted == "true" or (wanted is None and context.options.image_volume)
    return text.startswith("oci://") and by_image


def _writable(resource: Resource) -> bool:
    return resource.annotations.get(keys.KSERVE_STORAGE_READONLY) == "false"


def _mount(index: int, source: Source, resource: Resource, context: "Context") -> Delivery:
    text, directory = source
    suffix = f"-{index}" if index else ""
    if text.startswith("pvc://"):
        return _claim(names.PVC_VOLUME + suffix, text, directory, writable=_writable(resource))
    reference = text.partition("://")[2]
    volume = {"name": names.IMAGE_VOLUME + suffix, "image": {"reference": reference}}
    mount = {
        "name": names.IMAGE_VOLUME + suffix,
        "mountPath": directory,
        "subPath": "models",
        "readOnly": True,
    }
    return Delivery(volumes=[volume], mounts=[mount])


def _claim(volume: str, text: str, directory: str, *, writable: bool) -> Delivery:
    claim, _, path = text.removeprefix("pvc://").partition("/")
    mount: Object = {"name": volume, "mountPath": directory}
    source: Object = {"claimName": claim}
    if path.strip("/"):
        mount["subPath"] = path.strip("/")
    if not writable:
        mount["readOnly"] = True
        source["readOnly"] = True
    return Delivery(volumes=[{"name": volume, "persistentVolumeClaim": source}], mounts=[mount])


def _fetch(
    sources: Sequence[Source], resource: Resource, context: "Context", order: Order
) -> Delivery:
    account_path = [order.account_path] if order.account_path else []
    credentials = access.collect(resource, context, order.account, *account_path)
    credentials.env += order.env
    size = resource.annotations.get(keys.MODEL_SIZE, "")
    scratch = {"name": names.MODEL_VOLUME, "emptyDir": {"sizeLimit": size} if size else {}}
    root = common_directory([directory for _, directory in sources])
    if root == "/":
        context.report(resource).error(
            order.path, "the mount paths have no common directory below /; put them under one"
        )
    mount: Object = {"name": names.MODEL_VOLUME, "mountPath": root}
    stock = context.options.profile is Profile.STOCK
    if stock and order.own_server and len(sources) == 1:
        return Delivery(
            volumes=[scratch, *credentials.volumes],
            mounts=[mount, *credentials.mounts],
            env=[*container.env(STORAGE_URI=sources[0][0]), *credentials.env],
            env_from=credentials.env_from,
        )
    if stock:
        context.report(resource).warning(
            order.path,
            "profile stock works with Turnout's own server and one source only; an init container"
            " is used here after all",
        )
    fetcher = container.tidy(
        {
            "name": names.INIT_CONTAINER,
            "image": context.options.image("storage-initializer"),
            "command": ["python", "-m", "storage_initializer"],
            "args": [word for source in sources for word in source],
            "env": credentials.env,
            "envFrom": credentials.env_from,
            "resources": container.copied(container.FETCHER_RESOURCES),
            "securityContext": dict(container.HARDENED),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [mount, container.tmp_mount(), *credentials.mounts],
        }
    )
    return Delivery(
        init_containers=[fetcher],
        volumes=[scratch, *credentials.volumes],
        mounts=[mount if _writable(resource) else {**mount, "readOnly": True}],
    )


def common_directory(directories: Sequence[str]) -> str:
    """The deepest directory that contains all of them."""
    parts = [PurePosixPath(d).parts for d in directories]
    shared = parts[0]
    for other in parts[1:]:
        length = next(
            (i for i, (a, b) in enumerate(zip(shared, other, strict=False)) if a != b),
            min(len(shared), len(other)),
        )
        shared = shared[:length]
    return str(PurePosixPath(*shared))


# --- what a component wants ---


def of_model(
    resource: Resource,
    context: "Context",
    fields: Mapping[str, JSON],
    path: Path,
    *,
    own_server: bool,
) -> Delivery:
    """Delivery for `predictor.model` (or an old framework field): storageUri, storage or
    storageUris."""
    predictor = resource.spec["predictor"]
    account = predictor.get("serviceAccountName") or ""
    if predictor.get("storageUris"):
        sources = [
            (entry["uri"], entry.get("mountPath") or names.MODEL_DIR)
            for entry in predictor["storageUris"]
        ]
        where: Path = ("spec", "predictor", "storageUris")
        order = Order(sources=sources, path=where, account=account, own_server=own_server)
        return deliver(resource, context, order)
    if fields.get("storageUri"):
        order = Order(
            sources=[(fields["storageUri"], names.MODEL_DIR)],
            path=(*path, "storageUri"),
            account=account,
            own_server=own_server,
        )
        return deliver(resource, context, order)
    if fields.get("storage"):
        return _of_storage(
            resource, context, fields["storage"], (*path, "storage"), own_server=own_server
        )
    return Delivery()


def _of_storage(
    resource: Resource,
    context: "Context",
    storage: Mapping[str, JSON],
    path: Path,
    *,
    own_server: bool,
) -> Delivery:
    """KServe's storage spec: an entry of a secret plus path and parameters (spec/kserve_sdk
    4.5)."""
    import json

    parameters = storage.get("parameters") or {}
    default, named, kind = (storage.get("key") or "").partition("default_")
    kind = parameters.get("type") or (kind if named and not default else "")
    source = storage.get("storageUri") or ""
    if not source:
        below = (storage.get("path") or "").lstrip("/")
        bucket = parameters.get("bucket")
        # Without both, the secret's entry says it: known to the fetcher.
        prefix = f"{kind}://{bucket}/" if kind and bucket else PLACEHOLDER
        source = f"{prefix}{below}"
    secret = resource.annotations.get(keys.KSERVE_STORAGE_SECRET) or "storage-config"
    key = storage.get("key") or (f"default_{kind}" if parameters.get("type") else "default")
    reference = {"name": secret, "key": key}
    env: list[Object] = [{"name": "STORAGE_CONFIG", "valueFrom": {"secretKeyRef": reference}}]
    if parameters:
        env += container.env(STORAGE_OVERRIDE_CONFIG=json.dumps(parameters, sort_keys=True))
    order = Order(
        sources=[(source, names.MODEL_DIR)],
        path=path,
        account=resource.spec["predictor"].get("serviceAccountName") or "",
        own_server=own_server,
        env=env,
    )
    return deliver(resource, context, order)


def of_container(
    resource: Resource,
    context: "Context",
    component: str,
    given: Object,
    *,
    ours: bool,
) -> tuple[Delivery, Object]:
    """Delivery for a container that asks with env STORAGE_URI, which afterwards says where the
    files are."""
    uri = container.env_value(given, "STORAGE_URI")
    fields = resource.spec[component]
    sources = [
        (entry["uri"], entry.get("mountPath") or names.MODEL_DIR)
        for entry in fields.get("storageUris") or []
    ]
    asked = bool(uri) and not uri.startswith("/")
    if asked:
        sources.append((uri, names.MODEL_DIR))
    order = Order(
        sources=sources,
        path=("spec", component, "containers", 0, "env"),
        account=fields.get("serviceAccountName") or "",
        own_server=ours,
    )
    delivery = deliver(resource, context, order)
    if not asked or any(e["name"] == "STORAGE_URI" for e in delivery.env):
        return delivery, given
    env = container.merge_env(given["env"], container.env(STORAGE_URI=names.MODEL_DIR))
    return delivery, {**given, "env": env}
