"""What one engine leaves behind, or another one does, never gets in the way of the next."""

import signal
from pathlib import Path

import pytest

from tests.e2e import local

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_two_engines_side_by_side_answer_for_themselves(models: Path, tmp_path: Path) -> None:
    """The same service name in both, another model behind it; stopping one leaves the other."""
    bucket = "s3://turnout-examples"
    first = local.inference_service(
        tmp_path / "1", "judge", f"{bucket}/animal-plant/animal-plant.mar"
    )
    second = local.inference_service(
        tmp_path / "2", "judge", f"{bucket}/dog-breed/cat-dog-classifier.mar"
    )
    cat = local.instances(local.photograph(local.CHELSEA))
    with (
        local.up(first, "--mirror", local.MIRROR, folder=tmp_path / "a") as a,
        local.up(second, "--mirror", local.MIRROR, folder=tmp_path / "b") as b,
    ):
        path = "/v1/models/judge:predict"
        assert a.post("judge", cat, path=path)[:2] == (200, {"predictions": ["animal"]})
        assert b.post("judge", cat, path=path)[:2] == (200, {"predictions": ["It's a cat!"]})
        assert a.stop() == 0
        assert b.post("judge", cat, path=path)[:2] == (200, {"predictions": ["It's a cat!"]})
        below = local.descendants(b.process.pid)
        assert b.stop(signal.SIGINT) == 0
        local.wait_gone(below)


def test_a_second_run_in_the_same_state_directory_works_even_after_a_kill(
    models: Path, tmp_path: Path
) -> None:
    manifest = local.inference_service(
        tmp_path, "judge", "s3://turnout-examples/animal-plant/animal-plant.mar"
    )
    flower = local.instances(local.photograph(local.FLOWER))
    for attempt in range(2):
        with local.up(manifest, "--mirror", local.MIRROR, folder=tmp_path / "same") as engine:
            status, answer, _ = engine.post("judge", flower, path="/v1/models/judge:predict")
            assert (status, answer) == (200, {"predictions": ["plant"]})
            if attempt == 0:
                below = local.descendants(engine.process.pid)
                engine.process.kill()
                engine.process.wait(10)
                local.wait_gone(below)
