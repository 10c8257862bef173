"""Large JSON tensors are read through buffers: the same requests and the same errors as without."""

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions import codec_v2, json_tensors, jsonio
from functions.errors import InvalidRequest
from functions.inference import InferResponse
from functions.model import Call

N = 6000
"""Numbers enough for the quick path."""


def document(data: Any, shape: list[int], datatype: str = "FP32", **extra: Any) -> bytes:
    tensor = {"name": "x", "shape": shape, "datatype": datatype, "data": data}
    return json.dumps({"id": "7", "inputs": [tensor], **extra}).encode()


def slow(body: bytes) -> Any:
    return codec_v2.from_document(jsonio.loads(body), memoryview(b""), "m", "")


def outcome(read: Any, body: bytes) -> Any:
    """The tensors, or the error's text."""
    try:
        request = read(body)
        return request.id, [
            (t.name, t.datatype, t.shape, t.as_numpy().dtype, t.as_numpy().tolist())
            for t in request.inputs
        ]
    except (InvalidRequest, codec_v2.v2.Malformed) as error:
        return str(error)


def quick(body: bytes) -> Any:
    return codec_v2.decode(body, "m", "", None, True)


def both(body: bytes) -> Any:
    first, second = outcome(quick, body), outcome(slow, body)
    assert first == second
    return first


def is_quick(body: bytes) -> bool:
    parsed = json_tensors.parse(body)
    return parsed is not None and bool(parsed[1])


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("FP32", [0.1, -2.5e-7, 3, 1e38]),
        ("FP64", [0.1, 1e308, 2**53 + 1, -0.0]),
        ("INT8", [-128, 127]),
        ("INT16", [-32768, 0]),
        ("INT32", [2**31 - 1, -(2**31)]),
        ("INT64", [2**63 - 1, -(2**63)]),
        ("UINT8", [0, 255]),
        ("UINT16", [65535, 1]),
        ("UINT32", [2**32 - 1, 0]),
        ("UINT64", [2**64 - 1, 0]),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_numbers_are_those_of_the_list(datatype: str, values: list[Any], nested: bool) -> None:
    flat = values * (N // len(values))
    rows = [flat[at : at + 100] for at in range(0, len(flat), 100)]
    body = document(rows if nested else flat, [60, 100], datatype)
    assert is_quick(body)
    both(body)
    tensor = quick(body).inputs[0]
    assert tensor.is_list
    assert np.array(tensor.data).shape == ((60, 100) if nested else (6000,))


@pytest.mark.parametrize(
    ("data", "shape", "datatype", "text"),
    [
        ([1.0] * N, [N + 1], "FP32", "do not fill shape"),
        ([1.0] * N + [1e39], [N + 1], "FP32", "out of range"),
        ([1] * N + [128], [N + 1], "INT8", "out of range"),
        ([1] * N + [-1], [N + 1], "UINT64", "out of range"),
        ([1] * N + [2**63], [N + 1], "INT64", "out of range"),
        ([1] * N + [2**64], [N + 1], "UINT64", "not of datatype"),
        ([1] * N + [1.5], [N + 1], "INT32", "not of datatype"),
        ([1.0] * N + ["2"], [N + 1], "FP32", "not of datatype"),
        ([1.0] * N + [None], [N + 1], "FP32", "not of datatype"),
        ([1.0] * N + [[2.0]], [N + 1], "FP32", "ragged"),
        ([[1.0] * N, [1.0]], [2, N], "FP32", "ragged"),
        ([[1.0, 2.0]] * N + [[1.0], [1.0, 2.0, 3.0]], [N + 2, 2], "FP32", "ragged"),
        ([1.0] * N, [N], "FP16", "binary"),
        ([1.0] * N, [N], "FP31", "unknown datatype"),
        ([1.0] * N, [-N], "FP32", "none negative"),
        ([1.0] * N, "N", "FP32", '"shape"'),
    ],
)
def test_refusals_are_those_of_the_list(data: Any, shape: Any, datatype: str, text: str) -> None:
    found = both(document(data, shape, datatype))
    assert text in found


def test_other_arrays_and_unusual_documents_take_the_ordinary_way() -> None:
    for body in (
        document([True, False] * N, [2 * N], "BOOL"),
        document(["a"] * N, [N], "BYTES"),
        document([[1.0], [2.0]] * N, [2 * N, 1]),  # as many arrays as numbers
        document([[1.0] * 10] * N, [10 * N]),  # nested otherwise than the shape says
    ):
        assert not is_quick(body)
        both(body)
    good = document([0.5] * N, [N])
    for body in (
        good[:-1],
        good.replace(b"0.5,", b"0.5,,", 1),
        good.replace(b"0.5", b"00.5", 1),
        good.replace(b"0.5", b"NaN", 1),
        good.replace(b"0.5", b"1e999", 1),
        good.replace(b'"data"', b'"\\u0064ata"'),
        good + b"x",
        b"[" * 20000,
        b'{"data":[' * 5000,
        orjson.dumps({"inputs": [{"name": '"data":[' + "1," * N + '1]"}'}]}),
        orjson.dumps({"data": [0.5] * N, "inputs": []}),
    ):
        both(body)


def test_of_a_name_given_twice_the_last_counts() -> None:
    body = document([0.5] * N, [N])
    twice = body.replace(b'"data": [0.5', b'"data": [1.5], "data": [0.5', 1)
    assert both(twice)[1][0][4][0] == 0.5
    text = b"0.25, " * N + b"0.25"
    again = body.replace(b'"data": [', b'"data": [' + text + b'], "data": [')
    assert both(again)[1][0][4][0] == 0.5


def test_many_inputs_and_whitespace() -> None:
    rng = np.random.default_rng(0)
    inputs = [
        {"name": n, "shape": [N], "datatype": "FP64", "data": rng.random(N).tolist()} for n in "abc"
    ]
    inputs.insert(1, {"name": "s", "shape": [1], "datatype": "INT8", "data": [1]})
    for indent in (None, 1):
        body = json.dumps({"inputs": inputs}, indent=indent).encode()
        assert is_quick(body)
        assert [name for name, *_ in both(body)[1]] == ["a", "s", "b", "c"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.binary(min_size=1, max_size=3))
def test_damaged_documents_end_as_without(at: int, damage: bytes) -> None:
    body = document([[0.5] * 100] * 60, [60, 100])
    at %= len(body)
    both(body[:at] + damage + body[at + len(damage) :])


def test_a_passed_tensor_is_written_as_a_list_again() -> None:
    request = quick(document([[0.1] * 100] * 60, [60, 100]))
    answer = codec_v2.encode(InferResponse("", "m", request.inputs), request, Call({}))
    (output,) = orjson.loads(answer.body)["outputs"]
    assert (output["shape"], output["data"]) == ([60, 100], [0.1] * N)


def test_without_simdjson_all_documents_take_the_ordinary_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(json_tensors, "_simdjson", None)
    monkeypatch.setattr(json_tensors, "_missing", True)
    body = document([0.5] * N, [N])
    assert not is_quick(body)
    both(body)
