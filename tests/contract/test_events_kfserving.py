"""User code in KFServing's style, behind our model server, with a real S3 server: all three event
forms."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from events import codec
from tests import fakes_events as shapes
from tests import seaweed
from tests.contract.test_events import ROOT, Program, running

FOLDER = ROOT / "examples" / "digits-s3" / "kfserving"


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Program, seaweed.S3Server]]:
    log = tmp_path_factory.mktemp("kfserving") / "log"
    with seaweed.running(bucket="mnist", extra=("-master.volumeSizeLimitMB=32",)) as s3:
        s3.make_bucket("digits")
        port = seaweed.free_ports(1)[0]
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [
                    sys.executable, "-m", "functions", "--model-name", "mnist",
                    "--model-dir", str(FOLDER),
                    "--model-class", "image_transformer:ImageTransformer",
                ],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "PORT": str(port), **s3.environ()},
                stderr=stderr,
                text=True,
            )  # fmt: skip
        program = Program(port, process, log)
        try:
            deadline = time.monotonic() + 40
            while True:
                try:
                    if program.request("GET", "/readyz")[0] == 200:
                        break
                except OSError:
                    pass
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield program, s3
        finally:
            process.terminate()
            process.wait(15)


@pytest.mark.parametrize("form", ["bare", "data", "binary", "structured"])
def test_every_form_of_the_event(server: tuple[Program, seaweed.S3Server], form: str) -> None:
    program, s3 = server
    key = f"{form} +%41.png"
    s3.put("mnist", key, b"12345")
    from urllib.parse import quote_plus

    event = shapes.minio(quote_plus(key))
    headers = {"Content-Type": "application/json"}
    body = json.dumps({"data": event} if form == "data" else event).encode()
    if form in ("binary", "structured"):
        from events.event import make

        cloud_event = make(
            id="1", source="/kafka", type="dev.knative.kafka.event", data=body,
            datacontenttype="application/json",
        )  # fmt: skip
        encode = codec.encode_binary if form == "binary" else codec.encode_structured
        headers, body = encode(cloud_event)
    status, _, answer = program.request("POST", "/v1/models/mnist:predict", body, headers)
    assert status == 200, answer
    assert b'"classes"' in answer
    assert s3.get("digits", f"digit-5/{key}") == b"12345"


def test_a_trigger_hands_the_event_over_as_such_code_knows_it(
    server: tuple[Program, seaweed.S3Server], tmp_path: Path
) -> None:
    """The template of docs/events.md: a trigger deduplicates and retries for user code as well."""
    program, s3 = server
    s3.put("mnist", "through +a.png", b"1234567")
    spec = {
        "name": "kfserving",
        "source": {"s3": {"bucket": "mnist"}},
        "target": {"url": f"http://127.0.0.1:{program.port}/v1/models/mnist:predict"},
        "request": {
            "template": {
                "EventName": "s3:{object.eventName}",
                "Key": "{object.bucket}/{object.key}",
                "Records": ["{data}"],
            }
        },
        "result": {"reply": {"type": "filed"}},
    }
    headers, body = codec.encode_binary(shapes.object_event("through +a.png"))
    with running(tmp_path, "sink", SINK_SPEC=json.dumps(spec)) as sink:
        for _ in range(2):
            status, fields, answer = sink.request("POST", "/", body, headers)
            assert (status, fields["ce-type"]) == (200, "filed"), answer
            assert json.loads(answer)["predictions"][0]["filed"] == "digit-7/through +a.png"
    assert s3.get("digits", "digit-7/through +a.png") == b"1234567"
