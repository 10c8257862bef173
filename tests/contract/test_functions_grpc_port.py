"""The gRPC port under grpcio's clients: what they do to a server beside plain calls."""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from functions import oip
from functions.http2 import frames
from tests.fakes_functions import Server, serving, wait_until, write_model
from tests.fakes_http2 import frames_of

MODEL = """
import asyncio
import os

from functions import InferResponse

class Model:
    async def predict(self, request, headers=None):
        seconds = request.parameters.get("sleep", 0.0)
        if seconds:
            await asyncio.sleep(seconds)
        if request.parameters.get("pid"):
            return {"pid": [os.getpid()]}
        return InferResponse("", "", request.inputs)
"""
INFER = f"/{oip.SERVICE}/ModelInfer"


class Client:
    def __init__(self, port: int, **options: Any) -> None:
        fixed = {"grpc.max_receive_message_length": -1, "grpc.enable_http_proxy": 0}
        every = [*fixed.items(), *((f"grpc.{name}", value) for name, value in options.items())]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=every)
        self.infer = self.channel.unary_unary(
            INFER,
            request_serializer=oip.ModelInferRequest.SerializeToString,
            response_deserializer=oip.ModelInferResponse.FromString,
        )


def request(raw: bytes = b"abc", **parameters: float) -> Any:
    made = oip.ModelInferRequest(model_name="model", raw_input_contents=[raw])
    made.inputs.add(name="x", datatype="UINT8", shape=[len(raw)])
    for name, value in parameters.items():
        made.parameters[name].double_param = value
    return made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = write_model(tmp_path_factory.mktemp("port"), MODEL)
    arguments = ["--model-dir", str(directory), "--protocol", "v2,grpc-v2", "--grpc-port", "0",
                 "--max-body-bytes", "96Mi", "--grpc-max-streams", "200"]  # fmt: skip
    with serving(*arguments) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    found = Client(server.grpc_port, use_local_subchannel_pool=1)
    yield found
    found.channel.close()


def test_64_mebibytes_there_and_back(client: Client) -> None:
    raw = np.random.default_rng(0).bytes(64 << 20)
    answer = client.infer(request(raw), timeout=60)
    assert answer.raw_output_contents[0] == raw


@pytest.mark.parametrize("how", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests(client: Client, how: grpc.Compression) -> None:
    raw = bytes(300_000)
    assert client.infer(request(raw), timeout=30, compression=how).raw_output_contents[0] == raw
    with pytest.raises(grpc.RpcError) as caught:
        client.infer(request(bytes(97 << 20)), timeout=60, compression=how)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_more_calls_at_once_than_one_connection_has_streams(client: Client) -> None:
    since = time.monotonic()
    calls = [client.infer.future(request(b"%d" % i, sleep=0.2), timeout=60) for i in range(1000)]
    assert [call.result().raw_output_contents[0] for call in calls] == [
        b"%d" % i for i in range(1000)
    ]
    assert time.monotonic() - since < 60  # one after the other they would take 200 s


def test_deadlines(client: Client) -> None:
    for _ in range(3):
        since = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            client.infer(request(sleep=2), timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - since < 15
    assert client.infer(request(), timeout=30).raw_output_contents[0] == b"abc"


def test_a_thousand_cancelled_calls_leave_nothing(server: Server, client: Client) -> None:
    for _ in range(10):
        calls = [client.infer.future(request(sleep=0.3), timeout=60) for _ in range(100)]
        for call in calls:
            call.cancel()
    assert client.infer(request(), timeout=60).raw_output_contents[0] == b"abc"
    wait_until(
        lambda: (
            b'turnout_in_flight{model_name="model"} 0' in server.get("/metrics").body
            or b"turnout_in_flight 0" in server.get("/metrics").body
        ),
        "an idle server",
    )


def test_what_clients_ask_for_is_what_they_get_sizes_apart(client: Client) -> None:
    sizes = [0, 1, 16_379, 16_384, 65_535, 65_536, 1 << 20, (1 << 20) + 1, 5 << 20]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: client.infer(request(bytes(n)), timeout=60), sizes * 4))
    assert [len(answer.raw_output_contents[0]) for answer in answers] == sizes * 4


def test_calls_under_way_are_answered_while_the_server_drains(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = write_model(tmp_path_factory.mktemp("drain"), MODEL)
    arguments = ["--model-dir", str(directory), "--protocol", "v2,grpc-v2", "--grpc-port", "0"]
    with serving(*arguments) as running:
        found = Client(running.grpc_port)
        assert found.infer(request(), timeout=30).raw_output_contents[0] == b"abc"
        held = [found.infer.future(request(b"held", sleep=1.5), timeout=30) for _ in range(20)]
        wait_until(
            lambda: b" 20\n" in running.get("/metrics").body.partition(b"turnout_in_flight")[2],
            "calls under way",
        )
        running.process.send_signal(signal.SIGTERM)
        assert {call.result().raw_output_contents[0] for call in held} == {b"held"}
        assert running.process.wait(30) == 0
        with pytest.raises(grpc.RpcError) as caught:
            found.infer(request(), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        found.channel.close()


def test_strangers_are_turned_away_and_floods_end(server: Server, client: Client) -> None:
    def say(data: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", server.grpc_port), 20) as stranger:
            with contextlib.suppress(OSError):
                stranger.sendall(data)
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while part := stranger.recv(65536):
                    answer += part
            return answer

    def code(answer: bytes) -> int:
        """The GOAWAY's."""
        (payload,) = [payload for kind, _, _, payload in frames_of(answer) if kind == frames.GOAWAY]
        return int.from_bytes(payload[4:8], "big")

    assert code(say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")) == 1
    assert code(say(b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03")) == 1
    pings = frames.frame(frames.PING, 0, 0, b"12345678") * 200_000
    since = time.monotonic()
    say(frames.PREFACE + frames.settings({}) + pings)
    assert time.monotonic() - since < 60
    assert client.infer(request(), timeout=30).raw_output_contents[0] == b"abc"


def test_workers_share_the_port(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = write_model(tmp_path_factory.mktemp("workers"), MODEL)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["--model-dir", str(directory), "--protocol", "v2,grpc-v2", "--grpc-port",
                 str(port), "--workers", "2"]  # fmt: skip
    pids: set[int] = set()
    lock = threading.Lock()

    def ask() -> bool:
        found = Client(port, use_local_subchannel_pool=1)
        with contextlib.suppress(grpc.RpcError), contextlib.closing(found.channel):
            answer = found.infer(request(pid=1), timeout=30)
            with lock:
                pids.update(np.frombuffer(answer.raw_output_contents[0], "<i8").tolist())
        return len(pids) == 2

    with serving(*arguments):
        wait_until(ask, "an answer of both workers")


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        arguments = ["--model-dir", str(write_model(tmp_path, MODEL)), "--protocol", "v2,grpc-v2"]
        with serving(*arguments, "--grpc-port", port, ready=False) as running:
            assert running.wait_exit() == 1
            assert "set FUNCTIONS_GRPC_PORT to a free one" in running.lines[-1]
