"""Seldon's wrapper API: our own table, and the observed cases when they are at hand."""

import json
import urllib.parse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from functions import faults, seldon_rest
from functions.model import Call
from functions.runtimes.kserve_hooks import KServeHooks
from functions.settings import Settings

ENVIRON = {"PREDICTIVE_UNIT_ID": "clf", "PREDICTIVE_UNIT_IMAGE": "img/clf:1.0"}
CODEC = seldon_rest.SeldonCodec(Settings.from_env(ENVIRON, ["--model-class", "x:Y"]))


class Ident:
    def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
        return X


class Named:
    def predict(self, X: Any, names: Any) -> Any:
        return np.array([[1, 2]])

    def class_names(self) -> Any:
        return ["a", "b"]

    def tags(self) -> Any:
        return {"k": "v"}

    def metrics(self) -> Any:
        return [{"type": "COUNTER", "key": "c", "value": 1}]


class Raw:
    def predict_raw(self, message: Any) -> Any:
        return {"status": {"code": 418, "status": "FAILURE"}, "strData": "teapot"}


class Boom:
    def predict(self, X: Any, names: Any) -> Any:
        raise ValueError("bad thing")


class Fb:
    def send_feedback(
        self, X: Any, names: Any, reward: Any, truth: Any, routing: Any = None
    ) -> Any:
        return [[reward, routing or -9]]


class Comb:
    def aggregate(self, Xs: Any, names: Any) -> Any:
        return (Xs[0] + Xs[1]) / 2.0


class TI:
    def transform_input(self, X: Any, names: Any) -> Any:
        return X * 2


class Empty:
    pass


def returning(value: Any, hook: str = "predict") -> type:
    return type("Returns", (), {hook: lambda self, X, names: value})


CLASSES: dict[str, type] = {
    "Ident": Ident,
    "Named": Named,
    "Raw": Raw,
    "Boom": Boom,
    "Fb": Fb,
    "Comb": Comb,
    "TI": TI,
    "Empty": Empty,
    "TwoCol": returning(np.array([[0.1, 0.9]])),
    "OneD": returning(np.array([1, 2, 3])),
    "Str": returning("hello"),
    "Byt": returning(b"\x00\x01"),
    "Dct": returning({"x": 1}),
    "StrArr": returning(np.array(["cat", "dog"])),
    "NoneRet": returning(None),
    "Router": returning(1, "route"),
    "BadRouter": returning("1", "route"),
    "NpRouter": returning(np.int64(1), "route"),
}


def call(name: str, path: str, body: bytes) -> tuple[int, Any]:
    verb = seldon_rest.PATHS.get(path) or seldon_rest.READS[path]
    route = SimpleNamespace(verb=verb)
    context = Call({})
    model = KServeHooks(CLASSES[name]())
    try:
        payload = CODEC.decode(body, route, context)
        answer = CODEC.encode(CODEC.apply(model, route, payload, context), route, context)
    except Exception as exc:
        answer = CODEC.refuse(faults.classify(exc, "m"))
    try:
        return answer.status, json.loads(answer.body)
    except ValueError:
        return answer.status, answer.body.decode()


META = {"requestPath": {"clf": "img/clf:1.0"}}
ND = {"data": {"names": ["a", "b"], "ndarray": [[1, 2], [3, 4.5]]}}
TENSOR = {"data": {"tensor": {"shape": [2, 2], "values": [1, 2, 3, 4]}}}
TF = {
    "data": {
        "tftensor": {
            "dtype": "DT_FLOAT",
            "tensorShape": {"dim": [{"size": "2"}]},
            "floatVal": [1, 2],
        }
    }
}
PREDICT = "/api/v1.0/predictions"


@pytest.mark.parametrize(
    ("name", "path", "request_", "status", "expected"),
    [
        (
            "Ident",
            PREDICT,
            ND,
            200,
            {"data": {"names": ["t:0", "t:1"], "ndarray": [[1.0, 2.0], [3.0, 4.5]]}, "meta": META},
        ),
        (
            "OneD",
            "/predict",
            TENSOR,
            200,
            {"data": {"names": [], "tensor": {"shape": [3], "values": [1, 2, 3]}}, "meta": META},
        ),
        (
            "Named",
            PREDICT,
            ND,
            200,
            {
                "data": {"names": ["a", "b"], "ndarray": [[1, 2]]},
                "meta": {
                    **META,
                    "tags": {"k": "v"},
                    "metrics": [{"type": "COUNTER", "key": "c", "value": 1}],
                },
            },
        ),
        ("Byt", PREDICT, ND, 200, {"binData": "AAE=", "meta": META}),
        ("Ident", PREDICT, {"binData": "AAE="}, 200, {"binData": "AAE=", "meta": META}),
        (
            "Ident",
            PREDICT,
            TF,
            200,
            {
                "data": {
                    "names": [],
                    "tftensor": TF["data"]["tftensor"] | {"floatVal": [1.0, 2.0]},
                },
                "meta": META,
            },
        ),
        (
            "NpRouter",
            "/route",
            ND,
            200,
            {"data": {"names": ["t:0"], "ndarray": [[1]]}, "meta": META},
        ),
        (
            "Boom",
            PREDICT,
            ND,
            500,
            {
                "status": {
                    "code": -1,
                    "info": "bad thing",
                    "reason": "MICROSERVICE_INTERNAL_ERROR",
                    "status": 1,
                }
            },
        ),
        (
            "Raw",
            PREDICT,
            ND,
            418,
            {"status": {"code": 418, "status": "FAILURE"}, "strData": "teapot"},
        ),
        (
            "Ident",
            PREDICT,
            {"foo": 1},
            400,
            {
                "status": {
                    "code": -1,
                    "info": "Invalid request data type: {'foo': 1}",
                    "reason": "MICROSERVICE_BAD_DATA",
                    "status": 1,
                }
            },
        ),
        (
            "Fb",
            "/send-feedback",
            {"reward": 1},
            200,
            {
                "data": {"names": ["t:0", "t:1"], "tensor": {"shape": [1, 2], "values": [1, -9]}},
                "meta": META,
            },
        ),
        ("Empty", "/health/status", None, 200, {"meta": META, "strData": "healthy"}),
    ],
)
def test_messages(name: str, path: str, request_: Any, status: int, expected: Any) -> None:
    assert call(name, path, json.dumps(request_).encode()) == (status, expected)


@pytest.mark.parametrize(
    "request_",
    [
        {"binData": "*"},
        {"data": {"ndarray": [[1], [1, 2]]}},
        {"data": {"tensor": {"shape": [3], "values": [1]}}},
        {"data": {"tftensor": {"dtype": "DT_NONE"}}},
        {"data": {"tensor": 3}},
        [1],
        3,
        None,
    ],
)
def test_what_is_no_message_is_400(request_: Any) -> None:
    status, body = call("Ident", PREDICT, json.dumps(request_).encode())
    assert (status, body["status"]["reason"]) == (400, "MICROSERVICE_BAD_DATA")


VECTORS = Path(__file__).parents[3].parent / "shared" / "vectors" / "seldon_cases_public.jsonl"

DIFFERENT = {
    "seldon-009": "a model that returns None is the model's fault: 500",
    "seldon-019": "a model that returns a number is the model's fault: 500",
    "seldon-042": "numpy integers are routes",
    "seldon-061": "unknown paths are 404 (the HTTP layer answers)",
    "seldon-062": "wrong methods are 404/405 (the HTTP layer answers)",
    "seldon-063": "tftensor is read without TensorFlow",
}


def observed() -> list[Any]:
    if not VECTORS.exists():
        return []
    cases = [json.loads(line) for line in VECTORS.read_text().splitlines()]
    return [case for case in cases if case["suite"] == "python-wrapper"]


@pytest.mark.parametrize("case", observed(), ids=lambda case: case["id"])
def test_observed_cases(case: dict[str, Any]) -> None:
    if case["id"] in DIFFERENT:
        pytest.skip(DIFFERENT[case["id"]])
    path, _, query = case["path"].partition("?")
    request = case.get("request")
    if query:
        body = urllib.parse.parse_qs(query)["json"][0].encode()
    elif isinstance(request, str):
        body = request.encode()
    elif (
        not case.get("request_content_type")
        and isinstance(request, dict)
        and set(request) == {"json"}
    ):
        body = urllib.parse.urlencode(request).encode()
    else:
        body = json.dumps(request).encode()
    assert call(case["user_class"], path, body) == (case["status"], case["response"])
