"""Graphs of the tensorflow protocol over gRPC: clients and nodes on real sockets, and Turnout's
REST in front of nodes that speak gRPC."""

import json
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from functions import tfs
from tests.contract.test_router_seldon import deployment, predictor
from tests.fakes_functions import wait_until
from tests.fakes_router import RouterProcess, free_port, router

PREDICTION = "tensorflow.serving.PredictionService"
STATUS = "tensorflow.serving.ModelService/GetModelStatus"
REQUESTS = {
    "Predict": ("PredictRequest", "PredictResponse"),
    "Classify": ("ClassificationRequest", "ClassificationResponse"),
    "Regress": ("RegressionRequest", "RegressionResponse"),
    "MultiInference": ("MultiInferenceRequest", "MultiInferenceResponse"),
    "GetModelMetadata": ("GetModelMetadataRequest", "GetModelMetadataResponse"),
    "GetModelStatus": ("GetModelStatusRequest", "GetModelStatusResponse"),
}


class Upstream:
    """A server with the services of TensorFlow Serving: doubles `x`, calls it `x` again."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any, dict[str, Any], float | None]] = []
        self.waiting = threading.Event()
        self.given_up = threading.Event()
        """A `slow` call is under way, and was given up by who called."""
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        services: dict[str, dict[str, Any]] = {}
        for method, (takes, gives) in REQUESTS.items():
            service = STATUS.split("/")[0] if method == "GetModelStatus" else PREDICTION
            services.setdefault(service, {})[method] = grpc.unary_unary_rpc_method_handler(
                self._answer(method),
                request_deserializer=getattr(tfs, takes).FromString,
                response_serializer=getattr(tfs, gives).SerializeToString,
            )
        for service, handlers in services.items():
            handler = grpc.method_handlers_generic_handler(service, handlers)
            self.server.add_generic_rpc_handlers((handler,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def _answer(self, method: str) -> Any:
        def answer(request: Any, context: Any) -> Any:
            metadata = dict(context.invocation_metadata())
            self.seen.append((method, request, metadata, context.time_remaining()))
            response = getattr(tfs, REQUESTS[method][1])()
            match method:
                case "Predict":
                    self._predict(request, response, context)
                case "Regress":
                    response.result.regressions.add(value=1.5)
                case "Classify":
                    response.result.classifications.add().classes.add(label="a", score=0.5)
                case "GetModelStatus":
                    response.model_version_status.add(version=3, state=30)
                case "GetModelMetadata":
                    _signatures(request, response)
            return response

        return answer

    def _predict(self, request: Any, response: Any, context: Any) -> None:
        if request.model_spec.signature_name == "bad":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such signature")
        if request.model_spec.signature_name == "slow":
            over = threading.Event()
            context.add_callback(over.set)
            self.waiting.set()
            if over.wait(30):
                self.given_up.set()
        response.model_spec.CopyFrom(request.model_spec)
        for name, tensor in request.inputs.items():
            response.outputs[name].CopyFrom(tensor)
            values = response.outputs[name].float_val
            values[:] = [2 * value for value in values]


def _signatures(request: Any, response: Any) -> None:
    signatures = tfs.SignatureDefMap()
    found = signatures.signature_def["serving_default"]
    found.inputs["x"].dtype = found.outputs["x"].dtype = 1
    found.inputs["s_bytes"].dtype = found.outputs["s_bytes"].dtype = 7
    texts = signatures.signature_def["texts"]
    texts.inputs["s"].dtype = texts.outputs["s"].dtype = 7
    one = signatures.signature_def["one"]
    one.inputs["x"].dtype = one.outputs["x"].dtype = 1
    response.model_spec.name = request.model_spec.name
    response.model_spec.version.value = 3
    response.metadata["signature_def"].Pack(signatures)


class Client:
    def __init__(self, port: int) -> None:
        options = [("grpc.enable_http_proxy", 0)]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=options)
        self.metadata: dict[str, Any] = {}

    def __call__(self, method: str, request: Any, timeout: float = 20, **metadata: str) -> Any:
        path = STATUS if method == "GetModelStatus" else f"{PREDICTION}/{method}"
        call = self.channel.unary_unary(
            f"/{path}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=getattr(tfs, REQUESTS[method][1]).FromString,
        )
        sent = [(key.replace("_", "-"), value) for key, value in metadata.items()]
        answer, done = call.with_call(request, timeout=timeout, metadata=sent, wait_for_ready=True)
        self.metadata = dict(done.initial_metadata())
        return answer


def predict(model: str = "", signature: str = "", version: int = 0) -> Any:
    request = tfs.PredictRequest(output_filter=["x"])
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version:
        request.model_spec.version.value = version
    tensor = request.inputs["x"]
    tensor.dtype = 1
    tensor.tensor_shape.dim.add(size=2)
    tensor.float_val.extend([1.0, 2.5])
    return request


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    running = Upstream()
    yield running
    running.server.stop(None)


def node(upstream: Upstream, name: str, *children: Any, **fields: Any) -> dict[str, Any]:
    url = f"grpc://127.0.0.1:{upstream.port}"
    return {"name": name, "serviceUrl": url, "children": list(children), **fields}


@pytest.fixture(scope="module")
def chain(upstream: Upstream) -> Iterator[tuple[RouterProcess, Client]]:
    root = node(upstream, "first", node(upstream, "second", modelName="other"))
    port = free_port()
    spec = deployment(predictor(root), protocol="tensorflow", timeoutMs=10_000)
    with router(spec, GRPC_PORT=str(port)) as process:
        client = Client(port)
        yield process, client
        client.channel.close()


def refused(client: Client, method: str, request: Any, **options: Any) -> tuple[Any, str]:
    with pytest.raises(grpc.RpcError) as fault:
        client(method, request, **options)
    return fault.value.code(), fault.value.details() or ""


def test_a_chain_hands_tensors_on(upstream: Upstream, chain: tuple[RouterProcess, Client]) -> None:
    _, client = chain
    upstream.seen.clear()
    answer = client("Predict", predict("first", version=7), x_mine="yes", seldon_puid="p-1")
    assert list(answer.outputs["x"].float_val) == [4.0, 10.0]
    (_, first, metadata, left), (_, second, _, _) = upstream.seen
    assert (first.model_spec.name, first.model_spec.version.value) == ("first", 7)
    assert list(first.output_filter) == ["x"]
    assert (second.model_spec.name, list(second.inputs["x"].float_val)) == ("other", [2.0, 5.0])
    assert (metadata["x-mine"], metadata["seldon-puid"]) == ("yes", "p-1")
    assert client.metadata["seldon-puid"] == "p-1"
    assert left is not None
    assert left < 10.5


def test_the_model_name_is_the_roots_or_none(
    upstream: Upstream, chain: tuple[RouterProcess, Client]
) -> None:
    _, client = chain
    upstream.seen.clear()
    for name in ("", "first", "pets"):
        assert list(client("Predict", predict(name)).outputs["x"].float_val) == [4.0, 10.0]
    names = {request.model_spec.name for _, request, _, _ in upstream.seen}
    assert names == {"first", "other"}
    code, text = refused(client, "Predict", predict("second"))
    assert code is grpc.StatusCode.NOT_FOUND
    assert "'second'" in text


def test_statuses_are_the_nodes_own(chain: tuple[RouterProcess, Client]) -> None:
    process, client = chain
    client("Predict", predict("first"))
    assert refused(client, "Predict", predict(signature="bad")) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "no such signature",
    )
    raw = client.channel.unary_unary(f"/{PREDICTION}/Predict")
    with pytest.raises(grpc.RpcError) as fault:
        raw(b"\xff\xff", timeout=20)
    assert fault.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    metrics = process.request("GET", "/prometheus").body.decode()
    assert f'service="/{PREDICTION}/Predict",method="unary",code="200"' in metrics


def test_a_clients_deadline_is_the_nodes(
    upstream: Upstream, chain: tuple[RouterProcess, Client]
) -> None:
    _, client = chain
    upstream.seen.clear()
    client("Predict", predict(), timeout=5)
    for _, _, _, left in upstream.seen:  # the graph alone would give each call ten seconds
        assert left is not None
        assert left < 5.5
    code, _ = refused(client, "Predict", predict(signature="slow"), timeout=0.5)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_client_that_gives_up(upstream: Upstream, chain: tuple[RouterProcess, Client]) -> None:
    _, client = chain
    upstream.waiting.clear()
    upstream.given_up.clear()
    call = client.channel.unary_unary(f"/{PREDICTION}/Predict")
    under_way = call.future(predict(signature="slow").SerializeToString(), timeout=60)
    assert upstream.waiting.wait(20)
    under_way.cancel()
    assert upstream.given_up.wait(20)


def test_a_node_that_takes_too_long(upstream: Upstream) -> None:
    port = free_port()
    spec = deployment(predictor(node(upstream, "m")), protocol="tensorflow", timeoutMs=300)
    with router(spec, GRPC_PORT=str(port)):
        client = Client(port)
        code, _ = refused(client, "Predict", predict(signature="slow"))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        client.channel.close()


def test_a_node_that_is_not_there() -> None:
    port = free_port()
    root = {"name": "m", "serviceUrl": f"grpc://127.0.0.1:{free_port()}"}
    with router(deployment(predictor(root), protocol="tensorflow"), GRPC_PORT=str(port)):
        client = Client(port)
        assert refused(client, "Predict", predict())[0] is grpc.StatusCode.UNAVAILABLE
        client.channel.close()


def test_one_node_answers_every_method(upstream: Upstream) -> None:
    port = free_port()
    tree = {
        "name": "ab",
        "implementation": "RANDOM_ABTEST",
        "parameters": [{"name": "ratioA", "value": "1", "type": "FLOAT"}],
        "children": [node(upstream, "a"), node(upstream, "b")],
    }
    spec = deployment(predictor(tree), protocol="tensorflow")
    with router(spec, GRPC_PORT=str(port)):
        client = Client(port)
        upstream.seen.clear()
        regression = tfs.RegressionRequest()
        regression.input.example_list.examples.add()
        answer = client("Regress", regression)
        assert answer.result.regressions[0].value == 1.5
        assert len(upstream.seen[0][1].input.example_list.examples) == 1
        classes = client("Classify", tfs.ClassificationRequest()).result.classifications[0].classes
        assert classes[0].label == "a"
        multi = tfs.MultiInferenceRequest()
        multi.tasks.add(method_name="tensorflow/serving/regress").model_spec.name = "ab"
        multi.input.example_list.examples.add()
        client("MultiInference", multi)
        sent = upstream.seen[-1][1]
        assert sent.tasks[0].model_spec.name == "a"
        assert sent.tasks[0].method_name == "tensorflow/serving/regress"
        assert len(sent.input.example_list.examples) == 1
        client.channel.close()


def test_a_shadow_gets_a_copy(upstream: Upstream) -> None:
    port = free_port()
    live = predictor(node(upstream, "live"))
    copied = predictor(node(upstream, "copied"), "dark", shadow=True, traffic=100)
    with router(deployment(live, copied, protocol="tensorflow"), GRPC_PORT=str(port)):
        client = Client(port)
        upstream.seen.clear()
        assert client("Predict", predict("live")).model_spec.name == "live"
        wait_until(lambda: len(upstream.seen) == 2, "the shadow has its copy")
        assert {request.model_spec.name for _, request, _, _ in upstream.seen} == {"live", "copied"}
        client.channel.close()


def test_only_predict_can_be_chained(chain: tuple[RouterProcess, Client]) -> None:
    _, client = chain
    code, text = refused(client, "Regress", tfs.RegressionRequest())
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert "only Predict" in text


def test_status_and_metadata_of_a_node(
    upstream: Upstream, chain: tuple[RouterProcess, Client]
) -> None:
    process, client = chain
    for name, model in (("", "first"), ("pets", "first"), ("second", "other")):
        upstream.seen.clear()
        request = tfs.GetModelStatusRequest()
        request.model_spec.name = name
        assert client("GetModelStatus", request).model_version_status[0].state == 30
        assert upstream.seen[0][1].model_spec.name == model
    asked = tfs.GetModelMetadataRequest(metadata_field=["signature_def"])
    for version in (1, 2):  # nothing is remembered for clients
        asked.model_spec.version.value = version
        assert "signature_def" in client("GetModelMetadata", asked).metadata
        assert upstream.seen[-1][1].model_spec.version.value == version
    asked.model_spec.name = "nobody"
    assert refused(client, "GetModelMetadata", asked)[0] is grpc.StatusCode.NOT_FOUND
    status = process.request("GET", "/v1/models/first").json["model_version_status"]
    assert status == [
        {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]
    page = process.request("GET", "/v1/models/second/metadata").json
    assert page["model_spec"] == {"name": "other", "signature_name": "", "version": "3"}
    inputs = page["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    assert inputs["x"]["dtype"] == "DT_FLOAT"


@pytest.mark.parametrize(
    ("root", "text"),
    [
        ({"name": "m", "serviceUrl": "http://127.0.0.1:1"}, "transport: grpc"),
        ({"name": "m", "implementation": "SIMPLE_MODEL"}, "SIMPLE_MODEL"),
        (
            {"name": "c", "implementation": "AVERAGE_COMBINER",
             "children": [{"name": "m", "serviceUrl": "grpc://127.0.0.1:1"}]},
            "combiners",
        ),
        (
            {"name": "r", "type": "ROUTER", "serviceUrl": "http://127.0.0.1:1",
             "children": [{"name": "m", "serviceUrl": "grpc://127.0.0.1:1"}]},
            "routers",
        ),
    ],
)  # fmt: skip
def test_what_has_no_form_in_grpc_says_so(root: Any, text: str) -> None:
    port = free_port()
    with router(deployment(predictor(root), protocol="tensorflow"), GRPC_PORT=str(port)) as process:
        client = Client(port)
        code, details = refused(client, "Predict", predict())
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert text in details
        assert text in process.log()
        client.channel.close()


# --- Turnout's REST, nodes that speak gRPC --------------------------------------------------------


def ask(process: RouterProcess, body: Any) -> Any:
    return process.request("POST", "/v1/models/first:predict", json.dumps(body).encode())


@pytest.fixture(scope="module")
def alone(upstream: Upstream) -> Iterator[RouterProcess]:
    spec = deployment(predictor(node(upstream, "first")), protocol="tensorflow")
    with router(spec) as process:
        yield process


B64 = {"b64": "/w=="}


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"signature_name": "one", "instances": [1, 2.5]}, {"predictions": [2.0, 5.0]}),
        ({"signature_name": "one", "inputs": [[1], [2.5]]}, {"outputs": [[2.0], [5.0]]}),
        ({"signature_name": "one", "inputs": {"x": 3}}, {"outputs": 6.0}),
        (
            {"instances": [{"x": 1, "s_bytes": B64}, {"x": 2, "s_bytes": "A"}]},
            {"predictions": [{"s_bytes": B64, "x": 2.0}, {"s_bytes": {"b64": "QQ=="}, "x": 4.0}]},
        ),
        (
            {"signature_name": "texts", "inputs": {"s": ["a", "\u00fc"]}},
            {"outputs": ["a", "\u00fc"]},
        ),
    ],
)
def test_rows_and_columns(alone: RouterProcess, body: Any, answer: Any) -> None:
    found = ask(alone, body)
    assert (found.status, found.json) == (200, answer)


def test_a_chain_of_rows(chain: tuple[RouterProcess, Client]) -> None:
    found = ask(chain[0], {"instances": [{"x": 1, "s_bytes": "A"}]})
    assert found.json == {"predictions": [{"s_bytes": {"b64": "QQ=="}, "x": 4.0}]}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"instances": [1]}, "multiple input tensors"),
        ({"signature_name": "nope", "instances": [1]}, "no signature 'nope'"),
        ({"signature_name": 3, "instances": [1]}, "must be a string"),
        ({"signature_name": "one", "instances": [[1], [2, 3]]}, "input x is ragged"),
        ({"signature_name": "one", "instances": ["a"]}, "not what the model takes"),
        ({"signature_name": "one", "instances": []}, "at least one value"),
        ({"signature_name": "one", "instances": [1], "inputs": [1]}, "not both"),
        ({}, "instances"),
    ],
)
def test_what_is_no_request(alone: RouterProcess, body: Any, text: str) -> None:
    found = ask(alone, body)
    assert found.status == 400
    assert text in found.json["status"]["info"]
