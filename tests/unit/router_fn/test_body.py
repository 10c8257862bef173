"""What bodies are and how they are reshaped: texts in, texts out."""

import json
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_fn import body
from router_fn.body import PickError

# --- is it JSON? ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (b"{}", True),
        (b' [1, 2.5e-3, "x", null, true] \n', True),
        (b"-0", True),
        (b"1e400", True),
        (b'"\xff\xfe"', True),  # invalid UTF-8 in a string
        (b'"\xed\xa0\x80"', True),
        (b'"\\ud800"', True),  # a surrogate without its partner
        (b'"\\ud83d\\u0041"', True),
        (b"[" * 2000 + b"]" * 2000, True),
        (b"[" * 10_000 + b"]" * 10_000, True),
        (b"[" * 10_001 + b"]" * 10_001, False),
        (b'{"a":' * 10_001 + b"1" + b"}" * 10_001, False),
        (b"", False),
        (b" ", False),
        (b"NaN", False),
        (b"[Infinity]", False),
        (b"01", False),
        (b"1.", False),
        (b".5", False),
        (b"+1", False),
        (b"1 2", False),
        (b"[1,]", False),
        (b'{"a":1,}', False),
        (b"{'a':1}", False),
        (b'{"a" 1}', False),
        (b'"tab\there"', False),
        (b'"\\x41"', False),
        (b'"\\u12"', False),
        (b"\xef\xbb\xbf{}", False),  # a byte order mark
        (b"[1]\x00", False),
        (b"\x0c1", False),
        (b'{"a":1} x', False),
        (b"tru", False),
    ],
)
def test_json_is_what_go_takes_for_json(text: bytes, verdict: bool) -> None:
    assert body.is_json(text) is verdict


def test_validity_is_the_same_without_the_accelerator() -> None:
    code = (
        "import sys; sys.modules['msgspec'] = None\n"
        "from router_fn import body\n"
        "from router_fn.conditions import compile_condition as c\n"
        "assert body.is_json(b'{\"a\":[1,2]}') and not body.is_json(b'[1,]')\n"
        'assert c(\'rows.#(k==1)\').matches(b\'{"x":0,"rows":[{"k":1}]}\')\n'
        "assert c('[@this].#(k==1)').matches(b'{\"x\":0,\"k\":1}')\n"
        "assert not c('[@this].#(k==2)').matches(b'{\"x\":0,\"k\":1}')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_is_loaded_before_the_first_body() -> None:
    code = "import sys, router_fn.body; assert 'msgspec' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (b"{}", True),
        (b' \n{"a": [1]} ', True),
        (b"null", True),
        (b" null\n", True),
        (b"nul", False),
        (b"nullx", False),
        (b"[]", False),
        (b'"{}"', False),
        (b"1", False),
        (b"", False),
        (b"{", False),
        (b"text", False),
    ],
)
def test_members_of_an_ensemble_are_objects_or_null(text: bytes, verdict: bool) -> None:
    assert body.is_object_or_null(text) is verdict


# --- chaining ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "request_"),
    [
        (b'{"predictions": [1, 2.0]}', b'{"instances":[1, 2.0]}'),
        (b'{"id": 1, "predictions": [[0.10]], "x": {}}', b'{"instances":[[0.10]]}'),
        (b'{"Predictions":[1]}', b'{"instances":[1]}'),
        (b'{"PREDICTIONS":[2],"x":1}', b'{"instances":[2]}'),
        ('{"prediction\u017f":[1]}'.encode(), b'{"instances":[1]}'),
        (b'{"\\u0070redictions":[1]}', b'{"instances":[1]}'),
        (b'{"predictions":[1],"predictions":[3]}', b'{"instances":[3]}'),
        (b'{"instances":[9],"predictions":[1]}', b'{"instances":[1]}'),
        (b'{"predictions":[12345678901234567890,"<b>&\\u00e9"]}', None),
        (b'{"id":1e400,"predictions":[1]}', b'{"instances":[1]}'),
        (b'{"predictions":["1e400"]}', b'{"instances":["1e400"]}'),
        (b'{"predictions":[1e308]}', b'{"instances":[1e308]}'),
    ],
)
def test_predictions_become_instances_text_for_text(
    response: bytes, request_: bytes | None
) -> None:
    expected = request_ or response.replace(b'{"predictions":', b'{"instances":')
    assert body.predictions_to_instances(response) == expected


@pytest.mark.parametrize(
    "response",
    [
        b'{"predictions": []}',
        b'{"predictions": [ ]}',
        b'{"predictions": {"a":1}}',
        b'{"predictions": null}',
        b'{"predictions":[1],"predictions":null}',
        b'{"predictions":[1],"predictions":"x"}',
        b'{"outputs":[1]}',
        b"{ }",
        b"[1]",
        b"null",
        b'"predictions"',
        b"not json",
        b"",
        b'{"predictions":[1e400]}',
        b'{"predictions":[[{"a":-1E+999}]]}',
        b'{"predictions":[' + b"9" * 310 + b"]}",
        b'{"instances":[1e400],"predictions":[1]}',
        b'{"instances":{},"predictions":[1]}',
        b'{"predictions":[1]} x',
    ],
)
def test_other_bodies_are_sent_on_unchanged(response: bytes) -> None:
    assert body.predictions_to_instances(response) == response


def test_v2_outputs_become_inputs() -> None:
    response = (
        b'{"model_name":"m","model_version":"1","id":"7","parameters":{"a":1},'
        b'"outputs":[{"name":"o", "shape":[1],"datatype":"FP32","data":[1.50]}]}'
    )
    assert body.outputs_to_inputs(response) == (
        b'{"id":"7","inputs":[{"name":"o", "shape":[1],"datatype":"FP32","data":[1.50]}]}'
    )


@pytest.mark.parametrize(
    "response",
    [
        b'{"outputs":[]}',
        b'{"outputs":{}}',
        b'{"predictions":[1]}',
        b"[]",
        b"x",
        b'{"outputs":null}',
    ],
)
def test_what_is_no_v2_response_is_sent_on_unchanged(response: bytes) -> None:
    assert body.outputs_to_inputs(response) == response


# --- putting together and taking apart -----------------------------------------------------------


def test_members_are_stitched_byte_for_byte_in_step_order() -> None:
    members = [("z", b' {"b": 1.0, "a":12345678901234567890}\n'), ("a", b"null"), ('q"', b"{}")]
    assert body.stitch(members) == (
        b'{"z":{"b": 1.0, "a":12345678901234567890},"a":null,"q\\"":{}}'
    )
    assert body.stitch([]) == b"{}"


def test_a_repeated_name_keeps_its_place_and_takes_the_last_value() -> None:
    assert body.stitch([("1", b'{"a":1}'), ("b", b"{}"), ("1", b'{"c":1}')]) == (
        b'{"1":{"c":1},"b":{}}'
    )


def test_collecting_takes_answers_of_any_kind() -> None:
    members = [("a", b"[1]"), ("b", b'text "x"\xff'), ("c", b""), ("d", b" 1 ")]
    assert json.loads(body.collect(members)) == {"a": [1], "b": 'text "x"\ufffd', "c": None, "d": 1}


TABLE = (
    b'{"predictions": [ {"label":"dog","p":0.90}, {"label":"cat"} ],'
    b' "a.b": {"c d":[1,[2.0]]}, "n":null}'
)


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("$", TABLE),
        ("", TABLE),
        ("$.predictions[0].p", b"0.90"),
        ("predictions.0.p", b"0.90"),
        ("n", b"null"),
        ("$.predictions.0.label", b'"dog"'),
        ("$['predictions'][1]", b'{"label":"cat"}'),
        ('$["a.b"]["c d"]', b"[1,[2.0]]"),
        ("$['a.b']['c d'][1][0]", b"2.0"),
        ("$.n", b"null"),
        ("$.predictions[*].label", b'["dog","cat"]'),
        ("$.predictions[?(@.label == 'cat')].label", b'"cat"'),
    ],
)
def test_picking_a_part(path: str, part: bytes) -> None:
    assert body.pick(path)(TABLE) == part


@pytest.mark.parametrize("path", ["$.x", "$.predictions[2]", "$.n.x", "$.predictions[?(@.p > 1)]"])
@pytest.mark.parametrize("text", [TABLE, b"", b"text", b"[1]"])
def test_picking_what_is_not_there_fails_and_says_so(path: str, text: bytes) -> None:
    with pytest.raises(PickError, match="nothing"):
        body.pick(path)(text)


@pytest.mark.parametrize("path", ["$.[", "$['']", "$..["])
def test_a_path_that_makes_no_sense_is_refused_at_boot(path: str) -> None:
    with pytest.raises(ValueError, match=r"JSONPath|empty key"):
        body.pick(path)


@given(st.binary(max_size=80) | st.text(max_size=40).map(str.encode))
def test_no_body_makes_a_reshaper_raise(text: bytes) -> None:
    body.predictions_to_instances(text)
    body.outputs_to_inputs(text)
    body.is_object_or_null(text)
    assert body.is_json(body.collect([("a", text), ("b", text)]))


@given(
    st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), min_size=1)
)
def test_mapping_keeps_the_values(predictions: list[object]) -> None:
    text = json.dumps({"x": 1, "predictions": predictions, "y": []}).encode()
    assert json.loads(body.predictions_to_instances(text)) == {"instances": predictions}


def test_hostile_bodies_take_linear_time() -> None:
    for text in (
        b'{"predictions":[' + b"1e9," * 100_000 + b"1]}",
        b'{"predictions":["' + b"\\\\" * 200_000 + b'"]}',
        b'{"predictions":[' + b"[" * 9000 + b"]" * 9000 + b"]}",
        b'{"predictions"' * 30_000,
        b'{"predictions":["\\ud800' + b"x" * 400_000 + b'"]}',
        b"[" * 400_000,
        b'"' * 400_000,
    ):
        began = time.perf_counter()
        body.predictions_to_instances(text)
        body.outputs_to_inputs(text)
        body.is_object_or_null(text)
        assert time.perf_counter() - began < 10
