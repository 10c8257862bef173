"""Batching, transformers, archives, warm-up, preloading, the payload logger: one server each."""

import base64
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fakes_functions import Server, serving, wait_until, write_model

# --- batching

SQUARES = '''
import time

class Squares:
    """Notes how many instances each call had."""
    def predict(self, payload, headers=None):
        rows = payload["instances"]
        time.sleep(0.05)
        return {"predictions": [[x * x, len(rows)] for x in rows]}
'''


def test_batches_are_split_to_their_owners_and_a_bad_instance_fails_alone(tmp_path: Path) -> None:
    directory = write_model(tmp_path, SQUARES)
    arguments = ["--model-dir", str(directory), "--max-batch-size", "8", "--threads", "1"]
    with serving(*arguments) as server, ThreadPoolExecutor(24) as pool:
        bodies: list[Any] = [[n, n + 1] if n % 3 else [n] for n in range(20)]
        bodies[7] = ["x"]  # str * str is a TypeError for the whole joined call

        def call(rows: list[Any]) -> tuple[int, Any]:
            reply = server.post("/v1/models/model:predict", {"instances": rows})
            return reply.status, reply.json()

        answers = list(pool.map(call, bodies))
        sizes = set()
        for rows, (status, answer) in zip(bodies, answers, strict=True):
            if rows == ["x"]:
                assert status == 500
                continue
            assert status == 200
            assert [pair[0] for pair in answer["predictions"]] == [x * x for x in rows]
            sizes |= {pair[1] for pair in answer["predictions"]}
        assert max(sizes) > 2, "nothing was joined"
        assert max(sizes) <= 8
        assert b"turnout_batch_size_count" in server.get("/metrics").body


def test_sync_and_async_hooks_of_joined_calls_do_not_wait_for_each_other(tmp_path: Path) -> None:
    source = """
import asyncio, time
class Mixed:
    def preprocess(self, body):
        time.sleep(0.02)
        return body
    async def predict(self, body):
        await asyncio.sleep(0.02)
        return {"predictions": body["instances"]}
"""
    directory = write_model(tmp_path, source)
    arguments = ["--model-dir", str(directory), "--max-batch-size", "4", "--threads", "2"]
    with serving(*arguments) as server, ThreadPoolExecutor(16) as pool:

        def call(n: int) -> Any:
            # An odd one cannot be joined: more calls than threads wait at once.
            body: dict[str, Any] = {"instances": [n], **({"own": 1} if n % 2 else {})}
            return server.post("/v1/models/model:predict", body).json()["predictions"]

        assert list(pool.map(call, range(32))) == [[n] for n in range(32)]


def test_tensors_are_joined_over_both_protocols(tmp_path: Path) -> None:
    import joblib
    import numpy as np
    from sklearn import datasets, svm

    features, classes = datasets.load_iris(return_X_y=True)
    model = svm.SVC().fit(features, classes)
    joblib.dump(model, tmp_path / "model.joblib")
    expected = model.predict(features).tolist()
    with (
        serving("--model-dir", str(tmp_path), "--max-batch-size", "32") as server,
        ThreadPoolExecutor(16) as pool,
    ):

        def call(at: int) -> Any:
            row = features[at].tolist()
            if at % 2:
                return server.post("/v1/models/model:predict", {"instances": [row]}).json()[
                    "predictions"
                ][0]
            if at % 10 == 0:
                assert server.post("/v1/models/model:predict", {"instances": [[1]]}).status == 400
            tensor = {"name": "x", "shape": [1, 4], "datatype": "FP64", "data": row}
            return server.post("/v2/models/model/infer", {"inputs": [tensor]}).json()["outputs"][0][
                "data"
            ][0]

        assert list(pool.map(call, range(0, 150, 3))) == np.array(expected)[::3].tolist()


# --- transformers

PREDICTOR = """
class P:
    def predict(self, payload, headers=None):
        if not isinstance(payload, dict):
            return {t.name: t.as_numpy() * 2 for t in payload.inputs}
        if payload.get("status"):
            error = RuntimeError("from the predictor")
            error.status_code = payload["status"]
            raise error
        return {"predictions": [x * 2 for x in payload["instances"]], "trace":
        headers.get("traceparent")}
"""

TRANSFORMER = """
class T:
    def preprocess(self, payload, headers):
        if not isinstance(payload, dict):
            return payload
        return {**payload, "instances": [x + 1 for x in payload.get("instances", [])]}
    def postprocess(self, result, headers):
        return {**result, "through": "transformer"} if isinstance(result, dict) else result
"""


def host_of(server: Server) -> str:
    return f"127.0.0.1:{server.port}"


def test_a_transformer_calls_its_predictor_and_passes_its_status_on(tmp_path: Path) -> None:
    predictor, transformer = (
        write_model(tmp_path / "p", PREDICTOR),
        write_model(tmp_path / "t", TRANSFORMER),
    )
    with (
        serving("--model-name", "m", "--model-dir", str(predictor)) as behind,
        serving(
            "--model-name",
            "m",
            "--model-dir",
            str(transformer),
            "--predictor-host",
            host_of(behind),
        ) as front,
    ):
        reply = front.post(
            "/v1/models/m:predict", {"instances": [1]}, {"traceparent": "00-ab-cd-01"}
        )
        assert reply.json() == {
            "predictions": [4],
            "trace": "00-ab-cd-01",
            "through": "transformer",
        }
        for status in (404, 429, 503):
            reply = front.post("/v1/models/m:predict", {"instances": [], "status": status})
            assert (reply.status, "from the predictor" in reply.error) == (status, True)
        behind.stop()
        reply = front.post("/v1/models/m:predict", {"instances": [1]})
        assert (reply.status, "connection refused" in reply.error) == (502, True)


@pytest.mark.parametrize("protocol", ["v2", "grpc-v2"])
def test_a_transformer_speaks_v2_to_its_predictor(tmp_path: Path, protocol: str) -> None:
    predictor, transformer = (
        write_model(tmp_path / "p", PREDICTOR),
        write_model(tmp_path / "t", TRANSFORMER),
    )
    arguments = [
        "--model-name",
        "m",
        "--model-dir",
        str(predictor),
        "--protocol",
        "v2,grpc-v2",
        "--grpc-port",
        "0",
    ]
    with serving(*arguments) as behind:
        port = behind.grpc_port if protocol == "grpc-v2" else behind.port
        with serving(
            "--model-name",
            "m",
            "--model-dir",
            str(transformer),
            "--predictor-host",
            f"127.0.0.1:{port}",
            "--predictor-protocol",
            protocol,
        ) as front:
            body = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}]}
            reply = front.post("/v2/models/m/infer", body)
            assert reply.json()["outputs"] == [
                {"name": "x", "shape": [2], "datatype": "FP32", "data": [2.0, 4.0]}
            ]


def test_a_slow_predictor_is_504(tmp_path: Path) -> None:
    slow = write_model(
        tmp_path / "p", "import time\nclass P:\n  def predict(self, x): time.sleep(20)\n"
    )
    transformer = write_model(tmp_path / "t", TRANSFORMER)
    with (
        serving("--model-name", "m", "--model-dir", str(slow), "--drain-s", "0") as behind,
        serving(
            "--model-name",
            "m",
            "--model-dir",
            str(transformer),
            "--predictor-host",
            host_of(behind),
            "--predictor-timeout-s",
            "0.2",
        ) as front,
    ):
        reply = front.post("/v1/models/m:predict", {"instances": [1]})
        assert (reply.status, "within 0.2 s" in reply.error) == (504, True)


# --- archives

NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def forward(self, x):
        return self.layer(x)
"""

OWN_HANDLER = """
import base64, os
import helper

class Refused(Exception):
    error_code = 415

class Handler:
    def initialize(self, context):
        directory = context.system_properties["model_dir"]
        assert os.path.exists(os.path.join(directory, "helper.py"))
        assert context.manifest["model"]["modelName"] == "own"
        self.initialized = True

    def handle(self, data, context):
        rows = []
        for at, row in enumerate(data):
            if row.get("data") == "refuse":
                raise Refused("not this")
            if row.get("data") == "status":
                context.set_response_status(code=422, phrase="unreadable", idx=at)
            if row.get("data") == "header":
                context.set_response_header(at, "x-from-handler", context.get_request_header(at,
                "x-mine"))
            rows.append(helper.shout(row.get("data") or row.get("body")))
        return rows
"""


def archive(tmp_path: Path, name: str, handler: str, **files: str) -> Path:
    source = tmp_path / f"{name}-source"
    write_model(source, handler, "handler.py")
    command = [
        str(Path(sys.executable).with_name("torch-model-archiver")),
        "-f",
        "--model-name",
        name,
        "--version",
        "1.0",
        "--handler",
        str(source / "handler.py"),
    ]
    for flag, text in files.items():
        file = source / text.partition("|")[0]
        if "|" in text:
            file.write_text(text.partition("|")[2])
        command += [f"--{flag.replace('_', '-')}", str(file)]
    store = tmp_path / name
    store.mkdir()
    subprocess.run([*command, "--export-path", str(store)], check=True, capture_output=True)
    return store


def test_a_handler_of_ones_own_runs_in_process(tmp_path: Path) -> None:
    store = archive(
        tmp_path,
        "own",
        OWN_HANDLER,
        extra_files="helper.py|def shout(x):\n  return str(x).upper()\n",
    )
    with serving("--model-name", "own", "--model-dir", str(store)) as server:
        predict = "/v1/models/own:predict"
        reply = server.post(predict, {"instances": [{"data": "a"}, {"data": "b"}]})
        assert reply.json() == {"predictions": ["A", "B"]}
        refused = server.post(predict, {"instances": [{"data": "refuse"}]})
        assert (refused.status, refused.error) == (415, "not this")
        status = server.post(predict, {"instances": [{"data": "status"}]})
        assert (status.status, status.error) == (422, "unreadable")
        header = server.post(predict, {"instances": [{"data": "header"}]}, {"X-Mine": "abc"})
        assert header.headers["x-from-handler"] == "abc"
        raw = server.post(predict, b"\xff", {"content-type": "image/jpeg"})
        assert raw.body == b"B'\\XFF'"
        assert server.get("/v2/models/own").json()["versions"] == ["1.0"]
        v2 = {"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["hi"]}]}
        assert server.post("/v2/models/own/infer", v2).json()["outputs"][0]["data"] == ["HI"]


def test_a_handler_on_torchserves_base_and_warm_up(tmp_path: Path) -> None:
    import torch

    handler = """
from ts.torch_handler.base_handler import BaseHandler

class H(BaseHandler):
    def preprocess(self, data):
        return super().preprocess([row["data"] for row in data])
"""
    namespace: dict[str, Any] = {}
    exec(NET, namespace)
    net = namespace["Net"]()
    torch.nn.init.constant_(net.layer.weight, 2.0)
    torch.nn.init.constant_(net.layer.bias, 1.0)
    source = tmp_path / "lin-source"
    source.mkdir()
    torch.save(net.state_dict(), source / "net.pth")
    store = archive(tmp_path, "lin", handler, model_file=f"net.py|{NET}", serialized_file="net.pth")
    (store / "warmup.json").write_text('[{"instances": [{"data": [0.0, 0.0]}]}]')
    with serving("--model-name", "lin", "--model-dir", str(store), "--cpu-threads", "1") as server:
        assert [r for r in server.logged("message") if r["message"].startswith("1 warm-up request")]
        assert [
            r for r in server.logged("message") if r["message"] == "torch uses 1 threads per call"
        ]
        reply = server.post(
            "/v1/models/lin:predict", {"instances": [{"data": [1.0, 2.0]}, {"data": [0.0, 0.0]}]}
        )
        assert reply.json() == {"predictions": [[7.0], [1.0]]}


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_state_dicts_and_torchscript(tmp_path: Path) -> None:
    import torch

    namespace: dict[str, Any] = {}
    exec(NET, namespace)
    net = namespace["Net"]()
    torch.nn.init.constant_(net.layer.weight, 2.0)
    torch.nn.init.constant_(net.layer.bias, 1.0)
    state = write_model(tmp_path / "state", NET, "net.py")
    torch.save(net.state_dict(), state / "model.pt")
    checkpoint = write_model(tmp_path / "checkpoint", NET, "net.py")
    torch.save({"epoch": 3, "state_dict": net.state_dict()}, checkpoint / "last.pth")
    script = tmp_path / "script" / "1"  # as Triton has it
    script.mkdir(parents=True)
    trace: Any = torch.jit.trace
    trace(net, torch.zeros(1, 2)).save(str(script / "model.pt"))
    pickled = write_model(tmp_path / "pickled", NET, "net.py")
    torch.save({"weights": base64.b64encode, "more": 1}, pickled / "model.pt")
    models = {"state": state, "checkpoint": checkpoint, "script": script.parent}
    with serving(*(f"--model={name}={where}" for name, where in models.items())) as server:
        body = {"instances": [[1, 2], [0, 0]]}
        for name in models:
            reply = server.post(f"/v1/models/{name}:predict", body)
            assert reply.json() == {"predictions": [[7.0], [1.0]]}, name
        tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
        answer = server.post("/v2/models/state/infer", {"inputs": [tensor]}).json()
        assert answer["outputs"] == [
            {"name": "output-0", "shape": [1, 1], "datatype": "FP32", "data": [7.0]}
        ]
        assert server.post("/v1/models/state:predict", {"instances": [[1]]}).status == 400
        assert server.post("/v1/models/state:predict", {"instances": [["a", "b"]]}).status == 400
    with serving("--model-dir", str(pickled), ready=False) as server:
        assert server.wait_exit() == 1
        assert "no plain state dict" in server.lines[-1]


# --- the rest


def test_a_warm_up_request_that_fails_is_a_model_that_does_not_work(tmp_path: Path) -> None:
    write_model(tmp_path, "class M:\n  def predict(self, x): return x['nothing']\n")
    (tmp_path / "warmup.json").write_text('[{"instances": [1]}]')
    with serving("--model-dir", str(tmp_path), ready=False) as server:
        assert server.wait_exit() == 1
        assert "warm-up request 0 failed: KeyError: 'nothing'" in server.lines[-1]
    with serving("--model-dir", str(tmp_path), "--warmup", "false") as server:
        assert server.is_ready()


def test_preloaded_models_are_shared_by_the_workers(tmp_path: Path) -> None:
    source = """
import os
class M:
    def load(self): self.loaded_by = os.getpid()
    def predict(self, x): return {"loaded_by": self.loaded_by}
"""
    write_model(tmp_path, source)
    with serving("--model-dir", str(tmp_path), "--preload", "true", "--workers", "2") as server:
        replies = {
            server.post("/v1/models/model:predict", {}).json()["loaded_by"] for _ in range(8)
        }
        assert replies == {server.process.pid}
        wait_until(lambda: len(server.children()) == 2, "both workers")


def test_pickles_can_be_refused(tmp_path: Path) -> None:
    import joblib

    joblib.dump({}, tmp_path / "model.joblib")
    with serving(
        "--model-dir", str(tmp_path), environ={"FUNCTIONS_ALLOW_PICKLE": "false"}, ready=False
    ) as server:
        assert server.wait_exit() == 1
        assert "--allow-pickle is false" in server.lines[-1]


def test_seldon_classes_are_served(tmp_path: Path) -> None:
    source = """
class M:
    def __init__(self, factor=1): self.factor = factor
    def transform_input(self, X, names): return X + 1
    def predict(self, X, names, meta=None): return X * self.factor
    def tags(self): return {"k": "v"}
"""
    parameters = json.dumps([{"name": "factor", "value": "3", "type": "INT"}])
    write_model(tmp_path, source)
    with serving(
        "--model-dir", str(tmp_path), environ={"PREDICTIVE_UNIT_PARAMETERS": parameters}
    ) as server:
        reply = server.post("/v1/models/model:predict", {"instances": [[1, 2]]})
        assert reply.json() == {"predictions": [[6, 9]], "meta": {"tags": {"k": "v"}}}


def test_async_hooks_run_concurrently_and_may_stream(tmp_path: Path) -> None:
    source = """
import asyncio
class M:
    def __init__(self): self.inside = 0
    async def predict(self, payload, headers):
        if payload.get("stream"):
            async def pieces():
                for n in range(3):
                    yield f"{n};"
            return pieces()
        self.inside += 1
        while self.inside < 3:
            await asyncio.sleep(0.01)
        return {"predictions": [self.inside]}
"""
    write_model(tmp_path, source)
    with serving("--model-dir", str(tmp_path)) as server, ThreadPoolExecutor(3) as pool:

        def call(_: int) -> int:
            return server.post("/v1/models/model:predict", {"instances": []}).status

        assert list(pool.map(call, range(3))) == [200] * 3
        assert server.post("/v1/models/model:predict", {"stream": True}).body == b"0;1;2;"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    received: list[tuple[dict[str, str], bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(202)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.server_port}/log", received
    listener.shutdown()
    listener.server_close()


def test_payloads_are_logged_as_cloudevents(tmp_path: Path, collector: Any) -> None:
    url, received = collector
    write_model(
        tmp_path, "class M:\n  def predict(self, x): return {'predictions': x['instances']}\n"
    )
    environ = {"K_SERVICE": "shop"}
    with serving("--model-dir", str(tmp_path), "--logger-url", url, environ=environ) as server:
        server.post("/v1/models/model:predict", {"instances": [1]}, {"x-request-id": "r1"})
        wait_until(lambda: len(received) == 2, "both events")
    (request, sent), (response, answered) = received
    assert (request["ce-type"], response["ce-type"]) == (
        "org.kubeflow.serving.inference.request",
        "org.kubeflow.serving.inference.response",
    )
    assert request["ce-id"] == response["ce-id"] == "r1"
    assert request["ce-inferenceservicename"] == "shop"
    assert (json.loads(sent), json.loads(answered)) == ({"instances": [1]}, {"predictions": [1]})


def test_a_dead_logger_never_delays_an_answer(tmp_path: Path) -> None:
    write_model(
        tmp_path, "class M:\n  def predict(self, x): return {'predictions': x['instances']}\n"
    )
    with serving("--model-dir", str(tmp_path), "--logger-url", "http://127.0.0.1:9/x") as server:
        for _ in range(5):
            assert (
                server.post("/v1/models/model:predict", {"instances": [1]}, timeout=2).status == 200
            )
        wait_until(
            lambda: [r for r in server.logged("message") if "cannot be logged" in r["message"]],
            "the warning",
        )


def test_seldons_api_over_http(tmp_path: Path) -> None:
    write_model(tmp_path, "class M:\n  def predict(self, X, names, meta=None): return X\n")
    environ = {"PREDICTIVE_UNIT_ID": "clf", "PREDICTIVE_UNIT_IMAGE": "img/clf:1.0"}
    arguments = ["--model-dir", str(tmp_path), "--protocol", "seldon,v1"]
    with serving(*arguments, environ=environ) as server:
        reply = server.post("/api/v1.0/predictions", {"data": {"ndarray": [[1, 2]]}})
        assert reply.json() == {
            "data": {"names": ["t:0", "t:1"], "ndarray": [[1, 2]]},
            "meta": {"requestPath": {"clf": "img/clf:1.0"}},
        }
        assert server.get("/predict?json=%7B%22strData%22%3A%22q%22%7D").json()["strData"] == "q"
        assert server.get("/health/ping").body == b"pong"
        bad = server.post("/predict", b"not json")
        assert (bad.status, bad.json()["status"]["reason"]) == (400, "MICROSERVICE_BAD_DATA")
        assert server.get("/nope").status == 404
        assert server.post("/v1/models/model:predict", {"instances": [1]}).status == 200
