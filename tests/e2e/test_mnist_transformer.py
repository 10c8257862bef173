"""examples/mnist-transformer by the commands of its README, and its services in depth: two forms,
three protocols, own code, and every unseen digit."""

import base64
import io
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from tests.e2e import local, tour
from tests.fakes_functions import serving

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
FOLDER = local.EXAMPLES / "mnist-transformer"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def test_every_command_of_the_readme_works(tmp_path: Path) -> None:
    text = tour.run(FOLDER / "README.md", tmp_path, path=local.TURNOUT.parent)
    said = [line for line in text.splitlines() if line.startswith("{")]
    assert '[[{"label":"three","score":0.99' in text
    assert '[[{"label":"seven","score":0.9' in text
    assert '[[{"label":"5","score":0.9' in text
    assert '[[{"digit":5,"score":0.9' in text
    assert "1.png one 0." in text
    assert "8.png eight 0." in text
    assert "no picture of a known format" in text, said


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What train.py writes, where the manifests look for it."""
    folder = tmp_path_factory.mktemp("mnist")
    accuracy = runpy.run_path(str(FOLDER / "train.py"))["write"](folder / "mnist-transformer")
    assert accuracy > 0.95
    return folder


def together(made: Path) -> Path:
    """own-code.yaml with one annotation: the transformer moves into the predictor's pod."""
    text = (FOLDER / "own-code.yaml").read_text()
    moved = text.replace(
        "  name: mnist-own\n",
        '  name: mnist-together\n  annotations: {turnout.dev/collocate: "true"}\n',
    )
    assert moved != text
    (made / "together.yaml").write_text(moved)
    return made / "together.yaml"


@pytest.fixture(scope="module")
def engine(made: Path) -> Iterator[local.Up]:
    mirror = ("--mirror", f"s3://turnout-examples/={made}/")
    own = ("--env", f"PYTHONPATH={FOLDER}")
    manifests = (*FOLDER.glob("*.yaml"), together(made))
    with local.up(*manifests, *mirror, *own, folder=made / "up") as up:
        yield up


def pictures(made: Path) -> list[bytes]:
    return [(made / "mnist-transformer" / "requests" / f"{n}.png").read_bytes() for n in range(10)]


def v1(raw: list[bytes]) -> bytes:
    rows = [{"image": {"b64": base64.b64encode(one).decode()}} for one in raw]
    return json.dumps({"instances": rows}).encode()


def best(engine: local.Up, name: str, body: bytes) -> list[Any]:
    status, answer, _ = engine.post(name, body, path=f"/v1/models/{name}:predict")
    assert status == 200, answer
    return [entries[0] for entries in answer["predictions"]]


def test_two_services_name_every_digit(engine: local.Up, made: Path) -> None:
    found = best(engine, "mnist", v1(pictures(made)))
    assert [entry["label"] for entry in found] == list(NAMES)
    assert all(entry["score"] > 0.9 for entry in found)


def test_one_pod_answers_the_same(engine: local.Up, made: Path) -> None:
    found = best(engine, "mnist-pod", v1(pictures(made)))
    apart = best(engine, "mnist", v1(pictures(made)))
    assert [entry["index"] for entry in found] == list(range(10))
    assert [entry["score"] for entry in found] == pytest.approx([e["score"] for e in apart])
    done = local.turnout("ps", "--json", "--port", str(engine.port))
    assert "mnist-pod-predictor" not in done.stdout
    assert "mnist-predictor" in done.stdout


@pytest.mark.parametrize("name", ["mnist-own", "mnist-together"])
def test_own_code_answers_the_same(engine: local.Up, made: Path, name: str) -> None:
    found = best(engine, name, v1(pictures(made)))
    assert [entry["digit"] for entry in found] == list(range(10))


def test_two_pods_of_one_machine_that_both_meet_on_8085(engine: local.Up, made: Path) -> None:
    """`mnist-pod` and `mnist-together` run at the same time, each with its own predictor."""
    bodies = {name: v1(pictures(made)[:1]) for name in ("mnist-pod", "mnist-together")}
    for name, body in [*bodies.items(), *bodies.items()]:
        (entry,) = best(engine, name, body)
        assert entry.get("index", entry.get("digit")) == 0
    services = json.loads(local.turnout("ps", "--json", "--port", str(engine.port)).stdout)
    assert "mnist-together-predictor" not in json.dumps(services)


def test_v2_over_rest(engine: local.Up, made: Path) -> None:
    data = [base64.b64encode(one).decode() for one in pictures(made)]
    entry = {"name": "image", "shape": [10], "datatype": "BYTES", "data": data}
    body = json.dumps({"id": "ten", "inputs": [entry]}).encode()
    for name, labels in (("mnist", list(NAMES)), ("mnist-pod", [str(n) for n in range(10)])):
        status, answer, _ = engine.post(name, body, path=f"/v2/models/{name}/infer")
        assert status == 200, answer
        outputs = {output["name"]: output for output in answer["outputs"]}
        per_row = outputs["label"]["shape"][1]
        assert outputs["label"]["data"][::per_row] == labels
        assert answer["id"] == "ten"


def test_grpc_from_client_to_predictor(engine: local.Up, made: Path) -> None:
    ask = runpy.run_path(str(FOLDER / "ask_grpc.py"))["ask"]
    host = "mnist-grpc.default.example.com"
    address = f"127.0.0.1:{engine.port}"
    answers = ask(address, host, "mnist-grpc", *pictures(made))
    assert [entries[0][0] for entries in answers] == list(NAMES)
    assert all(len(entries) == 3 for entries in answers)
    with pytest.raises(grpc.RpcError) as caught:
        ask(address, host, "mnist-grpc", pictures(made)[0][:80])
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    assert "broken" in caught.value.details()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["mnist", "mnist-pod", "mnist-own"])
def test_bad_pictures_are_400_whoever_decodes(engine: local.Up, made: Path, name: str) -> None:
    good = io.BytesIO()
    Image.new("RGB", (30, 30)).save(good, "jpeg")
    bomb = bytearray(pictures(made)[0])
    bomb[16:24] = (30000).to_bytes(4) * 2  # the size in the head of a PNG
    for raw in (b"", b"text", good.getvalue()[:200], bytes(bomb)):
        status, answer, _ = engine.post(name, v1([raw]), path=f"/v1/models/{name}:predict")
        assert status == 400, (raw[:20], answer)
        assert answer["error"]


def test_the_dockerfiles_steps_make_what_serves(tmp_path: Path) -> None:
    """No container engine is needed: its COPY and RUN lines, carried out in a directory."""
    text = (FOLDER / "Dockerfile").read_text()
    copies = [line.split()[1:] for line in text.splitlines() if line.startswith("COPY")]
    assert copies == [["requirements.txt", "/tmp/requirements.txt"], ["digits.py", "/app/"]]
    app = tmp_path / "app"
    app.mkdir()
    (app / "functions").symlink_to(local.ROOT / "functions")
    for name, _ in copies:
        (app / name).write_bytes((FOLDER / name).read_bytes())
    done = subprocess.run([sys.executable, "-m", "compileall", "-q", app / "digits.py"], timeout=60)
    assert done.returncode == 0
    os.chmod(app, 0o555)  # a read-only root
    command = next(line for line in text.splitlines() if line.startswith("CMD"))
    words = json.loads(command.removeprefix("CMD "))
    assert words[:3] == ["python", "-m", "functions"]
    environ = {"PYTHONPATH": str(app)}
    arguments = [*words[3:], "--predictor-host", "127.0.0.1:9"]
    try:
        with serving(*arguments, environ=environ) as server:
            reply = server.post("/v1/models/model:predict", {"instances": [{"image": 5}]})
            assert (reply.status, "image" in reply.error) == (400, True)
    finally:
        os.chmod(app, 0o755)
