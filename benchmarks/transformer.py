"""Transformers: the call to the predictor, end to end, its CPU, and 64 requests at once.

The same transformer and predictor classes (`_transformer_hooks.py`: pass on, echo) run on our
server and on KServe's, which comes from a virtual environment (its rows are left out without it):

    python -m venv .venvs/kserve && .venvs/kserve/bin/pip install kserve

The transformer has one core, predictor and client the other. Calls go one after the other; the
client sends the tensor in the protocol that the transformer speaks to its predictor.
"""

import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.harness import (
    ROOT,
    Options,
    Row,
    Service,
    free_port,
    measured_core,
    other_core,
    service,
    wait_for_port,
)

TITLE = "functions: transformers and the hop to the predictor"
NOTES = (
    "Hop: p50 of the transformer's call to its predictor, from the end of `preprocess` to the start"
    " of `postprocess`. End to end: p50 at the client. Bare: a grpc.aio client and server that echo"
    " the same tensor. Added CPU: of the transformer's process a request, beyond that of the same"
    " server answering by itself; in parentheses the whole."
)

VENV = ROOT / ".venvs" / "kserve" / "bin" / "python"
SIDES = (32, 224)
HOOKS = str(ROOT / "benchmarks" / "_transformer_hooks.py")
CLIENTS = 64

KINDS = {"V1": "v1", "V2 JSON": "v2", "V2 binary": "v2", "gRPC": "grpc-v2"}
"""What is measured -> KServe's name of the protocol."""


def run(options: Options) -> list[Row]:
    kept = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {other_core()})
    try:
        rows: list[Row] = []
        if options.only in ("", "hop") or options.only.startswith("3x"):
            rows += _hops(options)
        if options.only in ("", "cpu"):
            rows += _cpu(options)
        if options.only in ("", "concurrent"):
            rows += _concurrent(options)
        return rows
    finally:
        os.sched_setaffinity(0, kept)


# --- servers ---


class Stack:
    """A transformer, its predictor behind it, and a way to call it."""

    def __init__(self, front: Service, grpc_port: int, kind: str) -> None:
        self.front = front
        self._kind = kind
        self._http = http.client.HTTPConnection("127.0.0.1", front.port, timeout=60)
        self._channel: Any = None
        if kind == "gRPC":
            import grpc

            from benchmarks._transformer_bare import METHOD, OPTIONS

            channel = grpc.insecure_channel(f"127.0.0.1:{grpc_port}", options=OPTIONS)
            self._channel = channel.unary_unary(METHOD)

    def caller(self, side: int) -> Callable[[], float]:
        """A function that makes one call and returns the hop's microseconds."""
        array = np.random.default_rng(0).random((1, 3, side, side), dtype=np.float32)
        if self._kind == "gRPC":
            return self._grpc_caller(side)
        path, headers = "/v2/models/m/infer", {"content-type": "application/json"}
        if self._kind == "V1":
            path = "/v1/models/m:predict"
            body = json.dumps({"instances": array.tolist()}).encode()
        else:
            tensor: Any = {"name": "x", "shape": list(array.shape), "datatype": "FP32"}
            document: Any = {"id": "1", "inputs": [tensor]}
            if self._kind == "V2 JSON":
                tensor["data"] = array.ravel().tolist()
                body = json.dumps(document).encode()
            else:
                raw = array.tobytes()
                tensor["parameters"] = {"binary_data_size": len(raw)}
                document["parameters"] = {"binary_data_output": True}
                text = json.dumps(document).encode()
                headers = {
                    "content-type": "application/octet-stream",
                    "inference-header-content-length": str(len(text)),
                }
                body = text + raw
        is_v1 = self._kind == "V1"

        def call() -> float:
            self._http.request("POST", path, body, headers)
            reply = self._http.getresponse()
            data = reply.read()
            if reply.status != 200:
                raise RuntimeError(f"{reply.status} {data[:300]!r}")
            length = reply.headers.get("inference-header-content-length")
            answer = json.loads(data[: int(length)] if length else data)
            return float(answer["hop_us"] if is_v1 else answer["parameters"]["hop_us"])

        return call

    def _grpc_caller(self, side: int) -> Callable[[], float]:
        from benchmarks._transformer_bare import request
        from functions import oip

        body = request(side).SerializeToString()

        def call() -> float:
            answer = oip.ModelInferResponse.FromString(self._channel(body))
            return float(answer.parameters["hop_us"].int64_param)

        return call


@contextlib.contextmanager
def _ours(
    name: str, core: int, *arguments: str, grpc: bool = True
) -> Iterator[tuple[Service, int]]:
    """Our server around a class of `_transformer_hooks`."""
    port, grpc_port = free_port(), free_port()
    command = [
        sys.executable, "-m", "functions", "--host", "127.0.0.1", "--model-name", "m",
        "--model-class", f"{HOOKS}:{name}", "--grpc-port", str(grpc_port),
        "--protocol", "v1,v2,grpc-v2" if grpc else "v1,v2", *arguments,
    ]  # fmt: skip
    with service(command, port, core, {"PORT": str(port)}) as running:
        _wait_ready(port)
        yield running, grpc_port


@contextlib.contextmanager
def _kserve(name: str, core: int, *arguments: str) -> Iterator[tuple[Service, int]]:
    port, grpc_port = free_port(), free_port()
    command = [
        str(VENV), str(ROOT / "benchmarks" / "_transformer_kserve.py"), name, "--model_name", "m",
        "--http_port", str(port), "--grpc_port", str(grpc_port), *arguments,
    ]  # fmt: skip
    with service(command, port, core) as running:
        wait_for_port(grpc_port, running.process)
        yield running, grpc_port


def _wait_ready(port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.05)
    raise RuntimeError("the server did not get ready")


@contextlib.contextmanager
def _our_stacks(name: str, behind: str, kinds: tuple[str, ...]) -> Iterator[dict[str, Stack]]:
    with contextlib.ExitStack() as stack:
        predictor, grpc_port = stack.enter_context(_ours(behind, other_core()))
        found = {}
        for kind in kinds:
            port = grpc_port if kind == "gRPC" else predictor.port
            front, front_grpc = stack.enter_context(
                _ours(
                    name,
                    measured_core(),
                    "--predictor-host",
                    f"127.0.0.1:{port}",
                    "--predictor-protocol",
                    KINDS[kind],
                    "--predictor-binary",
                    str(kind == "V2 binary").lower(),
                )
            )
            found[kind] = Stack(front, front_grpc, kind)
        yield found


@contextlib.contextmanager
def _kserve_stacks(name: str, behind: str, kinds: tuple[str, ...]) -> Iterator[dict[str, Stack]]:
    if not VENV.exists():
        yield {}
        return
    with contextlib.ExitStack() as stack:
        predictor, grpc_port = stack.enter_context(_kserve(behind, other_core()))
        found = {}
        for kind in kinds:
            port = grpc_port if kind == "gRPC" else predictor.port
            front, front_grpc = stack.enter_context(
                _kserve(
                    name,
                    measured_core(),
                    "--predictor_host",
                    f"127.0.0.1:{port}",
                    "--predictor_protocol",
                    KINDS[kind],
                )
            )
            found[kind] = Stack(front, front_grpc, kind)
        yield found


# --- hop and end to end ---


def _timed(call: Callable[[], float], seconds: float) -> tuple[float, float]:
    """(p50 of the hop, p50 end to end) in microseconds."""
    hops, whole = [], []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(whole) < 10:
        since = time.perf_counter()
        hops.append(call())
        whole.append((time.perf_counter() - since) * 1e6)
    return statistics.median(hops), statistics.median(whole)


def _bare(port: int, side: int, seconds: float) -> float:
    command = ["taskset", "-c", str(measured_core()), sys.executable, "-m"]
    command += ["benchmarks._transformer_bare", "call", str(port), str(side), f"{seconds:g}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _hops(options: Options) -> list[Row]:
    bare_port = free_port()
    serve = [sys.executable, "-m", "benchmarks._transformer_bare", "serve", str(bare_port)]
    kserves = tuple(kind for kind in KINDS if kind != "V2 binary")
    with (
        service(serve, bare_port, other_core()),
        _our_stacks("Timed", "Echo", tuple(KINDS)) as ours,
        _kserve_stacks("Timed", "Echo", kserves) as theirs,
    ):
        rows = []
        for side in SIDES:
            label = f"3x{side}x{side}"
            if options.only.startswith("3x") and options.only != label:
                continue
            measured = _rounds(ours, theirs, bare_port, side, options)
            rows += _rows(label, side, measured)
        return rows


Samples = dict[tuple[str, str], list[tuple[float, float]]]
"""(whose, kind) -> for each round, hop and end to end."""


def _rounds(
    ours: dict[str, Stack], theirs: dict[str, Stack], bare_port: int, side: int, options: Options
) -> Samples:
    calls = {("ours", kind): stack.caller(side) for kind, stack in ours.items()}
    calls |= {("kserve", kind): stack.caller(side) for kind, stack in theirs.items()}
    for call in calls.values():
        _timed(call, 0.0)  # warm
    found: Samples = {key: [] for key in (*calls, ("bare", "gRPC"))}
    for _ in range(options.rounds):
        for key, call in calls.items():
            found[key].append(_timed(call, options.seconds))
        bare = _bare(bare_port, side, options.seconds)
        found["bare", "gRPC"].append((bare, bare))
    return found


def _rows(label: str, side: int, samples: Samples) -> list[Row]:
    rows = []

    def add(name: str, at: int, ours: str, whose: str, theirs: str, ceiling: float | None) -> None:
        peers = samples.get((whose, theirs))
        if not peers:
            return
        pairs = list(zip(samples["ours", ours], peers, strict=True))
        rows.append(
            Row(
                name=f"{label} {name}",
                ours=statistics.median(a[at] for a, _ in pairs) / 1000,
                unit="ms",
                peer=f"{'our' if whose == 'ours' else whose} {theirs}",
                peers=statistics.median(b[at] for _, b in pairs) / 1000,
                ratio=statistics.median(a[at] / b[at] for a, b in pairs),
                ceiling=ceiling,
            )
        )

    add("hop, V1", 0, "V1", "kserve", "V1", None)
    add("hop, V2 JSON", 0, "V2 JSON", "kserve", "V2 JSON", None)
    add("hop, V2 binary", 0, "V2 binary", "ours", "gRPC", 1.1)
    add("hop, V2 binary", 0, "V2 binary", "kserve", "V2 JSON", 1 / 30 if side == 224 else None)
    add("hop, gRPC", 0, "gRPC", "bare", "gRPC", 1.3)
    add("hop, gRPC", 0, "gRPC", "kserve", "gRPC", 0.6)
    for kind in KINDS:
        theirs = "V2 JSON" if kind == "V2 binary" else kind
        add(f"end to end, {kind}", 1, kind, "kserve", theirs, None)
    return rows


# --- CPU ---


def _cpu(options: Options) -> list[Row]:
    rows = []
    with (
        _our_stacks("Timed", "Echo", tuple(KINDS)) as ours,
        _kserve_stacks("Timed", "Echo", ("V1", "V2 JSON", "gRPC")) as theirs,
        _ours("Alone", measured_core()) as (alone, alone_grpc),
    ):
        for side in SIDES:
            for kind, stack in ours.items():
                whole = _cpu_us(stack, side, options)
                base = _cpu_us(Stack(alone, alone_grpc, kind), side, options)
                peer = theirs.get(kind)
                note = f"({whole:.0f} us with its own serving)"
                if peer is not None:
                    note += f"; kserve's whole transformer {_cpu_us(peer, side, options):.0f} us"
                rows.append(
                    Row(
                        name=f"3x{side}x{side} added CPU of the hop, {kind}",
                        ours=max(0.0, whole - base),
                        unit="us/request",
                        note=note,
                    )
                )
    return rows


def _cpu_us(stack: Stack, side: int, options: Options) -> float:
    call = stack.caller(side)
    call()
    before, count = stack.front.cpu_s(), 0
    end = time.perf_counter() + max(1.0, options.seconds)
    while time.perf_counter() < end:
        call()
        count += 1
    return (stack.front.cpu_s() - before) / count * 1e6


# --- many at once ---


def _concurrent(options: Options) -> list[Row]:
    rows = []
    for hooks, label in (("Timed", "async"), ("Blocking", "sync")):
        kinds = ("V1", "V2 binary", "gRPC")
        with (
            _our_stacks(hooks, "Slow", kinds) as ours,
            _kserve_stacks(hooks, "Slow", ("V1", "gRPC")) as theirs,
        ):
            for kind in kinds:
                walls = [_wall_s(ours[kind]) for _ in range(max(2, options.rounds))]
                peer = theirs.get(kind)
                peers = [_wall_s(peer) for _ in walls] if peer is not None else []
                wall = statistics.median(walls[1:])
                note = "all answered; one after the other would take 3200 ms"
                if peers:
                    note += f"; kserve {statistics.median(peers[1:]) * 1000:.0f} ms"
                rows.append(
                    Row(
                        name=f"{CLIENTS} at once through a 50 ms predictor, {kind}, {label} hooks",
                        ours=wall * 1000,
                        unit="ms",
                        ceiling=4 * 50,
                        note=note,
                    )
                )
    return rows


def _wall_s(stack: Stack) -> float:
    """Seconds until 64 simultaneous requests are answered. One thread and connection each."""
    kind, front = stack._kind, stack.front
    body = b'{"instances":[[1.0,2.0]]}'
    headers = {"content-type": "application/json"}
    path = "/v1/models/m:predict"
    if kind != "V1":
        tensor = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]}
        body, path = json.dumps({"inputs": [tensor]}).encode(), "/v2/models/m/infer"
    connections = [
        http.client.HTTPConnection("127.0.0.1", front.port, timeout=60) for _ in range(CLIENTS)
    ]
    for connection in connections:
        connection.connect()

    def one(connection: http.client.HTTPConnection) -> int:
        connection.request("POST", path, body, headers)
        reply = connection.getresponse()
        reply.read()
        return reply.status

    with ThreadPoolExecutor(CLIENTS) as pool:
        since = time.perf_counter()
        statuses = list(pool.map(one, connections))
        wall = time.perf_counter() - since
    for connection in connections:
        connection.close()
    if set(statuses) != {200}:
        raise RuntimeError(f"statuses {sorted(set(statuses))}")
    return wall
