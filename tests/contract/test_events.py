"""`python -m events ...` as processes: settings, statuses, limits, drain, and events that get
through."""

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests import fakes_events as shapes
from tests.seaweed import free_ports

ROOT = Path(__file__).resolve().parents[2]
START_S = 30.0
Call = tuple[str, dict[str, str], bytes]


class Upstream:
    """An HTTP server that answers from a script (the last entry for ever) and remembers
    requests."""

    def __init__(self, *script: tuple[int, dict[str, str], bytes]) -> None:
        self.script = list(script) or [(202, {}, b"")]
        self.calls: list[Call] = []
        self.gate = threading.Event()
        self.gate.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.calls.append((self.path, headers, body))
                outer.gate.wait(20)
                step = outer.script.pop(0) if len(outer.script) > 1 else outer.script[0]
                status, fields, content = step
                self.send_response(status)
                for name, value in fields.items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if status != 204:
                    self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Upstream":
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()


class Program:
    """One running `python -m events ...`."""

    def __init__(self, port: int, process: "subprocess.Popen[str]", log: Path) -> None:
        self.port = port
        self.process = process
        self.log = log

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return response.status, fields, response.read()
        finally:
            connection.close()

    def post(
        self, value: Any, headers: Mapping[str, str] | None = None, path: str = "/"
    ) -> tuple[int, dict[str, str], bytes]:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.request(
            "POST", path, body, {"Content-Type": "application/json", **(headers or {})}
        )

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def running(folder: Path, *arguments: str, **environ: str) -> Iterator[Program]:
    port = free_ports(1)[0]
    log = folder / f"{arguments[0]}.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "events", *arguments],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "PORT": str(port), **environ},
            stderr=stderr,
            text=True,
        )
    program = Program(port, process, log)
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                assert program.request("GET", "/readyz")[0] == 200
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, "did not start"
                time.sleep(0.05)
        yield program
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


EVENT = {
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-source": "/shop",
    "ce-type": "order.placed",
    "ce-subject": "Euro%20%E2%82%AC",
}


# --- adapter --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "subject"),
    [
        (shapes.records(), shapes.KEY),
        (shapes.minio(), "a/b:c.log"),
        (shapes.ceph(), "a+b %41.png"),
        (shapes.event_bridge(), "a+b:%41.png"),
        (shapes.seaweed(), "a/b:c +%41.log"),
        (shapes.records(shapes.aws_record("%C3%BC%E2%82%AC.png")), "ü€.png"),
    ],
)
@pytest.mark.usefixtures("adapter")
def test_adapter_passes_every_shape_on(
    adapter: tuple[Program, Upstream], body: Any, subject: str
) -> None:
    program, sink = adapter
    sink.calls.clear()
    assert program.post(body)[0] == 204
    ((_, headers, data),) = sink.calls
    from urllib.parse import unquote

    assert unquote(headers["ce-subject"]) == subject
    assert headers["ce-type"] == "com.amazonaws.s3.ObjectCreated:Put"
    assert headers["ce-origin"] == "adapter"
    assert json.loads(data)["s3"]["bucket"]["name"] == "mnist"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Program, Upstream]]:
    with (
        Upstream() as sink,
        running(
            tmp_path_factory.mktemp("adapter"),
            "adapter",
            K_SINK=sink.url,
            K_CE_OVERRIDES='{"extensions": {"origin": "adapter"}}',
            TURNOUT_MAX_BODY_BYTES="100000",
            TURNOUT_SNS_VERIFY="false",
        ) as program,
    ):
        yield program, sink


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ((200, {}, b""), 204),
        ((202, {}, b""), 204),
        ((204, {}, b""), 204),
        ((400, {}, b"bad"), 422),
        ((404, {}, b""), 503),
        ((429, {"Retry-After": "3"}, b""), 503),
        ((500, {}, b""), 503),
        ((503, {}, b""), 503),
    ],
)
def test_adapter_acknowledges_only_what_the_sink_took(
    adapter: tuple[Program, Upstream], answer: tuple[int, dict[str, str], bytes], status: int
) -> None:
    program, sink = adapter
    sink.script = [answer]
    found, headers, _ = program.post(shapes.records())
    sink.script = [(202, {}, b"")]
    assert found == status
    if answer[0] == 429:
        assert headers["retry-after"] == "3"


@pytest.mark.parametrize(
    ("method", "body", "headers", "status"),
    [
        ("GET", b"", {}, 405),
        ("PUT", b"", {}, 405),
        ("POST", b"{", {}, 400),
        ("POST", b"", {}, 400),
        ("POST", b"x" * 200_000, {}, 413),
        ("POST", b"{}", {"Content-Type": "application/cloudevents+json"}, 400),
        ("POST", b"<e/>", {"Content-Type": "application/cloudevents+xml"}, 415),
        ("POST", b"", {"ce-id": "1", "ce-specversion": "1.0", "ce-type": "t"}, 400),
        ("POST", b"", {**EVENT, "ce-specversion": "9"}, 400),
        ("POST", b"", {**EVENT, "ce-time": "yesterday"}, 400),
        ("POST", b"", {**EVENT, "ce-subject": "%ff"}, 400),
    ],
)
def test_adapter_refuses_what_it_cannot_read(
    adapter: tuple[Program, Upstream],
    method: str,
    body: bytes,
    headers: dict[str, str],
    status: int,
) -> None:
    program, sink = adapter
    sink.calls.clear()
    found, _, content = program.request(method, "/", body, headers)
    assert found == status
    assert json.loads(content)["error"] if found != 413 else True
    assert sink.calls == []


def test_adapter_speaks_the_webhook_handshake(adapter: tuple[Program, Upstream]) -> None:
    asked = {"WebHook-Request-Origin": "events.example", "WebHook-Request-Rate": "100"}
    status, headers, _ = adapter[0].request("OPTIONS", "/", headers=asked)
    assert status == 200
    assert headers["webhook-allowed-origin"] == "events.example"
    assert headers["webhook-allowed-rate"] == "*"
    assert headers["allow"].startswith("POST")


def test_adapter_takes_a_batch(adapter: tuple[Program, Upstream]) -> None:
    program, sink = adapter
    sink.calls.clear()
    one = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"n": 1}}
    two = {**one, "id": "2", "data_base64": "AAE=", "datacontenttype": "image/png"}
    del two["data"]
    status, _, _ = program.post([one, two], {"Content-Type": "application/cloudevents-batch+json"})
    assert status == 204
    assert [call[1]["ce-id"] for call in sink.calls] == ["1", "2"]
    assert sink.calls[1][2] == b"\x00\x01"


def test_adapter_says_what_it_did(adapter: tuple[Program, Upstream]) -> None:
    program, _ = adapter
    assert program.post(shapes.records())[0] == 204
    text = program.request("GET", "/metrics")[2].decode()
    assert 'turnout_adapter_notifications_total{kind="records"}' in text
    line = next(x for x in reversed(program.lines()) if x["message"] == "event delivered")
    assert line["event_type"] == "com.amazonaws.s3.ObjectCreated:Put"
    assert line["event_id"].startswith("REQ.HOST.")
    assert list(line)[:5] == ["ts", "level", "unit", "logger", "message"]


def test_adapter_with_credentials_and_a_list_of_buckets(tmp_path: Path) -> None:
    with (
        Upstream() as sink,
        running(
            tmp_path,
            "adapter",
            K_SINK=sink.url,
            TURNOUT_TOKEN="secret",
            TURNOUT_BUCKETS="mnist",
            TURNOUT_RATE_PER_SECOND="500",
        ) as program,
    ):
        asked = {"WebHook-Request-Origin": "events.example", "WebHook-Request-Rate": "100"}
        allowed = program.request("OPTIONS", "/", headers=asked)[1]["webhook-allowed-rate"]
        assert allowed == "30000"  # a minute
        assert program.post(shapes.records())[0] == 401
        bearer = {"Authorization": "Bearer secret"}
        assert program.post(shapes.records(), bearer)[0] == 204
        assert program.post(shapes.records(), path="/?access_token=secret")[0] == 204
        other = shapes.aws_record()
        other["s3"]["bucket"]["name"] = "other"
        assert program.post(shapes.records(other), bearer)[0] == 403
        assert len(sink.calls) == 2


def test_adapter_holds_only_so_many_at_once(tmp_path: Path) -> None:
    environ = {"TURNOUT_MAX_IN_FLIGHT": "1"}
    with Upstream() as sink, running(tmp_path, "adapter", K_SINK=sink.url, **environ) as program:
        sink.gate.clear()
        results: list[int] = []
        first = threading.Thread(target=lambda: results.append(program.post(shapes.records())[0]))
        first.start()
        deadline = time.monotonic() + 10
        while not sink.calls:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        status, headers, _ = program.post(shapes.records())
        assert (status, headers["retry-after"]) == (429, "1")
        sink.gate.set()
        first.join(10)
        assert results == [204]
        assert program.post(shapes.records())[0] == 204


def test_adapter_without_a_sink_in_reach_loses_nothing(tmp_path: Path) -> None:
    with running(tmp_path, "adapter", K_SINK="http://127.0.0.1:9/") as program:
        status, headers, _ = program.post(shapes.records())
        assert status == 503
        assert "retry-after" in headers


# --- sink -----------------------------------------------------------------------------------------
def spec(url: str, **more: Any) -> str:
    return json.dumps(
        {
            "name": "orders",
            "source": {"filters": [{"exact": {"type": "order.placed"}}]},
            "target": {"url": url},
            "request": {"template": {"instances": ["{$.amount}"]}},
            "result": {"reply": {"type": "order.scored"}},
            **more,
        }
    )


ANSWER = (200, {"Content-Type": "application/json"}, b'{"predictions": [0.10]}')


def test_sink_replies_with_an_event_and_repeats_it_for_a_redelivery(tmp_path: Path) -> None:
    with Upstream(ANSWER) as graph, running(tmp_path, "sink", SINK_SPEC=spec(graph.url)) as program:
        first = program.post({"amount": 7}, EVENT)
        again = program.post({"amount": 7}, EVENT)
        assert first[0] == again[0] == 200
        for status, headers, body in (first, again):
            assert status == 200
            assert headers["ce-type"] == "order.scored"
            assert headers["ce-causationid"] == "1"
            assert headers["ce-subject"] == "Euro%20%E2%82%AC"
            assert body == b'{"predictions": [0.10]}'
        assert first[1]["ce-id"] == again[1]["ce-id"]
        assert [json.loads(call[2]) for call in graph.calls] == [{"instances": [7]}]
        other = program.post({"amount": 7}, {**EVENT, "ce-type": "other"})
        assert (other[0], other[2]) == (204, b"")
        structured = {"specversion": "1.0", "id": "2", "source": "/shop", "type": "order.placed"}
        sent = {"Content-Type": "application/cloudevents+json"}
        assert program.post({**structured, "data": {"amount": 8}}, sent)[0] == 200
        text = program.request("GET", "/metrics")[2].decode()
        assert 'turnout_sink_events_total{kind="replied"} 2' in text
        assert 'turnout_sink_events_total{kind="duplicate"} 1' in text


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ((400, {"Content-Type": "application/json"}, b'{"error": "no"}'), 422),
        ((500, {}, b""), 503),
        ((429, {"Retry-After": "4"}, b""), 503),
        ((503, {}, b""), 503),
        ((200, {}, b"not json"), 422),
    ],
)
def test_sink_tells_final_from_temporary(
    tmp_path: Path, answer: tuple[int, dict[str, str], bytes], status: int
) -> None:
    changes = {"result": {"reply": {"type": "t", "data": {"x": "{$.predictions[0]}"}}}}
    with (
        Upstream(answer) as graph,
        running(tmp_path, "sink", SINK_SPEC=spec(graph.url, **changes)) as program,
    ):
        found, headers, body = program.post({"amount": 7}, EVENT)
        assert found == status
        assert json.loads(body)["error"]
        assert ("retry-after" in headers) is (status == 503)
        if answer[0] == 429:
            assert headers["retry-after"] == "4"


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/", b"", {}, 405),
        ("POST", "/nowhere", b"", {}, 404),
        ("POST", "/", b"{}", {"Content-Type": "application/json"}, 400),
        ("POST", "/", b"{", {"Content-Type": "application/cloudevents+json"}, 400),
        ("POST", "/", b"[]", {"Content-Type": "application/cloudevents-batch+json"}, 400),
        ("POST", "/", b"x" * 10_000_000, EVENT, 413),
        ("POST", "/", b"not json", {**EVENT, "Content-Type": "application/json"}, 400),
    ],
)
def test_sink_refuses_what_it_cannot_read(
    tmp_path_factory: pytest.TempPathFactory,
    sink: Program,
    method: str,
    path: str,
    body: bytes,
    headers: dict[str, str],
    status: int,
) -> None:
    assert sink.request(method, path, body, headers)[0] == status


@pytest.fixture(scope="module")
def sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("sink")
    with (
        Upstream(ANSWER) as graph,
        running(folder, "sink", "--spec-json", spec(graph.url)) as found,
    ):
        yield found


def test_sink_buries_dead_letters_loudly(sink: Program) -> None:
    letter = {**EVENT, "ce-knativeerrorcode": "422", "ce-knativeerrordest": "http://x"}
    letter["ce-knativeerrordata"] = base64.b64encode(b'{"error": "not in bucket"}').decode()
    assert sink.request("POST", "/dead-letters", b"", letter)[0] == 204
    line = next(x for x in sink.lines() if x["message"] == "dead letter")
    assert (line["level"], line["event_id"], line["error_code"]) == ("ERROR", "1", "422")
    assert line["reason"] == "not in bucket"


def test_sink_hears_out_the_dead_letter_of_an_event_that_was_too_large(sink: Program) -> None:
    letter = {**EVENT, "ce-id": "large", "ce-knativeerrorcode": "413"}
    assert sink.request("POST", "/dead-letters", b"x" * 10_000_000, letter)[0] == 204
    lines = [line for line in sink.lines() if line.get("event_id") == "large"]
    assert [line["message"] for line in lines] == ["dead letter"]


def test_sink_finishes_what_it_began_and_exits_0(tmp_path: Path) -> None:
    with Upstream(ANSWER) as graph, running(tmp_path, "sink", SINK_SPEC=spec(graph.url)) as program:
        graph.gate.clear()
        results: list[int] = []
        thread = threading.Thread(
            target=lambda: results.append(program.post({"amount": 1}, EVENT)[0])
        )
        thread.start()
        deadline = time.monotonic() + 10
        while not graph.calls:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        program.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)  # the signal must be there before the answer
        graph.gate.set()
        thread.join(15)
        assert results == [200]
        assert program.process.wait(15) == 0


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_asynchronous_requests(tmp_path: Path, store: str) -> None:
    dedupe = {"store": store, "path": str(tmp_path / "j.sqlite")}
    environ = {"SINK_SPEC": ""}
    with Upstream(ANSWER) as graph:
        environ["SINK_SPEC"] = spec(graph.url, dedupe=dedupe)
        with running(tmp_path, "sink", **environ) as program:
            graph.gate.clear()
            prefer = {"Prefer": "respond-async", "Idempotency-Key": "k"}
            status, headers, body = program.post({"instances": [1]}, prefer)
            assert status == 202
            url = headers["location"]
            assert json.loads(body)["url"] == url
            assert program.request("GET", url)[0] == 202
            assert program.post({"instances": [1]}, prefer)[1]["location"] == url
            graph.gate.set()
            deadline = time.monotonic() + 10
            while (found := program.request("GET", url))[0] == 202:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert (found[0], found[2]) == (200, ANSWER[2])
            direct = program.post({"instances": [2]}, {"Prefer": "respond-async, wait=10"})
            assert (direct[0], direct[2]) == (200, ANSWER[2])
            assert program.request("GET", "/jobs/unknown")[0] == 404
            assert len(graph.calls) == 2
            program.process.kill()
            program.process.wait(10)
        with running(tmp_path, "sink", **environ) as program:
            assert program.request("GET", url)[0] == (200 if store == "sqlite" else 404)
            assert program.request("DELETE", url)[0] == (204 if store == "sqlite" else 404)
            assert program.request("GET", url)[0] == 404


def test_a_job_under_way_is_finished_before_the_sink_ends(tmp_path: Path) -> None:
    dedupe = {"store": "sqlite", "path": str(tmp_path / "j.sqlite")}
    with Upstream(ANSWER) as graph:
        environ = {"SINK_SPEC": spec(graph.url, dedupe=dedupe)}
        with running(tmp_path, "sink", **environ) as program:
            graph.gate.clear()
            url = program.post({"instances": [1]}, {"Prefer": "respond-async"})[1]["location"]
            deadline = time.monotonic() + 10
            while not graph.calls:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            program.process.terminate()
            while not any(line["message"] == "draining" for line in program.lines()):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            graph.gate.set()
            assert program.process.wait(20) == 0
        with running(tmp_path, "sink", **environ) as program:
            status, headers, body = program.request("GET", url)
        assert (status, headers["turnout-job"], body) == (200, "done", ANSWER[2])
        assert len(graph.calls) == 1


def answers(program: Program) -> bool:
    try:
        program.request("GET", "/readyz")
    except OSError:
        return False
    return True


def test_a_killed_master_leaves_no_worker_behind(tmp_path: Path) -> None:
    with running(tmp_path, "adapter", K_SINK="http://127.0.0.1:9/") as program:
        program.process.kill()
        program.process.wait(10)
        deadline = time.monotonic() + 20
        while answers(program):
            assert time.monotonic() < deadline, "a worker still holds the port"
            time.sleep(0.1)


# --- configuration --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "environ", "named"),
    [
        (["adapter"], {}, ["K_SINK=''"]),
        (
            ["adapter"],
            {"K_SINK": "broker", "PORT": "http", "TURNOUT_USER": "u", "K_CE_OVERRIDES": "{"},
            ["K_SINK='broker'", "PORT='http'", "TURNOUT_USER", "K_CE_OVERRIDES"],
        ),
        (["adapter"], {"K_SINK": "https://b", "K_CA_CERTS": "x"}, ["K_CA_CERTS"]),
        (["sqs"], {"K_SINK": "http://b"}, ["TURNOUT_SQS_QUEUE_URL"]),
        (["sink"], {}, ["SINK_SPEC"]),
        (["sink"], {"SINK_SPEC": "{"}, ["SINK_SPEC"]),
        (["sink", "--spec-file", "/nowhere.json"], {}, ["/nowhere.json"]),
        (
            ["sink", "--check", "--spec-json", '{"source": {}, "result": {"reply": {}}}'],
            {},
            ["target", "source", "result.reply.type"],
        ),
        ([], {}, ["usage"]),
        (["dance"], {}, ["dance"]),
    ],
)
def test_bad_configuration_names_everything_and_exits_2(
    arguments: list[str], environ: dict[str, str], named: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "events", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    for text in named:
        assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_check_of_a_good_specification_exits_0() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "events", "sink", "--check", "--spec-json", spec("http://g")],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


BUDGETS = {
    "events": (100, ("flask", "boto3", "cloudevents", "urllib3", "jsonpath_ng")),
    "events.sink_app": (520, ("boto3", "urllib3", "kubernetes", "numpy", "cryptography")),
    "events.adapter_app": (
        520,
        ("boto3", "urllib3", "kubernetes", "numpy", "cryptography", "jsonpath_ng"),
    ),
    "events.spec_check": (160, ("flask", "boto3", "cloudevents", "urllib3", "requests")),
}


@pytest.mark.parametrize("module", BUDGETS)
def test_import_budgets(module: str) -> None:
    most, never = BUDGETS[module]
    loaded_ones = f"[m for m in {never!r} if m in sys.modules]"
    code = f"import sys, {module}; print(len(sys.modules), *{loaded_ones})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    count, *loaded = done.stdout.split()
    assert loaded == []
    assert int(count) <= most
