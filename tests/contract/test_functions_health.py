"""Readiness that user code decides while it runs: KServe's `ready` and `healthy()`."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from functions import oip
from tests.fakes_functions import Reply, Server, serving, wait_until, write_model

READY = """
import pathlib, threading, time
import functions

class M(functions.Model):
    def __init__(self, name, place):
        super().__init__(name)
        self.file = pathlib.Path(place) / "say"
        threading.Thread(target=self.watch, daemon=True).start()
    def watch(self):
        file = self.file
        while True:
            if file.exists():
                self.ready = file.read_text() != "no"
            time.sleep(0.01)
    def predict(self, payload, headers):
        return {"predictions": [1]}
"""

COMPUTED = """
import pathlib

class M:
    def __init__(self, place):
        self.file = pathlib.Path(place) / "say"
    @property
    def ready(self):
        if not self.file.exists():
            return True
        word = self.file.read_text()
        if word == "raise":
            raise RuntimeError("secret")
        return word != "no"
    def predict(self, payload):
        return {"predictions": [1]}
"""

HEALTHY = """
import asyncio, pathlib, sys, time
BASE

class M(Base):
    def __init__(self, name, place):
        super().__init__(name)
        self.ready = True
        self.place = pathlib.Path(place)
    KIND healthy(self):
        file = self.place / "say"
        word = file.read_text() if file.exists() else "yes"
        with (self.place / "asked").open("a") as asked:
            asked.write("x")
        if word == "raise":
            raise RuntimeError("secret")
        if word == "exit":
            sys.exit(3)
        while word == "hang":
            SLEEP
            word = file.read_text()
        return SUPER if word == "yes" else None
    def predict(self, payload, headers=None):
        return {"predictions": [1]}
"""
BASE = "import functions\nBase = functions.Model"
PLAIN = "class Base:\n    def __init__(self, name):\n        pass"


def model(kind: str) -> str:
    if kind in ("ready", "computed"):
        return READY if kind == "ready" else COMPUTED
    words = {"KIND": "def", "SLEEP": "time.sleep(0.01)", "SUPER": "True", "BASE": PLAIN}
    if kind == "async":
        words = {
            "KIND": "async def", "SLEEP": "await asyncio.sleep(0.01)",
            "SUPER": "await super().healthy()", "BASE": BASE,
        }  # fmt: skip
    source = HEALTHY
    for word, meant in words.items():
        source = source.replace(word, meant)
    return source


class Probes:
    """All ways to ask."""

    HTTP = ("/v1/models/m", "/v2/models/m/ready", "/v2/health/ready", "/readyz")

    def __init__(self, server: Server) -> None:
        self.server = server
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{server.grpc_port}", options=[("grpc.enable_http_proxy", 0)]
        )

    def call(self, path: str, message: bytes = b"") -> bytes:
        ask: Any = self.channel.unary_unary(path)
        answer: bytes = ask(message, timeout=20)
        return answer

    def answers(self) -> list[Any]:
        found: list[Any] = [self.server.get(path).status for path in self.HTTP]
        asked = oip.ModelReadyRequest(name="m").SerializeToString()
        return [
            *found,
            oip.ModelReadyResponse.FromString(self.call(f"/{oip.SERVICE}/ModelReady", asked)).ready,
            oip.ServerReadyResponse.FromString(self.call(f"/{oip.SERVICE}/ServerReady")).ready,
            self.call("/grpc.health.v1.Health/Check") == b"\x08\x01",
        ]


GOOD = [200, 200, 200, 200, True, True, True]
BAD = [503, 503, 503, 503, False, False, False]


def predict(server: Server) -> Reply:
    return server.post("/v1/models/m:predict", {"instances": [1]})


@pytest.fixture
def started(tmp_path: Path) -> Any:
    """Starts a server of a kind of model; `say(word)` is what it then finds."""

    def start(kind: str, *more: str) -> Any:
        directory = write_model(tmp_path / "model", model(kind))
        return serving(
            "--model-name", "m", "--model-dir", str(directory), "--param", f"place={tmp_path}",
            "--protocol", "v1,v2,grpc-v2", "--grpc-port", "0", *more,
        )  # fmt: skip

    def say(word: str) -> None:
        (tmp_path / "fresh").write_text(word)
        (tmp_path / "fresh").replace(tmp_path / "say")

    return start, say


def reasons(server: Server) -> list[str]:
    return [record["message"] for record in server.logged("model", "m")]


@pytest.mark.parametrize("kind", ["ready", "computed"])
def test_ready_takes_a_model_out_and_back(started: Any, kind: str) -> None:
    start, say = started
    with start(kind) as server:
        probes = Probes(server)
        assert probes.answers() == GOOD
        say("no")
        wait_until(lambda: predict(server).status == 503, "it is out")
        assert probes.answers() == BAD
        refused = predict(server)
        assert refused.error == "Model with name m is not ready: its `ready` is false"
        assert refused.headers["retry-after"] == "1"
        if kind == "computed":
            say("raise")
            assert probes.answers() == BAD
            assert "secret" not in predict(server).error
        assert server.get("/livez").status == 200
        say("yes")
        wait_until(lambda: predict(server).status == 200, "it is back")
        assert probes.answers() == GOOD
        said = [text for text in reasons(server) if "not ready" in text or "again" in text]
        assert said[0] == "model m is not ready: its `ready` is false"
        assert said[-1] == "model m is ready again"
        assert len(said) == (3 if kind == "computed" else 2)
        probes.channel.close()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_healthy_is_asked_by_every_probe(started: Any, kind: str, tmp_path: Path) -> None:
    start, say = started
    with start(kind, "--health-timeout-s", "0.3") as server:
        probes = Probes(server)
        assert probes.answers() == GOOD
        for word in ("no", "raise", "exit", "hang"):
            say(word)
            assert probes.answers() == BAD, word
            # Only probes ask; and what it says is for them.
            assert predict(server).status == 200
        asked = len((tmp_path / "asked").read_text())
        with ThreadPoolExecutor(20) as pool:
            replies = list(pool.map(lambda _: server.get("/readyz").status, range(20)))
        assert replies == [503] * 20
        if kind == "sync":  # the one thread that hangs is all there is
            assert len((tmp_path / "asked").read_text()) == asked
        say("yes")
        wait_until(lambda: probes.answers() == GOOD, "it is back")
        said = [text for text in reasons(server) if "not ready" in text]
        assert [text.removeprefix("model m is not ready: ") for text in said] == [
            "healthy() returned None",
            "healthy() raised an exception: the log has it",
            "healthy() did not answer within 0.3 s",
        ]
        assert any("RuntimeError: secret" in line for line in server.lines)
        probes.channel.close()
