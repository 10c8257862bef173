"""The short way of judging conditions gives the answers of the long way, always."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_fn import body, conditions, decide
from router_fn.decide import NONE, NOT_JSON, Decider, looks_at

CONDITIONS = [
    "[@this].#(kind==A)",
    '[@this].#(kind=="B")',
    "[@this].#(kind!=A)",
    "[@this].#(kind>1)",
    "[@this].#(kind%A*)",
    "[@this].#(kind!%*)",
    "[@this].#( kind == A )",
    "[@this].#(kind.sub==A)",
    "[@this].#(kind.0>=0.5)",
    "[@this].#(kind==~true)",
    "[@this].#(kind!=~*)",
    "kind",
    "kind.0",
    "kind.sub.A",
    "kind.#",
    "kind|sub",
    "kind.#(a==1)",
    "other",
    "[@this].#(other==1)",
    "[@this].#(kind=)",
    "[@this].#(kind)",
    "[@this].#(kind>0.5)#|#(other<=0.9)",
    "ki*",
    "@this",
    "",
    "kind.#(other==1)#|#(kind==1)",
    "[@this].#(kind==)",
    '[@this].#(kind=="")',
    "kind..",
    "$.kind",
]
BODIES = [
    b"{}",
    b"[]",
    b"null",
    b"1",
    b'"kind"',
    b"",
    b"{",
    b"text",
    b'{"kind":"A"}',
    b'{"kind":"B","other":1}',
    b'{"kind":1}',
    b'{"kind":2.5e0}',
    b'{"kind":true}',
    b'{"kind":null}',
    b'{"kind":{}}',
    b'{"kind":{"sub":"A"}}',
    b'{"kind":["A",0.7]}',
    b'{"kind":[{"a":1}]}',
    b'{"kind":"A","kind":"B"}',
    b'{"kind":{"x":1},"kind":{"sub":"A"}}',
    b'{"k\\u0069nd":"A"}',
    b'{"kind":"\\u0041"}',
    b'{"kind":"a\\nb"}',
    b'{"other":"kind","kind":"A"}',
    b'{"x":{"kind":"A"}}',
    b' { "kind" : "A" } ',
    b'{"kind":"\xff"}',
    b'{"kind":"' + b"x" * 500 + b'"}',
    b'{"kind":' + b"[" * 50 + b"]" * 50 + b"}",
    b'[{"kind":"A"}]',
    b'{"kind":1e400}',
    b'{"KIND":"A"}',
    b'{"kind":"A"}x',
    b'{"kind":NaN}',
]


def long_way(compiled: list[Any], document: bytes) -> int:
    if not body.is_json(document):
        return NOT_JSON
    return next((i for i, one in enumerate(compiled) if one.matches_valid(document)), NONE)


@pytest.mark.parametrize("text", CONDITIONS)
def test_one_condition_on_every_body_twice(text: str) -> None:
    compiled = [conditions.compile_condition(text)]
    decider = Decider(compiled)
    for document in BODIES * 2:  # the second time from memory
        assert decider.first(document) == long_way(compiled, document), document


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(CONDITIONS), min_size=1, max_size=4),
    st.lists(st.sampled_from(BODIES), min_size=1, max_size=8),
)
def test_several_conditions_together(texts: list[str], documents: list[bytes]) -> None:
    compiled = [conditions.compile_condition(text) for text in texts]
    decider = Decider(compiled)
    for document in documents:
        assert decider.first(document) == long_way(compiled, document)


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["sub", "kind", "0"]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["kind", "other", "x"]), _VALUES),
    st.sampled_from(CONDITIONS),
    st.booleans(),
)
def test_random_documents(document: dict[str, Any], text: str, escape: bool) -> None:
    import json

    data = json.dumps(document, ensure_ascii=escape).encode("utf-8", "surrogatepass")
    compiled = [conditions.compile_condition(text)]
    decider = Decider(compiled)
    assert decider.first(data) == decider.first(data) == long_way(compiled, data)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("kind", ("kind", 0)),
        ("[@this].#(kind==A)", ("kind", 1)),
        ("[@this].#(a.b==A)", ("a", 2)),
        ("a.#(b==1)", ("a", 2)),
        ("kind\n", None),
        ("@this", None),
        ("[@this].#(a>0.5)#|#(b<1)", None),
        ("$.a", None),
        ("*", None),
        ("a*", None),
        ("", None),
        ("[@this].#(a==~true)", None),
        ('[@this].#(a=="\\"")', None),
        ("{a,b}", None),
        ("!true", None),
        ("a\\.b", None),
    ],
)
def test_which_conditions_name_their_key_plainly(text: str, wanted: object) -> None:
    assert looks_at(text) == wanted


def test_a_client_cannot_fill_the_memory() -> None:
    decider = Decider([conditions.compile_condition("[@this].#(kind==A)")])
    for number in range(decide.MAX_DECISIONS + 50):
        decider.first(b'{"kind":%d}' % number)
    decider.first(b'{"kind":"%b"}' % (b"x" * 10_000))
    assert len(decider._decisions) <= decide.MAX_DECISIONS
    assert max(map(len, decider._decisions)) <= decide.MAX_VALUE_BYTES


def test_without_the_accelerator_the_long_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "msgspec", None)
    decider = Decider([conditions.compile_condition("kind")])
    assert (decider.first(b'{"kind":1}'), decider.first(b"{}"), decider.first(b"x")) == (
        0,
        NONE,
        NOT_JSON,
    )
