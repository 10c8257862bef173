"""The public vectors of the graph router, when they are at hand beside the repository.

`../shared/vectors` holds observations of the reference router. The suite is complete without them:
what they assert is also in `tests/contract/test_router_semantics.py` and the unit tests, in tables
of our own.
"""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from router_fn import body, conditions, decide

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors"
RUNNER = VECTORS / "run_vectors.py"
CASES = VECTORS / "router_cases_public.jsonl"
CONDITIONS = VECTORS / "gjson_conditions_public.jsonl"

if not CASES.exists():
    pytest.skip("the shared vectors are not here", allow_module_level=True)


def test_every_public_router_case_passes() -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [
            sys.executable,
            str(RUNNER),
            "--vectors",
            str(CASES),
            "--jobs",
            "2",
            "--start",
            f"{sys.executable} -m router_fn --graph-file {{graph_file}}",
        ],
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "DRAIN_DELAY_SECONDS": "0"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def _rows() -> list[dict[str, str]]:
    with contextlib.closing(CONDITIONS.open(encoding="utf-8")) as lines:
        return [json.loads(line) for line in lines if line.strip()]


def test_every_public_condition_matches_as_observed_alone_and_decided_together() -> None:
    wrong = []
    for row in _rows():
        document = row["document"].encode()
        condition = conditions.compile_condition(row["condition"])
        decided = decide.Decider([condition]).first(document) == 0
        if {condition.matches(document), decided and body.is_json(document)} != {row["match"]}:
            wrong.append(row["id"])
    assert wrong == []
