"""Whole predictors in one pod: names, ports, what is refused and what is left out."""

import json
from typing import Any

import pytest

from knative import compiler, keys, options
from tests.unit.knative.test_seldon import Object, compiled, manifest, pod, refused, server

TOGETHER = {keys.COLLOCATE: "true"}


def containers(text: str, name: str = "d", **choices: Any) -> dict[str, Object]:
    return {c["name"]: c for c in pod(compiled(text, **choices)[name])["containers"]}


def user(name: str, **fields: Any) -> Object:
    return {"name": name, "image": f"img/{name}:1", **fields}


def chain(*names: str) -> Object:
    first, *rest = names
    unit: Object = {"name": first, "type": "MODEL"}
    return {**unit, "children": [chain(*rest)]} if rest else unit


def env(container: Object) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container["env"]}


def test_only_the_router_has_a_port() -> None:
    text = manifest(
        {
            "graph": chain("a", "b"),
            "componentSpecs": [{"spec": {"containers": [user("a"), user("b")]}}],
        },
        annotations=TOGETHER,
    )
    assert set(compiled(text)) == {"d"}
    found = containers(text)
    assert set(found) == {"seldon-container-engine", "a", "b"}
    assert [name for name, c in found.items() if c.get("ports")] == ["seldon-container-engine"]
    assert [name for name, c in found.items() if c.get("readinessProbe")] == [
        "seldon-container-engine"
    ]
    ports = [env(found[name])["PREDICTIVE_UNIT_HTTP_SERVICE_PORT"] for name in "ab"]
    assert ports == ["9000", "9001"]
    assert env(found["b"])["PREDICTIVE_UNIT_GRPC_SERVICE_PORT"] == "9501"
    assert env(found["b"])["PREDICTIVE_UNIT_METRICS_SERVICE_PORT"] == "6001"
    declared = compiled(text)["d"]["spec"]["template"]["metadata"]["annotations"][keys.POD_PORTS]
    assert declared == "9000,9500,6000,9001,9501,6001"


def test_a_port_that_a_container_declares_is_its_own() -> None:
    first = user("a", ports=[{"name": "http", "containerPort": 9001}])
    text = manifest(
        {
            "graph": chain("a", "b", "c"),
            "componentSpecs": [{"spec": {"containers": [first, user("b"), user("c")]}}],
        },
        annotations=TOGETHER,
    )
    found = containers(text)
    ports = [env(found[name])["PREDICTIVE_UNIT_HTTP_SERVICE_PORT"] for name in "abc"]
    assert ports == ["9001", "9000", "9002"]


@pytest.mark.parametrize("profile", ["init", "stock"])
def test_every_node_has_its_own_model_directory(profile: str) -> None:
    graph = {**server("SKLEARN_SERVER"), "children": [{**server("XGBOOST_SERVER"), "name": "n"}]}
    text = manifest({"graph": graph}, annotations=TOGETHER)
    choices = {"profile": options.Profile(profile)}
    found = containers(text, **choices)
    volumes = {
        name: next(
            m["name"] for m in found[name]["volumeMounts"] if m["mountPath"] == "/mnt/models"
        )
        for name in "mn"
    }
    assert len(set(volumes.values())) == 2
    body = pod(compiled(text, **choices)["d"])
    assert set(volumes.values()) <= {volume["name"] for volume in body["volumes"]}
    fetchers = [c["name"] for c in body.get("initContainers", [])]
    wanted = ["m-model-initializer", "n-model-initializer"] if profile == "init" else []
    assert fetchers == wanted


def test_stock_containers_listen_where_the_router_calls() -> None:
    annotations = {**TOGETHER, keys.RUNTIME: "stock"}
    text = manifest({"graph": server("TRITON_SERVER")}, annotations=annotations, protocol="v2")
    found = containers(text)
    graph = json.loads(env(found["seldon-container-engine"])["GRAPH_JSON"])
    root = graph["predictors"][0]["graph"]
    assert root["serviceUrl"] == "http://localhost:9000"
    assert root["health"] == "/v2/health/ready"
    assert "--http-port=9000" in found["m"]["args"]


def test_what_is_refused() -> None:
    text = manifest({"graph": server()}, annotations={keys.COLLOCATE: "yes"})
    assert refused(text) == [
        'metadata.annotations[turnout.dev/collocate]: must be "true" or "false", not "yes"'
    ]
    text = manifest(
        {"graph": server()}, annotations={**TOGETHER, "seldon.io/engine-separate-pod": "true"}
    )
    assert any("contradicts" in line for line in refused(text))
    graph = {
        **server(serviceAccountName="one"),
        "children": [{**server(serviceAccountName="two"), "name": "n"}],
    }
    text = manifest({"graph": graph}, annotations=TOGETHER)
    assert any("one pod has one account" in line for line in refused(text))


def test_probes_of_inner_containers_are_the_routers_or_left_out_with_a_word() -> None:
    probe = {"httpGet": {"path": "/up", "port": "http"}}
    inner = user("a", readinessProbe=probe, livenessProbe=probe)
    text = manifest(
        {"graph": chain("a"), "componentSpecs": [{"spec": {"containers": [inner]}}]},
        annotations=TOGETHER,
    )
    result = compiler.compile_text(text)
    (warning,) = (p for p in result.problems if p.level == "warning")
    assert "livenessProbe" in str(warning.path)
    graph = json.loads(env(containers(text)["seldon-container-engine"])["GRAPH_JSON"])
    assert graph["predictors"][0]["graph"]["health"] == "/up"


def test_strict_refuses_the_layout() -> None:
    text = manifest({"graph": server()}, annotations=TOGETHER)
    with pytest.raises(Exception, match="collocate"):
        compiler.compile_text(text, options.CompileOptions(strict=True))
