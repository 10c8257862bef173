"""HTTP/2 through the gateway: real gRPC, both protocols on both sides, many streams."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import h2.config
import h2.connection
import h2.events
import pytest

from tests.fakes_engine import Engine, running, service, until

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

ENDS = (h2.events.StreamReset, h2.events.StreamEnded, h2.events.ConnectionTerminated)

SERVER = """
import os, sys, time
from concurrent import futures
import grpc

def unary(request, context):
    context.set_trailing_metadata((("x-trailer", "yes"),))
    return request + b"|" + dict(context.invocation_metadata()).get("x-mine", "").encode()

def fail(request, context):
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, "bad input")

def stream(requests, context):
    for request in requests:
        yield b"got:" + request

def slow(request, context):
    time.sleep(5)
    return b"late"

handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Slow": grpc.unary_unary_rpc_method_handler(slow),
    "Stream": grpc.stream_stream_rpc_method_handler(stream),
}
server = grpc.server(futures.ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
status = b"\\x08\\x02"

def health(request, context):
    return status

def become(request, context):
    global status
    status = b"\\x08\\x01"
    return b"ok"

health_handlers = {
    "Check": grpc.unary_unary_rpc_method_handler(health),
    "Become": grpc.unary_unary_rpc_method_handler(become),
}
server.add_generic_rpc_handlers(
    (grpc.method_handlers_generic_handler("grpc.health.v1.Health", health_handlers),)
)
server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
server.start()
print("serving", flush=True)
server.wait_for_termination()
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("h2")
    (folder / "server.py").write_text(SERVER)
    made = service(
        "rpc",
        command=["python", str(folder / "server.py")],
        ports=[{"name": "h2c", "containerPort": 8080}],
    )
    with running(folder, made, service("echo")) as engine:
        yield engine


@pytest.fixture
def channel(engine: Engine) -> Iterator[grpc.Channel]:
    options = (
        ("grpc.default_authority", "rpc.default.example.com"),
        ("grpc.enable_http_proxy", 0),
    )
    with grpc.insecure_channel(f"127.0.0.1:{engine.port}", options=options) as channel:
        yield channel


def test_unary_calls_with_metadata_and_trailers(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/test.Echo/Unary")
    answer, info = call.with_call(b"hi", metadata=(("x-mine", "42"),), timeout=20)
    assert answer == b"hi|42"
    assert dict(info.trailing_metadata())["x-trailer"] == "yes"


def test_status_of_a_failed_call_arrives(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/test.Echo/Fail")(b"x", timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "bad input"


def test_bidirectional_streaming_is_not_buffered(channel: grpc.Channel) -> None:
    sent: list[bytes] = []

    def requests() -> Iterator[bytes]:
        for number in range(5):
            sent.append(b"%d" % number)
            yield sent[-1]

    answers = channel.stream_stream("/test.Echo/Stream")(requests(), timeout=20)
    assert list(answers) == [b"got:%d" % number for number in range(5)]


def test_large_messages_respect_flow_control(channel: grpc.Channel) -> None:
    body = b"z" * 3_000_000
    answer = channel.unary_unary("/test.Echo/Unary")(body, timeout=30)
    assert answer == body + b"|"


def test_many_calls_on_one_connection_count_one_by_one(
    engine: Engine, channel: grpc.Channel
) -> None:
    before = engine.service("rpc")["revisions"][0]["requests"]
    call = channel.unary_unary("/test.Echo/Unary")
    with futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: call(b"%d" % number, timeout=20), range(100)))
    assert answers == [b"%d|" % number for number in range(100)]
    assert engine.service("rpc")["revisions"][0]["requests"] - before == 100


def test_cancelled_call_frees_its_place(engine: Engine, channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/test.Echo/Slow")(b"x", timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: engine.service("rpc")["revisions"][0]["concurrency"] == 0, 10)


def test_grpc_through_the_gateway_as_a_proxy(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{engine.port}")
    with grpc.insecure_channel("rpc.default.svc.cluster.local:80") as channel:
        assert channel.unary_unary("/test.Echo/Unary")(b"p", timeout=20) == b"p|"


@needs_curl
def test_http2_client_of_an_http1_service(engine: Engine) -> None:
    command = [
        "curl", "-sS", "--http2-prior-knowledge", "-H", "Host: echo.default.example.com",
        "--data-binary", "@-", "-w", "%{http_code} %{http_version}", "-o", "/dev/null",
        f"http://127.0.0.1:{engine.port}/echo",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=True, input="x" * 200_000
    )
    assert done.stdout == "200 2"


def test_http1_client_of_an_http2_service_is_translated(engine: Engine) -> None:
    headers = {"Content-Type": "application/grpc", "TE": "trailers"}
    answer = engine.call(
        "rpc", "/test.Echo/Unary", method="POST", body=b"\0\0\0\0\2hi", headers=headers
    )
    assert answer.status == 200
    assert answer.body == b"\0\0\0\0\3hi|"


def test_unknown_host_over_http2(engine: Engine) -> None:
    options = (("grpc.default_authority", "nope.default"), ("grpc.enable_http_proxy", 0))
    with (
        grpc.insecure_channel(f"127.0.0.1:{engine.port}", options=options) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary("/test.Echo/Unary")(b"x", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@needs_curl
def test_streams_under_way_finish_when_the_engine_stops(tmp_path: Path) -> None:
    with running(tmp_path, service("echo")) as engine:
        engine.call("echo")
        command = [
            "curl", "-sS", "--http2-prior-knowledge", "-H", "Host: echo.default",
            "-w", "%{http_code}", "-o", "/dev/null", f"http://127.0.0.1:{engine.port}/sleep?s=1",
        ]  # fmt: skip
        client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        until(lambda: engine.service("echo")["revisions"][0]["concurrency"] == 1)
        assert engine.stop() == 0
        assert client.communicate(timeout=10)[0] == "200"


@pytest.mark.parametrize(
    "headers",
    [
        [(":path", "/a b")],
        [(":path", "/a\r\nHost: evil")],
        [(":method", "GET /x")],
        [("x-bad", "a\r\nb: c")],
        [(":authority", "bad host:99999")],
    ],
)
def test_heads_that_would_smuggle_are_reset(engine: Engine, headers: list[tuple[str, str]]) -> None:
    base = {":method": "GET", ":path": "/echo", ":scheme": "http", ":authority": "echo.default"}
    lines = [*{**base, **{k: v for k, v in headers if k[0] == ":"}}.items()]
    lines += [item for item in headers if item[0][0] != ":"]
    config = h2.config.H2Configuration(
        validate_outbound_headers=False, normalize_outbound_headers=False
    )
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    connection.send_headers(1, lines, end_stream=True)
    with socket.create_connection(("127.0.0.1", engine.port), timeout=10) as client:
        client.sendall(connection.data_to_send())
        events: list[object] = []
        while not any(isinstance(event, ENDS) for event in events):
            data = client.recv(65536)
            if not data:
                return  # the whole connection was refused
            events += connection.receive_data(data)
    assert not any(isinstance(event, h2.events.ResponseReceived) for event in events)


def test_grpc_readiness_probe_asks_the_health_service(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    made = service(
        "rpc",
        command=["python", str(tmp_path / "server.py")],
        ports=[{"name": "h2c", "containerPort": 8080}],
        readinessProbe={"grpc": {"service": "x"}, "periodSeconds": 1},
    )
    with running(tmp_path, made) as engine:
        engine.admin("scale", service="rpc", replicas=1)
        until(lambda: engine.pods("rpc")[0]["timeline"]["listening"], 20)
        time.sleep(0.5)
        assert engine.pods("rpc")[0]["state"] == "Starting"
        port = engine.pods("rpc")[0]["port"]
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            channel.unary_unary("/grpc.health.v1.Health/Become")(b"", timeout=10)
        until(lambda: engine.pods("rpc")[0]["state"] == "Ready", 10)
