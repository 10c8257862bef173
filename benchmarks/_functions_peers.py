"""The model servers that are measured: ours, the bare loops, and the peers that are installed.

Peers live in virtual environments under `.venvs/`; rows whose peer is not there are left out:

    make .venvs/kserve/.installed .venvs/mlserver/.installed .venvs/pytriton/.installed

TorchServe is the one of this environment; its frontend needs Java 17.
"""

import contextlib
import http.client
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.harness import ROOT, Service, free_port, measured_core, service

V1 = b'{"instances":[[6.8,2.8,4.8,1.4]]}'
V2 = b'{"inputs":[{"name":"input-0","shape":[1,4],"datatype":"FP32","data":[6.8,2.8,4.8,1.4]}]}'
V1_PATH, V2_PATH = "/v1/models/iris:predict", "/v2/models/iris/infer"
VENVS = ROOT / ".venvs"


@contextlib.contextmanager
def ours(*arguments: str, core: int | str | None = None) -> Iterator[Service]:
    """Our server, ready."""
    port = free_port()
    command = [sys.executable, "-m", "functions", "--host", "127.0.0.1", *arguments]
    chosen = measured_core() if core is None else core
    with service(command, port, chosen, {"PORT": str(port)}) as running:
        wait_ready(port)
        yield running


@contextlib.contextmanager
def bare(kind: str, argument: str = "-") -> Iterator[Service]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks._functions_bare", kind, argument, str(port)]
    with service(command, port, measured_core()) as running:
        yield running


@contextlib.contextmanager
def kserve(file: Path) -> Iterator[Service]:
    port = free_port()
    python = VENVS / "kserve" / "bin" / "python"
    command = [str(python), str(ROOT / "benchmarks" / "_functions_kserve.py"), str(file), str(port)]
    with service(command, port, measured_core()) as running:
        wait_answer(port, V1_PATH, V1)
        yield running


@contextlib.contextmanager
def mlserver(file: Path) -> Iterator[Service]:
    port, grpc_port, metrics_port = free_port(), free_port(), free_port()
    folder = file.parent / "mlserver"
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text(
        json.dumps(
            {
                "http_port": port,
                "grpc_port": grpc_port,
                "metrics_port": metrics_port,
                "host": "127.0.0.1",
                "parallel_workers": 0,
                "debug": False,
            }
        )
    )
    (folder / "model-settings.json").write_text(
        json.dumps(
            {
                "name": "iris",
                "implementation": "mlserver_sklearn.SKLearnModel",
                "parameters": {"uri": str(file)},
            }
        )
    )
    command = [str(VENVS / "mlserver" / "bin" / "mlserver"), "start", str(folder)]
    with service(command, port, measured_core()) as running:
        wait_answer(port, V2_PATH, V2)
        yield running


def wait_ready(port: int) -> None:
    poll(lambda: request(port, "GET", "/readyz", b"") == 200)


def wait_answer(port: int, path: str, body: bytes) -> None:
    poll(lambda: request(port, "POST", path, body) == 200)


def poll(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if condition():
                return
        time.sleep(0.005)
    raise RuntimeError(f"not ready after {seconds:g} s")


def request(port: int, method: str, path: str, body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body or None, {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def installed(name: str) -> bool:
    """Is this peer's virtual environment there?"""
    return (VENVS / name / "bin" / "python").exists()


@contextlib.contextmanager
def pytriton(file: Path) -> Iterator[tuple[Service, int]]:
    """Triton with the models `iris` and `copy`; also its gRPC port."""
    port, grpc_port = free_port(), free_port()
    script = str(ROOT / "benchmarks" / "_functions_pytriton.py")
    command = [
        str(VENVS / "pytriton" / "bin" / "python"), script, str(file), str(port), str(grpc_port),
    ]  # fmt: skip
    # Its Python backend takes the first libpython of the loader's path, which must be this one's.
    environ = {"LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))}
    with service(command, port, measured_core(), environ, start_s=120) as running:
        wait_answer(port, V2_PATH, V2)
        yield running, grpc_port


def has_torchserve() -> bool:
    """TorchServe is in this environment, and a Java of version 17 or later."""
    java = shutil.which("java")
    if java is None or not Path(sys.executable).with_name("torchserve").exists():
        return False
    text = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', text)
    return found is not None and int(found[1]) >= 17


@contextlib.contextmanager
def torchserve(work: Path, name: str, archive: Path, path: str, body: bytes) -> Iterator[Service]:
    """TorchServe with one archive and one worker, under KServe's envelope."""
    folder = work / f"torchserve-{name}"
    folder.mkdir()
    ports = [free_port() for _ in range(5)]
    port = ports[0]
    settings = {
        "inference_address": f"http://127.0.0.1:{ports[0]}",
        "management_address": f"http://127.0.0.1:{ports[1]}",
        "metrics_address": f"http://127.0.0.1:{ports[2]}",
        "grpc_inference_port": ports[3],
        "grpc_management_port": ports[4],
        "grpc_inference_address": "127.0.0.1",
        "grpc_management_address": "127.0.0.1",
        "default_workers_per_model": 1,
        "disable_token_authorization": "true",
        "disable_system_metrics": "true",
        "service_envelope": "kserve",
        "model_store": archive.parent,
        "load_models": f"{name}={archive.name}",
    }
    config = folder / "config.properties"
    config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    bin_ = Path(sys.executable).parent
    command = [
        str(bin_ / "torchserve"), "--start", "--foreground", "--disable-token-auth", "--ncs",
        "--ts-config", str(config),
    ]  # fmt: skip
    # It keeps its process id in the temporary directory, and its logs where it is started.
    environ = {
        "TMPDIR": str(folder),
        "PATH": f"{bin_}:/usr/bin:/bin",
        "LOG_LOCATION": str(folder),
        "METRICS_LOCATION": str(folder),
        "OMP_NUM_THREADS": "1",
    }
    with service(command, port, measured_core(), environ, start_s=120) as running:
        wait_answer(port, path, body)
        yield running


def archive_iris(work: Path, file: Path) -> Path:
    """The iris model as a .mar, for TorchServe."""
    handler = work / "iris_handler.py"
    handler.write_text(
        "import os, joblib\n"
        "class Handler:\n"
        "    def initialize(self, context):\n"
        "        folder = context.system_properties['model_dir']\n"
        "        self.model = joblib.load(os.path.join(folder, 'model.joblib'))\n"
        "    def handle(self, data, context):\n"
        "        return self.model.predict(data).tolist()\n"
    )
    store = work / "iris-store"
    store.mkdir()
    command = [
        str(Path(sys.executable).with_name("torch-model-archiver")), "--model-name", "iris",
        "--version", "1.0", "--handler", str(handler), "--extra-files", str(file),
        "--export-path", str(store),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return store / "iris.mar"
