"""The digit classifier is trained once, and again when its training script changes."""

from pathlib import Path

import pytest

from knative import errors
from knative.demo import digits, s3

SCRIPT = """\
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
(folder / "model").mkdir(parents=True, exist_ok=True)
(folder / "model" / "model.joblib").write_text("model")
"""


@pytest.fixture
def example(tmp_path: Path) -> Path:
    folder = tmp_path / "example"
    (folder / "transformer").mkdir(parents=True)
    (folder / "train.py").write_text(SCRIPT)
    (folder / "transformer" / "digits.py").write_text("class Digits: pass\n")
    return folder


def test_training_happens_once_per_script(example: Path, tmp_path: Path) -> None:
    keys, fresh = digits.files(example, tmp_path / "made")
    assert fresh
    assert set(keys) == {"digits-s3/model/model.joblib", "digits-s3/transformer/digits.py"}
    assert all(path.is_file() for path in keys.values())
    assert digits.files(example, tmp_path / "made")[1] is False
    (example / "train.py").write_text(SCRIPT + "# another kernel\n")
    assert digits.files(example, tmp_path / "made")[1] is True


def test_failed_training_is_said_in_its_last_words_and_tried_again(
    example: Path, tmp_path: Path
) -> None:
    (example / "train.py").write_text("raise SystemExit('no digits today')\n")
    for _ in range(2):
        with pytest.raises(errors.TurnoutError, match="no digits today"):
            digits.files(example, tmp_path / "made")


def test_the_servers_webhook_is_limited_to_the_buckets_of_the_triggers() -> None:
    webhook = s3.Webhook(
        buckets=("mnist", "photos"), url="http://adapter/", proxy="http://127.0.0.1:1"
    )
    text = webhook.to_toml()
    assert 'endpoint = "http://adapter/"' in text
    assert 'path_prefixes = ["/buckets/mnist/", "/buckets/photos/"]' in text
