"""The local engine: what its gateway costs, what it costs when idle, from zero, and as a broker.

The gateway has one core; the echo pod and the load share the other. The peer is nginx `proxy_pass`
with kept-alive connections in front of the same pod.
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Options, Row

TITLE = "Local engine"
NOTES = (
    "Added latency: p50 through the gateway minus p50 of the same pod called directly, one client. "
    "Engine's share of a cold start: latency of a request from zero minus what the same program "
    "takes from exec to its first answer when started by hand; medians. "
    "Idle: engine and its spawner process together."
)

HOST = "echo.default.svc.cluster.local"
INGRESS = "broker-ingress.knative-eventing.svc.cluster.local"
MIB = 1 << 20

ECHO = """
import asyncio, os, uvloop
ANSWER = b"HTTP/1.1 200 OK\\r\\nContent-Length: 1024\\r\\n\\r\\n" + b"x" * 1024
class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.data = transport, b""
    def data_received(self, data):
        self.data += data
        while True:
            head, found, rest = self.data.partition(b"\\r\\n\\r\\n")
            if not found:
                return
            length = 0
            for line in head.split(b"\\r\\n")[1:]:
                if line[:15].lower() == b"content-length:":
                    length = int(line[15:])
            if len(rest) < length:
                return
            self.data = rest[length:]
            self.transport.write(ANSWER)
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", int(os.environ["PORT"]), backlog=1024)
    await server.serve_forever()
uvloop.run(main())
"""

TINY = """
import os, socket
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    client, _ = server.accept()
    data = client.recv(65536)
    if data:
        client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
    client.close()
"""

SINK = """
import asyncio, os, uvloop
class Sink(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.data = transport, b""
    def data_received(self, data):
        self.data += data
        while True:
            head, found, rest = self.data.partition(b"\\r\\n\\r\\n")
            if not found:
                return
            length = next((int(line[15:]) for line in head.split(b"\\r\\n")
                           if line[:15].lower() == b"content-length:"), 0)
            if len(rest) < length:
                return
            self.data = rest[length:]
            self.transport.write(b"HTTP/1.1 202 Accepted\\r\\nContent-Length: 0\\r\\n\\r\\n")
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Sink, "127.0.0.1", int(os.environ["PORT"]))
    await server.serve_forever()
uvloop.run(main())
"""


def knative_service(name: str, script: Path, *, pin: bool = True) -> dict[str, object]:
    """A Knative Service that runs a script on the core of the load."""
    prefix = ["taskset", "-c", str(harness.other_core())] if pin else []
    command = [*prefix, harness.python(), str(script)]
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": {"spec": {"containers": [{"image": "bench", "command": command}]}}},
    }


@contextlib.contextmanager
def engine(folder: Path, objects: list[dict[str, object]], *more: str) -> Iterator[harness.Service]:
    """`turnout up`, pinned to the measured core."""
    import yaml

    port = harness.free_port()

    file = folder / "objects.yaml"
    file.write_text(yaml.safe_dump_all(objects))
    run = "from knative.cli.main import run; raise SystemExit(run())"
    command = [harness.python(), "-c", run, "up", str(file), "--port", str(port), "-q", *more]
    state = ["--state-dir", str(folder / "state"), "--stop-grace", "1s"]
    with harness.service([*command, *state], port, harness.measured_core()) as running:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, KeyError):
                if status(running)["services"]:
                    break
            time.sleep(0.05)
        yield running


def status(running: harness.Service) -> dict[str, list[dict[str, object]]]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    connection.request("GET", "/_turnout/api/status", headers={"Host": "localhost"})
    found: dict[str, list[dict[str, object]]] = json.loads(connection.getresponse().read())
    connection.close()
    return found


def call(port: int, host: str, path: str = "/", body: bytes = b"") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", path, body=body, headers={"Host": host})
    code = connection.getresponse().status
    connection.close()
    return code


def load(port: int, options: Options, clients: int, *headers: str, path: str = "/") -> harness.Load:
    """wrk with 1 KB bodies."""
    binary = shutil.which("wrk")
    if binary is None:
        raise RuntimeError("wrk is not installed (Debian: wrk)")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f'wrk.method="POST"; wrk.body=string.rep("b", 1024); {" ".join(headers)}')
        script.flush()
        seconds = max(1, int(options.seconds))
        done = subprocess.run(
            ["taskset", "-c", str(harness.other_core()), binary, "-t1", f"-c{clients}",
             f"-d{seconds}s", "--latency", "-s", script.name, f"http://127.0.0.1:{port}{path}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    text = done.stdout
    p50 = re.search(r"50%\s+([\d.]+)(us|ms|s)", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if p50 is None or rate is None:
        raise RuntimeError(text)
    scale = {"us": 1.0, "ms": 1e3, "s": 1e6}[p50[2]]
    errors = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", text)))
    errors += sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", text)))
    return harness.Load(
        per_second=float(rate[1]), p50_us=float(p50[1]) * scale, cpu_us=0, errors=errors
    )


def header(name: str, value: str) -> str:
    return f'wrk.headers["{name}"]="{value}";'


def gateway_rows(options: Options) -> Iterator[Row]:
    """Throughput against nginx, and added latency."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "echo.py").write_text(ECHO)
        with engine(folder, [knative_service("echo", folder / "echo.py")]) as running:
            call(running.port, HOST)
            pod = status(running)["services"][0]["revisions"][0]["pods"][0]  # type: ignore[index]
            upstream = int(pod["port"])
            http_block = f"upstream u {{ server 127.0.0.1:{upstream}; keepalive 512; }}"
            server = "location / { proxy_pass http://u; proxy_http_version 1.1; "
            server += 'proxy_set_header Connection ""; }'
            with harness.nginx(server, harness.measured_core(), http_block) as peer:

                def ours(clients: int) -> harness.Load:
                    return load(running.port, options, clients, header("Host", HOST))

                for clients in (32, 1):
                    mine, theirs = harness.versus(
                        lambda clients=clients: ours(clients),  # type: ignore[misc]
                        lambda clients=clients: load(peer.port, options, clients),  # type: ignore[misc]
                        options,
                    )
                    rate = statistics.median(item.per_second for item in mine)
                    errors = sum(item.errors for item in mine)
                    peers = statistics.median(item.per_second for item in theirs)
                    yield Row(
                        name=f"gateway, {clients} clients",
                        ours=rate,
                        unit="requests/s",
                        floor=5000 if clients == 32 else None,
                        note=f"nginx in the same rounds {peers:,.0f}/s"
                        + (f"; {errors} ERRORS" if errors else ""),
                    )
                through, direct = harness.versus(
                    lambda: ours(1), lambda: load(upstream, options, 1), options
                )
                added = statistics.median(
                    a.p50_us - b.p50_us for a, b in zip(through, direct, strict=True)
                )
                base = statistics.median(item.p50_us for item in direct)
                yield Row(
                    name="gateway, added latency p50",
                    ours=added / 1000,
                    unit="ms",
                    ceiling=0.5,
                    note=f"the pod alone {base / 1000:.3f} ms",
                )


def idle_rows(options: Options) -> Iterator[Row]:
    """Memory and CPU of an engine with 20 services at zero."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tiny.py").write_text(TINY)
        services = [knative_service(f"idle-{n}", folder / "tiny.py") for n in range(20)]
        with engine(folder, services) as running:
            time.sleep(1)
            before, started = running.cpu_s(), time.monotonic()
            time.sleep(max(5.0, options.seconds * 3))
            share = (running.cpu_s() - before) / (time.monotonic() - started) * 100
            memory = running.rss_bytes() / MIB
    yield Row(name="idle, 20 services: memory", ours=memory, unit="MiB", ceiling=60)
    yield Row(name="idle, 20 services: CPU", ours=share, unit="% of a core", ceiling=1)


def by_hand_s(script: Path) -> float:
    """From exec to the first answer, without an engine."""
    port = harness.free_port()
    started = time.monotonic()
    process = subprocess.Popen(
        ["taskset", "-c", str(harness.other_core()), harness.python(), str(script)],
        env={**os.environ, "PORT": str(port)},
    )
    try:
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), 1) as client:
                    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    client.recv(100)
                return time.monotonic() - started
            except OSError:
                time.sleep(0.001)
    finally:
        process.kill()
        process.wait()


def cold_rows(options: Options) -> Iterator[Row]:
    """A request from zero, minus what the program itself takes."""
    count = 5 + options.rounds * 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tiny.py").write_text(TINY)
        services = [knative_service(f"cold-{n}", folder / "tiny.py") for n in range(count)]
        with engine(folder, services) as running:
            own, colds = [], []
            for number in range(count):  # alternating: the neighbours disturb both alike
                own.append(by_hand_s(folder / "tiny.py"))
                started = time.monotonic()
                call(running.port, f"cold-{number}.default")
                colds.append(time.monotonic() - started)
    yield Row(
        name="from zero, engine's share",
        ours=(statistics.median(colds) - statistics.median(own)) * 1000,
        unit="ms",
        ceiling=30,
        note=f"whole cold start {statistics.median(colds) * 1000:.0f} ms",
    )


def broker_rows(options: Options) -> Iterator[Row]:
    """Durable events through one broker and one trigger; and a long queue."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sink.py").write_text(SINK)
        eventing = "eventing.knative.dev/v1"
        objects = [
            knative_service("sink", folder / "sink.py"),
            {"apiVersion": eventing, "kind": "Broker", "spec": {},
             "metadata": {"name": "default", "namespace": "default"}},
            {"apiVersion": eventing, "kind": "Trigger",
             "metadata": {"name": "all", "namespace": "default"},
             "spec": {"broker": "default", "subscriber": {"ref": {
                 "apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "sink"}}}},
        ]  # fmt: skip
        headers = [
            header("Host", INGRESS),
            header("ce-specversion", "1.0"),
            header("ce-type", "bench"),
            header("ce-source", "/bench"),
            'local n=0; request=function() n=n+1; wrk.headers["ce-id"]=tostring(n);'
            ' return wrk.format("POST", nil, wrk.headers, wrk.body) end',
        ]
        with engine(folder, objects) as running:
            call(running.port, "sink.default")
            started = time.monotonic()
            load(running.port, options, 32, *headers, path="/default/default")
            accepted = delivered(running, "received")
            while delivered(running, "delivered") < accepted and time.monotonic() < started + 120:
                time.sleep(0.05)
            through = delivered(running, "delivered") / (time.monotonic() - started)
    yield Row(
        name="broker, events in and out",
        ours=through,
        unit="events/s",
        floor=1000,
        note=f"{accepted} events, on disk before the answer, one subscriber, delivered one by one",
    )


def delivered(running: harness.Service, what: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    connection.request("GET", "/_turnout/api/events?limit=1", headers={"Host": "localhost"})
    found = json.loads(connection.getresponse().read())
    connection.close()
    return int(found["stats"].get(what, 0))


def queue_rows(options: Options) -> Iterator[Row]:
    """Memory of an engine with a long queue that nobody takes from."""
    target = 100_000 if options.seconds >= 1 else 5_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "never.py").write_text("import time; time.sleep(1e6)")
        eventing = "eventing.knative.dev/v1"
        objects = [
            knative_service("never", folder / "never.py"),
            {"apiVersion": eventing, "kind": "Broker", "spec": {},
             "metadata": {"name": "default", "namespace": "default"}},
            {"apiVersion": eventing, "kind": "Trigger",
             "metadata": {"name": "all", "namespace": "default"},
             "spec": {"broker": "default", "subscriber": {"ref": {
                 "apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "never"}}}},
        ]  # fmt: skip
        with engine(folder, objects) as running:
            fill(running.port, target // 20)
            early = engine_rss(running)
            fill(running.port, target - target // 20)
            grown = (engine_rss(running) - early) / MIB
    yield Row(
        name=f"broker, {target:,} queued events: growth",
        ours=grown,
        unit="MiB",
        ceiling=20,
        note="after the first twentieth",
    )


def engine_rss(running: harness.Service) -> int:
    pages = int(Path(f"/proc/{running.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def fill(port: int, count: int) -> None:
    """Post events from a few threads."""

    def post(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for index in range(count // 4):
            headers = {
                "Host": INGRESS, "ce-specversion": "1.0", "ce-type": "t", "ce-source": "/s",
                "ce-id": f"{number}-{index}-{count}", "Content-Type": "text/plain",
            }  # fmt: skip
            connection.request("POST", "/default/default", body=b"x" * 500, headers=headers)
            connection.getresponse().read()
        connection.close()

    threads = [threading.Thread(target=post, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run(options: Options) -> list[Row]:
    """All rows whose group is wanted."""
    groups = {
        "gateway": gateway_rows,
        "idle": idle_rows,
        "from zero": cold_rows,
        "broker, events": broker_rows,
        "broker, queued": queue_rows,
    }
    rows: list[Row] = []
    for name, group in groups.items():
        if options.wants(name):
            rows.extend(group(options))
    return rows
