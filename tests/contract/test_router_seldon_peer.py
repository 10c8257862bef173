"""Our orchestrator between seldon-core's own client and seldon-core's own microservices.

seldon-core 1.17.1 (Apache-2.0) needs libraries of its time, so it lives in `.venvs/seldon-core`,
which `make peers` makes.
"""

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes_functions import Server, serving, write_model
from tests.fakes_router import ROOT, RouterProcess, free_port, router, wait_until

PEER = ROOT / ".venvs" / "seldon-core" / "bin"

pytestmark = pytest.mark.skipif(
    not (PEER.parent / ".installed").exists(), reason="seldon-core is not here: make peers"
)

CLASSES = """
import numpy as np

class Times:
    def __init__(self, factor=1):
        self.factor = float(factor)
    def predict(self, X, names, meta=None):
        return np.array(X) * self.factor

class Second:
    def route(self, X, names):
        return 1
    def send_feedback(self, features, feature_names, reward, truth, routing=None):
        print("reward", reward, flush=True)

class Mean:
    def aggregate(self, Xs, names):
        return (np.array(Xs[0]) + np.array(Xs[1])) / 2

class PlusOne:
    def transform_input(self, X, names):
        return np.array(X) + 1
"""

CLIENT = """
import json, sys
import numpy as np
from google.protobuf.json_format import MessageToDict
from seldon_core.seldon_client import SeldonClient

rest, grpc = sys.argv[1:]
out = []
for transport, endpoint in (("rest", rest), ("grpc", grpc)):
    client = SeldonClient(
        deployment_name="d", namespace="ns", gateway="ambassador", gateway_endpoint=endpoint,
        transport=transport, client_return_type="proto",
    )
    for kind in ("ndarray", "tensor"):
        answer = client.predict(data=np.array([[1.0, 2.0]]), payload_type=kind)
        told = client.feedback(answer.request, answer.response, reward=1.0)
        out.append([answer.success, MessageToDict(answer.response), told.success])
print(json.dumps(out))
"""

UNITS = {
    "plus": ("PlusOne", "TRANSFORMER", []),
    "second": ("Second", "ROUTER", []),
    "mean": ("Mean", "COMBINER", []),
    "two": ("Times", "MODEL", [{"name": "factor", "value": "2", "type": "FLOAT"}]),
    "four": ("Times", "MODEL", [{"name": "factor", "value": "4", "type": "FLOAT"}]),
}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[int, Path]]]:
    """Each unit as a microservice: its port and its log."""
    folder = tmp_path_factory.mktemp("seldon")
    (folder / "Peers.py").write_text(CLASSES)
    running: list[subprocess.Popen[bytes]] = []
    found: dict[str, tuple[int, Path]] = {}
    try:
        for name, (cls, kind, parameters) in UNITS.items():
            port, log = free_port(), folder / f"{name}.log"
            env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")} | {
                "PREDICTIVE_UNIT_ID": name,
                "PREDICTIVE_UNIT_IMAGE": f"img/{name}:1",
                "PREDICTIVE_UNIT_HTTP_SERVICE_PORT": str(port),
                "PREDICTIVE_UNIT_GRPC_SERVICE_PORT": str(free_port()),
                "PREDICTIVE_UNIT_METRICS_SERVICE_PORT": str(free_port()),
                "PREDICTIVE_UNIT_PARAMETERS": json.dumps(parameters),
            }
            command = [PEER / "seldon-core-microservice", f"Peers.{cls}", "--service-type", kind]
            with log.open("wb") as output:
                running.append(
                    subprocess.Popen(
                        [*command, "--workers", "1"], cwd=folder, env=env,
                        stdout=output, stderr=output, start_new_session=True,
                    )
                )  # fmt: skip
            found[name] = (port, log)
        for name, (port, log) in found.items():
            wait_until(lambda p=port: _healthy(p), f"{name} is up: {log}", 60)  # type: ignore[misc]
        yield found
    finally:
        for process in running:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ping", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _unit(services: dict[str, tuple[int, Path]], name: str, *children: Any) -> dict[str, Any]:
    return {
        "name": name,
        "type": UNITS[name][1],
        "serviceUrl": f"http://127.0.0.1:{services[name][0]}",
        "children": list(children),
    }


def test_seldons_client_and_seldons_nodes_meet_in_our_graph(
    services: dict[str, tuple[int, Path]],
) -> None:
    idle = {"name": "idle", "implementation": "SIMPLE_MODEL"}
    pair = _unit(services, "mean", _unit(services, "two"), _unit(services, "four"))
    tree = _unit(services, "plus", _unit(services, "second", idle, pair))
    spec = {
        "kind": "SeldonDeployment", "name": "d", "namespace": "ns",
        "predictors": [{"name": "p", "graph": tree}],
    }  # fmt: skip
    grpc_port = free_port()
    with router(spec, GRPC_PORT=str(grpc_port)) as process:
        answers = _ask(process, grpc_port)
    assert [[bool(a), bool(f)] for a, _, f in answers] == [[True, True]] * 4
    for _, answer, _ in answers:
        data = answer["data"]
        # ([1, 2] + 1) by 2 and by 4, the mean of both
        assert (data.get("ndarray") or data["tensor"]["values"]) in ([[6.0, 9.0]], [6.0, 9.0])
        meta = answer["meta"]
        assert meta["routing"] == {"plus": -1, "second": 1, "mean": -1, "two": -1, "four": -1}
        assert set(meta["requestPath"]) == {"plus", "mean", "two", "four"}
    rewards = services["second"][1].read_text().count("reward 1.0")
    assert rewards == 4


def _ask(process: RouterProcess, grpc_port: int) -> Any:
    endpoints = [f"127.0.0.1:{process.port}", f"127.0.0.1:{grpc_port}"]
    done = subprocess.run(
        [PEER / "python", "-c", CLIENT, *endpoints], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


# --- seldon-core's contract testers against our servers -------------------------------------------

CONTRACT = {
    "features": [
        {"name": "size", "dtype": "FLOAT", "ftype": "continuous", "range": [0, 10]},
        {"name": "rooms", "dtype": "INT", "ftype": "continuous", "range": [1, 6], "repeat": 2},
    ],
    "targets": [{"name": "price", "dtype": "FLOAT", "ftype": "continuous", "range": [0, 1]}],
}
BOTH = """
import numpy as np

class Both:
    def predict(self, X, names, meta=None):
        assert list(names) in (["size", "rooms1", "rooms2"], []), names
        return np.asarray(X).sum(axis=1, keepdims=True)

    def transform_input(self, X, names):
        return np.asarray(X) * 2

    def send_feedback(self, X, names, reward, truth, routing=None):
        assert np.asarray(X).shape[1] == 3
        return [[reward]]

    def class_names(self):
        return ["price"]
"""


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("contract") / "contract.json"
    file.write_text(json.dumps(CONTRACT))
    return file


@pytest.fixture(scope="module")
def wrapper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A user class on our server, over REST and gRPC."""
    folder = write_model(tmp_path_factory.mktemp("wrapper"), BOTH)
    arguments = ["--model-name", "both", "--model-dir", str(folder)]
    with serving(*arguments, "--protocol", "seldon,grpc-seldon", "--grpc-port", "0") as server:
        yield server


def _tester(program: str, *arguments: object) -> list[str]:
    """The answers that one of seldon-core's testers prints."""
    command = [str(PEER / program), *map(str, arguments), "--prnt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-3000:]
    answers = done.stdout.split("RECEIVED RESPONSE:")[1:]
    assert len(answers) == 2, done.stdout
    assert not [one for one in answers if "FAILURE" in one or "False" in one], done.stdout
    return answers


@pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
@pytest.mark.parametrize("tensor", [False, True], ids=["ndarray", "tensor"])
@pytest.mark.parametrize("endpoint", ["predict", "transform-input", "send-feedback"])
def test_the_contract_tester_is_content_with_our_wrapper(
    wrapper: Server, contract: Path, endpoint: str, tensor: bool, grpc: bool
) -> None:
    port = wrapper.grpc_port if grpc else wrapper.port
    options = ["--grpc"] * grpc + ["--tensor"] * tensor
    answers = _tester(
        "seldon-core-microservice-tester", contract, "127.0.0.1", port,
        "--endpoint", endpoint, "--n-requests", 2, "--batch-size", 3, *options,
    )  # fmt: skip
    for answer in answers:
        kind = "tensor" if tensor else "ndarray"
        assert endpoint == "send-feedback" or kind in answer
        if endpoint == "predict":
            assert "price" in answer


@pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
@pytest.mark.parametrize("endpoint", ["predict", "send-feedback"])
def test_the_api_tester_is_content_with_our_router(
    wrapper: Server, contract: Path, endpoint: str, grpc: bool
) -> None:
    root = {"name": "both", "type": "MODEL", "serviceUrl": f"http://127.0.0.1:{wrapper.port}"}
    spec = {
        "kind": "SeldonDeployment", "name": "d", "namespace": "ns",
        "predictors": [{"name": "p", "graph": root}],
    }  # fmt: skip
    grpc_port = free_port()
    with router(spec, GRPC_PORT=str(grpc_port)) as process:
        answers = _tester(
            "seldon-core-api-tester", contract, "127.0.0.1", grpc_port if grpc else process.port,
            "d", "--namespace", "ns", "--endpoint", endpoint, "--n-requests", 2,
            *["--grpc"] * grpc,
        )  # fmt: skip
    for answer in answers:
        assert endpoint == "send-feedback" or "price" in answer
