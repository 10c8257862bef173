"""Clients that others wrote, each in a virtual environment of its own. Off by default:
TURNOUT_CLIENTS=1.

The environments are made under .venvs/ at first use (a few minutes). TensorFlow Serving's clients
are in test_functions_tensorflow.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes_functions import ROOT, serving, write_model

pytestmark = [
    pytest.mark.clients,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not os.environ.get("TURNOUT_CLIENTS"), reason="set TURNOUT_CLIENTS=1"),
]

ECHO = """
from functions import InferResponse
class Echo:
    def predict(self, request, headers=None):
        if isinstance(request, dict):
            return {"predictions": request["instances"]}
        return InferResponse("", "", request.inputs)
"""

PACKAGES = {
    "kserve": ["kserve", "tritonclient[http,grpc]", "scikit-learn"],
}


def venv(name: str) -> str:
    """The Python of an environment, made if need be."""
    python = ROOT / ".venvs" / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES[name]], check=True)
    return str(python)


def run_client(environment: str, script: str, *arguments: Any) -> None:
    command = [
        venv(environment),
        str(ROOT / "tests" / "clients_functions" / script),
        *map(str, arguments),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("ok\n")


@pytest.mark.parametrize("script", ["triton.py", "kserve_sdk.py"])
def test_v2_clients(tmp_path: Path, script: str) -> None:
    directory = write_model(tmp_path, ECHO)
    arguments = [
        "--model-name",
        "echo",
        "--model-dir",
        str(directory),
        "--protocol",
        "v1,v2,grpc-v2",
    ]
    with serving(*arguments, "--grpc-port", "0") as server:
        run_client("kserve", script, server.port, server.grpc_port)
