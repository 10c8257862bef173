"""Seldon graphs whose nodes are called over gRPC: the real wrapper behind the real router."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.contract.test_functions_seldon_grpc import Client
from tests.contract.test_router_seldon import deployment, predictor
from tests.fakes_functions import Server, serving
from tests.fakes_router import RouterProcess, free_port, router

CLASSES = """
import time
import numpy as np

class Everything:
    def predict(self, X, names, meta=None):
        if isinstance(X, str):
            if X == "slow":
                time.sleep(60)
            if X == "boom":
                raise ValueError("bad thing")
            return {"puid": (meta or {}).get("puid")}
        return X
    def transform_input(self, X, names):
        return X if isinstance(X, str) else X * 2
    def transform_output(self, X, names):
        return X if isinstance(X, (str, dict)) else X + 1
    def route(self, X, names):
        return 0 if isinstance(X, str) else int(X[0][0]) - 2
    def aggregate(self, Xs, names):
        return (Xs[0] + Xs[1]) / 2
    def send_feedback(self, X, names, reward, truth, routing=None):
        return [[reward, -9 if routing is None else routing]]
"""
V2 = """
class Twice:
    def predict(self, request, headers=None):
        return {t.name: t.as_numpy() * 2 for t in request.inputs}
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "model.py").write_text(CLASSES)
    arguments = ["--model-dir", str(folder), "--protocol", "seldon,grpc-seldon"]
    with serving(*arguments, "--grpc-port", "0", "--threads", "8") as running:
        yield running


def at(node: Server, name: str, kind: str, *children: Any) -> dict[str, Any]:
    url = f"grpc://127.0.0.1:{node.grpc_port}"
    return {"name": name, "type": kind, "serviceUrl": url, "children": list(children)}


@pytest.fixture(scope="module")
def graph(node: Server) -> Iterator[tuple[RouterProcess, Client]]:
    tree = at(
        node,
        "t",
        "TRANSFORMER",
        at(
            node,
            "o",
            "OUTPUT_TRANSFORMER",
            at(
                node,
                "r",
                "ROUTER",
                at(node, "one", "MODEL"),
                at(node, "c", "COMBINER", at(node, "a", "MODEL"), at(node, "b", "MODEL")),
            ),
        ),
    )
    port = free_port()
    spec = deployment(predictor(tree), timeoutMs=3000)
    with router(spec, GRPC_PORT=str(port)) as process:
        client = Client(port)
        yield process, client
        client.channel.close()


def ask(process: RouterProcess, body: Any, path: str = "/api/v1.0/predictions") -> Any:
    raw = json.dumps(body).encode()
    return process.request("POST", path, raw, Content_Type="application/json", Seldon_Puid="p-1")


@pytest.mark.parametrize(("first", "route"), [(1, 0), (1.5, 1)])
def test_every_duty_is_a_grpc_call(
    graph: tuple[RouterProcess, Client], first: float, route: int
) -> None:
    process, client = graph
    answer = ask(process, {"data": {"ndarray": [[first, 4]]}})
    assert answer.status == 200, answer.body
    assert answer.json["data"]["ndarray"] == [[2 * first + 1, 9]]
    assert answer.json["meta"]["routing"]["r"] == route
    assert answer.headers["seldon-puid"] == "p-1"
    over = client("Seldon", "Predict", {"data": {"ndarray": [[first, 4]]}}, seldon_puid="p-2")
    assert over["data"]["ndarray"] == [[2 * first + 1, 9]]
    assert over["meta"]["routing"]["r"] == route
    assert client.metadata["seldon-puid"] == "p-2"


def test_feedback_takes_the_way_of_the_answer(graph: tuple[RouterProcess, Client]) -> None:
    process, _ = graph
    told = ask(
        process,
        {"request": {"data": {"ndarray": [[1]]}}, "reward": 0.5,
         "response": {"meta": {"routing": {"r": 1}}}},
        "/api/v1.0/feedback",
    )  # fmt: skip
    assert (told.status, told.json) == (200, {})  # the root is a transformer: nothing to tell


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"strData": "boom"}, 500, "bad thing"),
        ({}, 400, "Invalid request"),
        ({"data": {"tensor": {"shape": ["x"]}}}, 400, "no SeldonMessage"),
        ({"strData": "slow"}, 504, "one: "),
    ],
)
def test_what_goes_wrong(
    graph: tuple[RouterProcess, Client], body: Any, status: int, text: str
) -> None:
    process, _ = graph
    answer = ask(process, body)
    assert (answer.status, answer.json["status"]["status"]) == (status, "FAILURE")
    assert text in answer.json["status"]["info"]


def test_over_grpc_the_codes_are_grpcs(graph: tuple[RouterProcess, Client]) -> None:
    _, client = graph
    for body, code in (
        ({"strData": "boom"}, grpc.StatusCode.INTERNAL),
        ({}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"strData": "slow"}, grpc.StatusCode.DEADLINE_EXCEEDED),
    ):
        with pytest.raises(grpc.RpcError) as fault:
            client("Seldon", "Predict", body)
        assert fault.value.code() is code


def test_status_and_metadata_of_nodes(graph: tuple[RouterProcess, Client]) -> None:
    process, _ = graph
    assert process.request("GET", "/api/v1.0/status/r").status == 200
    assert process.request("GET", "/api/v1.0/metadata/r").status == 200
    assert set(process.request("GET", "/api/v1.0/metadata").json["models"]) == set("tor") | {
        *("one", "c", "a", "b")
    }
    metrics = process.request("GET", "/prometheus").body.decode()
    assert 'service="/route",method="unary",code="200",model_name="r"' in metrics


def test_a_node_that_is_not_there() -> None:
    root = {"name": "m", "serviceUrl": f"grpc://127.0.0.1:{free_port()}"}
    with router(deployment(predictor(root))) as process:
        answer = ask(process, {"strData": "x"})
        assert answer.status == 500
        assert answer.json["status"]["info"].startswith("m: cannot connect")


def test_a_v2_chain_over_grpc(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(V2)
    arguments = ["--model-dir", str(tmp_path), "--protocol", "v2,grpc-v2", "--grpc-port", "0"]
    with serving(*arguments, "--model-name", "two") as running:
        url = f"grpc://127.0.0.1:{running.grpc_port}"
        second = {"name": "n", "modelName": "two", "serviceUrl": url}
        root = {"name": "two", "serviceUrl": url, "children": [second]}
        with router(deployment(predictor(root), protocol="v2")) as process:
            tensor = {"name": "x", "shape": [2], "datatype": "FP64", "data": [1.0, 2.5]}
            answer = ask(process, {"inputs": [tensor]}, "/v2/models/two/infer")
            assert answer.status == 200, answer.body
            assert answer.json["outputs"][0]["data"] == [4.0, 10.0]
            assert process.request("GET", "/v2/models/two/ready").status == 200
            assert process.request("GET", "/v2/models/two").json["name"] == "two"


def test_what_cannot_be_called_over_grpc_is_refused() -> None:
    from router_fn.seldon import graph as grammar

    root = {
        "name": "r",
        "type": "ROUTER",
        "serviceUrl": "grpc://r:9500",
        "children": [{"name": "m"}],
    }
    tensorflow = deployment(predictor(root), protocol="tensorflow")
    assert any("over REST only" in message for _, _, message in grammar.check(tensorflow))
