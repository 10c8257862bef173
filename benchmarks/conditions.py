"""Conditions and JSON validity on bodies of about 1 KB, against decoding the body and looking.

In one process, alternating, best of the rounds: the ratio is how many times faster ours is.
"""

import json
import random
import timeit
from collections.abc import Callable
from typing import Any

from benchmarks.harness import Options, Row
from router_fn import body
from router_fn.conditions import compile_condition

TITLE = "Conditions, against json.loads and a lookup"
NOTES = (
    "The `jsonpath-ng` row: the same question as a JSONPath filter, parsed beforehand, on what"
    " json.loads makes. A ratio of 2 means: ours takes half the time."
)

_RANDOM = random.Random(1)
SCORES = [_RANDOM.random() for _ in range(40)]
LABEL_FIRST = json.dumps({"predictions": ["dog"], "id": "abc", "scores": SCORES}).encode()
KEY_LAST = json.dumps(
    {"instances": [SCORES[:4] for _ in range(14)], "decision_picker": "ERROR"}
).encode()
IMAGE = json.dumps({"instances": [{"image": {"b64": "QUJD" * 230}}]}).encode()
ROWS = json.dumps(
    {
        "instances": [
            {"modelId": str(i), "intval": i, "strval": f"blue-server-{i}", "ok": True}
            for i in range(16)
        ]
    }
).encode()


def _first(document: Any, key: str, test: Callable[[Any], bool]) -> bool:
    return any(isinstance(row, dict) and key in row and test(row[key]) for row in document)


Question = Callable[[Any], bool]

CASES: list[tuple[str, str, bytes, Question, float]] = [
    ("a key that is there", "predictions", LABEL_FIRST, lambda d: "predictions" in d, 5),
    ("a deep path", "instances.5.ok", ROWS, lambda d: "ok" in d["instances"][5], 0.5),
    (
        "the tutorials' query",
        '[@this].#(predictions.0=="dog")',
        LABEL_FIRST,
        lambda d: bool(d["predictions"][0] == "dog"),
        3,
    ),
    (
        "a query of the last key",
        "[@this].#(decision_picker==ERROR)",
        KEY_LAST,
        lambda d: bool(d["decision_picker"] == "ERROR"),
        2,
    ),
    (
        "a query of a key that is not there",
        "[@this].#(source==client)",
        IMAGE,
        lambda d: d.get("source") == "client",
        1.5,
    ),
    (
        "a row among 16, none fits",
        'instances.#(modelId=="99")',
        ROWS,
        lambda d: _first(d["instances"], "modelId", lambda v: bool(v == "99")),
        1,
    ),
    (
        "a glob over 16 rows",
        "instances.#(strval%*red-server*)",
        ROWS,
        lambda d: _first(d["instances"], "strval", lambda v: "red-server" in v),
        0.7,
    ),
    (
        "two queries, both hold",
        "[@this].#(id==abc)#|#(predictions.0==dog)",
        LABEL_FIRST,
        lambda d: bool(d["id"] == "abc" and d["predictions"][0] == "dog"),
        1.2,
    ),
]


def _duel(
    ours: Callable[[], object], peer: Callable[[], object], rounds: int
) -> tuple[float, float]:
    """Microseconds of one call each: the best of alternating rounds."""
    count = 2000 if timeit.timeit(peer, number=1) < 1e-3 else 10
    best = [float("inf"), float("inf")]
    for _ in range(max(3, 2 * rounds)):
        for index, call in enumerate((ours, peer)):
            best[index] = min(best[index], timeit.timeit(call, number=count) / count * 1e6)
    return best[0], best[1]


def _row(
    name: str, ours: Callable[[], object], peer: Callable[[], object], options: Options,
    *, against: str, floor: float,
) -> Row:  # fmt: skip
    mine, theirs = _duel(ours, peer, options.rounds)
    return Row(
        name=name,
        ours=mine,
        unit="us",
        peer=against,
        peers=theirs,
        ratio=theirs / mine,
        floor=floor,
    )


def run(options: Options) -> list[Row]:
    body.preload()
    rows: list[Row] = []
    for name, text, document, question, floor in CASES:
        condition = compile_condition(text)
        if not options.wants(name):
            continue
        expected = question(json.loads(document))
        assert condition.matches_valid(document) == expected, text
        rows.append(
            _row(
                f"{name}: `{text}`, {len(document)} bytes",
                lambda c=condition, d=document: c.matches_valid(d),  # type: ignore[misc]
                lambda q=question, d=document: q(json.loads(d)),  # type: ignore[misc]
                options,
                against="json.loads and a lookup",
                floor=floor,
            )
        )
    rows += _jsonpath_rows(options) + _validity_rows(options)
    return rows


def _jsonpath_rows(options: Options) -> list[Row]:
    from jsonpath_ng.ext import parse

    find = parse("$.instances[?(@.modelId == '99')]").find
    condition = compile_condition('instances.#(modelId=="99")')
    name = "a row among 16, against jsonpath-ng"
    if not options.wants(name):
        return []
    return [
        _row(
            name,
            lambda: condition.matches_valid(ROWS),
            lambda: find(json.loads(ROWS)),
            options,
            against="jsonpath-ng",
            floor=8,
        )
    ]


def _validity_rows(options: Options) -> list[Row]:
    rows = []
    for name, text in (
        ("1 KB of rows", ROWS),
        ("1 KB of base64", IMAGE),
        ("1 MB of numbers", b'{"i":[' + b"0.12345678, " * 87_000 + b"1]}"),
    ):
        label = f"is it JSON? {name}"
        if options.wants(label):
            rows.append(
                _row(
                    label,
                    lambda t=text: body.is_json(t),  # type: ignore[misc]
                    lambda t=text: json.loads(t),  # type: ignore[misc]
                    Options(rounds=1) if len(text) > 100_000 else options,
                    against="json.loads",
                    floor=3,
                )
            )
    return rows
