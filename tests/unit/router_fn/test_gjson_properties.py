"""Lookups against independent ways of finding the same, on generated documents and paths."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from router_fn import gjson
from router_fn.body import is_json
from router_fn.conditions import compile_condition
from router_fn.gjson import globs
from router_fn.gjson.shapes import specialise
from router_fn.gjson.validity import is_valid
from router_fn.gjson.values import unescape

KEYS = st.sampled_from(["a", "b", "c", "kind", "0", "1", "caf\xe9", "x y"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["dog", "cat", "1", "true", "a b", "x\ty", '"', "\\", "\U0001f600", ""])
    | st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
TEXTS = st.text(max_size=40) | st.text(alphabet='ab01.|#()[]{}@!"\\*?:,~=<>% $', max_size=30)


@st.composite
def texts_of(draw: st.DrawFn, values: st.SearchStrategy[Any] = VALUES) -> bytes:
    """A JSON text, with escapes or without, compact or spaced."""
    return json.dumps(
        draw(values),
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, None, 1])),
        separators=draw(st.sampled_from([None, (",", ":")])),
    ).encode("utf-8", "surrogatepass")


def _walk(value: Any, steps: list[str]) -> tuple[bool, Any]:
    """The obvious lookup in decoded JSON (keys do not repeat there)."""
    for step in steps:
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return False, None
    return True, value


@given(texts_of(), st.lists(KEYS, min_size=1, max_size=4))
@settings(max_examples=400)
def test_plain_paths_find_what_decoding_finds(text: bytes, steps: list[str]) -> None:
    document = json.loads(text)
    if not isinstance(document, dict | list):
        return
    exists, value = _walk(document, steps)
    path = ".".join(steps)
    found = gjson.find(text, gjson.Path(path.encode()))
    assert (found is not None) is exists
    if found is not None:
        assert json.loads(found[0][found[1] : found[2]]) == value
    assert compile_condition(path).matches(text) is exists


def _holds(value: Any, operator: str, right: str) -> bool:
    """Comparison by the type of the JSON value, on decoded values."""
    if isinstance(value, bool):
        rank = {"true": 1, "false": 0}.get(right)
        if operator == "==":
            return rank is not None and value == bool(rank)
        if operator == "!=":
            return rank is None or value != bool(rank)
        return (operator == ">" and value and rank == 0) or (
            operator == "<" and not value and rank == 1
        )
    left: Any
    other: Any
    if isinstance(value, str):
        left, other = value.encode("utf-8", "replace"), right.encode()
    elif isinstance(value, int | float):
        left = float(value)
        try:
            other = float(right)
        except ValueError:
            other = 0.0
    else:
        return False
    return {"==": left == other, "!=": left != other, ">": left > other, "<": left < other}[
        operator
    ]


RIGHTS = st.sampled_from(["dog", "cat", "1", "0", "1.5", "true", "false", "abc", "a b", "-2"])
OPERATORS = st.sampled_from(["==", "!=", ">", "<"])


@given(texts_of(st.dictionaries(KEYS, VALUES, max_size=4)), KEYS, OPERATORS, RIGHTS)
@settings(max_examples=400)
def test_queries_of_the_document_compare_by_type(
    text: bytes, key: str, operator: str, right: str
) -> None:
    document = json.loads(text)
    expected = key in document and _holds(document[key], operator, right)
    for condition in (
        f"[@this].#({key}{operator}{right})",
        f'[@this].#( {key} {operator} "{right}" )',
        f"[@this].#({key}{operator}{right})#|0",
        f"[@this].#({key}{operator}{right})#|#({key}{operator}{right})",
    ):
        assert compile_condition(condition).matches(text) is expected, condition


@given(
    texts_of(st.fixed_dictionaries({"rows": st.lists(st.dictionaries(KEYS, SCALARS, max_size=3))})),
    KEYS,
    OPERATORS,
    RIGHTS,
)
@settings(max_examples=400)
def test_queries_of_rows_find_any_row(text: bytes, key: str, operator: str, right: str) -> None:
    rows = json.loads(text)["rows"]
    expected = any(key in row and _holds(row[key], operator, right) for row in rows)
    assert compile_condition(f"rows.#({key}{operator}{right})").matches(text) is expected


SHAPED = st.sampled_from(
    [
        *("a", "a.b", "a.0.b", "kind", "0.a", "a.#(b==1)", "a.#(b!=cat)", "a.#(kind%*o*)"),
        *("b.#(a>=1)", "[@this].#(kind==dog)", "[@this].#(a.b>1)", "[@this].#(a)#|#(b!=x)"),
        *("[@this].#(==1)", "[@this].#(a)"),
    ]
)


@st.composite
def repeating_texts(draw: st.DrawFn) -> bytes:
    """Objects whose keys repeat and are spelled with escapes, which no encoder writes."""
    members = draw(st.lists(st.tuples(KEYS | st.just("\\u0061"), texts_of()), max_size=5))
    return b" {" + b",".join(b'"%b" : %b' % (k.encode(), v) for k, v in members) + b"}"


@given(SHAPED, repeating_texts() | texts_of())
@settings(max_examples=600)
def test_the_fast_judges_agree_with_the_general_lookup(condition: str, text: bytes) -> None:
    path = gjson.Path(condition.encode())
    judge = specialise(path)
    assert judge is not None
    verdict = judge(text)
    assert verdict is None or verdict is gjson.exists(text, gjson.Path(condition.encode()))


@given(
    TEXTS,
    st.binary(max_size=60) | texts_of() | TEXTS.map(lambda text: text.encode("utf-8", "replace")),
)
@settings(max_examples=800)
def test_no_path_and_no_text_raise(path: str, text: bytes) -> None:
    if path.startswith("$"):
        path = "x" + path
    compiled = compile_condition(path)
    compiled.matches_valid(text)
    assert not compiled.matches(text) or is_json(text)
    assert (
        compiled.constant is None
        or not is_json(text)
        or compiled.matches(text) is compiled.constant
    )


@given(texts_of())
def test_every_json_text_is_json(text: bytes) -> None:
    assert is_json(text)
    assert is_valid(text)


@given(st.binary(max_size=40) | st.text(alphabet='{}[]",:01.eE-+ntfalsrue\\u \n', max_size=25))
@settings(max_examples=800)
def test_both_validity_checks_agree(text: bytes | str) -> None:
    raw = text.encode() if isinstance(text, str) else text
    assert is_json(raw) is is_valid(raw)
    try:
        json.loads(raw.decode("utf-8", "replace"), parse_constant=lambda _: [][0])
    except (ValueError, IndexError):
        decodes = False
    else:
        decodes = True
    # the standard library refuses the same texts, but takes a byte order mark as text
    assert decodes is is_valid(raw)


@given(st.text(max_size=20))
def test_unescape_undoes_the_encoders_escapes(text: str) -> None:
    assert unescape(json.dumps(text)[1:-1].encode()) == text.encode()


def _naive_glob(text: str, pattern: str) -> bool:
    """By definition: a star is nothing, or one character and the star again."""
    reach = {0}
    for char in pattern:
        if char == "*":
            reach = set(range(min(reach), len(text) + 1)) if reach else set()
        else:
            reach = {at + 1 for at in reach if at < len(text) and char in ("?", text[at])}
    return len(text) in reach


@given(st.text(alphabet="ab\xe9", max_size=12), st.text(alphabet="ab?*", max_size=10))
@settings(max_examples=600)
def test_globs_match_by_definition(text: str, pattern: str) -> None:
    assert globs.compile_glob(pattern.encode())(text.encode()) is _naive_glob(text, pattern)
    assert globs.compile_text_glob(pattern)(text) is _naive_glob(text, pattern)
