"""A request that comes while the model loads waits for it, if the service's timeout allows."""

import textwrap
import time
import zipfile
from pathlib import Path

import pytest

from tests.e2e import local

pytestmark = pytest.mark.e2e

SLOW_S = 4.0
MANIFEST = """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}
spec:
  predictor:
    timeout: {timeout_s}
    model:
      modelFormat:
        name: pytorch
      storageUri: s3://bucket/slow.mar
"""


def _slow_archive(folder: Path) -> Path:
    mar = folder / "slow.mar"
    with zipfile.ZipFile(mar, "w") as archive:
        archive.writestr(
            "MAR-INF/MANIFEST.json",
            '{"runtime": "python", "model": {"modelName": "slow", "handler": "handler.py",'
            ' "modelVersion": "1.0"}, "archiverVersion": "0.12.0"}',
        )
        archive.writestr(
            "handler.py",
            textwrap.dedent(
                f"""
                import time

                class Handler:
                    def initialize(self, context):
                        time.sleep({SLOW_S})

                    def handle(self, data, context):
                        return ["loaded"] * len(data)
                """
            ),
        )
    return mar


def test_a_request_waits_for_the_model_or_ends_with_504_at_the_timeout(tmp_path: Path) -> None:
    _slow_archive(tmp_path)
    manifests = []
    for name, timeout_s in (("patient", 60), ("hasty", 2)):
        manifests.append(tmp_path / f"{name}.yaml")
        manifests[-1].write_text(MANIFEST.format(name=name, timeout_s=timeout_s))
    mirror = f"s3://bucket/={tmp_path}/"
    with local.up(*manifests, "--mirror", mirror, folder=tmp_path / "up") as engine:
        body = b'{"instances": [1]}'
        started = time.monotonic()
        status, answer, _ = engine.post("patient", body, path="/v1/models/patient:predict")
        assert (status, answer) == (200, {"predictions": ["loaded"]})
        assert time.monotonic() - started >= SLOW_S

        started = time.monotonic()
        status, answer, _ = engine.post("hasty", body, path="/v1/models/hasty:predict")
        assert status == 504, answer
        assert 1.5 <= time.monotonic() - started < SLOW_S + 3
        assert "error" in answer

        # The pod went on loading; the next request finds it there.
        local.wait_for(
            lambda: engine.post("hasty", body, path="/v1/models/hasty:predict")[0] == 200, 30
        )
