"""The same requests to seldon-core's own wrapper and to ours: every user class, payload and path.

Answers are equal but for the words of errors; where they are not, one of the reasons below holds.
`make peers` installs seldon-core 1.17.1 (Apache-2.0) in an environment of its own.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.test_functions_seldon import CLASSES, FULL, ND, TENSOR, without_text
from tests.fakes_router import ROOT
from tests.fakes_seldon import ENVIRON, wrappers

PEER = ROOT / ".venvs" / "seldon-core"

pytestmark = pytest.mark.skipif(
    not (PEER / ".installed").exists(), reason="seldon-core is not here: make peers"
)

WRAPPER = """
import importlib.util, json, logging, sys
logging.disable(logging.CRITICAL)
from seldon_core import wrapper
from seldon_core.metrics import SeldonMetrics
spec = importlib.util.spec_from_file_location("classes", sys.argv[1])
classes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(classes)
clients = {}
for line in sys.stdin:
    name, path, method, body = json.loads(line)
    if name not in clients:
        app = wrapper.get_rest_microservice(getattr(classes, name)(), SeldonMetrics())
        clients[name] = app.test_client()
    answer = clients[name].open(path, method=method, data=body, content_type="application/json")
    text = answer.get_data(as_text=True)
    try:
        text = json.loads(text)
    except ValueError:
        pass
    print(json.dumps([answer.status_code, text]), flush=True)
"""

MESSAGES: list[Any] = [
    ND, TENSOR, FULL,
    {"strData": "hi"}, {"strData": ""}, {"binData": "AAE="},
    {"jsonData": {"q": 1}}, {"jsonData": [1, 2]}, {"jsonData": "s"}, {"jsonData": 3},
    {"jsonData": None}, {"jsonData": [["a", 1]]},
    {"data": {"ndarray": [1, 2, 3]}}, {"data": {"ndarray": [["a", 1], ["b", 2]]}},
    {"data": {"ndarray": [[[1, 2], [3, 4]]]}}, {"data": {"ndarray": []}}, {"data": {}},
    {"data": {"ndarray": [[None, 1]]}}, {"data": {"ndarray": [{"a": 1}]}},
    {"data": {"ndarray": [[1, 2], [3]]}}, {"data": {"ndarray": 5}}, {"data": "x"}, {"data": None},
    {"data": {"tensor": {"shape": [3], "values": [1]}}}, {"data": {"tensor": {}}},
    {"data": {"tensor": {"shape": [0], "values": []}}},
    {"data": {"tensor": {"shape": [-1, 2], "values": [1, 2, 3, 4]}}},
    {"data": {"tftensor": {"dtype": "DT_FLOAT", "floatVal": [1]}}},
    {"strData": "a", "jsonData": {"b": 1}}, {"binData": "AAE=", "strData": "z"},
    {"binData": "*"}, {"strData": 1}, {"meta": 3, "strData": "x"},
    {"meta": {"tags": 3}, "strData": "x"},
    {}, {"foo": 1}, [1], 3, None,
]  # fmt: skip
LISTS: list[Any] = [
    [TENSOR, TENSOR], {"seldonMessages": [ND, ND]}, [ND, TENSOR], [FULL, FULL], [ND], [],
    {"x": 1}, [TENSOR, {}], [TENSOR, 3], {"seldonMessages": 3}, [{"strData": "a"}, ND], None,
]  # fmt: skip
FEEDBACK: list[Any] = [
    {"request": ND, "reward": 0.5, "response": {"meta": {"routing": {"clf": 1}}}, "truth": TENSOR},
    {"reward": 1}, {}, {"request": FULL, "response": FULL}, {"request": {"strData": "x"}},
    {"request": None, "reward": None}, {"foo": 1}, {"reward": "x"}, {"request": 3}, [1], 3, None,
]  # fmt: skip
NAMES = (
    *("Ident", "TwoCol", "OneD", "Named", "Str", "Byt", "Dct", "StrArr", "NoneRet", "Boom", "Raw"),
    *("Router", "BadRouter", "NpRouter", "Comb", "TI", "Empty", "Fb", "TO", "FbNone", "Ill", "Fit"),
    *("FitRaw", "Described", "Misdescribed", "BadMetric", "RouterRaw", "CombRaw", "Chooses"),
)
READS = ("/health/ping", "/health/status", "/metadata", "/api/v1.0/metadata", "/nope", "/predict")

Case = tuple[str, str, str, Any]


def cases() -> Iterator[Case]:
    for name in NAMES:
        for path in ("/api/v1.0/predictions", "/transform-input", "/transform-output", "/route"):
            yield from ((name, path, "POST", message) for message in MESSAGES)
        yield from ((name, "/aggregate", "POST", messages) for messages in LISTS)
        yield from ((name, "/api/v0.1/feedback", "POST", feedback) for feedback in FEEDBACK)
        yield from ((name, path, "GET", None) for path in READS)


def reason(case: Case, theirs: int, ours: int) -> str:
    """Why the statuses of a case may differ; empty: they may not."""
    name, path, _, sent = case
    returns_none = name == "NoneRet" or sent == {"jsonData": None}
    if (theirs, ours) == (400, 500) and returns_none:
        return "a model that returns None is the model's fault"
    if (theirs, ours) == (400, 200) and name == "NpRouter" and path == "/route":
        return "numpy integers are routes"
    if theirs == 500 and "tftensor" in json.dumps(sent):
        return "tftensor is read without TensorFlow"
    if theirs == 500 and ours in (404, 405):
        return "unknown paths and methods"
    if theirs in (200, 500) and ours == 400:
        return "what is no message is 400"
    return ""


def comparable(answer: Any) -> Any:
    """Without the words of errors; a metric without a type is a counter (protobuf's default)."""
    meta = answer.get("meta") if isinstance(answer, dict) else None
    for metric in meta.get("metrics") or [] if isinstance(meta, dict) else []:
        metric.setdefault("type", "COUNTER")
    return without_text(answer)


def test_the_same_answers_but_for_what_was_wrong() -> None:
    asked = list(cases())
    lines = [
        json.dumps([*case[:3], None if case[2] == "GET" else json.dumps(case[3])]) for case in asked
    ]
    done = subprocess.run(
        [str(PEER / "bin" / "python"), "-c", WRAPPER, str(CLASSES)],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRON},
        timeout=300,
        check=False,
    )
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(theirs) == len(asked), done.stderr[-2000:]
    reasons: dict[str, int] = {}
    with wrappers() as served:
        for case, (status, answer) in zip(asked, theirs, strict=True):
            name, path, method, sent = case
            body = None if method == "GET" else json.dumps(sent).encode()
            ours, own = served.request(f"{CLASSES}:{name}", method, path, body, "application/json")
            if (ours, comparable(own)) == (status, comparable(answer)):
                continue
            why = reason(case, status, ours)
            assert why, f"{case}\n theirs {status} {answer}\n ours   {ours} {own}"
            reasons[why] = reasons.get(why, 0) + 1
    assert len(reasons) == 5, reasons  # every reason is needed
    assert sum(reasons.values()) < len(asked) / 3
