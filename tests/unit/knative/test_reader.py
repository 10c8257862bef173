"""Reading YAML: values as Kubernetes reads them, exact places, limits, and nothing that
tracebacks."""

import time

import pytest

from knative.api import reader


def _one(text: str | bytes) -> reader.Document:
    (document,) = reader.read("f.yaml", text.encode() if isinstance(text, str) else text)
    return document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-7", -7),
        ("+7", 7),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("0x1F", 31),
        ("0b101", 5),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ('"1e3"', "1e3"),
        ("'no'", "no"),
        ("!!str 12", "12"),
        ("1.2.3", "1.2.3"),
        ("2020-01-01", "2020-01-01"),
        ("12:30:45", "12:30:45"),
        ("s3://b/k", "s3://b/k"),
        ("1_x", "1_x"),
        ("a-b", "a-b"),
        ("1" * 500, "1" * 500),
    ],
)
def test_plain_scalars_are_what_kubernetes_takes_them_for(text: str, value: object) -> None:
    document = _one(f"v: {text}")
    assert document.data == {"v": value}
    assert document.problems == []


@pytest.mark.parametrize(
    ("text", "value", "words"),
    [
        ("no", False, 'no means false here; write false or "no"'),
        ("On", True, 'On means true here; write true or "On"'),
        ("0777", 511, '0777 is octal (511); write 511, or "0777" for text'),
        ("1_000", 1000, '1_000 is read as the number 1000; write 1000, or "1_000" for text'),
    ],
)
def test_surprising_spellings_are_read_and_reported(text: str, value: object, words: str) -> None:
    document = _one(f"a: b\nv: {text}")
    assert document.data["v"] == value
    assert [(p.level, p.message, p.line, p.column) for p in document.problems] == [
        ("warning", words, 2, 4)
    ]


def test_places_are_those_of_keys_and_items() -> None:
    document = _one("a:\n  b:\n  - c: 1\n  - {d: [x, y]}\n")
    assert document.locate(("a", "b", 0, "c")) == (3, 5)
    assert document.locate(("a", "b", 1, "d", 1)) == (4, 13)
    assert document.locate(("a", "b", 1, "nothing", "below")) == (4, 5)
    assert document.locate(()) == (1, 1)
    assert document.spelling(("a", "b", 0, "c")) == "1"
    assert document.spelling(("a", "b", 1, "d", 0)) == ""


def test_aliases_and_merge_keys_work_and_keep_their_places() -> None:
    document = _one("base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}\nsame: *b\n")
    assert document.data["use"] == {"y": 3, "x": 1}
    assert document.data["same"] == {"x": 1, "y": 2}
    assert document.locate(("use", "x")) == (1, 11)


def test_duplicate_keys_are_reported_with_the_first_line() -> None:
    document = _one("a: 1\nb: 2\na: 3\n")
    (problem,) = document.problems
    assert str(problem) == 'f.yaml:3:1: error: duplicate key "a" (first on line 1)'


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("raw", "place", "words"),
    [
        pytest.param(b"a:\n\t- b\n", (2, 1), "a tab cannot indent YAML", id="tab"),
        pytest.param(b"a: 'x", (1, 6), "unexpected end of stream", id="open quote"),
        pytest.param(b"a: [1, 2", (2, 1), "did not find expected", id="open bracket"),
        pytest.param(b"a:\n  b: 1\n c: 2\n", (3, 2), "did not find expected key", id="indent"),
        pytest.param(b"a: @x", (1, 4), "cannot start any token", id="at sign"),
        pytest.param(b"a: \xff", (1, 4), "not UTF-8 text (byte 0xff)", id="latin-1"),
        pytest.param(b"a: x\nb: \0", (2, 0), "contains a NUL byte", id="binary"),
        pytest.param(b"a: \x07", (0, 0), "control characters", id="bell"),
        pytest.param(b"a: !!python/object:os.system x", (1, 4), "tag !!python", id="python tag"),
        pytest.param(b"a: !Ref x", (1, 4), "tag !Ref is not supported", id="foreign tag"),
        pytest.param(b"a: &x [*x]", (1, 8), "alias *x contains itself", id="recursion"),
        pytest.param(b"a: *x", (1, 4), "alias *x has no anchor", id="no anchor"),
        pytest.param(b"? [a]\n: b", (1, 3), "a key must be plain text", id="list as key"),
        pytest.param(b"a: {<<: 3}", (1, 9), "<< can merge mappings only", id="bad merge"),
        pytest.param(b"[" * 100_000, (1, 66), "nested more than 64", id="deep flow"),
        pytest.param(BOMB.encode(), (7, 0), "after expanding aliases", id="bomb"),
        pytest.param(b"#" * (33 * 2**20), (0, 0), "larger than 32 MiB", id="large"),
    ],
)
def test_unreadable_streams_end_quickly_with_a_place(
    raw: bytes, place: tuple[int, int], words: str
) -> None:
    started = time.process_time()
    with pytest.raises(reader.ReadError) as caught:
        list(reader.read("f", raw))
    assert words in caught.value.message
    line, column = place
    assert caught.value.line == line
    assert column in (0, caught.value.column)
    assert time.process_time() - started < 5


def test_ten_megabytes_of_text_are_read() -> None:
    assert (
        len(_one("a: |\n" + "  x" * 80 + "\n" + ("  " + "y" * 100 + "\n") * 100_000).data["a"])
        > 10**7
    )


@pytest.mark.parametrize("raw", ["a: ä\n".encode("utf-16"), b"\xef\xbb\xbfa: \xc3\xa4\n"])
def test_utf_16_and_byte_order_marks_are_read(raw: bytes) -> None:
    assert _one(raw).data == {"a": "ä"}


def test_json_is_yaml() -> None:
    assert _one('{"a":\t[1, 2],\n\t"b": "\\u00e4"}').data == {"a": [1, 2], "b": "ä"}


def test_infinity_is_refused_with_a_way_out() -> None:
    (problem,) = _one("a: .inf").problems
    assert (
        problem.message
        == '.inf cannot be carried by Kubernetes; quote it (".inf") if text is meant'
    )
