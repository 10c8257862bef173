"""A SeldonDeployment on the local engine: a transformer, a combiner, a prepackaged server and user
classes, called the way Seldon's clients do; and its conversion to KServe's kinds, which must answer
the same numbers."""

import json
from collections.abc import Iterator

import joblib
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from knative import compiler, emit
from knative.translate import seldon
from tests import fakes_engine

CLASSES = """
import numpy as np

class Twice:
    def transform_input(self, X, names):
        return np.asarray(X) * 2

class Parts:
    def __init__(self, by=1):
        self.by = by

    def predict(self, X, names):
        return np.asarray(X)[:, :3] / self.by

class Pick:
    def route(self, X, names):
        return np.int64(1)
"""

MANIFEST = """
apiVersion: machinelearning.seldon.io/v1
kind: SeldonDeployment
metadata: {name: blend}
spec:
  predictors:
    - name: default
      graph:
        name: twice
        type: TRANSFORMER
        modelUri: s3://seldon-tests/classes
        children:
          - name: mean
            implementation: AVERAGE_COMBINER
            children:
              - {name: iris, implementation: SKLEARN_SERVER, modelUri: "s3://seldon-tests/iris"}
              - name: parts
                type: MODEL
                modelUri: s3://seldon-tests/classes
                parameters: [{name: by, value: "4", type: INT}]
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
metadata: {name: choice}
spec:
  predictors:
    - name: default
      graph:
        name: pick
        type: ROUTER
        modelUri: s3://seldon-tests/classes
        children:
          - {name: left, implementation: SIMPLE_MODEL}
          - {name: right, implementation: SKLEARN_SERVER, modelUri: "s3://seldon-tests/iris"}
      componentSpecs:
        - spec:
            containers:
              - name: pick
                command: [python, -m, functions]
                args: [--model-class, "classes.py:Pick"]
"""

ROWS = [[1, 2, 3, 4], [5.1, 3.5, 1.4, 0.2]]


def converted(text: str) -> str:
    """The first deployment as KServe's kinds, under another name."""
    renamed = text.split("---")[0].replace("name: blend", "name: plain")
    (resource,) = compiler.compile_text(renamed).resources
    return emit.to_yaml(seldon.convert(resource).objects)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fakes_engine.Engine]:
    folder = tmp_path_factory.mktemp("seldon")
    bucket = folder / "bucket"
    (bucket / "iris").mkdir(parents=True)
    (bucket / "classes").mkdir()
    (bucket / "classes" / "classes.py").write_text(CLASSES)
    features, labels = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(features, labels)
    joblib.dump(model, bucket / "iris" / "model.joblib")
    file = folder / "manifests.yaml"
    file.write_text(f"{MANIFEST}---\n{converted(MANIFEST)}")
    mirror = f"s3://seldon-tests/={bucket}/"
    with fakes_engine.start(folder, str(file), "--mirror", mirror) as running:
        running.wait_ready(60)
        yield running


def call(engine: fakes_engine.Engine, name: str, path: str, body: object) -> fakes_engine.Answer:
    headers = {"Content-Type": "application/json"}
    raw = json.dumps(body).encode()
    return engine.call(name, path, method="POST", body=raw, headers=headers, timeout_s=90)


def expected() -> list[list[float]]:
    """The blend by hand: the mean of the probabilities of 2X and of 2X[:3] / 4."""
    features, labels = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(features, labels)
    doubled = [[2 * x for x in row] for row in ROWS]
    return [
        [(p + x / 4) / 2 for p, x in zip(row, given, strict=False)]
        for row, given in zip(model.predict_proba(doubled), doubled, strict=True)
    ]


@pytest.mark.parametrize(
    "path", ["/api/v1.0/predictions", "/seldon/default/blend/api/v1.0/predictions"]
)
def test_seldons_clients_find_their_graph(engine: fakes_engine.Engine, path: str) -> None:
    answer = call(engine, "blend", path, {"data": {"ndarray": ROWS}})
    assert answer.status == 200, answer.body
    for row, wanted in zip(answer.json["data"]["ndarray"], expected(), strict=True):
        assert row == pytest.approx(wanted)
    assert set(answer.json["meta"]["requestPath"]) >= {"twice", "parts", "iris"}


def test_the_conversion_gives_the_same_numbers(engine: fakes_engine.Engine) -> None:
    ours = call(engine, "blend", "/api/v1.0/predictions", {"data": {"ndarray": ROWS}})
    plain = call(engine, "plain", "/", {"instances": ROWS})
    assert plain.status == 200, plain.body
    assert plain.json["predictions"] == ours.json["data"]["ndarray"]


def test_a_router_class_chooses_and_the_answer_says_so(engine: fakes_engine.Engine) -> None:
    answer = call(engine, "choice", "/api/v1.0/predictions", {"data": {"ndarray": ROWS}})
    assert answer.status == 200, answer.body
    assert answer.json["meta"]["routing"]["pick"] == 1
    assert answer.json["data"]["names"] == ["t:0", "t:1", "t:2"]


def test_a_models_refusal_is_the_callers(engine: fakes_engine.Engine) -> None:
    answer = call(engine, "choice", "/api/v1.0/predictions", {"data": {"ndarray": [["x"]]}})
    assert answer.status == 400
    assert answer.json["status"]["reason"] == "MICROSERVICE_BAD_DATA"
    assert "could not convert" in answer.json["status"]["info"]
