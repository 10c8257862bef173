"""The commands at the top of docs/model-server.md, run as printed, answer as printed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fakes_functions import ROOT, serving

DOCS = ROOT / "docs" / "model-server.md"


def transcript() -> list[tuple[str, str]]:
    """(command, what it prints) of the first console block; … stands for anything."""
    (block,) = re.findall(r"^```console\n(.*?)^```", DOCS.read_text(), re.M | re.S)[:1]
    found: list[tuple[str, str]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            command, printed = found.pop()
            found.append((command, printed + line))
    return found


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_examples_answer_as_printed(tmp_path: Path) -> None:
    import joblib
    from sklearn import datasets, svm

    features, classes = datasets.load_iris(return_X_y=True)
    joblib.dump(svm.SVC().fit(features, classes), tmp_path / "model.joblib")
    (start, _), *calls = transcript()
    arguments = start.partition("#")[0].replace("./iris", str(tmp_path)).split()[3:]
    assert len(calls) >= 7
    with serving(*arguments) as server:
        for command, printed in calls:
            done = subprocess.run(
                ["bash", "-c", command.replace("localhost:8080", f"127.0.0.1:{server.port}")],
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
            pattern = re.escape(printed).replace("…", ".*")
            assert re.fullmatch(pattern, done.stdout.strip()), (command, done.stdout)
