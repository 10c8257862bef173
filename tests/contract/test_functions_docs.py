"""The commands at the top of docs/model-server.md, run as printed, answer as printed."""

import re
import shutil
import subprocess
from pathlib import Path

import openapi_spec_validator
import pytest

from tests.browser import CHROMIUM, open_page
from tests.fakes_functions import ROOT, serving, write_model

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


DOUBLE = "def predict(body):\n    return {'predictions': [2 * x for x in body['instances']]}\n"


@pytest.mark.parametrize("protocol", ["v1,v2", "v1", "seldon"])
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_models_can_be_tried_on_the_page(tmp_path: Path, protocol: str) -> None:
    seldons = "def predict(X, names):\n    return [2 * x for x in X]\n"
    directory = write_model(tmp_path / "m", seldons if protocol == "seldon" else DOUBLE)
    arguments = ("--model-name", "double", "--model-dir", str(directory), "--protocol", protocol)
    with serving(*arguments) as server, open_page() as page:
        page.goto(f"http://localhost:{server.port}/docs")
        page.until("document.querySelectorAll('#models tr').length === 1")
        row = page.evaluate("document.getElementById('models').innerText").split()
        assert row[:2] == ["double", "ready"]
        assert page.evaluate("document.getElementById('ready').innerText") == "· ready"
        seldon = protocol == "seldon"
        sent = '{"data": {"ndarray": [21]}}' if seldon else '{"instances": [21]}'
        page.evaluate(f"body.value = '{sent}'; body.oninput(); send.click()")
        page.until("document.getElementById('answer').innerText.includes('42')")
        assert page.evaluate("document.getElementById('status').innerText").startswith("200 in ")
        command = page.evaluate("document.getElementById('curl').innerText")
        assert ("/api/v1.0/predictions" if seldon else "/v1/models/double:predict") in command
        shown = page.evaluate("[...protocol.options].filter(o => !o.disabled).map(o => o.value)")
        assert shown == protocol.split(",")
        assert page.messages == []


@pytest.mark.parametrize("protocol", ["v1,v2", "tensorflow,v2", "seldon"])
def test_the_openapi_document_is_valid_and_whole(tmp_path: Path, protocol: str) -> None:
    directory = write_model(tmp_path / "m", DOUBLE)
    with serving("--model-dir", str(directory), "--protocol", protocol) as server:
        document = server.get("/openapi.json").json()
    openapi_spec_validator.validate(document)
    assert document["x-models"] == ["model"]
    predicting = {path for path in document["paths"] if path.endswith((":predict", "/infer"))}
    one = "/v2/models/{model}"
    v2 = {one + "/infer", one + "/versions/{version}/infer"}
    if protocol == "v1,v2":
        assert predicting == {"/v1/models/{model}:predict"} | v2
    elif protocol == "tensorflow,v2":
        rows = ("", "/versions/{version}", "/labels/{label}")
        assert predicting == {f"/v1/models/{{model}}{which}:predict" for which in rows} | v2
