"""The cluster verbs against a fake API server over real HTTP, through the real kubernetes
client."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from knative.cli import main
from knative.cluster import client, errors, wait
from tests import fakes_kube

GOLDEN = Path(__file__).parent.parent / "golden"
DOGS = str(GOLDEN / "dog-breed" / "in.yaml")
NAMES = ["cat-dog-classifier", "dog-breed-classifier", "dog-breed-pipeline"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[fakes_kube.FakeKube, str]]:
    with fakes_kube.kube_server(tmp_path) as (kube, config):
        yield kube, str(config)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "POLL_S", 0.0)
    monkeypatch.setattr(wait, "FAILED_FOR_S", 0.0)


def _run(config: str, *words: str) -> int:
    return main.run([words[0], *words[1:], "--kubeconfig", config])


def test_apply_creates_in_dependency_order_and_waits(cluster, capsys) -> None:
    kube, config = cluster
    kube.ready_after = 2
    assert _run(config, "apply", DOGS, "--wait") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:3] == [f"service/{name} created" for name in NAMES]
    assert out[3:] == [f"{name} ready  http://{name}.default.example.com" for name in NAMES]


def test_a_second_apply_changes_nothing(cluster, capsys) -> None:
    kube, config = cluster
    _run(config, "apply", DOGS)
    before = kube.service("dog-breed-pipeline")["metadata"]["resourceVersion"]
    capsys.readouterr()
    assert _run(config, "apply", DOGS) == 0
    assert capsys.readouterr().out.splitlines() == [f"service/{name} unchanged" for name in NAMES]
    assert kube.service("dog-breed-pipeline")["metadata"]["resourceVersion"] == before


def test_server_dry_run_stores_nothing(cluster, capsys) -> None:
    kube, config = cluster
    assert _run(config, "apply", DOGS, "--dry-run", "server") == 0
    assert "created (server dry run)" in capsys.readouterr().out
    assert not [path for path in kube.store if "serving.knative.dev" in path]


def test_fields_owned_by_another_tool_are_a_conflict_that_names_it(cluster, capsys) -> None:
    kube, config = cluster
    _run(config, "apply", DOGS)
    path = "apis/serving.knative.dev/v1/namespaces/default/services/cat-dog-classifier"
    kube.owners[path]["kubectl-edit"] = {"spec\0template\0spec\0timeoutSeconds": 60}
    assert _run(config, "apply", DOGS) == 1
    said = capsys.readouterr().err
    assert 'conflict with "kubectl-edit"' in said
    assert "--force-conflicts" in said
    assert _run(config, "apply", DOGS, "--force-conflicts") == 0


def test_prune_deletes_what_left_the_set_and_nothing_else(cluster, capsys, tmp_path) -> None:
    kube, config = cluster
    other = fakes_kube.CREATED
    _run(config, "apply", DOGS, "--set", "pets")
    stranger = {
        "kind": "Service",
        "apiVersion": "serving.knative.dev/v1",
        "metadata": {"name": "stranger", "namespace": "default", "creationTimestamp": other},
        "spec": {"template": {"spec": {"containers": [{"image": "x"}]}}, "traffic": []},
    }
    kube.put("apis/serving.knative.dev/v1/namespaces/default/services/stranger", stranger)
    one = tmp_path / "one.yaml"
    one.write_text(Path(DOGS).read_text().split("---")[0])
    capsys.readouterr()
    assert _run(config, "apply", str(one), "--set", "pets", "--prune") == 0
    out = capsys.readouterr().out.splitlines()
    assert sorted(out) == [
        "service/cat-dog-classifier configured"
        if "configured" in "".join(out)
        else "service/cat-dog-classifier unchanged",
        "service/dog-breed-classifier deleted",
        "service/dog-breed-pipeline deleted",
    ]
    assert kube.service("stranger")


def test_prune_without_a_set_is_refused(cluster, capsys) -> None:
    assert _run(cluster[1], "apply", DOGS, "--prune") == 2
    assert "--set" in capsys.readouterr().err


def test_a_missing_flag_stops_the_apply_with_the_patch(cluster, capsys) -> None:
    kube, config = cluster
    kube.config("config-features", {})
    assert _run(config, "apply", DOGS) == 1
    said = capsys.readouterr().err
    assert "kubernetes.podspec-init-containers is disabled" in said
    assert "kubectl patch configmap config-features" in said
    assert not [method for method, path in kube.requests if method == "PATCH"]


def test_what_admission_says_reaches_the_user(cluster, capsys) -> None:
    kube, config = cluster
    kube.config("config-features", {})
    assert _run(config, "apply", DOGS, "--skip-preflight") == 1
    assert "must not set the field(s): spec.template.spec.initContainers" in capsys.readouterr().err


def test_the_stock_profile_passes_a_stock_cluster(cluster) -> None:
    kube, config = cluster
    kube.config("config-features", {})
    assert _run(config, "apply", DOGS, "--profile", "stock") == 0


def test_a_failing_service_shows_reason_and_log(cluster, capsys) -> None:
    kube, config = cluster
    kube.ready_after = -1
    kube.failing.update(dict.fromkeys(NAMES, "Container failed with: boom"))
    ended = {
        "name": "storage-initializer",
        "state": {"terminated": {"exitCode": 1, "message": "denied"}},
    }
    status = {"phase": "Pending", "initContainerStatuses": [ended]}
    name = "cat-dog-classifier"
    kube.put(
        "api/v1/namespaces/default/pods/p1", fakes_kube.pod("p1", name, f"{name}-00001", status)
    )
    kube.logs[("p1", "storage-initializer")] = "fetching\nAccessDenied: s3://turnout-examples"
    assert _run(config, "apply", DOGS, "--wait") == 1
    said = capsys.readouterr().err
    assert f"{name}: {name}-00001: storage-initializer: exit code 1: denied" in said
    assert f"{name} failed: Container failed with: boom" in said
    assert "storage-initializer: AccessDenied: s3://turnout-examples" in said


def test_not_ready_in_time_says_who_and_may_be_retried(cluster, capsys) -> None:
    kube, config = cluster
    kube.ready_after = -1
    assert _run(config, "apply", DOGS, "--wait", "--timeout", "0") == 75
    said = capsys.readouterr().err
    assert "not ready after 0 s" in said
    assert "dog-breed-pipeline: dog-breed-pipeline-00001" in said


def test_a_busy_moment_does_not_end_the_wait(cluster) -> None:
    kube, config = cluster
    api = client.connect(kubeconfig=config)
    _run(config, "apply", DOGS)
    kube.ready_after = 0
    kube.fail_next = [503]
    done = wait.wait(api, [("default", NAMES[0])], timeout_s=30, show=lambda _: None)
    assert done[("default", NAMES[0])].ready


def test_diff_shows_only_what_changes_and_hides_secrets(cluster, capsys, tmp_path) -> None:
    _kube, config = cluster
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {KEY: hunter2}\n"
    text = Path(DOGS).read_text() + "---\n" + secret
    file = tmp_path / "all.yaml"
    file.write_text(text)
    _run(config, "apply", str(file))
    capsys.readouterr()
    assert _run(config, "diff", str(file)) == 0
    assert capsys.readouterr().out == ""
    changed = text.replace("hunter2", "hunter3").replace(
        "predictor:\n    model:", "predictor:\n    timeout: 60\n    model:"
    )
    file.write_text(changed)
    assert _run(config, "diff", str(file)) == 1
    out = capsys.readouterr().out
    assert "+      timeoutSeconds: 60" in out
    assert "dog-breed-pipeline" not in out
    assert "hunter" not in out
    assert "sha256" in out


def test_get_shows_a_table_like_kubectl(cluster, capsys) -> None:
    kube, config = cluster
    _run(config, "apply", DOGS, "--wait")
    revision = {
        "kind": "Revision",
        "metadata": {
            "name": "dog-breed-pipeline-00001",
            "namespace": "default",
            "labels": {"serving.knative.dev/service": "dog-breed-pipeline"},
        },
        "status": {"actualReplicas": 2, "desiredReplicas": 3},
    }
    kube.put(
        "apis/serving.knative.dev/v1/namespaces/default/revisions/dog-breed-pipeline-00001",
        revision,
    )
    capsys.readouterr()
    assert _run(config, "get") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "URL", "READY", "AGE", "REPLICAS", "TRAFFIC"]
    assert lines[3].split()[:3] == [
        "dog-breed-pipeline",
        "http://dog-breed-pipeline.default.example.com",
        "True",
    ]
    assert "2/3" in lines[3]
    assert "100% dog-breed-pipeline-00001" in lines[3]
    assert _run(config, "get", "nobody") == 1
    assert _run(config, "get", "-o", "json") == 0
    out = capsys.readouterr()
    assert "no Service nobody" in out.err
    assert [row["name"] for row in json.loads(out.out)] == NAMES


def test_get_reads_every_page(cluster, capsys) -> None:
    kube, config = cluster
    _run(config, "apply", DOGS)
    kube.page_size = 1
    capsys.readouterr()
    _run(config, "get")
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_delete_by_files_goes_backwards_and_is_idempotent(cluster, capsys) -> None:
    kube, config = cluster
    _run(config, "apply", DOGS)
    capsys.readouterr()
    assert _run(config, "delete", DOGS, "--wait") == 0
    assert capsys.readouterr().out.splitlines() == [f"service/{n} deleted" for n in reversed(NAMES)]
    assert not [path for path in kube.store if "serving.knative.dev" in path]
    assert _run(config, "delete", DOGS) == 0
    assert "was not there" in capsys.readouterr().out


def test_delete_by_set(cluster, capsys) -> None:
    kube, config = cluster
    _run(config, "apply", DOGS, "--set", "pets")
    assert _run(config, "delete", "--set", "pets") == 0
    assert not [path for path in kube.store if "serving.knative.dev" in path]
    assert _run(config, "delete") == 2


CANARY = """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {{name: pets}}
spec:
  predictor:
{canary}    model:
      modelFormat: {{name: sklearn}}
      storageUri: s3://models/pets-{version}
"""


def test_canary_then_steps_then_back(cluster, capsys, tmp_path) -> None:
    kube, config = cluster
    file = tmp_path / "pets.yaml"
    file.write_text(CANARY.format(canary="", version=1))
    _run(config, "apply", str(file), "--wait")
    file.write_text(CANARY.format(canary="    canaryTrafficPercent: 10\n", version=2))
    assert _run(config, "apply", str(file), "--wait") == 0
    assert _split(kube) == [(10, "latest"), (90, "pets-00001")]
    assert _run(config, "diff", str(file)) == 0, "a running canary is no difference"
    assert _run(config, "apply", str(file)) == 0, (
        "the same canary again keeps the same stable revision"
    )
    assert _split(kube) == [(10, "latest"), (90, "pets-00001")]
    _run(config, "rollout", "pets", "--step")
    assert _split(kube) == [(50, "latest"), (50, "pets-00001")]
    _run(config, "rollout", "pets", "--back")
    assert _split(kube) == [(100, "pets-00001"), (0, "latest")]
    capsys.readouterr()
    _run(config, "rollout", "pets", "--to", "100")
    assert capsys.readouterr().out.split() == ["100", "%", "latest", "revision"]
    assert _run(config, "rollout", "pets", "--back") == 2
    file.write_text(CANARY.format(canary="    canaryTrafficPercent: 20\n", version=3))
    assert _run(config, "apply", str(file), "--wait") == 0, "our own rollout is no conflict"
    assert _split(kube) == [(20, "latest"), (80, f"pets-{_ready(kube)}")]
    _run(config, "rollout", "pets", "--back")
    file.write_text(CANARY.format(canary="", version=4))
    assert _run(config, "apply", str(file), "--wait") == 0
    assert _split(kube) == [(100, "latest")], "a manifest without a canary ends it"


def _ready(kube: fakes_kube.FakeKube) -> str:
    """The generation before the newest: what was ready when the canary began."""
    return f"{kube.service('pets')['metadata']['generation'] - 1:05d}"


def _split(kube: fakes_kube.FakeKube) -> list[tuple[int, str]]:
    targets = kube.service("pets")["spec"]["traffic"]
    return [(t["percent"], t.get("revisionName") or "latest") for t in targets]


def test_preflight_names_every_miss_with_its_remedy(cluster, capsys, tmp_path) -> None:
    kube, config = cluster
    kube.config("config-features", {})
    del kube.groups["eventing.knative.dev"]
    kube.forbidden.add(("DELETE", "services"))
    file = tmp_path / "all.yaml"
    file.write_text(
        (GOLDEN / "custom-predictor" / "in.yaml").read_text()
        + "---\napiVersion: eventing.knative.dev/v1\nkind: Broker\n"
        + "metadata: {name: b, namespace: nowhere}\n"
    )
    assert _run(config, "preflight", str(file)) == 1
    out = capsys.readouterr().out
    misses = [line for line in out.splitlines() if line.startswith("MISS")]
    assert [m.partition("  ")[2] for m in misses] == [
        "feature flag kubernetes.podspec-init-containers is disabled, needed by InferenceService"
        " custom:"
        " spec.template.spec.initContainers",
        "Knative Eventing is not installed, but Broker need it",
        "namespace nowhere does not exist",
        "you may not delete services.serving.knative.dev in default",
        "you may not delete services.serving.knative.dev in nowhere",
        "ConfigMap default/labels, used by custom, does not exist",
        "Secret default/regcred, used by custom, does not exist",
    ]
    assert "ok    Knative Serving 1.20.1" in out


def test_preflight_without_knative_says_only_that(cluster, capsys) -> None:
    kube, config = cluster
    del kube.groups["serving.knative.dev"]
    assert _run(config, "preflight") == 1
    out = capsys.readouterr().out
    assert "Knative Serving is not installed" in out
    assert "https://knative.dev/docs/install/" in out


def test_rbac_is_explained(cluster, capsys) -> None:
    kube, config = cluster
    kube.forbidden.add(("PATCH", "services"))
    assert _run(config, "apply", DOGS, "--skip-preflight") == 1
    said = capsys.readouterr().err
    assert 'cannot patch resource "services"' in said
    assert "kubectl create role" in said


def test_contexts_and_namespaces_of_the_kubeconfig(cluster, capsys) -> None:
    kube, config = cluster
    assert client.connect(kubeconfig=config).namespace == "default"
    assert client.connect(kubeconfig=config, context="other").namespace == "team"
    assert client.connect(kubeconfig=config, context="other", namespace="x").namespace == "x"
    kube.put("api/v1/namespaces/team", {"kind": "Namespace", "metadata": {"name": "team"}})
    assert _run(config, "apply", DOGS, "--context", "other") == 0
    assert kube.service("dog-breed-pipeline", "team")
    assert _run(config, "get", "--context", "nobody") == 2
    assert "nobody" in capsys.readouterr().err


def test_inside_a_pod_its_service_account_is_used(
    cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kubernetes.config import incluster_config

    kube, config = cluster
    server = json.loads(Path(config).read_text())["clusters"][0]["cluster"]["server"]
    token, root = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("s3cret")
    root.write_text("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(root))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Exception, match="no cluster to talk to"):
        client.connect()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", server.rpartition(":")[2])
    api = client.connect()
    assert (api.name, api.namespace) == ("in-cluster", "default")
    assert api.client.configuration.host.startswith("https://127.0.0.1:")
    assert kube.requests == []


def test_an_unreachable_cluster_may_be_tried_again(cluster, capsys) -> None:
    assert _run(cluster[1], "get", "--context", "away") == 75
    assert "does not answer" in capsys.readouterr().err


def test_third_party_errors_stop_at_the_door(cluster) -> None:
    kube, config = cluster
    api = client.connect(kubeconfig=config)
    for code, kind in (
        (500, errors.ClusterError),
        (429, errors.ClusterAway),
        (401, errors.ClusterError),
    ):
        kube.fail_next = [code]
        with pytest.raises(kind):
            api.request("GET", "version")
