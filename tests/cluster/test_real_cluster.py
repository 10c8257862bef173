"""A small graph on a real Knative: up, called, asleep, called from cold, canaried, gone.

No heavy model: two services run `python -m functions` with a class of a few lines, mounted from a
ConfigMap, so only our own images are needed.
"""

import re
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster

MODELS = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: code}
data:
  steps.py: |
    import os
    import time

    class Kind:
        def load(self):
            time.sleep(float(os.environ.get("LOAD_SECONDS", "0")))
            self.ready = True
            return True

        def predict(self, payload, headers=None):
            word = payload["instances"][0]
            seen = {k.lower(): v for k, v in dict(headers or {}).items()}
            answer = "dog" if "dog" in word else "cat"
            return {"predictions": [answer], "trace": seen.get("x-trace", "")}

    class Breed(Kind):
        def predict(self, payload, headers=None):
            seen = {k.lower(): v for k, v in dict(headers or {}).items()}
            return {
                "predictions": [{"labrador": 0.9}],
                "version": os.environ["VERSION"],
                "trace": seen.get("x-trace", ""),
            }
"""

SERVICE = """\
---
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: @NAME@
  annotations: {turnout.dev/visibility: public}
spec:
  predictor:
    maxReplicas: 2
@CANARY@    annotations:
      autoscaling.knative.dev/window: 6s
      autoscaling.knative.dev/scale-to-zero-pod-retention-period: 0s
    containers:
    - image: @IMAGE@
      command: [python, -m, functions]
      args: [--model-name, "@NAME@", --model-class, "steps:@CLASS@"]
      env:
      - {name: PYTHONPATH, value: "/app:/code"}
      - {name: VERSION, value: "@VERSION@"}
      - {name: LOAD_SECONDS, value: "@LOAD@"}
      resources:
        requests: {cpu: 50m, memory: 128Mi}
        limits: {cpu: "1", memory: 512Mi}
      volumeMounts: [{name: code, mountPath: /code, readOnly: true}]
    volumes: [{name: code, configMap: {name: code}}]
"""

GRAPH = """\
---
apiVersion: serving.kserve.io/v1alpha1
kind: InferenceGraph
metadata:
  name: pipeline
  annotations: {autoscaling.knative.dev/window: 6s}
spec:
  propagateHeaders: [X-Trace]
  nodes:
    root:
      routerType: Sequence
      steps:
      - {name: kind, serviceName: kind, dependency: Hard}
      - name: breed
        serviceName: breed
        data: $request
        condition: '[@this].#(predictions.0=="dog")'
---
apiVersion: serving.kserve.io/v1alpha1
kind: InferenceGraph
metadata:
  name: chain
  annotations: {autoscaling.knative.dev/window: 6s}
spec:
  nodes:
    root:
      routerType: Sequence
      steps:
      - {name: kind, serviceName: kind, dependency: Hard}
      - {name: breed, serviceName: breed, data: $request}
"""


def _service(
    cluster: Cluster,
    name: str,
    klass: str,
    *,
    version: int = 1,
    load_s: float = 0,
    canary: str = "",
) -> str:
    options = cluster.options()
    image = next(o for o in options if o.startswith("functions=")).partition("=")[2]
    words = {"NAME": name, "CLASS": klass, "IMAGE": image, "VERSION": str(version)}
    words |= {"LOAD": f"{load_s:g}", "CANARY": canary}
    return re.sub("@([A-Z]+)@", lambda match: words[match[1]], SERVICE)


@pytest.fixture(scope="module")
def manifests(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole set, applied."""
    file = tmp_path_factory.mktemp("cluster") / "all.yaml"
    file.write_text(
        MODELS
        + _service(cluster, "kind", "Kind", load_s=3)
        + _service(cluster, "breed", "Breed", load_s=3)
        + GRAPH
    )
    cluster.apply(file)
    return file


def test_preflight_finds_the_cluster_fit(cluster: Cluster, manifests: Path) -> None:
    done = cluster.turnout("preflight", str(manifests), *cluster.options())
    assert "MISS" not in done.stdout
    assert "Knative Serving" in done.stdout


def test_a_second_apply_changes_nothing(cluster: Cluster, manifests: Path) -> None:
    lines = cluster.apply(manifests).splitlines()
    assert [line for line in lines if line.endswith(("created", "configured"))] == []
    diff = cluster.turnout("diff", str(manifests), "--set", "t", *cluster.options(), check=False)
    assert diff.stdout == ""


def test_the_graph_answers_on_both_paths(cluster: Cluster, manifests: Path) -> None:
    assert cluster.get("pipeline")["ready"] == "True"
    status, answer = cluster.invoke("pipeline", {"instances": ["a cat"]})
    assert (status, answer["predictions"]) == (200, ["cat"])
    status, answer = cluster.invoke("pipeline", {"instances": ["a dog"]})
    assert (status, answer["predictions"]) == (200, [{"labrador": 0.9}])


def test_headers_reach_the_steps(cluster: Cluster, manifests: Path) -> None:
    _, answer = cluster.invoke("pipeline", {"instances": ["a dog"]}, "x-trace: abc123")
    assert answer["trace"] == "abc123"


def _sleep(cluster: Cluster) -> None:
    names = ("kind", "breed", "pipeline", "chain")
    cluster.until(
        "everything at zero", lambda: not any(cluster.pods(n) for n in names), within_s=400
    )


def test_everything_goes_to_zero_and_answers_from_cold(cluster: Cluster, manifests: Path) -> None:
    _sleep(cluster)
    started = time.monotonic()
    status, answer = cluster.invoke("pipeline", {"instances": ["a dog"]})
    print(f"cold, one step after the other: {time.monotonic() - started:.1f} s")
    assert (status, answer["predictions"]) == (200, [{"labrador": 0.9}]), answer


def test_a_chain_wakes_its_services_together(cluster: Cluster, manifests: Path) -> None:
    """Both models load for 3 s. One after the other, the second pod is born 3 s and more later."""
    _sleep(cluster)
    started = time.monotonic()
    status, answer = cluster.invoke("chain", {"instances": ["a dog"]})
    print(f"cold, woken together: {time.monotonic() - started:.1f} s")
    assert (status, answer["predictions"]) == (200, [{"labrador": 0.9}]), answer
    kind, breed = (_birth(cluster, name) for name in ("kind", "breed"))
    assert abs((breed - kind).total_seconds()) < 3


def _birth(cluster: Cluster, name: str) -> datetime:
    first = min(p["metadata"]["creationTimestamp"] for p in cluster.pods(name))
    return datetime.fromisoformat(first.replace("Z", "+00:00"))


def test_canary_step_and_back(cluster: Cluster, manifests: Path, tmp_path: Path) -> None:
    first = cluster.get("breed")["traffic"]
    file = tmp_path / "canary.yaml"
    canary = "    canaryTrafficPercent: 50\n"
    file.write_text(MODELS + _service(cluster, "breed", "Breed", version=2, canary=canary))
    cluster.apply(file)
    stable = first.split()[1]
    assert stable in cluster.get("breed")["traffic"]
    path = "/v1/models/breed:predict"

    def versions() -> set[str]:
        answers = [cluster.invoke("breed", {"instances": ["dog"]}, path=path) for _ in range(20)]
        return {answer["version"] for status, answer in answers if status == 200}

    cluster.until("both versions answer", lambda: versions() == {"1", "2"}, within_s=120)
    cluster.turnout("rollout", "breed", "--back", "--namespace", cluster.namespace)
    cluster.until("only the old version answers", lambda: versions() == {"1"}, within_s=120)
    cluster.turnout("rollout", "breed", "--to", "100", "--namespace", cluster.namespace)
    cluster.until("only the new version answers", lambda: versions() == {"2"}, within_s=120)


def test_a_model_that_is_not_there_is_explained(cluster: Cluster, tmp_path: Path) -> None:
    """The init container's last words reach the terminal."""
    file = tmp_path / "missing.yaml"
    file.write_text(
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: missing}\n"
        "spec: {predictor: {model: {modelFormat: {name: sklearn},"
        " storageUri: 'http://nowhere.invalid/model.joblib'}}}\n"
    )
    done = cluster.turnout(
        "apply", str(file), "--wait", "--timeout", "120", *cluster.options(), check=False
    )
    assert done.returncode in (1, 75)
    assert "storage-initializer" in done.stderr
    cluster.turnout("delete", str(file), *cluster.options())


def test_delete_leaves_nothing(cluster: Cluster, manifests: Path) -> None:
    cluster.turnout("delete", "--set", "t", "--namespace", cluster.namespace, "--wait")
    assert (
        cluster.turnout("get", "--namespace", cluster.namespace, "-o", "json").stdout.strip()
        == "[]"
    )
    assert not any(cluster.pods(name) for name in ("kind", "breed", "pipeline", "chain"))
