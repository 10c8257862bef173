"""Seldon graphs: conversion to TensorFlow Serving, and a graph of four nodes in the router."""

import json
import timeit
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.harness import (
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
    "Four nodes: TRANSFORMER, COMBINER of two MODELs. Every node is an nginx that answers at once:"
    " what is measured is the orchestrator. The peer is one hop through nginx's proxy_pass."
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
        _conversion("the same as tensor", TENSOR, 4.0, options),
    ]
    rows = [row for row in rows if options.wants(row.name)]
    name = "graph of four nodes, 16 clients"
    if options.wants(name):
        rows.append(_graph(name, options))
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
    import sys

    port = free_port()
    spec = {"kind": "SeldonDeployment", "name": "d", "predictors": [{"name": "p", "graph": tree}]}
    env = {"PORT": str(port), "GRAPH_JSON": json.dumps(spec), "HOST": "127.0.0.1"}
    with service([sys.executable, "-m", "router_fn"], port, measured_core(), env) as running:
        yield running
