"""A Kubernetes API server with a Knative in it, small and in memory, over real HTTP.

Faithful in what `knative.cluster` relies on: paths and groups, server-side apply with field
ownership and
conflicts, dry run, generations and resource versions, merge patch, label selectors, paging, Status
objects for errors, pod logs, RBAC refusals. A tiny "controller" brings Services up as its script
says.
"""

import copy
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

JSON = Any
Object = dict[str, JSON]

GROUPS = {
    "serving.knative.dev": ("services", "revisions"),
    "eventing.knative.dev": ("brokers", "triggers"),
    "sources.knative.dev": ("sinkbindings",),
}
CREATED = "2026-01-01T00:00:00Z"


class Refused(Exception):
    """An answer of 400 or above."""

    def __init__(
        self, code: int, reason: str, message: str, causes: list[Object] | None = None
    ) -> None:
        self.code = code
        self.body = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
            "details": {"causes": causes or []},
        }


class FakeKube:
    """State and behaviour; one lock around everything."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.store: dict[str, Object] = {}
        """API path of an object -> object."""
        self.owners: dict[str, dict[str, dict[str, JSON]]] = {}
        """API path -> field manager -> leaf path -> value applied."""
        self.logs: dict[tuple[str, str], str] = {}
        """(pod, container) -> text."""
        self.forbidden: set[tuple[str, str]] = set()
        """(HTTP method, plural) that RBAC refuses."""
        self.groups = dict(GROUPS)
        self.requests: list[tuple[str, str]] = []
        self.fail_next: list[int] = []
        """Statuses to answer instead of the next requests."""
        self.ready_after = 1
        """How many looks at a Service it takes to become ready; negative: never."""
        self.page_size = 0
        self._version = 100
        self._looks: dict[str, int] = {}
        self.put("api/v1/namespaces/knative-serving", _namespace("knative-serving", "1.20.1"))
        self.put("api/v1/namespaces/default", _namespace("default", ""))
        self.config("config-features", {"kubernetes.podspec-init-containers": "enabled"})
        self.config("config-network", {"ingress-class": "kourier.ingress.networking.knative.dev"})
        self.config("config-domain", {"example.com": ""})

    # --- setting up ---

    def put(self, path: str, item: Object) -> Object:
        """Store an object as if somebody had made it."""
        with self.lock:
            self._version += 1
            item = copy.deepcopy(item)
            item["metadata"].setdefault("creationTimestamp", CREATED)
            item["metadata"].setdefault("generation", 1)
            item["metadata"]["resourceVersion"] = str(self._version)
            self.store[path] = item
            return item

    def config(self, name: str, data: dict[str, str]) -> None:
        """A ConfigMap of Knative Serving."""
        path = f"api/v1/namespaces/knative-serving/configmaps/{name}"
        metadata = {"name": name, "namespace": "knative-serving"}
        self.put(path, {"kind": "ConfigMap", "metadata": metadata, "data": data})

    def service(self, name: str, namespace: str = "default") -> Object:
        """A stored Knative Service."""
        return self.store[f"apis/serving.knative.dev/v1/namespaces/{namespace}/services/{name}"]

    # --- requests ---

    def handle(self, method: str, path: str, query: dict[str, str], body: JSON) -> tuple[int, JSON]:
        """One API request: (status, body)."""
        with self.lock:
            self.requests.append((method, path))
            if self.fail_next:
                code = self.fail_next.pop(0)
                raise Refused(code, "InternalError", "try again")
            return self._route(method, path, query, body)

    def _route(self, method: str, path: str, query: dict[str, str], body: JSON) -> tuple[int, JSON]:
        parts = path.split("/")
        if path == "version":
            return 200, {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
        if path.endswith("selfsubjectaccessreviews"):
            wanted = body["spec"]["resourceAttributes"]
            verb = {"patch": "PATCH", "create": "POST", "delete": "DELETE"}[wanted["verb"]]
            refused = (verb, wanted["resource"]) in self.forbidden
            return 201, {"status": {"allowed": not refused}}
        if parts[0] == "apis" and parts[1] not in self.groups:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        if parts[0] == "apis" and len(parts) == 3:
            return 200, {"kind": "APIResourceList"}
        if path.endswith("/log"):
            return 200, self._log(parts[-2], query)
        return self._object(method, path, parts, query, body)

    def _object(
        self, method: str, path: str, parts: list[str], query: dict[str, str], body: JSON
    ) -> tuple[int, JSON]:
        single = path in self.store or self._names_object(parts)
        plural = parts[-2] if single else parts[-1]
        if (method, plural) in self.forbidden:
            raise Refused(
                403,
                "Forbidden",
                f'{plural} is forbidden: User "dev" cannot {method.lower()} resource "{plural}"',
            )
        if not single:
            return 200, self._list(path, query)
        if method == "PATCH":
            return self._patch(path, parts, query, body)
        if path not in self.store:
            raise Refused(404, "NotFound", f'{plural} "{parts[-1]}" not found')
        if method == "DELETE":
            if "dryRun" not in query:
                del self.store[path]
                self.owners.pop(path, None)
            return 200, {"kind": "Status", "status": "Success"}
        if plural == "services" and "serving" in path:
            self._reconcile(path)
        return 200, self.store[path]

    @staticmethod
    def _names_object(parts: list[str]) -> bool:
        base = 2 if parts[0] == "api" else 3
        rest = parts[base:]
        return len(rest) == 4 or (len(rest) == 2 and rest[0] == "namespaces")

    def _list(self, path: str, query: dict[str, str]) -> Object:
        selector = query.get("labelSelector", "")
        prefix = path + "/"
        if "/namespaces/" not in path:  # all namespaces
            base, _, plural = path.rpartition("/")
            items = [
                o
                for p, o in sorted(self.store.items())
                if p.startswith(f"{base}/namespaces/") and p.split("/")[-2] == plural
            ]
        else:
            items = [o for p, o in sorted(self.store.items()) if p.startswith(prefix)]
        for item in items:
            if item.get("kind") == "Service" and "serving" in path:
                self._reconcile(_path_of(item))
        found = [copy.deepcopy(o) for o in items if _matches(o, selector)]
        for item in found:  # real lists leave kind and apiVersion out
            item.pop("kind", None)
            item.pop("apiVersion", None)
        if not self.page_size:
            return {"metadata": {}, "items": found}
        start = int(query.get("continue") or 0)
        end = start + self.page_size
        more = str(end) if end < len(found) else ""
        return {"metadata": {"continue": more}, "items": found[start:end]}

    def _log(self, pod: str, query: dict[str, str]) -> str:
        text = self.logs.get((pod, query.get("container", "")))
        if text is None:
            raise Refused(
                400, "BadRequest", f"container {query.get('container')} is waiting to start"
            )
        return "\n".join(text.splitlines()[-int(query.get("tailLines", "100")) :]) + "\n"

    # --- patches ---

    def _patch(
        self, path: str, parts: list[str], query: dict[str, str], body: JSON
    ) -> tuple[int, JSON]:
        live = self.store.get(path)
        manager = query.get("fieldManager", "unknown")
        if "force" in query:
            wanted = self._applied(path, live, body, manager, force=query["force"] == "true")
        elif live is None:
            raise Refused(404, "NotFound", f'{parts[-2]} "{parts[-1]}" not found')
        else:
            wanted = _merge_patch(live, body)
        self._admit(wanted, live)
        if live is not None and _spec(wanted) != _spec(live):
            wanted["metadata"]["generation"] = live["metadata"]["generation"] + 1
        created = live is None
        if "dryRun" in query:
            return (201 if created else 200), wanted
        if "force" in query:
            mine = dict(_leaves(body))
            for owner, fields in self.owners.setdefault(path, {}).items():
                if owner != manager:
                    self.owners[path][owner] = {
                        k: v for k, v in fields.items() if k not in mine or mine[k] == v
                    }
            self.owners[path][manager] = mine
        else:
            self._take_over(path, manager, dict(_leaves(body)))
        if live is not None and {k: v for k, v in wanted.items() if k != "status"} == {
            k: v for k, v in live.items() if k != "status"
        }:
            return 200, live
        self._looks.pop(path, None)
        return (201 if created else 200), self.put(path, wanted)

    def _take_over(self, path: str, manager: str, changed: dict[str, JSON]) -> None:
        """A patch that is no apply: its manager owns what it changed, and others lose it."""
        for owner, fields in self.owners.setdefault(path, {}).items():
            if owner != manager:
                self.owners[path][owner] = {
                    k: v for k, v in fields.items() if k not in changed or changed[k] == v
                }
        self.owners[path].setdefault(manager, {}).update(changed)

    def _applied(
        self, path: str, live: Object | None, body: Object, manager: str, *, force: bool
    ) -> Object:
        """Server-side apply: conflicts, then what I set, minus what I set before and no more."""
        mine = dict(_leaves(body))
        owners = self.owners.get(path, {})
        causes = [
            {
                "reason": "FieldManagerConflict",
                "message": f'conflict with "{owner}"',
                "field": "." + field,
            }
            for owner, fields in sorted(owners.items())
            for field, value in sorted(fields.items())
            if owner != manager and field in mine and mine[field] != value
        ]
        if causes and not force:
            raise Refused(409, "Conflict", "Apply failed with conflicts", causes)
        result: Object = copy.deepcopy(live) if live is not None else {}
        for field in owners.get(manager, {}):
            others = [o for o, f in owners.items() if o != manager and field in f]
            if field not in mine and not others:
                _remove(result, field.split("\0"))
        return _deep(result, body)

    def _admit(self, item: Object, live: Object | None) -> None:
        """Knative's defaulting webhook, a little of it, and one of its refusals."""
        if item.get("kind") != "Service" or "serving" not in item.get("apiVersion", ""):
            return
        pod = item["spec"]["template"]["spec"]
        pod.setdefault("enableServiceLinks", False)
        item["spec"].setdefault("traffic", [{"latestRevision": True, "percent": 100}])
        annotations = item["metadata"].setdefault("annotations", {})
        annotations.setdefault("serving.knative.dev/creator", "dev")
        annotations["serving.knative.dev/lastModifier"] = "dev"
        features = self.store["api/v1/namespaces/knative-serving/configmaps/config-features"][
            "data"
        ]
        flag = features.get("kubernetes.podspec-init-containers")
        if pod.get("initContainers") and flag != "enabled":
            raise Refused(
                400,
                "BadRequest",
                'admission webhook "validation.webhook.serving.knative.dev" denied the request: '
                "validation failed: must not set the field(s): spec.template.spec.initContainers",
            )

    # --- the controller ---

    def _reconcile(self, path: str) -> None:
        """Each look brings a Service nearer to ready."""
        item = self.store[path]
        generation = item["metadata"]["generation"]
        name = item["metadata"]["name"]
        looks = self._looks.get(path, 0) + 1
        self._looks[path] = looks
        status = item.setdefault("status", {})
        revision = f"{name}-{generation:05d}"
        status["latestCreatedRevisionName"] = revision
        status["observedGeneration"] = generation
        if self.ready_after < 0 or looks <= self.ready_after:
            if status.get("readyGeneration") != generation:
                said = self.failing.get(name)
                status["conditions"] = [
                    {
                        "type": "Ready",
                        "status": "False" if said else "Unknown",
                        "reason": "RevisionFailed" if said else "RevisionMissing",
                        "message": said or "",
                    }
                ]
            return
        status["readyGeneration"] = generation
        status["latestReadyRevisionName"] = revision
        status["url"] = f"http://{name}.{item['metadata']['namespace']}.example.com"
        status["conditions"] = [{"type": "Ready", "status": "True"}]
        status["traffic"] = [
            {**t, "revisionName": t.get("revisionName") or revision}
            for t in item["spec"]["traffic"]
        ]

    @property
    def failing(self) -> dict[str, str]:
        """Service name -> why it fails."""
        return self.__dict__.setdefault("_failing", {})


def pod(
    name: str, service: str, revision: str, status: Object, namespace: str = "default"
) -> Object:
    """A pod of a Service."""
    labels = {"serving.knative.dev/service": service, "serving.knative.dev/revision": revision}
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "initContainers": [{"name": "storage-initializer"}],
            "containers": [{"name": "kserve-container"}, {"name": "queue-proxy"}],
        },
        "status": status,
    }


def _namespace(name: str, version: str) -> Object:
    labels = {"app.kubernetes.io/version": version} if version else {}
    return {"kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _path_of(item: Object) -> str:
    namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]
    return f"apis/serving.knative.dev/v1/namespaces/{namespace}/services/{name}"


def _spec(item: Object) -> Object:
    return {k: v for k, v in item.items() if k not in ("metadata", "status")}


def _matches(item: Object, selector: str) -> bool:
    labels = item["metadata"].get("labels") or {}
    for term in filter(None, selector.split(",")):
        key, sign, value = term.partition("=")
        if key not in labels or (sign and labels[key] != value):
            return False
    return True


def _leaves(value: JSON, prefix: str = "") -> Iterator[tuple[str, JSON]]:
    """Owned fields: mappings open up, lists are atomic (Knative's CRDs), identity is nobody's."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            if prefix == "" and key in ("apiVersion", "kind"):
                continue
            if prefix == "metadata" and key in ("name", "namespace"):
                continue
            yield from _leaves(inner, f"{prefix}\0{key}" if prefix else key)
    else:
        yield prefix, value


def _remove(item: Object, path: list[str]) -> None:
    for key in path[:-1]:
        item = item.get(key) or {}
    item.pop(path[-1], None)


def _deep(base: JSON, over: JSON) -> JSON:
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{k: _deep(base.get(k), v) for k, v in over.items()}}
    return copy.deepcopy(over)


def _merge_patch(base: JSON, patch: JSON) -> JSON:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = copy.deepcopy(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge_patch(result.get(key), value)
    return result


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one segment per answer, not one per header block
    kube: FakeKube

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        assert self.headers["Authorization"] == "Bearer s3cret"
        try:
            body = json.loads(raw) if raw else None
            status, answer = self.kube.handle(self.command, parts.path.strip("/"), query, body)
        except Refused as refused:
            status, answer = refused.code, refused.body
        text = answer if isinstance(answer, str) else json.dumps(answer)
        data = text.encode()
        self.send_response(status)
        self.send_header(
            "Content-Type", "text/plain" if isinstance(answer, str) else "application/json"
        )
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PATCH = do_DELETE = _serve

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def kube_server(folder: Path) -> Iterator[tuple[FakeKube, Path]]:
    """A running fake and the kubeconfig that leads to it."""
    kube = FakeKube()
    handler = type("Handler", (_Handler,), {"kube": kube})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    config = folder / "kubeconfig"
    config.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "fake",
                "contexts": [
                    {
                        "name": "fake",
                        "context": {"cluster": "c", "user": "u", "namespace": "default"},
                    },
                    {
                        "name": "other",
                        "context": {"cluster": "c", "user": "u", "namespace": "team"},
                    },
                    {"name": "away", "context": {"cluster": "away", "user": "u"}},
                ],
                "clusters": [
                    {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}},
                    {"name": "away", "cluster": {"server": "http://127.0.0.1:9"}},
                ],
                "users": [{"name": "u", "user": {"token": "s3cret"}}],
            }
        )
    )
    try:
        yield kube, config
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
