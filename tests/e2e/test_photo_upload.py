"""The animal-plant graph called by an upload: photographs land in a bucket, answers appear beside
them.

Archives come from the S3 server too, so this is also the one test of `turnout up` fetching models
with credentials, without `--mirror`.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from knative.demo import s3, settings
from tests.e2e import local

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
FOLDER = local.EXAMPLES / "animal-plant"
MANIFESTS = (FOLDER / "models.yaml", FOLDER / "graph.yaml", FOLDER / "upload" / "trigger.yaml")


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Server]:
    """An S3 server with the archives and empty buckets, and the engine its webhook calls."""
    folder = tmp_path_factory.mktemp("photos")
    port = local.free_port()
    webhook = s3.Webhook(
        buckets=("photos",),
        url="http://photos-adapter.default.svc.cluster.local/",
        proxy=f"http://127.0.0.1:{port}",
    )
    environ = settings.Settings.from_env().environ
    archives = {
        f"animal-plant/{path.name}": path for path in (models / "animal-plant").glob("*.mar")
    }
    with s3.running(folder / "s3", environ, webhook) as running:
        s3.make_buckets(running, ("turnout-examples", "photos", "photos-journal"))
        s3.upload(running, "turnout-examples", archives)
        with local.up(*MANIFESTS, folder=folder / "up", port=port, **running.environ):
            yield running


def _answer(server: s3.Server, key: str) -> object:
    found: list[bytes] = []

    def appeared() -> bool:
        body = s3.download(server, "photos", key)
        found.extend([body] if body else [])
        return bool(found)

    local.wait_for(appeared, 90, lambda: f"no s3://photos/{key}")
    return json.loads(found[0])["answer"]["predictions"][0]


def test_an_uploaded_photograph_is_answered_beside_it(server: s3.Server, tmp_path: Path) -> None:
    for name, picture in (("chelsea.png", local.CHELSEA), ("flower.jpg", local.FLOWER)):
        path = tmp_path / name
        path.write_bytes(local.photograph(picture))
        s3.upload(server, "photos", {f"holiday/{name}": path})
    cat, flower = (
        _answer(server, f"answers/{name}.json") for name in ("chelsea.png", "flower.jpg")
    )
    assert isinstance(cat, dict)
    assert isinstance(flower, dict)
    assert next(iter(cat)) == "tiger_cat"
    assert next(iter(flower)) == "daisy"
