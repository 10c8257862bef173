"""`tokenize` and `json` as processes in front of real models, and waiting for a predictor in the
same pod."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression

from tests.e2e.local import free_port
from tests.fakes_functions import Server, serving, wait_until, write_model
from tests.unit.functions.test_transformer_texts import save_tokenizer

PROTOCOLS = ("v1", "v2", "grpc-v2")
EVERYTHING = ("--protocol", "v1,v2,grpc-v2", "--grpc-port", "0", "--model-name", "m")


def save_model(directory: Path) -> Path:
    """A classifier of texts by their length: logits of `short` and `long` from the mask."""
    nodes = [
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["mask", "axis"], ["length"], keepdims=1),
        helper.make_node("Gemm", ["length", "weights", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "length",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "l"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
            numpy_helper.from_array(np.array([[-1.0, 1.0]], np.float32), "weights"),
            numpy_helper.from_array(np.array([5.0, -5.0], np.float32), "bias"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    directory.mkdir()
    onnx.save(made, directory / "model.onnx")
    return directory


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    home = save_tokenizer(tmp_path_factory.mktemp("texts"))
    (home / "config.json").write_text('{"id2label": {"0": "short", "1": "long"}}')
    with ExitStack() as stack:
        predictor = stack.enter_context(
            serving(*EVERYTHING, "--model-dir", str(save_model(home / "model")))
        )
        found = {}
        for protocol in PROTOCOLS:
            port = predictor.grpc_port if protocol == "grpc-v2" else predictor.port
            found[protocol] = stack.enter_context(
                serving(
                    *EVERYTHING,
                    *("--transformer", "tokenize", "--param", "labels=config.json"),
                    *("--param", "softmax=true", "--param", "top_k=1", "--model-dir", str(home)),
                    *("--predictor-host", f"127.0.0.1:{port}", "--predictor-protocol", protocol),
                )
            )
        yield found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_texts_are_classified(tokenizers: dict[str, Server], protocol: str) -> None:
    server = tokenizers[protocol]
    texts = ["the cat", "the cat sat on the big red mat"]
    reply = server.post("/v1/models/m:predict", {"instances": texts})
    assert reply.status == 200, reply.body
    assert [row[0]["label"] for row in reply.json()["predictions"]] == ["short", "long"]
    # 4 and 10 tokens with the special ones: logits (1, -1) and (-5, 5)
    expected = [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-10))]
    assert [row[0]["score"] for row in reply.json()["predictions"]] == pytest.approx(expected)
    entry = {"name": "text", "shape": [2], "datatype": "BYTES", "data": texts}
    document = server.post("/v2/models/m/infer", {"inputs": [entry]}).json()
    found = {output["name"]: output["data"] for output in document["outputs"]}
    assert found["label"] == ["short", "long"]
    raw = server.post("/v1/models/m:predict", b"the dog ran", {"content-type": "text/plain"})
    assert raw.json()["predictions"][0][0]["label"] == "short"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"instances": [""]}, "empty"),
        ({"instances": ["a" * (10 << 20)]}, "more than 1048576"),
        ({"instances": [{"a": 1, "b": 2}]}, "has none of text"),
        ({}, "instances"),
        (b"\xff\xfe\xfd", "UTF-8"),
    ],
    ids=["empty", "10 MB", "no text", "nothing", "no UTF-8"],
)
def test_bad_texts_are_400(tokenizers: dict[str, Server], body: Any, says: str) -> None:
    server = tokenizers["v2"]
    reply = server.post("/v1/models/m:predict", body)
    assert (reply.status, says in reply.error) == (400, True), reply.body[:300]
    assert server.post("/v1/models/m:predict", {"instances": ["a cat"]}).status == 200


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("iris")
    model = LogisticRegression().fit(np.array([[0.0, 0], [1, 1], [4, 4], [5, 5]]), [0, 0, 1, 1])
    joblib.dump(model, directory / "model.joblib")
    with serving(*EVERYTHING, "--model-dir", str(directory)) as server:
        yield server


@pytest.mark.parametrize(
    ("protocol", "request_", "answer"),
    [
        ("v1", '{"instances": "{$.rows[*].f}"}', "{$.predictions}"),
        (
            "v2",
            '{"inputs": [{"name": "x", "datatype": "FP64", "data": "{$.rows[*].f}"}]}',
            "{$.outputs[0].data}",
        ),
        ("grpc-v2", '{"inputs": [{"name": "x", "data": "{$.rows[*].f}"}]}', "{$.outputs[0].data}"),
    ],
)
def test_documents_of_ones_own_in_and_out(
    iris: Server, protocol: str, request_: str, answer: str
) -> None:
    made = {"id": "{request.id}", "classes": answer}
    port = iris.grpc_port if protocol == "grpc-v2" else iris.port
    configuration = {"transformer": "json", "request": json.loads(request_), "answer": made}
    with serving(
        *EVERYTHING,
        *("--predictor-host", f"127.0.0.1:{port}", "--predictor-protocol", protocol),
        environ={"FUNCTIONS_TRANSFORMER_CONFIG": json.dumps(configuration)},
    ) as server:
        body = {"id": "r7", "rows": [{"f": [0.5, 0]}, {"f": [5, 4.5]}]}
        reply = server.post("/v1/models/m:predict", body)
        assert reply.json() == {"id": "r7", "classes": [0, 1]}
        # A path that may find several values finds none: an empty list, which the model refuses.
        assert server.post("/v1/models/m:predict", {"id": "r8"}).status == 400
        missing = server.post("/v1/models/m:predict", {"rows": body["rows"]})
        assert (missing.status, "{request.id} finds nothing" in missing.error) == (400, True)


# --- one pod


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_readiness_waits_for_the_predictor_of_the_same_pod(
    iris: Server, tmp_path: Path, protocol: str
) -> None:
    """Nothing listens yet, then a predictor that still loads, then it is ready."""
    gate = tmp_path / "gate"
    slow = (
        "import pathlib, time\n"
        "class Slow:\n"
        "    def load(self):\n"
        f"        while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)\n"
        "    def predict(self, payload, headers=None):\n"
        "        return {'predictions': [1]}\n"
    )
    directory = write_model(tmp_path / "model", slow)
    port = free_port()
    own = ("--protocol", "grpc-v2" if protocol == "grpc-v2" else "v1,v2", "--model-name", "m")
    with serving(
        *("--model-name", "m", "--predictor-host", f"localhost:{port}"),
        *("--predictor-protocol", protocol, "--predictor-wait-s", "60"),
        ready=False,
    ) as transformer:
        wait_until(lambda: transformer.ports, "the listener")
        assert transformer.get("/readyz").status == 503
        with serving(
            *own, "--model-dir", str(directory), environ={"PORT": str(port)}, ready=False
        ) as predictor:
            wait_until(lambda: predictor.ports, "the predictor's listener")
            assert not transformer.is_ready()
            gate.touch()
            transformer.wait_ready()


def test_a_predictor_that_does_not_come_ends_the_transformer(tmp_path: Path) -> None:
    with serving(
        *("--predictor-host", f"localhost:{free_port()}", "--predictor-wait-s", "0.3"), ready=False
    ) as server:
        assert server.wait_exit() == 1
        assert "is not ready after 0.3 s" in server.lines[-1]
