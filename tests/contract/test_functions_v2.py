"""V2 over REST: JSON, binary tensors, errors, metadata and the repository; sklearn and a user's
class."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes_functions import Reply, Server, serving, write_model

ECHO = """
from functions import InferResponse

class Echo:
    def predict(self, request, headers=None):
        if request.parameters.get("do") == "numpy":
            return {t.name: t.as_numpy() for t in request.inputs}
        if request.parameters.get("do") == "document":
            return {"outputs": [{"name": "d", "shape": [1], "datatype": "INT32", "data": [7]}]}
        return InferResponse("", "", request.inputs)
"""

INFER = "/v2/models/echo/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    import joblib
    from sklearn import datasets, svm

    iris = tmp_path_factory.mktemp("iris")
    features, classes = datasets.load_iris(return_X_y=True)
    joblib.dump(svm.SVC().fit(features, classes), iris / "model.joblib")
    echo = write_model(tmp_path_factory.mktemp("echo"), ECHO)
    with serving("--model", f"iris={iris}", "--model", f"echo=python:{echo}") as running:
        yield running


def tensor(
    datatype: str, shape: list[int], data: Any, name: str = "x", **extra: Any
) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **extra}


def binary(document: dict[str, Any], *parts: bytes) -> tuple[bytes, dict[str, str]]:
    head = json.dumps(document).encode()
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(head)),
    }
    return head + b"".join(parts), headers


def parts_of(reply: Reply) -> tuple[dict[str, Any], bytes]:
    length = int(reply.headers["inference-header-content-length"])
    assert reply.headers["content-type"] == "application/octet-stream"
    assert int(reply.headers["content-length"]) == len(reply.body)
    return json.loads(reply.body[:length]), reply.body[length:]


JSON_TENSORS = [
    ("BOOL", [2], [True, False]),
    ("INT8", [2], [-128, 127]),
    ("INT16", [1], [-32768]),
    ("INT32", [2, 1], [1, -1]),
    ("INT64", [1], [-(2**63)]),
    ("UINT8", [1], [255]),
    ("UINT16", [1], [65535]),
    ("UINT32", [1], [2**32 - 1]),
    ("UINT64", [1], [2**64 - 1]),
    ("FP32", [2], [0.5, 0.2]),
    ("FP64", [1], [0.1]),
    ("BYTES", [2], ["ä", ""]),
    ("FP32", [0], []),
    ("FP32", [], [1.5]),
]


@pytest.mark.parametrize("do", ["", "numpy"])
@pytest.mark.parametrize(("datatype", "shape", "data"), JSON_TENSORS)
def test_json_tensors_come_back_as_they_went(
    server: Server, datatype: str, shape: list[int], data: list[Any], do: str
) -> None:
    body = {"id": "7", "parameters": {"do": do}, "inputs": [tensor(datatype, shape, data)]}
    reply = server.post(INFER, body)
    assert reply.status == 200, reply.body
    answer = reply.json()
    assert (answer["id"], answer["model_name"]) == ("7", "echo")
    (output,) = answer["outputs"]
    assert (output["shape"], output["datatype"], output["data"]) == (shape, datatype, data)


def test_nested_data_is_flattened_in_the_answer(server: Server) -> None:
    reply = server.post(INFER, {"inputs": [tensor("INT32", [2, 2], [[1, 2], [3, 4]])]})
    assert reply.json()["outputs"][0]["data"] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [
        ("BOOL", "?"),
        ("INT8", "i1"),
        ("INT16", "<i2"),
        ("INT32", "<i4"),
        ("INT64", "<i8"),
        ("UINT8", "u1"),
        ("UINT16", "<u2"),
        ("UINT32", "<u4"),
        ("UINT64", "<u8"),
        ("FP16", "<f2"),
        ("FP32", "<f4"),
        ("FP64", "<f8"),
    ],
)
@pytest.mark.parametrize("do", ["", "numpy"])
def test_binary_tensors_come_back_byte_for_byte(
    server: Server, datatype: str, dtype: str, do: str
) -> None:
    raw = np.array([[0, 1, 1], [1, 0, 1]], dtype=dtype).tobytes()
    document = {
        "inputs": [
            {
                "name": "x",
                "shape": [2, 3],
                "datatype": datatype,
                "parameters": {"binary_data_size": len(raw)},
            }
        ],
        "parameters": {"binary_data_output": True, "do": do},
    }
    reply = server.post(INFER, *binary(document, raw))
    assert reply.status == 200, reply.body
    head, tail = parts_of(reply)
    assert tail == raw
    assert head["outputs"][0]["parameters"]["binary_data_size"] == len(raw)
    assert "data" not in head["outputs"][0]


def test_bf16_survives_the_way_through_float32(server: Server) -> None:
    raw = struct.pack("<3H", 0x3F80, 0xC0A0, 0x7F80)
    document = {
        "inputs": [
            {"name": "x", "shape": [3], "datatype": "BF16", "parameters": {"binary_data_size": 6}}
        ],
        "parameters": {"binary_data_output": True},
    }
    assert parts_of(server.post(INFER, *binary(document, raw)))[1] == raw


def test_binary_bytes_keep_what_is_no_text(server: Server) -> None:
    raw = struct.pack("<I", 2) + b"\xff\x00" + struct.pack("<I", 0)
    document = {
        "inputs": [
            {
                "name": "x",
                "shape": [2],
                "datatype": "BYTES",
                "parameters": {"binary_data_size": len(raw)},
            }
        ],
        "parameters": {"do": "numpy"},
        "outputs": [{"name": "x", "parameters": {"binary_data": True}}],
    }
    assert parts_of(server.post(INFER, *binary(document, raw)))[1] == raw
    document["outputs"] = [{"name": "x"}]
    reply = server.post(INFER, *binary(document, raw))
    assert (reply.status, "binary_data: true" in reply.error) == (400, True)


def test_mixed_inputs_and_chosen_outputs(server: Server) -> None:
    raw = np.arange(2, dtype="<f4").tobytes()
    document = {
        "inputs": [
            tensor("INT32", [1], [5], "j"),
            {"name": "b", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
            tensor("INT32", [1], [6], "k"),
        ],
        "outputs": [{"name": "b", "parameters": {"binary_data": True}}, {"name": "j"}],
        "parameters": {"binary_data_output": False},
    }
    head, tail = parts_of(server.post(INFER, *binary(document, raw)))
    assert [o["name"] for o in head["outputs"]] == ["b", "j"]
    assert (tail, head["outputs"][1]["data"]) == (raw, [5])


def test_binary_default_is_kept_beside_listed_outputs(server: Server) -> None:
    document = {
        "inputs": [tensor("INT32", [1], [5])],
        "outputs": [{"name": "x"}],
        "parameters": {"binary_data_output": True},
    }
    assert parts_of(server.post(INFER, document))[1] == struct.pack("<i", 5)


def test_a_document_returned_by_user_code_is_an_answer(server: Server) -> None:
    body = {"inputs": [tensor("INT32", [1], [5])], "parameters": {"do": "document"}}
    assert server.post(INFER, body).json()["outputs"][0]["data"] == [7]


def test_what_is_null_was_not_set(server: Server) -> None:
    sent = {**tensor("INT32", [1], [5]), "parameters": {"content_type": "np", "headers": None}}
    body = {"id": None, "parameters": {"headers": None}, "inputs": [sent], "outputs": None}
    answer = server.post(INFER, body).json()
    assert answer["outputs"][0]["data"] == [5]
    assert "parameters" not in answer


ONE = tensor("FP32", [2], [1, 2])
BAD = [
    ("no object", [], "must be a JSON object"),
    ("no inputs", {}, '"inputs"'),
    ("empty inputs", {"inputs": []}, '"inputs"'),
    ("input no object", {"inputs": [3]}, "inputs[0] must be an object"),
    ("no name", {"inputs": [{"shape": [1], "datatype": "FP32", "data": [1]}]}, '"name"'),
    ("no shape", {"inputs": [{"name": "x", "datatype": "FP32", "data": [1]}]}, '"shape"'),
    ("no datatype", {"inputs": [{"name": "x", "shape": [1], "data": [1]}]}, '"datatype"'),
    ("no data", {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]}, '"data"'),
    ("integer id", {"id": 3, "inputs": [ONE]}, '"id"'),
    ("data a string", {"inputs": [tensor("FP32", [1], "1")]}, '"data" must be a list'),
    ("unknown datatype", {"inputs": [tensor("FP31", [1], [1])]}, "unknown datatype"),
    ("shape too large", {"inputs": [tensor("FP32", [3], [1, 2])]}, "do not fill shape"),
    ("negative shape", {"inputs": [tensor("FP32", [-1], [1])]}, "none negative"),
    ("huge shape", {"inputs": [tensor("FP32", [1 << 40], [1])]}, "do not fill shape"),
    ("fractional shape", {"inputs": [tensor("FP32", [1.5], [1])]}, "whole numbers"),
    ("too many dimensions", {"inputs": [tensor("FP32", [1] * 99, [1])]}, "dimensions"),
    ("ragged texts", {"inputs": [tensor("BYTES", [2, 2], [["a", "b", "c"], ["d"]])]}, "ragged"),
    ("text beside a list", {"inputs": [tensor("BYTES", [2], ["a", ["b"]])]}, "ragged"),
    ("ragged", {"inputs": [tensor("FP32", [2, 2], [[1, 2], [3]])]}, "ragged"),
    ("text among numbers", {"inputs": [tensor("FP32", [2], [1, "2"])]}, "not of datatype"),
    ("null among numbers", {"inputs": [tensor("FP32", [2], [1, None])]}, "not of datatype"),
    ("fraction as integer", {"inputs": [tensor("INT32", [1], [1.5])]}, "not of datatype"),
    ("int8 overflow", {"inputs": [tensor("INT8", [1], [128])]}, "out of range"),
    ("uint negative", {"inputs": [tensor("UINT8", [1], [-1])]}, "out of range"),
    ("int64 overflow", {"inputs": [tensor("INT64", [1], [2**63])]}, "out of range"),
    ("float overflow", {"inputs": [tensor("FP32", [1], [1e300])]}, "out of range"),
    ("bool of text", {"inputs": [tensor("BOOL", [1], ["true"])]}, "not of datatype"),
    ("bool of two", {"inputs": [tensor("BOOL", [1], [2])]}, "BOOL"),
    ("number as bytes", {"inputs": [tensor("BYTES", [1], [1])]}, "must be strings"),
    ("fp16 in json", {"inputs": [tensor("FP16", [1], [1.0])]}, "binary"),
    ("nested parameter", {"inputs": [ONE], "parameters": {"a": {"b": 1}}}, "parameter 'a'"),
    (
        "unknown output",
        {"inputs": [ONE], "outputs": [{"name": "zzz"}]},
        "Unexpected inference output 'zzz'",
    ),
    ("output without name", {"inputs": [ONE], "outputs": [{}]}, "outputs[0]"),
    ("empty with huge dimensions", {"inputs": [tensor("FP32", [0, 1 << 62], [])]}, "too large"),
    ("same name twice", {"inputs": [ONE, ONE]}, "same name"),
]


@pytest.mark.parametrize(("body", "text"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_malformed_requests_are_400_and_say_where(server: Server, body: Any, text: str) -> None:
    if isinstance(body, dict):
        body = {"parameters": {"do": "numpy"}, **body}
    reply = server.post(INFER, body)
    assert (reply.status, text in reply.error) == (400, True), reply.body


BINARY = {"name": "x", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
LIES = [
    (
        "size against shape",
        {"inputs": [{**BINARY, "shape": [3]}]},
        bytes(8),
        {},
        "do not fill shape",
    ),
    ("truncated", {"inputs": [BINARY]}, bytes(7), {}, "7 are left"),
    ("left over", {"inputs": [BINARY]}, bytes(9), {}, "1 bytes follow"),
    (
        "gigabyte claimed",
        {"inputs": [{**BINARY, "shape": [1 << 28], "parameters": {"binary_data_size": 1 << 30}}]},
        b"",
        {},
        "0 are left",
    ),
    (
        "negative size",
        {"inputs": [{**BINARY, "parameters": {"binary_data_size": -1}}]},
        b"",
        {},
        "whole number",
    ),
    (
        "bool of 2",
        {
            "inputs": [{**BINARY, "datatype": "BOOL", "parameters": {"binary_data_size": 2}}],
            "parameters": {"do": "numpy"},
        },
        b"\x00\x02",
        {},
        "0 or 1",
    ),
    (
        "bytes element too long",
        {
            "inputs": [
                {
                    "name": "x",
                    "shape": [1],
                    "datatype": "BYTES",
                    "parameters": {"binary_data_size": 5},
                }
            ],
            "parameters": {"do": "numpy"},
        },
        struct.pack("<I", 99) + b"a",
        {},
        "claims 99",
    ),
    (
        "bytes count",
        {
            "inputs": [
                {
                    "name": "x",
                    "shape": [2],
                    "datatype": "BYTES",
                    "parameters": {"binary_data_size": 5},
                }
            ],
            "parameters": {"do": "numpy"},
        },
        struct.pack("<I", 1) + b"a",
        {},
        "exactly the 2",
    ),
    (
        "header longer than body",
        {"inputs": [BINARY]},
        b"",
        {"inference-header-content-length": "9999"},
        "9999",
    ),
    (
        "header no number",
        {"inputs": [BINARY]},
        b"",
        {"inference-header-content-length": "x"},
        "number of bytes",
    ),
]


@pytest.mark.parametrize(
    ("document", "raw", "headers", "text"), [b[1:] for b in LIES], ids=[b[0] for b in LIES]
)
def test_binary_lies_are_400(
    server: Server, document: dict[str, Any], raw: bytes, headers: dict[str, str], text: str
) -> None:
    body, own = binary(document, raw)
    reply = server.post(INFER, body, {**own, **headers})
    assert (reply.status, text in reply.error) == (400, True), reply.body


def test_binary_without_its_header_is_400(server: Server) -> None:
    reply = server.post(INFER, b"\x00\x01", {"content-type": "application/octet-stream"})
    assert (reply.status, "inference-header-content-length" in reply.error) == (400, True)


def test_sklearn_over_v2_and_v1(server: Server) -> None:
    row = [6.8, 2.8, 4.8, 1.4]
    reply = server.post("/v2/models/iris/infer", {"inputs": [tensor("FP32", [1, 4], row)]})
    assert reply.json()["outputs"] == [
        {"name": "output-0", "shape": [1], "datatype": "INT64", "data": [1]}
    ]
    columns = [tensor("FP64", [1], [value], f"c{at}") for at, value in enumerate(row)]
    assert server.post("/v2/models/iris/infer", {"inputs": columns}).json()["outputs"][0][
        "data"
    ] == [1]
    assert server.post("/v1/models/iris:predict", {"instances": [row, row]}).json() == {
        "predictions": [1, 1]
    }
    assert server.post("/v1/models/iris:predict", {"inputs": [row]}).json() == {"predictions": [1]}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"instances": 1},
        {"instances": []},
        {"instances": [[1, 2]]},
        {"instances": [[1, 2, 3, 4], [1]]},
        {"instances": [["a", "b", "c", "d"]]},
        {"instances": [[None, 1, 2, 3]]},
        {"instances": [{"a": 1}]},
        [1],
        "x",
        None,
    ],
)
def test_sklearn_refuses_bad_v1_bodies_with_400(server: Server, body: Any) -> None:
    reply = server.post("/v1/models/iris:predict", body)
    assert reply.status == 400, reply.body
    assert reply.error


def test_nan_in_binary_input_is_400_for_a_model_that_bears_none(server: Server) -> None:
    raw = np.array([[np.nan, 1, 2, 3]], dtype="<f8").tobytes()
    document = {
        "inputs": [
            {
                "name": "x",
                "shape": [1, 4],
                "datatype": "FP64",
                "parameters": {"binary_data_size": 32},
            }
        ]
    }
    reply = server.post("/v2/models/iris/infer", *binary(document, raw))
    assert (reply.status, "NaN" in reply.error) == (400, True)


def test_explain_is_not_implemented_by_sklearn(server: Server) -> None:
    assert server.post("/v1/models/iris:explain", {"instances": [[1, 2, 3, 4]]}).status == 501


def test_metadata_and_health(server: Server) -> None:
    assert server.get("/v2").json()["name"] == "turnout"
    assert "binary_tensor_data" in server.get("/v2").json()["extensions"]
    assert server.get("/v2/health/live").status == server.get("/v2/health/ready").status == 200
    iris = server.get("/v2/models/iris").json()
    assert (iris["platform"], iris["inputs"][0]["shape"]) == ("sklearn", [-1, 4])
    assert server.get("/v2/models/iris/ready").json() == {"name": "iris", "ready": True}
    assert server.get("/v2/models/nope").status == 404
    assert server.get("/v2/models/iris/versions/9/ready").status == 404
    assert server.post("/v2/models/iris/versions/9/infer", {"inputs": [ONE]}).status == 404


def test_repository_unloads_and_loads(server: Server) -> None:
    index = {e["name"]: e["state"] for e in server.post("/v2/repository/index").json()}
    assert index == {"iris": "READY", "echo": "READY"}
    assert server.post("/v2/repository/models/iris/unload").json() == {
        "name": "iris",
        "unload": True,
    }
    reply = server.post("/v2/models/iris/infer", {"inputs": [ONE]})
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert server.get("/readyz").status == 200
    assert server.post("/v2/repository/models/iris/load").json() == {"name": "iris", "load": True}
    assert server.get("/v2/models/iris/ready").status == 200
    assert server.post("/v2/repository/models/nope/load").status == 404
    assert server.post("/v2/repository/models/nope/unload").status == 404


def test_a_repository_directory_serves_all_of_it_and_loads_later_ones(tmp_path: Path) -> None:
    write_model(tmp_path / "one", ECHO)
    with serving("--repository", str(tmp_path)) as running:
        assert running.get("/v2/models").json() == {"models": ["one"]}
        write_model(tmp_path / "two", ECHO)
        assert running.post("/v2/repository/models/two/load").status == 200
        write_model(tmp_path / "bad", "raise RuntimeError('broken on purpose')")
        reply = running.post("/v2/repository/models/bad/load")
        assert (reply.status, "broken on purpose" in reply.error) == (503, True)
        names = {
            e["name"]: e["state"]
            for e in running.post("/v2/repository/index", {"ready": True}).json()
        }
        assert names == {"one": "READY", "two": "READY"}
        assert running.get("/readyz").status == 200


def test_other_methods_and_broken_bodies_of_the_other_endpoints(server: Server) -> None:
    for path in (INFER, "/v2/models/echo/versions/1/infer"):
        reply = server.get(path)
        assert (reply.status, reply.headers["allow"]) == (405, "OPTIONS, POST")
    assert server.request("DELETE", "/v2/models/echo").status == 405
    for path in ("/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"):
        assert server.post(path).status == 405
    assert server.post("/v2/models/echo/versions//infer", {}).status == 404
    assert server.post("/v2/repository/index", b"{{").status == 400
    assert server.post("/v2/repository/index").status == 200
