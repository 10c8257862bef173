"""Filter dialects and CESQL on rows of our own; the CloudEvents test kit is in tests/vectors."""

from typing import Any

import pytest

from events import event as events
from events import filters
from events.filters import cesql

EVENT = events.make(
    id="1", source="aws:s3.us-east-1.mnist", type="com.amazonaws.s3.ObjectCreated:Put",
    subject="inbox/a.jpg", ttl=20, ext="x", flag=True,
)  # fmt: skip
PASS: dict[str, Any] = {"exact": {"id": "1"}}
FAIL: dict[str, Any] = {"exact": {"id": "2"}}
NONE: dict[str, Any] = {"exact": {}}


@pytest.mark.parametrize(
    ("spec", "passes"),
    [
        ({}, True),
        ({"filters": []}, True),
        ({"filters": [PASS]}, True),
        ({"filters": [PASS, FAIL]}, False),
        ({"filters": [NONE]}, True),
        ({"filters": [{"exact": {"id": "1", "ext": "x"}}]}, True),
        ({"filters": [{"exact": {"id": "1", "ext": "y"}}]}, False),
        ({"filters": [{"prefix": {"type": "com.amazonaws.s3.ObjectCreated:"}}]}, True),
        ({"filters": [{"suffix": {"source": ".mnist"}}]}, True),
        ({"filters": [{"prefix": {"subject": "inbox/"}}, {"suffix": {"subject": ".png"}}]}, False),
        ({"filters": [{"any": [PASS, FAIL]}]}, True),
        ({"filters": [{"any": [FAIL, FAIL]}]}, False),
        ({"filters": [{"any": []}]}, True),
        ({"filters": [{"all": [PASS, FAIL]}]}, False),
        ({"filters": [{"all": [PASS, PASS]}]}, True),
        ({"filters": [{"all": []}]}, True),
        ({"filters": [{"not": PASS}]}, False),
        ({"filters": [{"not": FAIL}]}, True),
        ({"filters": [{"not": {"any": []}}]}, True),
        ({"filters": [{"not": {"not": PASS}}]}, True),
        ({"filters": [{"all": [{"any": [FAIL, PASS]}, {"not": FAIL}]}]}, True),
        ({"filters": [{"exact": {"missing": "x"}}]}, False),
        ({"filters": [{"prefix": {"missing": ""}}]}, False),
        ({"filters": [{"suffix": {"missing": "x"}}]}, False),
        ({"filters": [{"not": {"exact": {"missing": "x"}}}]}, True),
        ({"filters": [{"exact": {"ttl": "20"}}]}, True),
        ({"filters": [{"exact": {"flag": "true"}}]}, True),
        ({"filters": [{"cesql": "ttl < 30"}]}, True),
        ({"filters": [{"cesql": "ttl > 30"}]}, False),
        ({"filters": [{"cesql": "missing < 30"}]}, False),
        ({"filters": [{"not": {"cesql": "missing < 30"}}]}, True),
        ({"filters": [{"cesql": ""}]}, True),
        ({"filters": [{"cesql": "1 / 0 = 0"}]}, False),
        ({"filter": {"attributes": {"ext": "x"}}}, True),
        ({"filter": {"attributes": {"ext": ""}}}, True),
        ({"filter": {"attributes": {"missing": ""}}}, False),
        ({"filter": {"attributes": {"ext": "y"}}}, False),
        ({"filter": {"attributes": {"ext": "y"}}, "filters": [PASS]}, True),
        ({"filter": {"attributes": {"ext": "y"}}, "filters": []}, False),
    ],
)
def test_truth(spec: dict[str, Any], passes: bool) -> None:
    assert filters.check(spec) == []
    assert filters.match(spec, EVENT) is passes


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"filters": {}}, "filters"),
        ({"filters": [1]}, "filters[0]"),
        ({"filters": [{"exact": {"a": "b"}, "suffix": {"a": "b"}}]}, "filters[0]"),
        ({"filters": [{"equals": {"a": "b"}}]}, "filters[0].equals"),
        ({"filters": [{"exact": {"Type": "b"}}]}, "filters[0].exact.Type"),
        ({"filters": [{"exact": {"my-type": "b"}}]}, "filters[0].exact.my-type"),
        ({"filters": [{"exact": {"a_b": "b"}}]}, "filters[0].exact.a_b"),
        ({"filters": [{"exact": {"ttl": 20}}]}, "filters[0].exact.ttl"),
        ({"filters": [{"all": {"exact": {}}}]}, "filters[0].all"),
        ({"filters": [{"not": []}]}, "filters[0].not"),
        ({"filters": [{"any": [{"all": [{"cesql": "a ="}]}]}]}, "filters[0].any[0].all[0].cesql"),
        ({"filters": [{"cesql": 5}]}, "filters[0].cesql"),
        ({"filter": []}, "filter"),
        ({"filter": {"types": {}}}, "filter.types"),
    ],
)
def test_problems_name_their_place(spec: dict[str, Any], path: str) -> None:
    assert [found for found, _ in filters.check(spec)] == [path]


def test_endless_nesting_is_refused() -> None:
    spec: Any = PASS
    for _ in range(100):
        spec = {"not": spec}
    assert filters.check({"filters": [spec]})


@pytest.mark.parametrize(
    ("expression", "value", "error"),
    [
        ("2 + 3 * 4 = 14", True, None),
        ("NOT FALSE AND TRUE", True, None),
        ("a = 1 OR TRUE", False, "missingAttribute"),
        ("TRUE OR a = 1", True, None),
        ("FALSE AND a", False, None),
        ("7 / -2", -3, None),
        ("-7 % 3", -1, None),
        ("2147483647 + 1", 0, "math"),
        ("-2147483648", -2147483648, None),
        ("'it''s'", None, "parse"),
        ("'it\\'s' = \"it's\"", True, None),
        ("subject LIKE 'inbox/%.jpg'", True, None),
        ("subject NOT LIKE '%.png'", True, None),
        ("subject LIKE '%%%%%%%%%%%%%%%%%%%%%%x'", False, None),
        ("ttl IN (10, '20')", True, None),
        ("EXISTS SUBJECT", True, None),
        ("EXISTS missing", False, None),
        ("length(subject)", 11, None),
        ("nosuch(1)", False, "missingFunction"),
        ("LEFT('abc')", False, "missingFunction"),
        ("IS_INT('5') AND NOT IS_INT('x')", True, None),
        ("IS_BOOL('true')", True, None),
        ("TRUE XOR FALSE XOR TRUE", False, None),
        ("'a' < 1", False, "cast"),
        ("SUBSTRING('abc', 2, -1)", "", "functionEvaluation"),
        ("", None, "parse"),
        ("(1", None, "parse"),
        ("1 2", None, "parse"),
        ("x LIKE y", None, "parse"),
        ("IN (1)", None, "parse"),
        ("EXISTS 'x'", None, "parse"),
        ("3000000000", None, "parse"),
        ("a_b = 1", None, "parse"),
        ("'open", None, "parse"),
        ("a ; b", None, "parse"),
        ("(" * 5000, None, "parse"),
        ("1" + "+1" * 20000, None, "parse"),
    ],
)
def test_cesql(expression: str, value: Any, error: str | None) -> None:
    try:
        found = cesql.evaluate(cesql.parse(expression), EVENT.attributes)
    except cesql.ParseError:
        found = (None, "parse")  # type: ignore[assignment]
    assert found == (value, error)


@pytest.mark.parametrize(
    ("part", "joint", "value"),
    [
        ("1", " + ", 190),
        ("FALSE", " OR ", False),
        ("TRUE", " AND ", True),
        ("FALSE", " XOR ", False),
    ],
)
def test_long_chains_evaluate_and_longer_ones_are_refused(
    part: str, joint: str, value: Any
) -> None:
    assert cesql.evaluate(cesql.parse(joint.join([part] * 190)), {}) == (value, None)
    with pytest.raises(cesql.ParseError, match="more than"):
        cesql.parse(joint.join([part] * 300))


def test_piled_up_signs() -> None:
    assert cesql.evaluate(cesql.parse("NOT " * 300 + "TRUE"), {}) == (True, None)
