"""Model server: throughput, latency of large tensors, images a second, start and memory.

The measured server has one core, load comes from another. Ratios are against the least that could
be done around the same library call (`_functions_bare.py`), and against KServe's and Seldon's
servers in virtual environments under `.venvs/` (rows whose peer is not there are left out):

    python -m venv .venvs/kserve && .venvs/kserve/bin/pip install kserve scikit-learn==1.9.1
    python -m venv .venvs/mlserver && .venvs/mlserver/bin/pip install mlserver mlserver-sklearn
"""

import contextlib
import http.client
import json
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

from benchmarks.harness import (
    ROOT,
    Load,
    Options,
    Row,
    Service,
    free_port,
    measured_core,
    other_core,
    service,
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

V1 = b'{"instances":[[6.8,2.8,4.8,1.4]]}'
V2 = b'{"inputs":[{"name":"input-0","shape":[1,4],"datatype":"FP32","data":[6.8,2.8,4.8,1.4]}]}'
V1_PATH, V2_PATH = "/v1/models/iris:predict", "/v2/models/iris/infer"
VENVS = ROOT / ".venvs"

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
            ("iris", lambda: _throughput(iris, options)),
            ("echo", lambda: _large_tensors(work, options)),
            ("photograph", lambda: _photographs(work, options)),
            ("start", lambda: _start(iris, options)),
        )
        for name, part in parts:
            if options.only and not (options.only in name or name in options.only):
                continue
            rows.extend(part())
    return rows


# --- the servers ---


def _iris(work: Path) -> Path:
    import joblib
    from sklearn import datasets, svm

    features, classes = datasets.load_iris(return_X_y=True)
    (work / "iris").mkdir()
    joblib.dump(svm.SVC(gamma="scale").fit(features, classes), work / "iris" / "model.joblib")
    return work / "iris" / "model.joblib"


@contextlib.contextmanager
def ours(*arguments: str, core: int | str | None = None) -> Iterator[Service]:
    """Our server, ready."""
    port = free_port()
    command = [sys.executable, "-m", "functions", "--host", "127.0.0.1", *arguments]
    chosen: Any = measured_core() if core is None else core
    with service(command, port, chosen, {"PORT": str(port)}) as running:
        _wait_ready(port)
        yield running


@contextlib.contextmanager
def bare(kind: str, argument: str = "-") -> Iterator[Service]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks._functions_bare", kind, argument, str(port)]
    with service(command, port, measured_core()) as running:
        yield running


@contextlib.contextmanager
def kserve(file: Path) -> Iterator[Service]:
    port = free_port()
    python = VENVS / "kserve" / "bin" / "python"
    command = [str(python), str(ROOT / "benchmarks" / "_functions_kserve.py"), str(file), str(port)]
    with service(command, port, measured_core()) as running:
        _wait_answer(port, V1_PATH, V1)
        yield running


@contextlib.contextmanager
def mlserver(file: Path) -> Iterator[Service]:
    port, grpc_port, metrics_port = free_port(), free_port(), free_port()
    folder = file.parent / "mlserver"
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text(
        json.dumps(
            {
                "http_port": port,
                "grpc_port": grpc_port,
                "metrics_port": metrics_port,
                "host": "127.0.0.1",
                "parallel_workers": 0,
                "debug": False,
            }
        )
    )
    (folder / "model-settings.json").write_text(
        json.dumps(
            {
                "name": "iris",
                "implementation": "mlserver_sklearn.SKLearnModel",
                "parameters": {"uri": str(file)},
            }
        )
    )
    command = [str(VENVS / "mlserver" / "bin" / "mlserver"), "start", str(folder)]
    with service(command, port, measured_core()) as running:
        _wait_answer(port, V2_PATH, V2)
        yield running


def _wait_ready(port: int) -> None:
    _poll(lambda: _request(port, "GET", "/readyz", b"") == 200)


def _wait_answer(port: int, path: str, body: bytes) -> None:
    _poll(lambda: _request(port, "POST", path, body) == 200)


def _poll(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if condition():
                return
        time.sleep(0.005)
    raise RuntimeError(f"not ready after {seconds:g} s")


def _request(port: int, method: str, path: str, body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body or None, {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


# --- iris ---


def _throughput(file: Path, options: Options) -> list[Row]:
    rows = []

    def load(target: Service, body: bytes, path: str) -> Callable[[], Load]:
        return lambda: wrk(target, options, clients=16, body=body, path=path)

    arguments = ("--model-name", "iris", "--model-dir", str(file.parent))
    batching = ("--max-batch-size", "64")
    with ours(*arguments) as plain, ours(*arguments, *batching) as batched:
        with bare("iris", str(file)) as limit:
            for name, body, path in (("V1", V1, V1_PATH), ("V2 JSON", V2, V2_PATH)):
                a, b = versus(load(plain, body, path), load(limit, body, path), options)
                label = f"iris {name}, one row, 16 clients"
                rows.append(throughput_row(label, a, b, peer="bare loop", floor=0.9))
        if (VENVS / "kserve").exists():
            with kserve(file) as peer:
                for name, body, path, floor in (
                    ("V1", V1, V1_PATH, 2.4),
                    ("V2 JSON", V2, V2_PATH, 3.3),
                ):
                    a, b = versus(load(plain, body, path), load(peer, body, path), options)
                    label = f"iris {name}, 16 clients, against kserve"
                    rows.append(throughput_row(label, a, b, peer="kserve", floor=floor))
                a, b = versus(load(batched, V1, V1_PATH), load(peer, V1, V1_PATH), options)
                label = "iris V1, 16 clients, adaptive batching"
                rows.append(throughput_row(label, a, b, peer="kserve", floor=5.0))
        if (VENVS / "mlserver").exists():
            with mlserver(file) as peer:
                a, b = versus(load(plain, V2, V2_PATH), load(peer, V2, V2_PATH), options)
                label = "iris V2 JSON, 16 clients, against mlserver"
                rows.append(throughput_row(label, a, b, peer="mlserver", floor=1.0))
    return rows


# --- large tensors ---


def _large_tensors(work: Path, options: Options) -> list[Row]:
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
        binary = _http_request(
            "/v2/models/copy/infer",
            head + array.tobytes(),
            "Content-Type: application/octet-stream\r\n"
            f"Inference-Header-Content-Length: {len(head)}\r\n",
        )
        limit_body = _http_request("/", orjson.dumps({"inputs": [tensor]}) + array.tobytes())
        a, b = _alternating(
            lambda: _latency(server.port, binary, rounds),
            lambda: _latency(limit.port, limit_body, rounds),
            options.rounds,
        )
        rows.append(_latency_row("1x3x224x224 FP32, V2 binary, p50", a, b, "bare loop", 1.5))
        a, b = _alternating(
            lambda: _grpc_latency(grpc_port, "copy", array.tobytes(), rounds),
            lambda: _grpc_latency(grpc_limit.port, "copy", array.tobytes(), rounds),
            options.rounds,
        )
        rows.append(_latency_row("1x3x224x224 FP32, V2 gRPC, p50", a, b, "bare grpcio", 1.3))
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


# --- photographs ---

_RAW = """
import base64, json, sys, time
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(int(sys.argv[4]))
from functions.runtimes import mar, torchserve
from pathlib import Path
archive = mar.unpack(Path(sys.argv[2]))
context = torchserve.Context("m", archive.directory, archive.manifest, {})
handle, initialize, _ = torchserve.load_entry(archive.model["handler"], archive.directory)
initialize(context)
instances = json.loads(open(sys.argv[3]).read())["instances"]
context.request_processor = [torchserve.RequestProcessor({})]
for _ in range(3): handle(instances, context)
end, n, since = time.perf_counter() + float(sys.argv[5]), 0, time.perf_counter()
while time.perf_counter() < end:
    handle(instances, context); n += 1
print(n / (time.perf_counter() - since))
archive.close()
"""


def _photographs(work: Path, options: Options) -> list[Row]:
    """The animal classifier of the examples: EfficientNet-Lite0 and a real photograph."""
    store = work / "photo"
    example = ROOT / "examples" / "animal-plant" / "models" / "animal-classifier"
    command = [
        str(Path(sys.executable).with_name("turnout")),
        "package",
        str(example),
        "-o",
        str(store),
    ]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    (archive,) = store.rglob("*.mar")
    body = work / "photo.json"
    body.write_bytes(_cat())
    seconds = str(max(2.0, options.seconds))
    rows = []

    def raw(core: str, threads: int) -> float:
        command = [
            "taskset",
            "-c",
            core,
            sys.executable,
            "-c",
            _RAW,
            str(ROOT),
            str(archive),
            str(body),
            str(threads),
            seconds,
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        return float(done.stdout.splitlines()[-1])

    arguments = ("--model-name", "m", "--model-dir", str(archive.parent))
    path, content = "/v1/models/m:predict", body.read_bytes()
    one_core = str(measured_core())
    with ours(*arguments, "--cpu-threads", "1") as server:
        for clients in (1, 8):
            pairs = [
                (
                    _images(server, options, clients, content, path),
                    raw(one_core, 1),
                )
                for _ in range(options.rounds)
            ]
            ratio = statistics.median(a / b for a, b in pairs)
            rows.append(
                Row(
                    name=f"EfficientNet-Lite0 photograph, {clients} clients, one core",
                    ours=statistics.median(a for a, _ in pairs),
                    unit="images/s",
                    peer="raw torch loop",
                    peers=statistics.median(b for _, b in pairs),
                    ratio=ratio,
                    floor=0.97,
                )
            )
        single = rows[-1].ours
    both = f"{measured_core()},{other_core()}"
    for name, extra in (("two cores, two workers", ("--workers", "2")),):
        with ours(*arguments, *extra, core=both) as server:
            _wait_ready(server.port)
            found = [_images(server, options, 8, content, path) for _ in range(options.rounds)]
            value = statistics.median(found)
            rows.append(
                Row(
                    name=f"EfficientNet-Lite0 photograph, 8 clients, {name}",
                    ours=value,
                    unit="images/s",
                    peer="ours on one core",
                    peers=single,
                    ratio=value / single,
                    floor=1.8 if "workers" in name else None,
                    note="the load generator shares these cores",
                )
            )
    return rows


def _images(server: Service, options: Options, clients: int, body: bytes, path: str) -> float:
    load = wrk(server, options, clients=clients, body=body, path=path)
    if load.errors:
        raise RuntimeError(f"{load.errors} requests failed")
    return load.per_second


def _cat() -> bytes:
    import base64
    from importlib.util import find_spec

    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    picture = Path(spec.origin).parent / "data" / "chelsea.png"
    return json.dumps(
        {"instances": [{"data": base64.b64encode(picture.read_bytes()).decode()}]}
    ).encode()


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
        "import functions.server,functions.worker,functions.front; print(time.perf_counter()-t,"
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
                    status = _request(port, "POST", V1_PATH, V1)
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
