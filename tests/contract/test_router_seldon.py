"""Seldon graphs over HTTP: URLs, headers, errors, feedback, several predictors, drain."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes_router import (
    Conversation,
    FakeUpstream,
    RouterProcess,
    router,
    says,
    upstream,
    wait_until,
)

MESSAGE = b'{"data":{"ndarray":[[1,2]]}}'


def deployment(*predictors: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "kind": "SeldonDeployment",
        "name": "pets",
        "namespace": "zoo",
        "predictors": list(predictors),
        **fields,
    }


def predictor(root: dict[str, Any], name: str = "main", **fields: Any) -> dict[str, Any]:
    return {"name": name, "graph": root, **fields}


def names_itself(talk: Conversation) -> None:
    """What a node was asked, as a SeldonMessage."""
    text = json.dumps({"strData": talk.seen.path, "meta": {"tags": {"seen": True}}})
    talk.answer(text.encode(), Content_Type="application/json")


@pytest.fixture(scope="module")
def graph() -> Iterator[tuple[RouterProcess, FakeUpstream]]:
    routes = {
        "/r/route": says(b'{"data":{"ndarray":[[1]]}}', Content_Type="application/json"),
        "/teapot/predict": says(
            b'{"status":{"code":418,"info":"tea"}}', 418, Content_Type="application/json"
        ),
        "/a/metadata": says(b'{"name":"a","inputs":[{"name":"x"}],"outputs":[{"name":"y"}]}'),
    }
    with upstream(routes, names_itself) as fake:

        def at(name: str, **fields: Any) -> dict[str, Any]:
            return {"name": name, "serviceUrl": f"{fake.url}/{name}", **fields}

        tree = at(
            "r",
            type="ROUTER",
            children=[
                at("teapot"),
                at("c", type="COMBINER", image="img/c:1", children=[at("a"), at("b")]),
            ],
        )
        with router(deployment(predictor(tree))) as process:
            yield process, fake


def test_a_prediction_goes_through_the_graph(graph: tuple[RouterProcess, FakeUpstream]) -> None:
    process, fake = graph
    fake.seen.clear()
    answer = process.request(
        "POST",
        "/api/v1.0/predictions",
        MESSAGE,
        Content_Type="application/json",
        Seldon_Puid="p-1",
        X_Team="cats",
        Authorization="Bearer T",
    )
    assert answer.status == 200
    assert answer.json == {
        "strData": "/c/aggregate",
        "meta": {
            "tags": {"seen": True},
            "routing": {"r": 1, "c": -1, "a": -1, "b": -1},
            "requestPath": {"c": "img/c:1"},
        },
    }
    assert answer.headers["seldon-puid"] == "p-1"
    assert json.loads(answer.headers["seldon-routing"])["r"] == 1
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert sorted(fake.paths()) == ["/a/predict", "/b/predict", "/c/aggregate", "/r/route"]
    for seen in fake.seen:
        assert seen.headers["seldon-puid"] == "p-1"
        assert seen.headers["x-team"] == "cats"
        assert seen.headers["authorization"] == "Bearer T"
        assert seen.headers["content-type"] == "application/json"
        assert "host" in seen.headers
    assert fake.seen[0].body == MESSAGE


def test_a_puid_is_made_when_the_client_sent_none(
    graph: tuple[RouterProcess, FakeUpstream],
) -> None:
    process, fake = graph
    fake.seen.clear()
    first, second = (
        process.request("POST", "/seldon/zoo/pets/api/v0.1/predictions", MESSAGE) for _ in "ab"
    )
    assert len(first.headers["seldon-puid"]) == 32
    assert first.headers["seldon-puid"] != second.headers["seldon-puid"]
    assert {seen.headers["seldon-puid"] for seen in fake.seen} == {
        first.headers["seldon-puid"],
        second.headers["seldon-puid"],
    }


def test_a_cloudevent_gets_a_cloudevent_back(graph: tuple[RouterProcess, FakeUpstream]) -> None:
    process, _ = graph
    answer = process.request(
        "POST", "/api/v1.0/predictions", MESSAGE, Ce_Specversion="1.0", Ce_Id="x", Seldon_Puid="p"
    )
    assert answer.headers["ce-specversion"] == "1.0"
    assert answer.headers["ce-id"] == "p"
    assert answer.headers["ce-source"] == "seldon.pets"
    assert answer.headers["ce-type"] == "seldon.pets.zoo.response"
    assert answer.headers["ce-path"] == "/api/v1.0/predictions"


def test_feedback_follows_the_route(graph: tuple[RouterProcess, FakeUpstream]) -> None:
    process, fake = graph
    fake.seen.clear()
    body = b'{"reward":1,"response":{"meta":{"routing":{"r":0}}}}'
    answer = process.request("POST", "/api/v1.0/feedback", body)
    assert answer.json["strData"] == "/r/send-feedback"
    assert fake.paths() == ["/teapot/send-feedback", "/r/send-feedback"]
    assert all(seen.body == body for seen in fake.seen)
    assert process.request("POST", "/api/v1.0/feedback", b"text").status == 400


def test_metadata_health_and_documents(graph: tuple[RouterProcess, FakeUpstream]) -> None:
    process, _ = graph
    metadata = process.request("GET", "/api/v1.0/metadata").json
    assert metadata["name"] == "main"
    assert set(metadata["models"]) == {"r", "teapot", "c", "a", "b"}
    assert metadata["models"]["a"]["outputs"] == [{"name": "y"}]
    assert process.request("GET", "/api/v1.0/status/a").json["strData"] == "/a/health/status"
    assert process.request("GET", "/api/v1.0/metadata/a").json["name"] == "a"
    assert process.request("GET", "/api/v1.0/status/nobody").status == 404
    assert process.request("GET", "/api/v1.0/status").status == 200
    assert process.request("GET", "/ready").status == 200
    assert process.request("GET", "/live").status == 200
    document = process.request("GET", "/api/v1.0/doc/seldon.json").json
    assert "/api/v1.0/predictions" in document["paths"]
    numbers = process.request("GET", "/prometheus").body.decode()
    assert 'seldon_api_executor_server_requests_seconds_count{deployment_name="pets"' in numbers
    assert 'service="/a/health/status",method="get",code="200",model_name="a"' in numbers
    page = process.request("GET", "/api/v1.0/doc/")
    assert page.headers["content-type"].startswith("text/html")
    assert b"seldon.json" in page.body


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/predictt", 404),
        ("GET", "/api/v1.0/predictions", 405),
        ("POST", "/seldon/other/pets/api/v1.0/predictions", 404),
        ("OPTIONS", "/api/v1.0/predictions", 200),
    ],
)
def test_other_paths(
    graph: tuple[RouterProcess, FakeUpstream], method: str, path: str, status: int
) -> None:
    answer = graph[0].request(method, path)
    assert answer.status == status
    if status != 200:
        assert answer.headers["content-type"] == "application/json"
        assert answer.json["status"]["code"] == status


def test_errors_of_nodes_and_of_the_way_there() -> None:
    with upstream({"/bad/predict": says(b'{"status":{"info":"mine"}}', 418)}, names_itself) as fake:
        gone = "http://127.0.0.1:9"
        for root, status, info in (
            ({"name": "n", "serviceUrl": f"{fake.url}/bad"}, 418, "mine"),
            ({"name": "n", "serviceUrl": gone}, 500, "n: "),
            (
                {
                    "name": "n",
                    "serviceUrl": f"{fake.url}/x",
                    "children": [{"name": "m", "serviceUrl": gone}],
                },
                500,
                "m: ",
            ),
        ):
            with router(deployment(predictor(root))) as process:
                answer = process.request("POST", "/api/v1.0/predictions", MESSAGE)
                assert answer.status == status
                assert answer.json["status"]["info"].startswith(info)
                assert process.process.poll() is None


def test_a_node_that_takes_too_long_is_504() -> None:
    def never(talk: Conversation) -> None:
        talk.client_gone()

    with upstream({}, never) as fake:
        root = {"name": "n", "serviceUrl": fake.url}
        with router(deployment(predictor(root), timeoutMs=200)) as process:
            answer = process.request("POST", "/api/v1.0/predictions", MESSAGE)
            assert answer.status == 504
            assert "n: " in answer.json["status"]["info"]


def test_traffic_is_split_and_a_shadow_gets_copies() -> None:
    with upstream({}, names_itself) as fake:
        predictors = [
            predictor({"name": "m", "serviceUrl": f"{fake.url}/{name}"}, name, **fields)
            for name, fields in (
                ("one", {"traffic": 50}),
                ("two", {"traffic": 50}),
                ("dark", {"shadow": True}),
            )
        ]
        with router(deployment(*predictors)) as process:
            answers = {
                process.request("POST", "/api/v1.0/predictions", MESSAGE).json["strData"]
                for _ in range(60)
            }
            assert answers == {"/one/predict", "/two/predict"}
            wait_until(
                lambda: fake.paths().count("/dark/predict") == 60, "the shadow has all copies"
            )


def test_tensorflow_protocol_and_model_names() -> None:
    with upstream({}, says(b'{"predictions": [[1]]}', Content_Type="application/json")) as fake:
        root = {"name": "mnist", "serviceUrl": fake.url}
        with router(deployment(predictor(root), protocol="tensorflow")) as process:
            for path in (
                "/v1/models/mnist:predict",
                "/v1/models:predict",
                "/v1/models/pets:predict",
            ):
                answer = process.request("POST", path, b'{"instances": [1.50]}')
                assert answer.body == b'{"predictions": [[1]]}'
            assert {seen.path for seen in fake.seen} == {"/v1/models/mnist:predict"}
            assert fake.seen[0].body == b'{"instances": [1.50]}'
            assert process.request("POST", "/v1/models/other:predict", b"{}").status == 404
            assert process.request("POST", "/v1/models:predict", b"{}").status == 400


def test_a_tensorflow_server_behind_the_seldon_protocol() -> None:
    reply = says(b'{"predictions": [[0.1, 0.9]]}', Content_Type="application/json")
    with upstream({}, reply) as fake:
        root = {
            "name": "mnist",
            "implementation": "TENSORFLOW_SERVER",
            "serviceUrl": fake.url,
            "serverProtocol": "tensorflow",
        }
        with router(deployment(predictor(root))) as process:
            answer = process.request("POST", "/api/v1.0/predictions", MESSAGE)
            assert answer.json == {
                "data": {"names": ["t:0", "t:1"], "ndarray": [[0.1, 0.9]]},
                "meta": {},
            }
            assert fake.seen[0].json == {
                "instances": [[1, 2]],
                "signature_name": "serving_default",
            }
            assert (
                process.request("POST", "/api/v1.0/predictions", b'{"strData":"x"}').status == 400
            )


@pytest.mark.parametrize("body", [b"", b"text", b"[1]", b'{"data":', b"\xff\xfe", b"[" * 5000])
def test_malformed_messages_reach_the_node_which_decides(body: bytes) -> None:
    bad_data = says(b'{"status":{"info":"bad data"}}', 400)
    with (
        upstream({}, bad_data) as fake,
        router(deployment(predictor({"name": "n", "serviceUrl": fake.url}))) as process,
    ):
        assert process.request("POST", "/api/v1.0/predictions", body).status == 400
        assert fake.seen[-1].body == body


def test_a_graph_with_problems_is_refused_with_all_of_them() -> None:
    spec = deployment(predictor({"name": "r", "type": "ROUTER"}), protocol="soap")
    process = RouterProcess(spec)
    try:
        assert process.wait() == 2
        log = process.log()
        assert "soap" in log
        assert "router without children" in log
        assert "has no serviceUrl" in log
    finally:
        process.stop()


def test_check_and_drain() -> None:
    process = RouterProcess(
        deployment(predictor({"name": "n", "serviceUrl": "http://n"})), "--check"
    )
    try:
        assert process.wait() == 0
    finally:
        process.stop()
    with router(deployment(predictor({"name": "m", "implementation": "SIMPLE_MODEL"}))) as serving:
        assert serving.request("POST", "/api/v1.0/predictions", MESSAGE).status == 200
        assert serving.request("POST", "/api/v1.0/predictions", b"text").status == 400
        serving.process.terminate()
        assert serving.wait() == 0


def test_the_grpc_front_runs_the_same_graph() -> None:
    grpc = pytest.importorskip("grpc")
    from router_fn.seldon.protos import MESSAGES
    from tests.fakes_router import free_port

    port = free_port()
    routes = {
        "/n/predict": says(
            b'{"data":{"names":["t:0"],"tensor":{"shape":[1,1],"values":[2.5]}},"meta":{"puid":"p"}}',
            Content_Type="application/json",
        ),
        "/n/metadata": says(b'{"name":"n","versions":["1"],"inputs":[]}'),
        "/n/send-feedback": says(b'{"meta":{}}', Content_Type="application/json"),
    }
    with upstream(routes, says(b'{"status":{"info":"no"}}', 400)) as fake:
        root = {"name": "n", "serviceUrl": f"{fake.url}/n"}
        with (
            router(deployment(predictor(root)), GRPC_PORT=str(port)),
            grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):

            def call(method: str, request: Any, gives: str, **metadata: str) -> tuple[Any, Any]:
                rpc = channel.unary_unary(
                    f"/seldon.protos.Seldon/{method}",
                    request_serializer=lambda message: message.SerializeToString(),
                    response_deserializer=MESSAGES[gives].FromString,
                )
                return rpc.with_call(
                    request, metadata=tuple(metadata.items()), timeout=20, wait_for_ready=True
                )

            message = MESSAGES["SeldonMessage"]()
            message.data.tensor.shape.extend([1, 2])
            message.data.tensor.values.extend([1.0, 2.0])
            answer, told = call("Predict", message, "SeldonMessage", **{"seldon-puid": "mine"})
            assert list(answer.data.tensor.values) == [2.5]
            assert answer.meta.puid == "p"
            assert ("seldon-puid", "mine") in [tuple(item) for item in told.initial_metadata()]
            assert fake.seen[0].json == {
                "data": {"tensor": {"shape": [1, 2], "values": [1.0, 2.0]}}
            }
            assert fake.seen[0].headers["seldon-puid"] == "mine"

            feedback = MESSAGES["Feedback"](reward=1.0)
            assert call("SendFeedback", feedback, "SeldonMessage")[0].WhichOneof("choice") is None
            metadata, _ = call("GraphMetadata", MESSAGES["Empty"](), "SeldonGraphMetadata")
            assert metadata.models["n"].versions == ["1"]
            asked = MESSAGES["SeldonModelMetadataRequest"](name="n")
            assert call("ModelMetadata", asked, "SeldonModelMetadata")[0].name == "n"

            fake.routes["/n/predict"] = says(b'{"status":{"info":"bad data"}}', 400)
            with pytest.raises(grpc.RpcError) as caught:
                call("Predict", message, "SeldonMessage")
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.details() == "bad data"


def test_the_grpc_front_of_a_v2_graph_speaks_the_open_inference_protocol() -> None:
    grpc = pytest.importorskip("grpc")
    from router_fn import oip
    from tests.fakes_router import free_port

    port = free_port()
    output = (
        b'{"model_name":"n","outputs":[{"name":"y","shape":[1],"datatype":"FP32","data":[4.5]}]}'
    )
    with upstream({}, says(output, Content_Type="application/json")) as fake:
        spec = deployment(predictor({"name": "n", "serviceUrl": fake.url}), protocol="v2")
        with (
            router(spec, GRPC_PORT=str(port)),
            grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            request = oip.MESSAGES["ModelInferRequest"](model_name="n")
            tensor = request.inputs.add(name="x", datatype="FP32", shape=[1])
            tensor.contents.fp32_contents.append(1.5)
            rpc = channel.unary_unary(
                f"/{oip.SERVICE}/ModelInfer",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=oip.MESSAGES["ModelInferResponse"].FromString,
            )
            answer = rpc(request, timeout=20, wait_for_ready=True)
            assert answer.outputs[0].name == "y"
            assert fake.seen[0].path == "/v2/models/n/infer"
            assert fake.seen[0].json["inputs"][0]["data"] == [1.5]


def test_cors_headers_may_be_narrowed() -> None:
    root = {"name": "s", "implementation": "SIMPLE_MODEL"}
    env = {"CORS_ALLOWED_ORIGINS": "https://a.example", "CORS_ALLOWED_HEADERS": "X-Mine"}
    with router(deployment(predictor(root)), **env) as process:
        for method in ("POST", "OPTIONS"):
            answer = process.request(method, "/api/v1.0/predictions", MESSAGE)
            assert answer.status == 200
            assert answer.headers["access-control-allow-origin"] == "https://a.example"
            assert answer.headers["access-control-allow-headers"] == "X-Mine"
