"""The chunked coding: round trips at any cut, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.wire.http1_chunked import LAST_CHUNK, BadChunk, ChunkedDecoder, encode_chunk


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    st.lists(st.integers(1, 30), max_size=30),
    st.binary(max_size=5),
)
def test_what_was_encoded_comes_back_wherever_the_packets_are_cut(
    pieces: list[bytes], cuts: list[int], rest: bytes
) -> None:
    wire = b"".join(map(encode_chunk, pieces)) + LAST_CHUNK + rest
    decoder = ChunkedDecoder()
    out = b""
    for cut in [*cuts, len(wire)]:
        if decoder.done:
            break
        out += b"".join(decoder.feed(wire[:cut]))
        wire = wire[cut:]
    assert decoder.done
    assert out == b"".join(pieces)
    assert decoder.rest + wire == rest


def test_extensions_and_trailers_are_read_over() -> None:
    decoder = ChunkedDecoder()
    pieces = decoder.feed(b'3;name="v" \r\nabc\r\n00\r\nX-Sum: 1\r\n\r\nnext')
    assert (pieces, decoder.done, decoder.rest) == ([b"abc"], True, b"next")


@pytest.mark.parametrize(
    "wire",
    [
        b"g\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x1\r\n",
        b"1 1\r\n",
        b"1\nabc",
        b"1\rabc\r\n",
        b"f" * 17 + b"\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"1;" + b"x" * 5000,
        b"0\r\n: x\r\n\r\n",
        b"0\r\nX\r\n\r\n",
        b"0\r\nX : 1\r\n\r\n",
        b"1;\x00\r\n",
        b"0\r\n" + b"X: aaaaaaaaaaaaaaaa\r\n" * 2000,
    ],
)
def test_refused(wire: bytes) -> None:
    with pytest.raises(BadChunk):
        ChunkedDecoder().feed(wire)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100))
def test_noise_never_raises_anything_else(data: bytes) -> None:
    decoder = ChunkedDecoder()
    try:
        pieces = decoder.feed(data)
    except BadChunk:
        return
    assert sum(map(len, pieces)) <= len(data)
