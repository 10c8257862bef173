"""What every benchmark needs: pinned processes, load, rows with ratio and floor, and RESULTS.md.

Machines are shared and noisy, so no row is an absolute number with a pass mark: a row compares ours
with a peer measured in the same minutes on the same core, in alternating rounds, and takes the
median of the rounds' ratios. CPU time per request is reported beside throughput: it hardly moves
when the neighbours are busy.
"""

import compileall
import contextlib
import fcntl
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
_START_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How thorough a run is."""

    rounds: int = 5
    seconds: float = 3.0
    only: str = ""
    long: bool = False
    """Also rows that take ten minutes each."""

    def wants(self, name: str) -> bool:
        return self.only in name


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the results: ours against a peer, or against an absolute limit."""

    name: str
    ours: float
    unit: str
    peer: str = ""
    """What it is compared with; empty for an absolute row."""
    peers: float | None = None
    ratio: float | None = None
    floor: float | None = None
    """The ratio (or, without a peer, the value) must be at least this."""
    ceiling: float | None = None
    note: str = ""

    @property
    def judged(self) -> float:
        return self.ours if self.ratio is None else self.ratio

    @property
    def missed(self) -> bool:
        below = self.floor is not None and self.judged < self.floor
        return below or (self.ceiling is not None and self.judged > self.ceiling)

    @property
    def aim(self) -> str:
        if self.floor is not None:
            return f">= {self.floor:g}"
        return f"<= {self.ceiling:g}" if self.ceiling is not None else ""

    def line(self) -> str:
        compared = (
            f"; {self.peer} {self.peers:,.4g}; ratio {self.ratio:.3f}"
            if self.ratio is not None and self.peers is not None
            else ""
        )
        verdict = "  MISSED" if self.missed else ""
        return (
            f"{self.name}: {self.ours:,.5g} {self.unit}{compared} {self.aim} {self.note}{verdict}"
        )


# --- processes -----------------------------------------------------------------------------------


def cores() -> list[int]:
    """The cores we may use. One is for what is measured, the last for load and upstreams."""
    return sorted(os.sched_getaffinity(0))


def byte_compile() -> None:
    """Byte-compile every unit, as its image has it and as pip does with the libraries.

    Where PYTHONDONTWRITEBYTECODE is set, a checkout's modules would be compiled at every start, and
    those of the peers and of the bare loops would not.
    """
    for unit in (
        "functions",
        "router_fn",
        "events",
        "storage_initializer",
        "knative",
        "benchmarks",
    ):
        if not compileall.compile_dir(ROOT / unit, quiet=1):
            raise RuntimeError(f"{unit} cannot be compiled")


def measured_core() -> int:
    return cores()[0]


def other_core() -> int:
    """Load generator and upstreams; the same core again on a machine that has only one."""
    return cores()[-1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: "subprocess.Popen[bytes]", start_s: float = _START_S) -> None:
    """Poll until something listens. Raises RuntimeError when the process ends or time is up."""
    end = time.monotonic() + start_s
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port} after {start_s:g} s")


@dataclass
class Service:
    """A running process that listens."""

    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def pids(self) -> list[int]:
        """The process and its children (workers)."""
        out = [self.process.pid]
        for pid in out:
            with contextlib.suppress(OSError):
                out += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return out

    def cpu_s(self) -> float:
        """CPU seconds used so far."""
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def rss_bytes(self) -> int:
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return total * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def service(
    command: Sequence[str],
    port: int,
    core: int | str,
    env: Mapping[str, str] | None = None,
    *,
    start_s: float = _START_S,
) -> Iterator[Service]:
    """Run a process pinned to a core (or a list of them) until the block ends; it must listen on
    `port`."""
    full = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    full["PYTHONPATH"] = str(ROOT)
    full.update(env or {})
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            cwd=ROOT,
            env=full,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            try:
                wait_for_port(port, process, start_s)
            except RuntimeError as error:
                log.seek(0)
                raise RuntimeError(
                    f"{error}\n{log.read().decode(errors='replace')[-2000:]}"
                ) from None
            yield Service(port, process)
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it has left (TorchServe its JVM)
            process.wait()


@contextlib.contextmanager
def nginx(server: str, core: int, http: str = "") -> Iterator[Service]:
    """An nginx with one worker: `server` is the inside of its server block, `http` goes before
    it."""
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(binary).exists():
        raise RuntimeError("nginx is not installed (Debian: nginx-light)")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-nginx-") as folder:
        temps = " ".join(
            f"{kind}_temp_path {folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        conf = Path(folder, "nginx.conf")
        conf.write_text(
            f"daemon off; master_process off; worker_processes 1; pid {folder}/pid;\n"
            f"error_log {folder}/error.log;\nevents {{ worker_connections 8192; }}\n"
            f"http "
            f"{{ access_log off; keepalive_requests 100000000; keepalive_timeout 600; {temps}\n"
            f"client_max_body_size 0; client_body_buffer_size 2m;\n{http}\n"
            f"server {{ listen 127.0.0.1:{port} backlog=2048; {server} }} }}\n"
        )
        command = [binary, "-c", str(conf), "-e", f"{folder}/error.log"]
        with service(command, port, core) as running:
            yield running


# --- load ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a burst of requests showed."""

    per_second: float
    p50_us: float
    cpu_us: float
    """CPU time of the measured service per request, in microseconds."""
    errors: int


_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}


def wrk(target: Service, options: Options, *, clients: int, body: bytes, path: str = "/") -> Load:
    """POST `body` over keep-alive connections for a while."""
    binary = shutil.which("wrk")
    if binary is None:
        raise RuntimeError("wrk is not installed (Debian: wrk)")
    with tempfile.TemporaryDirectory(prefix="bench-wrk-") as folder:
        Path(folder, "body").write_bytes(body)
        script = Path(folder, "post.lua")
        script.write_text(
            f'wrk.method="POST"; local f=io.open("{folder}/body","rb"); wrk.body=f:read("*a");'
            f" f:close();"
            ' wrk.headers["Content-Type"]="application/json"'
        )
        before = target.cpu_s()
        done = subprocess.run(
            [
                "taskset",
                "-c",
                str(other_core()),
                binary,
                "-t1",
                f"-c{clients}",
                f"-d{options.seconds:g}s" if options.seconds >= 1 else "-d1s",
                "--latency",
                "--timeout",
                "60s",
                "-s",
                str(script),
                target.url + path,
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        used = target.cpu_s() - before
    text = done.stdout
    count = int(_find(r"(\d+) requests in", text))
    p50, unit = re.search(r"50%\s+([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    errors = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", text)))
    errors += sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", text)))
    return Load(
        per_second=float(_find(r"Requests/sec:\s+([\d.]+)", text)),
        p50_us=float(p50) * _UNITS[unit],
        cpu_us=used / max(count, 1) * 1e6,
        errors=errors,
    )


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"unexpected output of wrk:\n{text}")
    return match[1]


def versus(
    ours: Callable[[], Load], peer: Callable[[], Load], options: Options
) -> tuple[list[Load], list[Load]]:
    """Alternating rounds of both, after one unmeasured round of each."""
    ours()
    peer()
    pairs = [(ours(), peer()) for _ in range(options.rounds)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def throughput_row(
    name: str,
    ours: Sequence[Load],
    peers: Sequence[Load],
    *,
    peer: str,
    floor: float,
    note: str = "",
) -> Row:
    """Requests per second, ours : peer. The ratio is the median of the rounds' ratios."""
    ratio = statistics.median(a.per_second / b.per_second for a, b in zip(ours, peers, strict=True))
    cpu = statistics.median(
        b.cpu_us / a.cpu_us for a, b in zip(ours, peers, strict=True) if a.cpu_us
    )
    errors = sum(load.errors for load in ours)
    extra = f"CPU ratio {cpu:.3f} ({statistics.median(a.cpu_us for a in ours):.1f} us a request)"
    if errors:
        extra += f"; {errors} ERRORS"
    return Row(
        name=name,
        ours=statistics.median(a.per_second for a in ours),
        unit="requests/s",
        peer=peer,
        peers=statistics.median(b.per_second for b in peers),
        ratio=ratio,
        floor=floor,
        note="; ".join(filter(None, (extra, note))),
    )


# --- results -------------------------------------------------------------------------------------


@contextlib.contextmanager
def machine_lock() -> Iterator[None]:
    """One benchmark run at a time on this machine."""
    path = Path(tempfile.gettempdir(), "turnout-benchmarks.lock")
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def machine() -> str:
    """Processor, cores, load and versions: what a number means nothing without."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        model = found[1] if found else model
    load = os.getloadavg()[0]
    return (
        f"{time.strftime('%Y-%m-%d %H:%M')} UTC, {model}, {os.cpu_count()} cores, load "
        f"{load:.1f} at the end, "
        f"Linux {platform.release()}, Python {platform.python_version()}{_versions()}"
    )


def _versions() -> str:
    from importlib import metadata

    out = ""
    for name in ("uvloop", "flask", "gunicorn", "requests", "msgspec", "orjson"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            out += f", {name} {metadata.version(name)}"
    with contextlib.suppress(OSError):
        text = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False).stderr
        out += f", nginx {text.strip().rpartition('/')[2]}"
    return out


def write_section(name: str, title: str, rows: Sequence[Row], notes: str = "") -> None:
    """Replace the unit's section of RESULTS.md, leaving the others alone."""
    lines = [f"<!-- begin {name} -->", f"## {title}", "", machine(), ""]
    lines += ["| row | ours | peer | ratio | aim | |", "|---|---|---|---|---|---|"]
    for row in rows:
        peer = f"{row.peer}: {row.peers:,.5g}" if row.peers is not None else row.peer
        ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
        verdict = "**missed**" if row.missed else ("met" if row.aim else "")
        lines.append(
            f"| {row.name} | {row.ours:,.5g} {row.unit} | {peer} | {ratio} | {row.aim} | "
            f"{verdict} {row.note} |"
        )
    lines += ["", notes.strip(), f"<!-- end {name} -->"] if notes else ["", f"<!-- end {name} -->"]
    section = "\n".join(lines) + "\n"
    text = (
        RESULTS.read_text()
        if RESULTS.exists()
        else "# Benchmark results\n\nWritten by `python -m benchmarks`.\n\n"
    )
    pattern = re.compile(rf"<!-- begin {name} -->\n.*?<!-- end {name} -->\n", re.S)
    text = pattern.sub(lambda _: section, text) if pattern.search(text) else text + section + "\n"
    RESULTS.write_text(text)


def python() -> str:
    return sys.executable
