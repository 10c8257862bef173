"""Prepackaged models that speak Seldon's protocol themselves: the answers of Seldon's servers."""

import json
import subprocess
import sys
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


OTHERS_WARN = pytest.mark.filterwarnings("ignore")  # their libraries do, in this process
MLFLOW = """
import sys, warnings
warnings.simplefilter("ignore")
import mlflow.pyfunc, mlflow.sklearn
import pandas as pd
from mlflow.models import infer_signature
from sklearn import datasets, linear_model


class Table(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        if not hasattr(model_input, "columns"):
            return model_input * 2
        return pd.DataFrame({"sum": model_input["a"] + model_input["b"], "a": model_input["a"]})


base = sys.argv[1]
x, y = datasets.load_iris(return_X_y=True)
frame = pd.DataFrame(x, columns=list("abcd"))
model = linear_model.LogisticRegression(max_iter=500).fit(frame, y)
mlflow.sklearn.save_model(
    model, base + "/iris", signature=infer_signature(frame, model.predict(frame)),
    pip_requirements=["scikit-learn"], serialization_format="cloudpickle",
)
mlflow.pyfunc.save_model(base + "/table", python_model=Table(), pip_requirements=["pandas"])
"""


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved models: `iris` with a schema of columns a to d, `table` without a schema."""
    pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("mlflow")
    command = [sys.executable, "-c", MLFLOW, str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@OTHERS_WARN
def test_mlflow_with_a_schema(served: Wrappers, mlflow: Path) -> None:
    arguments = ("--model-dir", str(mlflow / "iris"), "--runtime", "mlflow")
    status, answer = ask(served, arguments, {"data": {"ndarray": ROWS}})
    assert (status, answer) == (200, {"data": {"names": [], "ndarray": [0, 2]}, "meta": META})
    tensor = {"data": {"names": list("abcd"), "tensor": {"shape": [1, 4], "values": ROWS[0]}}}
    _, answer = ask(served, arguments, tensor)
    assert answer["data"]["tensor"] == {"shape": [1], "values": [0]}
    for message, text in (
        ({"data": {"ndarray": [[1, 2]]}}, "4 features a, b, c, d"),
        ({"data": {"ndarray": [["x", "y", "z", "w"]]}}, "wrong type"),
        ({"strData": "x"}, "send data"),
    ):
        status, answer = ask(served, arguments, message)
        assert status == 400, answer
        assert text in answer["status"]["info"]


@OTHERS_WARN
def test_mlflow_without_a_schema(served: Wrappers, mlflow: Path) -> None:
    """An array, or a frame with the request's names (`xtype`), whose answer names its columns."""
    arguments = ("--model-dir", str(mlflow / "table"), "--runtime", "mlflow")
    status, answer = ask(served, arguments, {"data": {"ndarray": [[1, 2], [3, 4]]}})
    assert (status, answer["data"]["ndarray"]) == (200, [[2, 4], [6, 8]])
    arguments += ("--param", "xtype=dataframe")
    named = {"data": {"names": ["a", "b"], "ndarray": [[1, 2], [3, 4]]}}
    status, answer = ask(served, arguments, named)
    assert (status, answer["data"]) == (200, {"names": ["sum", "a"], "ndarray": [[3, 1], [7, 3]]})
    status, answer = ask(served, arguments, {"data": {"names": ["a"], "ndarray": [[1, 2]]}})
    assert status == 400
    assert "1 names for 2 columns" in answer["status"]["info"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text classifier of random weights."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    config = transformers.BertConfig(
        vocab_size=8,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "movie"]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@OTHERS_WARN
def test_huggingface(served: Wrappers, bert: Path) -> None:
    arguments = ("--model-dir", str(bert), "--runtime", "huggingface")
    asked = {"jsonData": {"instances": ["good movie", {"text": "bad"}]}}
    status, answer = ask(served, arguments, asked)
    assert (status, answer["meta"]) == (200, META)
    labels = answer["jsonData"]["predictions"]
    assert [set(label) for label in labels] == [{"label", "score"}] * 2
    for message, count in (
        ({"data": {"ndarray": ["good movie", "bad"]}}, 2),
        ({"strData": "good movie"}, 1),
    ):
        status, answer = ask(served, arguments, message)
        assert status == 200, answer
        found = answer["data"]["ndarray"]
        assert found[0] == labels[0]
        assert len(found) == count
    for message in (
        {"data": {"ndarray": [3]}},
        {"jsonData": {"instances": [3]}},
        {"binData": "AA=="},
    ):
        status, answer = ask(served, arguments, message)
        assert status == 400, answer
        assert answer["status"]["reason"] == "MICROSERVICE_BAD_DATA"
