"""Seldon graphs: conversion to TensorFlow Serving, a graph of four nodes in the router, and four
classes on our servers against the same on seldon-core's microservices (`make peers`)."""

import json
import subprocess
import sys
import tempfile
import timeit
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import (
    ROOT,
    Load,
    Options,
    Row,
    Service,
    free_port,
    measured_core,
    nginx,
    other_core,
    service,
    throughput_row,
    versus,
    wrk,
)
from router_fn.seldon import tfserving

TITLE = "Seldon graphs"
NOTES = (
    "Four nodes: TRANSFORMER, COMBINER of two MODELs. In the first row of the graph every node is"
    " an nginx that answers at once: what is measured is the orchestrator, and the peer is one hop"
    " through nginx's proxy_pass. In the second the nodes are four trivial classes: on `functions"
    " --protocol seldon` behind the router, and on seldon-core-microservice 1.17.1 (one worker"
    " each) behind a client that calls one node after the other. Each side's servers share one"
    " core, and the CPU time is that of all of them."
)

BATCH = json.dumps({"data": {"ndarray": [[[0.5123] * 28] * 28] * 32}}).encode()
TENSOR = json.dumps(
    {"data": {"tensor": {"shape": [32, 28, 28], "values": [0.5123] * (32 * 784)}}}
).encode()
REPLY = json.dumps({"predictions": [[0.1] * 10] * 32}).encode()
MESSAGE = json.dumps({"data": {"ndarray": [[round(n * 0.37, 3) for n in range(120)]]}}).encode()


def run(options: Options) -> list[Row]:
    rows = [
        _conversion("32 digits of 28x28 as ndarray to TensorFlow and back", BATCH, 1.0, options),
        _conversion("the same as tensor", TENSOR, 1.0, options),
    ]
    rows = [row for row in rows if options.wants(row.name)]
    name = "graph of four nodes, 16 clients"
    if options.wants(name):
        rows.append(_graph(name, options))
    name = "four trivial classes, 16 clients"
    if options.wants(name):
        rows.append(_classes(name, options))
    return rows


def _conversion(name: str, body: bytes, ceiling: float, options: Options) -> Row:
    def convert() -> None:
        tfserving.answer_of(tfserving.request_of(body, "serving_default"), 200, REPLY, {})

    best = min(timeit.repeat(convert, number=20, repeat=max(10, 4 * options.rounds))) / 20 * 1e3
    return Row(name=name, ours=best, unit="ms", ceiling=ceiling)


def _graph(name: str, options: Options) -> Row:
    answer = MESSAGE.decode().replace('"', '\\"')
    static = f'location / {{ default_type application/json; return 200 "{answer}"; }}'
    with nginx(static, other_core()) as nodes:

        def unit(node: str, kind: str, *children: object) -> dict[str, object]:
            url = f"{nodes.url}/{node}"
            return {"name": node, "type": kind, "serviceUrl": url, "children": list(children)}

        tree = unit(
            "t", "TRANSFORMER", unit("c", "COMBINER", unit("a", "MODEL"), unit("b", "MODEL"))
        )
        proxy = (
            "location / { proxy_pass http://nodes; proxy_http_version 1.1;"
            ' proxy_set_header Connection ""; }'
        )
        http = f"upstream nodes {{ server 127.0.0.1:{nodes.port}; keepalive 64; }}"
        with _orchestrator(tree) as ours, nginx(proxy, measured_core(), http) as peer:
            path = "/api/v1.0/predictions"
            mine, theirs = versus(
                lambda: wrk(ours, options, clients=16, body=MESSAGE, path=path),
                lambda: wrk(peer, options, clients=16, body=MESSAGE, path=path),
                options,
            )
            return throughput_row(name, mine, theirs, peer="one nginx hop", floor=0.06)


@contextmanager
def _orchestrator(tree: dict[str, object]) -> Iterator[Service]:
    port = free_port()
    spec = {"kind": "SeldonDeployment", "name": "d", "predictors": [{"name": "p", "graph": tree}]}
    env = {"PORT": str(port), "GRAPH_JSON": json.dumps(spec), "HOST": "127.0.0.1"}
    with service([sys.executable, "-m", "router_fn"], port, measured_core(), env) as running:
        yield running


# --- the same classes on seldon-core's microservices ----------------------------------------------

PEER = ROOT / ".venvs" / "seldon-core" / "bin"
CLASSES = """
import numpy as np

class Plus:
    def transform_input(self, X, names):
        return X + 1

class Times:
    def predict(self, X, names, meta=None):
        return X * 2

class Mean:
    def aggregate(self, Xs, names):
        return (Xs[0] + Xs[1]) / 2
"""
NODES = {
    "t": ("Plus", "TRANSFORMER", "/transform-input"),
    "a": ("Times", "MODEL", "/predict"),
    "b": ("Times", "MODEL", "/predict"),
    "c": ("Mean", "COMBINER", "/aggregate"),
}
SEQUENTIAL = """
import http.client, json, sys, time
urls, seconds = json.loads(sys.argv[1]), float(sys.argv[2])
connect = http.client.HTTPConnection
nodes = {name: (connect("127.0.0.1", port), path) for name, (port, path) in urls.items()}
def call(node, body):
    connection, path = nodes[node]
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    return body
def graph(body):
    body = call("t", body)
    a, b = call("a", body), call("b", body)
    return call("c", b"[" + a + b"," + b + b"]")
question = sys.stdin.buffer.read()
took, end = [], time.perf_counter() + seconds
while (began := time.perf_counter()) < end:
    graph(question)
    took.append(time.perf_counter() - began)
print(json.dumps([len(took) / sum(took), sorted(took)[len(took) // 2] * 1e6, len(took)]))
"""


def _classes(name: str, options: Options) -> Row:
    if not (PEER / "seldon-core-microservice").exists():
        raise RuntimeError("seldon-core is not installed: make peers")
    with tempfile.TemporaryDirectory(prefix="bench-seldon-") as folder, ExitStack() as stack:
        Path(folder, "Peers.py").write_text(CLASSES)
        ours = {node: stack.enter_context(_ours(node, folder)) for node in NODES}
        theirs = {node: stack.enter_context(_theirs(node, folder)) for node in NODES}

        def unit(node: str, *children: object) -> dict[str, object]:
            url = ours[node].url
            return {"name": node, "type": NODES[node][1], "serviceUrl": url, "children": children}

        router = stack.enter_context(_orchestrator(unit("t", unit("c", unit("a"), unit("b")))))
        mine, peers = versus(
            lambda: _at_once(router, [router, *ours.values()], options),
            lambda: _sequential(theirs, options),
            options,
        )
        return throughput_row(name, mine, peers, peer="seldon-core, one after the other", floor=5.0)


def _at_once(router: Service, servers: list[Service], options: Options) -> Load:
    before = sum(one.cpu_s() for one in servers)
    load = wrk(router, options, clients=16, body=MESSAGE, path="/api/v1.0/predictions")
    used = sum(one.cpu_s() for one in servers) - before
    answered = load.per_second * max(1.0, options.seconds)
    return replace(load, cpu_us=used / answered * 1e6)


@contextmanager
def _ours(node: str, folder: str) -> Iterator[Service]:
    port = free_port()
    command = [sys.executable, "-m", "functions", "--model-name", node, "--protocol", "seldon"]
    command += ["--model-dir", folder, "--model-class", f"Peers.py:{NODES[node][0]}"]
    env = {"PORT": str(port), "FUNCTIONS_HOST": "127.0.0.1"}
    with service(command, port, measured_core(), env) as running:
        yield running


@contextmanager
def _theirs(node: str, folder: str) -> Iterator[Service]:
    port = free_port()
    cls, kind, _ = NODES[node]
    command = [str(PEER / "seldon-core-microservice"), f"Peers.{cls}", "--service-type", kind]
    env = {
        "PREDICTIVE_UNIT_ID": node,
        "PREDICTIVE_UNIT_HTTP_SERVICE_PORT": str(port),
        "PREDICTIVE_UNIT_GRPC_SERVICE_PORT": str(free_port()),
        "PREDICTIVE_UNIT_METRICS_SERVICE_PORT": str(free_port()),
        "SELDON_LOG_LEVEL": "WARNING",
        "PYTHONPATH": folder,
    }
    with service([*command, "--workers", "1"], port, measured_core(), env) as running:
        yield running


def _sequential(nodes: Mapping[str, Service], options: Options) -> Load:
    before = sum(one.cpu_s() for one in nodes.values())
    urls = json.dumps({node: (one.port, NODES[node][2]) for node, one in nodes.items()})
    done = subprocess.run(
        [
            *("taskset", "-c", str(other_core()), sys.executable, "-c", SEQUENTIAL),
            *(urls, str(max(1.0, options.seconds))),
        ],
        input=MESSAGE,
        capture_output=True,
        check=True,
    )
    rate, p50, count = json.loads(done.stdout)
    used = sum(one.cpu_s() for one in nodes.values()) - before
    return Load(per_second=rate, p50_us=p50, cpu_us=used / count * 1e6, errors=0)
