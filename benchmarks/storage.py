"""The storage initializer against s5cmd, rclone, curl, KServe's own downloader and a boto3 loop.

A real S3 server (SeaweedFS) has one core, the tool the other; data and destinations are in memory.
Ours runs as its image has it (`storage_image`). Peers run in alternating rounds. The objects are
uploaded by boto3 with its defaults (8 MiB parts), which is how most models get into a bucket.
"""

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import harness, storage_image
from benchmarks.harness import Options, Row
from tests import seaweed

TITLE = "Storage initializer"
NOTES = (
    "Ratios of times are ours : peer (smaller is better), of speeds likewise (bigger is better); "
    "medians of the rounds' ratios. Ours verifies every object (ETag MD5 or CRC) and keeps a "
    "manifest with a checksum of every file; s5cmd, rclone (multipart), KServe and boto3 do not. "
    "The server has one core and is the limit of the big rows: its CPU time per byte is about the "
    "same for all tools and sizes of ranges, so that a client can only keep it busy, and none can "
    "be much faster than one that throws the bytes away. Single rounds of the 1 GiB rows differ by "
    "a fifth; ours, s5cmd and cp therefore take three times as many, each first as often as last. "
    "Local copies carry no checksum of their own."
)

MIB = 1 << 20
BIG_MIB = 1024
SMALL_COUNT, SMALL_BYTES = 2000, 100 * 1024
MIDDLE_COUNT, MIDDLE_MIB = 20, 50
LIMIT = "4 ranges by curl, thrown away"
"""The server's own limit: nothing is written, verified or kept."""
OFTEN = 3
PEERS_VENV = harness.ROOT / ".venvs" / "storage-bench"

FILL = """
import os, sys
from pathlib import Path
root, kind = Path(sys.argv[1]), sys.argv[2]
block = os.urandom(64 << 20)
root.mkdir()
if kind == "one":
    with (root / "one.bin").open("wb") as file:
        for index in range(int(sys.argv[3]) // 64):
            file.write(bytes([index % 256]) + block[1:])
elif kind == "small":
    for index in range(int(sys.argv[3])):
        start = index * 1000
        (root / f"{index:05d}.bin").write_bytes(block[start : start + int(sys.argv[4])])
else:
    for index in range(int(sys.argv[3])):
        (root / f"{index:05d}.bin").write_bytes(block[index : index + (int(sys.argv[4]) << 20)])
"""

UPLOAD = """
import boto3, os, sys
from concurrent.futures import ThreadPoolExecutor
client = boto3.client("s3")
root, bucket, prefix = sys.argv[1:4]
with ThreadPoolExecutor(4) as pool:
    list(pool.map(lambda name: client.upload_file(f"{root}/{name}", bucket, f"{prefix}/{name}"),
                  sorted(os.listdir(root))))
"""

BOTO_LOOP = """
import boto3, os, sys
client = boto3.client("s3")
bucket, prefix, out = sys.argv[1:4]
for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix + "/"):
    for entry in page["Contents"]:
        target = os.path.join(out, os.path.basename(entry["Key"]))
        client.download_file(bucket, entry["Key"], target)
"""

KSERVE = (
    "import sys; from kserve_storage import Storage; Storage.download(sys.argv[1], sys.argv[2])"
)


@dataclass(frozen=True, slots=True)
class Cost:
    """One run of a tool."""

    seconds: float
    cpu_s: float
    peak_mb: float


def run(options: Options) -> list[Row]:
    base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(prefix="bench-storage-", dir=base) as folder:
        bench = _Bench(Path(folder), options)
        prefix = ("taskset", "-c", str(harness.other_core()))
        with seaweed.running(bucket="bench", directory=bench.root / "weed", prefix=prefix) as s3:
            bench.use(s3)
            rows = [*_small(bench), *_one(bench), *_middle(bench), *_local(bench)]
            return [*rows, *_start(bench), *_image(bench)]


class _Bench:
    def __init__(self, root: Path, options: Options) -> None:
        self.root = root
        self.options = options
        self.dest = root / "dest"
        self.environ: dict[str, str] = {}
        self.image = storage_image.build(harness.ROOT / ".venvs" / "storage-image-s3")
        self.initializer = [self.image.python, "-m", "storage_initializer"]
        self.s3: seaweed.S3Server

    def use(self, s3: seaweed.S3Server) -> None:
        self.s3 = s3
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("AWS_") and not name.lower().endswith("_proxy")
        }
        self.environ = {
            **clean,
            **s3.environ(),
            "S3_ENDPOINT_URL": s3.endpoint,
            "PYTHONPATH": str(self.image.app),
            "RCLONE_CONFIG": "/dev/null",
            "RCLONE_CONFIG_S_TYPE": "s3",
            "RCLONE_CONFIG_S_PROVIDER": "Other",
            "RCLONE_CONFIG_S_ENDPOINT": s3.endpoint,
            "RCLONE_CONFIG_S_ACCESS_KEY_ID": s3.access_key or "",
            "RCLONE_CONFIG_S_SECRET_ACCESS_KEY": s3.secret_key or "",
        }

    def upload(self, kind: str, *sizes: int) -> None:
        """Data is made and sent by other processes, so that this one stays small."""
        source = self.root / "upload"
        command = [sys.executable, "-c", FILL, str(source), kind, *map(str, sizes)]
        subprocess.run(command, check=True)
        command = [sys.executable, "-c", UPLOAD, str(source), "bench", kind]
        subprocess.run(command, check=True, env=self.environ)
        shutil.rmtree(source)

    def tools(self, kind: str) -> dict[str, list[str]]:
        """Commands by name; those that are not installed are missing."""
        out = str(self.dest)
        found = {"ours": [*self.initializer, f"s3://bench/{kind}", out]}
        s5cmd = Path(sys.executable).parent / "s5cmd"
        if s5cmd.exists():
            found["s5cmd"] = [str(s5cmd), "cp", f"s3://bench/{kind}/*", f"{out}/"]
        if shutil.which("rclone"):
            found["rclone"] = ["rclone", "copy", f"s:bench/{kind}", out]
        found["boto3"] = [sys.executable, "-c", BOTO_LOOP, "bench", kind, out]
        if kserve := kserve_python():
            found["kserve"] = [kserve, "-c", KSERVE, f"s3://bench/{kind}", out]
        return found

    def measure(self, command: Sequence[str], *, keep: bool = False) -> Cost:
        if not keep:
            shutil.rmtree(self.dest, ignore_errors=True)
            self.dest.mkdir()
        with tempfile.TemporaryFile() as log:
            began = time.monotonic()
            process = subprocess.Popen(
                ["taskset", "-c", str(harness.measured_core()), *command],
                cwd=self.image.app,  # as the image; in the checkout its folder would be found first
                env=self.environ,
                stdout=log,
                stderr=log,
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            if status:
                log.seek(0)
                tail = log.read()[-1000:].decode(errors="replace")
                raise RuntimeError(f"{command[:3]} exited with {process.returncode}: {tail}")
        return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)

    def rounds(
        self,
        commands: Mapping[str, Sequence[str]],
        slow: Mapping[str, int] | None = None,
        often: Collection[str] = (),
    ) -> dict[str, list[Cost]]:
        """Alternating rounds, every other one backwards. Tools in `slow` run only so many of them,
        those in `often` three times as many."""
        usual = self.options.rounds
        most = {name: (slow or {}).get(name, usual) for name in commands}
        most |= dict.fromkeys(often, OFTEN * usual)
        costs: dict[str, list[Cost]] = {name: [] for name in commands}
        for number in range(max(most.values())):
            for name in list(commands)[:: -1 if number % 2 else 1]:
                if number < most[name]:
                    costs[name].append(self.measure(commands[name]))
        return costs


def kserve_python() -> str:
    """KServe's downloader clashes with our pins: it lives in a venv of its own, made on demand."""
    python = PEERS_VENV / "bin" / "python"
    ready = PEERS_VENV / ".kserve-storage"
    if not ready.exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", str(PEERS_VENV)], check=True)
            pip = [str(python), "-m", "pip", "install", "--quiet", "kserve-storage"]
            subprocess.run(pip, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return ""
        ready.touch()
    return str(python)


def _ratio(ours: Sequence[Cost], peers: Sequence[Cost]) -> float:
    """Median of the rounds' time ratios; a peer with fewer rounds is compared by its median."""
    if len(ours) == len(peers):
        return statistics.median(a.seconds / b.seconds for a, b in zip(ours, peers, strict=True))
    return _median(ours) / _median(peers)


def _median(costs: Sequence[Cost]) -> float:
    return statistics.median(cost.seconds for cost in costs)


def _note(costs: Sequence[Cost]) -> str:
    cpu = statistics.median(cost.cpu_s for cost in costs)
    best = min(cost.seconds for cost in costs)
    return f"best {best:.2f} s, CPU {cpu:.2f} s, {min(c.peak_mb for c in costs):.0f} MB"


def _one(bench: _Bench) -> list[Row]:
    if not bench.options.wants("1 GiB"):
        return []
    bench.upload("one", BIG_MIB)
    commands = bench.tools("one")
    if curl := shutil.which("curl"):
        signed = [
            "--aws-sigv4", "aws:amz:us-east-1:s3",
            "--user", f"{bench.s3.access_key}:{bench.s3.secret_key}",
            f"{bench.s3.endpoint}/bench/one/one.bin",
        ]  # fmt: skip
        commands["curl"] = [curl, "-sf", "-o", str(bench.dest / "one.bin"), *signed]
        commands[LIMIT] = [curl, "-sf", "--parallel", "--parallel-immediate"]
        quarter = BIG_MIB * MIB // 4
        for start in range(0, BIG_MIB * MIB, quarter):
            if start:
                commands[LIMIT] += ["--next", "-sf"]
            commands[LIMIT] += ["-r", f"{start}-{start + quarter - 1}", "-o", "/dev/null", *signed]
    costs = bench.rounds(commands, {"kserve": 2, "boto3": 2, "curl": 3}, often=("ours", "s5cmd"))
    size = BIG_MIB * MIB / 1e6
    rows = []
    for peer, found in costs.items():
        if peer == "ours":
            continue
        rows.append(
            Row(
                name="one 1 GiB object",
                ours=size / _median(costs["ours"]),
                unit="MB/s",
                peer=peer,
                peers=size / _median(found),
                ratio=1 / _ratio(costs["ours"], found),
                floor=1.1 if peer == "s5cmd" else None,
                note=f"ours {_note(costs['ours'])}; {peer} {_note(found)}",
            )
        )
    peak = max(cost.peak_mb for cost in costs["ours"])
    rows.append(Row(name="one 1 GiB object, peak memory", ours=peak, unit="MB", ceiling=100))
    return rows


def _small(bench: _Bench) -> list[Row]:
    if not bench.options.wants("2,000"):
        return []
    bench.upload("small", SMALL_COUNT, SMALL_BYTES)
    costs = bench.rounds(bench.tools("small"), {"kserve": 1, "boto3": 1})
    aims = {"s5cmd": 0.9, "kserve": 0.1}
    rows = _time_rows("2,000 x 100 KiB", costs, aims)
    peak = max(cost.peak_mb for cost in costs["ours"])
    rows.append(Row(name="2,000 x 100 KiB, peak memory", ours=peak, unit="MB", ceiling=80))
    bench.measure(bench.tools("small")["ours"])
    again = [bench.measure(bench.tools("small")["ours"], keep=True) for _ in range(3)]
    seconds = min(cost.seconds for cost in again)
    rows.append(
        Row(
            name="2,000 x 100 KiB, rerun when complete",
            ours=seconds,
            unit="s",
            ceiling=1.0,
            note="asks the source whether anything changed",
        )
    )
    return rows


def _middle(bench: _Bench) -> list[Row]:
    if not bench.options.wants("20 x"):
        return []
    bench.upload("middle", MIDDLE_COUNT, MIDDLE_MIB)
    costs = bench.rounds(bench.tools("middle"), {"kserve": 2, "boto3": 2})
    best = min((name for name in costs if name != "ours"), key=lambda name: _median(costs[name]))
    return _time_rows("20 x 50 MiB", costs, {best: 0.9})


def _time_rows(
    name: str, costs: Mapping[str, Sequence[Cost]], ceilings: Mapping[str, float]
) -> list[Row]:
    return [
        Row(
            name=name,
            ours=_median(costs["ours"]),
            unit="s",
            peer=peer,
            peers=_median(found),
            ratio=_ratio(costs["ours"], found),
            ceiling=ceilings.get(peer),
            note=f"ours {_note(costs['ours'])}; {peer} {_note(found)}",
        )
        for peer, found in costs.items()
        if peer != "ours"
    ]


def _local(bench: _Bench) -> list[Row]:
    if not bench.options.wants("file://"):
        return []
    source = bench.root / "local"
    subprocess.run([sys.executable, "-c", FILL, str(source), "one", str(BIG_MIB)], check=True)
    commands = {
        "ours": [*bench.initializer, f"file://{source}", str(bench.dest)],
        "cp": ["cp", str(source / "one.bin"), str(bench.dest)],
    }
    costs = bench.rounds(commands, often=commands)
    linked = bench.environ | {"STORAGE_LOCAL_MODE": "hardlink"}
    bench.environ, plain = linked, bench.environ
    hard = [bench.measure(commands["ours"]) for _ in range(3)]
    bench.environ = plain
    shutil.rmtree(source)
    size = BIG_MIB * MIB / 1e6
    return [
        Row(
            name="file:// of 1 GiB (memory to memory, no reflink there)",
            ours=size / _median(costs["ours"]),
            unit="MB/s",
            peer="cp",
            peers=size / _median(costs["cp"]),
            ratio=1 / _ratio(costs["ours"], costs["cp"]),
            floor=0.9,
            note=f"hard link instead: {min(cost.seconds for cost in hard):.2f} s",
        )
    ]


def _start(bench: _Bench) -> list[Row]:
    """From exec to the first byte asked for, KServe beside us."""
    if not bench.options.wants("start"):
        return []
    kserve = kserve_python()
    if not kserve:
        return []
    out = str(bench.root / "never")
    commands = {
        "ours": [*bench.initializer, "s3://bench/x", out],
        "kserve": [kserve, "-c", KSERVE, "s3://bench/x", out],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(bench.options.rounds + 1):
        for name, command in commands.items():
            times[name].append(_first_request(command, bench.environ, bench.image.app))
    ours, peers = times["ours"][1:], times["kserve"][1:]  # the first compiles byte code
    return [
        Row(
            name="start: exec to the first request",
            ours=statistics.median(ours),
            unit="s",
            peer="kserve",
            peers=statistics.median(peers),
            ratio=statistics.median(a / b for a, b in zip(ours, peers, strict=True)),
            ceiling=0.25,
        )
    ]


def _image(bench: _Bench) -> list[Row]:
    if not bench.options.wants("image"):
        return []
    image = bench.image
    libraries = sum(image.library_bytes.values())
    name, size = max(image.library_bytes.items(), key=lambda pair: pair[1])
    note = (
        f"our code {image.app_bytes / 1e6:.1f} MB with byte code; most is {name}, {size / 1e6:.1f}"
    )
    megabytes = (image.app_bytes + libraries) / 1e6
    title = "image: on top of the Python base, EXTRAS=s3"
    return [Row(name=title, ours=megabytes, unit="MB", note=note)]


def _first_request(command: Sequence[str], environ: Mapping[str, str], app: Path) -> float:
    """Seconds until a listener hears from the tool; then the tool is ended."""
    with _listener() as (port, heard):
        env = {**environ, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        began = time.monotonic()
        process = subprocess.Popen(
            ["taskset", "-c", str(harness.measured_core()), *command],
            cwd=app,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            if not heard.wait(60):
                raise RuntimeError(f"{command[:3]} asked for nothing in 60 s")
            return time.monotonic() - began
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _listener() -> Iterator[tuple[int, threading.Event]]:
    heard = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    if connection.recv(1):
                        heard.set()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1], heard
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
