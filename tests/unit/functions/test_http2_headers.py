"""Header blocks: our decoder against `hpack`'s, block after block of one connection."""

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.http2.frames import ProtocolError
from functions.http2.headers import Decoder, HeaderReader, literal

NAMES = st.sampled_from([b":path", b":method", b"content-type", b"te", b"grpc-timeout", b"x"])
FIELDS = st.lists(
    st.tuples(NAMES | st.binary(max_size=40), st.sampled_from([b"", b"POST", b"trailers"])
              | st.binary(max_size=300)),
    max_size=12,
)  # fmt: skip


@given(
    st.lists(st.tuples(FIELDS, st.booleans(), st.none() | st.integers(0, 4096)), max_size=8),
)
def test_what_hpack_encodes(
    blocks: list[tuple[list[tuple[bytes, bytes]], bool, int | None]],
) -> None:
    """With and without Huffman codes, with tables of every size."""
    encoder, decoder = hpack.Encoder(), Decoder(1 << 20)
    for fields, huffman, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode(fields, huffman=huffman)
        assert decoder.decode(block) == fields


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_bytes_mean_what_hpack_says(blocks: list[bytes]) -> None:
    theirs, ours = hpack.Decoder(1 << 20), Decoder(1 << 20)
    for block in blocks:
        try:
            expected = [(bytes(n), bytes(v)) for n, v in theirs.decode(block, raw=True)]
        except (hpack.HPACKError, IndexError):
            with pytest.raises(ProtocolError):
                ours.decode(block)
            return
        assert ours.decode(block) == expected


@pytest.mark.parametrize(
    "block",
    [
        b"\x80", b"\xff", b"\xff\xff\xff\xff\xff\xff\x7f", b"\xbe", b"\x00\x03ab", b"\x40\x01a",
        b"\x3f\xe2\x1f", b"\x82\x20", b"\x00\x01a\x81\x00",
    ],
)  # fmt: skip
def test_blocks_that_are_none(block: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        Decoder(1000).decode(block)
    assert caught.value.code == 9


def test_a_small_block_cannot_become_a_large_list() -> None:
    decoder = Decoder(10_000)
    long = literal(b"name", b"v" * 3000)
    inserted = b"\x40" + long[1:]
    assert decoder.decode(inserted) == [(b"name", b"v" * 3000)]
    assert decoder.decode(b"\xbe" * 60_000) is None
    assert decoder.decode(b"\xbe") == [(b"name", b"v" * 3000)]  # the table is as it was


def test_equal_blocks_are_read_once_unless_the_table_has_changed() -> None:
    read: list[object] = []

    def make(fields: object) -> object:
        read.append(fields)
        return fields

    reader: HeaderReader[object] = HeaderReader(1000, make)
    inserts = b"\x40\x01a\x01b"
    for _ in range(3):
        assert reader.read(b"\x82") == [(b":method", b"GET")]
    assert len(read) == 1
    reader.read(inserts)
    assert reader.read(b"\xbe") == [(b"a", b"b")]
    reader.read(b"\x40\x01a\x01c")
    assert reader.read(b"\xbe") == [(b"a", b"c")]
    assert reader.read(b"\xbf") == [(b"a", b"b")]


@given(st.integers(0, 5), st.lists(st.integers(1, 400), min_size=1, max_size=300))
def test_more_blocks_than_are_kept(seed: int, lengths: list[int]) -> None:
    reader: HeaderReader[object] = HeaderReader(100_000, lambda fields: fields)
    for length in lengths:
        value = bytes([65 + seed]) * length
        assert reader.read(literal(b"n", value)) == [(b"n", value)]
