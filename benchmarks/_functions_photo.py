"""The animal classifier of the examples under load: EfficientNet-Lite0 and a real photograph.

The limit is a loop around the same handler in one process: no HTTP, no JSON. Clients are one thread
on the other core (`_functions_load`); where both cores serve, it shares them, at about one per
cent.
"""

import base64
import json
import os
import re
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks._functions_peers import has_torchserve, ours, poll, torchserve
from benchmarks.harness import ROOT, Options, Row, Service, measured_core, other_core

PATH = "/v1/models/m:predict"
_WHAT = "EfficientNet-Lite0 photograph"

_RAW = """
import json, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from functions.runtimes import mar, torchserve
archive = mar.unpack(Path(sys.argv[1]))
context = torchserve.Context("m", archive.directory, archive.manifest, {})
handle, initialize, _ = torchserve.load_entry(archive.model["handler"], archive.directory)
initialize(context)
instances = json.loads(Path(sys.argv[2]).read_text())["instances"]
context.request_processor = [torchserve.RequestProcessor({})]
for _ in range(3):
    handle(instances, context)
n, since, cpu = 0, time.perf_counter(), time.process_time()
while time.perf_counter() < since + float(sys.argv[3]):
    handle(instances, context)
    n += 1
print(n / (time.perf_counter() - since), (time.process_time() - cpu) / n * 1e3)
archive.close()
"""


_BATCHING = ("--max-batch-size", "8", "--keep-freed-mb", "256")
"""Eight pictures make intermediate tensors of 38 MB."""

_KEEPING = {"MALLOC_TRIM_THRESHOLD_": str(64 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}

_STEADY_ROUNDS = 9
"""Against the raw loop: single rounds differ by a tenth, and a few per cent are the question."""


@dataclass(frozen=True, slots=True)
class Images:
    """What a burst of photographs showed."""

    per_second: float
    cpu_ms: float
    """CPU time of the serving processes per image."""
    p99_ms: float = 0.0


class Bench:
    """The archive, the request, and the two ways to measure them."""

    def __init__(self, work: Path, options: Options) -> None:
        example = ROOT / "examples" / "animal-plant" / "models" / "animal-classifier"
        turnout = str(Path(sys.executable).with_name("turnout"))
        command = [turnout, "package", str(example), "-o", str(work / "photo")]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        (self.archive,) = (work / "photo").rglob("*.mar")
        self.body = work / "photo.json"
        self.body.write_bytes(photograph())
        self.options = options
        self.seconds = max(4.0, options.seconds)

    def raw(self, *, keeping: bool = False) -> Images:
        """The loop by itself; `keeping`: with the C library told to keep freed memory, which our
        server sees to (`--keep-freed-mb`)."""
        command = [
            "taskset", "-c", str(measured_core()), sys.executable, "-c", _RAW, str(self.archive),
            str(self.body), str(self.seconds),
        ]  # fmt: skip
        environ = {**os.environ, **(_KEEPING if keeping else {})}
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=ROOT, env=environ
        )
        per_second, cpu_ms = map(float, done.stdout.splitlines()[-1].split())
        return Images(per_second, cpu_ms)

    def load(self, server: Service, clients: int, seconds: float = 0.0) -> Images:
        command = [
            "taskset", "-c", str(other_core()), sys.executable, "-m", "benchmarks._functions_load",
            str(server.port), PATH, str(self.body), str(clients), str(seconds or self.seconds),
        ]  # fmt: skip
        before = server.cpu_s()
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        found = json.loads(done.stdout)
        if found["errors"] or not found["answers"]:
            raise RuntimeError(f"no good answers: {found}")
        cpu_ms = (server.cpu_s() - before) / found["answers"] * 1e3
        return Images(found["rate"], cpu_ms, found["p99"] * 1e3)

    @contextmanager
    def server(self, *extra: str, core: str | None = None) -> Iterator[Service]:
        """Ours, with every worker ready and warm."""
        arguments = ("--model-name", "m", "--model-dir", str(self.archive.parent), *extra)
        with ours(*arguments, core=core) as server:
            workers = int(extra[extra.index("--workers") + 1]) if "--workers" in extra else 1
            poll(lambda: _loaded(server) == workers)
            self.load(server, 4 * workers, 2.0)
            yield server


def _loaded(server: Service) -> int:
    """Workers whose model is loaded."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as answer:
        found = re.search(rb'^turnout_model_ready{model_name="m"} (\d+)$', answer.read(), re.M)
    return int(found[1]) if found else 0


def photograph() -> bytes:
    """A V1 request with a cat."""
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    picture = Path(spec.origin).parent / "data" / "chelsea.png"
    data = base64.b64encode(picture.read_bytes()).decode()
    return json.dumps({"instances": [{"data": data}]}).encode()


def run(work: Path, options: Options) -> list[Row]:
    bench = Bench(work, options)
    return _one_core(bench) + _two_cores(bench)


def _one_core(bench: Bench) -> list[Row]:
    """Rows against the raw loop and TorchServe."""
    rows = []
    with bench.server("--cpu-threads", "1") as server:
        for clients in (1, 8):
            name = f"{_WHAT}, {clients} client{'s' if clients > 1 else ''}, one core"
            a, b = _rounds(
                bench,
                lambda clients=clients: bench.load(server, clients),
                bench.raw,
                max(_STEADY_ROUNDS, bench.options.rounds),
            )
            rows.append(_row(name, a, b, "raw torch loop", 0.97))
        a, b = _rounds(bench, lambda: bench.load(server, 1), lambda: bench.raw(keeping=True))
        loop = "raw torch loop that keeps freed memory"
        rows.append(_row(f"{_WHAT}, 1 client, one core", a, b, loop, None))
        if has_torchserve():
            body = bench.body.read_bytes()
            with torchserve(bench.body.parent, "m", bench.archive, PATH, body) as peer:
                for clients in (1, 8):
                    name = f"{_WHAT}, {clients} client{'s' if clients > 1 else ''}, one core"
                    a, b = _rounds(
                        bench,
                        lambda clients=clients: bench.load(server, clients),
                        lambda clients=clients: bench.load(peer, clients),
                    )
                    rows.append(_row(name, a, b, "torchserve", 1.0))
    return rows


def _two_cores(bench: Bench) -> list[Row]:
    both = f"{measured_core()},{other_core()}"
    shared = "the load generator shares these cores"
    with (
        bench.server("--cpu-threads", "1") as single,
        bench.server("--workers", "2", core=both) as plain,
        bench.server(*_BATCHING, "--workers", "2", core=both) as batched,
    ):
        eight, alone = _rounds(bench, lambda: bench.load(plain, 8), lambda: bench.load(single, 8))
        seconds = 2 * bench.seconds
        a, b = _rounds(
            bench,
            lambda: bench.load(batched, 32, seconds),
            lambda: bench.load(plain, 32, seconds),
        )
    p99 = {kind: statistics.median(f.p99_ms for f in found) for kind, found in (("a", a), ("b", b))}
    return [
        _row(
            f"{_WHAT}, 8 clients, two cores, two workers",
            eight,
            alone,
            "ours on one core",
            1.8,
            shared,
        ),
        _row(
            f"{_WHAT}, 32 clients, two cores, batching on",
            a,
            b,
            "batching off",
            1.0,
            f"p99 {p99['a']:.0f} ms (without: {p99['b']:.0f} ms); {shared}",
        ),
    ]


def _rounds(
    bench: Bench, a: Callable[[], Images], b: Callable[[], Images], rounds: int = 0
) -> tuple[list[Images], list[Images]]:
    pairs = [(a(), b()) for _ in range(rounds or bench.options.rounds)]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _row(
    name: str, a: list[Images], b: list[Images], peer: str, floor: float | None, note: str = ""
) -> Row:
    cpu = statistics.median(y.cpu_ms / x.cpu_ms for x, y in zip(a, b, strict=True))
    own = statistics.median(x.cpu_ms for x in a)
    return Row(
        name=name,
        ours=statistics.median(x.per_second for x in a),
        unit="images/s",
        peer=peer,
        peers=statistics.median(y.per_second for y in b),
        ratio=statistics.median(x.per_second / y.per_second for x, y in zip(a, b, strict=True)),
        floor=floor,
        note="; ".join(filter(None, (f"CPU ratio {cpu:.3f} ({own:.1f} ms an image)", note))),
    )
