"""examples/digits-s3 as its README says: a real S3 server, its webhook, the local engine, from
zero."""

import importlib.util
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from tests import seaweed
from tests.e2e import local

pytestmark = pytest.mark.e2e
FOLDER = local.EXAMPLES / "digits-s3"
BUCKETS = ("turnout-examples", "mnist", "mnist-journal", *(f"digit-{n}" for n in range(10)))
NOTIFY = """[notification.webhook]
enabled = true
endpoint = "http://digits-adapter.default.svc.cluster.local/"
timeout_seconds = 30
max_retries = 10
backoff_seconds = 1
workers = 20
path_prefixes = ["/buckets/mnist/"]
"""


@dataclass
class Scene:
    """The S3 server, the engine, and the pictures."""

    s3: seaweed.S3Server
    up: local.Up
    pictures: Path

    def wait_for(self, bucket: str, key: str, timeout_s: float = 60) -> bytes:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self.s3.get(bucket, key)
            except RuntimeError:
                assert time.monotonic() < deadline, f"{bucket}/{key} did not appear"
                time.sleep(0.1)

    def wait_until_gone(self, bucket: str, key: str, timeout_s: float = 60) -> None:
        """A move copies first and takes the original away afterwards."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self.s3.get(bucket, key)
            except RuntimeError as error:
                if "404" in str(error):
                    return
                raise
            assert time.monotonic() < deadline, f"{bucket}/{key} is still there"
            time.sleep(0.1)

    def events(self) -> dict[str, list[dict[str, object]]]:
        done = local.turnout("events", "--json", "--port", str(self.up.port))
        found: dict[str, list[dict[str, object]]] = json.loads(done.stdout)
        return found


def train() -> ModuleType:
    spec = importlib.util.spec_from_file_location("digits_train", FOLDER / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def scene(folder: Path) -> Iterator[Scene]:
    made = folder / "digits"
    assert train().write(made) > 0.95
    (folder / "s3").mkdir()
    (folder / "s3" / "notification.toml").write_text(NOTIFY)
    port = local.free_port()
    proxy = ("env", f"HTTP_PROXY=http://127.0.0.1:{port}")
    small = ("-master.volumeSizeLimitMB=32",)
    with seaweed.running(directory=folder / "s3", prefix=proxy, extra=small) as s3:
        for bucket in BUCKETS:
            s3.make_bucket(bucket)
        s3.upload_tree("turnout-examples", "digits-s3/model", made / "model")
        s3.upload_tree("turnout-examples", "digits-s3/transformer", FOLDER / "transformer")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in s3.environ().items():
                patch.setenv(name, value)
            manifests = (FOLDER / "models.yaml", FOLDER / "trigger.yaml")
            with local.up(*manifests, folder=folder / "up", port=port) as up:
                yield Scene(s3, up, made / "pictures")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("digits")
    (folder / "up").mkdir()
    with scene(folder) as found:
        yield found


def test_every_digit_is_filed_under_its_name(running: Scene) -> None:
    keys = {digit: f"in/{digit} +%41.png" for digit in range(10)}
    for digit, key in keys.items():
        running.s3.put("mnist", key, (running.pictures / f"{digit}.png").read_bytes())
    for digit, key in keys.items():
        answer = json.loads(running.wait_for(f"digit-{digit}", f"{key}.json"))
        assert answer["answer"] == {"predictions": [{"classes": digit}]}
        picture = running.wait_for(f"digit-{digit}", key)
        assert picture == (running.pictures / f"{digit}.png").read_bytes()
        running.wait_until_gone("mnist", key)


def test_a_reply_event_says_so(running: Scene) -> None:
    running.s3.put("mnist", "again.png", (running.pictures / "7.png").read_bytes())
    running.wait_for("digit-7", "again.png.json")
    deadline = time.monotonic() + 20
    while True:
        types = [entry["event"] for entry in running.events()["recent"]]
        replies = [e for e in types if isinstance(e, dict) and e["type"] == "digit.classified"]
        if any(reply["subject"] == "again.png" for reply in replies):
            return
        assert time.monotonic() < deadline, types
        time.sleep(0.2)


def test_what_is_no_picture_is_a_dead_letter_at_once(running: Scene) -> None:
    running.s3.put("mnist", "broken.png", b"not a picture")
    deadline = time.monotonic() + 30
    while True:
        dead = [d for d in running.events()["dead"] if d["event"]["subject"] == "broken.png"]  # type: ignore[index]
        if dead:
            break
        assert time.monotonic() < deadline, "no dead letter"
        time.sleep(0.2)
    failure = dead[0]["failure"]
    assert isinstance(failure, dict)
    assert failure["code"] == 422
    assert "not a picture" in failure["body"]
    assert running.s3.get("mnist", "broken.png") == b"not a picture"


def test_it_ends_cleanly(running: Scene) -> None:
    """Last: an engine asked to stop stops, whatever is under way."""
    assert running.up.stop(signal.SIGTERM) == 0
