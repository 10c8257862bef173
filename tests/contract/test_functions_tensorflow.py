"""TensorFlow Serving's APIs over real TensorFlow, and a client that others wrote for them.

`make peers` makes both environments under .venvs/; without them these tests are skipped.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from functions import tfs
from router_fn.seldon import protos
from tests.fakes_functions import ROOT, Server, serving, wait_until
from tests.fakes_router import RouterProcess, free_port, router

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


TYPES = {"i64": -(1 << 62), "u64": (1 << 64) - 1, "i8": -128, "yes": True, "f64": 0.1}
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
    # names that the signature does not have are ignored in columns; a scalar has rank 0
    ("m:predict", {"inputs": {"x": [2], "y": 1}}, 200, {"outputs": [4.0]}),
    ("m:predict", {"signature_name": "upper", "inputs": "abc"}, 200, {"outputs": "ABC"}),
    ("m:predict", {"signature_name": "upper", "inputs": {"b64": "YWI="}}, 200, {"outputs": "AB"}),
    ("m:predict", {"signature_name": "total", "inputs": [1, 2]}, 200, {"outputs": 3.0}),
    ("m:predict", {"signature_name": "total", "instances": [1, 2]}, 400, "no shape information"),
    ("m:predict", {"signature_name": "uneven", "instances": [1, 2]}, 400, "inconsistent batch"),
    (
        "m:predict",
        {"signature_name": "uneven", "inputs": [1, 2]},
        200,
        {"outputs": {"all": [1.0, 2.0], "first": [1.0]}},
    ),
    (
        "m:predict",
        {"signature_name": "label", "inputs": [2]},
        200,
        {"outputs": {"text": ["2.000000"], "raw_bytes": [{"b64": "Mi4wMDAwMDA="}]}},
    ),
    ("m:predict", {"signature_name": "half", "instances": [1]}, 501, "FP16"),
    ("m:predict", {"signature_name": "complex", "instances": [1]}, 501, "not supported"),
    ("m:predict", {"signature_name": "types", "instances": [TYPES]}, 200, {"predictions": [TYPES]}),
    (
        "m:predict",
        {"signature_name": "types", "instances": [TYPES | {"u64": 0}, TYPES]},
        200,
        {"predictions": [TYPES | {"u64": 0}, TYPES]},
    ),
    (
        "m:predict",
        {"signature_name": "types", "instances": [TYPES | {"i64": 1.0}]},
        400,
        "type: int",
    ),
    (
        "m:predict",
        {"signature_name": "types", "instances": [TYPES | {"i64": 1 << 63}]},
        400,
        "range",
    ),
    ("m:predict", {"signature_name": "types", "instances": [TYPES | {"i8": 128}]}, 400, "range"),
    ("m:predict", {"signature_name": "types", "instances": [TYPES | {"u64": -1}]}, 400, "range"),
    (
        "m:predict",
        {"signature_name": "types", "instances": [TYPES | {"yes": 1}]},
        400,
        "type: bool",
    ),
    (
        "m:predict",
        {"signature_name": "types", "instances": [TYPES | {"f64": "1"}]},
        400,
        "type: float",
    ),
    (
        "m:classify",
        {"signature_name": "classes", "examples": [{"x": [0.25]}, {"x": 0.5}]},
        200,
        {"results": [[["cat", 0.25], ["dog", 0.75]], [["cat", 0.5], ["dog", 0.5]]]},
    ),
    (
        "m:regress",
        {"signature_name": "regress_x_to_y", "context": {"x": 2.0}, "examples": [{}]},
        200,
        {"results": [4.0]},
    ),
    ("m:regress", {"signature_name": "regress_x_to_y", "examples": [{"x": None}]}, 400, "element"),
    ("m:regress", {"signature_name": "regress_x_to_y", "examples": [{"x": [1.0, 2]}]}, 400, "type"),
    ("m:regress", {"signature_name": "regress_x_to_y", "examples": [{"x": 80}]}, 400, "x"),
    ("m:regress", {"signature_name": "regress_x_to_y"}, 400, "'examples'"),
    ("m:regress", {"examples": [{"x": 1.0}]}, 400, "inputs"),
    ("m:predict", {"instances": ["x"]}, 400, "not of expected type: float"),
    ("m:predict", {"instances": [True]}, 400, "not of expected type: float"),
    ("m:predict", {"instances": [[1], [1, 2]]}, 400, "element: 1 key: x of 'instances'"),
    ("m:predict", {"instances": [1, "x"]}, 400, "element: 1 key: x of 'instances'"),
    ("m:predict", {"instances": [None]}, 400, "not of expected type: float"),
    ("m:predict", {"instances": []}, 400, "at least one value"),
    ("m:predict", {"instances": 3}, 400, "at least one value"),
    ("m:predict", {"instances": [1, {"x": 1}]}, 400, "mixes"),
    ("m:predict", {"instances": [{"x": 1}, 1]}, 400, "mixes"),
    ("m:predict", {"instances": [{"y": 1}]}, 400, "element: 0 of 'instances'"),
    ("m:predict", {"inputs": {"y": [1]}}, 400, "Missing named input tensor: x"),
    ("m:predict", {"signature_name": "two", "instances": ["x"]}, 400, "multiple input"),
    ("m:predict", {"signature_name": "two", "inputs": ["x"]}, 400, "multiple input"),
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
    wrong = []
    for path, body, status, expected in CASES:
        reply = tensorflow.post(f"/v1/models/{path}", body)
        said = reply.json() if reply.status == 200 else reply.error
        right = said == expected if status == 200 else expected in said
        if reply.status != status or not right:
            wrong.append((path, body, reply.status, said))
    assert wrong == []
    assert tensorflow.post("/v1/models/nope:predict", b"{").status == 400
    assert tensorflow.get("/v1/models/nope").status == 404
    assert tensorflow.get("/v1/models").status == tensorflow.get("/v1/x").status == 400
    assert tensorflow.get("/V1/Models/m").status == 200
    assert (
        tensorflow.get("/v1/models/m/labels/nope").json() == tensorflow.get("/v1/models/m").json()
    )
    assert tensorflow.get("/v1/models/m/versions/9").error == "Could not find version 9 of model m"
    assert tensorflow.get("/v1/models/m/labels/nope/metadata").status == 400
    for rest in ("/versions/x", ":predict", "/versions/1/labels/a", f"/versions/{1 << 63}"):
        reply = tensorflow.get(f"/v1/models/m{rest}")
        assert (reply.status, reply.error) == (400, f"Malformed request: GET /v1/models/m{rest}")
    assert tensorflow.post("/v1/models/m/metadata").status == 400
    assert tensorflow.get("/elsewhere").status == 404
    origin = {"Origin": "http://example.com"}
    assert tensorflow.request("OPTIONS", "/v1/models/m:predict", headers=origin).status == 200
    assert tensorflow.request("OPTIONS", "/v1/models/m:predict").status == 400
    # NaN and infinity, text behind the object, unknown keys
    odd = b'{"instances": [NaN, Infinity, -Infinity], "more": 1} and more'
    assert b"[NaN, Infinity, -Infinity]" in tensorflow.post("/v1/models/m:predict", odd).body
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
    shutil.copytree(models / "3", base / "5")  # the same number, mended
    wait_until(lambda: states(tensorflow).get("5") == "AVAILABLE", "version 5")
    assert predict(tensorflow) == {"predictions": [3.5, 4.0, 5.5]}
    shutil.rmtree(base / "5")
    wait_until(lambda: predict(tensorflow) == {"predictions": [4.5, 5.0, 6.5]}, "version 4 again")
    shutil.rmtree(half)
    wait_until(lambda: predict(tensorflow) == {"predictions": [3.5, 4.0, 5.5]}, "the roll back")


def test_policies_labels_and_a_start_with_a_broken_version(base: Path, models: Path) -> None:
    shutil.copytree(models / "4", base / "4")
    (base / "9").mkdir()
    (base / "9" / "saved_model.pb").write_bytes(b"broken")
    (base / "10" / "variables").mkdir(parents=True)
    shutil.copy(models / "4" / "saved_model.pb", base / "10")  # half a copy
    (base / "notes").mkdir()
    first = ["--model-name", "m", "--model-dir", str(base), "--protocol", "tensorflow"]
    python = str(TENSORFLOW)
    with serving(*first, python=python) as server:  # latest: the broken one, so the one before it
        assert states(server) == {"9": "END", "4": "AVAILABLE"}
        entry = server.get("/v1/models/m/versions/9").json()["model_version_status"][0]
        assert entry["status"]["error_code"] == "UNKNOWN"
        assert entry["status"]["error_message"]
        assert predict(server) == {"predictions": [4.5, 5.0, 6.5]}
    labels = ["--param", "label.stable=2", "--param", "label.canary=3", "--param", "label.gone=8"]
    with serving(*first, "--version-policy", "specific:2,3", *labels, python=python) as server:
        assert states(server) == {"3": "AVAILABLE", "2": "AVAILABLE"}
        values = {}
        for label in ("stable", "canary", "gone"):
            path = f"/v1/models/m/labels/{label}:predict"
            values[label] = server.post(path, {"instances": [0.0]}).json()
        assert values["stable"] == {"predictions": [2.0]}
        assert values["canary"] == {"predictions": [3.0]}
        assert values["gone"] == {"error": "Unrecognized servable version label: gone"}
        metadata = server.get("/v1/models/m/labels/stable/metadata").json()
        assert metadata["model_spec"]["version"] == "2"
    shutil.rmtree(base / "9")
    shutil.rmtree(base / "10")
    with serving(*first, "--version-policy", "all", python=python) as server:
        assert set(states(server).values()) == {"AVAILABLE"}
        assert set(states(server)) == {"2", "3", "4"}


def seldon_over(url: str, **parameters: str) -> dict[str, Any]:
    """A deployment of one node that the router translates for."""
    given = [{"name": k, "value": v, "type": "STRING"} for k, v in parameters.items()]
    node = {"name": "m", "implementation": "TENSORFLOW_SERVER", "serviceUrl": url,
            "serverProtocol": "tensorflow", "parameters": given}  # fmt: skip
    predictor = {"name": "p", "graph": node}
    return {"kind": "SeldonDeployment", "name": "d", "namespace": "ns", "predictors": [predictor]}


def ask(process: RouterProcess, message: Any) -> tuple[int, Any]:
    body = json.dumps(message).encode()
    reply = process.request("POST", "/api/v1.0/predictions", body)
    return reply.status, json.loads(reply.body)


def reload(server: Server, versions: list[int], labels: dict[str, int]) -> None:
    """HandleReloadConfigRequest."""
    asked = tfs.ReloadConfigRequest()
    config = asked.config.model_config_list.config.add(name="m", model_platform="tensorflow")
    config.model_version_policy.specific.versions.extend(versions)
    config.version_labels.update(labels)
    with grpc.insecure_channel(
        f"127.0.0.1:{server.grpc_port}", options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        ask = channel.unary_unary(
            "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
            tfs.ReloadConfigRequest.SerializeToString,
        )
        ask(asked, timeout=60)


def in_every_worker(server: Server, path: str, body: Any = None) -> list[Any]:
    """The different answers over connections that are open at the same time: workers share those
    evenly."""
    method = "GET" if body is None else "POST"
    data = None if body is None else json.dumps(body)
    found = []
    with contextlib.ExitStack() as open_ones:
        for _ in range(6):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            open_ones.callback(connection.close)
            connection.request(method, path, data)
            answer = json.loads(connection.getresponse().read())
            if answer not in found:
                found.append(answer)
    return found


def test_a_new_configuration_reaches_every_worker(base: Path) -> None:
    with serving(
        "--model-name", "m", "--model-dir", str(base), "--protocol", "tensorflow,v2,grpc-v1",
        "--grpc-port", "0", "--poll-s", "0.3", "--workers", "2", python=str(TENSORFLOW),
    ) as server:  # fmt: skip
        wait_until(lambda: len(server.logged("message", "ready")) == 2, "both workers are ready")

        def serves(*versions: str) -> None:
            (status,) = in_every_worker(server, "/v1/models/m")
            assert {
                one["version"] for one in status["model_version_status"]
                if one["state"] == "AVAILABLE"
            } == set(versions)  # fmt: skip

        def labelled(label: str) -> list[Any]:
            path = f"/v1/models/m/labels/{label}:predict"
            return in_every_worker(server, path, {"instances": [1.0]})

        serves("3")
        reload(server, [2, 3], {})
        serves("2", "3")
        reload(server, [2, 3], {"stable": 2})
        assert labelled("stable") == [{"predictions": [2.5]}]
        with pytest.raises(grpc.RpcError, match="which is not available"):
            reload(server, [3], {"stable": 9})
        serves("2", "3")

        victim = server.children()[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(server.logged("message", "ready")) == 3, "it is replaced")
        serves("2", "3")
        assert labelled("stable") == [{"predictions": [2.5]}]

        # Loaded anew, it is what it was at the start, everywhere.
        assert server.post("/v2/repository/models/m/load").status == 200
        serves("3")


def test_seldons_messages_in_front_of_tensorflow_over_rest_and_grpc(tensorflow: Server) -> None:
    with router(seldon_over(f"http://127.0.0.1:{tensorflow.port}")) as process:
        status, answer = ask(process, {"data": {"ndarray": [1.0, 2.0]}})
        assert (status, answer["data"]) == (200, {"names": ["t:0", "t:1"], "ndarray": [[3.5, 4.0]]})
        status, answer = ask(process, {"jsonData": {"inputs": {"x": [1]}}})
        assert (status, answer["jsonData"]) == (200, {"outputs": [3.5]})
        status, answer = ask(process, {"data": {"ndarray": ["x"]}})
        assert (status, answer["status"]["reason"]) == (400, "TFSERVING_ERROR")
        assert "not of expected type: float" in answer["status"]["info"]
    url = f"grpc://127.0.0.1:{tensorflow.grpc_port}"
    with router(seldon_over(url)) as process:  # names and types from the model's signature
        status, answer = ask(process, {"data": {"ndarray": [1, 2]}, "meta": {"puid": "p"}})
        assert (status, answer["data"]["tftensor"]) == (
            200,
            {
                "dtype": "DT_FLOAT",
                "tensorShape": {"dim": [{"size": "2"}]},
                "floatVal": [3.5, 4.0],
            },
        )
        status, answer = ask(process, {"data": {"ndarray": ["x"]}})
        assert (status, "no number" in answer["status"]["info"]) == (400, True)
        status, answer = ask(process, {"strData": "x"})
        assert (status, "strData cannot be converted" in answer["status"]["info"]) == (400, True)
    grpc_port = free_port()
    spec = seldon_over(url, model_input="signal", model_output="sum", signature_name="two")
    with router(spec, GRPC_PORT=str(grpc_port)) as process:
        status, answer = ask(process, {"data": {"ndarray": [[1, 2]]}})
        assert status == 400  # the other input is missing: TensorFlow Serving's own refusal
        assert "expected: {signal,tag}" in answer["status"]["info"]
        predict_packed(grpc_port)


def predict_packed(port: int) -> None:
    """Several tensors at once: a PredictRequest in customData, over gRPC from end to end."""
    request = protos.MESSAGES["PredictRequest"]()
    request.model_spec.name, request.model_spec.signature_name = "m", "two"
    request.inputs["tag"].dtype = 7
    request.inputs["tag"].string_val.append(b"foo")
    request.inputs["tag"].tensor_shape.dim.add(size=1)
    request.inputs["signal"].dtype = 1
    request.inputs["signal"].float_val.extend([1.0, 2.0])
    for size in (1, 2):
        request.inputs["signal"].tensor_shape.dim.add(size=size)
    message = protos.MESSAGES["SeldonMessage"]()
    message.customData.Pack(request)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        predict = channel.unary_unary(
            "/seldon.protos.Seldon/Predict",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=protos.MESSAGES["SeldonMessage"].FromString,
        )
        answer = predict(message, timeout=30)
    response = protos.MESSAGES["PredictResponse"]()
    assert answer.customData.Unpack(response)
    assert list(response.outputs["sum"].float_val) == [3.0]
    assert list(response.outputs["tag_bytes"].string_val) == [b"foo"]
    assert response.model_spec.version.value == 3


def test_a_graph_of_tensorflows_protocol_over_grpc(tensorflow: Server) -> None:
    url = f"grpc://127.0.0.1:{tensorflow.grpc_port}"
    graph = {"name": "main", "graph": {"name": "m", "serviceUrl": url}}
    spec = {
        "kind": "SeldonDeployment", "name": "d", "namespace": "n", "protocol": "tensorflow",
        "predictors": [graph],
    }  # fmt: skip
    grpc_port = free_port()
    with router(spec, GRPC_PORT=str(grpc_port)) as process:
        script = ROOT / "tests" / "clients_functions" / "tfs.py"
        command = [str(CLIENT), str(script), str(grpc_port), "graph"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert found.stdout == "ok\n", found.stderr
        # REST in front of gRPC says what TensorFlow Serving's own REST says
        for path in ("/v1/models/m", "/v1/models/m/metadata"):
            assert process.request("GET", path).json == tensorflow.get(path).json()
        for body in (
            {"instances": [1.0, 2.0]},
            {"inputs": {"x": [1]}},
            {"signature_name": "two", "inputs": {"tag": ["a"], "signal": [[1, 2]]}},
            {"signature_name": "two", "instances": [{"tag": "a", "signal": [1, 2]}]},
        ):
            raw = json.dumps(body).encode()
            answer = process.request("POST", "/v1/models/m:predict", raw)
            direct = tensorflow.post("/v1/models/m:predict", body)
            assert (answer.status, answer.json) == (200, direct.json())
