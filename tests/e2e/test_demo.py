"""`turnout demo`: what it shows, how it ends, what it leaves behind (nothing)."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e import local

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def _sections(text: str) -> dict[str, str]:
    """Heading -> the facts below it."""
    parts = re.split(r"\n\n(?=\S)", text)
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


def _scene(text: str, graph: str, picture: str) -> str:
    (found,) = (
        body
        for heading, body in _sections(text).items()
        if heading.startswith(f"{graph} <-") and picture in heading
    )
    return found


def _fact(scene: str, name: str) -> str:
    (found,) = re.findall(rf"^  {name} +(.*)$", scene, re.MULTILINE)
    return str(found)


def test_it_ends_with_0_and_takes_the_right_paths(demo_output: str) -> None:
    cat = _scene(demo_output, "animal-plant-pipeline", "a cat")
    assert _fact(cat, "answer").startswith("tiger_cat 38.5%")
    assert _fact(cat, "path") == ("animal-plant -> animal-classifier; not called: plant-classifier")
    flower = _scene(demo_output, "animal-plant-pipeline", "a flower")
    assert _fact(flower, "answer").startswith("daisy 32.7%")
    assert _fact(flower, "path") == (
        "animal-plant -> plant-classifier; not called: animal-classifier"
    )
    breed_cat = _scene(demo_output, "dog-breed-pipeline", "a cat")
    assert _fact(breed_cat, "answer") == "It's a cat!"
    assert _fact(breed_cat, "path") == "cat-dog-classifier; not called: dog-breed-classifier"
    horse = _scene(demo_output, "dog-breed-pipeline", "horse")
    assert _fact(horse, "path") == "cat-dog-classifier -> dog-breed-classifier"


def test_a_digit_in_the_bucket_is_answered_for(demo_output: str) -> None:
    (scene,) = (
        body for heading, body in _sections(demo_output).items() if heading.startswith("digits-s3:")
    )
    assert _fact(scene, "answer") == '{"predictions": [{"classes": 7}]}'
    assert _fact(scene, "path").endswith(
        "digits-adapter -> digits-sink -> mnist -> mnist-predictor"
    )
    assert "digit.classified" in _fact(scene, "events")


def test_a_photograph_in_the_bucket_runs_the_graph(demo_output: str) -> None:
    (scene,) = (
        body
        for heading, body in _sections(demo_output).items()
        if heading.startswith("animal-plant-pipeline <= a cat lands in a bucket")
    )
    assert '"tiger_cat": 0.38' in _fact(scene, "answer")
    assert _fact(scene, "path") == (
        "S3 webhook -> digits-adapter -> photos-sink -> animal-plant-pipeline -> animal-plant"
        " -> animal-classifier"
    )
    assert "photo.classified" in _fact(scene, "events")


def test_it_shows_cold_and_warm_latency_and_zero_at_both_ends(demo_output: str) -> None:
    cat = _scene(demo_output, "animal-plant-pipeline", "a cat")
    found = re.fullmatch(r"([\d.]+) s \(3 services from zero\), then (\d+) ms", _fact(cat, "time"))
    assert found, _fact(cat, "time")
    assert float(found[1]) * 1000 > int(found[2])
    assert "running   0 pods" in demo_output
    assert "processes 0 are left" in demo_output


def test_its_output_is_plain_without_a_terminal(demo_output: str) -> None:
    assert "\x1b" not in demo_output
    assert "\r" not in demo_output


def _interrupted(number: int, at: str, tmp_path: Path) -> tuple[int, str, set[int]]:
    """A demo that gets a signal once `at` is in its output: exit code, output, its processes."""
    log = tmp_path / "demo.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            [local.TURNOUT, "demo"],
            cwd=local.ROOT,
            env=local.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            local.wait_for(lambda: at in log.read_text(), 120, log.read_text)
            below = local.descendants(process.pid)
            process.send_signal(number)
            code = process.wait(40)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    return code, log.read_text(), below


@pytest.mark.parametrize(
    ("number", "at", "code"),
    [
        pytest.param(signal.SIGINT, "request", 130, id="Ctrl-C while a model loads"),
        pytest.param(signal.SIGTERM, "server", 143, id="SIGTERM during the upload"),
    ],
)
def test_a_signal_stops_everything_it_started(
    number: int, at: str, code: int, models: Path, tmp_path: Path
) -> None:
    found, output, below = _interrupted(number, at, tmp_path)
    assert found == code, output
    assert "Traceback" not in output
    assert below, "the S3 server at least was running"
    local.wait_gone(below)


def test_a_picture_that_is_not_there_is_said_at_once() -> None:
    started = time.monotonic()
    done = local.turnout("demo", "--image", "absent.jpg")
    assert done.returncode == 2
    assert done.stderr.strip() == "turnout: absent.jpg: no such picture"
    assert time.monotonic() - started < 10


def test_a_missing_package_is_named_before_anything_starts(tmp_path: Path) -> None:
    """An interpreter that sees the checkout and PyYAML, but none of the demo's packages."""
    code = (
        "import sys, importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in ('torch', 'boto3') else find(name, *a)\n"
        "from knative.cli.main import run\n"
        "sys.exit(run(['demo']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=local.ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "not installed: torch, boto3" in done.stderr
    assert "make demo" in done.stderr
    assert done.stdout == ""
