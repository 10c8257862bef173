"""SeldonDeployments as InferenceServices and InferenceGraphs: what the routing becomes, and that
every result compiles."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from knative import compiler, emit, errors, keys
from knative.cli import main
from knative.translate import seldon

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = sorted(p.parent for p in GOLDEN.glob("seldon-*/out.yaml"))


def deployment(graph: str, **spec: str) -> str:
    more = "".join(f"  {key}: {value}\n" for key, value in spec.items())
    return (
        "apiVersion: machinelearning.seldon.io/v1\nkind: SeldonDeployment\n"
        f"metadata: {{name: d}}\nspec:\n{more}  predictors:\n    - name: p\n      graph: {graph}\n"
    )


def sk(name: str, children: str = "") -> str:
    inner = f", children: [{children}]" if children else ""
    return (
        f'{{name: {name}, implementation: SKLEARN_SERVER, modelUri: "s3://models/{name}"{inner}}}'
    )


def converted(text: str) -> tuple[list[dict[str, Any]], list[str]]:
    objects: list[dict[str, Any]] = []
    said: list[str] = []
    found = compiler.compile_text(text).resources
    for resource in (r for r in found if r.kind == "SeldonDeployment"):
        result = seldon.convert(resource)
        objects += result.objects
        said += [p.message for p in result.problems]
    return objects, said


def nodes(text: str) -> dict[str, Any]:
    graph = converted(text)[0][-1]
    assert graph["kind"] == "InferenceGraph"
    found: dict[str, Any] = graph["spec"]["nodes"]
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_converted_compiles(case: Path) -> None:
    objects, _ = converted((case / "in.yaml").read_text())
    mine = [o for o in objects if o["kind"] in ("InferenceService", "InferenceGraph")]
    assert compiler.compile_text(emit.to_yaml(mine)).objects


def test_one_node_needs_no_graph() -> None:
    objects, _ = converted(deployment(sk("m"), protocol="v2"))
    assert [(o["kind"], o["metadata"]["name"]) for o in objects] == [("InferenceService", "d")]
    model = objects[0]["spec"]["predictor"]["model"]
    assert model == {
        "modelFormat": {"name": "sklearn"},
        "protocolVersion": "v2",
        "storageUri": "s3://models/m",
    }


def test_a_chain_hands_its_answers_on() -> None:
    found = nodes(deployment(sk("a", sk("b"))))
    first, second = found["main"]["steps"]
    assert first == {"name": "a", "serviceName": "d-p-a"}
    assert second["data"] == "$response"
    assert second["mapPredictionsToInstances"] is True


def test_v2_chains_map_outputs_to_inputs() -> None:
    found = nodes(deployment(sk("a", sk("b")), protocol="v2"))
    assert found["main"]["steps"][1]["mapOutputsToInputs"] is True


def test_the_average_is_an_ensembles_mean() -> None:
    graph = f"{{name: avg, implementation: AVERAGE_COMBINER, children: [{sk('a')}, {sk('b')}]}}"
    found = nodes(deployment(graph))
    assert found["avg-all"]["routerType"] == "Ensemble"
    assert found["avg-all"]["combiner"] == "mean"
    assert [s["serviceName"] for s in found["avg-all"]["steps"]] == ["d-p-a", "d-p-b"]


def test_an_ab_test_is_a_splitter() -> None:
    graph = (
        "{name: ab, implementation: RANDOM_ABTEST,"
        ' parameters: [{name: ratioA, value: "0.3", type: FLOAT}],'
        f" children: [{sk('a')}, {sk('b')}]}}"
    )
    found = nodes(deployment(graph))
    assert [s["weight"] for s in found["ab-choice"]["steps"]] == [30, 70]


def test_a_routers_child_gets_the_routers_input() -> None:
    """Not the request of the whole graph: a transformer above has changed it."""
    text = (GOLDEN / "seldon-graph" / "in.yaml").read_text()
    found = nodes(text)
    steps = found["main"]["steps"]
    assert [s.get("serviceName") or s["nodeName"] for s in steps] == [
        "pipeline-default-scale",
        "pick-way",
        "pipeline-default-tags",
    ]
    assert found["pick-way"]["steps"][1] == {"nodeName": "pick-choice"}
    assert found["pick-choice"]["judge"] == "$response"


def test_a_shadow_is_a_mirror_of_every_share() -> None:
    found = nodes((GOLDEN / "seldon-abtest" / "in.yaml").read_text())
    steps = found["root"]["steps"]
    assert [s["weight"] for s in steps] == [75, 25]
    assert {s["mirror"]["percent"] for s in steps} == {10}


def test_a_graph_of_nothing_is_an_error() -> None:
    resource = compiler.compile_text(
        deployment("{name: m, implementation: SIMPLE_MODEL}")
    ).resources[0]
    problems = seldon.convert(resource).problems
    assert "nothing is left of this graph" in [p.message for p in problems]


def test_the_verb_prints_manifests_and_says_what_is_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = str(GOLDEN / "seldon-tfserving" / "in.yaml")
    assert main.run(["convert", file]) == 0
    out, err = capsys.readouterr()
    kinds = [item["kind"] for item in yaml.safe_load_all(out)]
    assert kinds.count("InferenceService") == 3
    assert "signature_name" in err
    assert main.run(["convert", file, "--fail-on", "warning"]) == 1


def test_the_verb_wants_a_seldon_deployment() -> None:
    file = str(GOLDEN / "sklearn-iris" / "in.yaml")
    assert main.run(["convert", file]) == errors.ManifestError.exit_code


def test_layout_and_transport_are_told_and_left_behind() -> None:
    text = json.dumps(
        {
            "apiVersion": "machinelearning.seldon.io/v1",
            "kind": "SeldonDeployment",
            "metadata": {"name": "d", "annotations": {keys.COLLOCATE: "true"}},
            "spec": {
                "transport": "grpc",
                "predictors": [
                    {
                        "name": "p",
                        "graph": {
                            "name": "m",
                            "implementation": "SKLEARN_SERVER",
                            "modelUri": "s3://models/m",
                        },
                    }
                ],
            },
        }
    )
    (resource,) = compiler.compile_text(text).resources
    converted = seldon.convert(resource)
    assert keys.COLLOCATE not in emit.to_yaml(converted.objects)
    told = " ".join(problem.message for problem in converted.problems)
    assert "collocate has no equivalent" in told
    assert "over REST instead of gRPC" in told
