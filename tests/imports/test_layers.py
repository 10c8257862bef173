"""Who may import what: the contracts in `pyproject.toml` hold, and would notice a violation."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


UNITS = ("functions", "router_fn", "storage_initializer", "events", "knative")


def lint_imports(cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(cwd), "HOME": str(cwd)},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_every_unit_imports_only_what_the_architecture_allows() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "violation", "contract"),
    [
        ("router_fn/urls.py", "def _hidden():\n    import kubernetes\n", "kubernetes BROKEN"),
        ("storage_initializer/uri.py", "import functions.settings\n", "know only the wire BROKEN"),
        ("functions/wire/v1.py", "import flask\n", "stdlib only BROKEN"),
    ],
)
def test_a_planted_violation_is_noticed(
    module: str, violation: str, contract: str, tmp_path: Path
) -> None:
    for unit in UNITS:
        shutil.copytree(ROOT / unit, tmp_path / unit)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / module).open("a") as file:
        file.write("\n" + violation)
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert contract in done.stdout
