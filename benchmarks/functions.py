"""Model server: throughput, latency of large tensors, images a second, start and memory.

The measured server has one core, load comes from another. Ratios are against the least that could
be done around the same library call (`_functions_bare.py`), and against other model servers as far
as they are installed (`_functions_peers.py`).
"""

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _functions_photo
from benchmarks._functions_peers import (
    V1,
    V1_PATH,
    V2,
    V2_PATH,
    archive_iris,
    bare,
    has_torchserve,
    installed,
    kserve,
    mlserver,
    ours,
    pytriton,
    request,
    torchserve,
)
from benchmarks.harness import (
    ROOT,
    Options,
    Row,
    Service,
    free_port,
    measured_core,
    other_core,
    throughput_row,
    versus,
    wrk,
)

TITLE = "functions: the model server"
NOTES = (
    "iris: scikit-learn SVC, one row a request. echo: a user's class that returns its"
    " 1x3x224x224 FP32"
    " tensor. Bare loop: uvloop + httptools + orjson around the library call, no checks at all."
)

ECHO = (
    "from functions import InferResponse\n"
    "class Echo:\n"
    "    def predict(self, request, headers=None):\n"
    "        return InferResponse('', '', request.inputs)\n"
)
COPY = (
    "class Copy:\n"
    "    def predict(self, request, headers=None):\n"
    "        return {t.name: t.as_numpy() for t in request.inputs}\n"
)


def run(options: Options) -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-functions-") as folder:
        work = Path(folder)
        iris = _iris(work)
        parts: Sequence[tuple[str, Callable[[], list[Row]]]] = (
            ("iris", lambda: _throughput(work, iris, options)),
            ("echo", lambda: _large_tensors(work, iris, options)),
            ("photograph", lambda: _functions_photo.run(work, options)),
            ("start", lambda: _start(iris, options)),
        )
        for name, part in parts:
            if options.only and not (options.only in name or name in options.only):
                continue
            rows.extend(part())
    return rows


def _iris(work: Path) -> Path:
    import joblib
    from sklearn import datasets, svm

    features, classes = datasets.load_iris(return_X_y=True)
    (work / "iris").mkdir()
    joblib.dump(svm.SVC(gamma="scale").fit(features, classes), work / "iris" / "model.joblib")
    return work / "iris" / "model.joblib"


# --- iris ---


def _throughput(work: Path, file: Path, options: Options) -> list[Row]:
    rows = []

    def compare(
        label: str, target: Service, peer: Service, body: bytes, path: str, name: str, floor: float
    ) -> None:
        a, b = versus(
            lambda: wrk(target, options, clients=16, body=body, path=path),
            lambda: wrk(peer, options, clients=16, body=body, path=path),
            options,
        )
        rows.append(throughput_row(label, a, b, peer=name, floor=floor))

    arguments = ("--model-name", "iris", "--model-dir", str(file.parent))
    with ours(*arguments) as plain, ours(*arguments, "--max-batch-size", "64") as batched:
        with bare("iris", str(file)) as limit:
            for name, body, path in (("V1", V1, V1_PATH), ("V2 JSON", V2, V2_PATH)):
                label = f"iris {name}, one row, 16 clients"
                compare(label, plain, limit, body, path, "bare loop", 0.9)
        if installed("kserve"):
            with kserve(file) as peer:
                compare("iris V1, 16 clients", plain, peer, V1, V1_PATH, "kserve", 2.4)
                compare("iris V2 JSON, 16 clients", plain, peer, V2, V2_PATH, "kserve", 3.3)
                label = "iris V1, 16 clients, adaptive batching"
                compare(label, batched, peer, V1, V1_PATH, "kserve", 5.0)
        if installed("mlserver"):
            with mlserver(file) as peer:
                compare("iris V2 JSON, 16 clients", plain, peer, V2, V2_PATH, "mlserver", 1.0)
        if installed("pytriton"):
            with pytriton(file) as (peer, _):
                compare("iris V2 JSON, 16 clients", plain, peer, V2, V2_PATH, "pytriton", 1.6)
        if has_torchserve():
            archive = archive_iris(work, file)
            with torchserve(work, "iris", archive, V1_PATH, V1) as peer:
                compare("iris V1, 16 clients", plain, peer, V1, V1_PATH, "torchserve", 1.0)
    return rows


# --- large tensors ---


def _large_tensors(work: Path, file: Path, options: Options) -> list[Row]:
    import numpy as np
    import orjson

    array = np.random.default_rng(0).random((1, 3, 224, 224), dtype=np.float32)
    (work / "echo").mkdir()
    (work / "echo" / "model.py").write_text(ECHO)
    (work / "copy").mkdir()
    (work / "copy" / "model.py").write_text(COPY)
    grpc_port = free_port()
    arguments = (
        "--model",
        f"echo={work / 'echo'}",
        "--model",
        f"copy={work / 'copy'}",
        "--protocol",
        "v2,grpc-v2",
        "--grpc-port",
        str(grpc_port),
    )
    tensor = {"name": "x", "shape": [1, 3, 224, 224], "datatype": "FP32"}
    numpy_option = orjson.OPT_SERIALIZE_NUMPY
    text = orjson.dumps({"inputs": [{**tensor, "data": array.ravel()}]}, option=numpy_option)
    head = orjson.dumps(
        {
            "parameters": {"binary_data_output": True},
            "inputs": [{**tensor, "parameters": {"binary_data_size": array.nbytes}}],
        }
    )
    rounds = max(20, int(options.seconds * 20))

    def parse_and_write() -> float:
        parse = _p50(lambda: orjson.loads(text), rounds)
        return parse + _p50(lambda: orjson.dumps(array.ravel(), option=numpy_option), rounds)

    rows = []
    with ours(*arguments) as server, bare("echo") as limit, bare("grpc") as grpc_limit:
        for model in ("echo", "copy"):
            sent = _http_request(f"/v2/models/{model}/infer", text)
            a, b = _alternating(
                lambda sent=sent: _latency(server.port, sent, rounds),
                parse_and_write,
                options.rounds,
            )
            how = "passed through" if model == "echo" else "through numpy and back"
            name = f"1x3x224x224 FP32, V2 JSON, {how}, p50"
            rows.append(_latency_row(name, a, b, "orjson parse + numpy write", 1.3))
        raw = array.tobytes()
        binary = _http_request(
            "/v2/models/copy/infer",
            head + raw,
            "Content-Type: application/octet-stream\r\n"
            f"Inference-Header-Content-Length: {len(head)}\r\n",
        )
        limit_body = _http_request("/", orjson.dumps({"inputs": [tensor]}) + raw)
        a, b = _alternating(
            lambda: _latency(server.port, binary, rounds),
            lambda: _latency(limit.port, limit_body, rounds),
            options.rounds,
        )
        rows.append(_latency_row("1x3x224x224 FP32, V2 binary, p50", a, b, "bare loop", 1.5))
        a, b = _alternating(
            lambda: _grpc_latency(grpc_port, "copy", raw, rounds),
            lambda: _grpc_latency(grpc_limit.port, "copy", raw, rounds),
            options.rounds,
        )
        rows.append(_latency_row("1x3x224x224 FP32, V2 gRPC, p50", a, b, "bare grpcio", 1.3))
        if installed("pytriton"):
            with pytriton(file) as (peer, peer_grpc):
                for kind, measure, limit_ratio in (
                    ("JSON", lambda port, _: _latency(port, sent, rounds), 1.0),
                    ("binary", lambda port, _: _latency(port, binary, rounds), 1.0),
                    ("gRPC", lambda _, port: _grpc_latency(port, "copy", raw, rounds), 1.0),
                ):
                    a, b = _alternating(
                        lambda measure=measure: measure(server.port, grpc_port),
                        lambda measure=measure: measure(peer.port, peer_grpc),
                        options.rounds,
                    )
                    name = f"1x3x224x224 FP32, V2 {kind}, p50"
                    rows.append(_latency_row(name, a, b, "pytriton", limit_ratio))
    return rows


def _latency_row(name: str, a: list[float], b: list[float], peer: str, ceiling: float) -> Row:
    ratio = statistics.median(x / y for x, y in zip(a, b, strict=True))
    return Row(
        name=name,
        ours=statistics.median(a) * 1e3,
        unit="ms",
        peer=peer,
        peers=statistics.median(b) * 1e3,
        ratio=ratio,
        ceiling=ceiling,
    )


def _alternating(
    a: Callable[[], float], b: Callable[[], float], rounds: int
) -> tuple[list[float], list[float]]:
    a()
    b()
    pairs = [(a(), b()) for _ in range(rounds)]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _p50(function: Callable[[], Any], rounds: int) -> float:
    with _pinned(measured_core()):
        times = []
        for _ in range(rounds):
            since = time.perf_counter()
            function()
            times.append(time.perf_counter() - since)
    return statistics.median(times)


@contextlib.contextmanager
def _pinned(core: int) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _http_request(path: str, body: bytes, headers: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def _latency(port: int, request: bytes, rounds: int) -> float:
    """p50 of one client on one connection, in seconds."""
    times = []
    buffer = bytearray(1 << 22)
    with _pinned(other_core()), socket.create_connection(("127.0.0.1", port), 30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(rounds + 3):
            since = time.perf_counter()
            client.sendall(request)
            _read_answer(client, buffer)
            times.append(time.perf_counter() - since)
    return statistics.median(times[3:])


def _read_answer(client: socket.socket, buffer: bytearray) -> None:
    view, have, need = memoryview(buffer), 0, -1
    while need < 0 or have < need:
        got = client.recv_into(view[have:])
        if not got:
            raise RuntimeError("the server closed the connection")
        have += got
        if need < 0:
            end = buffer.find(b"\r\n\r\n", 0, have)
            if end >= 0:
                head = bytes(buffer[:end]).lower()
                if not head.startswith(b"http/1.1 200"):
                    raise RuntimeError(bytes(buffer[:have]).decode(errors="replace")[:500])
                need = end + 4 + int(head.split(b"\r\ncontent-length:")[1].split(b"\r\n")[0])


def _grpc_latency(port: int, model: str, raw: bytes, rounds: int) -> float:
    import grpc

    from functions import oip

    request = oip.ModelInferRequest(model_name=model, raw_input_contents=[raw])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 3, 224, 224])
    times = []
    options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
    with _pinned(other_core()), grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        infer = channel.unary_unary(
            f"/{oip.SERVICE}/ModelInfer",
            request_serializer=oip.ModelInferRequest.SerializeToString,
            response_deserializer=oip.ModelInferResponse.FromString,
        )
        for _ in range(rounds + 3):
            since = time.perf_counter()
            infer(request, timeout=30)
            times.append(time.perf_counter() - since)
    return statistics.median(times[3:])


# --- start and memory ---


def _start(file: Path, options: Options) -> list[Row]:
    first: list[tuple[float, float]] = []
    listening: list[float] = []
    memory: list[tuple[float, float]] = []
    arguments = [
        "-m",
        "functions",
        "--host",
        "127.0.0.1",
        "--model-name",
        "iris",
        "--model-dir",
        str(file.parent),
    ]
    for _ in range(options.rounds + 1):
        port = free_port()
        own, bound, own_pss = _spawn([*arguments, "--port", str(port)], port)
        port = free_port()
        limit, _, limit_pss = _spawn(
            ["-m", "benchmarks._functions_bare", "iris", str(file), str(port)], port
        )
        first.append((own, limit))
        listening.append(bound)
        memory.append((own_pss, limit_pss))
    first, listening, memory = first[1:], listening[1:], memory[1:]
    code = (
        "import time; t=time.perf_counter();"
        "import functions.server,functions.worker,functions.serving; print(time.perf_counter()-t,"
        "int(open('/proc/self/status').read().split('VmRSS:')[1].split()[0])/1024)"
    )
    done = [
        subprocess.run(
            ["taskset", "-c", str(measured_core()), sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
        ).stdout.split()
        for _ in range(options.rounds)
    ]
    return [
        Row(
            name="spawn to first answer, iris",
            ours=statistics.median(a for a, _ in first),
            unit="s",
            peer="bare loop",
            peers=statistics.median(b for _, b in first),
            ratio=statistics.median(a / b for a, b in first),
            ceiling=1.1,
        ),
        Row(name="spawn to listening", ours=statistics.median(listening), unit="s", ceiling=0.4),
        Row(
            name="memory after load, iris (PSS of the tree)",
            ours=statistics.median(a for a, _ in memory),
            unit="MB",
            peer="bare loop",
            peers=statistics.median(b for _, b in memory),
            ratio=statistics.median(a / b for a, b in memory),
            ceiling=1.15,
        ),
        Row(
            name="import of the server before a model library",
            ours=min(float(t) for t, _ in done),
            unit="s",
            ceiling=0.35,
        ),
        Row(
            name="memory of the server before a model library",
            ours=min(float(m) for _, m in done),
            unit="MB",
            ceiling=50.0,
        ),
    ]


def _spawn(arguments: list[str], port: int) -> tuple[float, float, float]:
    """(seconds to the first answer, seconds to listening, PSS in MB after it)."""
    since = time.perf_counter()
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = ["taskset", "-c", str(measured_core()), sys.executable, *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        bound = 0.0
        with _pinned(other_core()):
            while time.perf_counter() - since < 60:
                try:
                    status = request(port, "POST", V1_PATH, V1)
                except OSError:
                    time.sleep(0.002)
                    continue
                bound = bound or time.perf_counter() - since
                if status == 200:
                    break
                time.sleep(0.002)
        answered = time.perf_counter() - since
        return answered, bound, _pss(Service(port, process))
    finally:
        process.terminate()
        process.wait(20)


def _pss(target: Service) -> float:
    total = 0
    for pid in target.pids():
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += int(text.split("\nPss:")[1].split()[0])
    return total / 1024
