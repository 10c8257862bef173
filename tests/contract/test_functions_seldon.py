"""Seldon's wrapper API over HTTP: what the wrapper was observed to answer, the rows beside those,
and where this server answers otherwise on purpose."""

import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes_seldon import ENVIRON, Wrappers, wrappers

CLASSES = Path(__file__).parents[1] / "seldon_classes.py"
PREDICT = "/api/v1.0/predictions"
META = {"requestPath": {"clf": "img/clf:1.0"}}
ND = {"data": {"names": ["a", "b"], "ndarray": [[1, 2], [3, 4.5]]}}
TENSOR = {"data": {"tensor": {"shape": [2, 2], "values": [1, 2, 3, 4]}}}
FULL = {
    "meta": {
        "puid": "abc",
        "tags": {"t": 1},
        "routing": {"r": 0},
        "requestPath": {"prev": "img:1"},
        "metrics": [{"key": "m", "type": "GAUGE", "value": 2}],
    },
    "data": {"ndarray": [[1]]},
}
BAD_DATA, INTERNAL = "MICROSERVICE_BAD_DATA", "MICROSERVICE_INTERNAL_ERROR"


@pytest.fixture(scope="module")
def served() -> Iterator[Wrappers]:
    with wrappers() as running:
        yield running


def call(
    served: Wrappers, name: str, path: str, body: Any, method: str = "POST"
) -> tuple[int, Any]:
    raw = None if body is None else json.dumps(body).encode()
    return served.request(f"{CLASSES}:{name}", method, path, raw, "application/json")


def same(value: Any, kind: str = "ndarray") -> dict[str, Any]:
    """The answer whose data is this."""
    columns = len(value[0]) if kind == "ndarray" and value and isinstance(value[0], list) else 0
    names = [f"t:{at}" for at in range(columns)]
    return {"data": {"names": names, kind: value}, "meta": META}


def tensor(shape: list[int], values: list[float], names: int = 0) -> dict[str, Any]:
    data = {"names": [f"t:{at}" for at in range(names)]}
    return {"data": {**data, "tensor": {"shape": shape, "values": values}}, "meta": META}


def tftensor(dtype: str, field: str, *values: Any) -> dict[str, Any]:
    shape = {"dim": [{"size": str(len(values))}]}
    return {"data": {"tftensor": {"dtype": dtype, "tensorShape": shape, field: list(values)}}}


@pytest.mark.parametrize(
    ("name", "request_", "expected"),
    [
        # What user code gets: every kind of payload comes back as it is.
        ("Ident", ND, same([[1.0, 2.0], [3.0, 4.5]])),
        ("Ident", TENSOR, tensor([2, 2], [1, 2, 3, 4], 2)),
        ("Ident", {"strData": ""}, {"strData": "", "meta": META}),
        ("Ident", {"binData": "AAE="}, {"binData": "AAE=", "meta": META}),
        ("Ident", {"jsonData": {"q": [1]}}, {"jsonData": {"q": [1]}, "meta": META}),
        ("Ident", {"jsonData": [["a", 1]]}, same([["a", 1]])),
        ("Ident", {"data": {"ndarray": []}}, same([])),
        ("Ident", {"data": {"ndarray": [[[1, 2], [3, 4]]]}}, same([[[1, 2], [3, 4]]])),
        ("Ident", {"data": {"ndarray": [{"a": 1}]}}, same([{"a": 1}])),
        ("Ident", {"data": {"ndarray": [[None, 1]]}}, same([[None, 1]])),
        ("Ident", {"data": {"ndarray": [[2**53 + 1]]}}, same([[2**53 + 1]])),
        ("Ident", {"data": {"tensor": {"shape": [0], "values": []}}}, tensor([0], [])),
        ("Ident", {"data": {"tensor": {"shape": [1], "values": ["x"]}}}, same(["x"])),
        ("Ident", {"data": {"tensor": {"shape": [-1, 2], "values": [1, 2]}}},
         tensor([1, 2], [1, 2], 2)),
        ("Ident", {"meta": None, "strData": "x"}, {"strData": "x", "meta": META}),
        ("Ident", {"strData": "x", "foo": 1}, {"strData": "x", "meta": META}),
        # Of several payloads: data, jsonData, strData, binData.
        ("Ident", {"strData": "a", "jsonData": {"b": 1}}, {"jsonData": {"b": 1}, "meta": META}),
        ("Ident", {"binData": "AAE=", "strData": "z"}, {"strData": "z", "meta": META}),
        ("Ident", {"strData": "a", **ND}, same([[1.0, 2.0], [3.0, 4.5]])),
        # What user code returns.
        ("TwoCol", {"strData": "hi"}, tensor([1, 2], [0.1, 0.9], 2)),
        ("TwoCol", {"binData": "AAE="}, tensor([1, 2], [0.1, 0.9], 2)),
        ("OneD", ND, same([1, 2, 3])),
        ("Byt", ND, {"binData": "AAE=", "meta": META}),
        ("Empty", ND, same([])),
        ("Empty", TENSOR, tensor([0], [])),
        ("Shapes", {"strData": "zero"}, tensor([], [3.5])),
        ("Shapes", {"strData": "bool"},
         {"data": {"names": ["x", "y"], "ndarray": [[True, False]]}, "meta": META}),
        ("Shapes", {"strData": "mixed"},
         {"data": {"names": ["x", "y"], "ndarray": [["a", 1]]}, "meta": META}),
        ("Shapes", {"strData": "numpy"}, {"jsonData": {"a": 1.5, "b": [1, 2]}, "meta": META}),
        ("Async", ND, same([[1.0, 2.0], [3.0, 4.5]])),
        # tftensor without TensorFlow.
        *(
            ("Ident", sent, {"data": {"names": [], **sent["data"]}, "meta": META})
            for sent in (
                tftensor("DT_FLOAT", "floatVal", 1.0, 2.5),
                tftensor("DT_INT64", "int64Val", "1", "2"),
                tftensor("DT_UINT8", "intVal", 1, 255),
            )
        ),
        ("Ident", tftensor("DT_STRING", "stringVal", "aGk="), same(["hi"])),
        ("Ident", tftensor("DT_BOOL", "boolVal", True, False), same([True, False])),
    ],
)  # fmt: skip
def test_predictions(served: Wrappers, name: str, request_: Any, expected: Any) -> None:
    assert call(served, name, PREDICT, request_) == (200, expected)


def test_what_is_known_of_a_request_is_passed_on(served: Wrappers) -> None:
    status, answer = call(served, "Named", PREDICT, FULL)
    assert (status, answer["data"]) == (200, {"names": ["a", "b"], "ndarray": [[1, 2]]})
    assert answer["meta"] == {
        "puid": "abc",
        "tags": {"t": 1, "k": "v"},
        "metrics": [
            {"key": "m", "type": "GAUGE", "value": 2},
            {"type": "COUNTER", "key": "c", "value": 1},
        ],
        "requestPath": {"clf": "img/clf:1.0", "prev": "img:1"},
    }
    _, told = call(served, "Told", PREDICT, FULL)
    assert told["jsonData"]["extra"] == {"meta": FULL["meta"]}
    assert told["jsonData"]["dtype"] == "int64"
    _, untold = call(served, "Told", PREDICT, ND)
    assert untold["jsonData"]["extra"] == {"meta": None}
    assert untold["jsonData"]["names"] == ["a", "b"]


def test_a_request_path_that_knows_the_unit_wins(served: Wrappers) -> None:
    sent = {"strData": "x", "meta": {"requestPath": {"clf": "old"}}}
    assert call(served, "Ident", PREDICT, sent)[1]["meta"] == {"requestPath": {"clf": "old"}}


def test_a_response_object_has_the_last_word(served: Wrappers) -> None:
    _, answer = call(served, "Response", PREDICT, {"data": {"ndarray": [[1]]}})
    assert answer["data"]["ndarray"] == [[1]]
    assert answer["meta"]["tags"] == {"own": 1, "kept": True}
    assert answer["meta"]["metrics"] == [{"type": "GAUGE", "key": "g", "value": 3}]


def test_not_a_number_keeps_its_name(served: Wrappers) -> None:
    status, answer = call(served, "Shapes", PREDICT, {"strData": "nan"})
    first, second = answer["data"]["tensor"]["values"]
    assert (status, second) == (200, float("inf"))
    assert first != first


@pytest.mark.parametrize(
    ("name", "path", "request_", "expected"),
    [
        ("Router", "/route", ND, same([[1]])),
        ("Router", "/route", {"strData": "x"}, tensor([1, 1], [1], 1)),
        ("NpRouter", "/route", ND, same([[1]])),
        ("RouterRaw", "/route", ND, {"data": {"ndarray": [[2]]}}),
        ("Comb", "/aggregate", [ND, TENSOR], same([[1.0, 2.0], [3.0, 4.25]])),
        ("Comb", "/aggregate", [TENSOR, ND], tensor([2, 2], [1.0, 2.0, 3.0, 4.25], 2)),
        ("Comb", "/aggregate", {"seldonMessages": [ND, ND]}, same([[1.0, 2.0], [3.0, 4.5]])),
        ("CombRaw", "/aggregate", [ND], {"jsonData": {"type": "list"}}),
        ("Told", "/aggregate", [{"strData": "a"}, ND],
         {"jsonData": {"types": ["str", "ndarray"], "names": [[], ["a", "b"]]}, "meta": META}),
        ("TI", "/transform-input", TENSOR, tensor([2, 2], [2, 4, 6, 8], 2)),
        ("TI", "/transform-input", {"strData": "a"}, {"strData": "aa", "meta": META}),
        ("Empty", "/transform-input", {"jsonData": {"a": 1}}, {"jsonData": {"a": 1}, "meta": META}),
        ("TO", "/transform-output", ND, same([[2.0, 3.0], [4.0, 5.5]])),
        ("Empty", "/transform-output", {"binData": "AAE="}, {"binData": "AAE=", "meta": META}),
    ],
)  # fmt: skip
def test_the_other_duties(
    served: Wrappers, name: str, path: str, request_: Any, expected: Any
) -> None:
    assert call(served, name, path, request_) == (200, expected)


def test_the_first_puid_and_the_last_tags_of_what_is_combined(served: Wrappers) -> None:
    first = {"meta": {"puid": "1", "tags": {"a": 1, "z": 1}}, **TENSOR}
    second = {"meta": {"puid": "2", "tags": {"a": 2}, "requestPath": {"m2": "i2"}}, **TENSOR}
    _, answer = call(served, "Comb", "/aggregate", [first, second])
    path = {"clf": "img/clf:1.0", "m2": "i2"}
    assert answer["meta"] == {"puid": "1", "tags": {"a": 2, "z": 1}, "requestPath": path}


@pytest.mark.parametrize(
    ("name", "request_", "expected"),
    [
        ("Fb", {}, tensor([1, 2], [0, -9], 2)),
        ("Fb", {"reward": None, "request": None}, tensor([1, 2], [0, -9], 2)),
        ("Fb", {"reward": 1, "request": {"strData": "x"}}, tensor([1, 2], [1, -9], 2)),
        ("Told",
         {"reward": 1, "request": ND, "truth": {"data": {"ndarray": [[1]]}},
          "response": {"meta": {"routing": {"clf": 3, "other": 4}}}},
         {"jsonData": {"X": [[1, 2], [3, 4.5]], "names": ["a", "b"], "truth": [[1]],
                       "reward": 1.0, "routing": 3}, "meta": META}),
        ("Told", {"reward": 1},
         {"jsonData": {"X": [], "names": [], "truth": [], "reward": 1.0, "routing": None},
          "meta": META}),
        ("FbNone", {"request": ND, "reward": 1}, {"data": {"ndarray": []}, "meta": META}),
        ("FbNone", {"reward": 1}, {"data": {"tensor": {"shape": [0]}}, "meta": META}),
        ("Ident", {"request": FULL},
         {"data": {"ndarray": []}, "meta": {"puid": "abc", **META}}),
        ("FbRaw", {"reward": 0.5}, {"jsonData": {"reward": 0.5}}),
    ],
)  # fmt: skip
def test_feedback(served: Wrappers, name: str, request_: Any, expected: Any) -> None:
    for path in ("/send-feedback", "/api/v1.0/feedback", "/api/v0.1/feedback"):
        assert call(served, name, path, request_) == (200, expected)


# --- what is wrong --------------------------------------------------------------------------------

RAGGED = {"data": {"ndarray": [[1, 2], [3]]}}


@pytest.mark.parametrize(
    ("name", "path", "request_", "status", "reason"),
    [
        *(
            ("Ident", PREDICT, wrong, 400, BAD_DATA)
            for wrong in (
                *({}, [1], 3, "x", True, None, {"foo": 1}, {"customData": {}}),
                *({"data": None}, {"data": "x"}, {"data": [1]}),
                *({"data": {"ndarray": 5}}, {"data": {"ndarray": None}}),
                {"data": {"tensor": {"shape": [3], "values": [1]}}},
                {"data": {"tensor": {"values": [1]}}},
                *({"data": {"tensor": 3}}, {"data": {"tensor": {}}}),
                {"data": {"tftensor": {"dtype": "DT_NONE"}}},
                *({"data": {"tftensor": 3}}, {"binData": "*"}, {"binData": 1}, {"strData": 1}),
                *({"meta": 3, "strData": "x"}, {"meta": {"tags": 3}, "strData": "x"}),
                *({"meta": {"metrics": {}}, "strData": "x"}, {"jsonData": 3}, {"jsonData": True}),
            )
        ),
        ("Ident", PREDICT, RAGGED, 500, INTERNAL),
        ("Ident", PREDICT, {"jsonData": None}, 500, INTERNAL),
        ("NoneRet", PREDICT, ND, 500, INTERNAL),
        ("Boom", PREDICT, ND, 500, INTERNAL),
        ("Refuses", PREDICT, ND, 409, "TAKEN"),
        ("BadMetric", PREDICT, ND, 500, "MICROSERVICE_BAD_METRIC"),
        ("Shapes", PREDICT, {"strData": "tuple"}, 400, BAD_DATA),
        ("Shapes", PREDICT, {"strData": "scalar"}, 400, BAD_DATA),
        ("Shapes", PREDICT, {"strData": "ragged"}, 500, INTERNAL),
        ("BadRouter", "/route", ND, 400, BAD_DATA),
        ("Empty", "/route", ND, 400, BAD_DATA),
        ("Router", "/route", {}, 400, BAD_DATA),
        ("Empty", "/aggregate", [ND], 400, BAD_DATA),
        *(
            ("Comb", "/aggregate", wrong, 400, BAD_DATA)
            for wrong in ([], {"seldonMessages": []}, {"seldonMessages": 3}, {"x": 1}, ND, 4, None)
        ),
        ("Comb", "/aggregate", [ND, 3], 400, BAD_DATA),
        ("Comb", "/aggregate", [ND, {}], 400, BAD_DATA),
        *(
            ("Fb", "/send-feedback", wrong, 400, BAD_DATA)
            for wrong in ([1], [], 3, {"foo": 1}, {"reward": "x"}, {"request": 3}, None)
        ),
        ("Ident", PREDICT, {"data": {"ndarray": "x" * 5000}}, 400, BAD_DATA),
    ],
)
def test_what_is_wrong(
    served: Wrappers, name: str, path: str, request_: Any, status: int, reason: str
) -> None:
    answered, body = call(served, name, path, request_)
    fault = body["status"]
    assert (answered, fault["reason"]) == (status, reason)
    assert (fault["code"], fault["status"]) == (-1, 1)
    assert 0 < len(fault["info"]) < 1000


def test_a_users_exception_speaks_for_itself(served: Wrappers) -> None:
    for name, text, reason in (
        ("Refuses", "somebody was faster", "TAKEN"),
        ("BreaksDown", "out of order", "BROKEN"),
        ("Boom", "bad thing", INTERNAL),
    ):
        _, body = call(served, name, PREDICT, ND)
        assert (body["status"]["info"], body["status"]["reason"]) == (text, reason)


def test_a_type_error_of_user_code_does_not_run_it_again(served: Wrappers) -> None:
    for number in (1, 2):
        status, body = call(served, "Inner", PREDICT, ND)
        assert (status, body["status"]["info"]) == (500, f"call {number}")


@pytest.mark.parametrize("body", [b"not json", b"", b"{", b'{"strData":"a"} x', b"[" * 100_000])
@pytest.mark.parametrize("path", [PREDICT, "/route", "/aggregate", "/send-feedback"])
def test_what_is_no_json(served: Wrappers, path: str, body: bytes) -> None:
    status, answer = served.request(f"{CLASSES}:Ident", "POST", path, body, "application/json")
    assert (status, answer["status"]["reason"]) == (400, BAD_DATA)


def test_what_goes_wrong_in_load_is_said(served: Wrappers) -> None:
    with pytest.raises(Exception, match="missing"):
        call(served, "LoadsBadly", PREDICT, ND)


def test_parameters_reach_the_class_by_type() -> None:
    parameters = [
        {"name": "factor", "value": "2.5", "type": "FLOAT"},
        {"name": "flag", "value": "yes", "type": "BOOL"},
    ]
    environ = {**ENVIRON, "PREDICTIVE_UNIT_PARAMETERS": json.dumps(parameters)}
    with wrappers(environ) as running:
        _, answer = call(running, "Parametrised", PREDICT, ND)
    assert answer["jsonData"] == {"told": [2.5, "x", True, "loaded False"]}


# --- forms, queries, parts ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        *(None, "text/plain", "application/octet-stream", "application/x-www-form-urlencoded"),
        *("APPLICATION/JSON", "application/json; charset=utf-8", "application/vnd.api+json"),
    ],
)
def test_json_is_json_whatever_the_header_says(served: Wrappers, content_type: str | None) -> None:
    body = json.dumps(ND).encode()
    answer = served.request(f"{CLASSES}:Ident", "POST", PREDICT, body, content_type)
    assert answer == (200, same([[1.0, 2.0], [3.0, 4.5]]))


def test_a_form_field_and_a_query_may_carry_the_message(served: Wrappers) -> None:
    message = urllib.parse.urlencode({"json": json.dumps({"strData": "é&+"})})
    expected = (200, {"strData": "é&+", "meta": META})
    ident = f"{CLASSES}:Ident"
    form = "application/x-www-form-urlencoded"
    assert served.request(ident, "POST", "/predict", message.encode(), form) == expected
    assert served.request(ident, "GET", f"/predict?{message}") == expected
    assert served.request(ident, "POST", f"/predict?{message}", b"") == expected
    routed = served.request(f"{CLASSES}:Router", "GET", f"/route?{message}")
    assert routed == (200, tensor([1, 1], [1], 1))
    for wrong in (b"json=nope", b"json=", b"x=1"):
        status, answer = served.request(ident, "POST", "/predict", wrong, form)
        assert (status, answer["status"]["reason"]) == (400, BAD_DATA)
    status, answer = served.request(ident, "GET", "/predict")
    assert (status, answer["status"]["reason"]) == (400, BAD_DATA)


def parts(*fields: tuple[str, str, bytes]) -> bytes:
    """(name, file name or empty, content) as multipart/form-data."""
    body = b""
    for name, file, content in fields:
        disposition = f'form-data; name="{name}"' + (f'; filename="{file}"' if file else "")
        body += f"--XX\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n"
    return body + b"--XX--\r\n"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([("data", "", json.dumps(ND["data"]).encode())], same([[1.0, 2.0], [3.0, 4.5]])),
        ([("strData", "", b'"hello"')], {"strData": '"hello"', "meta": META}),
        ([("strData", "f.txt", b"text")], {"strData": "text", "meta": META}),
        ([("binData", "f.bin", b"\x00\r\n\xff")], {"binData": "AA0K/w==", "meta": META}),
        ([("jsonData", "", b'{"x":1}')], {"jsonData": {"x": 1}, "meta": META}),
        (
            [("binData", "f", b"abc"), ("meta", "", b'{"puid":"q"}')],
            {"binData": "YWJj", "meta": {"puid": "q", **META}},
        ),
    ],
)
def test_several_parts(served: Wrappers, fields: Any, expected: Any) -> None:
    kind = "multipart/form-data; boundary=XX"
    answer = served.request(f"{CLASSES}:Ident", "POST", "/predict", parts(*fields), kind)
    assert answer == (200, expected)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (parts(("data", "", b"{")), "multipart/form-data; boundary=XX"),
        (parts(), "multipart/form-data; boundary=XX"),
        (parts(("strData", "", b"x")), "multipart/form-data"),
        (b"garbage", "multipart/form-data; boundary=XX"),
    ],
)
def test_broken_parts(served: Wrappers, body: bytes, kind: str) -> None:
    status, answer = served.request(f"{CLASSES}:Ident", "POST", "/predict", body, kind)
    assert (status, answer["status"]["reason"]) == (400, BAD_DATA)


# --- health, metadata, metrics, other paths -------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path", "status", "expected"),
    [
        ("Empty", "/health/status", 200, {"strData": "healthy", "meta": META}),
        ("Fit", "/api/v1.0/health/status", 200, tensor([1, 2], [1.0, 2.0], 2)),
        ("FitRaw", "/health/status", 200, {"strData": "fine"}),
        ("Ill", "/health/ping", 200, "pong"),
        ("Empty", "/metadata", 200,
         {"name": "img/clf", "versions": ["1.0"], "platform": "", "inputs": [], "outputs": [],
          "custom": {}}),
    ],
)  # fmt: skip
def test_reads(served: Wrappers, name: str, path: str, status: int, expected: Any) -> None:
    assert call(served, name, path, None, "GET") == (status, expected)


def test_health_that_fails(served: Wrappers) -> None:
    status, answer = call(served, "Ill", "/health/status", None, "GET")
    assert (status, answer["status"]["info"]) == (500, "ill")


def test_metadata_is_checked(served: Wrappers) -> None:
    status, answer = call(served, "Described", "/api/v1.0/metadata", None, "GET")
    assert (status, answer["name"], answer["outputs"][0]["datatype"]) == (200, "mm", "FP32")
    status, answer = call(served, "Misdescribed", "/metadata", None, "GET")
    assert (status, answer["status"]["reason"]) == (500, "MICROSERVICE_BAD_METADATA")
    assert "bogus" in answer["status"]["info"]
    assert call(served, "Misdescribed", "/health/ping", None, "GET") == (200, "pong")


def test_metadata_of_the_environment_and_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "metadata.yaml").write_text("platform: sklearn\nversions: [v3]\n")
    environ = {**ENVIRON, "MODEL_METADATA": "versions: [v4]"}
    with wrappers(environ) as served:
        _, answer = served.request(
            f"{CLASSES}:Described", "GET", "/metadata", arguments=("--model-dir", str(tmp_path))
        )
    assert (answer["name"], answer["platform"], answer["versions"]) == ("mm", "sklearn", ["v4"])


def test_what_users_report_is_scraped(served: Wrappers) -> None:
    for _ in "ab":
        call(served, "Reports", PREDICT, ND)
    call(served, "Reports", "/send-feedback", {"reward": 0.5})
    _, text = served.request(f"{CLASSES}:Reports", "GET", "/metrics")
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#")

    def value(name: str, **labels: str) -> str:
        (found,) = (
            number
            for key, number in lines.items()
            if key.startswith(name + "{") and all(f'{k}="{v}"' in key for k, v in labels.items())
        )
        return found

    labels = {"deployment_name": "dep", "model_name": "clf", "model_image": "img/clf"}
    labels |= {"model_version": "1.0", "predictor_name": "p", "predictor_version": "v1"}
    assert value("seen_total", kind="cat", method="predict", **labels) == "4"
    assert value("level", method="predict") == "7"
    assert value("level", method="feedback") == "7"
    assert value("took_count", method="predict") == "2"
    assert float(value("took_sum", method="predict")) == pytest.approx(0.04)
    assert value("took_bucket", le="+Inf", method="predict") == "2"
    assert value("seldon_api_model_feedback_total") == "1"
    assert value("seldon_api_model_feedback_reward_total") == "0.5"


def test_metrics_may_be_kept_out_of_answers() -> None:
    environ = {**ENVIRON, "INCLUDE_METRICS_IN_CLIENT_RESPONSE": "false"}
    with wrappers(environ) as served:
        _, answer = call(served, "Reports", PREDICT, ND)
    assert answer["meta"] == META


def test_raw_bytes_when_the_payload_is_passed_through() -> None:
    with wrappers({**ENVIRON, "PAYLOAD_PASSTHROUGH": "true"}) as served:
        assert call(served, "Raw", PREDICT, ND)[0] == 418
        assert call(served, "Ident", PREDICT, ND)[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("GET", PREDICT, 405),
        ("PUT", PREDICT, 405),
        ("DELETE", "/predict", 405),
        ("POST", "/health/status", 405),
        ("POST", "/metadata", 405),
    ],
)
def test_other_paths_and_methods(served: Wrappers, method: str, path: str, status: int) -> None:
    answered, body = call(served, "Ident", path, None, method)
    assert (answered, body["status"]["reason"]) == (status, INTERNAL)


def test_a_unit_may_be_a_whole_deployment(served: Wrappers) -> None:
    expected = same([[1.0, 2.0], [3.0, 4.5]])
    assert call(served, "Ident", f"/seldon/ns/dep{PREDICT}", ND) == (200, expected)
    assert call(served, "Ident", f"/seldon/dep{PREDICT}", ND) == (200, expected)
    assert call(served, "Ident", "/seldon/ns/dep/predict", ND)[0] == 404


def test_the_description_of_the_urls(served: Wrappers) -> None:
    _, document = served.request(f"{CLASSES}:Ident", "GET", "/seldon.json")
    assert {"/predict", "/aggregate", "/api/v1.0/feedback"} <= set(document["paths"])


# --- what was observed ----------------------------------------------------------------------------

VECTORS = Path(__file__).parents[2].parent / "shared" / "vectors" / "seldon_cases_public.jsonl"

DIFFERENT: dict[str, tuple[int, str]] = {
    "seldon-009": (500, "400 about None: a model that returns None is the model's fault"),
    "seldon-042": (200, "numpy integers are routes"),
    "seldon-061": (404, "an unknown path is 404, not 500"),
    "seldon-062": (405, "a wrong method is 405, not 500"),
    "seldon-063": (200, "tftensor is read without TensorFlow"),
}
"""Rows in which the original is at fault: our status, and why."""


def observed() -> list[Any]:
    if not VECTORS.exists():
        return []
    cases = [json.loads(line) for line in VECTORS.read_text().splitlines()]
    return [case for case in cases if case["suite"] == "python-wrapper"]


def without_text(answer: Any) -> Any:
    """An answer without the words of its error, which are ours."""
    if isinstance(answer, dict) and "info" in (answer.get("status") or {}):
        return {"status": {k: v for k, v in answer["status"].items() if k != "info"}}
    return answer


@pytest.mark.parametrize("case", observed(), ids=lambda case: case["id"])
def test_observed_cases(served: Wrappers, case: dict[str, Any]) -> None:
    request, kind = case["request"], case["request_content_type"]
    if isinstance(request, str):
        body = request.encode()
    elif kind is None and set(request) == {"json"}:
        body, kind = urllib.parse.urlencode(request).encode(), "application/x-www-form-urlencoded"
    else:
        body = json.dumps(request).encode()
    sent = None if case["method"] == "GET" else body
    reference = f"{CLASSES}:{case['user_class']}"
    status, answer = served.request(reference, case["method"], case["path"], sent, kind)
    if case["id"] in DIFFERENT:
        assert status == DIFFERENT[case["id"]][0]
        assert status != case["status"]
    else:
        assert (status, without_text(answer)) == (case["status"], without_text(case["response"]))
