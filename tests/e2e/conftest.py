"""One engine with both example pipelines, shared by every test that only talks to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import local

PIPELINES = [
    local.EXAMPLES / pipeline / name
    for pipeline in ("animal-plant", "dog-breed")
    for name in ("models.yaml", "graph.yaml")
]


@pytest.fixture(scope="session")
def models() -> Path:
    """The example archives, made by `turnout package`."""
    local.package()
    return local.MODELS


@pytest.fixture(scope="session")
def engine(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.Up]:
    """`turnout up` with both pipelines; the archives come from a directory instead of a bucket."""
    with local.up(
        *PIPELINES, "--mirror", local.MIRROR, folder=tmp_path_factory.mktemp("engine")
    ) as up:
        yield up


@pytest.fixture(scope="session")
def demo_output(models: Path) -> str:
    """What one `turnout demo` printed; it ended with 0."""
    done = local.turnout("demo", timeout_s=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
