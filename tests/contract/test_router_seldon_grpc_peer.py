"""Nodes that are seldon-core's own microservice, called over gRPC by our router.

`make peers` installs seldon-core 1.17.1 (Apache-2.0) in an environment of its own.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_router_seldon import deployment, predictor
from tests.contract.test_router_seldon_grpc import CLASSES, ask
from tests.fakes_router import ROOT, RouterProcess, free_port, router, wait_until

PEER = ROOT / ".venvs" / "seldon-core"

pytestmark = pytest.mark.skipif(
    not (PEER / ".installed").exists(), reason="seldon-core is not here: make peers"
)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RouterProcess]:
    folder: Path = tmp_path_factory.mktemp("peer")
    (folder / "Everything.py").write_text(CLASSES)
    http, grpc, metrics = free_port(), free_port(), free_port()
    environ = {
        **os.environ,
        "PREDICTIVE_UNIT_HTTP_SERVICE_PORT": str(http),
        "PREDICTIVE_UNIT_GRPC_SERVICE_PORT": str(grpc),
        "PREDICTIVE_UNIT_METRICS_SERVICE_PORT": str(metrics),
        "PREDICTIVE_UNIT_ID": "peer",
        "PREDICTIVE_UNIT_IMAGE": "img/peer:1",
    }
    command = [str(PEER / "bin" / "seldon-core-microservice"), "Everything"]
    with subprocess.Popen(
        command, cwd=folder, env=environ, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            wait_until(lambda: listens(grpc), "the microservice", 60)

            def at(name: str, kind: str, *children: Any) -> dict[str, Any]:
                url = f"grpc://127.0.0.1:{grpc}"
                return {"name": name, "type": kind, "serviceUrl": url, "children": list(children)}

            combined = at("c", "COMBINER", at("a", "MODEL"), at("b", "MODEL"))
            chosen = at("r", "ROUTER", at("one", "MODEL"), combined)
            tree = at("t", "TRANSFORMER", at("o", "OUTPUT_TRANSFORMER", chosen))
            with router(deployment(predictor(tree))) as served:
                yield served
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(("first", "route"), [(1, 0), (1.5, 1)])
def test_every_duty_of_theirs_is_called(graph: RouterProcess, first: float, route: int) -> None:
    answer = ask(graph, {"data": {"ndarray": [[first, 4]]}})
    assert answer.status == 200, answer.body
    assert answer.json["data"]["ndarray"] == [[2 * first + 1, 9]]
    assert answer.json["meta"]["routing"]["r"] == route
    assert answer.json["meta"]["requestPath"] == {"peer": "img/peer:1"}


def test_feedback_metadata_and_status_of_theirs(graph: RouterProcess) -> None:
    body = {"request": {"data": {"ndarray": [[1]]}}, "reward": 0.5}
    assert ask(graph, body, "/api/v1.0/feedback").status == 200
    told = graph.request("GET", "/api/v1.0/metadata/r")
    assert (told.status, told.json["name"]) == (200, "img/peer")
    assert graph.request("GET", "/api/v1.0/status/r").status == 200


def test_their_errors_are_answers(graph: RouterProcess) -> None:
    answer = ask(graph, {"strData": "boom"})
    assert (answer.status, answer.json["status"]["status"]) == (500, "FAILURE")
    assert "bad thing" in answer.json["status"]["info"]
