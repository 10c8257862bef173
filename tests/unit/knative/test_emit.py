"""Writing YAML: what we print is read back the same by every reader."""

import json
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from knative import emit
from knative.api import reader

TEXT = st.one_of(
    st.text(),
    st.text(alphabet="0123456789eE+-._xobXyYnN:~ \n#|>'\"\\{}[],&*!%@`"),
    st.sampled_from(
        ["y", "No", "1e3", "12e45", "0o17", "0x1", "1_0", ".5", "~", "null", "-", "a: b"]
    ),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)
YAML_12 = re.compile(
    r"([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+|[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
    r"|true|True|TRUE|false|False|FALSE|null|Null|NULL|~|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z"
)


def _value(text: str) -> object:
    (document,) = reader.read("", text.encode("utf-8", "surrogatepass"))
    return document.data


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_two_readers_read_back_what_was_written(value: object) -> None:
    text = emit.to_yaml([{"v": value}])
    if not _has_surrogates(value):
        assert yaml.safe_load(text) == {"v": value}
        assert _value(text) == {"v": value}


def _has_surrogates(value: object) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in json.dumps(value, ensure_ascii=False))


@settings(max_examples=500, deadline=None)
@given(TEXT)
def test_plain_text_is_a_number_or_word_in_no_yaml(value: str) -> None:
    line = emit.to_yaml([{"v": value}])
    plain = line == f"v: {value}\n"
    if plain:
        assert not YAML_12.match(value)
        assert isinstance(yaml.safe_load(f"[{value}]")[0], str)


@settings(max_examples=200, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_stay_numbers(value: float) -> None:
    text = emit.to_yaml([{"v": value}])
    assert yaml.safe_load(text) == {"v": value}
    assert _value(text) == {"v": value}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain-word", "v: plain-word\n"),
        ("/mnt/models", "v: /mnt/models\n"),
        ("1e3", 'v: "1e3"\n'),
        ("y", 'v: "y"\n'),
        ("500m", 'v: "500m"\n'),
        ("", 'v: ""\n'),
        ("ä ö", 'v: "ä ö"\n'),
        ("\x7f\x85\u2028", 'v: "\\x7f\\x85\\u2028"\n'),
        ("a\nb", "v: |-\n  a\n  b\n"),
        ("a\nb\n", "v: |\n  a\n  b\n"),
        (" a\nb", 'v: " a\\nb"\n'),
        ({}, "v: {}\n"),
        ([], "v: []\n"),
        ([[1, 2], {"a": None}], "v:\n- - 1\n  - 2\n- a: null\n"),
    ],
)
def test_spelling(value: object, text: str) -> None:
    assert emit.to_yaml([{"v": value}]) == text


def test_keys_are_ordered_and_sources_become_comments() -> None:
    item = {
        "spec": {},
        "kind": "Service",
        "metadata": {
            "annotations": {"turnout.dev/source": "InferenceGraph default/a\nb"},
            "labels": {"b": "1", "a": "2"},
            "name": "x",
        },
        "apiVersion": "v1",
    }
    text = emit.to_yaml([emit.ordered(item)])
    assert text.splitlines()[0] == "# InferenceGraph default/a b"
    assert [line for line in text.splitlines() if not line.startswith((" ", "#"))] == [
        "apiVersion: v1",
        "kind: Service",
        "metadata:",
        "spec: {}",
    ]
    assert text.index("a:") < text.index("b:")


def test_file_names_do_not_collide() -> None:
    objects = [
        {"kind": "Service", "metadata": {"name": "a", "namespace": "one"}},
        {"kind": "Service", "metadata": {"name": "a", "namespace": "two"}},
        {"kind": "Broker", "metadata": {"name": "a", "namespace": "one"}},
    ]
    assert list(emit.to_files(objects)) == ["a.yaml", "two-a.yaml", "broker-a.yaml"]
