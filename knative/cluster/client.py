"""One authenticated connection to an API server, speaking JSON.

Thin on purpose: paths and plain dicts instead of generated model classes, server-side apply
included.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from knative import errors
from knative.cluster.errors import ClusterAway, ClusterError, from_status

JSON = Any
Object = dict[str, JSON]

FIELD_MANAGER = "turnout"
"""Who we are in managedFields (server-side apply)."""

ROLLOUT_MANAGER = "turnout-rollout"
"""Who moves traffic. Not an apply, hence another owner to the API server whatever its name."""

OWN_MANAGERS = frozenset({FIELD_MANAGER, ROLLOUT_MANAGER})

TIMEOUT_S = 30.0
"""One API request."""

_JSON_TYPE = "application/json"
_APPLY_TYPE = "application/apply-patch+yaml"
_MERGE_TYPE = "application/merge-patch+json"

PLURALS: Mapping[str, tuple[str, str]] = {
    "Service": ("apis/serving.knative.dev/v1", "services"),
    "Revision": ("apis/serving.knative.dev/v1", "revisions"),
    "Broker": ("apis/eventing.knative.dev/v1", "brokers"),
    "Trigger": ("apis/eventing.knative.dev/v1", "triggers"),
    "SinkBinding": ("apis/sources.knative.dev/v1", "sinkbindings"),
    "IntegrationSource": ("apis/sources.knative.dev/v1alpha1", "integrationsources"),
    "PingSource": ("apis/sources.knative.dev/v1", "pingsources"),
    "ConfigMap": ("api/v1", "configmaps"),
    "Secret": ("api/v1", "secrets"),
    "ServiceAccount": ("api/v1", "serviceaccounts"),
    "PersistentVolumeClaim": ("api/v1", "persistentvolumeclaims"),
    "Pod": ("api/v1", "pods"),
    "CoreService": ("api/v1", "services"),
}
"""Kind -> (API path, plural). `CoreService` is Kubernetes' own Service."""

MANAGED = (
    *("IntegrationSource", "PingSource", "Trigger", "SinkBinding", "Broker", "Service"),
    *("ConfigMap", "Secret", "ServiceAccount"),
)
"""Kinds the compiler emits, in the order to delete them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """Answer to a server-side apply."""

    data: Object
    created: bool


class Api:
    """An API server and a default namespace."""

    def __init__(self, client: Any, namespace: str, name: str = "") -> None:
        self._client = client
        self.namespace = namespace
        self.name = name
        """Context or address, for messages."""

    @property
    def client(self) -> Any:
        """The kubernetes ApiClient, for `forward` only."""
        return self._client

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: JSON = None,
        content_type: str = _JSON_TYPE,
    ) -> tuple[int, JSON]:
        """One request; (status, parsed body). Raises ClusterError or ClusterAway."""
        status, raw = self._send(method, path, query, body, content_type)
        try:
            parsed: JSON = json.loads(raw) if raw else {}
        except ValueError:
            parsed = raw.decode(errors="replace")
        if status >= 400:
            raise from_status(method, f"/{path}", status, parsed)
        return status, parsed

    def text(self, path: str, query: Mapping[str, str] | None = None) -> str:
        """A plain-text answer (logs). Raises ClusterError or ClusterAway."""
        status, raw = self._send("GET", path, query, None, _JSON_TYPE)
        if status >= 400:
            try:
                parsed: JSON = json.loads(raw)
            except ValueError:
                parsed = raw.decode(errors="replace")
            raise from_status("GET", f"/{path}", status, parsed)
        return raw.decode(errors="replace")

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: JSON,
        content_type: str,
    ) -> tuple[int, bytes]:
        response = self._open(method, path, query, body, content_type)
        try:
            raw: bytes = response.data if response.data is not None else response.read()
        finally:
            response.response.release_conn()
        return int(response.status), raw

    def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: JSON,
        content_type: str,
        timeout_s: float = TIMEOUT_S,
    ) -> Any:
        import urllib3
        from kubernetes.client.exceptions import ApiException

        configuration = self._client.configuration
        url = f"{configuration.host.rstrip('/')}/{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": _JSON_TYPE, "Content-Type": content_type, "User-Agent": FIELD_MANAGER}
        for setting in configuration.auth_settings().values():
            if setting.get("value"):
                headers[setting["key"]] = setting["value"]
        sent = (
            json.dumps(body) if content_type == _APPLY_TYPE else body
        )  # JSON types it writes itself
        try:
            response = self._client.rest_client.request(
                method, url, headers=headers, body=sent, _request_timeout=timeout_s
            )
        except urllib3.exceptions.HTTPError as error:
            raise ClusterAway(f"{self.name or url} does not answer: {_reason(error)}") from error
        except ApiException as error:
            raise ClusterError(f"{url}: {error.reason}", status=int(error.status or 0)) from error
        if hasattr(response, "read") and response.data is None:
            response.read()
        return response

    def stream(self, path: str, query: Mapping[str, str]) -> Iterator[str]:
        """Lines of an endless plain-text answer (followed logs), until the server ends it."""
        import urllib3

        configuration = self._client.configuration
        headers = {
            s["key"]: s["value"] for s in configuration.auth_settings().values() if s.get("value")
        }
        url = f"{configuration.host.rstrip('/')}/{path}?{urlencode(query)}"
        response = self._client.rest_client.pool_manager.request(
            "GET",
            url,
            headers=headers,
            preload_content=False,
            timeout=urllib3.Timeout(connect=TIMEOUT_S),
        )
        if response.status >= 400:
            raise from_status(
                "GET", f"/{path}", response.status, response.data.decode(errors="replace")
            )
        rest = b""
        for chunk in response.stream(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
        if rest:
            yield rest.decode(errors="replace")

    # --- objects ---

    def get(self, kind: str, namespace: str, name: str) -> Object:
        """One object. Raises NotFound."""
        found: Object = self.request("GET", object_path(kind, namespace, name))[1]
        return found

    def items(self, kind: str, namespace: str, selector: str = "") -> list[Object]:
        """All objects of a kind in a namespace ("" for all namespaces), page by page."""
        found: list[Object] = []
        query = {"limit": "500"} | ({"labelSelector": selector} if selector else {})
        while True:
            page = self.request("GET", collection_path(kind, namespace), query=query)[1]
            found += page.get("items") or []
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return found
            query["continue"] = token

    def apply(self, item: Object, *, dry_run: bool = False, force: bool = False) -> Applied:
        """Server-side apply. Raises Conflict when somebody else owns a field and `force` is off."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        if dry_run:
            query["dryRun"] = "All"
        metadata = item["metadata"]
        path = object_path(item["kind"], metadata["namespace"], metadata["name"])
        status, data = self.request("PATCH", path, query=query, body=item, content_type=_APPLY_TYPE)
        return Applied(data=data, created=status == 201)

    def merge(self, kind: str, namespace: str, name: str, patch: Object) -> Object:
        """JSON merge patch under our name."""
        path = object_path(kind, namespace, name)
        query = {"fieldManager": ROLLOUT_MANAGER}
        changed: Object = self.request(
            "PATCH", path, query=query, body=patch, content_type=_MERGE_TYPE
        )[1]
        return changed

    def delete(self, kind: str, namespace: str, name: str, *, dry_run: bool = False) -> None:
        """Delete with its dependents in the background. Raises NotFound."""
        query = {"propagationPolicy": "Background"} | ({"dryRun": "All"} if dry_run else {})
        self.request("DELETE", object_path(kind, namespace, name), query=query)


def collection_path(kind: str, namespace: str) -> str:
    """API path of all objects of a kind."""
    base, plural = PLURALS[kind]
    return f"{base}/namespaces/{quote(namespace)}/{plural}" if namespace else f"{base}/{plural}"


def object_path(kind: str, namespace: str, name: str) -> str:
    """API path of one object."""
    return f"{collection_path(kind, namespace)}/{quote(name)}"


def connect(*, context: str = "", kubeconfig: str = "", namespace: str = "") -> Api:
    """The cluster of a kubeconfig context, or the one this process runs in.

    Order: the given kubeconfig or $KUBECONFIG or ~/.kube/config, then the service account of the
    pod.
    """
    client, config = _kubernetes()
    configuration = client.Configuration()
    try:
        config.load_kube_config(
            config_file=kubeconfig or None,
            context=context or None,
            client_configuration=configuration,
        )
        known, active = config.list_kube_config_contexts(config_file=kubeconfig or None)
        chosen = next((c for c in known if c["name"] == context), active) if context else active
        default = (chosen.get("context") or {}).get("namespace") or "default"
        name = chosen["name"]
    except config.ConfigException as error:
        if context or kubeconfig:
            raise errors.UsageError(_no_config(error, context, kubeconfig)) from error
        default, name = _in_cluster(config, configuration, error)
    configuration.retries = False
    return Api(client.ApiClient(configuration), namespace or default, name)


def _kubernetes() -> tuple[Any, Any]:
    """The library's two modules; their functions are not typed."""
    try:
        from kubernetes import client, config
    except ImportError as error:
        raise errors.TurnoutError(
            "the cluster verbs need the kubernetes client: pip install 'turnout[cluster]'"
        ) from error
    return client, config


def _no_config(error: Exception, context: str, kubeconfig: str) -> str:
    wanted = f"context {context}" if context else f"kubeconfig {kubeconfig}"
    return f"{wanted} cannot be used: {error}"


def _in_cluster(config: Any, configuration: Any, first: Exception) -> tuple[str, str]:
    from pathlib import Path

    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        raise errors.UsageError(
            f"no cluster to talk to: {first}; set KUBECONFIG or --kubeconfig, or run inside a pod"
        ) from first
    mounted = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
    return (mounted.read_text().strip() if mounted.exists() else "default"), "in-cluster"


def _reason(error: Exception) -> str:
    """urllib3 nests the interesting part."""
    inner = getattr(error, "reason", None) or error
    return str(inner).partition(": ")[2] or str(inner)
