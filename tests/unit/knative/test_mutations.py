"""Golden inputs with random damage: the compiler answers with problems or with output, never
otherwise."""

import contextlib
import copy
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from knative import compiler, emit, errors, lint
from knative.api.problems import Problem

CASES = sorted((Path(__file__).parents[2] / "golden").glob("*/in.yaml"))
ROUNDS = int(os.environ.get("TURNOUT_MUTATIONS", "25"))
"""Damaged copies of each case; raise it for a long hunt."""

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jsonpath-ng on odd paths

JUNK: list[Any] = [
    None, True, False, 0, -1, 1.5, 10**30, "", " ", "x", "1e3", "ä", "\u2028", "a/b",
    "{{.Nothing}}", "s3://", "pvc://", "://", "x" * 300, [], [None], [[]], ["x"], [1], [{}], {},
    {"x": None},
    {"name": "x"}, {"": ""}, {"a": {"b": {}}},
]  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    listed = enumerate(value) if isinstance(value, list) else ()
    for key, inner in value.items() if isinstance(value, dict) else listed:
        yield from _places(inner, (*path, key))


def _damaged(documents: list[Any], dice: random.Random) -> list[Any]:
    """A copy with one to three subtrees replaced, removed, renamed or moved."""
    result = copy.deepcopy(documents)
    for _ in range(dice.randint(1, 3)):
        path = dice.choice([p for p in _places(result) if len(p) > 1] or [(0,)])
        parent = result
        for key in path[:-1]:
            parent = parent[key]
        action = dice.random()
        if action < 0.6:
            parent[path[-1]] = copy.deepcopy(dice.choice(JUNK))
        elif action < 0.8:
            del parent[path[-1]]
        elif isinstance(parent, dict):
            parent[str(path[-1]) + dice.choice("sX_")] = parent.pop(path[-1])
    return result


def _compile(documents: list[Any]) -> compiler.CompileResult | None:
    text = "\n---\n".join(json.dumps(d) for d in documents)
    found: list[Problem] = []
    try:
        return compiler.compile_text(text, file="damaged.yaml")
    except errors.ManifestError as error:
        found = error.problems
    assert found
    assert all(p.message and p.line for p in found)
    return None


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.parent.name)
def test_damage(case: Path) -> None:
    try:
        documents = [d for d in yaml.safe_load_all(case.read_text()) if d is not None]
    except yaml.YAMLError:
        pytest.skip("not readable by a plain reader")
    for seed in range(ROUNDS):
        damaged = _damaged(documents, random.Random(f"{case.parent.name} {seed}"))
        result = _compile(damaged)
        if result is None:
            continue
        lint.check(result)
        printed = emit.to_yaml(result.objects)
        if result.objects:
            again = compiler.compile_text(printed)
            assert emit.to_yaml(again.objects) == printed


BYTES = b"\t\n :-[]{}&*!|>'\"%@`#,?\\\0\xff\xe4<=0123ey~"


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.parent.name)
def test_damaged_bytes(case: Path) -> None:
    raw = case.read_bytes()
    for seed in range(ROUNDS):
        dice = random.Random(f"bytes {case.parent.name} {seed}")
        damaged = bytearray(raw)
        for _ in range(dice.randint(1, 4)):
            place = dice.randrange(len(damaged))
            damaged[place : place + dice.randint(0, 2)] = dice.choices(BYTES, k=dice.randint(1, 3))
        with contextlib.suppress(errors.ManifestError):
            compiler.compile_text(bytes(damaged))
