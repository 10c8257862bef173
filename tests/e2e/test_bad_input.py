"""Mistakes people make with the command line: a clear message, an exit code, no traceback."""

import socket
from pathlib import Path

import pytest

from tests.e2e import local

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

GOOD = """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: flowers
spec:
  predictor:
    model:
      modelFormat:
        name: pytorch
      storageUri: s3://bucket/flowers.mar
"""


@pytest.mark.parametrize("verb", ["compile", "up", "lint"])
@pytest.mark.parametrize(
    ("text", "parts"),
    [
        pytest.param(
            "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\n  metadata: [\n",
            ["in.yaml", "3"],
            id="broken YAML",
        ),
        pytest.param(
            GOOD.replace("storageUri", "storageURI"),
            ["in.yaml", "10", "storageURI", "storageUri"],
            id="unknown field",
        ),
        pytest.param(
            GOOD.replace("InferenceService", "InferenceServis"),
            ["in.yaml", "InferenceServis", "InferenceService"],
            id="unknown kind",
        ),
        pytest.param("", ["in.yaml"], id="empty file"),
        pytest.param("just text\n", ["in.yaml"], id="not an object"),
        pytest.param(GOOD + "---\n" + GOOD, ["in.yaml", "flowers"], id="the same name twice"),
    ],
)
def test_a_bad_manifest_is_refused_with_file_line_and_remedy(
    tmp_path: Path, verb: str, text: str, parts: list[str]
) -> None:
    path = tmp_path / "in.yaml"
    path.write_text(text)
    more = ["--port", str(local.free_port()), "--state-dir", tmp_path / "s"] if verb == "up" else []
    done = local.turnout(verb, path, *more, cwd=tmp_path)
    assert done.returncode == 65, done.stderr
    text = done.stderr + (done.stdout if verb == "lint" else "")
    assert "Traceback" not in text
    for part in parts:
        assert part in text, text


@pytest.mark.parametrize("verb", ["compile", "up"])
def test_a_missing_file_is_named(tmp_path: Path, verb: str) -> None:
    done = local.turnout(verb, tmp_path / "absent.yaml", cwd=tmp_path)
    assert done.returncode in {2, 65}
    assert "absent.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_said_before_anything_starts(tmp_path: Path) -> None:
    path = local.inference_service(tmp_path, "flowers", "s3://bucket/flowers.mar")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = local.turnout("up", path, "--port", str(port), cwd=tmp_path)
    assert done.returncode in {1, 75}
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


def _ask(engine: local.Up, timeout_s: float = 60) -> tuple[int, str]:
    status, answer, _ = engine.post(
        "flowers",
        local.instances(local.photograph(local.FLOWER)),
        path="/v1/models/flowers:predict",
        timeout_s=timeout_s,
    )
    return status, str(answer)


def test_a_model_file_that_is_not_there_fails_the_request_and_is_named(tmp_path: Path) -> None:
    path = local.inference_service(tmp_path, "flowers", "s3://bucket/absent.mar")
    mirror = f"s3://bucket/={tmp_path}/"
    with local.up(path, "--mirror", mirror, folder=tmp_path / "up") as engine:
        status, answer = _ask(engine)
        assert status in {500, 502, 503}
        assert "Traceback" not in answer
        assert "absent.mar" in answer + engine.output()
        assert "Traceback" not in engine.output()


def test_a_model_that_fails_to_load_shows_the_end_of_its_log(tmp_path: Path) -> None:
    local.archive(
        tmp_path / "flowers.mar",
        """
        class Handler:
            def initialize(self, context):
                raise RuntimeError("the petals are missing")

            def handle(self, data, context):
                return data
        """,
    )
    path = local.inference_service(tmp_path, "flowers", "s3://bucket/flowers.mar")
    mirror = f"s3://bucket/={tmp_path}/"
    with local.up(path, "--mirror", mirror, folder=tmp_path / "up") as engine:
        status, answer = _ask(engine)
        assert status in {500, 502, 503}
        assert "the petals are missing" in answer + engine.output()


def test_invoke_without_an_engine_says_how_to_start_one(tmp_path: Path) -> None:
    done = local.turnout(
        "invoke", "flowers", "--image", local.EXAMPLES, "--port", str(local.free_port()),
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode in {1, 2, 75}
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()
