"""Reaching Services of a cluster through the command line: invoke and logs."""

import http.server
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from knative.cli import main
from knative.cluster import client, errors, reach, wait
from tests import fakes_kube
from tests.listening import serving

DOGS = str(Path(__file__).parent.parent / "golden" / "dog-breed" / "in.yaml")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[fakes_kube.FakeKube, str]]:
    with fakes_kube.kube_server(tmp_path) as (kube, config):
        yield kube, str(config)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "POLL_S", 0.0)


def _run(config: str, *words: str) -> int:
    return main.run([words[0], *words[1:], "--kubeconfig", config])


class _Ingress(http.server.BaseHTTPRequestHandler):
    """Echoes what reached it."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps(
            {"host": self.headers["Host"], "path": self.path, "body": json.loads(body)}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def ingress() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Ingress)
    with serving(server):
        yield f"127.0.0.1:{server.server_port}"


def test_invoke_names_the_service_to_the_ingress(cluster, ingress, capsys) -> None:
    _, config = cluster
    _run(config, "apply", DOGS, "--wait")
    capsys.readouterr()
    words = ["dog-breed-pipeline", "--cluster", "--ingress", ingress, "--json", '{"a": 1}']
    assert _run(config, "invoke", *words) == 0
    out = json.loads(capsys.readouterr().out)
    host = "dog-breed-pipeline.default.example.com"
    assert out == {"host": host, "path": "/", "body": {"a": 1}}
    assert _run(config, "invoke", "default/cat-dog-classifier", *words[1:]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["path"] == "/v1/models/cat-dog-classifier:predict"


def test_invoke_before_there_is_a_url(cluster, capsys) -> None:
    kube, config = cluster
    kube.ready_after = -1
    _run(config, "apply", DOGS)
    assert _run(config, "invoke", "dog-breed-pipeline", "--cluster", "--json", "{}") == 75
    assert "has no URL yet" in capsys.readouterr().err


def test_port_forward_finds_a_running_gateway_pod(cluster) -> None:
    kube, config = cluster
    api = client.connect(kubeconfig=config)
    with pytest.raises(errors.ClusterError, match="--ingress"):
        reach.gateway_pod(api, cluster_local=False)
    service = {
        "kind": "Service",
        "metadata": {"name": "kourier", "namespace": "kourier-system"},
        "spec": {
            "selector": {"app": "3scale-kourier-gateway"},
            "ports": [{"port": 443, "targetPort": 8443}, {"port": 80, "targetPort": "http2"}],
        },
    }
    kube.put("api/v1/namespaces/kourier-system/services/kourier", service)
    gateway = fakes_kube.pod("g", "", "", {"phase": "Running"}, "kourier-system")
    gateway["metadata"]["labels"] = {"app": "3scale-kourier-gateway"}
    gateway["spec"] = {"containers": [{"ports": [{"name": "http2", "containerPort": 8080}]}]}
    kube.put("api/v1/namespaces/kourier-system/pods/g", gateway)
    assert reach.gateway_pod(api, cluster_local=False) == ("kourier-system", "g", 8080)


def test_logs_of_the_newest_pod(cluster, capsys) -> None:
    kube, config = cluster
    _run(config, "apply", DOGS)
    name = "cat-dog-classifier"
    capsys.readouterr()
    assert _run(config, "logs", name, "--cluster") == 1
    assert "scaled to zero" in capsys.readouterr().err
    kube.put("api/v1/namespaces/default/pods/p1", fakes_kube.pod("p1", name, f"{name}-00001", {}))
    kube.logs[("p1", "kserve-container")] = "one\ntwo\nthree"
    assert _run(config, "logs", name, "--cluster", "--tail", "2") == 0
    out = capsys.readouterr().out.splitlines()
    assert out == ["==> p1 storage-initializer <==", "==> p1 kserve-container <==", "two", "three"]
    assert _run(config, "logs", name, "--cluster", "-f", "-c", "kserve-container") == 0
    assert capsys.readouterr().out.splitlines() == ["one", "two", "three"]
    assert _run(config, "logs", name, "--cluster", "-c", "nothing") == 2
    assert _run(config, "logs", "nobody", "--cluster") == 1
