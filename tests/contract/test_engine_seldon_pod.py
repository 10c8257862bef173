"""Whole predictors in one pod on the local engine: the router and the nodes on loopback, two pods
of one revision at once, and several predictors behind the deployment's own router."""

import json
from collections.abc import Iterator
from typing import Any

import joblib
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from tests import fakes_engine

CLASSES = """
import os
import numpy as np

class Twice:
    def transform_input(self, X, names):
        return np.asarray(X) * 2

class Parts:
    def __init__(self, by=1):
        self.by = by

    def predict(self, X, names):
        return np.asarray(X)[:, :3] / self.by

    def tags(self):
        return {"pid": os.getpid()}

class Learns:
    seen = 0

    def route(self, X, names):
        return self.seen % 2

    def send_feedback(self, X, names, reward, truth, routing=None):
        type(self).seen += int(reward)
        return [[self.seen]]
"""

MANIFEST = """
apiVersion: machinelearning.seldon.io/v1
kind: SeldonDeployment
metadata: {name: blend, annotations: {turnout.dev/collocate: "true"}}
spec:
  predictors:
    - name: default
      replicas: 2
      graph:
        name: twice
        type: TRANSFORMER
        modelUri: s3://seldon-pod-tests/classes
        children:
          - name: mean
            implementation: AVERAGE_COMBINER
            children:
              - name: parts
                type: MODEL
                modelUri: s3://seldon-pod-tests/classes
                parameters: [{name: by, value: "4", type: INT}]
              - {name: iris, implementation: SKLEARN_SERVER, modelUri: "s3://seldon-pod-tests/iris"}
      componentSpecs:
        - spec:
            containers:
              - name: twice
                command: [python, -m, functions]
                args: [--model-class, "classes.py:Twice"]
              - name: parts
                command: [python, -m, functions]
                args: [--model-class, "classes.py:Parts"]
---
apiVersion: machinelearning.seldon.io/v1
kind: SeldonDeployment
metadata: {name: shared}
spec:
  predictors:
    - name: first
      traffic: 100
      annotations: {turnout.dev/collocate: "true"}
      graph:
        name: learns
        type: ROUTER
        modelUri: s3://seldon-pod-tests/classes
        children:
          - {name: left, implementation: SIMPLE_MODEL}
          - {name: right, implementation: SIMPLE_MODEL}
      componentSpecs:
        - spec:
            containers:
              - name: learns
                command: [python, -m, functions]
                args: [--model-class, "classes.py:Learns"]
    - name: second
      traffic: 0
      graph: {name: other, implementation: SIMPLE_MODEL}
"""

OVER_GRPC = """
---
apiVersion: machinelearning.seldon.io/v1
kind: SeldonDeployment
metadata: {name: NAME, annotations: {turnout.dev/collocate: "COLLOCATE"}}
spec:
  transport: grpc
  predictors:
    - name: default
      graph:
        name: twice
        type: TRANSFORMER
        modelUri: s3://seldon-pod-tests/classes
        children:
          - {name: iris, implementation: SKLEARN_SERVER, modelUri: "s3://seldon-pod-tests/iris"}
      componentSpecs:
        - spec:
            containers:
              - name: twice
                command: [python, -m, functions]
                args: [--model-class, "classes.py:Twice"]
"""

ROWS = [[1, 2, 3, 4], [5.1, 3.5, 1.4, 0.2]]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fakes_engine.Engine]:
    folder = tmp_path_factory.mktemp("seldon-pod")
    bucket = folder / "bucket"
    (bucket / "iris").mkdir(parents=True)
    (bucket / "classes").mkdir()
    (bucket / "classes" / "classes.py").write_text(CLASSES)
    model = LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True))
    joblib.dump(model, bucket / "iris" / "model.joblib")
    file = folder / "manifests.yaml"
    apart = OVER_GRPC.replace("NAME", "calls").replace("COLLOCATE", "false")
    together = OVER_GRPC.replace("NAME", "inner").replace("COLLOCATE", "true")
    file.write_text(MANIFEST + apart + together)
    mirror = f"s3://seldon-pod-tests/={bucket}/"
    with fakes_engine.start(folder, str(file), "--mirror", mirror) as running:
        running.wait_ready(90)
        yield running


def call(engine: fakes_engine.Engine, name: str, path: str, body: Any) -> fakes_engine.Answer:
    headers = {"Content-Type": "application/json"}
    raw = None if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    return engine.call(name, path, method=method, body=raw, headers=headers, timeout_s=90)


def test_two_pods_of_four_containers_answer_alike(engine: fakes_engine.Engine) -> None:
    pods = engine.pods("blend")
    assert len(pods) == 2
    assert {len(pod["pids"]) for pod in pods} == {4}  # the router and three nodes
    model = LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True))
    doubled = [[2 * x for x in row] for row in ROWS]
    expected = [
        [(p + x / 4) / 2 for p, x in zip(row, given, strict=False)]
        for row, given in zip(model.predict_proba(doubled), doubled, strict=True)
    ]
    answered: set[int] = set()

    def both() -> bool:
        answer = call(engine, "blend", "/api/v1.0/predictions", {"data": {"ndarray": ROWS}})
        assert answer.status == 200, answer.body
        for row, wanted in zip(answer.json["data"]["ndarray"], expected, strict=True):
            assert row == pytest.approx(wanted)
        assert set(answer.json["meta"]["requestPath"]) >= {"twice", "parts", "iris"}
        answered.add(answer.json["meta"]["tags"]["pid"])
        return len(answered) == 2

    fakes_engine.until(both)


def test_no_node_has_a_service(engine: fakes_engine.Engine) -> None:
    names = {service["name"] for service in engine.admin("status")["services"]}
    apart = {"calls", "calls-grpc", "calls-default-twice", "calls-default-iris"}
    assert names == {"blend", "shared", "shared-first", "inner", *apart}


@pytest.mark.parametrize("name", ["calls", "inner"])
def test_nodes_over_grpc(engine: fakes_engine.Engine, name: str) -> None:
    model = LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True))
    answer = call(engine, name, "/api/v1.0/predictions", {"data": {"ndarray": ROWS}})
    assert answer.status == 200, answer.body
    expected = model.predict_proba([[2 * x for x in row] for row in ROWS])
    for row, wanted in zip(answer.json["data"]["ndarray"], expected, strict=True):
        assert row == pytest.approx(list(wanted))


def test_several_predictors_are_one_deployment(engine: fakes_engine.Engine) -> None:
    message = {"data": {"ndarray": [[1]]}}
    path = "/seldon/default/shared/api/v1.0"
    answer = call(engine, "shared", f"{path}/predictions", message)
    assert answer.status == 200, answer.body
    assert answer.json["meta"]["routing"]["learns"] == 0
    told = call(
        engine,
        "shared",
        f"{path}/feedback",
        {"request": message, "response": answer.json, "reward": 1},
    )
    assert (told.status, told.json["data"]) == (200, {"names": ["t:0"], "ndarray": [[1]]})
    again = call(engine, "shared", f"{path}/predictions", message)
    assert again.json["meta"]["routing"]["learns"] == 1
    graph = call(engine, "shared", f"{path}/metadata", None)
    assert graph.json["name"] == "first"
    assert "learns" in graph.json["models"]
    node = call(engine, "shared", f"{path}/metadata/learns", None)
    assert node.status == 200, node.body
    assert call(engine, "shared", f"{path}/metadata/nobody", None).status == 404
