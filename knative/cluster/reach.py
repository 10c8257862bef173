"""Calling a Service of a cluster: by its URL, through an ingress address, or through a
port-forward."""

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from knative import errors
from knative.cluster.client import Api
from knative.cluster.errors import ClusterError, NotFound

JSON = Any

GATEWAYS = (
    ("kourier-system", "kourier", "kourier-internal"),
    ("istio-system", "istio-ingressgateway", "knative-local-gateway"),
    ("contour-external", "envoy", ""),
    ("kong", "kong-proxy", ""),
)
"""(namespace, public Service, cluster-local Service) of Knative's network layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to connect and which host to name."""

    host: str
    """Value of the Host header."""
    address: str
    port: int
    secure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def host_of(item: Mapping[str, JSON]) -> str:
    """The host a Service answers to; raises TryAgain while it has no URL."""
    status = item.get("status") or {}
    url = status.get("url") or (status.get("address") or {}).get("url")
    if not url:
        raise errors.TryAgain(
            f"{item['metadata']['name']} has no URL yet; is it ready? (turnout get)"
        )
    return str(urlsplit(url).netloc)


def is_cluster_local(host: str) -> bool:
    """Hosts that only exist inside a cluster."""
    return host.partition(":")[0].endswith((".svc.cluster.local", ".svc"))


def direct(item: Mapping[str, JSON]) -> Target:
    """By its URL; raises UsageError for cluster-local Services."""
    host = host_of(item)
    if is_cluster_local(host):
        raise errors.UsageError(
            f"{item['metadata']['name']} has no address outside the cluster;"
            " use --port-forward (or --ingress ADDRESS for public services)"
        )
    secure = str((item.get("status") or {}).get("url")).startswith("https:")
    name, _, port = host.partition(":")
    return Target(host=host, address=name, port=int(port or (443 if secure else 80)), secure=secure)


def through(item: Mapping[str, JSON], ingress: str) -> Target:
    """Through `ADDRESS` or `ADDRESS:PORT` of an ingress, naming the Service in the Host header."""
    parts = urlsplit(ingress if "://" in ingress else f"//{ingress}")
    if not parts.hostname:
        raise errors.UsageError(f"--ingress {ingress}: write ADDRESS or ADDRESS:PORT")
    secure = parts.scheme == "https"
    return Target(
        host=host_of(item),
        address=parts.hostname,
        port=parts.port or (443 if secure else 80),
        secure=secure,
    )


def gateway_pod(api: Api, *, cluster_local: bool) -> tuple[str, str, int]:
    """(namespace, pod, port) of a running pod of the network layer. Raises ClusterError with the
    way out."""
    for namespace, public, internal in GATEWAYS:
        name = internal if cluster_local and internal else public
        try:
            service = api.get("CoreService", namespace, name)
        except NotFound:
            continue
        spec = service["spec"]
        port = next((p for p in spec["ports"] if p.get("port") == 80), spec["ports"][0])
        selector = ",".join(f"{k}={v}" for k, v in sorted((spec.get("selector") or {}).items()))
        for pod in api.items("Pod", namespace, selector):
            if (pod.get("status") or {}).get("phase") == "Running":
                return namespace, pod["metadata"]["name"], _target_port(pod, port)
    raise ClusterError(
        "no running gateway of a known network layer (Kourier, Istio, Contour, Kong) found;"
        " use --ingress ADDRESS"
    )


def _target_port(pod: Mapping[str, JSON], port: Mapping[str, JSON]) -> int:
    """A Service's targetPort may be the name of a container port."""
    wanted = port.get("targetPort", port["port"])
    if isinstance(wanted, int):
        return wanted
    for container in pod["spec"]["containers"]:
        for found in container.get("ports") or []:
            if found.get("name") == wanted:
                return int(found["containerPort"])
    return int(port["port"])


def call(
    target: Target,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes | None,
    *,
    timeout_s: float,
) -> Answer:
    """One request. Raises ClusterError when nothing answers."""
    kind = http.client.HTTPSConnection if target.secure else http.client.HTTPConnection
    connection = kind(target.address, target.port, timeout=timeout_s)
    return exchange(connection, target.host, method, path, headers, body)


def exchange(
    connection: http.client.HTTPConnection,
    host: str,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes | None,
) -> Answer:
    """Send one request over a connection and read the whole answer."""
    try:
        connection.request(method, path, body=body, headers={"Host": host, **headers})
        response = connection.getresponse()
        return Answer(
            status=response.status, headers=dict(response.getheaders()), body=response.read()
        )
    except (OSError, http.client.HTTPException) as error:
        where = f"{connection.host}:{connection.port}"
        raise ClusterError(
            f"{where} does not answer for {host}: {error or type(error).__name__}"
        ) from error
    finally:
        connection.close()
