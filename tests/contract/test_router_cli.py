"""`turnout route` as people use it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes_router import ROOT

GRAPH = """
apiVersion: serving.kserve.io/v1alpha1
kind: InferenceGraph
metadata: {name: pets}
spec:
  nodes:
    root:
      routerType: Sequence
      steps:
      - {name: classify, serviceName: cat-dog}
      - {name: breed, serviceName: breeds, condition: '[@this].#(predictions.0=="dog")'}
"""


def turnout(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from knative.cli.main import run; sys.exit(run())",
            "route",
            *arguments,
        ],
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    path = tmp_path / "graph.yaml"
    path.write_text(GRAPH)
    return str(path)


def test_the_path_in_text_and_json(manifest: str) -> None:
    done = turnout(manifest, "--json", "{}")
    assert done.returncode == 0
    assert "-> root/classify  cat-dog" in done.stdout
    assert "?> root/breed" in done.stdout
    done = turnout(manifest, "--answer", 'classify={"predictions":["dog"]}', "-o", "json")
    assert [one["certainty"] for one in json.loads(done.stdout)] == ["sure", "sure"]
    assert turnout("-", "--mermaid", stdin=GRAPH).stdout.startswith("flowchart LR")


def test_a_compiled_service_is_a_graph_too() -> None:
    spec = {"nodes": {"root": {"routerType": "Sequence", "steps": [{"serviceUrl": "http://m/x"}]}}}
    env = [{"name": "GRAPH_JSON", "value": json.dumps(spec)}]
    service = {
        "kind": "Service",
        "metadata": {"name": "pets"},
        "spec": {"template": {"spec": {"containers": [{"env": env}]}}},
    }
    assert "http://m/x" in turnout("-", stdin=json.dumps(service)).stdout


@pytest.mark.parametrize(
    ("text", "arguments", "code", "message"),
    [
        ("a: [", (), 65, "<stdin>"),
        ("kind: Service\nmetadata: {name: x}", (), 65, "no InferenceGraph"),
        (GRAPH + "---" + GRAPH.replace("pets", "cars"), (), 65, "--graph NAME"),
        (GRAPH, ("--graph", "cars"), 2, "no graph 'cars'"),
        (GRAPH, ("--answer", "x"), 2, "STEP=TEXT"),
        (GRAPH, ("--body", "/no/such/file"), 2, "cannot be read"),
        (GRAPH.replace("cat-dog", "cat-dog, nodeName: gone"), (), 65, "more than one target"),
    ],
)
def test_mistakes_are_told_plainly(
    text: str, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = turnout("-", *arguments, stdin=text)
    assert done.returncode == code
    assert message in done.stderr or message == "<stdin>"
    assert "Traceback" not in done.stderr


def test_a_missing_file_is_a_usage_error() -> None:
    done = turnout("/no/such/graph.yaml")
    assert (done.returncode, "cannot be read" in done.stderr) == (2, True)
