"""CloudEvents conformance as Gherkin, against a running adapter: `features/` here, and with
`CLOUDEVENTS_FEATURES=DIR` those of a checkout of github.com/cloudevents/conformance as well (its
HTTP binding; nobody here speaks Kafka). The steps understand its phrases."""

import contextlib
import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from gherkin.parser import Parser
from gherkin.pickles.compiler import Compiler

from tests.contract.test_events import Program, Upstream, running

HERE = Path(__file__).parent / "features"
THEIRS = os.environ.get("CLOUDEVENTS_FEATURES")


def scenarios(folder: Path) -> list[Any]:
    """Every scenario of the HTTP binding, outlines expanded to their examples."""
    found = []
    for file in sorted(folder.glob("http*.feature")):
        document: Any = {**Parser().parse(file.read_text(encoding="utf-8")), "uri": file.name}
        found += [
            pytest.param(pickle, id=pickle["name"]) for pickle in Compiler().compile(document)
        ]
    return found


class World:
    """One scenario: the request, its answer, and what the adapter's sink got."""

    def __init__(self, adapter: Program, broker: Upstream) -> None:
        self.adapter = adapter
        self.broker = broker
        self.request = b""
        self.status = 0
        broker.calls.clear()

    @property
    def event(self) -> dict[str, str]:
        """Attributes of the one event that arrived, read without our codec or the SDK."""
        ((_, headers, _),) = self.broker.calls
        found = {name[3:]: unquote(text) for name, text in headers.items() if name[:3] == "ce-"}
        if "content-type" in headers:
            found["datacontenttype"] = headers["content-type"]
        return found

    @property
    def data(self) -> bytes:
        return self.broker.calls[0][2]


Step = Callable[..., None]
STEPS: list[tuple[re.Pattern[str], Step]] = []


def step(phrase: str) -> Callable[[Step], Step]:
    def register(function: Step) -> Step:
        STEPS.append((re.compile(phrase), function))
        return function

    return register


@step("HTTP Protocol Binding is supported")
def ready(world: World) -> None:
    assert world.adapter.request("GET", "/readyz")[0] == 200


@step("an HTTP request")
def given_request(world: World, text: str) -> None:
    """Lines as HTTP wants them; the length is ours to say where the scenario does not."""
    head, _, body = text.partition("\n\n")
    lines = [line for line in head.split("\n") if line]
    content = body.encode()
    if not any(line.lower().startswith("content-length:") for line in lines):
        lines.append(f"Content-Length: {len(content)}")
    world.request = "\r\n".join([*lines, "Connection: close", "", ""]).encode() + content


@step("parsed as HTTP request")
def send(world: World) -> None:
    with socket.create_connection(("127.0.0.1", world.adapter.port), timeout=30) as connection:
        connection.sendall(world.request)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while received := connection.recv(65536):
                answer += received
    world.status = int(answer.split(b" ", 2)[1])


@step("the attributes are:")
def attributes(world: World, rows: list[list[str]]) -> None:
    assert world.status == 204
    assert world.event == dict(rows[1:])


@step("the data is equal to the following JSON:")
def data_is_json(world: World, text: str) -> None:
    assert json.loads(world.data) == json.loads(text)


@step('the data is the text "(.*)"')
def data_is_text(world: World, text: str) -> None:
    assert world.data.decode() == text


@step("the answer is ([0-9]+)")
def answered(world: World, status: str) -> None:
    assert world.status == int(status)


@step("([0-9]+) events arrive")
def arrived(world: World, count: str) -> None:
    assert len(world.broker.calls) == int(count)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Program, Upstream]]:
    folder = tmp_path_factory.mktemp("conformance")
    with Upstream() as broker, running(folder, "adapter", K_SINK=broker.url) as adapter:
        yield adapter, broker


def play(pickle: Any, servers: tuple[Program, Upstream]) -> None:
    world = World(*servers)
    for one in pickle["steps"]:
        ((found, function),) = [
            (match, function)
            for pattern, function in STEPS
            if (match := pattern.fullmatch(one["text"]))
        ]
        argument = one.get("argument", {})
        arguments: list[Any] = [*found.groups()]
        if "docString" in argument:
            arguments.append(argument["docString"]["content"])
        if "dataTable" in argument:
            rows = argument["dataTable"]["rows"]
            arguments.append([[cell["value"] for cell in row["cells"]] for row in rows])
        function(world, *arguments)


@pytest.mark.parametrize("pickle", scenarios(HERE))
def test_scenario(pickle: Any, servers: tuple[Program, Upstream]) -> None:
    play(pickle, servers)


@pytest.mark.skipif(not THEIRS, reason="CLOUDEVENTS_FEATURES names no folder of features")
@pytest.mark.parametrize("pickle", scenarios(Path(THEIRS)) if THEIRS else [])
def test_their_scenario(pickle: Any, servers: tuple[Program, Upstream]) -> None:
    play(pickle, servers)
