"""User transformers as a server: fronts and predictors of every protocol, hooks that misbehave,
several models, KServe's flags."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from functions import oip
from tests.fakes_functions import Server, serving, write_model

PREDICTOR = """
import asyncio
from functions import InferResponse

class Refused(Exception):
    def __init__(self, status):
        super().__init__("from the predictor")
        self.status_code = status

class P:
    def __init__(self, name):
        self.name = name
        self.at_once = self.peak = 0
    async def predict(self, payload, headers):
        if "x-status" in headers:
            raise Refused(int(headers["x-status"]))
        self.at_once += 1
        self.peak = max(self.peak, self.at_once)
        await asyncio.sleep(float(headers.get("x-sleep", 0)))
        self.at_once -= 1
        if isinstance(payload, dict):
            return {"predictions": payload["instances"], "peak": self.peak, "by": self.name}
        answer = InferResponse(payload.id, self.name, payload.inputs)
        answer.parameters["peak"] = self.peak
        return answer
"""

TRANSFORMER = """
class T:
    def __init__(self, name, predictor_host, protocol):
        self.seen = [name, predictor_host, protocol]
    def preprocess(self, payload, headers, context):
        context["v2"] = not isinstance(payload, dict)
        context.predictor_headers["X-From"] = context.model_name
        return payload
    async def postprocess(self, result, context):
        context.response_headers["x-verb"] = context.verb
        if context["v2"]:
            result.parameters["through"] = "T"
            return result
        if not isinstance(result, dict):
            result = {"predictions": result.outputs[0].as_numpy()}
        return {**result, "through": self.seen}
"""

TENSOR = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]}


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = write_model(tmp_path_factory.mktemp("p"), PREDICTOR)
    arguments = ["--model-name", "m", "--model", "b", "--model-dir", str(directory)]
    with serving(*arguments, "--protocol", "v1,v2,grpc-v2", "--grpc-port", "0") as server:
        server.grpc_port  # noqa: B018 - waits for it
        yield server


def front_of(behind: Server, protocol: str, *more: str) -> Any:
    port = behind.grpc_port if protocol == "grpc-v2" else behind.port
    return serving(
        "--model-name", "m", "--predictor-host", f"127.0.0.1:{port}",
        "--predictor-protocol", protocol, "--protocol", "v1,v2,grpc-v2", "--grpc-port", "0",
        "--predictor-headers", "x-status,x-sleep", *more,
    )  # fmt: skip


def grpc_infer(server: Server, metadata: dict[str, str], timeout: float = 30.0) -> Any:
    message = oip.ModelInferRequest(model_name="m", id="1")
    message.inputs.add(name="x", datatype="FP32", shape=[2]).contents.fp32_contents.extend([1, 2])
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call = channel.unary_unary(
            f"/{oip.SERVICE}/ModelInfer",
            oip.ModelInferRequest.SerializeToString,
            oip.ModelInferResponse.FromString,
        )
        return call(message, metadata=list(metadata.items()), timeout=timeout)


CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


@pytest.mark.parametrize("protocol", ["auto", "v1", "v2", "grpc-v2"])
def test_every_front_before_every_predictor(behind: Server, protocol: str, tmp_path: Path) -> None:
    """Answers, deadlines, and the predictor's own errors."""
    directory = write_model(tmp_path, TRANSFORMER)
    with front_of(behind, protocol, "--model-dir", str(directory)) as front:
        reply = front.post("/v1/models/m:predict", {"instances": [[1.0, 2.0]]})
        assert reply.status == 200, reply.body
        assert reply.json()["predictions"] == [[1.0, 2.0]]
        spoken = "v1" if protocol == "auto" else protocol
        port = behind.grpc_port if protocol == "grpc-v2" else behind.port
        assert reply.json()["through"] == ["m", f"127.0.0.1:{port}", spoken]
        assert reply.headers["x-verb"] == "predict"
        if protocol != "v1":  # a V1 predictor's answer to a V2 caller is whatever the hook makes
            reply = front.post("/v2/models/m/infer", {"id": "9", "inputs": [TENSOR]})
            assert reply.status == 200, reply.body
            answer = reply.json()
            assert answer["outputs"][0]["data"] == [1.0, 2.0]
            assert (answer["id"], answer["parameters"]["through"]) == ("9", "T")
            assert grpc_infer(front, {}).outputs[0].shape == [2]
        for status, code in CODES.items():
            reply = front.post(
                "/v1/models/m:predict", {"instances": [[1.0]]}, {"x-status": str(status)}
            )
            assert (reply.status, reply.json()) == (status, {"error": "from the predictor"})
            with pytest.raises(grpc.RpcError) as caught:
                grpc_infer(front, {"x-status": str(status)})
            assert (caught.value.code(), caught.value.details()) == (code, "from the predictor")
        reply = front.post(
            "/v1/models/m:predict", {"instances": [[1.0]]},
            {"x-sleep": "30", "x-envoy-expected-rq-timeout-ms": "300"},
        )  # fmt: skip
        assert reply.status == 504
        assert "left of the caller's time" in reply.error
        assert f"127.0.0.1:{port}" in reply.error
        with pytest.raises(grpc.RpcError) as caught:
            grpc_infer(front, {"x-sleep": "30"}, timeout=0.4)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("protocol", ["v1", "v2", "grpc-v2"])
def test_64_requests_with_sync_hooks_are_at_the_predictor_at_once(
    behind: Server, protocol: str, tmp_path: Path
) -> None:
    """They could not be, were each to hold one of the four threads of the sync hooks."""
    source = TRANSFORMER.replace("async def", "def")
    with (
        front_of(behind, protocol, "--model-dir", str(write_model(tmp_path, source))) as front,
        ThreadPoolExecutor(64) as pool,
    ):
        front.post("/v1/models/m:predict", {"instances": [[1.0]]})
        gate = threading.Barrier(64, timeout=60)

        def one(_: int) -> int:
            gate.wait()
            body = {"inputs": [TENSOR]} if protocol != "v1" else {"instances": [1.0]}
            path = "/v2/models/m/infer" if protocol != "v1" else "/v1/models/m:predict"
            reply = front.post(path, body, {"x-sleep": "1.5"}, timeout=60)
            assert reply.status == 200
            answer = reply.json()
            return int(answer["peak"] if protocol == "v1" else answer["parameters"]["peak"])

        assert max(pool.map(one, range(64))) > 32


def test_async_context_and_several_questions(behind: Server, tmp_path: Path) -> None:
    source = """
class A:
    async def predict(self, payload, headers, context):
        first = await context.predict(payload)
        second = await context.predict({"instances": first["predictions"] + [3]})
        return {"predictions": second["predictions"], "left": context.remaining_s()}
class S:
    def predict(self, payload, context):
        return context.predict_blocking(payload)
class Base:
    async def predict(self, payload, headers=None):
        return await super().predict({"instances": payload["instances"] * 2}, headers)
    def __init__(self, name, predictor_host):
        super().__init__(name)
"""
    directory = write_model(tmp_path, source)
    with front_of(
        behind, "v1", "--model-dir", str(directory), "--model-class", "model.py:A",
        "--model", "s=python:model.py:S", "--model", "b=python:model.py:Base",
        "--model-predictor", f"s=http://127.0.0.1:{behind.port}",
    ) as front:  # fmt: skip
        headers = {"grpc-timeout": "30S"}
        answer = front.post("/v1/models/m:predict", {"instances": [1]}, headers).json()
        assert answer["predictions"] == [1, 3]
        assert 0 < answer["left"] <= 30
        reply = front.post("/v1/models/s:predict", {"instances": [1]})
        assert (reply.status, reply.error) == (404, "Model with name s does not exist.")
        assert front.post("/v1/models/b:predict", {"instances": [1]}).json()["by"] == "b"
        assert front.post("/v1/models/b:predict", {"instances": [1]}).json()["predictions"] == [
            1,
            1,
        ]


def test_what_cannot_be_passed_on_is_the_clients_fault(behind: Server) -> None:
    """Without a `preprocess` nobody but the client has touched it."""
    with front_of(behind, "v2") as front:
        for body in ([1, 2], {"instances": [[1], [1, 2]]}, {"something": 1}, b"\xff\xd8"):
            kind = {"content-type": "image/jpeg"} if isinstance(body, bytes) else {}
            reply = front.post("/v1/models/m:predict", body, kind)
            assert (reply.status, "the predictor cannot be asked this" in reply.error) == (
                400,
                True,
            )


def test_several_models_share_a_class_or_bring_their_own(behind: Server, tmp_path: Path) -> None:
    directory = write_model(tmp_path / "t", TRANSFORMER)
    own = write_model(
        tmp_path / "own", "def postprocess(result, headers): return {**result, 'through': 'own'}"
    )
    arguments = ["--model-dir", str(directory), "--model", "b", "--model", f"c=python:{own}"]
    with front_of(behind, "v1", *arguments) as front:
        for name in ("m", "b"):
            answer = front.post(f"/v1/models/{name}:predict", {"instances": [1]}).json()
            assert (answer["by"], answer["through"][0]) == (name, name)
        reply = front.post("/v1/models/c:predict", {"instances": [1]})
        assert reply.status == 404, "the predictor has no model c"
        assert front.get("/v1/models").json() == {"models": ["m", "b", "c"]}
    host = f"127.0.0.1:{behind.port}"
    with serving("--model", f"b=python:{own}", "--predictor-host", host) as front:
        answer = front.post("/v1/models/b:predict", {"instances": [1]}).json()
        assert answer["through"] == "own", "code in a directory, with no --model-dir"


BAD = """
import asyncio, sys, time

class Bad:
    def preprocess(self, payload, headers):
        match payload["instances"][0]:
            case "raise": raise ValueError("secret detail")
            case "exit": sys.exit(3)
            case "none": return None
            case "number": return 7
            case "odd": return {"instances": [object()]}
            case "never": time.sleep(3600)
        return payload
    async def postprocess(self, result, headers):
        match result["predictions"][0]:
            case "post-raise": raise ValueError("secret detail")
            case "post-exit": sys.exit(3)
            case "post-none": return None
            case "post-object": return object()
            case "post-never": await asyncio.sleep(3600)
            case "post-cancel": raise asyncio.CancelledError
        return result
"""


def test_hooks_that_misbehave_name_themselves(behind: Server, tmp_path: Path) -> None:
    directory = write_model(tmp_path, BAD)
    with front_of(
        behind, "v1", "--model-dir", str(directory), "--timeout-s", "3", "--threads", "3"
    ) as front:
        for value, status, words in (
            ("raise", 500, "preprocess of model m failed"),
            ("exit", 500, "preprocess of model m failed"),
            ("none", 500, "preprocess of model m returned None"),
            ("number", 500, "preprocess returned int"),
            ("odd", 500, "cannot be written as JSON"),
            ("never", 504, "preprocess of model m did not answer within 3 s"),
            ("post-raise", 500, "postprocess of model m failed"),
            ("post-exit", 500, "postprocess of model m failed"),
            ("post-none", 500, "postprocess of model m returned None"),
            ("post-object", 500, "postprocess of model m returned object: "),
            ("post-cancel", 500, "postprocess of model m failed"),
            ("post-never", 504, "postprocess of model m did not answer within 3 s"),
        ):
            reply = front.post("/v1/models/m:predict", {"instances": [value]})
            assert (reply.status, words in reply.error) == (status, True), (value, reply.body)
            assert "secret" not in reply.error
        assert front.post("/v1/models/m:predict", {"instances": [1]}).status == 200
        assert any("secret detail" in line for line in front.lines), "the log has the cause"


def test_kserves_flags(behind: Server, tmp_path: Path) -> None:
    """As KServe's own examples start a transformer; the module parses the command line itself."""
    source = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--predictor_host")
parser.add_argument("--protocol", choices=["v1", "v2", "grpc-v2"])
parser.add_argument("--model_name")
args, _ = parser.parse_known_args()
class T:
    def postprocess(self, result, headers):
        return {"predictions": [args.predictor_host, args.protocol, args.model_name]}
"""
    host = f"127.0.0.1:{behind.grpc_port}"
    directory = write_model(tmp_path, source)
    config = tmp_path / "log.json"
    config.write_text(
        json.dumps(
            {
                "version": 1,
                "formatters": {"plain": {"format": "PLAIN %(name)s %(message)s"}},
                "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "plain",
                                     "stream": "ext://sys.stderr"}},
                "root": {"level": "INFO", "handlers": ["out"]},
            }
        )
    )  # fmt: skip
    with serving(
        "--model_name=m", f"--predictor_host={host}", "--protocol", "grpc-v2",
        "--model-dir", str(directory), "--grpc-port", "0", "--http_port", "0",
        "--predictor_request_timeout_seconds", "20", "--predictor_use_ssl", "false",
        ready=False,
    ) as front:  # fmt: skip
        front.wait_ready()
        reply = front.post("/v1/models/m:predict", {"instances": [[1.0]]})
        assert reply.json() == {"predictions": [host, "grpc-v2", "m"]}


@pytest.mark.parametrize("kind", ["json", "yaml", "ini"])
def test_logging_is_configured_by_a_file(tmp_path: Path, kind: str) -> None:
    texts = {
        "json": '{"version": 1, "formatters": {"p": {"format": "PLAIN %(name)s %(message)s"}},'
        ' "handlers": {"h": {"class": "logging.StreamHandler", "formatter": "p"}},'
        ' "root": {"level": "INFO", "handlers": ["h"]}}',
        "yaml": "version: 1\nformatters: {p: {format: 'PLAIN %(name)s %(message)s'}}\n"
        "handlers: {h: {class: logging.StreamHandler, formatter: p}}\n"
        "root: {level: INFO, handlers: [h]}\n",
        "ini": "[loggers]\nkeys=root\n[handlers]\nkeys=h\n[formatters]\nkeys=p\n"
        "[logger_root]\nlevel=INFO\nhandlers=h\n[handler_h]\nclass=StreamHandler\nformatter=p\n"
        "args=(sys.stderr,)\n[formatter_p]\nformat=PLAIN %(name)s %(message)s\n",
    }
    file = tmp_path / f"log.{kind}"
    file.write_text(texts[kind])
    directory = write_model(tmp_path / "m", "def predict(payload): return payload")
    arguments = ["--model-dir", str(directory), "--log_config_file", str(file)]
    with serving(*arguments, ready=False) as server:
        from tests.fakes_functions import wait_until

        wait_until(lambda: any(line.startswith("PLAIN functions") for line in server.lines),
                   "a line in the configured format")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("log.json", "{", "JSONDecodeError"),
        ("log.yaml", "a: [", "ParserError"),
        ("log.yaml", "- 1", "expected a dictionary"),
        ("log.json", '{"version": 1, "handlers": {"h": {"class": "no.Such"}}}', "no"),
        ("log.conf", None, "no such file"),
    ],
)
def test_a_bad_logging_file_is_exit_2(
    tmp_path: Path, name: str, text: str | None, words: str
) -> None:
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    directory = write_model(tmp_path / "m", "def predict(payload): return payload")
    with serving(
        "--model-dir", str(directory), "--log-config-file", str(file), ready=False
    ) as server:
        assert server.wait_exit() == 2
        assert any(str(file) in line and words in line for line in server.lines), server.lines


def test_a_grpc_url_and_kserves_other_flags(behind: Server) -> None:
    """The scheme says the protocol; KServe's flags without a counterpart are read and noted."""
    flags = ["--enable_grpc", "false", "--max_threads=4", "--enable_predictor_health_check"]
    host = f"grpc://127.0.0.1:{behind.grpc_port}"
    with serving("--model-name", "m", "--predictor_host", host, *flags) as front:
        reply = front.post("/v1/models/m:predict", {"instances": [[1.0, 2.0]]})
        assert (reply.status, reply.json()) == (200, {"predictions": [[1.0, 2.0]]})
        notes = [line["message"] for line in front.logged("level", "WARNING")]
        for flag in ("--enable-grpc", "--max-threads", "--enable-predictor-health-check"):
            assert any(note.startswith(flag + " is KServe's") for note in notes), notes


def test_a_wrong_predictor_host_is_said_at_start(tmp_path: Path) -> None:
    with serving("--predictor-host", "http://user:pass@h", ready=False) as server:
        assert server.wait_exit() == 2
        (line,) = server.lines
        assert "--predictor-host=http://***@h: expected" in line


def test_requests_are_joined_before_the_hooks_and_the_hop(behind: Server, tmp_path: Path) -> None:
    source = """
class T:
    async def preprocess(self, payload, headers):
        return {"instances": [[x, len(payload["instances"])] for x in payload["instances"]]}
"""
    directory = write_model(tmp_path, source)
    with (
        front_of(
            behind, "v1", "--model-dir", str(directory), "--max-batch-size", "8",
            "--max-batch-latency-ms", "200", "--threads", "1",
        ) as front,
        ThreadPoolExecutor(16) as pool,
    ):  # fmt: skip

        def one(n: int) -> Any:
            body = {"instances": [n, n]}
            return front.post("/v1/models/m:predict", body, {"x-sleep": "0.05"}).json()

        answers = list(pool.map(one, range(32)))
        for n, answer in enumerate(answers):
            assert [row[0] for row in answer["predictions"]] == [n, n]
        assert max(row[1] for answer in answers for row in answer["predictions"]) > 2
