"""Events: the adapter alone; uploads to filed results through everything; and the same under kill
-9.

The whole chain is real: SeaweedFS and its webhook, `turnout up` with a compiled InferenceTrigger
(adapter, broker, sink) and a trivial model. Everything runs on the same few cores, load included.
"""

import base64
import concurrent.futures
import contextlib
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import _events_load as load
from benchmarks import harness
from benchmarks._events_engine import Engine, name_of
from benchmarks.harness import Options, Row
from tests import seaweed

TITLE = "Events"
NOTES = """
Adapter: SeaweedFS notifications over kept-alive connections, each passed on to a sink that answers
202 at once. End to end: objects of 100 bytes, put over 8 connections while every service starts
from zero; the clock runs from the first put to the last result object. With kills: the engine
(gateway and broker), adapter, sink or model gets SIGKILL at random moments while uploads and
events are under way; the engine is started again on the same state. `lost` are inputs without a
result, `repeated` are result objects written more than once (their bucket keeps versions). Upload
to result: from the start of the put until the result can be read, warm, one at a time, polled
every 2 ms. Straight: the same manifests, but notifications are posted to the adapter and the reply
event is the result; nothing is fetched or written. The CPU of everybody taking part is named,
because they share the cores. Sweeps for lost notifications: the default (every ten minutes), with
kills every minute.
"""

OBJECTS = int(os.environ.get("TURNOUT_BENCH_OBJECTS", "10000"))
"""Uploads of one end-to-end run."""

UPLOADERS = 8
"""Connections of the uploader."""

KILLS = int(os.environ.get("TURNOUT_BENCH_KILLS", "24"))

SEED = int(os.environ.get("TURNOUT_BENCH_SEED", "7"))
"""Decides who is killed when."""

NULL_SINK = """
import asyncio, os, sys
from functions.wire.http1 import Limits, Server
import uvloop
async def main():
    server = Server(lambda exchange: exchange.respond(202), Limits())
    await server.listen("127.0.0.1", int(os.environ["PORT"]))
    await asyncio.sleep(1e6)
uvloop.run(main())
"""

MODEL = """
import asyncio, os, uvloop
ANSWER = (b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\n"
          b"Content-Length: 19\\r\\n\\r\\n" b'{"predictions":[1]}')
class Model(asyncio.Protocol):
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
            self.transport.write(ANSWER)
async def main():
    loop, port = asyncio.get_running_loop(), int(os.environ["PORT"])
    server = await loop.create_server(Model, "127.0.0.1", port)
    await server.serve_forever()
uvloop.run(main())
"""

MANIFESTS = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {{name: model}}
spec:
  template:
    metadata:
      annotations: {{autoscaling.knative.dev/max-scale: "1"}}
    spec:
      containers:
        - image: dev.local/model:1
          command: [python, -c, {model}]
---
apiVersion: turnout.dev/v1alpha1
kind: InferenceTrigger
metadata: {{name: bench}}
spec:
{trigger}  concurrency: {{max: 16, waiting: 64}}
  scale: {{max: 1}}
  dedupe: {{store: sqlite, path: /journal/bench.sqlite, volumeClaim: journal}}
  delivery: {{retry: 40, backoffPolicy: linear, backoffDelay: PT0.1S}}
"""

STORED = """\
  source: {s3: {bucket: input, sweep: SWEEP}}
  target: {url: "http://model.default.svc.cluster.local/"}
  request: {object: base64}
  result:
    write: {bucket: output, key: "{object.key}.json"}
    reply: {type: bench.done}
"""

SWEEP = "{}"
"""For lost notifications: as the trigger has it when nothing is said (every ten minutes, objects
older than 30 s)."""

SWEEP_OFTEN = '{schedule: "* * * * *", minAgeSeconds: 5}'
"""Where processes are killed, and notifications with them: how long a run waits for its last
results is not what it measures."""

STRAIGHT = """\
  source: {s3: {bucket: input}}
  target: {url: "http://model.default.svc.cluster.local/"}
  result: {reply: {type: bench.done}}
"""
"""For the row without storage: the notification itself is the request, the reply the result."""

WEBHOOK = """[notification.webhook]
enabled = true
endpoint = "http://bench-adapter.default.svc.cluster.local/"
timeout_seconds = 30
max_retries = 10
backoff_seconds = 1
max_backoff_seconds = 3
workers = 32
buffer_size = 100000
path_prefixes = ["/buckets/input/"]
"""


def run(options: Options) -> list[Row]:
    rows: list[Row] = []
    quick = options.seconds < 1
    if options.wants("adapter"):
        rows.append(adapter_row(options))
        print("  " + rows[-1].line(), flush=True)
    if options.wants("end to end") or options.wants("upload"):
        with folder() as path, chain(path) as scene:
            rows += scene.throughput(200 if quick else OBJECTS)
            rows.append(scene.latency(20 if quick else 200))
        for row in rows[-3:]:
            print("  " + row.line(), flush=True)
    if options.wants("straight"):
        with folder() as path:
            rows.append(straight(path, 200 if quick else OBJECTS))
        print("  " + rows[-1].line(), flush=True)
    if options.wants("kill"):
        with folder() as path, chain(path, versioned=True) as scene:
            rows += scene.under_fire(200 if quick else OBJECTS, 2 if quick else KILLS)
    return rows


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-events-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def adapter_row(options: Options) -> Row:
    """Notifications a second through one adapter process."""
    body = json.dumps(notification()).encode()
    sink_port, port = harness.free_port(), harness.free_port()
    environ = {"PORT": str(port), "K_SINK": f"http://127.0.0.1:{sink_port}"}
    with (
        harness.service(
            [sys.executable, "-c", NULL_SINK],
            sink_port,
            harness.other_core(),
            {"PORT": str(sink_port)},
        ),
        harness.service(
            [sys.executable, "-m", "events", "adapter"], port, harness.measured_core(), environ
        ) as adapter,
    ):
        harness.wrk(adapter, options, clients=16, body=body)
        loads = [
            harness.wrk(adapter, options, clients=16, body=body) for _ in range(options.rounds)
        ]
    errors = sum(load.errors for load in loads)
    cpu_us = statistics.median(load.cpu_us for load in loads)
    return Row(
        name="adapter, 16 connections",
        ours=statistics.median(load.per_second for load in loads),
        unit="notifications/s",
        floor=2000,
        note=f"CPU {cpu_us:.0f} us each: {1e6 / cpu_us:,.0f}/s for a whole core"
        + (f"; {errors} ERRORS" if errors else ""),
    )


def notification(name: str = "a b.png", number: int = 0) -> dict[str, object]:
    """A filer notification as SeaweedFS 4.48 sends it."""
    written = 1795252160030182109 + number
    entry = {
        "name": name,
        "chunks": [{"size": 100, "modified_ts_ns": written, "fid": {"volume_id": 4}}],
        "attributes": {"file_size": 100, "mtime": 1795252160, "md5": "rtVj7K+0vMVlTFl6QhVHsg=="},
        "extended": {"Seaweed-X-Amz-ETag": base64.b64encode(b"aed563ecafb4bcc5").decode()},
    }
    message = {"new_entry": entry, "delete_chunks": True, "new_parent_path": "/buckets/input"}
    return {"event_type": "create", "key": f"/buckets/input/{name}", "message": message}


def straight(folder: Path, count: int) -> Row:
    """The same chain without object storage: notifications straight into the adapter, reply events
    as results. Not the row the aim speaks of: it shows what the storage's share is."""
    (folder / "bench.yaml").write_text(MANIFESTS.format(model=json.dumps(MODEL), trigger=STRAIGHT))
    engine = Engine(folder=folder, port=harness.free_port())
    bodies = [
        json.dumps(notification(f"{index:08d}.bin", index)).encode() for index in range(count)
    ]
    engine.start()
    try:
        before, started = engine.cpu(), time.monotonic()
        load.post(engine.port, "bench-adapter.default.svc.cluster.local", bodies, UPLOADERS)
        deadline = started + 60 + count / 20
        while (replied := engine.replied()) < count and time.monotonic() < deadline:
            time.sleep(0.1)
        seconds = time.monotonic() - started
        split = load.split(before, engine.cpu(), count)
    finally:
        engine.stop()
    return Row(
        name=f"straight from zero, no object storage, {count} notifications",
        ours=replied / seconds,
        unit="events/s",
        note=f"{replied} reply events in {seconds:.1f} s; {split}",
    )


# --- the whole chain ------------------------------------------------------------------------------
@dataclass(kw_only=True)
class Chain(Engine):
    """SeaweedFS and an engine that can be killed and started again."""

    s3: seaweed.S3Server

    def environ(self) -> dict[str, str]:
        return self.s3.environ()

    def others(self) -> list[tuple[str, int]]:
        assert self.s3.process is not None
        return [("SeaweedFS", self.s3.process.pid)]

    def put(self, first: int, count: int) -> None:
        """Upload `N.bin`, as fast as the server takes them."""
        paths = [f"/input/{index:08d}.bin" for index in range(first, first + count)]
        load.upload(self.s3, paths, b"x" * 100, UPLOADERS)

    def results(self, first: int, count: int) -> load.Results:
        """The results of those uploads in bucket `output`."""
        keys = [f"{index:08d}.bin.json" for index in range(first, first + count)]
        return load.Results(self.s3, "output", keys)

    def client(self) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.s3.endpoint,
            aws_access_key_id=self.s3.access_key,
            aws_secret_access_key=self.s3.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )

    def throughput(self, count: int) -> list[Row]:
        """From zero: cold starts are part of it."""
        before, started = self.cpu(), time.monotonic()
        self.put(0, count)
        put_s = time.monotonic() - started
        found = self.results(0, count).wait(60 + count / 20)
        seconds = time.monotonic() - started
        split = load.split(before, self.cpu(), count)
        return [
            Row(
                name=f"end to end from zero, {count} objects",
                ours=found / seconds,
                unit="events/s",
                floor=300,
                note=f"{found} results in {seconds:.1f} s, uploading ended after {put_s:.1f} s; "
                f"{split}",
            ),
            Row(
                name="end to end: lost",
                ours=count - found,
                unit="objects",
                ceiling=0,
            ),
        ]

    def latency(self, count: int) -> Row:
        times: list[float] = []
        for index in range(count + 5):
            started = time.perf_counter()
            self.s3.put("input", f"warm-{index}.bin", b"x")
            while True:
                try:
                    self.s3.get("output", f"warm-{index}.bin.json")
                    break
                except RuntimeError:
                    if time.perf_counter() - started > 30:
                        raise
                    time.sleep(0.002)
            times.append(time.perf_counter() - started)
        warm = sorted(times[5:])
        return Row(
            name="upload to result, warm, p50",
            ours=statistics.median(warm) * 1e3,
            unit="ms",
            ceiling=50,
            note=f"p90 {warm[int(len(warm) * 0.9)] * 1e3:.0f} ms",
        )

    def under_fire(self, count: int, kills: int) -> list[Row]:
        """Uploads and work while processes die."""
        chance = random.Random(SEED)
        started = time.monotonic()
        victims: list[str] = []
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            uploading = pool.submit(self.put, 0, count)
            for _ in range(kills):
                time.sleep(chance.uniform(1.0, 3.0))
                victims.append(self.kill(chance.choice(["engine", "adapter", "sink", "model"])))
            uploading.result()
        found = self.results(0, count).wait(150 + count / 20)
        seconds = time.monotonic() - started
        killed = ", ".join(f"{name} x{victims.count(name)}" for name in sorted(set(victims)))
        return [
            Row(
                name=f"{kills} kills during {count} uploads: lost",
                ours=count - found,
                unit="objects",
                ceiling=0,
                note=f"{seconds:.0f} s; killed: {killed}",
            ),
            Row(
                name=f"{kills} kills during {count} uploads: repeated",
                ours=self.repeated(),
                unit="result objects",
                ceiling=0,
            ),
        ]

    def repeated(self) -> int:
        """Result objects that were written again: their content changed after they were made."""
        return sum(1 for count in self.versions().values() if count > 1)

    def versions(self) -> dict[str, int]:
        """How often each result object was written (bucket `output` keeps all versions)."""
        client = self.client()
        counts: dict[str, int] = {}
        for page in client.get_paginator("list_object_versions").paginate(Bucket="output"):
            for item in page.get("Versions", ()):
                counts[item["Key"]] = counts.get(item["Key"], 0) + 1
        return counts

    def kill(self, name: str) -> str:
        """SIGKILL one of the parts, found by its command line; returns its name."""
        assert self.process is not None
        if name == "engine":
            self.process.kill()
            self.process.wait()
            self.start()
            return name
        victims = [pid for pid in self.pods() if name_of(pid) == name]
        for pid in victims:  # all at once, as when a container dies
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        return name if victims else f"{name} (asleep)"


@contextlib.contextmanager
def chain(folder: Path, *, versioned: bool = False) -> Iterator[Chain]:
    """Everything up, nothing left behind."""
    (folder / "s3").mkdir()
    (folder / "s3" / "notification.toml").write_text(WEBHOOK)
    trigger = STORED.replace("SWEEP", SWEEP_OFTEN if versioned else SWEEP)
    (folder / "bench.yaml").write_text(MANIFESTS.format(model=json.dumps(MODEL), trigger=trigger))
    port = harness.free_port()
    prefix = ("env", f"HTTP_PROXY=http://127.0.0.1:{port}")
    extra = ("-master.volumeSizeLimitMB=64",)
    with seaweed.running(directory=folder / "s3", prefix=prefix, extra=extra) as s3:
        for bucket in ("input", "output"):
            s3.make_bucket(bucket)
        scene = Chain(s3=s3, folder=folder, port=port)
        if versioned:
            scene.client().put_bucket_versioning(
                Bucket="output", VersioningConfiguration={"Status": "Enabled"}
            )
        scene.start()
        try:
            yield scene
        finally:
            scene.stop()
