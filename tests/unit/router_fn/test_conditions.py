"""What conditions mean; the tables of tests/vectors say the rest."""

import subprocess
import sys
import time

import pytest

from router_fn import conditions
from router_fn.conditions import ConditionError, compile_condition
from router_fn.gjson.modifiers import FUNCTIONS

DOCUMENT = (
    b'{"a":{"b":1},"list":[10,"x",null,{"k":[]}],"n":null,"s":"dog","z":0,'
    b'"rows":[{"k":"a","v":1},{"k":"b","v":2.5},{"v":"9"}],"a.b":1,"":5}'
)


@pytest.mark.parametrize(
    ("condition", "match"),
    [
        # a path exists whatever its value is
        ("a.b", True),
        ("n", True),
        ("z", True),
        ("", True),
        ("a.c", False),
        ("list.3.k", True),
        ("list.4", False),
        ("list.00", True),
        ("list.x", False),
        (r"a\.b", True),
        ("l*t.1", True),
        ("?", True),
        # queries of the document itself need the multipath around it
        ('[@this].#(s=="dog")', True),
        ("[@this].#(s==dog)", True),
        ("[@this].#(s=='dog')", False),
        ("@this.#(s==dog)", False),
        ("[@this].#(z==abc)", True),  # an unreadable number counts as 0
        ("[@this].#(n==null)", False),
        ("[@this].#(missing!=x)", False),
        ("[@this].#(missing!=~*)", True),
        ("[@this].#(n==~null)", True),
        ("[@this].#(z==~false)", True),
        ("[@this].#(s%d?g)", True),
        ("[@this].#(s!%c*)", True),
        ("[@this].#(z>=0)#|#(s>cat)", True),
        ("[@this].#(z>=0)#|#(s>dot)", False),
        ("[@this].#(z>0)#", True),  # all matches: an array, even an empty one
        # queries of rows
        ('rows.#(k=="b")', True),
        ('rows.#(k=="c")', False),
        ("rows.#(v>2)", True),
        ('rows.#(v=="9")', True),
        ('rows.#(k=="a").v', True),
        ('rows.#(k=="a").w', False),
        ("rows.#", True),
        ("rows.#.w", True),
        ("rows.#.w.0", True),  # the path goes on inside each row
        ("rows.#.w|0", False),  # the bar goes on behind the whole
        ("list.#(==x)", True),
        # the rest of the grammar
        ("{s,z}", True),
        ("!true", True),
        ("a|@keys|0", True),
        ("a|@keys|1", False),
        ("rows.@reverse.0.k", False),
        ("list.@flatten.#", True),
        ("..0.a", True),
        ("s == dog", False),
    ],
)
def test_the_grammar(condition: str, match: bool) -> None:
    assert compile_condition(condition).matches(DOCUMENT) is match


def test_a_repeated_key_falls_through() -> None:
    document = b'{"o":{"k":1},"o":{"j":1},"a":1,"a":2}'
    assert compile_condition("o.j").matches(document)
    assert compile_condition("[@this].#(a==1)").matches(document)
    assert not compile_condition("[@this].#(a==2)").matches(document)


def test_a_key_spelled_with_escapes_is_the_same_key() -> None:
    assert compile_condition("caf\xe9").matches(b'{"caf\\u00e9":1}')
    assert compile_condition('[@this].#(caf\xe9=="x")').matches(b'{"caf\\u00e9":"\\u0078"}')


@pytest.mark.parametrize(
    "body", [b"", b"text", b'{"s":"dog"', b"{'s':'dog'}", b'{"s":NaN}', b"\xff"]
)
def test_what_is_not_json_matches_nothing(body: bytes) -> None:
    for text in ("s", "@this", "!true", "[@this]", '[@this].#(s=="dog")', "$", "$.s"):
        assert not compile_condition(text).matches(body)


@pytest.mark.parametrize(
    ("condition", "constant", "word"),
    [
        ("@this", True, "every document"),
        ("[@this].#(a>1)#", True, "empty"),
        ("{ .predictions[0].class == 'dog' }", True, "multipath"),
        ("!null", True, "literal"),
        ("!False", False, "literal"),
        ("[@this].kind", False, "asks an array for a key"),
        ("[@this].1", False, "at most 1"),
        ("[@this].#(a==~maybe)", False, "~maybe"),
        ("$", True, "document itself"),
        ('target == "blue"', None, "only inside"),
        ("[@this].#(a>0.5 && a<1)", None, "&&"),
        ("[@this].#(a=='x')", None, "single quotes"),
        ("[@this].#(a==1", None, "never closed"),
        ("", None, "empty"),
        ('[@this].#(predictions.0=="dog")', None, ""),
        ("instances.#(strval%*red-server*)", None, ""),
        ("@keys.0", None, ""),
        ('[@this].#(t=="a && b")#|#(u>1)', None, "&&"),
    ],
)
def test_odd_conditions_are_pointed_out(condition: str, constant: bool | None, word: str) -> None:
    compiled = compile_condition(condition)
    assert compiled.constant is constant
    assert word in compiled.reason
    assert bool(compiled.reason) is bool(word)


@pytest.mark.parametrize(
    "document", [b"{}", b"[]", b"null", b"1", b'"x"', b'{"a":[1]}', b'[{"a":2}]']
)
@pytest.mark.parametrize(
    "condition",
    [
        "@this",
        "@keys",
        "@values",
        "@flatten",
        "@join",
        "@dig",
        "@tostr",
        "[@this].#",
        "[a,b].#.x",
        "{}",
        "[@this].0",
        "[@this].k",
        "[@this].2.x",
        "!1.x",
        "![1].0",
        "[@this].#(a>1)#|#(b)#",
        "[a].##",
    ],
)
def test_constant_verdicts_are_true_of_every_document(condition: str, document: bytes) -> None:
    compiled = compile_condition(condition)
    assert compiled.constant is not None
    assert compiled.matches(document) is compiled.constant


# --- JSONPath ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "match"),
    [
        ("$.s", True),
        ("$.nothing", False),
        ("$.rows[?(@.v > 2)]", True),
        ("$.rows[?(@.v > 99)]", False),
        ("$.rows[?(@.k == 'b')].v", True),
        ("$..k", True),
    ],
)
def test_a_dollar_makes_it_a_jsonpath(condition: str, match: bool) -> None:
    assert compile_condition(condition).matches(DOCUMENT) is match


@pytest.mark.parametrize(
    ("condition", "document", "match"),
    [
        ('$.rows[?(@.k =~ "^do")]', '{"rows": [{"k": "dog"}]}', True),
        ('$.rows[?(@.k =~ "^do")]', '{"rows": [{"k": "undo"}]}', False),
        ('$.rows[?(@.k =~ "a")]', '{"rows": [{"k": 5}]}', False),
        ('$.rows[?(@.k =~ "a")]', '{"rows": [{"k": "\u0161"}]}', False),  # its low byte is an a
        ('$.rows[?(@.k =~ "^..$" && @.v > 1)]', '{"rows": [{"k": "\u0161\u0161", "v": 2}]}', True),
        ('$..[?(@.k =~ "x" || @.k == 5)]', '{"rows": [{"k": 5}]}', True),
        # With a backtracking matcher this one would outlive the test by far.
        ('$.rows[?(@.k =~ "(a+)+$")]', '{"rows": [{"k": "%s!"}]}' % ("a" * 5000), False),
    ],
)
def test_regular_expressions_in_a_jsonpath_take_linear_time(
    condition: str, document: str, match: bool
) -> None:
    assert compile_condition(condition).matches(document.encode()) is match


@pytest.mark.parametrize("condition", ['$.a[?(@.b =~ "(?=x)")]', "$.a.`sub(/(a+)+$/, b)`"])
def test_a_regular_expression_that_could_take_endless_time_is_refused(condition: str) -> None:
    with pytest.raises(ConditionError):
        compile_condition(condition)


def test_a_jsonpath_that_cannot_be_parsed_is_an_error_that_shows_it() -> None:
    with pytest.raises(ConditionError, match=r"\$\.\[ is not a JSONPath|'\$\.\[' is not"):
        compile_condition("$.[")


def test_a_jsonpath_on_a_document_too_deep_to_decode_does_not_match() -> None:
    assert not compile_condition("$.a").matches_valid(b"[" * 5000 + b"]" * 5000)


def test_jsonpath_ng_is_loaded_for_jsonpaths_only() -> None:
    code = (
        "import sys; from router_fn.conditions import compile_condition as c;"
        "c('a.b').matches(b'{}'); c('[@this].#(a==1)').matches(b'{}');"
        "assert 'jsonpath_ng' not in sys.modules; c('$.a'); assert 'jsonpath_ng' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- hostile input -------------------------------------------------------------------------------

DEEP = 8_000
HOSTILE_DOCUMENTS = {
    "deep arrays": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "unclosed": b'{"a":' * DEEP,
    "one long string": b'{"s":"' + b"a" * 100_000 + b'"}',
    "backslashes": b'{"s":"' + b"\\\\" * 50_000 + b'"}',
    "open string": b'{"s":"' + b"a" * 100_000,
    "many keys": b"{" + b",".join(b'"k%d":%d' % (i, i) for i in range(8_000)) + b"}",
    "one key again and again": b"{" + b",".join(b'"a":{"b":1}' for _ in range(8_000)) + b"}",
    "long number": b'{"a":' + b"1" * 100_000 + b"}",
    "quotes only": b'"' * 100_000,
    "brackets only": b"}]" * 40_000,
}
HOSTILE_CONDITIONS = [
    "a.b.c",
    ".".join(["a"] * 3000),
    ".".join(["0"] * 3000),
    "a" * 100_000,
    "|".join(["@this"] * 2000),
    "|".join(["[@this,@this]"] * 60),
    "@tostr|" * 60 + "@this",
    ".".join(["#"] * 1000),
    "#(" * 1000 + "a" + ")" * 1000,
    "#(" * 5000,
    "[" * 5000,
    "{" * 5000 + "}" * 5000,
    "[@this].#(s%" + "*a" * 200 + "*b)",
    "[@this].#(s%" + "?*" * 200 + ")",
    "*" * 5000,
    "[@this].#(a>1)#" + "|#(a>1)#" * 500,
    "@dig:a",
    "@dig:zz|0",
    '@flatten:{"deep":true}',
    "s.@fromstr.@fromstr",
    '@pretty:{"sortKeys":true}',
    '@pretty:{"width":1000000}',
    "!" + "[" * 50_000,
    "\\" * 10_000,
    'a.#(b=="' + "x" * 50_000,
]


@pytest.mark.parametrize("document", HOSTILE_DOCUMENTS.values(), ids=HOSTILE_DOCUMENTS)
def test_hostile_input_neither_raises_nor_takes_long(document: bytes) -> None:
    for text in HOSTILE_CONDITIONS:
        compiled = compile_condition(text)
        began = time.thread_time()
        compiled.matches_valid(document)
        compiled.matches(document)
        # half a megabyte at most; the slowest takes about a second on an idle machine
        assert time.thread_time() - began < 12, text[:60]


@pytest.mark.parametrize(
    "text", ["a.b.c", "0.0.0.0", "#.#.x", "[@this].#(a>1)", "#(a==1)", "@keys"]
)
def test_a_hundred_thousand_levels_are_no_problem(text: str) -> None:
    compiled = compile_condition(text)
    for document in (b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000):
        compiled.matches_valid(document)
        assert not compiled.matches(document)


def test_time_grows_linearly_with_the_document() -> None:
    conditions_and_units = [
        ("[@this].#(s%" + "*a" * 12 + "*b)", lambda n: b'{"s":"' + b"a" * n + b'"}'),
        ("x.y", lambda n: b'{"x":' + b"[" * (n // 2) + b"]" * (n // 2) + b"}"),
        ("#(x.#(y.#(z==1)))", lambda n: b"[" + b'{"x":[{"y":[{"z":2}]}]},' * (n // 23) + b"1]"),
        ("@dig:x|9", lambda n: b"[" + b'{"a":1},' * (n // 8) + b"1]"),
    ]
    for text, make in conditions_and_units:
        compiled = compile_condition(text)
        times = []
        for size in (40_000, 320_000):
            document = make(size)
            times.append(min(_timed(compiled, document) for _ in range(3)))
        assert times[1] < 8 * 4 * times[0] + 0.05, (text, times)  # 64 would be quadratic


def _timed(compiled: conditions.Condition, document: bytes) -> float:
    began = time.process_time()
    compiled.matches_valid(document)
    return time.process_time() - began


def test_a_path_with_too_many_steps_is_refused_at_boot() -> None:
    compiled = compile_condition("a." * 100_000)
    assert compiled.constant is False
    assert compiled.reason
    assert not compiled.matches(b'{"a":1}')


@pytest.mark.parametrize(
    ("document", "want"),
    [
        (b'{"b":[1,2],"a":{}}', b'{\n  "a": {},\n  "b": [1, 2]\n}\n'),
        (b"[" * 99 + b" 1 " + b"]" * 99, None),
        (b"[" * 100 + b" 1 " + b"]" * 100, None),
        (b"[" * 101 + b" 1 " + b"]" * 101, b"[" * 101 + b"1" + b"]" * 101),
    ],
    ids=["sorted", "99", "100", "101"],
)
def test_what_is_nested_too_deeply_is_stripped_only(document: bytes, want: bytes | None) -> None:
    found = FUNCTIONS[b"pretty"](document, b'{"sortKeys":true}')
    if want is None:
        assert found.count(b"\n") > 60
        assert b"".join(found.split()) == b"".join(document.split())
    else:
        assert found == want
