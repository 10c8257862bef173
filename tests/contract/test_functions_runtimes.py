"""Every runtime behind its library: loading, both protocols, its refusals, formats found by
themselves."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes_functions import Server, serving

ROWS = [[6.8, 2.8, 4.8, 1.4], [5.0, 3.4, 1.5, 0.2]]


def iris() -> Any:
    from sklearn import datasets

    return datasets.load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    pytest.importorskip("onnxruntime")
    base = tmp_path_factory.mktemp("runtimes")
    for name in ("xgb", "ubj", "lgb", "onnx", "text"):
        (base / name).mkdir()
    features, classes = iris()
    options = {"objective": "multi:softprob", "num_class": 3, "max_depth": 2}
    booster = xgboost.train(options, xgboost.DMatrix(features, classes), 5)
    booster.save_model(base / "xgb" / "model.json")
    booster.save_model(base / "ubj" / "model.ubj")
    quiet = {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1}
    lightgbm.train(quiet, lightgbm.Dataset(features, classes), 5).save_model(base / "lgb" / "m.txt")
    write_onnx(base / "onnx" / "model.onnx")
    write_text_onnx(base / "text" / "model.onnx")
    models = [f"--model={name}={base / name}" for name in ("xgb", "ubj", "lgb", "onnx", "text")]
    with serving(*models, "--allow-pickle", "false") as running:
        yield running


def write_onnx(file: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    values = [
        helper.make_tensor_value_info(name, kind, ["n", 2]) for name in ("x", "y", "sum", "product")
    ]
    nodes = [
        helper.make_node("Add", ["x", "y"], ["sum"]),
        helper.make_node("Mul", ["x", "y"], ["product"]),
    ]
    graph = helper.make_graph(nodes, "g", values[:2], values[2:])
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), file)


def write_text_onnx(file: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.STRING
    values = [helper.make_tensor_value_info(name, kind, ["n"]) for name in ("in", "out")]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["in"], ["out"])], "g", values[:1], values[1:]
    )
    opset = [helper.make_opsetid("", 16)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), file)


def v2(name: str, *tensors: tuple[str, list[int], str, list[Any]], **extra: Any) -> tuple[str, Any]:
    inputs = [dict(zip(("name", "shape", "datatype", "data"), t, strict=True)) for t in tensors]
    return f"/v2/models/{name}/infer", {"inputs": inputs, **extra}


@pytest.mark.parametrize("name", ["xgb", "ubj", "lgb"])
def test_boosters_answer_probabilities_over_both_protocols(server: Server, name: str) -> None:
    rows = server.post(f"/v1/models/{name}:predict", {"instances": ROWS}).json()["predictions"]
    assert [row.index(max(row)) for row in rows] == [1, 0]
    flat = [value for row in ROWS for value in row]
    reply = server.post(*v2(name, ("input-0", [2, 4], "FP32", flat)))
    (output,) = reply.json()["outputs"]
    assert output["shape"] == [2, 3]
    assert output["data"] == pytest.approx([value for row in rows for value in row], abs=1e-5)


@pytest.mark.parametrize("name", ["xgb", "ubj", "lgb"])
@pytest.mark.parametrize("instances", [[[1, 2]], [["a", "b", "c", "d"]], [[1, 2, 3, 4], [1]], []])
def test_boosters_refuse_what_does_not_fit(server: Server, name: str, instances: Any) -> None:
    assert server.post(f"/v1/models/{name}:predict", {"instances": instances}).status == 400


@pytest.mark.parametrize("name", ["xgb", "lgb"])
def test_boosters_take_null_for_a_missing_value(server: Server, name: str) -> None:
    rows = [[6.8, 2.8, None, 1.4]]
    reply = server.post(f"/v1/models/{name}:predict", {"instances": rows})
    raw = np.array([6.8, 2.8, np.nan, 1.4]).tobytes()
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "x", "shape": [1, 4], "datatype": "FP64",
                    "parameters": {"binary_data_size": len(raw)},
                }
            ]
        }
    ).encode()  # fmt: skip
    binary = server.post(
        f"/v2/models/{name}/infer", head + raw, {"inference-header-content-length": str(len(head))}
    )
    (row,) = reply.json()["predictions"]
    assert binary.json()["outputs"][0]["data"] == pytest.approx(row)


def test_onnx_by_rows_by_columns_and_by_tensors(server: Server) -> None:
    path = "/v1/models/onnx:predict"
    rows = {"instances": [{"x": [1, 2], "y": [3, 4]}]}
    assert server.post(path, rows).json() == {
        "predictions": [{"sum": [4.0, 6.0], "product": [3.0, 8.0]}]
    }
    columns = {"inputs": {"x": [[1, 2]], "y": [[3, 4]]}}
    assert server.post(path, columns).json() == {
        "outputs": {"sum": [[4.0, 6.0]], "product": [[3.0, 8.0]]}
    }
    tensors = (("x", [1, 2], "FP32", [1, 2]), ("y", [1, 2], "FP32", [3, 4]))
    reply = server.post(*v2("onnx", *tensors, outputs=[{"name": "product"}]))
    assert reply.json()["outputs"] == [
        {"name": "product", "shape": [1, 2], "datatype": "FP32", "data": [3.0, 8.0]}
    ]
    metadata = server.get("/v2/models/onnx").json()
    assert metadata["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [-1, 2]}


def test_onnx_texts(server: Server) -> None:
    assert server.post("/v1/models/text:predict", {"instances": ["ä", "b"]}).json() == {
        "predictions": ["ä", "b"]
    }
    reply = server.post(*v2("text", ("any name", [1], "BYTES", ["ä"])))
    assert reply.json()["outputs"][0]["data"] == ["ä"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"instances": []},
        {"instances": [[1, 2]]},
        {"instances": [{"x": [1, 2]}]},
        {"instances": [{"x": [1, 2], "y": [3]}]},
        {"instances": [{"x": [1, 2], "y": ["a", "b"]}]},
        {"instances": [{"x": [1, 2], "y": [3, 4]}, {"x": [1, 2]}]},
        {"inputs": {"x": [[1, 2]]}},
        {"inputs": {"x": [[1, 2]], "y": [[3, 4]]}, "instances": []},
        {"inputs": {"x": [[1, 2]], "y": [[[3, 4]]]}},
    ],
)
def test_onnx_refuses_what_does_not_fit(server: Server, body: Any) -> None:
    reply = server.post("/v1/models/onnx:predict", body)
    assert reply.status == 400, reply.body


def test_wrong_files_for_a_runtime_say_so(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "model.onnx").write_bytes(b"no onnx")
    with serving("--model-dir", str(tmp_path), ready=False) as failing:
        assert failing.wait_exit() == 1
        assert "model.onnx cannot be loaded" in failing.lines[-1]


def test_a_missing_library_names_its_extra(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"")
    try:
        import tensorflow  # noqa: F401
    except ImportError:
        with serving("--model-dir", str(tmp_path), ready=False) as failing:
            assert failing.wait_exit() == 1
            assert "pip install 'turnout[functions,tensorflow]'" in failing.lines[-1]


def test_mlflow_pyfunc_models(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    import subprocess
    import sys

    source = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "import mlflow.sklearn, pandas as pd\n"
        "from sklearn import datasets, linear_model\n"
        "from mlflow.models import infer_signature\n"
        "x, y = datasets.load_iris(return_X_y=True)\n"
        "frame = pd.DataFrame(x, columns=list('abcd'))\n"
        "model = linear_model.LogisticRegression(max_iter=500).fit(frame, y)\n"
        "mlflow.sklearn.save_model(model, sys.argv[1], signature=infer_signature(frame,"
        " model.predict(frame)),\n"
        "    pip_requirements=['scikit-learn'], serialization_format='cloudpickle')\n"
    )
    folder = tmp_path / "m"
    subprocess.run([sys.executable, "-c", source, str(folder)], check=True, capture_output=True)
    with serving("--model-name", "m", "--model-dir", str(folder)) as server:
        assert server.post("/v1/models/m:predict", {"instances": ROWS}).json() == {
            "predictions": [1, 0]
        }
        named = [dict(zip("abcd", row, strict=True)) for row in ROWS]
        assert server.post("/v1/models/m:predict", {"instances": named}).json() == {
            "predictions": [1, 0]
        }
        columns = [
            (name, [1], "FP64", [value]) for name, value in zip("abcd", ROWS[0], strict=True)
        ]
        assert server.post(*v2("m", *columns)).json()["outputs"][0]["data"] == [1]
        assert server.post("/v1/models/m:predict", {"instances": [[1, 2]]}).status == 400
        assert server.post("/v1/models/m:predict", {"instances": [list("abcd")]}).status == 400


def test_huggingface_without_a_tokenizer_is_said(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text('{"architectures": ["BertForSequenceClassification"]}')
    (tmp_path / "model.safetensors").touch()
    with serving("--model-dir", str(tmp_path), ready=False) as server:
        assert server.wait_exit() == 1
        assert "has no tokenizer" in server.lines[-1]


def test_kserves_variable_asks_sklearn_for_probabilities(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    from sklearn.linear_model import LinearRegression, LogisticRegression

    rows = [[0.0], [1.0]]
    joblib.dump(LogisticRegression().fit(rows, [0, 1]), tmp_path / "classes.joblib")
    joblib.dump(LinearRegression().fit(rows, [0, 1]), tmp_path / "line.joblib")
    models = [f"--model={name}={tmp_path / name}.joblib" for name in ("classes", "line")]
    with serving(*models, environ={"PREDICT_PROBA": "true"}) as server:
        body = {"instances": [[0.5]]}
        (pair,) = server.post("/v1/models/classes:predict", body).json()["predictions"]
        assert pair == pytest.approx([0.5, 0.5])
        assert server.post("/v1/models/line:predict", body).json()["predictions"] == [0.5]


def test_sklearn_pipelines_of_texts(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(CountVectorizer(), LogisticRegression())
    joblib.dump(model.fit(["good day", "bad night"], ["pos", "neg"]), tmp_path / "model.joblib")
    with serving("--model-name", "t", "--model-dir", str(tmp_path)) as server:
        for rows in (["good", "bad"], [["good"], ["bad"]], [{"text": "good"}, {"text": "bad"}]):
            reply = server.post("/v1/models/t:predict", {"instances": rows})
            assert reply.json() == {"predictions": ["pos", "neg"]}
        for shape in ([2], [2, 1]):  # the second is MLServer's StringCodec
            reply = server.post(*v2("t", ("x", shape, "BYTES", ["good", "bad"])))
            assert reply.json()["outputs"][0]["data"] == ["pos", "neg"]
        assert server.get("/v2/models/t").json()["inputs"] == [
            {"name": "input-0", "datatype": "BYTES", "shape": [-1]}
        ]
        for rows in ([1], [["a", "b"]], [[1.5]]):
            assert server.post("/v1/models/t:predict", {"instances": rows}).status == 400
        assert server.post(*v2("t", ("x", [1], "FP32", [1.0]))).status == 400


def test_mlservers_settings_beside_a_model(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    matrix = xgboost.DMatrix(np.array([[0.0], [1.0]]), label=[0, 1])
    xgboost.train({}, matrix, 1).save_model(tmp_path / "iris.json")
    settings = {"name": "iris", "parameters": {"uri": "./iris.json", "version": "v0.1.0"}}
    (tmp_path / "model-settings.json").write_text(json.dumps(settings))
    (tmp_path / "warmup.json").write_text('[{"instances": [[1.0]]}]')
    with serving("--model-name", "iris", "--model-dir", str(tmp_path)) as server:
        assert server.get("/v2/models/iris").json()["versions"] == ["v0.1.0"]
        path, body = v2("iris", ("x", [1, 1], "FP32", [1.0]))
        for version, status in (("v0.1.0", 200), ("v0.2.0", 404)):
            versioned = path.replace("/infer", f"/versions/{version}/infer")
            assert server.post(versioned, body).status == status


def test_huggingface_pipelines(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "movie"]
    config = transformers.BertConfig(
        vocab_size=8,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    for name in ("ForSequenceClassification", "ForTokenClassification", "Model"):
        folder = tmp_path / name
        getattr(transformers, f"Bert{name}")(config).save_pretrained(folder)
        (folder / "vocab.txt").write_text("\n".join(words))
        transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    models = [
        f"--model=classes={tmp_path}/ForSequenceClassification",
        f"--model=tokens={tmp_path}/ForTokenClassification",
        f"--model=vectors={tmp_path}/Model",
    ]
    texts = {"instances": ["good movie", {"text": "bad"}]}
    with serving(*models, "--allow-pickle", "false", "--max-batch-size", "8") as server:
        labels = server.post("/v1/models/classes:predict", texts).json()["predictions"]
        assert [set(label) for label in labels] == [{"label", "score"}] * 2
        assert server.post("/v1/models/classes:predict", {"instances": [3]}).status == 400
        reply = server.post(*v2("classes", ("x", [1], "BYTES", ["good"])))
        assert "LABEL_" in reply.json()["outputs"][0]["data"][0]
        entities = server.post("/v1/models/tokens:predict", texts).json()["predictions"]
        assert len(entities) == 2
        assert {"entity_group", "score", "word", "start", "end"} <= set(entities[0][0])
        reply = server.post(*v2("tokens", ("x", [1], "BYTES", ["good movie"])))
        assert json.loads(reply.json()["outputs"][0]["data"][0])[0]["start"] == 0
        vectors = server.post("/v1/models/vectors:predict", texts).json()["predictions"]
        assert [len(vector) for vector in vectors] == [16, 16]
        reply = server.post(*v2("vectors", ("x", [2], "BYTES", ["good", "bad"])))
        assert reply.json()["outputs"][0]["shape"] == [2, 16]
        wrong = server.post(*v2("vectors", ("x", [1], "FP32", [1.0])))
        assert (wrong.status, "must be BYTES" in wrong.error) == (400, True)
