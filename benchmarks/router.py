"""The router against nginx `proxy_pass`, and against the same router written with Flask and
requests.

Upstream and load share one core; what is measured has the other for itself.
"""

import asyncio
import contextlib
import functools
import json
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

from benchmarks import _soak, harness
from benchmarks.harness import Options, Row, Service

TITLE = "Router"

NOTES = """
How to read this: nginx and the router take turns on one core; wrk and the upstream (a second nginx)
have the other. Ratios are medians over the rounds. The router spends its time in Python, nginx in
the kernel, so busy neighbours (caches, the second hyper-thread) cost the router more than nginx:
look at the load in the line above before comparing two runs. Requests and answers are 1 KB of JSON
numbers, every answer is checked to be JSON, and wrk's clients repeat their request head, as
keep-alive clients do; a head never seen before costs the router about 10 us more.
"""

_PREDICTIONS = [round(0.0001 * i, 4) for i in range(130)]
ANSWER = json.dumps({"predictions": [_PREDICTIONS]}).encode()
"""What the upstream always says: about 1 KB of JSON."""
BODY = json.dumps({"kind": "C", "instances": [[round(0.001 * i, 3) for i in range(150)]]}).encode()
"""The request: about 1 KB of JSON."""
BIG = json.dumps({"instances": ["x" * (1 << 20)]}).encode()

LONG_RUN_S = 600.0

FLASK_ROUTER = """
import os, requests
from flask import Flask, request, Response
app, session = Flask(__name__), requests.Session()
@app.route("/", defaults={"path": ""}, methods=["POST"])
@app.route("/<path:path>", methods=["POST"])
def route(path):
    answer = session.post(os.environ["UPSTREAM"], data=request.get_data(),
                          headers={"Content-Type": "application/json"})
    return Response(answer.content, answer.status_code, content_type="application/json")
"""


def _sequence(url: str, steps: int) -> dict[str, object]:
    one = {"serviceUrl": f"{url}/v1/models/m:predict"}
    return {"nodes": {"root": {"routerType": "Sequence", "steps": [one] * steps}}}


def _switch(url: str) -> dict[str, object]:
    steps = [
        {"serviceUrl": f"{url}/{kind}", "condition": f"[@this].#(kind=={kind})"} for kind in "ABC"
    ]
    return {"nodes": {"root": {"routerType": "Switch", "steps": steps}}}


def _ensemble(url: str) -> dict[str, object]:
    steps = [{"serviceUrl": f"{url}/{name}", "name": name} for name in "abc"]
    return {"nodes": {"root": {"routerType": "Ensemble", "steps": steps}}}


@contextlib.contextmanager
def router(graph: object) -> Iterator[Service]:
    """Our router with a graph, pinned to the measured core."""
    port = harness.free_port()
    env = {"PORT": str(port), "GRAPH_JSON": json.dumps(graph), "DRAIN_DELAY_SECONDS": "0"}
    command = [harness.python(), "-m", "router_fn"]
    with harness.service(command, port, harness.measured_core(), env) as running:
        yield running


@contextlib.contextmanager
def proxy(upstream: Service) -> Iterator[Service]:
    """nginx passing everything on over kept-alive connections."""
    http = (
        f"upstream u "
        f"{{ server 127.0.0.1:{upstream.port}; keepalive 512; keepalive_requests 100000000; }}"
    )
    server = (
        "location / { proxy_pass http://u; proxy_http_version 1.1; proxy_set_header "
        'Connection ""; }'
    )
    with harness.nginx(server, harness.measured_core(), http) as running:
        yield running


@contextlib.contextmanager
def flask_router(upstream: Service) -> Iterator[Service]:
    """The obvious alternative: Flask and requests under gunicorn's threads."""
    import sys
    import tempfile
    from pathlib import Path

    port = harness.free_port()
    with tempfile.TemporaryDirectory(prefix="bench-flask-") as folder:
        Path(folder, "flaskrouter.py").write_text(FLASK_ROUTER)
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "-w1",
            "--threads=16",
            "-b",
            f"127.0.0.1:{port}",
            "--chdir",
            folder,
            "flaskrouter:app",
        ]
        env = {"UPSTREAM": f"{upstream.url}/v1/models/m:predict"}
        with harness.service(command, port, harness.measured_core(), env) as running:
            yield running


def static_upstream() -> "contextlib.AbstractContextManager[Service]":
    answer = ANSWER.decode()
    server = f"location / {{ default_type application/json; return 200 '{answer}'; }}"
    return harness.nginx(server, harness.other_core())


def run(options: Options) -> list[Row]:
    rows: list[Row] = []
    with static_upstream() as upstream, proxy(upstream) as peer:
        rows += _throughput(options, upstream, peer)
        rows += _latency(options, upstream, peer)
        rows += _flask(options, upstream)
        rows += _memory(options, upstream)
        rows += _memory_in_the_long_run(options, upstream)
    rows += _start(options)
    rows += _under_fire(options)
    return rows


def _throughput(options: Options, upstream: Service, peer: Service) -> list[Row]:
    table = (
        ("one-step Sequence, 16 clients", _sequence(upstream.url, 1), BODY, 16, 0.9),
        ("three-step Sequence, 16 clients", _sequence(upstream.url, 3), BODY, 16, 0.30),
        ("Switch with 3 conditions, 16 clients", _switch(upstream.url), BODY, 16, 0.7),
        ("Ensemble of 3, 16 clients", _ensemble(upstream.url), BODY, 16, 0.25),
        ("1 MB body through one step, 4 clients", _sequence(upstream.url, 1), BIG, 4, 0.5),
    )
    rows = []
    for name, graph, body, clients, floor in table:
        if not options.wants(name):
            continue
        with router(graph) as ours:
            load = functools.partial(harness.wrk, options=options, clients=clients, body=body)
            measured = harness.versus(
                functools.partial(load, ours), functools.partial(load, peer), options
            )
        rows.append(harness.throughput_row(name, *measured, peer="nginx proxy_pass", floor=floor))
    return rows


def _latency(options: Options, upstream: Service, peer: Service) -> list[Row]:
    name = "p50 overhead over the upstream itself, 1 client"
    if not options.wants(name):
        return []
    with router(_sequence(upstream.url, 1)) as ours:
        overheads = []
        for _ in range(options.rounds):
            direct, mine, theirs = (
                harness.wrk(target, options, clients=1, body=BODY).p50_us
                for target in (upstream, ours, peer)
            )
            overheads.append((mine - direct, theirs - direct))
    mine = statistics.median(a for a, _ in overheads)
    theirs = statistics.median(b for _, b in overheads)
    return [
        Row(
            name=name,
            ours=mine,
            unit="us",
            peer="nginx proxy_pass",
            peers=theirs,
            ratio=mine / max(theirs, 1.0),
            ceiling=2.0,
        )
    ]


def _flask(options: Options, upstream: Service) -> list[Row]:
    name = "one-step Sequence, 16 clients, against Flask + requests"
    if not options.wants(name):
        return []
    with router(_sequence(upstream.url, 1)) as ours, flask_router(upstream) as peer:
        measured = harness.versus(
            lambda: harness.wrk(ours, options, clients=16, body=BODY),
            lambda: harness.wrk(peer, options, clients=16, body=BODY),
            options,
        )
    return [harness.throughput_row(name, *measured, peer="Flask + requests", floor=20)]


def _memory(options: Options, upstream: Service) -> list[Row]:
    name = "resident memory"
    if not options.wants(name):
        return []
    with router(_sequence(upstream.url, 1)) as ours:
        time.sleep(0.5)
        idle = ours.rss_bytes()
        harness.wrk(ours, options, clients=64, body=BODY)
        warm = ours.rss_bytes()
        for _ in range(options.rounds):
            harness.wrk(ours, options, clients=64, body=BODY)
        loaded = ours.rss_bytes()
    return [
        Row(name=f"{name}, idle", ours=idle / 2**20, unit="MiB", ceiling=40),
        Row(
            name=f"{name}, growth under load after warm-up",
            ours=(loaded - warm) / 2**20,
            unit="MiB",
            ceiling=2,
        ),
    ]


def _memory_in_the_long_run(options: Options, upstream: Service) -> list[Row]:
    """Ten minutes of load, by bodies of ever new lengths, on the direct path and through the
    engine."""
    name = "resident memory, growth in ten minutes of load"
    if not options.long or not options.wants(name):
        return []
    rows = []
    for kind, graph in (
        ("one-step Sequence", _sequence(upstream.url, 1)),
        ("three-step Sequence", _sequence(upstream.url, 3)),
    ):
        with router(graph) as ours:
            began, sizes, requests, errors = time.monotonic(), [], 0.0, 0
            while time.monotonic() - began < LONG_RUN_S:
                slice_s = replace(options, seconds=LONG_RUN_S / 20)
                pad = json.dumps({"instances": [[0.5] * (len(sizes) * 37 % 400)]}).encode()
                load = harness.wrk(ours, slice_s, clients=64, body=BODY if len(sizes) < 2 else pad)
                requests += load.per_second * slice_s.seconds
                errors += load.errors
                sizes.append(ours.rss_bytes() / 2**20)
        rows.append(
            Row(
                name=f"{name}, {kind}",
                ours=sizes[-1] - sizes[1],  # what comes after a minute of warm-up
                unit="MiB",
                ceiling=2,
                note=f"{requests:,.0f} requests, {errors} errors; {sizes[1]:.1f} MiB after a "
                f"minute, {max(sizes):.1f} at most, {sizes[-1]:.1f} at the end",
            )
        )
    return rows


def _start(options: Options) -> list[Row]:
    name = "ready after exec, as multiples of a bare interpreter"
    if not options.wants(name):
        return []

    def bare() -> float:
        began = time.perf_counter()
        subprocess.run([harness.python(), "-I", "-c", "pass"], check=True)
        return time.perf_counter() - began

    def ready() -> float:
        began = time.perf_counter()
        with router(_sequence("http://127.0.0.1:1", 1)):
            return time.perf_counter() - began

    bare(), ready()
    rounds = max(options.rounds, 3) * 2
    ours = min(ready() for _ in range(rounds))
    base = min(bare() for _ in range(rounds))
    return [
        Row(
            name=name,
            ours=ours * 1e3,
            unit="ms",
            peer="python -I -c pass",
            peers=base * 1e3,
            ratio=ours / base,
            ceiling=8,
        )
    ]


def _under_fire(options: Options) -> list[Row]:
    name = "1,000 idle + 256 busy clients, upstream killed every 1.5 s"
    if not options.wants(name):
        return []
    seconds = 60.0 if options.rounds > 1 else 3.0
    seen = asyncio.run(_soak.soak(seconds, 1000, 256))
    left = seen.descriptors_after - seen.descriptors_before
    note = (
        f"{seen.good:,} good answers, {seen.failed:,} honest errors, {seen.idle_lost} idle "
        f"clients lost"
    )
    grown = seen.rss_mib_after - seen.rss_mib_before
    return [
        Row(name=f"{name}: wrong answers", ours=seen.wrong, unit="", ceiling=0, note=note),
        Row(name=f"{name}: sockets left", ours=left, unit="", ceiling=0),
        Row(name=f"{name}: memory growth", ours=grown, unit="MiB", ceiling=8),
    ]
