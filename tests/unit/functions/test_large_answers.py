"""Large binary tensors go out as the buffers they are in, unless somebody may write to them."""

import numpy as np
import pytest

from functions import codec_grpc, codec_v2
from functions.answers import Answer, Pieces
from functions.inference import InferRequest, InferResponse, Tensor
from functions.model import Call
from functions.wire import v2

LARGE, SMALL = 100_000, 100


def answered(*arrays: np.ndarray, raw: tuple[bytes, ...] = ()) -> Answer | Pieces:
    outputs = [Tensor(f"a{at}", data=array) for at, array in enumerate(arrays)]
    outputs += [Tensor(f"r{at}", [len(data)], "UINT8", raw=memoryview(data))
                for at, data in enumerate(raw)]  # fmt: skip
    request = InferRequest("m", [], "1", wanted=v2.Wanted(True, None))
    return codec_v2.encode(InferResponse("1", "m", outputs), request, Call({}))


def test_neighbours_that_are_small_share_a_buffer() -> None:
    small, large = bytes(SMALL), bytes(LARGE)
    answer = answered(raw=(small, small, large, small, large, large, small, small))
    assert isinstance(answer, Pieces)
    sizes = [len(piece) for piece in answer.pieces]
    assert sizes[1:] == [LARGE, SMALL, LARGE, LARGE, 2 * SMALL]
    assert answer.headers is not None
    head = int(answer.headers["Inference-Header-Content-Length"])
    assert sizes[0] == head + 2 * SMALL
    assert answer.body == answer.body[:head] + bytes(3 * LARGE + 5 * SMALL)
    assert not isinstance(answered(raw=(small,)), Pieces)


def test_what_the_model_may_write_to_is_copied() -> None:
    own = np.zeros(LARGE, np.uint8)
    fixed = np.zeros(LARGE, np.uint8)
    fixed.flags.writeable = False
    answer = answered(own, fixed)
    own[:] = 1  # the next call's
    assert isinstance(answer, Pieces)
    assert not any(b"\1" in bytes(piece) for piece in answer.pieces[1:])
    assert np.shares_memory(np.frombuffer(answer.pieces[2], np.uint8), fixed)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_over_grpc_too(size: int) -> None:
    own = np.zeros(size, np.uint8)
    sent = bytes(size)
    request = InferRequest("m", [], "1", wanted=v2.Wanted(True, None))
    outputs = [Tensor("own", data=own), Tensor("sent", [size], "UINT8", raw=memoryview(sent))]
    pieces = codec_grpc.from_response(InferResponse("1", "m", outputs), request)
    own[:] = 1
    assert b"\1" not in bytes(pieces[2])
    assert np.shares_memory(np.frombuffer(pieces[4], np.uint8), np.frombuffer(sent, np.uint8))


def test_what_is_written_in_place_is_numbers_as_binary_data() -> None:
    numbers = InferResponse("1", "m", [Tensor("a", data=np.zeros(3, np.float32))])
    texts = InferResponse("1", "m", [Tensor("a", data=np.array([b"x"], dtype=object))])
    binary = InferRequest("m", [], "1", wanted=v2.Wanted(True, None))
    mixed = InferRequest("m", [], "1", wanted=v2.Wanted(True, {"a": False}))
    json = InferRequest("m", [], "1")
    assert codec_v2.writes_in_place(numbers, binary)
    assert not codec_v2.writes_in_place(texts, binary)
    assert not codec_v2.writes_in_place(numbers, mixed)
    assert not codec_v2.writes_in_place(numbers, json)
