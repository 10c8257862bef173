"""Prepackaged models that speak Seldon's protocol themselves: the answers of Seldon's servers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, Perceptron

from tests.contract.test_functions_seldon import META, PREDICT
from tests.fakes_seldon import ENVIRON, Wrappers, wrappers

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]


@pytest.fixture(scope="module")
def served() -> Iterator[Wrappers]:
    with wrappers() as running:
        yield running


def ask(served: Wrappers, arguments: tuple[str, ...], message: Any) -> tuple[int, Any]:
    body = json.dumps(message).encode()
    return served.request("", "POST", PREDICT, body, "application/json", arguments)


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("iris")
    joblib.dump(
        LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True)), folder / "model.joblib"
    )
    return folder


def sklearn(folder: Path, method: str) -> tuple[str, ...]:
    return "--model-dir", str(folder), "--runtime", "sklearn", "--param", f"method={method}"


def test_probabilities_have_a_column_each(served: Wrappers, iris: Path) -> None:
    expected = joblib.load(iris / "model.joblib").predict_proba(ROWS)
    status, answer = ask(served, sklearn(iris, "predict_proba"), {"data": {"ndarray": ROWS}})
    assert (status, answer["meta"]) == (200, META)
    assert answer["data"]["names"] == ["t:0", "t:1", "t:2"]
    assert np.allclose(answer["data"]["ndarray"], expected)
    values = [value for row in ROWS for value in row]
    tensor = {"data": {"tensor": {"shape": [2, 4], "values": values}}}
    _, answer = ask(served, sklearn(iris, "predict_proba"), tensor)
    assert answer["data"]["tensor"]["shape"] == [2, 3]
    assert np.allclose(answer["data"]["tensor"]["values"], expected.ravel())


def test_classes_are_a_row(served: Wrappers, iris: Path) -> None:
    _, answer = ask(served, sklearn(iris, "predict"), {"data": {"ndarray": ROWS}})
    assert answer["data"] == {"names": [], "ndarray": [0, 2]}
    _, answer = ask(served, sklearn(iris, "decision_function"), {"data": {"ndarray": ROWS}})
    assert np.array(answer["data"]["ndarray"]).shape == (2, 3)


@pytest.mark.parametrize(
    "message",
    [
        {"data": {"ndarray": [["x", "y", "z", "w"]]}},
        {"data": {"ndarray": [[1, 2]]}},
        {"data": {"ndarray": []}},
        {"data": {}},
        {"strData": "x"},
        {"jsonData": {"a": 1}},
    ],
)
def test_what_the_model_does_not_take_is_the_callers_fault_with_its_cause(
    served: Wrappers, iris: Path, message: Any
) -> None:
    status, answer = ask(served, sklearn(iris, "predict_proba"), message)
    assert (status, answer["status"]["reason"]) == (400, "MICROSERVICE_BAD_DATA")
    assert "None" not in answer["status"]["info"]


def test_a_model_without_probabilities_does_not_start(tmp_path: Path) -> None:
    joblib.dump(Perceptron().fit(*load_iris(return_X_y=True)), tmp_path / "model.joblib")
    with wrappers() as served, pytest.raises(Exception, match="has no method predict_proba"):
        ask(served, sklearn(tmp_path, "predict_proba"), {"data": {"ndarray": ROWS}})


def test_xgboost(served: Wrappers, tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    features, labels = load_iris(return_X_y=True)
    options = {"objective": "multi:softprob", "num_class": 3}
    booster = xgboost.train(options, xgboost.DMatrix(features, labels), 3)
    booster.save_model(tmp_path / "model.json")
    arguments = ("--model-dir", str(tmp_path), "--runtime", "xgboost")
    status, answer = ask(served, arguments, {"data": {"ndarray": ROWS}})
    assert (status, answer["data"]["names"]) == (200, ["t:0", "t:1", "t:2"])
    expected = booster.predict(xgboost.DMatrix(np.array(ROWS)))
    assert np.allclose(answer["data"]["ndarray"], expected)
    assert ask(served, arguments, {"data": {"ndarray": [[1]]}})[0] == 400


def test_metadata_comes_from_the_file_beside_the_model(served: Wrappers, iris: Path) -> None:
    (iris / "metadata.yaml").write_text("name: iris\nplatform: sklearn\n")
    with wrappers(ENVIRON) as fresh:
        arguments = sklearn(iris, "predict")
        status, answer = fresh.request("", "GET", "/metadata", arguments=arguments)
    assert (status, answer["name"], answer["platform"]) == (200, "iris", "sklearn")


def test_any_other_model_takes_instances(served: Wrappers, tmp_path: Path) -> None:
    """An ONNX model stands for all that V1 can ask."""
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("Add", ["x", "x"], ["y"])
    shape = [None, 2]
    tensors = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy"
    ]
    graph = onnx.helper.make_graph([node], "g", tensors[:1], tensors[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "model.onnx")
    arguments = ("--model-dir", str(tmp_path), "--runtime", "onnx")
    status, answer = ask(served, arguments, {"data": {"ndarray": [[1, 2], [3, 4]]}})
    assert (status, answer["data"]["ndarray"]) == (200, [[2, 4], [6, 8]])
    asked = {"jsonData": {"instances": [[1, 2]]}}
    assert ask(served, arguments, asked)[1]["jsonData"] == {"predictions": [[2.0, 4.0]]}
