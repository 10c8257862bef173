"""Ready-made transformers as processes: every caller's protocol towards every predictor's."""

import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from functions import oip
from tests.fakes_functions import ROOT, Server, serving

PREDICTORS = ("v1", "v2", "grpc-v2", "auto")
DIGITS = load_digits()


def picture(index: int) -> bytes:
    """A digit of the data set, eight by eight, as a PNG."""
    buffer = io.BytesIO()
    pixels = np.clip(DIGITS.images[index] * 16, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def model() -> LogisticRegression:
    return LogisticRegression(max_iter=2000).fit(DIGITS.data / 16, DIGITS.target)


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory, model: LogisticRegression
) -> Iterator[dict[str, Server]]:
    """One predictor that speaks everything, and a transformer for each of its protocols."""
    home = tmp_path_factory.mktemp("digits")
    (home / "model").mkdir()
    joblib.dump(model, home / "model" / "model.joblib")
    (home / "labels.json").write_text(json.dumps([f"digit {n}" for n in range(10)]))
    (home / "image.json").write_text(
        json.dumps(
            {
                "transformer": "image",
                "resize": "8x8",
                "channels": 1,
                "layout": "flat",
                "labels": "labels.json",
                "max_pixels": 10_000,
            }
        )
    )
    everything = ("--protocol", "v1,v2,grpc-v2", "--grpc-port", "0", "--model-name", "digits")
    with ExitStack() as stack:
        predictor = stack.enter_context(
            serving(
                *everything,
                *("--model-dir", str(home / "model"), "--param", "method=predict_proba"),
            )
        )
        found = {"predictor": predictor}
        for protocol in PREDICTORS:
            port = predictor.grpc_port if protocol == "grpc-v2" else predictor.port
            found[protocol] = stack.enter_context(
                serving(
                    *everything,
                    *("--transformer-config", str(home / "image.json")),
                    *("--model-dir", str(home), "--param", "top_k=3"),
                    *("--predictor-host", f"127.0.0.1:{port}"),
                    *("--predictor-protocol", protocol),
                )
            )
        yield found


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def v1(server: Server, raw: bytes) -> Any:
    body = {"instances": [{"image": {"b64": b64(raw)}}]}
    reply = server.post("/v1/models/digits:predict", body)
    assert reply.status == 200, reply.body
    (best,) = reply.json()["predictions"]
    return [(entry["label"], entry["score"], entry["index"]) for entry in best]


def v1_raw(server: Server, raw: bytes) -> Any:
    reply = server.post("/v1/models/digits:predict", raw, {"content-type": "image/png"})
    assert reply.status == 200, reply.body
    return [(e["label"], e["score"], e["index"]) for e in reply.json()["predictions"][0]]


def v2(server: Server, raw: bytes) -> Any:
    entry = {"name": "x", "shape": [1], "datatype": "BYTES", "data": [b64(raw)]}
    reply = server.post("/v2/models/digits/infer", {"id": "77", "inputs": [entry]})
    assert reply.status == 200, reply.body
    document = reply.json()
    assert document["id"] == "77"
    found = {output["name"]: output for output in document["outputs"]}
    assert found["score"]["shape"] == [1, 3]
    return list(zip(*(found[name]["data"] for name in ("label", "score", "index")), strict=True))


def v2_binary(server: Server, raw: bytes) -> Any:
    tail = len(raw).to_bytes(4, "little") + raw
    parameters = {"binary_data_size": len(tail)}
    entry = {"name": "x", "shape": [1], "datatype": "BYTES", "parameters": parameters}
    head = json.dumps({"inputs": [entry]}).encode()
    reply = server.post(
        "/v2/models/digits/infer",
        head + tail,
        {
            "content-type": "application/octet-stream",
            "inference-header-content-length": str(len(head)),
        },
    )
    assert reply.status == 200, reply.body
    found = {output["name"]: output["data"] for output in reply.json()["outputs"]}
    return list(zip(found["label"], found["score"], found["index"], strict=True))


def infer(server: Server, request: Any) -> Any:
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", options=options) as channel:
        call = channel.unary_unary(
            f"/{oip.SERVICE}/ModelInfer",
            request_serializer=oip.ModelInferRequest.SerializeToString,
            response_deserializer=oip.ModelInferResponse.FromString,
        )
        return call(request, timeout=20)


def grpc_request(raw: bytes) -> Any:
    request = oip.ModelInferRequest(model_name="digits", id="77")
    tensor = request.inputs.add(name="x", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(raw)
    return request


def grpc_v2(server: Server, raw: bytes) -> Any:
    answer = infer(server, grpc_request(raw))
    assert answer.id == "77"
    found = {output.name: output.contents for output in answer.outputs}
    labels = [item.decode() for item in found["label"].bytes_contents]
    score = found["score"].fp64_contents or found["score"].fp32_contents
    return list(zip(labels, score, found["index"].int64_contents, strict=True))


@pytest.mark.parametrize("protocol", PREDICTORS)
@pytest.mark.parametrize("caller", [v1, v1_raw, v2, v2_binary, grpc_v2])
def test_every_caller_gets_the_models_own_answer(
    servers: dict[str, Server], model: LogisticRegression, caller: Any, protocol: str
) -> None:
    for index in (3, 17, 1000):
        pixels = np.asarray(Image.open(io.BytesIO(picture(index))), dtype=np.float32) / 255
        expected = model.predict_proba(pixels.reshape(1, -1))[0]
        best = np.argsort(-expected)[:3]
        found = caller(servers[protocol], picture(index))
        assert [label for label, _, _ in found] == [f"digit {n}" for n in best]
        assert [number for _, _, number in found] == best.tolist()
        assert [score for _, score, _ in found] == pytest.approx(expected[best], abs=1e-5)


@pytest.mark.parametrize("protocol", PREDICTORS)
def test_bad_pictures_are_400_and_the_process_lives(
    servers: dict[str, Server], protocol: str
) -> None:
    server = servers[protocol]
    big = io.BytesIO()
    Image.new("L", (101, 100)).save(big, "png")
    for raw, says in (
        (picture(0)[:60], "broken"),
        (b"not a picture", "no picture of a known format"),
        (big.getvalue(), "more than 10000 pixels"),
    ):
        reply = server.post("/v1/models/digits:predict", {"instances": [b64(raw)]})
        assert (reply.status, says in reply.error) == (400, True), reply.body
        entry = {"name": "x", "shape": [1], "datatype": "BYTES", "data": [b64(raw)]}
        reply = server.post("/v2/models/digits/infer", {"inputs": [entry]})
        assert (reply.status, says in reply.error) == (400, True), reply.body
        with pytest.raises(grpc.RpcError) as caught:
            infer(server, grpc_request(raw))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
        assert says in caught.value.details()  # type: ignore[attr-defined]
    assert server.process.poll() is None
    assert v1(server, picture(3))[0][0] == "digit 3"


def test_too_few_labels_are_502(servers: dict[str, Server], tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("zero\none\n")
    with serving(
        *("--transformer", "image", "--param", "resize=8x8", "--param", "channels=1"),
        *("--param", "layout=flat", "--param", "labels=few.txt", "--model-dir", str(tmp_path)),
        *("--model-name", "digits"),
        *("--predictor-host", f"127.0.0.1:{servers['predictor'].port}"),
    ) as server:
        reply = server.post("/v1/models/digits:predict", {"instances": [b64(picture(3))]})
        assert reply.status == 502
        assert "10 classes, but the labels file has 2" in reply.error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--transformer", "pictures"], "one of image, tokenize, json"),
        (["--transformer", "image"], "give --predictor-host"),
        (["--transformer", "image", "--param", "sise=3"], "there is no such parameter"),
        (["--transformer", "image", "--param", "labels=nowhere.txt"], "there is no nowhere.txt"),
        (["--transformer", "json", "--param", "request={$.a[}"], "not a JSONPath"),
        (["--transformer-config", "nowhere.yaml"], "cannot be read"),
        (["--transformer", "image", "--model-class", "a:B"], "give one of them"),
    ],
)
def test_a_wrong_configuration_ends_with_2(arguments: list[str], says: str) -> None:
    given = arguments if "give --predictor-host" in says else [*arguments, "--predictor-host", "p"]
    done = subprocess.run(
        [sys.executable, "-m", "functions", *given],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_files_that_are_fetched_may_be_missing_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "labels.txt").write_text("a\nb\n")
    with serving(
        *("--transformer", "image", "--param", "labels=labels.txt"),
        *("--model-dir", str(tmp_path / "fetched"), "--predictor-host", "127.0.0.1:9"),
        environ={"STORAGE_URI": f"file://{tmp_path}/source"},
    ) as server:
        assert server.get("/v1/models/model").status == 200
