"""A request that comes while the model loads waits for it, if the service's timeout allows."""

import time
from pathlib import Path

import pytest

from tests.e2e import local

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SLOW_S = 4.0
HANDLER = f"""
import time

class Handler:
    def initialize(self, context):
        time.sleep({SLOW_S})

    def handle(self, data, context):
        return ["loaded"] * len(data)
"""


def test_a_request_waits_for_the_model_or_ends_with_504_at_the_timeout(tmp_path: Path) -> None:
    local.archive(tmp_path / "slow.mar", HANDLER)
    manifests = [
        local.inference_service(tmp_path, name, "s3://bucket/slow.mar", timeout_s=timeout_s)
        for name, timeout_s in (("patient", 60), ("hasty", 2))
    ]
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
