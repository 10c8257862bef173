"""The second Service of a graph's router, `NAME-grpc`: who gets one, and what it may not do."""

import json
from typing import Any

import pytest

from knative import compiler, emit, errors, keys, names, options
from knative.translate import seldon

Object = dict[str, Any]
ASKED = {keys.GRPC: "true"}
STEP = {"serviceUrl": "http://example.com/v2/models/m/infer"}


def graph(annotations: Object, *, name: str = "pets", steps: int = 1, **labels: str) -> str:
    return json.dumps(
        {
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "InferenceGraph",
            "metadata": {"name": name, "annotations": annotations, "labels": labels},
            "spec": {"nodes": {"root": {"routerType": "Ensemble", "steps": [STEP] * steps}}},
        }
    )


def deployment(asked: Object, /, *predictors: str, **spec: Any) -> str:
    unit = {"name": "m", "implementation": "SKLEARN_SERVER", "modelUri": "s3://models/m"}
    return json.dumps(
        {
            "apiVersion": "machinelearning.seldon.io/v1",
            "kind": "SeldonDeployment",
            "metadata": {"name": "d", "annotations": asked},
            "spec": {
                "predictors": [
                    {"name": name, "traffic": 100 // len(predictors), "graph": unit}
                    for name in predictors
                ],
                **spec,
            },
        }
    )


def compiled(text: str) -> dict[str, Object]:
    return {o["metadata"]["name"]: o for o in compiler.compile_text(text).objects}


def refused(text: str, **choices: Any) -> str:
    with pytest.raises(errors.ManifestError) as caught:
        compiler.compile_text(text, options.CompileOptions(**choices))
    return "\n".join(f"{p.path}: {p.message}" for p in caught.value.problems)


def warnings(text: str) -> str:
    found = compiler.compile_text(text).problems
    return "\n".join(p.message for p in found if p.level == "warning")


def test_it_differs_in_name_port_probe_and_one_variable() -> None:
    made = compiled(graph(ASKED))
    plain, grpc = made["pets"], made["pets-grpc"]
    assert "name" not in container(plain)["ports"][0]
    assert container(grpc)["ports"] == [{"containerPort": 8080, "name": "h2c"}]
    assert container(grpc)["readinessProbe"] == {"grpc": {"port": 8080}}
    assert {"name": "GRPC_PORT", "value": "8080"} in container(grpc)["env"]
    container(grpc)["env"].pop()
    for field in ("ports", "readinessProbe"):
        container(grpc)[field] = container(plain)[field]
    grpc["metadata"]["name"] = "pets"
    assert grpc == plain
    assert keys.GRPC not in emit.to_yaml([plain])


def container(service: Object) -> Object:
    found: Object = service["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize("annotations", [{}, {keys.GRPC: "false"}])
def test_nobody_else_gets_one(annotations: Object) -> None:
    assert list(compiled(graph(annotations))) == ["pets"]
    assert "d-grpc" not in compiled(deployment(annotations, "p"))


def test_a_large_graph_has_one_config_map_for_both() -> None:
    objects = compiler.compile_text(graph(ASKED, steps=3000)).objects
    assert [o["kind"] for o in objects] == ["ConfigMap", "Service", "Service"]
    for service in objects[1:]:
        volumes = service["spec"]["template"]["spec"]["volumes"]
        assert volumes[0]["configMap"] == {"name": objects[0]["metadata"]["name"]}


@pytest.mark.parametrize(
    ("annotations", "spec", "expected"),
    [
        (ASKED, {}, True),
        ({}, {"transport": "grpc"}, True),
        ({}, {"transport": "rest"}, False),
        ({keys.GRPC: "false"}, {"transport": "grpc"}, False),
        ({keys.GRPC: "false"}, {"annotations": ASKED}, True),
    ],
)
def test_a_seldon_deployment_asks_by_transport_or_annotation(
    annotations: Object, spec: Object, expected: bool
) -> None:
    for predictors in (("p",), ("p", "q")):
        made = compiled(deployment(annotations, *predictors, **spec))
        assert ("d-grpc" in made) is expected


def test_the_operators_environment_does_not_move_the_port() -> None:
    given = json.loads(deployment(ASKED, "p"))
    own = [{"name": "GRPC_PORT", "value": "5000"}]
    given["spec"]["predictors"][0]["svcOrchSpec"] = {"env": own}
    made = compiled(json.dumps(given))
    assert container(made["d"])["env"][-1] == own[0]
    assert container(made["d-grpc"])["env"][-1] == {"name": "GRPC_PORT", "value": "8080"}


def test_where_it_does_not_fit_it_is_left_out_with_a_word() -> None:
    together = deployment({**ASKED, keys.COLLOCATE: "true"}, "p")
    assert "d-grpc" not in compiled(together)
    assert "d-grpc is left out" in warnings(together)
    tensors = deployment({**ASKED, keys.COLLOCATE: "true"}, "p", "q", protocol="tensorflow")
    tensors = tensors.replace("SKLEARN_SERVER", "TENSORFLOW_SERVER")
    assert "d-grpc" not in compiled(tensors)
    assert "d-grpc is left out" in warnings(tensors)
    alone = deployment({**ASKED, "seldon.io/no-engine": "true"}, "p")
    assert list(compiled(alone)) == ["d"]
    assert "leaves out the router" in warnings(alone)
    model = (
        graph(ASKED).replace("InferenceGraph", "InferenceService").replace("v1alpha1", "v1beta1")
    )
    asked = json.loads(model)
    asked["spec"] = {"predictor": {"sklearn": {"storageUri": "s3://models/m"}}}
    assert "it is for graphs" in warnings(json.dumps(asked))


def test_clashes_are_refused() -> None:
    both = f"{graph(ASKED)}\n---\n{graph({}, name='pets-grpc')}"
    assert "Service pets-grpc is already made from InferenceGraph pets" in refused(both)
    named = deployment({**ASKED, keys.COLLOCATE: "true"}, "p", "grpc")
    assert "spec.predictors[1].name: its Service would be d-grpc" in refused(named)


@pytest.mark.parametrize("text", [graph(ASKED), deployment(ASKED, "p")])
def test_it_is_an_extension(text: str) -> None:
    path = "metadata.annotations[turnout.dev/grpc]"
    assert f"{path}: turnout.dev/grpc is an extension of Turnout" in refused(text, strict=True)
    bad = text.replace('"true"', '"yes"')
    assert refused(bad) == f'{path}: must be "true" or "false", not "yes"'


def test_seldons_own_word_is_no_extension() -> None:
    text = deployment({}, "p", transport="grpc")
    made = compiler.compile_text(text, options.CompileOptions(strict=True)).objects
    assert "d-grpc" in {o["metadata"]["name"] for o in made}


def test_a_long_name_stays_a_label() -> None:
    name = names.graph_grpc("x" * 63)
    assert len(name) == 63
    assert name != names.graph_grpc("x" * 62 + "y")


def test_a_conversion_says_that_it_is_left_out() -> None:
    (resource,) = compiler.compile_text(deployment(ASKED, "p")).resources
    converted = seldon.convert(resource)
    assert keys.GRPC not in emit.to_yaml(converted.objects)
    assert any(keys.GRPC in problem.message for problem in converted.problems)
