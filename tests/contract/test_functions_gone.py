"""Clients that go away before their answer, over HTTP and gRPC: their work ends, and nothing that
they held is lost."""

import concurrent.futures
import contextlib
import json
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from functions import oip
from tests.fakes_functions import Server, serving, wait_until, write_model

SLOW = """
import asyncio, os, pathlib, time

class Slow:
    threads = 1
    def __init__(self, place):
        self.place = pathlib.Path(place)
    def note(self, word):
        with (self.place / "notes").open("a") as file:
            file.write(word + "\\n")
    def predict(self, payload, headers):
        word = headers.get("x-word", "")
        if word:
            self.note(word)
        while word == "hold" and not (self.place / "open").exists():
            time.sleep(0.01)
        if not isinstance(payload, dict):
            return {tensor.name: tensor.as_numpy() for tensor in payload.inputs}
        return {"predictions": payload["instances"]}
"""

ASLEEP = """
import asyncio, pathlib

class Asleep:
    def __init__(self, place):
        self.place = pathlib.Path(place)
    async def predict(self, payload, headers):
        if "x-word" in headers:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                with (self.place / "notes").open("a") as file:
                    file.write("cancelled\\n")
                raise
        return {"predictions": [1]}
"""


def request(path: str = "/v1/models/model:predict", word: str = "gone") -> bytes:
    body = b'{"instances": [1]}'
    return (
        f"POST {path} HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\n"
        f"X-Word: {word}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def asking(server: Server, word: str = "gone") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    client.sendall(request(word=word))
    return client


def leave(client: socket.socket, *, rudely: bool) -> None:
    if rudely:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def number(server: Server, name: str) -> int:
    found = re.search(rf"^{re.escape(name)} (\d+)", server.get("/metrics").body.decode(), re.M)
    return int(found[1]) if found else 0


def answered(server: Server, protocol: str, code: int, model: str = "model") -> int:
    labels = f'model_name="{model}",protocol="{protocol}",code="{code}"'
    return number(server, f"turnout_requests_total{{{labels}}}")


def in_flight(server: Server) -> int:
    return number(server, "turnout_in_flight")


def notes(place: Path) -> list[str]:
    file = place / "notes"
    return file.read_text().split() if file.exists() else []


def full_load(server: Server, count: int = 300) -> None:
    """As many requests at once as the server lets in are all answered."""
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        body = {"instances": [1]}
        replies = list(
            pool.map(lambda _: server.post("/v1/models/model:predict", body), range(count))
        )
    assert [reply.status for reply in replies] == [200] * count
    wait_until(lambda: in_flight(server) == 0, "nothing in flight")


@contextlib.contextmanager
def held(place: Path, source: str, *arguments: str) -> Iterator[Server]:
    """A server whose one model thread is busy until the file `open` is there."""
    directory = write_model(place / "model", source)
    options = [
        "--model-dir", str(directory), "--param", f"place={place}", "--max-concurrency", "300",
        "--protocol", "v1,v2,grpc-v2", "--grpc-port", "0", *arguments,
    ]  # fmt: skip
    with serving(*options) as server, asking(server, "hold"):
        wait_until(lambda: notes(place) == ["hold"], "the thread is busy")
        yield server


@pytest.mark.parametrize("batch", ["1", "8"])
def test_a_thousand_that_go_leave_the_queue(tmp_path: Path, batch: str) -> None:
    with held(tmp_path, SLOW, "--max-batch-size", batch, "--max-batch-latency-ms", "1") as server:
        # Batches of the waiting; the last ones share theirs with one that stays.
        for turn in range(4):
            clients = [asking(server) for _ in range(250)]
            wait_until(lambda: in_flight(server) == 251, "all are in")
            for at, client in enumerate(clients):
                leave(client, rudely=bool((at + turn) % 2))
            wait_until(lambda: in_flight(server) == 1, "all have left")
        assert answered(server, "v1", 499) == 1000
        leaving, staying = asking(server), asking(server, "stays")
        wait_until(lambda: in_flight(server) == 3, "both are in")
        leave(leaving, rudely=True)
        wait_until(lambda: in_flight(server) == 2, "one has left")
        (tmp_path / "open").touch()
        with staying:
            assert staying.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert notes(tmp_path) == ["hold", "stays"]
        full_load(server)
        assert answered(server, "v1", 503) == 0


def test_one_that_goes_while_its_call_runs(tmp_path: Path) -> None:
    with held(tmp_path, SLOW) as server:
        (tmp_path / "open").touch()
        wait_until(lambda: in_flight(server) == 0, "the first is through")
        (tmp_path / "open").unlink()
        last = asking(server, "hold")
        wait_until(lambda: notes(tmp_path) == ["hold"] * 2, "it runs")
        behind = asking(server)
        wait_until(lambda: in_flight(server) == 2, "one waits")
        leave(last, rudely=True)
        leave(behind, rudely=True)
        wait_until(lambda: in_flight(server) == 1, "both have been noticed")
        (tmp_path / "open").touch()
        wait_until(lambda: answered(server, "v1", 499) == 2, "its answer is for nobody")
        assert notes(tmp_path) == ["hold"] * 2
        full_load(server)


class Calls:
    """gRPC calls on one connection."""

    def __init__(self, server: Server) -> None:
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{server.grpc_port}",
            options=[("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)],
        )

    def start(self, word: str = "gone", timeout: float = 60.0) -> Any:
        message = oip.ModelInferRequest(model_name="model")
        message.inputs.add(name="x", datatype="FP32", shape=[1]).contents.fp32_contents.append(1)
        ask = self.channel.unary_unary(
            f"/{oip.SERVICE}/ModelInfer",
            oip.ModelInferRequest.SerializeToString,
            oip.ModelInferResponse.FromString,
        )
        return ask.future(message, timeout=timeout, metadata=[("x-word", word)] if word else [])


@pytest.mark.parametrize("batch", ["1", "8"])
def test_a_thousand_cancelled_calls_leave_the_queue(tmp_path: Path, batch: str) -> None:
    with held(tmp_path, SLOW, "--max-batch-size", batch) as server:
        for _ in range(4):  # so many resets at once on one connection would end it
            calls = Calls(server)
            asked = [calls.start() for _ in range(250)]
            wait_until(lambda: in_flight(server) == 251, "all are in")
            for call in asked:
                call.cancel()
            wait_until(lambda: in_flight(server) == 1, "all have left")
            calls.channel.close()
        calls = Calls(server)
        assert answered(server, "grpc-v2", 499) == 1000
        late = calls.start(timeout=0.5)
        assert late.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_until(lambda: answered(server, "grpc-v2", 504) == 1, "the deadline ends it, too")
        staying = calls.start("stays")
        (tmp_path / "open").touch()
        assert staying.result(30).outputs[0].name == "x"
        assert notes(tmp_path) == ["hold", "stays"]
        assert all(call.result(30) for call in [calls.start("") for _ in range(300)])
        full_load(server)
        calls.channel.close()


def test_tasks_of_async_hooks_are_cancelled(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "model", ASLEEP)
    with serving(
        "--model-dir", str(directory), "--param", f"place={tmp_path}",
        "--protocol", "v1,grpc-v2", "--grpc-port", "0", "--max-concurrency", "300",
    ) as server:  # fmt: skip
        calls = Calls(server)
        clients = [asking(server) for _ in range(100)]
        asked = [calls.start() for _ in range(100)]
        wait_until(lambda: in_flight(server) == 200, "all are in")
        for at, client in enumerate(clients):
            leave(client, rudely=bool(at % 2))
        for call in asked:
            call.cancel()
        wait_until(lambda: in_flight(server) == 0, "all have left")
        assert notes(tmp_path) == ["cancelled"] * 200
        assert answered(server, "v1", 499) == answered(server, "grpc-v2", 499) == 100
        full_load(server)
        assert not [line for line in server.lines if '"ERROR"' in line]
        calls.channel.close()


TRANSFORMERS = {
    "plain": "def preprocess(body):\n    return body\n",
    "async": "async def predict(body, context):\n    return await context.predict(body)\n",
    "sync": "def predict(body, context):\n    return context.predict_blocking(body)\n",
}


@pytest.mark.parametrize(
    ("kind", "protocol"), [("plain", "v2"), ("async", "v1"), ("sync", "v1"), ("plain", "grpc-v2")]
)
def test_a_transformers_call_to_its_predictor_ends(
    tmp_path: Path, kind: str, protocol: str
) -> None:
    place = tmp_path / "p"
    behind = write_model(place, ASLEEP)
    front = write_model(tmp_path / "t", TRANSFORMERS[kind])
    with serving(
        "--model-dir", str(behind), "--param", f"place={place}",
        "--protocol", f"v1,{protocol}", "--grpc-port", "0",
    ) as predictor:  # fmt: skip
        port = predictor.grpc_port if protocol == "grpc-v2" else predictor.port
        with serving(
            "--model-dir", str(front), "--predictor-host", f"127.0.0.1:{port}",
            "--predictor-protocol", protocol, "--predictor-headers", "x-word",
            "--protocol", "v1,v2",
        ) as transformer:  # fmt: skip
            tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}
            body = json.dumps({"inputs": [tensor]}).encode()
            head = (
                b"POST /v2/models/model/infer HTTP/1.1\r\nHost: m\r\nX-Word: a\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            )
            sent = request() if protocol == "v1" else head + body
            clients = []
            for _ in range(20):
                client = socket.create_connection(("127.0.0.1", transformer.port), timeout=30)
                client.sendall(sent)
                clients.append(client)
            wait_until(lambda: in_flight(predictor) == 20, "all have arrived")
            for at, client in enumerate(clients):
                leave(client, rudely=bool(at % 2))
            wait_until(lambda: in_flight(predictor) == 0, "the predictor is told")
            assert notes(place) == ["cancelled"] * 20
            wait_until(lambda: in_flight(transformer) == 0, "the transformer is through")
            assert answered(predictor, protocol, 499) == 20
            outer = "v1" if protocol == "v1" else "v2"
            assert answered(transformer, outer, 499) == 20
