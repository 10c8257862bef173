"""Tensors: properties over all datatypes, and joining and splitting."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions import codec_v2, joining, jsonio, results, tensors
from functions.errors import InvalidRequest
from functions.inference import InferRequest, InferResponse, Tensor
from functions.model import Call
from functions.predictor import documents
from functions.wire import v2

PLAIN = [name for name in tensors.DTYPES if name not in ("BYTES", "BF16")]


@given(
    st.sampled_from(PLAIN),
    st.lists(st.integers(0, 4), max_size=4),
    st.randoms(use_true_random=False),
)
def test_raw_tensors_round_trip(datatype: str, shape: list[int], random: Any) -> None:
    dtype = tensors.DTYPES[datatype]
    size = v2.element_count(shape) * dtype.itemsize
    raw = bytes(random.randrange(2 if datatype == "BOOL" else 256) for _ in range(size))
    array = tensors.decode_raw("x", datatype, shape, raw)
    assert array.shape == tuple(shape)
    assert bytes(tensors.encode_raw(array, datatype)) == raw


@given(st.lists(st.binary(max_size=8), max_size=6))
def test_bytes_tensors_round_trip(items: list[bytes]) -> None:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    raw = tensors.encode_raw(array, "BYTES")
    assert tensors.decode_raw("x", "BYTES", [len(items)], raw).tolist() == items


@given(st.binary(max_size=40), st.integers(0, 6))
def test_arbitrary_bytes_never_crash_the_bytes_decoder(raw: bytes, count: int) -> None:
    try:
        tensors.decode_raw("x", "BYTES", [count], raw)
    except InvalidRequest:
        return


@given(st.floats(width=32))
def test_bf16_rounds_to_the_nearest(value: float) -> None:
    array = np.array([value], dtype="<f4")
    back = tensors.decode_raw("x", "BF16", [1], tensors.encode_raw(array, "BF16"))[0]
    if np.isnan(value):
        assert np.isnan(back)
    elif np.isfinite(back):
        assert abs(float(back) - value) <= abs(value) * 2**-8 + 2.0**-133


def test_binary_inputs_are_views_not_copies() -> None:
    raw = np.arange(4, dtype="<f4").tobytes()
    assert np.shares_memory(
        tensors.decode_raw("x", "FP32", [4], raw), np.frombuffer(raw, dtype="<f4")
    )


def test_untouched_tensors_are_never_converted() -> None:
    tensor = Tensor("x", [2], "FP32", [1, 2])
    assert tensor.json_data() is tensor.data
    assert Tensor("x", [1], "FP32", raw=b"abcd").raw() == b"abcd"


@pytest.mark.parametrize(
    "result",
    [
        np.arange(2),
        [0, 1],
        {"output-0": np.arange(2)},
        Tensor("output-0", data=np.arange(2)),
        {"outputs": [{"name": "output-0", "shape": [2], "datatype": "INT64", "data": [0, 1]}]},
        InferResponse("", "", [Tensor("output-0", data=np.arange(2))]),
    ],
    ids=lambda r: type(r).__name__,
)
def test_results_of_hooks_become_responses(result: Any) -> None:
    response = results.to_response(result, InferRequest("m", [], "7"))
    assert (response.id, response.model_name) == ("7", "m")
    assert (response.outputs[0].name, response.outputs[0].as_numpy().tolist()) == (
        "output-0",
        [0, 1],
    )


def test_frames_become_a_tensor_a_column() -> None:
    frame = pytest.importorskip("pandas").DataFrame({"a": [1, 2], "b": ["x", "y"]})
    response = results.to_response(frame, InferRequest("m", []))
    found = {t.name: (t.datatype, t.as_numpy().tolist()) for t in response.outputs}
    assert found == {"a": ("INT64", [1, 2]), "b": ("BYTES", ["x", "y"])}


def test_documents_of_hooks_keep_what_they_say() -> None:
    output = {"name": "y", "shape": [1], "datatype": "FP16", "data": [0.5], "parameters": {"k": 1}}
    document = {"id": "own", "model_version": "3", "parameters": {"z": 1}, "outputs": [output]}
    response = results.to_response(document, InferRequest("m", [], "7"))
    assert (response.id, response.model_version, response.parameters) == ("own", "3", {"z": 1})
    (tensor,) = response.outputs
    assert (tensor.datatype, tensor.parameters, tensor.as_numpy().tolist()) == (
        "FP16", {"k": 1}, [0.5],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "datatype", "data"),
    [([3], "FP32", [1, 2]), ([2], "INT8", [1, 300]), ([1], "BYTES", [1]), ([1], "FP32", ["a"])],
)
def test_outputs_that_are_not_what_they_say_are_the_models_fault(
    shape: list[int], datatype: str, data: list[Any]
) -> None:
    request = InferRequest("m", [Tensor("x", shape, datatype, data)])
    output = {"name": "x", "shape": shape, "datatype": datatype, "data": data}
    response = results.to_response({"outputs": [output]}, request)
    with pytest.raises(TypeError, match="output 'x'"):
        results.check_output(response.outputs[0], request)
    with pytest.raises(InvalidRequest, match="input 'x'"):  # passed on as the client sent it
        results.check_output(request.inputs[0], request)


def test_joined_requests_split_back() -> None:
    requests = [
        InferRequest(
            "m", [Tensor("a", data=np.full((n, 2), n)), Tensor("b", data=np.arange(n))], str(n)
        )
        for n in (1, 3, 2)
    ]
    keys = [joining.join_key(request) for request in requests]
    assert [count for count, _ in keys] == [1, 3, 2]
    assert len({key for _, key in keys}) == 1
    joined = joining.join_requests(requests)
    parts = joining.split_response(InferResponse("", "m", joined.inputs), requests)
    assert [part.id for part in parts] == ["1", "3", "2"]
    assert [part.outputs[0].as_numpy().tolist() for part in parts] == [
        [[n, n]] * n for n in (1, 3, 2)
    ]
    with pytest.raises(TypeError, match="one row an instance"):
        joining.split_response(InferResponse("", "m", [Tensor("x", data=np.arange(5))]), requests)


def test_what_differs_is_not_joined() -> None:
    one = InferRequest("m", [Tensor("a", data=np.zeros((1, 2)))])
    for other in (
        InferRequest("m", [Tensor("b", data=np.zeros((1, 2)))]),
        InferRequest("m", [Tensor("a", data=np.zeros((1, 3)))]),
        InferRequest("m", [Tensor("a", data=np.zeros((1, 2), dtype="f4"))]),
        InferRequest("m", [Tensor("a", data=np.zeros((1, 2)))], parameters={"k": 1}),
    ):
        assert joining.join_key(other)[1] != joining.join_key(one)[1]
    assert joining.join_key(InferRequest("m", [Tensor("a", data=np.float32(1))]))[1] is None


def test_requests_survive_the_way_to_a_predictor() -> None:
    sent = InferRequest(
        "m", [Tensor("a", data=np.arange(3, dtype="i2")), Tensor("t", [1], "BYTES", ["x"])], "7"
    )
    text, pieces = documents.encode_request(sent, binary=True)
    got = codec_v2.decode(b"".join([text, *pieces]), "m", "", str(len(text)), False)
    assert [t.as_numpy().tolist() for t in got.inputs] == [[0, 1, 2], ["x"]]
    response = InferResponse("7", "m", got.inputs)
    answer = codec_v2.encode(response, got, Call({}))
    assert answer.headers is not None
    length = answer.headers["Inference-Header-Content-Length"]
    back = documents.decode_response(answer.body, length)
    assert back.outputs[0].as_numpy().tolist() == [0, 1, 2]


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=3),
        lambda c: (
            st.lists(c, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["inputs", "name", "shape", "datatype", "data", "parameters", "outputs", "id"]
                ),
                c,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_a_request_or_a_client_fault(document: Any) -> None:
    try:
        body = jsonio.dumps(document)
    except TypeError:
        return
    try:
        request = codec_v2.decode(body, "m", "", None, True)
        for tensor in request.inputs:
            tensor.as_numpy()
    except InvalidRequest:
        return


def test_descriptors_are_those_of_the_proto_files() -> None:
    from functions.oip import compile as oip_compile
    from functions.oip.descriptor import DESCRIPTOR_SET as OIP
    from functions.tfs import compile as tfs_compile
    from functions.tfs.descriptor import DESCRIPTOR_SET as TFS

    assert oip_compile.descriptor() == OIP
    assert tfs_compile.descriptor() == TFS


@pytest.mark.parametrize(
    ("data", "announced", "datatype", "dtype"),
    [
        (np.arange(3.0), "FP32", "FP32", "<f4"),
        (np.arange(3), "FP16", "FP16", "<f2"),
        (np.arange(3), "INT8", "INT8", "|i1"),
        (np.arange(3) * 200, "INT8", "INT64", "<i8"),
        (np.arange(3) - 1, "UINT8", "INT64", "<i8"),
        (np.arange(3) / 2, "INT64", "FP64", "<f8"),
        (np.arange(3.0), "BYTES", "FP64", "<f8"),
        (np.array(["2020-01-01"], "datetime64[D]"), "", "BYTES", "|O"),
    ],
    ids=str,
)
def test_an_announced_datatype_stays_where_it_can(
    data: Any, announced: str, datatype: str, dtype: str
) -> None:
    tensor = Tensor("x", data.shape, announced, data)
    assert (tensor.datatype, tensor.as_numpy().dtype) == (datatype, np.dtype(dtype))
    if datatype != "BYTES":
        assert tensor.as_numpy().tolist() == data.tolist()


def test_lists_of_bytes_keep_every_byte() -> None:
    tensor = Tensor("x", [2, 1], "BYTES", [[b"a\0"], [b"\xff"]])
    assert bytes(tensor.raw()) == b"\2\0\0\0a\0\1\0\0\0\xff"
    assert (tensor.shape, tensor.datatype) == ([2, 1], "BYTES")
    with pytest.raises(InvalidRequest, match="no UTF-8"):
        tensor.as_string()
    assert Tensor("x", [2], "BYTES", ["a", "b"]).as_string() == ["a", "b"]
    assert Tensor("x", data=np.array([b"a", "\u00fc"], object)).as_string() == ["a", "\u00fc"]
    with pytest.raises(InvalidRequest, match="is FP32"):
        Tensor("x", [1], "FP32", (1.0,)).as_string()  # type: ignore[arg-type]
