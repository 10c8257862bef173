"""SeldonDeployments: what their servers, scales, parameters and annotations become."""

import json
from typing import Any

import pytest

from knative import compiler, errors, options
from router_fn.seldon import graph as routing

Object = dict[str, Any]


def manifest(predictor: Object, **spec: Any) -> str:
    return json.dumps(
        {
            "apiVersion": "machinelearning.seldon.io/v1",
            "kind": "SeldonDeployment",
            "metadata": {"name": "d", "annotations": spec.pop("annotations", {})},
            "spec": {**spec, "predictors": [{"name": "p", **predictor}]},
        }
    )


def server(implementation: str = "SKLEARN_SERVER", **fields: Any) -> Object:
    return {"name": "m", "implementation": implementation, "modelUri": "s3://models/m", **fields}


def compiled(text: str, **choices: Any) -> dict[str, Object]:
    found = compiler.compile_text(text, options.CompileOptions(**choices)).objects
    return {o["metadata"]["name"]: o for o in found}


def pod(service: Object) -> Object:
    spec: Object = service["spec"]["template"]["spec"]
    return spec


def env(service: Object) -> dict[str, str]:
    return {e["name"]: e.get("value", "") for e in pod(service)["containers"][0]["env"]}


def scale(service: Object) -> dict[str, str]:
    prefix = "autoscaling.knative.dev/"
    given = service["spec"]["template"]["metadata"]["annotations"]
    return {k.removeprefix(prefix): v for k, v in given.items() if k.startswith(prefix)}


def refused(text: str) -> list[str]:
    with pytest.raises(errors.ManifestError) as caught:
        compiler.compile_text(text)
    return [f"{p.path}: {p.message}" for p in caught.value.problems if p.level == "error"]


@pytest.mark.parametrize("version", ["v1", "v1alpha2", "v1alpha3"])
def test_all_versions_are_one(version: str) -> None:
    text = manifest({"graph": server()})
    assert compiled(text.replace("io/v1", f"io/{version}")) == compiled(text)


@pytest.mark.parametrize(
    "case",
    [
        manifest({"graph": server()}),
        manifest({"graph": server("TENSORFLOW_SERVER")}, protocol="tensorflow"),
        manifest({"graph": server("TRITON_SERVER")}, protocol="kfserving"),
        manifest(
            {"graph": {"name": "s", "implementation": "SIMPLE_MODEL"}},
            annotations={"seldon.io/rest-timeout": "250"},
        ),
    ],
)
def test_the_router_accepts_what_it_gets(case: str) -> None:
    graph = json.loads(env(compiled(case)["d"])["GRAPH_JSON"])
    assert routing.check(graph, resolved=True) == []
    assert routing.is_seldon(graph)


def test_built_ins_make_no_service() -> None:
    assert set(compiled(manifest({"graph": {"name": "s", "implementation": "SIMPLE_MODEL"}}))) == {
        "d"
    }


def test_two_tensorflow_servers_serve_their_own_models() -> None:
    one = server("TENSORFLOW_SERVER", children=[{**server("TENSORFLOW_SERVER"), "name": "n"}])
    found = compiled(manifest({"graph": one}))
    args = {name: pod(found[name])["containers"][0]["args"] for name in ("d-p-m", "d-p-n")}
    assert args["d-p-m"][:2] == ["--model-name", "m"]
    assert args["d-p-n"][:2] == ["--model-name", "n"]


def test_sklearn_answers_probabilities_unless_told_otherwise() -> None:
    service = compiled(manifest({"graph": server()}))["d-p-m"]
    assert "method=predict_proba" in pod(service)["containers"][0]["args"]
    told = server(parameters=[{"name": "method", "value": "predict", "type": "STRING"}])
    service = compiled(manifest({"graph": told}))["d-p-m"]
    assert "--param" not in pod(service)["containers"][0]["args"]
    assert '"predict"' in env(service)["PREDICTIVE_UNIT_PARAMETERS"]


def test_booleans_are_spelled_alike_everywhere() -> None:
    unit = server(parameters=[{"name": "x", "value": "Yes", "type": "BOOL"}])
    service = compiled(manifest({"graph": unit}))["d-p-m"]
    assert json.loads(env(service)["PREDICTIVE_UNIT_PARAMETERS"])[0]["value"] == "true"


def test_the_secret_reaches_whoever_fetches() -> None:
    text = manifest({"graph": server(envSecretRefName="keys")})
    secret = [{"secretRef": {"name": "keys"}}]
    assert pod(compiled(text)["d-p-m"])["initContainers"][0]["envFrom"] == secret
    stock = compiled(text, profile=options.Profile.STOCK)["d-p-m"]
    assert "initContainers" not in pod(stock)
    assert pod(stock)["containers"][0]["envFrom"] == secret


@pytest.mark.parametrize(
    ("predictor", "spec", "expected"),
    [
        ({}, {}, {"min-scale": "0"}),
        ({}, {"replicas": 2}, {"min-scale": "2", "max-scale": "2"}),
        ({"replicas": 3}, {"replicas": 2}, {"min-scale": "3", "max-scale": "3"}),
        ({"replicas": 0}, {}, {"min-scale": "0"}),
        (
            {"replicas": 3},
            {"annotations": {"autoscaling.knative.dev/min-scale": "0"}},
            {"min-scale": "0", "max-scale": "3"},
        ),
        (
            {"replicas": 3, "componentSpecs": [{"replicas": 1}]},
            {},
            {"min-scale": "1", "max-scale": "1"},
        ),
        (
            {"componentSpecs": [{"hpaSpec": {"maxReplicas": 4}, "replicas": 1}]},
            {},
            {"min-scale": "0", "max-scale": "4"},
        ),
    ],
)
def test_replicas_by_the_innermost_level(
    predictor: Object, spec: Object, expected: dict[str, str]
) -> None:
    assert scale(compiled(manifest({"graph": server(), **predictor}, **spec))["d-p-m"]) == expected


def test_a_long_time_limit_lifts_knatives() -> None:
    annotations = {"seldon.io/rest-timeout": "450500"}
    found = compiled(manifest({"graph": server()}, annotations=annotations))
    assert {pod(service)["timeoutSeconds"] for service in found.values()} == {451}


def test_engine_annotations_are_the_routers_environment() -> None:
    orchestrator = {"env": [{"name": "SELDON_LOG_LEVEL", "value": "WARN"}]}
    annotations = {"seldon.io/engine-seldon-log-level": "DEBUG", "seldon.io/engine-a-b": "c"}
    found = env(
        compiled(
            manifest({"graph": server(), "svcOrchSpec": orchestrator}, annotations=annotations)
        )["d"]
    )
    assert (found["SELDON_LOG_LEVEL"], found["A_B"]) == ("WARN", "c")


def test_a_user_class_runs_on_our_server() -> None:
    own = {"name": "m", "command": ["python", "-m", "functions"], "args": ["--model-class", "a:B"]}
    found = compiled(
        manifest(
            {
                "graph": {"name": "m", "type": "MODEL"},
                "componentSpecs": [{"spec": {"containers": [own]}}],
            }
        )
    )["d-p-m"]
    container = pod(found)["containers"][0]
    assert container["image"].endswith("/functions:0.1.0")
    assert container["args"][2:] == ["--model-name", "m", "--protocol", "seldon"]
    assert found["metadata"]["labels"]["turnout.dev/unit"] == "functions"


@pytest.mark.parametrize("depth", [200, 3000])
def test_deep_graphs_are_refused_in_words(depth: int) -> None:
    graph: Object = {"name": "leaf", "implementation": "SIMPLE_MODEL"}
    text = json.dumps(graph)
    for index in range(depth):
        text = f'{{"name": "n{index}", "implementation": "SIMPLE_ROUTER", "children": [{text}]}}'
    found = manifest({"graph": {}}).replace('"graph": {}', f'"graph": {text}')
    assert refused(found)


@pytest.mark.parametrize(
    ("predictor", "spec", "path"),
    [
        ({"graph": server(modelUri="")}, {}, "spec.predictors[0].graph"),
        ({"graph": server("MLFLOW_SERVER")}, {"protocol": "tensorflow"}, ".implementation"),
        ({"graph": server("TRITON_SERVER")}, {}, ".implementation"),
        ({"graph": server("MY_SERVER")}, {}, ".implementation"),
        ({"graph": server(), "traffic": 40}, {}, ".traffic"),
        ({"graph": server(), "shadow": True}, {}, "spec.predictors"),
        ({"graph": server(logger={"url": "http://x"})}, {}, ".logger"),
        ({"graph": server()}, {"serverType": "kafka"}, "spec.serverType"),
        ({"graph": server(), "explainer": {"type": "ALE"}}, {}, ".explainer.type"),
    ],
)
def test_refused(predictor: Object, spec: Object, path: str) -> None:
    assert any(path in line.split(": ")[0] for line in refused(manifest(predictor, **spec)))


def test_an_empty_explainer_is_none() -> None:
    assert compiled(manifest({"graph": server(), "explainer": {"type": ""}}))


def test_nodes_whose_services_would_share_a_name() -> None:
    shares = [
        {"name": "a", "traffic": 50, "graph": {**server(), "name": "b-c"}},
        {"name": "a-b", "traffic": 50, "graph": {**server(), "name": "c"}},
    ]
    text = json.loads(manifest({"graph": server()}))
    text["spec"]["predictors"] = shares
    (line,) = refused(json.dumps(text))
    assert line.startswith("spec.predictors[1].graph.name: its Service would be d-a-b-c")


def test_a_single_node_may_do_without_its_router() -> None:
    wanted = {"seldon.io/no-engine": "true"}
    found = compiled(manifest({"graph": server(), "annotations": wanted}))
    assert set(found) == {"d"}
    assert [c["name"] for c in pod(found["d"])["containers"]] == ["m"]
    assert "networking.knative.dev/visibility" not in found["d"]["metadata"]["labels"]
    unwanted = {"seldon.io/no-engine": "false"}
    assert set(compiled(manifest({"graph": server(), "annotations": unwanted}))) == {"d", "d-p-m"}
    translated = manifest({"graph": server("TENSORFLOW_SERVER"), "annotations": wanted})
    assert set(compiled(translated)) == {"d", "d-p-m"}


def test_hugging_face_models_speak_seldon_here_only() -> None:
    text = manifest({"graph": server("HUGGINGFACE_SERVER")})
    args = pod(compiled(text)["d-p-m"])["containers"][0]["args"]
    assert args[args.index("--protocol") + 1] == "seldon"
    stock = manifest(
        {"graph": server("HUGGINGFACE_SERVER")}, annotations={"turnout.dev/runtime": "stock"}
    )
    assert any("speaks v2 only" in line for line in refused(stock))
