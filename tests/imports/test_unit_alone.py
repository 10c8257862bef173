"""Each unit runs with nothing of ours beside it but what its image copies.

That is the deployability claim: the Dockerfiles copy exactly these folders.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

WIRE = ("functions/__init__.py", "functions/wire")

GRAPH = json.dumps(
    {"nodes": {"root": {"routerType": "Sequence", "steps": [{"serviceUrl": "http://m.test/"}]}}}
)

RUN_ALONE = """
import json, runpy, sys
# Hiding site-packages (-S) would hide third-party packages too: only this checkout must go.
copy, checkout, unit, arguments = json.loads(sys.argv[1])
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
kept = [p for p in sys.path if p and ("site-packages" in p or not p.startswith(checkout))]
sys.path[:] = [copy, *kept]
sys.argv = [unit, *arguments]
runpy.run_module(unit, run_name="__main__", alter_sys=True)
"""

UNITS = {
    "router_fn": (("router_fn", *WIRE), ["--check", "--graph-json", GRAPH], 0),
    "functions": (("functions",), ["--help"], 0),
    "storage_initializer": (("storage_initializer",), ["--help"], 0),
    "events": (("events", "functions"), ["--help"], 0),
}


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_runs_with_only_its_own_folders(unit: str, tmp_path: Path) -> None:
    folders, arguments, expected = UNITS[unit]
    for folder in folders:
        source, target = ROOT / folder, tmp_path / folder
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    task = json.dumps([str(tmp_path), str(ROOT), unit, arguments])
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALONE, task],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == expected, done.stdout + done.stderr


@pytest.mark.parametrize("unit", [*UNITS, "knative"])
def test_the_package_that_is_imported_is_ours(unit: str) -> None:
    """PyPI has packages called `events` and `functions`; ours must win in this environment."""
    module = __import__(unit)
    assert Path(str(module.__file__)).is_relative_to(ROOT)
