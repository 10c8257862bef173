"""examples/triton-transformer: by the commands of its README with NVIDIA's server, where that is
installed (make triton); and the same transformer before our own gRPC predictor, always."""

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import local, tour
from tests.e2e.test_mnist_transformer import NAMES, pictures, v1

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
FOLDER = local.EXAMPLES / "triton-transformer"
TRITON = local.ROOT / ".venvs" / "triton"


@pytest.mark.skipif(
    not (TRITON / ".installed").exists(), reason="NVIDIA's Triton is not here: make triton"
)
def test_every_command_of_the_readme_works_with_nvidias_triton(tmp_path: Path) -> None:
    text = tour.run(FOLDER / "README.md", tmp_path, path=local.TURNOUT.parent)
    assert '[[{"label":"three","score":0.99' in text
    assert '[[{"label":"seven","score":0.9' in text


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton")
    train = runpy.run_path(str(local.EXAMPLES / "mnist-transformer" / "train.py"))
    train["write"](folder / "mnist-transformer")
    export = runpy.run_path(str(FOLDER / "export.py"))
    model = folder / "mnist-transformer" / "model" / "model.joblib"
    export["write"](model, folder / "triton-transformer")
    return folder


@pytest.fixture(scope="module")
def engine(made: Path) -> Iterator[local.Up]:
    """The manifest with one word and one path changed: our onnx runtime in Triton's place."""
    text = (FOLDER / "models.yaml").read_text()
    ours = text.replace("{name: triton}", "{name: onnx}").replace(
        "turnout-examples/triton-transformer", "turnout-examples/triton-transformer/mnist-triton/1"
    )
    assert ours.count("onnx") == text.count("onnx") + 1
    manifest = made / "ours.yaml"
    manifest.write_text(ours)
    mirror = ("--mirror", f"s3://turnout-examples/={made}/")
    with local.up(manifest, *mirror, folder=made / "up") as up:
        yield up


def test_our_own_grpc_predictor_answers_the_same(engine: local.Up, made: Path) -> None:
    path = "/v1/models/mnist-triton:predict"
    status, answer, _ = engine.post("mnist-triton", v1(pictures(made)), path=path)
    assert status == 200, answer
    best: list[dict[str, Any]] = [entries[0] for entries in answer["predictions"]]
    assert [entry["label"] for entry in best] == list(NAMES)
    assert all(0.9 < entry["score"] <= 1 for entry in best)
