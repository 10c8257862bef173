"""Seldon graphs that are watched: payload events, spans, nodes of the same pod; several
processes."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_router_seldon import MESSAGE, deployment, predictor
from tests.fakes_router import (
    Conversation,
    FakeUpstream,
    RouterProcess,
    free_port,
    router,
    says,
    upstream,
    wait_until,
)

ANSWER = b'{"data":{"ndarray":[[9]]}}'
JSON = "application/json"


# --- payload log ----------------------------------------------------------------------------------


@pytest.fixture
def logged() -> Iterator[tuple[RouterProcess, FakeUpstream, FakeUpstream]]:
    """A router node that logs requests, below it a model that logs all, and one that does not."""
    routes = {
        "/r/route": says(b"[0]", Content_Type=JSON),
        "/a/predict": says(ANSWER, Content_Type=JSON),
        "/a/send-feedback": says(b"{}", Content_Type=JSON),
        "/r/send-feedback": says(b"{}", Content_Type=JSON),
    }
    with upstream(routes) as nodes, upstream({"/events": says(b"", 202)}) as broker:

        def at(name: str, mode: str = "", **fields: Any) -> dict[str, Any]:
            url = f"{broker.url}/events"
            log = {"logger": {"url": url, "mode": mode}} if mode else {}
            return {"name": name, "serviceUrl": f"{nodes.url}/{name}", **log, **fields}

        tree = at("r", "request", type="ROUTER", children=[at("a", "all"), at("b")])
        with router(deployment(predictor(tree))) as process:
            yield process, nodes, broker


def events(broker: FakeUpstream, count: int) -> list[dict[str, str]]:
    wait_until(lambda: len(broker.seen) >= count, "it")
    found = [
        {**{k[3:]: v for k, v in s.headers.items() if k.startswith("ce-")}, "body": s.body.decode()}
        for s in broker.seen
    ]
    broker.seen.clear()
    return sorted(found, key=lambda event: (event["modelid"], event["type"]))


def test_payloads_go_to_the_broker(
    logged: tuple[RouterProcess, FakeUpstream, FakeUpstream],
) -> None:
    process, _, broker = logged
    process.request("POST", "/api/v1.0/predictions", MESSAGE, Content_Type=JSON, Seldon_Puid="p")
    request, response, root = events(broker, 3)
    kind = "io.seldon.serving.inference"
    assert [request["type"], response["type"]] == [f"{kind}.request", f"{kind}.response"]
    assert (request["modelid"], root["modelid"]) == ("a", "r")
    assert (request["body"], response["body"]) == (MESSAGE.decode(), ANSWER.decode())
    assert root["type"] == f"{kind}.request"
    common = {"requestid": "p", "specversion": "1.0", "inferenceservicename": "pets"}
    common |= {"namespace": "zoo", "endpoint": "main", "protocol": "seldon"}
    assert common.items() <= request.items()
    assert request["source"] == "http://pets.zoo.svc.cluster.local/"
    assert len({request["id"], response["id"], root["id"], "p"}) == 4


def test_feedback_is_logged_where_answers_are(
    logged: tuple[RouterProcess, FakeUpstream, FakeUpstream],
) -> None:
    process, nodes, broker = logged
    body = b'{"reward":1,"response":{"meta":{"routing":{"r":0}}}}'
    assert process.request("POST", "/api/v1.0/feedback", body).status == 200
    (event,) = events(broker, 1)
    assert (event["type"], event["modelid"]) == ("io.seldon.serving.feedback", "a")
    assert event["body"] == body.decode()
    assert nodes.paths() == ["/a/send-feedback", "/r/send-feedback"]


@pytest.mark.parametrize("word", ["true", "On", "1"])
def test_a_request_may_ask_not_to_be_logged(
    logged: tuple[RouterProcess, FakeUpstream, FakeUpstream], word: str
) -> None:
    process, _, broker = logged
    path = "/api/v1.0/predictions"
    process.request("POST", path, b'{"strData":"secret"}', Seldon_Skip_Logging=word)
    process.request("POST", path, b'{"strData":"public"}', Seldon_Skip_Logging="false")
    assert {event["body"] for event in events(broker, 3)} == {
        '{"strData":"public"}',
        ANSWER.decode(),
    }


def test_packed_bodies_are_logged_plain(
    logged: tuple[RouterProcess, FakeUpstream, FakeUpstream],
) -> None:
    process, _, broker = logged
    packed = gzip.compress(MESSAGE)
    process.request("POST", "/api/v1.0/predictions", packed, Content_Encoding="gzip")
    assert {event["body"] for event in events(broker, 3)} == {MESSAGE.decode(), ANSWER.decode()}


def test_a_broker_that_fails_or_is_not_there_costs_nobody_a_request() -> None:
    with upstream({"/a/predict": says(ANSWER), "/events": says(b"", 500)}) as fake:
        for url in (f"{fake.url}/events", f"http://127.0.0.1:{free_port()}/"):
            root = {
                "name": "a",
                "serviceUrl": f"{fake.url}/a",
                "logger": {"url": url, "mode": "all"},
            }
            with router(deployment(predictor(root))) as process:
                for _ in range(3):
                    answer = process.request("POST", "/api/v1.0/predictions", MESSAGE)
                    assert (answer.status, answer.json["data"]) == (200, {"ndarray": [[9]]})
                wait_until(lambda p=process: "cannot be logged" in str(p.log_lines()), "it")


def test_what_does_not_fit_is_dropped_and_told() -> None:
    def sticks(talk: Conversation) -> None:
        talk.client_gone(30)

    with upstream({"/a/predict": says(ANSWER)}) as nodes, upstream({}, sticks) as broker:
        log = {"url": f"{broker.url}/e", "mode": "request"}
        root = {"name": "a", "serviceUrl": f"{nodes.url}/a", "logger": log}
        with router(deployment(predictor(root), logQueueSize=2)) as process:
            for _ in range(14):  # ten are under way, two wait
                assert process.request("POST", "/api/v1.0/predictions", MESSAGE).status == 200
            wait_until(lambda: "payload log is behind" in str(process.log_lines()), "it")


@pytest.mark.parametrize(
    "logger", [{"url": "x", "mode": "all"}, {"url": "http://x", "mode": "no"}, 3]
)
def test_a_logger_that_cannot_be_is_refused(logger: Any) -> None:
    from router_fn.seldon import graph

    root = {"name": "a", "serviceUrl": "http://a", "logger": logger}
    problems = graph.check(deployment(predictor(root)))
    assert any("logger" in path for _, path, _ in problems)


# --- spans ----------------------------------------------------------------------------------------


def test_every_call_is_a_span_of_the_clients_trace() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    routes = {
        "/t/transform-input": says(MESSAGE, Content_Type=JSON),
        "/m/predict": says(ANSWER, Content_Type=JSON),
        "/v1/traces": says(b"{}"),
    }
    with upstream(routes) as fake:
        child = {"name": "m", "serviceUrl": f"{fake.url}/m"}
        root = {"name": "t", "type": "TRANSFORMER", "serviceUrl": f"{fake.url}/t"}
        spec = deployment(predictor({**root, "children": [child]}))
        with router(spec, OTEL_EXPORTER_OTLP_ENDPOINT=fake.url) as process:
            process.request(
                "POST", "/api/v1.0/predictions", MESSAGE,
                Traceparent=f"00-{trace}-b7ad6b7169203331-01",
            )  # fmt: skip
            wait_until(lambda: "/v1/traces" in fake.paths(), "it")
        spans = {
            span["name"]: span
            for seen in fake.seen
            if seen.path == "/v1/traces"
            for resource in json.loads(seen.body)["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        }
        assert set(spans) == {"graph", "t", "m"}
        assert {span["traceId"] for span in spans.values()} == {trace}
        assert spans["graph"]["parentSpanId"] == "b7ad6b7169203331"
        assert spans["m"]["parentSpanId"] == spans["graph"]["spanId"]
        sent = {
            seen.path: seen.headers["traceparent"] for seen in fake.seen if seen.path[1] in "tm"
        }
        assert sent["/m/predict"] == f"00-{trace}-{spans['m']['spanId']}-01"


def test_without_a_collector_the_clients_trace_goes_through() -> None:
    with upstream({"/m/predict": says(ANSWER)}) as fake:
        root = {"name": "m", "serviceUrl": f"{fake.url}/m"}
        with router(deployment(predictor(root))) as process:
            parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            process.request("POST", "/api/v1.0/predictions", MESSAGE, Traceparent=parent)
        assert fake.seen[-1].headers["traceparent"] == parent


# --- nodes of the same pod ------------------------------------------------------------------------


def test_the_router_is_ready_when_the_nodes_of_its_pod_are() -> None:
    state = {"status": 503}

    def health(talk: Conversation) -> None:
        talk.answer(b"", state["status"])

    with upstream({"/health": health}) as fake:
        first = {"name": "a", "serviceUrl": fake.url, "health": "/health"}
        second = {"name": "b", "serviceUrl": fake.url.replace("http", "grpc"), "health": "tcp"}
        apart = {"name": "c", "serviceUrl": f"http://127.0.0.1:{free_port()}"}
        root = {**first, "children": [{**second, "children": [apart]}]}
        process = RouterProcess(deployment(predictor(root)))
        try:
            wait_until(lambda: "/health" in fake.paths(), "it")
            answer = process.request("GET", "/ready")
            assert answer.status == 503
            wait_until(lambda: process.request("GET", "/ready").body == b"not ready: a\n", "it")
            assert process.request("GET", "/live").status == 200
            state["status"] = 200
            wait_until(lambda: process.request("GET", "/ready").status == 200, "it")
            state["status"] = 500
            wait_until(lambda: process.request("GET", "/readyz").status == 503, "it")
        finally:
            process.stop()


# --- several processes ----------------------------------------------------------------------------


def test_several_processes_share_the_port() -> None:
    with upstream({"/m/predict": says(ANSWER)}) as fake:
        root = {"name": "m", "serviceUrl": f"{fake.url}/m"}
        with router(deployment(predictor(root)), WEB_CONCURRENCY="2") as process:
            listed = f"/proc/{process.process.pid}/task/{process.process.pid}/children"
            wait_until(lambda: len(Path(listed).read_text().split()) == 2, "two workers")
            for _ in range(20):
                assert process.request("POST", "/api/v1.0/predictions", MESSAGE).status == 200
