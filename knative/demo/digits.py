"""The event-driven part: a handwritten digit lands in a bucket, and what happens then.

The example is `examples/digits-s3`; its classifier is trained once, in seconds.
"""

import filecmp
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from knative import errors
from knative.demo import s3
from knative.demo.engine import Engine
from knative.demo.screen import Screen

INBOX = "mnist"
BUCKETS = (INBOX, "mnist-journal", *(f"digit-{digit}" for digit in range(10)))
ADAPTER = "digits-adapter"
WEBHOOK_URL = f"http://{ADAPTER}.default.svc.cluster.local/"
REPLY = "digit.classified"
DIGIT = 7
TIMEOUT_S = 90.0
"""Five services start from zero for the first picture."""


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


def act(screen: Screen, local: Engine, server: s3.Server, made: Path) -> None:
    """Upload one picture and wait for what the trigger does about it."""
    key = f"in/{DIGIT}.png"
    screen.heading(f"digits-s3: a handwritten {DIGIT} lands in a bucket (scikit-learn's digits)")
    before = local.services()
    started = time.monotonic()
    s3.upload(server, INBOX, {key: made / "pictures" / f"{DIGIT}.png"})
    screen.fact(
        "upload", f"s3://{INBOX}/{key}; nobody calls a model, the bucket says what happened"
    )
    with screen.progress("waiting for the answer beside the picture"):
        text = _wait(server, local, f"digit-{DIGIT}", f"{key}.json")
    seconds = time.monotonic() - started
    answer = json.dumps(json.loads(text).get("answer"))
    screen.fact("answer", screen.style(answer, "bold", "green"))
    screen.fact(
        "written", f"s3://digit-{DIGIT}/{key}.json; the picture was moved to the same bucket"
    )
    # The adapter comes first and is called again when the picture is moved away.
    order = sorted(
        local.services().values(),
        key=lambda service: (service.name != ADAPTER, service.last_request),
    )
    called = [
        service
        for service in order
        if service.requests > (before[service.name].requests if service.name in before else 0)
    ]
    screen.fact("path", "S3 webhook -> " + " -> ".join(service.name for service in called))
    screen.fact("events", ", ".join(_events(local)))
    screen.fact("time", f"{seconds:.1f} s from the upload, {len(called)} services from zero")


def _events(local: Engine) -> list[str]:
    """Event types in order of arrival; the answer's own event comes a moment after the answer."""
    deadline = time.monotonic() + TIMEOUT_S
    while REPLY not in (types := local.events()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return types[::-1]


def _wait(server: s3.Server, local: Engine, bucket: str, key: str) -> bytes:
    deadline = time.monotonic() + TIMEOUT_S
    while (body := s3.download(server, bucket, key)) is None:
        dead = local.dead_letters()
        if dead or time.monotonic() > deadline:
            reasons = "".join(f"\n  dead letter: {reason}" for reason in dead)
            raise errors.TurnoutError(
                f"s3://{bucket}/{key} did not appear within {TIMEOUT_S:g} s of the upload{reasons}"
            )
        time.sleep(0.1)
    return body
