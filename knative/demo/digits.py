"""The event-driven part: a handwritten digit lands in a bucket, and what happens then.

The example is `examples/digits-s3`; its classifier is trained once, in seconds.
"""

import filecmp
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from knative import errors
from knative.demo.uploads import Upload

INBOX = "mnist"
BUCKETS = (INBOX, "mnist-journal", *(f"digit-{digit}" for digit in range(10)))
ADAPTER = "digits-adapter"
WEBHOOK_URL = f"http://{ADAPTER}.default.svc.cluster.local/"
DIGIT = 7


def files(example: Path, made: Path) -> tuple[Mapping[str, Path], bool]:
    """Bucket key -> file of model and transformer; True if the model had to be trained now."""
    script = example / "train.py"
    model, stamp = made / "model" / "model.joblib", made / "trained-by.py"
    fresh = not (model.is_file() and stamp.is_file() and filecmp.cmp(stamp, script, shallow=False))
    if fresh:
        _train(script, made)
        stamp.write_bytes(script.read_bytes())
    keys = {"digits-s3/model/model.joblib": model}
    for path in sorted((example / "transformer").glob("*.py")):
        keys[f"digits-s3/transformer/{path.name}"] = path
    return keys, fresh


def _train(script: Path, made: Path) -> None:
    """Train beside `made` and move each finished file in: another demo may be reading them."""
    made.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="training-", dir=made) as scratch:
        done = subprocess.run(
            [sys.executable, str(script), scratch], capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2]
            raise errors.TurnoutError(f"training the digit classifier failed: {last}")
        for path in Path(scratch).rglob("*"):
            if path.is_file():
                target = made / path.relative_to(scratch)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)


def upload(made: Path) -> Upload:
    """A digit for the inbox; its trigger files picture and answer under what it is."""
    key, folder = f"in/{DIGIT}.png", f"digit-{DIGIT}"
    return Upload(
        heading=f"digits-s3: a handwritten {DIGIT} lands in a bucket (scikit-learn's digits)",
        file=made / "pictures" / f"{DIGIT}.png",
        bucket=INBOX,
        key=key,
        answer_bucket=folder,
        answer_key=f"{key}.json",
        written="the picture was moved to the same bucket",
        reply="digit.classified",
        first=(ADAPTER,),
    )
