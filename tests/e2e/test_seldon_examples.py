"""The examples with SeldonDeployments, by the commands of their READMEs; and the bandit learns."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import local, tour

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

TENSORFLOW = local.ROOT / ".venvs" / "tensorflow"
FLOWER = {"data": {"ndarray": [[5.9, 3.0, 5.1, 1.8]]}}
ABTEST = local.EXAMPLES / "seldon-abtest"


def answers(text: str) -> list[Any]:
    """The JSON objects among what a tour printed; curl ends an answer without a new line."""
    found, at = [], text.find("{")
    decoder = json.JSONDecoder()
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
            found.append(value)
        except ValueError:
            end = at + 1
        at = text.find("{", end)
    return found


def test_every_command_of_the_abtest_works(tmp_path: Path) -> None:
    text = tour.run(ABTEST / "README.md", tmp_path, path=local.TURNOUT.parent)
    said = answers(text)
    abtest = next(a for a in said if "coin" in a.get("meta", {}).get("routing", {}))
    assert sum(abtest["data"]["ndarray"][0]) == pytest.approx(1)
    status = next(a["jsonData"] for a in said if "judged" in a.get("jsonData", {}))
    assert sorted(status["judged"]) == [0, 1], text
    assert sorted(status["worth"]) == [0.0, 1.0], text
    metadata = next(a["models"] for a in said if "models" in a)
    assert set(metadata) == {"bandit", "forest", "mean", "linear", "neighbours"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.Up]:
    """The examples' own models are made by the test above, or here."""
    import runpy

    folder = tmp_path_factory.mktemp("abtest")
    runpy.run_path(str(ABTEST / "train.py"))["write"](folder / "models" / "seldon-abtest")
    mirror = f"s3://turnout-examples/={folder / 'models'}/"
    with local.up(*ABTEST.glob("*.yaml"), "--mirror", mirror, folder=folder / "up") as up:
        yield up


def ask(engine: local.Up, path: str, body: Any, name: str = "iris-bandit") -> Any:
    status, answer, _ = engine.post(name, json.dumps(body).encode(), path=f"/api/v1.0/{path}")
    assert status == 200, answer
    return answer


def test_the_abtest_uses_both_models(engine: local.Up) -> None:
    routes = [
        ask(engine, "predictions", FLOWER, "iris-abtest")["meta"]["routing"] for _ in range(24)
    ]
    assert {route["coin"] for route in routes} == {0, 1}
    # ... and the model that a route names is the one that was called
    assert all(("forest" in r) == (r["coin"] == 1) and len(r) == 2 for r in routes)


def test_the_bandit_learns_from_feedback_and_the_combiner_answers_the_mean(
    engine: local.Up,
) -> None:
    """Only the second branch is ever worth anything; the bandit must come to prefer it."""
    last = []
    for _ in range(40):
        answer = ask(engine, "predictions", FLOWER)
        route = answer["meta"]["routing"]["bandit"]
        ask(engine, "feedback", {"request": FLOWER, "response": answer, "reward": float(route)})
        last = [*last, route][-20:]
    # a tenth of the requests tries any branch; 20 without the better one is one in 10^25
    assert last.count(1) >= 10
    mean = next(
        answer
        for answer in iter(lambda: ask(engine, "predictions", FLOWER), None)
        if answer["meta"]["routing"]["bandit"] == 1
    )
    assert mean["data"]["names"] == ["setosa", "versicolor", "virginica"]
    assert set(mean["meta"]["requestPath"]) == {"bandit", "mean", "linear", "neighbours"}
    assert mean["meta"]["metrics"] == [{"key": "flowers", "type": "COUNTER", "value": 1}]
    parts = [
        engine.post(f"iris-bandit-default-{node}", json.dumps(body).encode(), path=path)[1]
        for node, path, body in (
            ("linear", "/predict", FLOWER),
            ("neighbours", "/predict", FLOWER),
        )
    ]
    linear, neighbours = (part["data"]["ndarray"][0] for part in parts)
    wanted = [(a + b) / 2 for a, b in zip(linear, neighbours, strict=True)]
    assert mean["data"]["ndarray"][0] == pytest.approx(wanted)


needs_tensorflow = pytest.mark.skipif(
    not (TENSORFLOW / ".installed").exists(), reason="TensorFlow is not here: make tensorflow"
)


@needs_tensorflow
def test_every_command_of_tfserving_mnist_works(tmp_path: Path) -> None:
    readme = local.EXAMPLES / "tfserving-mnist" / "README.md"
    text = tour.run(readme, tmp_path, path=TENSORFLOW / "bin")
    said = answers(text)
    seldon = next(a["data"] for a in said if "data" in a)
    tensorflow = next(a["predictions"] for a in said if "predictions" in a)
    assert seldon["names"] == [f"t:{n}" for n in range(10)]
    assert seldon["ndarray"] == tensorflow
    assert [row.index(max(row)) for row in tensorflow] == [0, 1, 2]
    states = next(a["model_version_status"] for a in said if "model_version_status" in a)
    assert [(s["version"], s["state"]) for s in states] == [("1", "AVAILABLE")]
    refusal = next(a["status"] for a in said if "status" in a)
    assert (refusal["code"], refusal["status"]) == (400, "FAILURE")
    assert "784" in refusal["info"]


STOCK = """
apiVersion: machinelearning.seldon.io/v1alpha2
kind: SeldonDeployment
metadata:
  name: pairs
  annotations: {turnout.dev/runtime: stock}
spec:
  predictors:
    - name: default
      graph:
        name: mean
        implementation: AVERAGE_COMBINER
        children:
          - {name: first, implementation: TENSORFLOW_SERVER, modelUri: "s3://turnout-tests/first"}
          - {name: second, implementation: TENSORFLOW_SERVER, modelUri: "s3://turnout-tests/second"}
---
apiVersion: machinelearning.seldon.io/v1alpha2
kind: SeldonDeployment
metadata:
  name: pod
  annotations: {turnout.dev/runtime: stock, turnout.dev/collocate: "true"}
spec:
  predictors:
    - name: default
      graph:
        name: second
        implementation: TENSORFLOW_SERVER
        modelUri: s3://turnout-tests/second
"""


@needs_tensorflow
def test_seldons_own_layout_with_tensorflow_serving_beside_its_proxy(tmp_path: Path) -> None:
    """Two models in one graph, each in a pod with its proxy; and engine, proxy and server in one
    pod. Our own server stands for the image of TensorFlow Serving, under its flags."""
    for name, plus in (("first", "2"), ("second", "4")):
        script = local.ROOT / "tests" / "clients_functions" / "make_saved_model.py"
        command = [TENSORFLOW / "bin" / "python", script, tmp_path / "models" / name, plus]
        subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "stock.yaml").write_text(STOCK)
    mirror = f"s3://turnout-tests/={tmp_path / 'models'}/"
    image = "tensorflow/serving=python -m functions.tfs"
    turnout = TENSORFLOW / "bin" / "turnout"
    with local.up(
        tmp_path / "stock.yaml", "--mirror", mirror, "--map", image,
        folder=tmp_path / "up", program=turnout,
    ) as up:  # fmt: skip
        body = json.dumps({"data": {"ndarray": [2.0, 4.0]}}).encode()
        path = "/api/v1.0/predictions"
        status, answer, _ = up.post("pairs", body, path=path, timeout_s=120)
        assert (status, answer["data"]["ndarray"]) == (200, [[4.0, 5.0]]), answer
        assert set(answer["meta"]["requestPath"]) == {"first", "second"}
        status, answer, _ = up.post("pod", body, path=path, timeout_s=120)
        assert (status, answer["data"]["ndarray"]) == (200, [[5.0, 6.0]]), answer
        wrong = json.dumps({"data": {"ndarray": [["x"]]}}).encode()
        status, answer, _ = up.post("pod", wrong, path=path)
        assert (status, answer["status"]["status"]) == (400, "FAILURE")
        assert "not of expected type: float" in answer["status"]["info"]
