"""TensorFlow Serving's APIs over real TensorFlow, and a client that others wrote for them.

`make peers` makes both environments under .venvs/; without them these tests are skipped.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes_functions import ROOT, Server, serving, wait_until

TENSORFLOW = ROOT / ".venvs" / "tensorflow" / "bin" / "python"
CLIENT = ROOT / ".venvs" / "tfs-client" / "bin" / "python"

pytestmark = [
    pytest.mark.clients,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not TENSORFLOW.parents[1].joinpath(".installed").exists(),
        reason="TensorFlow is not here: make tensorflow",
    ),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    script = ROOT / "tests" / "clients_functions" / "make_saved_model.py"
    command = [str(TENSORFLOW), str(script), str(folder), "2", "3", "4"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture
def base(models: Path, tmp_path: Path) -> Path:
    for version in ("2", "3"):
        shutil.copytree(models / version, tmp_path / "base" / version)
    return tmp_path / "base"


@pytest.fixture
def tensorflow(base: Path) -> Iterator[Server]:
    with serving(
        "--model-name",
        "m",
        "--model-dir",
        str(base),
        "--protocol",
        "tensorflow,v2,grpc-v1",
        "--grpc-port",
        "0",
        "--poll-s",
        "0.3",
        python=str(TENSORFLOW),
    ) as running:
        yield running


def states(server: Server) -> dict[str, str]:
    found = server.get("/v1/models/m").json()["model_version_status"]
    return {entry["version"]: entry["state"] for entry in found}


def predict(server: Server) -> Any:
    return server.post("/v1/models/m:predict", {"instances": [1.0, 2.0, 5.0]}).json()


CASES = [
    ("m:predict", {"instances": [1.0, 2.0, 5.0]}, 200, {"predictions": [3.5, 4.0, 5.5]}),
    (
        "m/versions/3:predict",
        {"signature_name": "serving_default", "inputs": [3.0, 4.0]},
        200,
        {"outputs": [4.5, 5.0]},
    ),
    (
        "m:regress",
        {"signature_name": "regress_x_to_y", "examples": [{"x": 80.0}]},
        200,
        {"results": [43.0]},
    ),
    (
        "m:classify",
        {"signature_name": "classify_x_to_y", "examples": [{"x": 20.0}]},
        200,
        {"results": [[["", 13.0]]]},
    ),
    (
        "m:predict",
        {"signature_name": "two", "instances": [{"tag": "foo", "signal": [1, 2]}]},
        200,
        {"predictions": [{"sum": 3.0, "tag_bytes": {"b64": "Zm9v"}}]},
    ),
    (
        "m:predict",
        {"signature_name": "two", "inputs": {"tag": [{"b64": "Zm9v"}], "signal": [[1, 2]]}},
        200,
        {"outputs": {"sum": [3.0], "tag_bytes": [{"b64": "Zm9v"}]}},
    ),
    ("m:predict", {"instances": ["x"]}, 400, "not of expected type: float"),
    ("m:predict", {"instances": [True]}, 400, "not of expected type: float"),
    ("m:predict", {"instances": [[1], [1, 2]]}, 400, "different shapes"),
    ("m:predict", {"instances": [1], "inputs": [1]}, 400, "only one of"),
    ("m:predict", {}, 400, "Missing 'inputs' or 'instances' key"),
    ("m:predict", {"signature_name": 3, "instances": [1]}, 400, "must be a string"),
    ("m:predict", {"signature_name": "zz", "instances": [1]}, 400, "not found in signature def"),
    ("m/versions/9:predict", {"instances": [1]}, 404, "Specific(m, 9)"),
    ("m/labels/stable:predict", {"instances": [1]}, 400, "Unrecognized servable version label"),
    ("nope:predict", {"instances": [1]}, 404, "Latest(nope)"),
    ("m:regress", {"signature_name": "regress_x_to_y", "examples": []}, 400, "'examples'"),
    ("m:regress", {"signature_name": "serving_default", "examples": [{"x": 1.0}]}, 400, "inputs"),
]


def test_tensorflow_servings_rest(tensorflow: Server) -> None:
    for path, body, status, expected in CASES:
        reply = tensorflow.post(f"/v1/models/{path}", body)
        assert reply.status == status, (path, body, reply.body)
        if status == 200:
            assert reply.json() == expected
        else:
            assert expected in reply.error
    assert tensorflow.post("/v1/models/nope:predict", b"{").status == 400
    assert tensorflow.get("/v1/models/nope").status == 404
    assert tensorflow.get("/v1/models").status == tensorflow.get("/v1/x").status == 400
    metadata = tensorflow.get("/v1/models/m/metadata").json()
    inputs = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    assert inputs["x"]["dtype"] == "DT_FLOAT"
    assert inputs["x"]["tensor_shape"]["dim"] == [{"size": "-1", "name": ""}]
    tensor = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}
    v2 = tensorflow.post("/v2/models/m/infer", {"inputs": [tensor]}).json()
    assert (v2["outputs"][0]["data"], v2["model_version"]) == ([3.5, 4.0], "3")


@pytest.mark.skipif(not CLIENT.exists(), reason="min-tfs-client is not here: make peers")
def test_tensorflow_serving_client(tensorflow: Server) -> None:
    script = ROOT / "tests" / "clients_functions" / "tfs.py"
    command = [str(CLIENT), str(script), str(tensorflow.grpc_port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("ok\n")


def test_new_versions_are_picked_up_and_half_or_broken_ones_never_hurt(
    tensorflow: Server, base: Path, models: Path
) -> None:
    assert states(tensorflow) == {"3": "AVAILABLE"}
    half = base / "4"
    half.mkdir()
    shutil.copy(models / "4" / "saved_model.pb", half)
    (half / "variables").mkdir()  # its weights have not arrived
    wait_until(lambda: predict(tensorflow) == {"predictions": [3.5, 4.0, 5.5]}, "version 3")
    assert "4" not in states(tensorflow)
    shutil.copytree(models / "4", half, dirs_exist_ok=True)
    wait_until(lambda: states(tensorflow).get("4") == "AVAILABLE", "version 4")
    wait_until(lambda: states(tensorflow)["3"] == "END", "the end of version 3")
    assert predict(tensorflow) == {"predictions": [4.5, 5.0, 6.5]}
    (base / "5").mkdir()
    (base / "5" / "saved_model.pb").write_bytes(b"broken")
    wait_until(lambda: states(tensorflow).get("5") == "END", "the failure of version 5")
    assert predict(tensorflow) == {"predictions": [4.5, 5.0, 6.5]}
    shutil.rmtree(base / "5")
    shutil.rmtree(half)
    wait_until(lambda: predict(tensorflow) == {"predictions": [3.5, 4.0, 5.5]}, "the roll back")
