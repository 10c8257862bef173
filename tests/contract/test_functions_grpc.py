"""V2 over gRPC: every method, raw and typed contents, status codes."""

import struct
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from functions import oip
from tests.fakes_functions import Server, serving, write_model

ECHO = """
import time
from functions import InferResponse, InvalidRequest

class Teapot(Exception):
    status_code = 429

class Echo:
    def predict(self, request, headers=None):
        do = request.parameters.get("do")
        if do == "numpy":
            return {t.name: t.as_numpy() for t in request.inputs}
        if do == "bug":
            raise RuntimeError("secret")
        if do == "invalid":
            raise InvalidRequest("not like this")
        if do == "busy":
            raise Teapot("later")
        if do == "sleep":
            time.sleep(30)
        if do == "headers":
            return {"h": [headers["x-mine"]]}
        return InferResponse("", "", request.inputs)
"""


class Client:
    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{port}",
            options=[("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)],
        )

    def __call__(self, method: str, metadata: Any = (), **fields: Any) -> Any:
        request = getattr(oip, f"{method}Request")(**fields)
        call = self.channel.unary_unary(
            f"/{oip.SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=getattr(oip, f"{method}Response").FromString,
        )
        return call(request, timeout=20, metadata=metadata)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = write_model(tmp_path_factory.mktemp("grpc"), ECHO)
    arguments = ["--model-name", "echo", "--model-dir", str(directory), "--protocol", "v2,grpc-v2"]
    with serving(
        *arguments,
        "--grpc-port",
        "0",
        "--timeout-s",
        "1",
        "--threads",
        "8",
        "--max-body-bytes",
        "16Mi",
    ) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    found = Client(server.grpc_port)
    yield found
    found.channel.close()


def tensor(name: str, datatype: str, shape: list[int], **contents: Any) -> Any:
    made = oip.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(made.contents, field).extend(values)
    return made


def parameter(text: str) -> dict[str, Any]:
    return {"do": oip.InferParameter(string_param=text)}


def test_health_and_metadata(client: Client) -> None:
    assert client("ServerLive").live
    assert client("ServerReady").ready
    assert client("ModelReady", name="echo").ready
    assert client("ServerMetadata").name == "turnout"
    assert client("ModelMetadata", name="echo").platform == "python"
    check = client.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert check(b"", timeout=5) == b"\x08\x01"


TYPED = [
    ("BOOL", "bool_contents", [True, False]),
    ("INT8", "int_contents", [-128, 127]),
    ("INT16", "int_contents", [-5]),
    ("INT32", "int_contents", [-(2**31)]),
    ("INT64", "int64_contents", [2**63 - 1]),
    ("UINT8", "uint_contents", [255]),
    ("UINT16", "uint_contents", [1]),
    ("UINT32", "uint_contents", [2**32 - 1]),
    ("UINT64", "uint64_contents", [2**64 - 1]),
    ("FP32", "fp32_contents", [0.5]),
    ("FP64", "fp64_contents", [0.1]),
    ("BYTES", "bytes_contents", [b"\xff", b""]),
]


@pytest.mark.parametrize("do", ["", "numpy"])
@pytest.mark.parametrize(("datatype", "field", "values"), TYPED)
def test_typed_contents_come_back_typed(
    client: Client, datatype: str, field: str, values: list[Any], do: str
) -> None:
    sent = tensor("x", datatype, [len(values)], **{field: values})
    answer = client(
        "ModelInfer", model_name="echo", id="7", inputs=[sent], parameters=parameter(do)
    )
    assert (answer.id, answer.model_name, len(answer.raw_output_contents)) == ("7", "echo", 0)
    (output,) = answer.outputs
    assert (output.datatype, list(output.shape)) == (datatype, [len(values)])
    assert list(getattr(output.contents, field)) == values


@pytest.mark.parametrize("datatype", ["FP32", "FP16", "BF16", "BYTES"])
def test_raw_contents_come_back_raw(client: Client, datatype: str) -> None:
    raw = {
        "FP32": struct.pack("<f", 2.5),
        "FP16": b"\x00\x3c",
        "BF16": b"\x80\x3f",
        "BYTES": struct.pack("<I", 1) + b"a",
    }[datatype]
    answer = client(
        "ModelInfer",
        model_name="echo",
        inputs=[tensor("x", datatype, [1])],
        raw_input_contents=[raw],
    )
    assert list(answer.raw_output_contents) == [raw]
    assert answer.outputs[0].datatype == datatype
    assert answer.id


def test_a_message_larger_than_grpcs_default_passes(client: Client) -> None:
    raw = bytes(6 << 20)
    sent = tensor("x", "UINT8", [len(raw)])
    answer = client("ModelInfer", model_name="echo", inputs=[sent], raw_input_contents=[raw])
    assert answer.raw_output_contents[0] == raw


FP = {"fp32_contents": [1.0]}
BAD = [
    ("unknown model", {"model_name": "nope"}, "NOT_FOUND", "does not exist"),
    ("unknown version", {"model_version": "9"}, "NOT_FOUND", "version 9"),
    ("no inputs", {"inputs": []}, "INVALID_ARGUMENT", "no inputs"),
    (
        "lower-case datatype",
        {"inputs": [tensor("x", "fp32", [1], **FP)]},
        "INVALID_ARGUMENT",
        "datatype",
    ),
    (
        "shape",
        {"inputs": [tensor("x", "FP32", [2], **FP)]},
        "INVALID_ARGUMENT",
        "do not fill shape",
    ),
    (
        "negative shape",
        {"inputs": [tensor("x", "FP32", [-1], **FP)]},
        "INVALID_ARGUMENT",
        "negative",
    ),
    (
        "wrong field",
        {"inputs": [tensor("x", "INT64", [1], **FP)]},
        "INVALID_ARGUMENT",
        "int64_contents",
    ),
    (
        "int8 range",
        {"inputs": [tensor("x", "INT8", [1], int_contents=[300])]},
        "INVALID_ARGUMENT",
        "out of range",
    ),
    (
        "fp16 typed",
        {"inputs": [tensor("x", "FP16", [1], **FP)]},
        "INVALID_ARGUMENT",
        "raw_input_contents",
    ),
    ("mixed", {"raw_input_contents": [bytes(4)]}, "INVALID_ARGUMENT", "has contents"),
    ("raw count", {"raw_input_contents": [b"", b""]}, "INVALID_ARGUMENT", "2 raw_input_contents"),
    (
        "raw size",
        {"inputs": [tensor("x", "FP32", [1])], "raw_input_contents": [bytes(3)]},
        "INVALID_ARGUMENT",
        "3 bytes",
    ),
    (
        "unknown output",
        {"outputs": [oip.ModelInferRequest.InferRequestedOutputTensor(name="z")]},
        "INVALID_ARGUMENT",
        "'z'",
    ),
    ("user's fault", {"parameters": parameter("invalid")}, "INVALID_ARGUMENT", "not like this"),
    ("own status", {"parameters": parameter("busy")}, "RESOURCE_EXHAUSTED", "later"),
    ("bug", {"parameters": parameter("bug")}, "INTERNAL", "correlation id"),
    ("time limit", {"parameters": parameter("sleep")}, "DEADLINE_EXCEEDED", "within 1 s"),
    (
        "too large",
        {"inputs": [tensor("x", "UINT8", [17 << 20])], "raw_input_contents": [bytes(17 << 20)]},
        "RESOURCE_EXHAUSTED",
        "",
    ),
]


@pytest.mark.parametrize(("fields", "code", "text"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_faults_have_their_status(
    client: Client, fields: dict[str, Any], code: str, text: str
) -> None:
    request = {"model_name": "echo", "inputs": [tensor("x", "FP32", [1], **FP)], **fields}
    with pytest.raises(grpc.RpcError) as caught:
        client("ModelInfer", **request)
    assert (caught.value.code().name, text in caught.value.details()) == (code, True), (
        caught.value.details()
    )
    assert "secret" not in caught.value.details()


def test_metadata_reaches_the_model_as_headers(client: Client) -> None:
    answer = client(
        "ModelInfer",
        [("x-mine", "abc")],
        model_name="echo",
        inputs=[tensor("x", "FP32", [1], **FP)],
        parameters=parameter("headers"),
    )
    assert list(answer.outputs[0].contents.bytes_contents) == [b"abc"]


@pytest.mark.parametrize("field", ["model_name", "triton_model_name"])
def test_the_repository_over_grpc(client: Client, field: str) -> None:
    assert [m.state for m in client("RepositoryIndex").models] == ["READY"]
    assert client("RepositoryModelUnload", **{field: "echo"}).isUnloaded
    assert not client("ModelReady", name="echo").ready
    with pytest.raises(grpc.RpcError) as caught:
        client("ModelInfer", model_name="echo", inputs=[tensor("x", "FP32", [1], **FP)])
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert client("RepositoryModelLoad", **{field: "echo"}).isLoaded
    assert client("ModelReady", name="echo").ready


def test_grpc_alone_takes_the_main_port_and_no_other_that_is_fixed(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Several of them fit on one machine, as in the local engine."""
    import socket
    from contextlib import ExitStack

    directory = write_model(tmp_path_factory.mktemp("only"), ECHO)
    arguments = ["--model-dir", str(directory), "--protocol", "grpc-v2"]
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(2)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in probes]
        for probe in probes:
            probe.close()
        for port in ports:
            running = stack.enter_context(serving(*arguments, environ={"PORT": str(port)}))
            assert running.grpc_port == port
        for port in ports:
            found = Client(port)
            assert found("ServerReady").ready
            found.channel.close()
