"""Which headers are passed on. What Go's expressions match is in tests/vectors."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_fn import re2
from router_fn.header_patterns import MAX_REMEMBERED, compile_patterns

HEADERS = [
    (b"authorization", b"Bearer T"),
    (b"X-Request-ID", b"rid"),
    (b"x-custom-one", b"1"),
    (b"X-Custom-One", b"2"),
    (b"Test-Header-1", b"a"),
    (b"content-type", b"text/plain"),
]


def _names(patterns: str | list[str] | None, **options: bool) -> list[str]:
    return [name.decode() for name, _ in compile_patterns(patterns, **options).select(HEADERS)]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (None, []),
        ("", []),
        (",", []),
        ([], []),
        ("Authorization", ["authorization"]),
        ("authorization", []),  # names are canonical, patterns are case-sensitive
        ("(?i)x-custom", ["x-custom-one", "X-Custom-One"]),
        ("X-Request-Id", ["X-Request-ID"]),
        ("X-C", ["x-custom-one", "X-Custom-One"]),  # anywhere in the name
        ("^Custom", []),
        ("Test-Header-*,Auth*", ["authorization", "Test-Header-1"]),
        ("Test-Header-[0-9,Auth*", ["authorization"]),  # a bad pattern spoils no other
        ("X-B,,Content-Type", ["content-type"]),  # an empty one forwards nothing
        ("Authorization, X-Request-Id", ["authorization"]),  # blanks belong to the pattern
        (
            ["Authorization", "^X-.*$"],
            ["authorization", "X-Request-ID", "x-custom-one", "X-Custom-One"],
        ),
        (r"^[[:upper:]]\pL+-[[:alpha:]]+\z", ["content-type"]),
        (".", [name.decode() for name, _ in HEADERS]),
    ],
)
def test_selection(patterns: str | list[str] | None, names: list[str]) -> None:
    assert _names(patterns) == names


def test_case_can_be_ignored_when_asked() -> None:
    assert _names("authorization,x-CUSTOM-one", ignore_case=True) == [
        "authorization",
        "x-custom-one",
        "X-Custom-One",
    ]


def test_fields_keep_their_names_values_and_order() -> None:
    plan = compile_patterns("X-Custom")
    assert plan.select(HEADERS) == [(b"x-custom-one", b"1"), (b"X-Custom-One", b"2")]
    assert plan.select(HEADERS) == [(b"x-custom-one", b"1"), (b"X-Custom-One", b"2")]


@pytest.mark.parametrize(
    "pattern",
    [
        *("X-(?=A)", "X-(?!A)", "(?<=X)A", r"(X)\1", "X*+", "X++", "(?>X)", "(?(1)a|b)"),
        *("*Trace-Id*", r"\Z", r"\C", "[0-9", "(X", "X)", "x{1001}", "(x{500}){3}"),
        *(r"\p{Nope}", "(?#c)X", "x\\"),
    ],
)
def test_what_go_refuses_is_reported_and_skipped(pattern: str) -> None:
    plan = compile_patterns(["X-Request-Id", pattern])
    assert len(plan.problems) == 1
    assert repr(pattern) in plan.problems[0]
    assert plan.select(HEADERS) == [(b"X-Request-ID", b"rid")]


def test_a_client_that_invents_names_does_not_fill_the_memory() -> None:
    plan = compile_patterns("X-")
    for number in range(MAX_REMEMBERED * 3):
        assert plan.matches(b"x-%d" % number)
    assert len(plan._verdicts) <= MAX_REMEMBERED


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a*)*b",
        "(a|aa)+$",
        "(.*)(.*)(.*)(.*)(.*)x$",
        "(?:a?){400}a{400}",
        "[ab]*a[ab]{200}$",
        "(x+x+)+y",
    ],
)
def test_no_pattern_backtracks(pattern: str) -> None:
    search = re2.compile_search(pattern)
    began = time.perf_counter()
    for text in ("a" * 3000 + "!", "x" * 3000, "ab" * 1500):
        search(text)
    assert time.perf_counter() - began < 10


@given(st.text(alphabet="ab[](){}|*+?^$.\\-,:<>!=#PpdwsQEiU019", max_size=25), st.text(max_size=10))
@settings(max_examples=800)
def test_any_pattern_compiles_or_is_refused(pattern: str, text: str) -> None:
    plan = compile_patterns([pattern])
    assert len(plan.problems) + bool(plan) == bool(pattern)
    plan.select([(text.encode(), b"")])


def test_deep_nesting_is_refused_not_crashed_on() -> None:
    for pattern in ("(" * 5000 + ")" * 5000, "(?:" * 5000, "[" * 5000, "x{0,1000}" * 100):
        with pytest.raises(re2.PatternError):
            re2.compile_search(pattern)
