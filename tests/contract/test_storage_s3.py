"""The unit as a subprocess against a real S3 server (SeaweedFS), with and without authorization."""

import json
import os
import random
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests import seaweed

MARKER = ".turnout-storage.json"


@pytest.fixture(scope="module")
def s3() -> Iterator[seaweed.S3Server]:
    with seaweed.running(bucket="models") as server:
        yield server


def initialize(
    *arguments: object, environ: Mapping[str, str] | None = None, timeout_s: float = 60
) -> "subprocess.CompletedProcess[str]":
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), "HOME": "/nonexistent"}
    return subprocess.run(
        [sys.executable, "-m", "storage_initializer", *map(str, arguments)],
        env={**env, "STORAGE_BACKOFF_SECONDS": "0.02", **(environ or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def tree(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != MARKER
    }


def last_line(done: "subprocess.CompletedProcess[str]") -> dict[str, object]:
    line: dict[str, object] = json.loads(done.stderr.strip().splitlines()[-1])
    return line


def test_a_prefix_is_bounded_by_a_slash(s3: seaweed.S3Server, tmp_path: Path) -> None:
    for key, data in {
        "bounded/1/model.bin": b"right",
        "bounded/empty": b"",
        "bounded/a/b/c/deep": b"deep",
        "bounded-old/model.bin": b"wrong",
        "bounded2": b"wrong",
    }.items():
        s3.put("models", key, data)
    done = initialize("s3://models/bounded", tmp_path / "m", environ=s3.environ())
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") == {"1/model.bin": b"right", "empty": b"", "a/b/c/deep": b"deep"}


def test_a_big_object_comes_in_parallel_ranges_and_is_exact(
    s3: seaweed.S3Server, tmp_path: Path
) -> None:
    parts = [random.Random(index).randbytes(5 << 20) for index in range(5)]
    s3.put_multipart("models", "big/model.bin", parts)
    environ = s3.environ() | {"STORAGE_PART_BYTES": "1Mi"}
    done = initialize("s3://models/big/model.bin", tmp_path / "m", environ=environ)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") == {"model.bin": b"".join(parts)}


def test_a_second_run_fetches_nothing(s3: seaweed.S3Server, tmp_path: Path) -> None:
    s3.put("models", "again/model.bin", b"x" * 1000)
    first = initialize("s3://models/again", tmp_path / "m", environ=s3.environ())
    second = initialize("s3://models/again", tmp_path / "m", environ=s3.environ())
    assert (first.returncode, second.returncode) == (0, 0)
    assert last_line(first)["bytes_fetched"] == 1000
    assert last_line(second)["outcome"] == "complete"
    assert last_line(second)["bytes_fetched"] == 0


def test_missing_things_are_named(s3: seaweed.S3Server, tmp_path: Path) -> None:
    done = initialize("s3://models/not-there", tmp_path / "m", environ=s3.environ())
    assert done.returncode == 1
    assert "no object 'not-there' and nothing below 'not-there/'" in str(last_line(done)["message"])
    assert not (tmp_path / "m").exists()
    done = initialize("s3://no-such-bucket/x", tmp_path / "m", environ=s3.environ())
    assert "bucket 'no-such-bucket' does not exist" in str(last_line(done)["message"])


def test_a_wrong_key_is_denied_and_not_printed(s3: seaweed.S3Server, tmp_path: Path) -> None:
    s3.put("models", "denied/x", b"x")
    environ = s3.environ() | {"AWS_SECRET_ACCESS_KEY": "wrong-and-secret"}
    done = initialize("s3://models/denied", tmp_path / "m", environ=environ)
    assert done.returncode == 1
    assert "SignatureDoesNotMatch" in done.stderr
    assert "wrong-and-secret" not in done.stderr


def test_the_etag_of_a_multipart_upload_is_verified_on_request(
    s3: seaweed.S3Server, tmp_path: Path
) -> None:
    """SeaweedFS made the ETag, our arithmetic has to find the same."""
    parts = [random.Random(index).randbytes(5 << 20) for index in range(3)] + [b"tail"]
    tag = s3.put_multipart("models", "parts/model.bin", parts)
    assert tag.endswith("-4")
    environ = s3.environ() | {"STORAGE_VERIFY": "full", "STORAGE_PART_BYTES": "4Mi"}
    done = initialize("s3://models/parts", tmp_path / "m", environ=environ)
    assert done.returncode == 0, done.stderr
    marker = json.loads((tmp_path / "m" / MARKER).read_text())
    assert marker["files"][0][3] == f"md5-of-parts-{5 << 20}:{tag}"


def test_the_checksum_of_boto3s_multipart_upload_is_verified(
    s3: seaweed.S3Server, tmp_path: Path
) -> None:
    """boto3's uploads carry a COMPOSITE CRC-32: ranges go along its parts, and it must agree."""
    data = random.Random(3).randbytes((25 << 20) + 12_345)
    source = tmp_path / "model.bin"
    source.write_bytes(data)
    code = (
        "import boto3, sys; boto3.client('s3').upload_file(sys.argv[1], 'models', 'boto/one.bin')"
    )
    environ = {"PATH": os.environ["PATH"], **s3.environ()}
    subprocess.run([sys.executable, "-c", code, str(source)], env=environ, check=True, timeout=60)
    _, headers, _ = s3.request(
        "HEAD", "/models/boto/one.bin", headers={"x-amz-checksum-mode": "ENABLED"}
    )
    assert headers["x-amz-checksum-type"] == "COMPOSITE"
    done = initialize("s3://models/boto", tmp_path / "m", environ=s3.environ())
    assert done.returncode == 0, done.stderr
    assert last_line(done)["retries"] == 0
    assert tree(tmp_path / "m") == {"one.bin": data}
    marker = json.loads((tmp_path / "m" / MARKER).read_text())
    assert marker["files"][0][3] == f"crc32:{zlib.crc32(data):08x}"
