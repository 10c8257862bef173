"""Preflight checks one by one, against a scripted API."""

from typing import Any

import pytest

from knative import keys
from knative.cluster import errors, preflight, reach


class Cluster:
    """Just enough of client.Api: ConfigMaps of Knative by name, everything else missing."""

    name = "test"

    def __init__(self, **configs: dict[str, str]) -> None:
        self.configs = {name.replace("_", "-"): data for name, data in configs.items()}

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        if kind == "ConfigMap" and name in self.configs:
            return {"data": self.configs[name]}
        raise errors.NotFound(f"{kind} {name} not found", status=404)

    def request(self, method: str, path: str, **_: Any) -> tuple[int, Any]:
        if path == "version":
            return 200, {"gitVersion": "v1.36.0"}
        if path == "apis/serving.knative.dev/v1":
            return 200, {}
        if path == "api/v1/namespaces/knative-serving":
            version = self.configs.get("version", {}).get("v", "1.20.0")
            return 200, {"metadata": {"labels": {"app.kubernetes.io/version": version}}}
        if path.endswith("selfsubjectaccessreviews"):
            return 201, {"status": {"allowed": True}}
        if path.startswith("api/v1/namespaces/"):
            return 200, {}
        raise errors.NotFound("not found", status=404)


def _service(image: str = "r.io/x:1", **pod: Any) -> dict[str, Any]:
    annotations = pod.pop("annotations", {})
    return {
        "kind": "Service",
        "metadata": {"name": "x", "namespace": "default"},
        "spec": {
            "template": {
                "metadata": {"annotations": annotations},
                "spec": {"containers": [{"image": image}], **pod},
            }
        },
    }


def _said(
    cluster: Cluster, *objects: dict[str, Any], flags: dict[str, str] | None = None
) -> list[str]:
    needs = preflight.Needs(objects=objects, flags=flags or {})
    marks = {True: "ok", False: "miss", None: "note"}
    found = preflight.run(cluster, needs)  # type: ignore[arg-type]
    return [f"{marks[c.good]}: {c.text} | {c.remedy}" for c in found]


ROWS = [
    (Cluster(), _service(timeoutSeconds=900), {}, "miss: a service's timeout of 900 s is above"),
    (
        Cluster(config_defaults={"max-revision-timeout-seconds": "1200"}),
        _service(timeoutSeconds=900),
        {},
        "",
    ),
    (
        Cluster(),
        _service(annotations={keys.INITIAL_SCALE: "0"}),
        {},
        "miss: initial-scale 0 is not allowed here, but used by x",
    ),
    (
        Cluster(config_autoscaler={"allow-zero-initial-scale": "true"}),
        _service(annotations={keys.INITIAL_SCALE: "0"}),
        {},
        "",
    ),
    (
        Cluster(config_autoscaler={"max-scale-limit": "5"}),
        _service(annotations={keys.MAX_SCALE: "9"}),
        {},
        "miss: this cluster allows at most 5 pods; x ask for more",
    ),
    (
        Cluster(config_defaults={"allow-container-concurrency-zero": "false"}),
        _service(),
        {},
        "miss: this cluster wants a containerConcurrency, which x do not have",
    ),
    (Cluster(), _service(), {keys.FLAG_NODE_SELECTOR: "x"}, "miss: feature flag"),
    (
        Cluster(config_features={keys.FLAG_NODE_SELECTOR: "Allowed"}),
        _service(),
        {keys.FLAG_NODE_SELECTOR: "x"},
        "",
    ),
    (
        Cluster(config_features={keys.FLAG_INIT_CONTAINERS: "allowed"}),
        _service(),
        {keys.FLAG_INIT_CONTAINERS: "x"},
        "miss: feature flag kubernetes.podspec-init-containers is allowed",
    ),
    (Cluster(), _service(), {keys.FLAG_EMPTY_DIR: "x"}, ""),
    (
        Cluster(config_features={keys.FLAG_EMPTY_DIR: "disabled"}),
        _service(),
        {keys.FLAG_EMPTY_DIR: "x"},
        "miss: feature flag kubernetes.podspec-volumes-emptydir is disabled",
    ),
    (
        Cluster(version={"v": "1.9.0"}),
        _service(),
        {},
        "miss: Knative Serving 1.9.0 is older than 1.13",
    ),
    (
        Cluster(),
        _service("dev.local/turnout/functions:1"),
        {},
        "note: dev.local/turnout/functions:1:",
    ),
    (Cluster(), _service(), {}, "note: no domain is configured"),
    (
        Cluster(config_network={"ingress-class": "kourier.x"}),
        _service(),
        {},
        "ok: ingress class kourier",
    ),
]


@pytest.mark.parametrize(("cluster", "item", "flags", "words"), ROWS)
def test_check(cluster: Cluster, item: dict[str, Any], flags: dict[str, str], words: str) -> None:
    said = _said(cluster, item, flags=flags)
    if words:
        assert any(line.startswith(words) for line in said), said
    else:
        assert not [line for line in said if line.startswith("miss")]
    assert all(line.rpartition("| ")[2] for line in said if line.startswith("miss"))


def test_references_of_every_kind_are_looked_up_unless_optional() -> None:
    pod = {
        "serviceAccountName": "sa",
        "imagePullSecrets": [{"name": "pull"}],
        "volumes": [
            {"name": "a", "secret": {"secretName": "vs"}},
            {"name": "b", "configMap": {"name": "vc", "optional": True}},
            {"name": "c", "persistentVolumeClaim": {"claimName": "pvc"}},
        ],
        "initContainers": [{"envFrom": [{"secretRef": {"name": "from"}}]}],
        "containers": [
            {"env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "key", "key": "k"}}}]}
        ],
    }
    assert list(preflight.references(pod)) == [
        ("ServiceAccount", "sa"),
        ("Secret", "pull"),
        ("Secret", "vs"),
        ("PersistentVolumeClaim", "pvc"),
        ("Secret", "from"),
        ("ConfigMap", "key"),
    ]


URL = {"metadata": {"name": "x"}, "status": {"url": "http://x.default.example.com"}}
LOCAL = {"metadata": {"name": "x"}, "status": {"url": "http://x.default.svc.cluster.local"}}
TLS = {"metadata": {"name": "x"}, "status": {"url": "https://x.default.example.com"}}


def test_ways_to_reach_a_service() -> None:
    assert reach.direct(URL) == reach.Target(
        host="x.default.example.com", address="x.default.example.com", port=80
    )
    assert reach.direct(TLS).port == 443
    assert reach.through(URL, "10.0.0.1:31080") == reach.Target(
        host="x.default.example.com", address="10.0.0.1", port=31080
    )
    assert reach.through(URL, "https://ingress").secure
    with pytest.raises(Exception, match="--port-forward"):
        reach.direct(LOCAL)
    with pytest.raises(Exception, match="ADDRESS"):
        reach.through(URL, "")


def test_nobody_answers() -> None:
    target = reach.Target(host="x", address="127.0.0.1", port=1)
    with pytest.raises(errors.ClusterError, match="does not answer for x"):
        reach.call(target, "GET", "/", {}, None, timeout_s=2)
