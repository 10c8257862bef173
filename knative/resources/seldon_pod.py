"""A whole predictor in one pod, as Seldon lays it out: the router as the serving container, the
nodes of the first componentSpecs beside it on loopback (spec/seldon_tfserving 1.4, 7.1).

Asked for by the annotation `turnout.dev/collocate: "true"`. Nodes of further componentSpecs stay
Services of their own. The only predictor's pod is the deployment's own Service; several predictors
have a Service each, and the deployment's router shares the requests among them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from knative import keys, names
from knative.api import seldon_routing
from knative.api import seldon_words as words
from knative.api.problems import Path
from knative.api.resource import Resource
from knative.resources import collocation, container, gpu, seldon_nodes, seldon_servers, servers
from knative.resources.seldon_site import Site

if TYPE_CHECKING:
    from knative.compiler import Context

JSON = Any
Object = dict[str, JSON]

ENGINE = "seldon-container-engine"
"""Name of the router's container, as Seldon calls its orchestrator: no node is called like it."""

HTTP_PORT, GRPC_PORT, METRICS_PORT = 9000, 9500, 6000
"""The first container's ports; each further container has the next ones."""

_PROBES = ("readinessProbe", "livenessProbe", "startupProbe")


@dataclass(slots=True, kw_only=True)
class Pod:
    """What joins the router in its pod."""

    containers: list[Object] = field(default_factory=list)
    init_containers: list[Object] = field(default_factory=list)
    volumes: list[Object] = field(default_factory=list)
    fields: Object = field(default_factory=dict)
    """Pod and scaling fields of the component."""
    annotations: dict[str, str] = field(default_factory=dict)
    routes: dict[tuple[str, str], Object] = field(default_factory=dict)


def is_wanted(resource: Resource, predictor: Mapping[str, JSON]) -> bool:
    """Whether a predictor's nodes are to share its router's pod."""
    given = {**seldon_routing.annotations(resource), **(predictor.get("annotations") or {})}
    return given.get(keys.COLLOCATE) == "true"


def check(resource: Resource, context: "Context") -> None:
    """Values of the annotation, and what it contradicts."""
    report = context.report(resource)
    spec = resource.spec
    places: list[tuple[Path, Mapping[str, str]]] = [
        (("metadata", "annotations"), resource.annotations),
        (("spec", "annotations"), spec.get("annotations") or {}),
        *(
            (("spec", "predictors", at, "annotations"), predictor.get("annotations") or {})
            for at, predictor in enumerate(spec["predictors"])
        ),
    ]
    for path, given in places:
        value = given.get(keys.COLLOCATE)
        if value is None:
            continue
        if value not in ("true", "false"):
            report.error((*path, keys.COLLOCATE), f'must be "true" or "false", not "{value}"')
        report.extension((*path, keys.COLLOCATE), keys.COLLOCATE)
    separate = seldon_routing.annotations(resource).get(words.ENGINE_SEPARATE)
    if separate == "true" and any(is_wanted(resource, one) for one in spec["predictors"]):
        report.error(
            ("spec", "annotations", words.ENGINE_SEPARATE),
            f"contradicts {keys.COLLOCATE}: the router is either apart or in the pod",
        )


def make(sites: Sequence[Site]) -> Pod:
    """The pod of one predictor; `sites` are its nodes of the first componentSpecs."""
    pod = Pod()
    if not sites:
        return pod
    first, ports = sites[0], _ports(sites)
    pod.fields = _pod_fields(sites)
    declared: list[int] = []
    for site in sites:
        server = seldon_servers.make(site)
        here = ports[site.node.name]
        server = _apart(server, declared)
        _add(pod, site, server, here)
        ours = server.unit != "custom"
        called = here.grpc if site.is_grpc else here.http
        declared += [called] if ours else [here.http, here.grpc, here.metrics]
        declared += server.ports
    pod.containers += [servers.sidecar(c) for c in _others(first)]
    used = [*pod.containers, *(pod.fields.get("initContainers") or [])]
    own = pod.fields.pop("volumes", None) or []
    pod.volumes += seldon_nodes.mounted(own, used)
    pod.annotations[keys.POD_PORTS] = ",".join(map(str, declared))
    return pod


def _add(pod: Pod, site: Site, server: seldon_servers.NodeServer, here: "Ports") -> None:
    """One node: container, volumes under its own names, and what the router learns."""
    node = site.node.name
    renamed = {v["name"]: names.bounded(f"{node}-{v['name']}") for v in server.delivery.volumes}
    renamed[names.TMP_VOLUME] = names.bounded(f"{node}-{names.TMP_VOLUME}")
    inner = _mounts(_inner(site, server, here), renamed)
    pod.containers.append(inner)
    for beside in server.sidecars:
        taken = any(one["name"] == beside["name"] for one in pod.containers)
        name = names.bounded(f"{beside['name']}-{node}") if taken else beside["name"]
        pod.containers.append({**_mounts(beside, renamed), "name": name})
    pod.volumes += [{**v, "name": renamed[v["name"]]} for v in server.delivery.volumes]
    if any(m["name"] == renamed[names.TMP_VOLUME] for m in inner.get("volumeMounts") or []):
        pod.volumes.append({"name": renamed[names.TMP_VOLUME], "emptyDir": {}})
    del renamed[names.TMP_VOLUME]  # init containers share the router's
    for number, fetcher in enumerate(server.delivery.init_containers):
        suffix = f"-{number}" if number else ""
        name = names.bounded(f"{node}-model-initializer{suffix}")
        pod.init_containers.append({**_mounts(fetcher, renamed), "name": name})
    pod.annotations |= gpu.annotations(site.resource, server.model_server)
    pod.annotations |= seldon_nodes.deadline(site)
    pod.fields |= gpu.pod(server.model_server)
    url = f"grpc://localhost:{here.grpc}" if site.is_grpc else f"http://localhost:{here.http}"
    route: Object = {"serviceUrl": url, "health": "grpc" if site.is_grpc else _health(server)}
    if image := server.serving.get("image"):
        route["image"] = image
    if server.protocol:
        route["serverProtocol"] = server.protocol
    pod.routes[site.predictor["name"], node] = route


# --- ports ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where a node's container listens."""

    http: int
    grpc: int
    metrics: int


def _ports(sites: Sequence[Site]) -> dict[str, Ports]:
    """By node, in their order; a port that the user's container declares is its own."""
    given = {site.node.name: site.given.get("ports") or [] for site in sites}
    taken = {int(port["containerPort"]) for ports in given.values() for port in ports}
    taken.add(container.DEFAULT_PORT)
    fresh = {name: _free(start, taken) for name, start in _STARTS.items()}
    return {
        node: Ports(
            http=_named(ports, "http") or next(fresh["http"]),
            grpc=_named(ports, "grpc") or next(fresh["grpc"]),
            metrics=_named(ports, "metrics") or next(fresh["metrics"]),
        )
        for node, ports in given.items()
    }


_STARTS = {"http": HTTP_PORT, "grpc": GRPC_PORT, "metrics": METRICS_PORT}


def _named(ports: Sequence[Mapping[str, JSON]], name: str) -> int:
    """The port of a name; for http also the first that is for nothing else. 0: none."""
    found = [p for p in ports if p.get("name") == name]
    if not found and name == "http":
        found = [p for p in ports if p.get("name") not in ("grpc", "metrics")]
    return int(found[0]["containerPort"]) if found else 0


def _free(start: int, taken: set[int]) -> Iterator[int]:
    number = start
    while True:
        if number not in taken:
            yield number
        number += 1


# --- containers -----------------------------------------------------------------------------------


def _inner(site: Site, server: seldon_servers.NodeServer, here: Ports) -> Object:
    """A node's container behind the router: no port of its own, told where to listen."""
    serving = server.serving
    declared = int(serving["ports"][0]["containerPort"])
    called = here.grpc if site.is_grpc else here.http
    told = container.env(
        PREDICTIVE_UNIT_SERVICE_PORT=str(called),
        PREDICTIVE_UNIT_HTTP_SERVICE_PORT=str(here.http),
        PREDICTIVE_UNIT_GRPC_SERVICE_PORT=str(here.grpc),
        PREDICTIVE_UNIT_METRICS_SERVICE_PORT=str(here.metrics),
    )
    if server.unit == "functions":
        inner = collocation.behind(serving, called, ours=True)
        kind = "GRPC" if site.is_grpc else "HTTP"
        told = [
            e for e in told if e["name"].endswith(("UNIT_SERVICE_PORT", f"{kind}_SERVICE_PORT"))
        ]
    elif server.unit == "router-fn":
        inner = collocation.behind(serving, container.DEFAULT_PORT, ours=False)
        told = [*told[:2], *container.env(HOST="127.0.0.1")]
    else:
        _warn_of_probes(site)
        inner = collocation.behind(_moved(serving, declared, called), here.http, ours=False)
    return container.tidy({**inner, "env": container.merge_env(inner.get("env") or [], told)})


def _apart(server: seldon_servers.NodeServer, taken: Sequence[int]) -> seldon_servers.NodeServer:
    """The server with ports for its sidecars that no other container of the pod has."""
    moved: dict[int, int] = {}
    for port in server.ports:
        moved[port] = next(_free(port, {*taken, *moved.values(), *(set(server.ports) - {port})}))
    if all(before == after for before, after in moved.items()):
        return server
    from knative.local import port_words

    def with_words(one: Object) -> Object:
        args = one.get("args") or []
        for before, after in moved.items():
            args = port_words.replace_port(args, before, after)
        env = [
            {**e, "value": port_words.replace_addresses(e["value"], moved)} if "value" in e else e
            for e in one.get("env") or []
        ]
        return container.tidy({**one, "args": args, "env": env})

    return replace(
        server,
        serving=with_words(server.serving),
        sidecars=[with_words(one) for one in server.sidecars],
        ports=list(moved.values()),
    )


def _moved(serving: Object, declared: int, number: int) -> Object:
    """`collocation.behind` knows Knative's default port only."""
    if declared in (number, container.DEFAULT_PORT):
        return serving
    from knative.local import port_words

    return {**serving, "args": port_words.replace_port(serving.get("args") or [], declared, number)}


def _warn_of_probes(site: Site) -> None:
    given = [probe for probe in _PROBES[1:] if site.given.get(probe)]
    if given and site.bound is not None:
        site.context.report(site.resource).warning(
            (*site.bound.path, given[0]),
            f"is left out: only the serving container of a pod is probed; without"
            f" {keys.COLLOCATE} the node has a Service and its probes",
        )


def _health(server: seldon_servers.NodeServer) -> str:
    """Where the router asks whether a node is ready: a path, or `tcp`."""
    probe = server.serving.get("readinessProbe") or {}
    path = (probe.get("httpGet") or {}).get("path")
    return str(path) if path else "tcp"


def _mounts(given: Mapping[str, JSON], renamed: Mapping[str, str]) -> Object:
    mounts = [
        {**mount, "name": renamed.get(mount["name"], mount["name"])}
        for mount in given.get("volumeMounts") or []
    ]
    return container.tidy({**given, "volumeMounts": mounts})


def _others(site: Site) -> list[Object]:
    """Containers of the component that are no node."""
    nodes = {node.name for node in words.walk(site.predictor["graph"], ())} | {"tfserving"}
    items = site.pod.get("containers") or []
    return [seldon_servers.plain(item) for item in items if item["name"] not in nodes]


def _pod_fields(sites: Sequence[Site]) -> Object:
    """Fields of the pod spec, scale, labels and annotations, as of a node's own Service."""
    first = sites[0]
    fields = seldon_nodes.pod_fields(first)
    accounts = [a for s in sites if (a := s.node.unit.get("serviceAccountName"))]
    if accounts:
        fields["serviceAccountName"] = accounts[0]
    for site in sites:
        account = site.node.unit.get("serviceAccountName")
        if account and account != accounts[0]:
            site.context.report(site.resource).error(
                (*site.node.path, "serviceAccountName"),
                f"one pod has one account, and {accounts[0]} is another node's",
            )
    labels = seldon_routing.labels(first.predictor)
    metadata = first.component.get("metadata") or {}
    shadow = {"seldon.io/shadow": "true"} if first.predictor.get("shadow") else {}
    fields["labels"] = {**labels, **shadow, **(metadata.get("labels") or {})}
    return fields


def sites_of(all_sites: Sequence[Site], predictor: Mapping[str, JSON]) -> list[Site]:
    """The nodes of a predictor that go into its pod."""
    return [s for s in all_sites if s.predictor is predictor and s.index == 0]


def remote(routing: Object, url: str) -> Object:
    """A predictor with a router of its own, as the deployment's router sees it: one model."""
    root = routing["graph"]
    nodes = [node["name"] for node in _walk(root)]
    model = {"name": root["name"], "type": "MODEL", "serviceUrl": url}
    return {**routing, "nodes": nodes, "graph": model}


def _walk(unit: Mapping[str, JSON]) -> Iterator[Mapping[str, JSON]]:
    yield unit
    for child in unit.get("children") or []:
        yield from _walk(child)
