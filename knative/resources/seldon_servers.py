"""The serving container of a Seldon node: our own server, a stock container, or the user's image.

Every one listens on one port. Ours reads $PORT; Seldon's images read
PREDICTIVE_UNIT_HTTP_SERVICE_PORT, so that the user's images keep working unmodified.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from knative import names
from knative.api import core, seldon_routing
from knative.api import seldon_words as words
from knative.options import Profile
from knative.resources import container, runtimes, seldon_stock, storage
from knative.resources.seldon_site import Site

JSON = Any
Object = dict[str, JSON]

NODE_PORT, GRPC_PORT = 9000, seldon_stock.GRPC_PORT
"""Where Seldon's first container listens (spec/seldon_tfserving 1.4)."""

_DEFAULT_METHOD = "predict_proba"
"""What SKLEARN_SERVER calls under the Seldon protocol unless told otherwise (5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeServer:
    """What serves a node."""

    unit: str
    serving: Object
    delivery: storage.Delivery
    protocol: str = ""
    """`tensorflow` when the router must translate for it."""
    sidecars: list[Object] = field(default_factory=list)
    """What it needs beside it, reached on loopback."""
    ports: list[int] = field(default_factory=list)
    """Where the sidecars listen."""

    @property
    def model_server(self) -> Object:
        """The container that holds the model, and a GPU if there is one."""
        return self.sidecars[0] if self.sidecars else self.serving


def make(site: Site) -> NodeServer:
    """The server of a node."""
    known = words.SERVERS.get(site.node.implementation)
    if known is None or site.given.get("image"):
        return _users(site)
    if site.tfserving is not None or not known.runtime or _wants_stock(site):
        if site.node.implementation == "HUGGINGFACE_SERVER" and site.protocol == "seldon":
            site.context.report(site.resource).error(
                (*site.node.path, "implementation"),
                "the stock HUGGINGFACE_SERVER (MLServer) speaks v2 only; ours speaks seldon too",
            )
            return _own(site, known)
        return _stock(site)
    return _own(site, known)


def _wants_stock(site: Site) -> bool:
    return runtimes.wants_stock(site.resource, site.context)


# --- our own server -------------------------------------------------------------------------------


def _own(site: Site, known: words.Server) -> NodeServer:
    """`python -m functions` with the runtime of a prepackaged server.

    It speaks the deployment's protocol itself; only for TensorFlow under Seldon's protocol the
    router translates, as Seldon's proxy does: it asks `/v1/models/NODE:predict`.
    """
    image = site.context.options.image("functions", known.runtime)
    delivery = deliver(site, own_server=True)
    base = _functions(site, image, delivery)
    base["args"] = [
        *("--model-name", site.node.name),
        *("--model-dir", names.MODEL_DIR),
        *("--runtime", known.runtime),
        *("--protocol", site.spoken),
        *_params(site, known),
    ]
    serving = container.merge(base, plain(site.given))
    protocol = "tensorflow" if site.is_translated else ""
    return NodeServer(unit="functions", serving=serving, delivery=delivery, protocol=protocol)


def _functions(site: Site, image: str, delivery: storage.Delivery) -> Object:
    return {
        "name": site.node.name,
        "image": image,
        "command": ["python", "-m", "functions"],
        "env": [*node_env(site, image), *delivery.env],
        "envFrom": delivery.env_from,
        "ports": container.ports(site.spoken),
        "readinessProbe": container.ready_probe(site.spoken),
        "resources": container.copied(container.SERVER_RESOURCES),
        "securityContext": dict(container.HARDENED),
        "volumeMounts": [*delivery.mounts, container.tmp_mount()],
    }


def _params(site: Site, known: words.Server) -> list[str]:
    """Seldon's defaults that are not ours; given parameters arrive by PREDICTIVE_UNIT_PARAMETERS,
    and an argument would win over them."""
    given = {p["name"] for p in site.node.unit.get("parameters") or []}
    if known.runtime == "sklearn" and site.protocol == "seldon" and "method" not in given:
        return ["--param", f"method={_DEFAULT_METHOD}"]
    return []


# --- stock containers -----------------------------------------------------------------------------


def _stock(site: Site) -> NodeServer:
    """The container that Seldon itself would start, with one port."""
    if site.is_translated:
        return _proxied(site)
    raw = seldon_stock.is_raw(site)
    delivery = storage.Delivery() if raw else deliver(site, own_server=False)
    given = site.tfserving.container if site.tfserving is not None else site.given
    stock = seldon_stock.container_of(site, given, raw=raw)
    port = stock.grpc_port if site.is_grpc else stock.port
    if site.is_grpc:
        stock.fields.pop("readinessProbe", None)  # it speaks HTTP/1, the serving port does not
    base: Object = {
        **stock.fields,
        "name": site.node.name,
        "env": [*node_env(site, stock.fields["image"], port), *stock.env],
        "envFrom": _secret(site) if raw else [],
        "ports": _ports(site, port),
        "resources": container.copied(container.SERVER_RESOURCES),
        "securityContext": dict(container.GUARDED),
        "volumeMounts": delivery.mounts,
    }
    user = {k: v for k, v in plain(given).items() if k != "args"}
    serving = container.merge(base, {**user, "name": site.node.name})
    return NodeServer(unit="custom", serving=serving, delivery=delivery)


def _proxied(site: Site) -> NodeServer:
    """Seldon's pair: a container of the node's name that converts, and `tfserving` beside it."""
    delivery = deliver(site, own_server=False)
    sidecar, ports = _tfserving(site, delivery)
    image = site.context.options.image("router-fn")
    base = seldon_stock.proxy(site, image, *ports)
    base["env"] = [*node_env(site, image), *base["env"]]
    serving = container.merge(base, plain(site.given))
    return NodeServer(
        unit="router-fn", serving=serving, delivery=delivery, sidecars=[sidecar], ports=ports
    )


def _tfserving(site: Site, delivery: storage.Delivery) -> tuple[Object, list[int]]:
    base, ports = seldon_stock.tfserving(site, delivery.mounts)
    given = plain(site.tfserving.container) if site.tfserving is not None else {}
    user = {k: v for k, v in given.items() if k not in ("args", *_PROBES)}
    return container.merge(base, user), ports


# --- the user's own containers --------------------------------------------------------------------


def _users(site: Site) -> NodeServer:
    """The container that a graph node is called like."""
    given = plain(site.given)
    if container.is_ours(given):
        return _users_functions(site, given)
    delivery = deliver(site, own_server=False)
    port = grpc_port(site.given) if site.is_grpc else http_port(site.given)
    base: Object = {
        "name": site.node.name,
        "env": node_env(site, str(given.get("image") or ""), port),
        "ports": _ports(site, port),
        "resources": container.copied(container.SERVER_RESOURCES),
        "securityContext": dict(container.GUARDED),
        "volumeMounts": delivery.mounts,
    }
    serving = container.merge(base, given)
    if not site.is_translated:
        return NodeServer(unit="custom", serving=serving, delivery=delivery)
    sidecar, ports = _tfserving(site, delivery)  # the user's own proxy
    return NodeServer(
        unit="custom", serving=serving, delivery=delivery, sidecars=[sidecar], ports=ports
    )


def _users_functions(site: Site, given: Object) -> NodeServer:
    """A user class on our server: name, protocol and directory are ours unless given."""
    delivery = deliver(site, own_server=True)
    image = str(given.get("image") or site.context.options.image("functions", "python"))
    base = _functions(site, image, delivery)
    del base["command"]
    wanted = [("--model-name", site.node.name), ("--protocol", site.spoken)]
    if site.node.unit.get("modelUri"):
        wanted.append(("--model-dir", names.MODEL_DIR))
    told = [w for w in wanted if not container.flag_value(given, w[0])]
    given["args"] = [*(given.get("args") or []), *(word for pair in told for word in pair)]
    serving = container.merge(base, given)
    return NodeServer(unit="functions", serving=serving, delivery=delivery)


def _ports(site: Site, number: int) -> list[Object]:
    """The serving port; HTTP/2 when it is for gRPC."""
    return [{"containerPort": number, **({"name": "h2c"} if site.is_grpc else {})}]


def grpc_port(given: Mapping[str, JSON]) -> int:
    """The port called `grpc`, else 9500."""
    named = [p for p in given.get("ports") or [] if p.get("name") == "grpc"]
    return int((named or [{"containerPort": GRPC_PORT}])[0]["containerPort"])


def http_port(given: Mapping[str, JSON]) -> int:
    """The port called `http`, else the first that is not for gRPC or metrics, else 9000."""
    ports = given.get("ports") or []
    named = [p for p in ports if p.get("name") == "http"]
    others = [p for p in ports if p.get("name") not in ("grpc", "metrics")]
    return int((named or others or [{"containerPort": NODE_PORT}])[0]["containerPort"])


def plain(given: Mapping[str, JSON]) -> Object:
    """A container without ports, lifecycle, and names of ports in its probes.

    Knative probes the serving port unless a number says otherwise.
    """
    kept = {k: v for k, v in given.items() if k in core.CONTAINER.fields and k not in _NOT_CARRIED}
    for probe in _PROBES:
        if kept.get(probe):
            kept[probe] = _portless(kept[probe])
    return kept


_NOT_CARRIED = ("ports", "lifecycle")
_PROBES = ("readinessProbe", "livenessProbe", "startupProbe")


def _portless(probe: Mapping[str, JSON]) -> Object:
    result = dict(probe)
    for action in ("httpGet", "tcpSocket"):
        fields = result.get(action)
        if isinstance(fields, dict) and isinstance(fields.get("port"), str):
            result[action] = {k: v for k, v in fields.items() if k != "port"}
    return result


# --- model files ----------------------------------------------------------------------------------


def deliver(site: Site, *, own_server: bool) -> storage.Delivery:
    """Delivery of a node's modelUri, with the secret and the image that the node names."""
    unit = site.node.unit
    uri = unit.get("modelUri") or pretrained(site.node)
    if not uri:
        return storage.Delivery()
    image = unit.get("storageInitializerImage")
    order = storage.Order(
        sources=[(uri, names.MODEL_DIR)],
        path=(*site.node.path, "modelUri"),
        account=unit.get("serviceAccountName") or site.pod.get("serviceAccountName") or "",
        account_path=(*site.node.path, "serviceAccountName"),
        own_server=own_server and not image,
    )
    delivery = storage.deliver(site.resource, site.context, order)
    fetchers = delivery.init_containers
    if not fetchers and site.context.options.profile is Profile.STOCK and delivery.env:
        return replace(delivery, env_from=[*delivery.env_from, *_secret(site)])
    return replace(delivery, init_containers=[_fetcher(site, f, image) for f in fetchers])


def _fetcher(site: Site, fetcher: Object, image: str | None) -> Object:
    env_from = [*(fetcher.get("envFrom") or []), *_secret(site)]
    changed = {**fetcher, "envFrom": env_from}
    if image:  # somebody else's program, with Seldon's arguments: SOURCE DIRECTORY
        changed |= {"image": image, "securityContext": dict(container.GUARDED)}
        del changed["command"]
    return container.tidy(changed)


def _secret(site: Site) -> list[Object]:
    name = site.node.unit.get("envSecretRefName")
    return [{"secretRef": {"name": name}}] if name else []


def pretrained(node: words.Node) -> str:
    """HUGGINGFACE_SERVER without modelUri names a model of the hub in a parameter."""
    if node.implementation != "HUGGINGFACE_SERVER":
        return ""
    given = {p["name"]: p["value"] for p in node.unit.get("parameters") or []}
    return f"hf://{given['pretrained_model']}" if given.get("pretrained_model") else ""


def node_env(site: Site, image: str, port: int = container.DEFAULT_PORT) -> list[Object]:
    """Seldon's environment contract (spec/seldon_tfserving 4, 7.1)."""
    parameters = seldon_routing.parameters(site.node.unit)
    if site.node.implementation and site.protocol == "seldon":  # as Seldon's operator does (5)
        parameters.append({"name": "model_uri", "value": names.MODEL_DIR, "type": "STRING"})
    values = {
        "PREDICTIVE_UNIT_SERVICE_PORT": str(port),
        f"PREDICTIVE_UNIT_{'GRPC' if site.is_grpc else 'HTTP'}_SERVICE_PORT": str(port),
        "PREDICTIVE_UNIT_PARAMETERS": json.dumps(parameters, ensure_ascii=False),
        "PREDICTIVE_UNIT_ID": site.node.name,
        "PREDICTIVE_UNIT_IMAGE": image,
        "PREDICTOR_ID": site.predictor["name"],
        "PREDICTOR_LABELS": json.dumps(
            seldon_routing.labels(site.predictor), ensure_ascii=False, sort_keys=True
        ),
        "SELDON_DEPLOYMENT_ID": site.resource.name,
    }
    return container.env(**values)
