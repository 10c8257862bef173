"""Many clients, upstreams that die and return: are answers right, and does anything stay behind?"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import harness

UPSTREAM = """
import asyncio, sys
from functions.wire.http1 import Server
async def main():
    server = Server(lambda exchange: exchange.respond(200, exchange.body, b"application/json"))
    await server.listen("127.0.0.1", int(sys.argv[1]))
    await asyncio.Event().wait()
asyncio.run(main())
"""


@dataclass
class Outcome:
    """What a soak saw."""

    good: int = 0
    failed: int = 0
    """Honest errors: 500 while the upstream was away."""
    wrong: int = 0
    """Answers that belong to somebody else, or are no answer at all."""
    idle_lost: int = 0
    """Idle clients whose connection did not survive."""
    descriptors_before: int = 0
    descriptors_after: int = 0
    rss_mib_before: float = 0.0
    rss_mib_after: float = 0.0


async def soak(seconds: float, idle: int, busy: int) -> Outcome:
    """Run one router for a while under fire."""
    upstream_port, port = harness.free_port(), harness.free_port()
    step = {"serviceUrl": f"http://127.0.0.1:{upstream_port}/"}
    nodes = {
        "root": {
            "routerType": "Sequence",
            "steps": [step, {"nodeName": "both", "data": "$response"}],
        },
        "both": {"routerType": "Ensemble", "steps": [{"name": "a", **step}, {"name": "b", **step}]},
    }
    env = {
        "PORT": str(port),
        "GRAPH_JSON": json.dumps({"nodes": nodes}),
        "DRAIN_DELAY_SECONDS": "0",
        "UPSTREAM_IDLE_SECONDS": "1",
    }
    outcome = Outcome()
    command = [harness.python(), "-m", "router_fn"]
    with harness.service(command, port, harness.measured_core(), env) as router:
        outcome.descriptors_before = _descriptors(router.process.pid)
        stop = asyncio.Event()
        chaos = asyncio.create_task(_chaos(upstream_port, stop))
        links = [await asyncio.open_connection("127.0.0.1", port) for _ in range(idle)]
        clients = [asyncio.create_task(_client(port, f"{i}", stop, outcome)) for i in range(busy)]
        await asyncio.sleep(min(2.0, seconds / 2))
        outcome.rss_mib_before = router.rss_bytes() / 2**20
        await asyncio.sleep(seconds)
        stop.set()
        await asyncio.gather(*clients, chaos)
        outcome.rss_mib_after = router.rss_bytes() / 2**20
        for reader, writer in links:
            outcome.idle_lost += reader.at_eof()
            writer.close()
        for _, writer in links:
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        end = time.monotonic() + 10
        while time.monotonic() < end:  # pooled connections close after a second of idleness
            outcome.descriptors_after = _descriptors(router.process.pid)
            if outcome.descriptors_after <= outcome.descriptors_before:
                break
            await asyncio.sleep(0.2)
    return outcome


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def _chaos(port: int, stop: asyncio.Event) -> None:
    """An upstream that is killed every now and then, and comes back."""
    while True:
        process = subprocess.Popen(
            [sys.executable, "-c", UPSTREAM, str(port)],
            cwd=harness.ROOT,
            env={**os.environ, "PYTHONPATH": str(harness.ROOT)},
        )
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1.5)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if stop.is_set():
            return
        await asyncio.sleep(0.2)


async def _client(port: int, name: str, stop: asyncio.Event, outcome: Outcome) -> None:
    """Requests over one connection, each with a body of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number = 0
    while not stop.is_set():
        number += 1
        body = json.dumps({"client": name, "n": number, "pad": "x" * (number % 700)}).encode()
        writer.write(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        answer = await reader.readexactly(length)
        if head.startswith(b"HTTP/1.1 200") and answer == b'{"a":%b,"b":%b}' % (body, body):
            outcome.good += 1
        elif head.startswith(b"HTTP/1.1 500") and b'"cause"' in answer:
            outcome.failed += 1
            await asyncio.sleep(0.02)
        else:
            outcome.wrong += 1
    writer.close()
