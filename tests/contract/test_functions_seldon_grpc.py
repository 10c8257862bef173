"""Seldon's gRPC services over user classes: all seven, numbers as doubles, status codes, health."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from functions.seldon_protos import MESSAGES
from functions.wire import seldon
from tests.fakes_functions import Server, serving
from tests.fakes_router import free_port, router
from tests.fakes_seldon import ENVIRON

EVERYTHING = """
import numpy as np

class Busy(Exception):
    status_code = 429

class Everything:
    def predict(self, X, names, meta=None):
        if isinstance(X, str) and X == "boom":
            raise ValueError("bad thing")
        if isinstance(X, str) and X == "busy":
            raise Busy("later")
        if isinstance(X, str) and X == "none":
            return None
        if isinstance(X, str) and X == "meta":
            return {"meta": meta}
        if isinstance(X, str) and X == "numpy":
            return {"a": np.float32(1.5)}
        self.seen = [type(X).__name__, str(getattr(X, "dtype", "")), list(names)]
        return X
    def transform_input(self, X, names):
        return X * 2
    def transform_output(self, X, names):
        return X + 1
    def route(self, X, names):
        return np.int64(1)
    def aggregate(self, Xs, names):
        return (Xs[0] + Xs[1]) / 2
    def send_feedback(self, X, names, reward, truth, routing=None):
        return [[reward, -9 if routing is None else routing]]
    def init_metadata(self):
        return {"name": "e", "platform": "p", "inputs": [{"messagetype": "tensor", "schema": {}}]}
    def tags(self):
        return {"mine": True}
"""
RAW = """
class Raws:
    def predict_raw(self, message):
        answer = type(message)()
        answer.strData = message.WhichOneof("choice")
        answer.status.code = 7
        return answer
    def transform_input_raw(self, message):
        return {"strData": "from a dict"}
"""
PATH = {"requestPath": {"clf": "img/clf:1.0"}}


class Client:
    def __init__(self, port: int) -> None:
        options = [("grpc.enable_http_proxy", 0)]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=options)
        self.metadata: dict[str, Any] = {}

    def __call__(self, service: str, method: str, body: Any, **metadata: str) -> Any:
        takes, gives = seldon.SERVICES[service][method]
        request = json_format.ParseDict(body, MESSAGES[takes]())
        call = self.channel.unary_unary(
            f"/seldon.protos.{service}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=MESSAGES[gives].FromString,
        )
        sent = [(key.replace("_", "-"), value) for key, value in metadata.items()]
        answer, done = call.with_call(request, timeout=30, metadata=sent)
        self.metadata = dict(done.initial_metadata())
        return json_format.MessageToDict(answer)


def started(folder: Path, text: str, protocol: str) -> Any:
    (folder / "model.py").write_text(text)
    arguments = ["--model-dir", str(folder), "--protocol", protocol, "--grpc-port", "0"]
    return serving(*arguments, environ=ENVIRON)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with started(tmp_path_factory.mktemp("grpc"), EVERYTHING, "seldon,grpc-seldon") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    found = Client(server.grpc_port)
    yield found
    found.channel.close()


ND = {"data": {"names": ["a", "b"], "ndarray": [[1, 2]]}}
TENSOR = {"data": {"tensor": {"shape": [1, 2], "values": [1, 2]}}}
NAMES = {"names": ["t:0", "t:1"]}
META = {**PATH, "tags": {"mine": True}}


def test_every_method_is_there(client: Client) -> None:
    tested = {(service, method) for service, method, *_ in CASES}
    assert tested == {(s, m) for s, methods in seldon.SERVICES.items() for m in methods}


CASES: list[tuple[str, str, Any, Any]] = [
    ("Model", "Predict", ND, {"data": {**NAMES, "ndarray": [[1.0, 2.0]]}, "meta": META}),
    ("Seldon", "Predict", TENSOR,
     {"data": {**NAMES, "tensor": {"shape": [1, 2], "values": [1.0, 2.0]}}, "meta": META}),
    *(
        (service, "TransformInput", ND,
         {"data": {**NAMES, "ndarray": [[2.0, 4.0]]}, "meta": META})
        for service in ("Generic", "Transformer")
    ),
    *(
        (service, "TransformOutput", ND,
         {"data": {**NAMES, "ndarray": [[2.0, 3.0]]}, "meta": META})
        for service in ("Generic", "OutputTransformer")
    ),
    *(
        (service, "Route", TENSOR,
         {"data": {"names": ["t:0"], "tensor": {"shape": [1, 1], "values": [1.0]}}, "meta": META})
        for service in ("Generic", "Router")
    ),
    *(
        (service, "Aggregate", {"seldonMessages": [ND, TENSOR]},
         {"data": {**NAMES, "ndarray": [[1.0, 2.0]]}, "meta": META})
        for service in ("Generic", "Combiner")
    ),
    *(
        (service, "SendFeedback",
         {"request": ND, "reward": 0.5, "response": {"meta": {"routing": {"clf": 0}}}},
         {"data": {**NAMES, "ndarray": [[0.5, 0.0]]}, "meta": META})
        for service in ("Generic", "Model", "Router", "Seldon")
    ),
    *(
        ((service, method, {},
          {"name": "e", "platform": "p", "versions": ["1.0"],
           "inputs": [{"messagetype": "tensor", "schema": {}}]}))
        for service, method in (("Model", "Metadata"), ("Seldon", "ModelMetadata"))
    ),
    ("Seldon", "GraphMetadata", {},
     {"name": "p", "inputs": [{"messagetype": "tensor", "schema": {}}],
      "models": {"clf": {"name": "e", "platform": "p", "versions": ["1.0"],
                         "inputs": [{"messagetype": "tensor", "schema": {}}]}}}),
]  # fmt: skip


@pytest.mark.parametrize(("service", "method", "body", "expected"), CASES)
def test_methods(client: Client, service: str, method: str, body: Any, expected: Any) -> None:
    assert client(service, method, body) == expected


@pytest.mark.parametrize(
    "payload",
    [
        {"strData": "x"},
        {"binData": "AAE="},
        {"jsonData": {"a": [1.5, None, {"b": "c"}]}},
        {"data": {"names": ["t:0"], "ndarray": [["x"], ["y"]]}},
        {
            "data": {
                "tftensor": {
                    "dtype": "DT_FLOAT",
                    "tensorShape": {"dim": [{"size": "2"}]},
                    "floatVal": [1.0, 2.5],
                }
            }
        },
    ],
)
def test_payloads_come_back(client: Client, payload: dict[str, Any]) -> None:
    assert client("Model", "Predict", payload) == {**payload, "meta": META}


def test_numbers_are_doubles_and_meta_is_an_object(client: Client) -> None:
    assert client("Model", "Predict", {"strData": "meta"})["jsonData"] == {"meta": {}}
    sent = {"strData": "meta", "meta": {"puid": "u", "tags": {"n": 1}}}
    answer = client("Model", "Predict", sent)
    assert answer["jsonData"] == {"meta": {"puid": "u", "tags": {"n": 1.0}}}
    assert answer["meta"]["puid"] == "u"
    assert client("Model", "Predict", {"strData": "numpy"})["jsonData"] == {"a": 1.5}


def test_the_puid_comes_back(client: Client) -> None:
    client("Model", "Predict", ND, seldon_puid="p-1")
    assert client.metadata["seldon-puid"] == "p-1"


@pytest.mark.parametrize(
    ("method", "body", "code", "text"),
    [
        ("Predict", {}, grpc.StatusCode.INVALID_ARGUMENT, "Invalid request"),
        ("Predict", {"data": {"tensor": {"shape": [3], "values": [1]}}},
         grpc.StatusCode.INVALID_ARGUMENT, "reshape"),
        ("Predict", {"strData": "boom"}, grpc.StatusCode.INTERNAL, "bad thing"),
        ("Predict", {"strData": "busy"}, grpc.StatusCode.RESOURCE_EXHAUSTED, "later"),
        ("Predict", {"strData": "none"}, grpc.StatusCode.INTERNAL, "None"),
    ],
)  # fmt: skip
def test_faults(client: Client, method: str, body: Any, code: Any, text: str) -> None:
    with pytest.raises(grpc.RpcError) as fault:
        client("Model", method, body)
    assert fault.value.code() is code
    assert text in fault.value.details()


def test_nothing_to_aggregate(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as fault:
        client("Combiner", "Aggregate", {})
    assert fault.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_health_and_metrics(client: Client, server: Server) -> None:
    check = client.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert check(b"", timeout=10) == b"\x08\x01"
    client("Model", "Predict", ND)
    assert 'protocol="grpc-seldon",code="200"' in server.get("/metrics").body.decode()


def test_grpc_alone_is_on_the_main_port(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(RAW)
    arguments = ["--model-dir", str(tmp_path), "--protocol", "grpc-seldon"]
    with serving(*arguments, environ=ENVIRON, ready=False) as running:
        found = Client(running.grpc_port)
        check = found.channel.unary_unary("/grpc.health.v1.Health/Check")
        while check(b"", timeout=30, wait_for_ready=True) != b"\x08\x01":
            pass
        assert found("Model", "Predict", {"binData": "AAE="}) == {
            "strData": "binData",
            "status": {"code": 7},
        }
        answer = found("Transformer", "TransformInput", ND)
        assert answer == {"strData": "from a dict"}
        found.channel.close()


def reflected(port: int) -> tuple[set[str], set[str]]:
    """What server reflection tells: services, and the methods of Seldon."""
    from google.protobuf import descriptor_pool
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
        ProtoReflectionDescriptorDatabase,
    )

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = descriptor_pool.DescriptorPool(database)
        names = set(database.get_services())
        services = [pool.FindServiceByName(name) for name in names]
        return names, {m.name for s in services if s.name == "Seldon" for m in s.methods}


REFLECTION = "grpc.reflection.v1alpha.ServerReflection"
SELDON = {"Predict", "SendFeedback", "ModelMetadata", "GraphMetadata"}


def test_server_reflection(server: Server) -> None:
    pytest.importorskip("grpc_reflection")
    names, methods = reflected(server.grpc_port)
    assert names == {f"seldon.protos.{name}" for name in seldon.SERVICES} | {REFLECTION}
    assert methods == SELDON


def test_server_reflection_of_a_graph() -> None:
    pytest.importorskip("grpc_reflection")
    root = {"name": "s", "implementation": "SIMPLE_MODEL"}
    spec = {
        "kind": "SeldonDeployment", "name": "d", "namespace": "n",
        "predictors": [{"name": "main", "graph": root}],
    }  # fmt: skip
    port = free_port()
    with router(spec, GRPC_PORT=str(port)):
        assert reflected(port) == ({"seldon.protos.Seldon", REFLECTION}, SELDON)
