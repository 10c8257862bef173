"""What is said and to whom: no secret in any output, a bar on a terminal, lines elsewhere."""

import json
import os
import pty
import random
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.contract.test_storage_providers import Answer, scripted
from tests.fakes_storage import environment, faulty_server, initialize

SECRET = "s3cr3t-Pl4nted"
"""Planted in every place a credential can stand; base64 and percent forms are looked for too."""
FORMS = (SECRET, "czNjcjN0LVBsNG50ZWQ", "s3cr3t%2DPl4nted")

EVERYWHERE = {
    "LOG_LEVEL": "DEBUG",
    "STORAGE_ATTEMPTS": "1",
    "STORAGE_STALL_SECONDS": "2",
    "AWS_ACCESS_KEY_ID": "AKID",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_SESSION_TOKEN": SECRET,
    "AZURE_STORAGE_ACCESS_KEY": "czNjcjN0LVBsNG50ZWQ=",
    "HF_TOKEN": SECRET,
    "GIT_USERNAME": "somebody",
    "GIT_PASSWORD": SECRET,
    "127.0.0.1-headers": json.dumps({"Authorization": f"Bearer {SECRET}"}),
}


def answers(status: int) -> Answer:
    return status, {"Content-Type": "text/plain"}, b"go away"


@pytest.mark.parametrize("status", [401, 404, 500, 200])
@pytest.mark.parametrize(
    "uri",
    [
        "s3://bkt/model",
        "http://user:{secret}@{host}/model.bin",
        "http://{host}/model.bin?token={secret}&sig={secret}",
        "hf://owner/model:main",
        "git+http://user:{secret}@{host}/model.git@main",
        "azure://devaccount/container/model",
        "webhdfs://{host}/model?user.name={secret}",
        "oci://{host}/models/cat:1",
        "ftp://user:{secret}@{host}/model",
        "s3://user:{secret}@bkt/model",
        "http://user:{secret}@[{host}/model",
        "https://user:{secret}@{host}/model.bin",
        "https:/user:{secret}@{host}/model.bin",
    ],
)
def test_no_secret_is_ever_printed_or_stored(tmp_path: Path, uri: str, status: int) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    (tmp_path / "docker.json").write_text(
        json.dumps({"auths": {"registry.test": {"username": "u", "password": SECRET}}})
    )
    with scripted(lambda *_: answers(status)) as server:
        host = server.url.removeprefix("http://")
        connection = (
            f"AccountName=devaccount;AccountKey=czNjcjN0LVBsNG50ZWQ=;BlobEndpoint={server.url}"
        )
        done = initialize(
            uri.format(secret=SECRET, host=host),
            tmp_path / "m",
            environ={
                **EVERYWHERE,
                "STORAGE_TERMINATION_LOG": str(log),
                "AWS_ENDPOINT_URL": server.url,
                "HF_ENDPOINT": server.url,
                "AZURE_STORAGE_CONNECTION_STRING": connection,
                "KSERVE_OCI_INSECURE_REGISTRY": "true",
                "KSERVE_OCI_DOCKER_CONFIG": str(tmp_path / "docker.json"),
            },
        )
    written = done.stdout + done.stderr + log.read_text()
    for path in tmp_path.rglob("*"):  # the marker, a journal, whatever was left
        if path.is_file() and path.name != "docker.json":
            written += path.read_bytes().decode("latin-1")
    assert "Traceback" not in written
    for form in FORMS:
        assert form not in written, written
    if done.returncode:
        assert len(log.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "name",
    ["STORAGE_CONFIG", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCESS_KEY",
     "127.0.0.1-headers"],
)  # fmt: skip
def test_a_secret_that_cannot_be_read_is_named_not_shown(tmp_path: Path, name: str) -> None:
    uri = "http://127.0.0.1:9/x.bin" if name == "127.0.0.1-headers" else "azure://a/c/p"
    environ = {name: f"{{{SECRET}", "STORAGE_ATTEMPTS": "1"}
    done = initialize(uri, tmp_path / "m", environ=environ)
    assert done.returncode == 2
    assert name in done.stderr
    assert SECRET not in done.stderr


def test_a_terminal_gets_a_bar_that_is_wiped_away(tmp_path: Path) -> None:
    with faulty_server() as server:
        server.add("/model.bin", random.Random(1).randbytes(30_000), every="trickle")
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "storage_initializer",
                f"{server.url}/model.bin",
                tmp_path / "m",
            ],
            env=environment({"STORAGE_STALL_SECONDS": "30"}),
            stderr=theirs,
            stdin=subprocess.DEVNULL,
        )
        os.close(theirs)
        try:
            seen, deadline = "", time.monotonic() + 30
            while time.monotonic() < deadline and not re.search(r"\[[#-]{30}\].*\d files", seen):
                if select.select([ours], [], [], 0.2)[0]:
                    seen += os.read(ours, 65536).decode()
            assert re.search(r"\r\[[#-]{30}\] +\d+%.*MB/s", seen), seen
            process.terminate()
            assert process.wait(10) == 1
            while select.select([ours], [], [], 0.2)[0]:
                try:
                    seen += os.read(ours, 65536).decode()
                except OSError:
                    break
            assert "\r\x1b[K" in seen  # the bar does not stand in the way of the last line
        finally:
            process.kill()
            os.close(ours)


def test_elsewhere_there_are_json_lines_with_an_estimate(tmp_path: Path) -> None:
    with faulty_server() as server:
        server.add("/model.bin", random.Random(1).randbytes(40), every="trickle")
        environ = {"STORAGE_PROGRESS_SECONDS": "0.5", "STORAGE_SMALL_CONCURRENCY": "0"}
        done = initialize(f"{server.url}/model.bin", tmp_path / "m", environ=environ)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    progress = [line for line in lines if line["message"] == "fetching"]
    assert progress
    assert {"bytes", "bytes_total", "files", "files_total", "mb_per_s", "eta_s"} <= set(progress[0])
    assert lines[-1]["outcome"] == "fetched"
    assert lines[-1]["bytes"] == 40
    assert {"seconds", "mb_per_s", "retries", "cache_hits"} <= set(lines[-1])


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-", "2>/dev/full"])
def test_the_exit_code_does_not_depend_on_who_listens(tmp_path: Path, closed: str) -> None:
    (tmp_path / "model.bin").write_bytes(b"x")
    command = [sys.executable, "-m", "storage_initializer", str(tmp_path / "model.bin")]
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$@" {closed}', "sh", *command, str(tmp_path / "m")],
        env=environment(),
        capture_output=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m" / "model.bin").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (["s3://b/k"], {}, "expected pairs of SRC and DEST"),
        (
            ["s3://b/k", "m"],
            {"STORAGE_PART_BYTES": "1x", "LOG_LEVEL": "loud"},
            "STORAGE_PART_BYTES",
        ),
        (["nothing-here", "m"], {}, "no such file or directory"),
    ],
)
def test_the_pod_tells_why_it_failed(
    arguments: list[str], environ: dict[str, str], said: str, tmp_path: Path
) -> None:
    """Wrong settings too: whoever looks at the pod sees the termination message first."""
    log = tmp_path / "termination-log"
    log.touch()
    done = initialize(*arguments, environ={**environ, "STORAGE_TERMINATION_LOG": str(log)})
    assert done.returncode in (1, 2)
    assert said in log.read_text()
    assert all(name in log.read_text() for name in environ)
