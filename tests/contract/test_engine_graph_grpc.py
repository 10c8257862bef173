"""Graphs for gRPC clients on the local engine: `NAME-grpc` beside `NAME`, from the manifests alone.
Oracle: grpcio's client, and the model's own numbers."""

import json
from collections.abc import Iterator
from typing import Any

import grpc
import joblib
import pytest
from google.protobuf import json_format
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from router_fn import oip
from router_fn.seldon import protos
from tests import fakes_engine

MANIFEST = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: iris}
spec:
  predictor:
    model: {modelFormat: {name: sklearn}, protocolVersion: v2, storageUri: "s3://grpc-tests/iris"}
---
apiVersion: serving.kserve.io/v1alpha1
kind: InferenceGraph
metadata: {name: flowers, annotations: {turnout.dev/grpc: "true"}}
spec:
  nodes:
    root:
      routerType: Sequence
      steps: [{serviceName: iris}]
---
apiVersion: machinelearning.seldon.io/v1
kind: SeldonDeployment
metadata: {name: simple}
spec:
  transport: grpc
  predictors:
    - {name: default, graph: {name: stub, implementation: SIMPLE_MODEL}}
"""

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]


@pytest.fixture(scope="module")
def model() -> LogisticRegression:
    features, labels = load_iris(return_X_y=True)
    return LogisticRegression(max_iter=500).fit(features, labels)


@pytest.fixture(scope="module")
def engine(
    tmp_path_factory: pytest.TempPathFactory, model: LogisticRegression
) -> Iterator[fakes_engine.Engine]:
    folder = tmp_path_factory.mktemp("graph-grpc")
    (folder / "bucket" / "iris").mkdir(parents=True)
    joblib.dump(model, folder / "bucket" / "iris" / "model.joblib")
    file = folder / "manifests.yaml"
    file.write_text(MANIFEST)
    mirror = f"s3://grpc-tests/={folder / 'bucket'}/"
    with fakes_engine.start(folder, str(file), "--mirror", mirror) as running:
        running.wait_ready(90)
        yield running


def call(engine: fakes_engine.Engine, name: str, method: str, request: Any, answer: Any) -> Any:
    options = (
        ("grpc.default_authority", f"{name}.default.example.com"),
        ("grpc.enable_http_proxy", 0),
    )
    with grpc.insecure_channel(f"127.0.0.1:{engine.port}", options=options) as channel:
        invoke = channel.unary_unary(method, type(request).SerializeToString, answer.FromString)
        return invoke(request, timeout=90)


def test_an_inference_graph_answers_v2_over_grpc(
    engine: fakes_engine.Engine, model: LogisticRegression
) -> None:
    tensor = {
        "name": "x",
        "datatype": "FP64",
        "shape": [2, 4],
        "contents": {"fp64_contents": [number for row in ROWS for number in row]},
    }
    request = oip.MESSAGES["ModelInferRequest"](model_name="flowers", id="7", inputs=[tensor])
    method = f"/{oip.SERVICE}/ModelInfer"
    answer = call(engine, "flowers-grpc", method, request, oip.MESSAGES["ModelInferResponse"])
    assert answer.id == "7"
    (output,) = answer.outputs
    assert list(output.contents.int64_contents) == model.predict(ROWS).tolist()


def test_the_graph_answers_http_beside_it(
    engine: fakes_engine.Engine, model: LogisticRegression
) -> None:
    tensor = {"name": "x", "datatype": "FP64", "shape": [2, 4], "data": ROWS}
    body = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Content-Type": "application/json"}
    answer = engine.call("flowers", "/", method="POST", body=body, headers=headers, timeout_s=90)
    assert answer.status == 200, answer.body
    assert answer.json["outputs"][0]["data"] == model.predict(ROWS).tolist()


def test_a_seldon_deployment_answers_seldons_service(engine: fakes_engine.Engine) -> None:
    message = protos.MESSAGES["SeldonMessage"]
    given = {"data": {"ndarray": ROWS}}
    request = json_format.ParseDict(given, message(), descriptor_pool=protos.POOL)
    answer = call(engine, "simple-grpc", "/seldon.protos.Seldon/Predict", request, message)
    found = json_format.MessageToDict(answer, descriptor_pool=protos.POOL)
    assert found["data"]["tensor"] == {"shape": [1, 3], "values": [0.1, 0.9, 0.5]}
