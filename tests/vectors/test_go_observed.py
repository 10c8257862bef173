"""Texts and answers observed on the originals: gjson 1.18.0 (with match 1.1.1) and Go 1.27.

The files beside this one were written by running the Go libraries on generated input:
`gjson_observed` Get(document, condition).Exists(); `go_regexp_observed` regexp.Compile and
MatchString (null: does not compile); `go_sniff_observed` http.DetectContentType;
`go_floats_observed` strconv.ParseFloat.
"""

import base64
import json
import math
from pathlib import Path
from typing import Any

import pytest

from router_fn import re2, sniff
from router_fn.conditions import compile_condition
from router_fn.gjson import Path as GjsonPath
from router_fn.gjson import exists
from router_fn.gjson.values import number_of

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared" / "vectors" / "gjson_conditions_public.jsonl"


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def _judge(rows: list[dict[str, Any]]) -> list[str]:
    wrong = []
    for row in rows:
        document = row["document"].encode()
        condition = compile_condition(row["condition"])
        answers = (
            condition.matches(document),
            condition.matches_valid(document),
            exists(document, GjsonPath(row["condition"].encode())),
        )
        if answers != (row["match"],) * 3:
            wrong.append(f"{row['condition']!r} on {row['document']}: {answers}")
    return wrong


def test_conditions_match_as_in_gjson() -> None:
    rows = _rows(HERE / "gjson_observed.jsonl")
    assert len(rows) > 600
    assert sum(row["match"] for row in rows) > 300
    assert _judge(rows) == []


@pytest.mark.skipif(not SHARED.exists(), reason="the shared vectors are not here")
def test_conditions_match_the_shared_vectors() -> None:
    assert _judge(_rows(SHARED)) == []


@pytest.mark.parametrize(
    "row", _rows(HERE / "go_regexp_observed.jsonl"), ids=lambda r: r["pattern"]
)
def test_patterns_match_as_in_go(row: dict[str, Any]) -> None:
    if row["match"] is None:
        with pytest.raises(re2.PatternError):
            re2.compile_search(row["pattern"])
    else:
        assert re2.compile_search(row["pattern"])(row["text"]) is row["match"]


@pytest.mark.parametrize("row", _rows(HERE / "go_sniff_observed.jsonl"), ids=lambda r: r["base64"])
def test_content_is_sniffed_as_in_go(row: dict[str, Any]) -> None:
    assert sniff.detect(base64.b64decode(row["base64"])) == row["type"]


@pytest.mark.parametrize("row", _rows(HERE / "go_floats_observed.jsonl"), ids=lambda r: r["text"])
def test_numbers_read_as_in_go(row: dict[str, Any]) -> None:
    ours, theirs = number_of(row["text"].encode()), float(row["float"])
    assert ours == theirs or (math.isnan(ours) and math.isnan(theirs))
