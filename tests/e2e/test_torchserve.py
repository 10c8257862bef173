"""The example archives run unchanged on stock TorchServe: its own loader, service and envelope.

Without its Java frontend: what is tested is the contract between an archive and TorchServe's Python
worker. Each archive is loaded in a process of its own, as TorchServe does.
"""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.e2e import local

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

WORKER = """
import base64, json, sys
import types
from ts.model_loader import ModelLoaderFactory

folder, name, handler, picture = sys.argv[1:]
sys.path.insert(0, folder)
service = ModelLoaderFactory.get_model_loader().load(
    name, folder, handler, None, 1, envelope="kserve", limit_max_image_pixels=True
)
service.set_cl_socket(None)
service.context.metrics = types.SimpleNamespace(request_ids=None, cache={}, add_time=print)
answers = []
data = base64.b64encode(open(picture, "rb").read()).decode()
for instances in ([{"data": data}, {"data": data}], [{"data": "aGVsbG8="}]):
    body = json.dumps({"instances": instances}).encode()
    raw = service.predict([{
        "requestId": b"1",
        "parameters": [{"name": "body", "value": body, "contentType": "application/json"}],
    }])
    answers.append(raw.decode("latin-1"))
print("ANSWERS " + json.dumps(answers))
"""


@pytest.mark.parametrize(
    ("archive", "picture", "answer"),
    [
        ("animal-plant/animal-plant", local.FLOWER, ["plant", "plant"]),
        ("dog-breed/dog-breed-classifier", local.HORSE, "Mexican_hairless"),
    ],
)
def test_an_archive_works_on_stock_torchserve(
    models: Path, tmp_path: Path, archive: str, picture: Path, answer: object
) -> None:
    pytest.importorskip("ts", reason="torchserve is not installed")
    with zipfile.ZipFile(models / f"{archive}.mar") as mar:
        mar.extractall(tmp_path / "model")
        manifest = json.loads(mar.read("MAR-INF/MANIFEST.json"))
    (tmp_path / "picture").write_bytes(local.photograph(picture))
    argv = [
        tmp_path / "model", Path(archive).name, manifest["model"]["handler"], tmp_path / "picture",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", WORKER, *map(str, argv)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = (entry for entry in done.stdout.splitlines() if entry.startswith("ANSWERS "))
    good, bad = json.loads(line.removeprefix("ANSWERS "))
    predictions = json.loads(good[good.index("{") : good.rindex("}") + 1])["predictions"]
    assert len(predictions) == 2
    if isinstance(answer, str):
        assert [next(iter(entry)) for entry in predictions] == [answer, answer]
    else:
        assert predictions == answer
    assert "is not an image this model reads" in bad
    assert "\x00\x00\x01\x90" in bad  # status 400 in TorchServe's wire format
