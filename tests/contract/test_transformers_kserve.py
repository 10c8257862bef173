"""Transformers written for KServe's SDK, unchanged: with KServe's package (`make peers`; skipped
without it), and with the base taken away and no package at all."""

import base64
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fakes_functions import ROOT, serving, write_model

pytestmark = pytest.mark.timeout(300)

TRANSFORMER = '''
import argparse
import base64
from typing import Dict, Union

import kserve
import numpy
from kserve import InferInput, InferRequest, InferResponse, Model, ModelServer, model_server
from kserve.model_server import args as kserve_args

parser = argparse.ArgumentParser(parents=[kserve.model_server.parser], conflict_handler="resolve")
args, _ = parser.parse_known_args()


class Transformer(Model):
    """As KServe's image transformer does it."""

    def __init__(self, name: str, predictor_host: str, protocol: str):
        super().__init__(name)
        self.predictor_host = predictor_host
        self.protocol = protocol
        self.ready = True

    def preprocess(
        self, payload: Union[Dict, InferRequest], headers: Dict[str, str] = None
    ) -> Union[Dict, InferRequest]:
        if isinstance(payload, InferRequest):
            rows = [numpy.frombuffer(as_bytes(text), "u1") for text in payload.inputs[0].data]
        else:
            headers["request-type"] = "v1"
            rows = [
                numpy.frombuffer(base64.b64decode(instance["image"]["b64"]), "u1")
                for instance in payload["instances"]
            ]
        tensor = numpy.asarray(rows).astype("f4")
        if self.protocol == "v1":
            return {"instances": tensor.tolist()}
        pixels = InferInput(
            name="x", datatype="FP32", shape=list(tensor.shape), data=tensor
        )
        return InferRequest(model_name=self.name, infer_inputs=[pixels])

    def postprocess(
        self, infer_response: Union[Dict, InferResponse], headers=None, response_headers=None
    ) -> Union[Dict, InferResponse]:
        if headers.get("request-type") == "v1" and self.protocol != "v1":
            return {"predictions": infer_response.outputs[0].as_numpy().tolist()}
        return infer_response


def as_bytes(text):
    return base64.b64decode(text)


if __name__ == "__main__":
    model = Transformer(args.model_name, predictor_host=args.predictor_host, protocol=args.protocol)
    ModelServer().start(models=[model])
'''

ASKS = '''
from kserve import Model

class Asks(Model):
    """Its own predict, which asks KServe's."""
    def __init__(self, name):
        super().__init__(name)
        self.ready = True
    async def predict(self, payload, headers=None, response_headers=None):
        doubled = {"instances": [[2 * x for x in row] for row in payload["instances"]]}
        return await super().predict(doubled, {"Authorization": "Bearer own"}, response_headers)
'''


def without_base(source: str) -> str:
    """The same classes, KServe's base and imports removed; nothing else."""
    kept = [
        line
        for line in source.splitlines()
        if "kserve" not in line or line.strip().startswith('"""')
    ]
    text = "\n".join(kept).replace("args, _ = parser.parse_known_args()", "")
    if "InferInput" in text:
        text = "from functions import InferInput, InferRequest, InferResponse\n" + text
    return text.replace("(Model)", "")


def peer(name: str, *modules: str) -> str:
    """The Python of an environment that has these modules."""
    python = ROOT / ".venvs" / name / "bin" / "python"
    look = f"import importlib.util as u; print(all(map(u.find_spec, {modules!r})))"
    if not python.exists():
        pytest.skip(f"no .venvs/{name}: make peers")
    found = subprocess.run([str(python), "-c", look], capture_output=True, text=True, check=True)
    if found.stdout.strip() != "True":
        pytest.skip(f".venvs/{name} is older than its list: make peers")
    return str(python)


def kserve() -> str:
    return peer("kserve", "kserve", "flask", "gunicorn", "uvloop", "orjson", "hpack")


PREDICTOR = """
class Refused(Exception):
    status_code = 429

class P:
    def predict(self, payload, headers=None):
        if isinstance(payload, dict) and not payload["instances"]:
            raise Refused(headers["authorization"])
        if isinstance(payload, dict):
            return {"predictions": [sum(row) for row in payload["instances"]]}
        return {"y": payload.inputs[0].as_numpy().sum(axis=1)}
"""


def check(tmp_path: Path, source: str, protocol: str, python: str, kind: str) -> None:
    options: dict[str, Any] = {"python": python} if python else {}
    predictor = write_model(tmp_path / "p", PREDICTOR)
    transformer = write_model(tmp_path / "t", source)
    served = ["--protocol", "v1,v2,grpc-v2", "--grpc-port", "0"]
    with serving("--model-name", "m", "--model-dir", str(predictor), *served) as behind:
        port = behind.grpc_port if protocol == "grpc-v2" else behind.port
        arguments = ["--model_name", "m", "--model-dir", str(transformer)]
        arguments += ["--predictor_host", f"127.0.0.1:{port}", "--protocol", protocol]
        with serving(*arguments, "--grpc-port", "0", **options) as front:
            if kind == "asks":
                reply = front.post("/v1/models/m:predict", {"instances": [[1, 2], [3, 4]]})
                assert (reply.status, reply.json()) == (200, {"predictions": [6, 14]}), reply.body
                reply = front.post("/v1/models/m:predict", {"instances": []})
                assert (reply.status, reply.json()) == (429, {"error": "Bearer own"})
                return
            images = [base64.b64encode(bytes(row)).decode() for row in ([1, 2, 3], [4, 5, 6])]
            body: Any = {"instances": [{"image": {"b64": image}} for image in images]}
            reply = front.post("/v1/models/m:predict", body)
            assert (reply.status, reply.json()) == (200, {"predictions": [6.0, 15.0]}), reply.body
            if protocol == "v1":
                return
            tensor = {"name": "i", "shape": [2], "datatype": "BYTES", "data": images}
            reply = front.post("/v2/models/m/infer", {"inputs": [tensor]})
            assert reply.status == 200, reply.body
            assert reply.json()["outputs"][0]["data"] == [6.0, 15.0]


@pytest.mark.parametrize("protocol", ["v1", "v2", "grpc-v2"])
@pytest.mark.parametrize("base", ["removed", pytest.param("kserve", marks=pytest.mark.clients)])
def test_an_image_transformer_runs_unchanged(tmp_path: Path, protocol: str, base: str) -> None:
    source = TRANSFORMER if base == "kserve" else without_base(TRANSFORMER)
    assert ("kserve" in source.partition("class ")[0]) is (base == "kserve")
    check(tmp_path, source, protocol, kserve() if base == "kserve" else "", "image")


@pytest.mark.parametrize("base", ["removed", pytest.param("kserve", marks=pytest.mark.clients)])
def test_a_predict_that_asks_the_base_runs_unchanged(tmp_path: Path, base: str) -> None:
    source = ASKS if base == "kserve" else without_base(ASKS)
    check(tmp_path, source, "v1", kserve() if base == "kserve" else "", "asks")
