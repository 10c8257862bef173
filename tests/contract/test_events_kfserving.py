"""User code in KFServing's style, behind our model server, with a real S3 server: all three event
forms."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from events import codec
from tests import fakes_events as shapes
from tests import seaweed
from tests.contract.test_events import ROOT, Program

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
