"""Clients that others wrote: Triton's here, KServe's and MLServer's in environments of their own.

`make peers` makes these environments under .venvs/; without them their tests are skipped.
TensorFlow Serving's clients are in test_functions_tensorflow.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes_functions import ROOT, Server, serving, write_model

pytestmark = pytest.mark.timeout(300)

ECHO = """
from functions import InferResponse
class Echo:
    def predict(self, request, headers=None):
        if isinstance(request, dict):
            return {"predictions": request["instances"]}
        return InferResponse("", "", request.inputs)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    directory = write_model(tmp_path, ECHO)
    arguments = ["--model-name", "echo", "--model-dir", str(directory), "--grpc-port", "0"]
    with serving(*arguments, "--protocol", "v1,v2,grpc-v2") as running:
        yield running


def run_client(python: str, script: str, *arguments: Any) -> None:
    command = [python, str(ROOT / "tests" / "clients_functions" / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("ok\n")


def venv(name: str) -> str:
    folder = ROOT / ".venvs" / name
    if not (folder / ".installed").exists():  # nothing there, or not all of it
        pytest.skip(f"no .venvs/{name}: make peers")
    return str(folder / "bin" / "python")


def test_tritonclient(server: Server) -> None:
    pytest.importorskip("tritonclient")
    run_client(sys.executable, "triton.py", server.port, server.grpc_port)


@pytest.mark.clients
def test_kserves_clients(server: Server) -> None:
    run_client(venv("kserve"), "kserve_sdk.py", server.port, server.grpc_port)


@pytest.mark.clients
def test_mlservers_types_and_codecs(server: Server) -> None:
    run_client(venv("mlserver"), "mlserver_types.py", server.port)
