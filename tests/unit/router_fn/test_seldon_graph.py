"""The grammar of Seldon graphs: what is refused, and with which words; URLs and messages."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_fn.errors import GraphError
from router_fn.seldon import builtins, graph, messages
from router_fn.seldon.messages import SeldonError
from router_fn.seldon.paths import Paths, Wanted

MODEL = {"name": "m", "serviceUrl": "http://m"}


def deployment(root: Any = MODEL, **fields: Any) -> dict[str, Any]:
    predictors = [{"name": "p", "graph": root}]
    return {"kind": graph.KIND, "name": "d", "predictors": predictors, **fields}


def problems(spec: Any, **options: bool) -> str:
    return "\n".join(f"{path}: {text}" for _, path, text in graph.check(spec, **options))


def test_a_plain_deployment_is_fine() -> None:
    spec = deployment()
    assert graph.is_seldon(spec)
    assert problems(spec) == ""
    parsed = graph.parse(spec)
    assert parsed.protocol == "seldon"
    assert parsed.namespace == "default"
    assert parsed.predictors[0].root.methods == {"PREDICT", "SEND_FEEDBACK"}
    assert parsed.predictors[0].traffic == 100


@pytest.mark.parametrize(
    ("unit", "methods"),
    [
        ({}, {"PREDICT", "SEND_FEEDBACK"}),
        ({"type": "TRANSFORMER"}, {"TRANSFORM_INPUT"}),
        ({"type": "OUTPUT_TRANSFORMER"}, {"TRANSFORM_OUTPUT"}),
        ({"type": "ROUTER", "children": [MODEL]}, {"ROUTE", "SEND_FEEDBACK"}),
        ({"type": "COMBINER", "children": [MODEL]}, {"AGGREGATE"}),
        (
            {"type": "MODEL", "methods": ["TRANSFORM_OUTPUT"]},
            {"PREDICT", "SEND_FEEDBACK", "TRANSFORM_OUTPUT"},
        ),
        ({"methods": ["TRANSFORM_INPUT"]}, {"TRANSFORM_INPUT"}),
        ({"implementation": "SKLEARN_SERVER", "type": "ROUTER"}, {"PREDICT", "SEND_FEEDBACK"}),
        ({"implementation": "UNKNOWN_IMPLEMENTATION"}, {"PREDICT", "SEND_FEEDBACK"}),
        ({"implementation": "SIMPLE_MODEL"}, {"PREDICT"}),
    ],
)
def test_what_a_unit_does(unit: dict[str, Any], methods: set[str]) -> None:
    parsed = graph.parse(deployment({"name": "u", "serviceUrl": "http://u", **unit}))
    assert parsed.predictors[0].root.methods == methods


def test_an_endpoint_as_seldon_writes_it() -> None:
    unit = {"name": "m", "endpoint": {"service_host": "localhost", "httpPort": 9001}}
    assert graph.parse(deployment(unit)).predictors[0].root.service_url == "http://localhost:9001"


def test_parameters_by_type() -> None:
    given = [("i", "INT", "3"), ("f", "DOUBLE", "0.5"), ("b", "BOOL", "True"), ("s", "STRING", "x")]
    raw = [{"name": name, "type": kind, "value": value} for name, kind, value in given]
    parsed = graph.parse(deployment({**MODEL, "parameters": raw}))
    assert parsed.predictors[0].root.parameters == {"i": 3, "f": 0.5, "b": True, "s": "x"}


AB = {"name": "r", "implementation": "RANDOM_ABTEST"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ([], "must be an object"),
        (deployment(protocol="soap"), "protocol: is 'soap'"),
        (deployment(name=""), "name: is missing"),
        (deployment(timeoutMs=-1), "timeoutMs"),
        (deployment(predictors=[]), "at least one predictor"),
        (deployment(predictors=[{"name": "p"}]), "predictors[0].graph: is missing"),
        (deployment(typo=1), "typo: is not a known field"),
        (deployment({"serviceUrl": "http://m"}), "graph.name: is missing"),
        (deployment({"name": "m"}), "has no serviceUrl"),
        (deployment({"name": "m", "serviceUrl": "ftp://m"}), "must start with http"),
        (deployment({**MODEL, "type": "PREDICTOR"}), "must be one of MODEL"),
        (deployment({**MODEL, "methods": ["PREDICT"]}), "'PREDICT' is none of"),
        (deployment({**MODEL, "methods": [1]}), "1 is none of"),
        (deployment({**MODEL, "type": "UNKNOWN_TYPE"}), "would do nothing"),
        (deployment({**MODEL, "health": "up"}), "a path, tcp or grpc"),
        ({**deployment(MODEL), "logQueueSize": 0}, "at least 1"),
        (
            {**deployment(MODEL), "predictors": [{"name": "p", "graph": MODEL, "shadow": "yes"}]},
            "true or false",
        ),
        (deployment({**MODEL, "type": "COMBINER"}), "combiner without children"),
        (deployment({**MODEL, "type": "ROUTER"}), "router without children"),
        (deployment({**MODEL, "children": [MODEL]}), "two nodes called 'm'"),
        (deployment({**AB, "children": [MODEL]}), "exactly two children"),
        (deployment({**MODEL, "childs": []}), "childs: is not a known field"),
        (deployment({**MODEL, "children": {}}), "children: must be a list"),
        (deployment({**MODEL, "serverProtocol": "x"}), "serverProtocol"),
        (
            deployment({**MODEL, "parameters": [{"name": "n", "type": "INT", "value": "x"}]}),
            'the value "x" is no INT',
        ),
        (
            deployment(
                {
                    **AB,
                    "children": [MODEL, {**MODEL, "name": "n"}],
                    "parameters": [{"name": "ratioA", "value": "2", "type": "FLOAT"}],
                }
            ),
            "ratioA",
        ),
        (
            deployment(predictors=[{"name": n, "graph": MODEL, "traffic": 60} for n in "ab"]),
            "sum of traffic is 120",
        ),
        (
            deployment(predictors=[{"name": "a", "graph": MODEL, "traffic": 50}] * 2),
            "two predictors called 'a'",
        ),
        (
            deployment(predictors=[{"name": "a", "graph": MODEL, "shadow": True}]),
            "no shadow",
        ),
    ],
)
def test_what_is_refused(spec: Any, words: str) -> None:
    assert words in problems(spec)
    with pytest.raises(GraphError):
        graph.parse(spec)


def test_all_problems_come_together() -> None:
    text = problems(deployment({"type": "X", "children": [{"name": "c"}]}, protocol="y", name=""))
    assert len(text.splitlines()) >= 5


def test_before_services_are_known_urls_may_be_missing() -> None:
    assert problems(deployment({"name": "m"}), resolved=False) == ""


def test_nesting_is_bounded() -> None:
    root: dict[str, Any] = MODEL
    for number in range(200):
        root = {**MODEL, "name": f"m{number}", "children": [root]}
    assert "nested more than" in problems(deployment(root))


# --- URLs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "method", "path", "found"),
    [
        ("seldon", "POST", "/api/v1.0/predictions", Wanted("predict")),
        ("seldon", "POST", "/api/v0.1/predictions", Wanted("predict")),
        ("seldon", "POST", "/seldon/ns/d/api/v1.0/predictions", Wanted("predict")),
        ("seldon", "POST", "/seldon/d/api/v1.0/predictions", Wanted("predict")),
        ("seldon", "POST", "/seldon/ns/other/api/v1.0/predictions", 404),
        ("seldon", "GET", "/api/v1.0/predictions", 405),
        ("seldon", "OPTIONS", "/api/v1.0/predictions", Wanted("options")),
        ("seldon", "POST", "/api/v1.0/feedback", Wanted("feedback")),
        ("seldon", "GET", "/api/v1.0/health/status", Wanted("ready")),
        ("seldon", "GET", "/api/v1.0/status/n", Wanted("node_status", "n")),
        ("seldon", "GET", "/api/v0.1/metadata/n", Wanted("node_metadata", "n")),
        ("seldon", "GET", "/api/v1.0/metadata", Wanted("graph_metadata")),
        ("seldon", "GET", "/api/v1.0/doc/seldon.json", Wanted("openapi")),
        ("seldon", "GET", "/seldon/ns/d/api/v1.0/doc/", Wanted("doc")),
        ("seldon", "POST", "/v1/models/m:predict", 404),
        ("tensorflow", "POST", "/v1/models/m:predict", Wanted("predict", "m")),
        ("tensorflow", "POST", "/v1/models/m/:predict", Wanted("predict", "m")),
        ("tensorflow", "POST", "/v1/models:predict", Wanted("predict")),
        ("tensorflow", "POST", "/v1/models/:predict", Wanted("predict")),
        ("tensorflow", "GET", "/v1/models/m/metadata", Wanted("node_metadata", "m")),
        ("v2", "POST", "/v2/models/m/infer", Wanted("predict", "m")),
        ("v2", "POST", "/v2/models/infer", Wanted("predict")),
        ("v2", "GET", "/v2/models/m/ready", Wanted("node_status", "m")),
        ("v2", "GET", "/v2/health/ready", Wanted("ready")),
        ("v2", "GET", "/readyz", Wanted("ready")),
        ("v2", "HEAD", "/live", Wanted("live")),
        ("v2", "GET", "/", 404),
    ],
)
def test_paths(protocol: str, method: str, path: str, found: Wanted | int) -> None:
    parsed = graph.parse(deployment(protocol=protocol, namespace="ns"))
    assert Paths(parsed).find(method, path) == found


# --- messages ------------------------------------------------------------------------------------


def test_meta_is_added_and_the_rest_kept_as_it_is() -> None:
    body = b'{ "data": {"ndarray": [1.50, 12345678901234567890]}, "meta": {"puid": "p"} }'
    assert messages.with_meta(body, {"r": 1}, {"m": "img:1"}) == (
        b'{"data":{"ndarray": [1.50, 12345678901234567890]},'
        b'"meta":{"puid":"p","routing":{"r":1},"requestPath":{"m":"img:1"}}}'
    )


def test_a_nodes_own_request_path_is_kept_and_routes_are_replaced() -> None:
    body = json.dumps({"meta": {"requestPath": {"m": "own"}, "routing": {"r": 0, "q": 2}}}).encode()
    meta = json.loads(messages.with_meta(body, {"r": 1}, {"m": "img", "n": "two"}))["meta"]
    assert meta == {"requestPath": {"m": "own", "n": "two"}, "routing": {"r": 1, "q": 2}}


@pytest.mark.parametrize("body", [b"text", b"[1]", b"", b"null"])
def test_what_is_no_message_is_left_alone(body: bytes) -> None:
    assert messages.with_meta(body, {"r": 1}, {}) == body


def test_the_error_body_carries_the_status() -> None:
    assert json.loads(messages.failure(504, "late")) == {
        "status": {"code": 504, "info": "late", "status": "FAILURE"}
    }


TEXTS = st.binary(max_size=60) | st.text(alphabet='{}[]":,datnrymelops0129-.e ', max_size=60).map(
    str.encode
)


@settings(deadline=None)
@given(TEXTS | st.sampled_from([b"[" * 9000, b'{"response":{"meta":' + b"[" * 9000]))
def test_no_text_makes_a_reader_raise(text: bytes) -> None:
    messages.members(text)
    messages.with_meta(text, {"r": 1}, {"m": "i"})
    assert isinstance(messages.nodes_of_feedback(text), set)
    route = messages.chosen_route(text, "r")
    assert route is None or isinstance(route, int)
    with contextlib.suppress(ValueError):
        assert isinstance(messages.route_of(text), int)
    for convert in (messages.tensorflow_request, messages.v2_request):
        with contextlib.suppress(ValueError):
            convert(text)
    for body in (text, b'{"data":' + text + b"}"):
        with contextlib.suppress(SeldonError):
            builtins.average([body, body])
        with contextlib.suppress(SeldonError):
            builtins.simple_model(body)
