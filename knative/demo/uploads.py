"""A file lands in a bucket, and what happens then: uploaded, waited for, told."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from knative import errors
from knative.demo import s3
from knative.demo.engine import Engine
from knative.demo.screen import Screen

TIMEOUT_S = 90.0
"""Five services start from zero for the first file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One file, where it goes and where its answer will be."""

    heading: str
    file: Path
    bucket: str
    key: str
    answer_bucket: str
    answer_key: str
    written: str
    """What the trigger does with the answer, for a person."""
    reply: str
    """Type of the event that says so."""
    first: tuple[str, ...]
    """Services that are called once more afterwards, for what the trigger itself writes."""


def act(screen: Screen, local: Engine, server: s3.Server, upload: Upload) -> None:
    """Upload the file and wait for what its trigger does about it. Raises `TurnoutError`."""
    screen.heading(upload.heading)
    before = local.services()
    started = time.monotonic()
    s3.upload(server, upload.bucket, {upload.key: upload.file})
    screen.fact(
        "upload",
        f"s3://{upload.bucket}/{upload.key}; nobody calls a model, the bucket says what happened",
    )
    with screen.progress(f"waiting for s3://{upload.answer_bucket}/{upload.answer_key}"):
        text = _wait(server, local, upload.answer_bucket, upload.answer_key)
    seconds = time.monotonic() - started
    answer = json.dumps(json.loads(text).get("answer"))
    screen.fact("answer", screen.style(answer, "bold", "green"))
    screen.fact("written", f"s3://{upload.answer_bucket}/{upload.answer_key}; {upload.written}")
    after = local.services()
    called = sorted(
        (
            service
            for service in after.values()
            if service.requests > (before[service.name].requests if service.name in before else 0)
        ),
        key=lambda service: (_place(service.name, upload.first), service.last_request),
    )
    woken = sum(service.cold_starts > before[service.name].cold_starts for service in called)
    screen.fact("path", "S3 webhook -> " + " -> ".join(service.name for service in called))
    screen.fact("events", ", ".join(_events(local, upload.reply)))
    screen.fact("time", f"{seconds:.1f} s from the upload, {woken} services from zero")


def _place(name: str, first: tuple[str, ...]) -> int:
    return first.index(name) if name in first else len(first)


def _events(local: Engine, reply: str) -> list[str]:
    """Event types in order of arrival; the answer's own event comes a moment after the answer."""
    deadline = time.monotonic() + TIMEOUT_S
    while reply not in (types := local.events()) and time.monotonic() < deadline:
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
