"""Golden manifests: each folder is one situation, `in.yaml` and what must come of it.

`out.yaml` is the compiled YAML, `problems.txt` every finding (errors, warnings, notes) as
`line:column: level: subject: path: message`. A folder may have `options.json` (CompileOptions).
Every output is also compiled again, which must change nothing, and held against an independent
statement of Knative's rules. `make golden` rewrites the expected files.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from knative import compiler, emit, errors, keys, options
from knative.api.problems import Problem
from tests.e2e import knative_rules

CASES = sorted(p.parent for p in Path(__file__).parent.glob("*/in.yaml"))
UPDATE = "--update-golden"
ORACLE_FLAGS = {*knative_rules.POD_FLAGS.values(), *keys.DEFAULT_ENABLED_FLAGS}


def _options(case: Path) -> options.CompileOptions:
    file = case / "options.json"
    given: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    if "profile" in given:
        given["profile"] = options.Profile(given["profile"])
    return options.CompileOptions(**given)


def _lines(case: Path, problems: list[Problem]) -> str:
    """Findings, one a line, without the folder's own path."""
    lines = []
    for problem in problems:
        place = f"{problem.line}:{problem.column}"
        parts = (place, problem.level.value, problem.subject, problem.path, problem.message)
        lines.append(": ".join(part for part in parts if part).replace(f"{case}/", "") + "\n")
    return "".join(lines)


def _compile(case: Path) -> tuple[str, str]:
    """What the case gives now: YAML ("" when refused) and findings, one a line."""
    try:
        result = compiler.compile_files([case / "in.yaml"], _options(case))
    except errors.ManifestError as error:
        return "", _lines(case, error.problems)
    return emit.to_yaml(result.objects), _lines(case, result.problems)


def _expect(file: Path, actual: str, *, update: bool) -> None:
    if update:
        if actual:
            file.write_text(actual, encoding="utf-8")
        else:
            file.unlink(missing_ok=True)
        return
    expected = file.read_text(encoding="utf-8") if file.exists() else ""
    assert actual == expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden(case: Path, request: pytest.FixtureRequest) -> None:
    update = bool(request.config.getoption(UPDATE))
    compiled, problems = _compile(case)
    _expect(case / "out.yaml", compiled, update=update)
    _expect(case / "problems.txt", problems, update=update)


def _compiled_cases() -> list[Path]:
    return [case for case in CASES if (case / "out.yaml").exists()]


@pytest.mark.parametrize("case", _compiled_cases(), ids=lambda case: case.name)
def test_what_compile_prints_compile_prints_unchanged(case: Path) -> None:
    text = (case / "out.yaml").read_text(encoding="utf-8")
    again = compiler.compile_files([case / "out.yaml"], _options(case))
    assert emit.to_yaml(again.objects) == text


@pytest.mark.parametrize("case", _compiled_cases(), ids=lambda case: case.name)
def test_an_independent_reading_of_knatives_rules_agrees(case: Path) -> None:
    result = compiler.compile_files([case / "out.yaml"], _options(case))
    flags = set(result.flags)
    if not flags <= ORACLE_FLAGS:
        pytest.skip("uses a feature that the independent reading does not cover")
    found = {
        item["metadata"]["name"]: problems
        for item in result.objects
        if item["kind"] == "Service" and (problems := knative_rules.problems(item, flags))
    }
    assert found == {}
