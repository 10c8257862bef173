"""TensorFlow Serving's API, the parts that need no TensorFlow: texts to arrays and back, versions,
flags."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functions import tensors, tfs_rest
from functions.errors import StatusError
from functions.model import TensorSpec
from functions.runtimes.tensorflow import reason
from functions.runtimes.versions import Settling, scan
from functions.tfs.__main__ import settings_of
from functions.wire import tensorflow as wire


def spec(datatype: str) -> TensorSpec:
    return TensorSpec(name="x", datatype=datatype, shape=(-1,))


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("FP32", [1, 2.5]),
        ("FP32", [[1], [2]]),
        ("FP64", [10**30, -1]),  # any number is a float, however long
        ("FP32", 3),
        ("INT8", [-128, 127]),
        ("INT64", [-(1 << 63), (1 << 63) - 1]),
        ("UINT64", [0, (1 << 64) - 1]),  # numpy makes floats of such a list
        ("BOOL", [True, False]),
        ("FP32", []),
    ],
)
def test_numbers_become_the_signatures_type(datatype: str, value: Any) -> None:
    array = tfs_rest.to_array(spec(datatype), value)
    assert array.dtype == tensors.DTYPES[datatype]
    assert array.tolist() == np.array(value, dtype=array.dtype).tolist()


@pytest.mark.parametrize(
    ("datatype", "value", "told"),
    [
        ("FP32", ["1"], "type: float"),
        ("FP32", [True], "type: float"),
        ("FP32", [1, True], "type: float"),
        ("FP32", [None], "type: float"),
        ("FP32", {"a": 1}, "type: float"),
        ("FP32", [10**400], "out of range"),
        ("INT32", [1.0], "type: int"),
        ("INT32", [1, 2.5], "type: int"),
        ("INT32", [1 << 31], "out of range"),
        ("INT64", [1 << 63], "out of range"),
        ("UINT8", [-1], "out of range"),
        ("UINT64", [1 << 64], "out of range"),
        ("BOOL", [1], "type: bool"),
        ("FP32", [[1], [1, 2]], "different shapes"),
        ("BYTES", [1], "type: string"),
        ("BYTES", [["a"], "b"], "different shapes"),
        ("BYTES", [{"b64": "!"}], "base64"),
        ("BYTES", [{"b64": 3}], "base64"),
    ],
)
def test_what_the_signature_does_not_take(datatype: str, value: Any, told: str) -> None:
    with pytest.raises(wire.Malformed, match=told):
        tfs_rest.to_array(spec(datatype), value)


@pytest.mark.parametrize("datatype", ["FP16", "BF16", ""])
def test_types_without_a_json_form_are_501(datatype: str) -> None:
    with pytest.raises(StatusError) as caught:
        tfs_rest.to_array(spec(datatype), [1])
    assert caught.value.http_status() == 501


def test_numbers_go_out_as_short_as_they_are_exact() -> None:
    array = np.array([0.2, 1.0, 9e6, 1.5e-7], dtype=np.float32)
    assert tfs_rest.to_json("y", array) == [0.2, 1.0, 9e6, 1.5e-7]
    assert tfs_rest.to_json("y", np.array(3.0, dtype=np.float32)) == 3.0  # rank 0 stays a number
    odd = tfs_rest.to_json("y", np.array([math.nan, math.inf, 0.2], dtype=np.float32))
    assert (math.isnan(odd[0]), odd[1:]) == (True, [math.inf, 0.2])
    texts = np.array([b"ab", b"\xff"], dtype=object)
    assert tfs_rest.to_json("raw_bytes", texts) == [{"b64": "YWI="}, {"b64": "/w=="}]
    assert tfs_rest.to_json("text", texts) == ["ab", "\ufffd"]


class Echo:
    """A version whose signature answers what it is told to; TensorFlow's part is tested with it."""

    def __init__(self, **outputs: Any) -> None:
        self.outputs = {name: np.asarray(value) for name, value in outputs.items()}
        self.inputs = {"x": spec("FP32")}

    def run(self, signature: Any, inputs: Any) -> Any:
        return self.outputs


def rows(count: int, **outputs: Any) -> Any:
    version = Echo(**outputs)
    return tfs_rest.predict(version, version, {"instances": [1.0] * count})["predictions"]


def test_rows_are_as_many_as_the_outputs_have() -> None:
    assert rows(2, y=[1, 2]) == [1, 2]
    assert rows(2, y=[3]) == [3]  # the model has summed them up
    assert rows(2, a=[1, 2], b=[[3], [4]]) == [{"a": 1, "b": [3]}, {"a": 2, "b": [4]}]
    with pytest.raises(wire.Malformed, match="inconsistent batch size: 1 expecting: 2"):
        rows(2, a=[1, 2], b=[3])
    with pytest.raises(wire.Malformed, match=r"y has no shape information.*'inputs'"):
        rows(2, y=3)


def test_a_fault_names_the_instance() -> None:
    version = Echo(y=[1])
    for instances, told in (
        ([1, "x"], "element: 1 key: x of 'instances'"),
        ([[1], [2], [3, 4]], r"element: 2 key: x .* \[2\] is not that of the first, \[1\]"),
        ([{"x": 1}, {"y": 1}], "element: 1 of 'instances'"),
    ):
        with pytest.raises(wire.Malformed, match=told):
            tfs_rest.predict(version, version, {"instances": instances})


def test_a_page_may_ask_first() -> None:
    assert wire.allows_preflight([(b"Origin", b"https://example.com")])
    for headers in ([], [(b"Origin", b"null")], [(b"Origin", b"file://x")]):
        assert not wire.allows_preflight(headers)


# --- versions -------------------------------------------------------------------------------------


def saved_model(folder: Path, *, weights: bool = True) -> Path:
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    if weights:
        (folder / "variables" / "variables.index").write_bytes(b"i")
        (folder / "variables" / "variables.data-00000-of-00001").write_bytes(b"d")
    return folder


def test_a_version_is_taken_when_it_is_complete_and_has_stopped_changing(tmp_path: Path) -> None:
    whole = saved_model(tmp_path / "1")
    saved_model(tmp_path / "2", weights=False)
    settling = Settling()
    assert settling.complete(scan(tmp_path)) == {1}  # at start: no look before to compare with
    assert settling.settled(scan(tmp_path)) == {1}
    data = whole / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(b"more")
    os.utime(data, ns=(1, 1))
    assert settling.settled(scan(tmp_path)) == set()
    assert settling.settled(scan(tmp_path)) == {1}


# --- flags ----------------------------------------------------------------------------------------


def test_tensorflow_model_servers_flags(capsys: pytest.CaptureFixture[str]) -> None:
    given = [
        "--port=2000",
        "--rest_api_port=2001",
        "--model_name=m",
        "--model_base_path=/mnt/models",
    ]
    arguments, environ = settings_of(given, {"A": "b"})
    assert environ == {"A": "b", "PORT": "2001"}
    pairs = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert pairs == {
        "--model-name": "m",
        "--model-dir": "/mnt/models",
        "--runtime": "tensorflow",
        "--protocol": "tensorflow,grpc-v1",
        "--poll-s": "1",
        "--grpc-port": "2000",
    }
    arguments, environ = settings_of(["--port=0"], {"MODEL_NAME": "n"})
    assert environ["PORT"] == "8501"
    assert "/models/n" in arguments
    assert json.dumps(arguments).count("grpc") == 0
    with pytest.raises(SystemExit) as caught:
        settings_of(["--enable_batching"], {})
    assert caught.value.code == 2
    assert "--enable_batching" in capsys.readouterr().err


def test_an_error_of_the_graph_says_what_is_wrong() -> None:
    text = (
        "Graph execution error:\n\nDetected at node Parse/V2 defined at (most recent call last):\n"
        "<stack traces unavailable>\nFeature: x (data type: float) is required.\n"
        "\t [[{{node Parse/V2}}]] [Op:__inference_204]"
    )
    assert reason(text) == "Feature: x (data type: float) is required."
    assert reason("Graph execution error:\n") == "Graph execution error:"
    assert reason("cannot compute f\nmore") == "cannot compute f"


def test_null_is_called_null() -> None:
    with pytest.raises(wire.Malformed, match="JSON Value: null Type: Null is not of expected type"):
        tfs_rest.to_array(spec("FP32"), None)
