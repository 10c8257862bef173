"""What operators see: metrics, the graph, spans, logs; and several workers on one port."""

import json
import os
import re
import signal

import pytest

from tests import fakes_router as fakes
from tests.fakes_router import (
    Answer,
    graph,
    in_turn,
    inspect,
    node,
    router,
    says,
    sequence,
    upstream,
)

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def admin(port: int, path: str, body: bytes | None = None) -> Answer:
    import http.client

    link = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        link.request("GET" if body is None else "POST", path, body)
        response = link.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        link.close()


def value(text: str, series: str) -> float:
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.M)
    assert found, f"{series} in\n{text}"
    return float(found[1])


def test_metrics_count_requests_steps_policies_and_connections() -> None:
    port = fakes.free_port()
    with upstream({"/b": in_turn(says(status=503), says(b"{}"), says(status=404))}) as up:
        spec = sequence(
            {"serviceUrl": up.url + "/a"},
            {"name": "b", "serviceUrl": up.url + "/b", "retries": {"attempts": 1, "initialMs": 1}},
        )
        with router(spec, METRICS_PORT=str(port)) as served:
            assert [served.request().status for _ in range(2)] == [200, 404]
            text = admin(port, "/metrics").body.decode()
    assert value(text, 'turnout_requests_total{status="200"}') == 1
    assert value(text, 'turnout_requests_total{status="404"}') == 1
    assert value(text, "turnout_request_seconds_count") == 2
    assert value(text, 'turnout_step_calls_total{step="root/b",outcome="503"}') == 1
    assert value(text, 'turnout_step_seconds_bucket{step="root/0",le="+Inf"}') == 2
    assert value(text, 'turnout_step_policies_total{policy="retries",step="root/b"}') == 1
    assert value(text, f'turnout_upstream_connections{{upstream="{up.url}"}}') >= 1
    for line in text.splitlines():
        assert re.fullmatch(r"#.*|[a-z_]+(\{[^{}]*\})? [0-9.e+-]+", line), line


def test_the_graph_and_the_path_of_a_body_on_the_second_port_only() -> None:
    port = fakes.free_port()
    with upstream() as up:
        spec = graph(
            node(
                "Switch",
                {"name": "a", "serviceUrl": up.url + "/a", "condition": "a"},
                {"name": "rest", "serviceUrl": up.url + "/r", "default": True},
            )
        )
        with router(spec, METRICS_PORT=str(port)) as served:
            assert admin(port, "/graph").json == spec
            drawn = admin(port, "/graph?format=mermaid").body.decode()
            path = admin(port, "/graph/route", b'{"a":1}').json
            assert admin(port, "/nothing").status == 404
            assert admin(port, "/readyz").status == 200
            assert up.seen == []
            served.request(path="/metrics")
            assert up.paths() == ["/r"]
    assert "flowchart LR" in drawn
    assert 'n_root -- "a: a" -->' in drawn
    assert [(one["step"], one["certainty"]) for one in path] == [("a", "sure"), ("rest", "skipped")]


def spans_of(up: fakes.FakeUpstream) -> list[dict[str, object]]:
    out: list[dict[str, object]] = []
    for seen in list(up.seen):
        if seen.path == "/v1/traces":
            out += seen.json["resourceSpans"][0]["scopeSpans"][0]["spans"]
    return out


def test_spans_continue_the_clients_trace_one_child_per_call() -> None:
    with upstream({"/v1/traces": says(b"{}"), "/a": inspect, "/b": says(b"{}", status=503)}) as up:
        spec = sequence(
            {"name": "a", "serviceUrl": up.url + "/a"}, {"name": "b", "serviceUrl": up.url + "/b"}
        )
        with router(
            spec,
            OTEL_EXPORTER_OTLP_ENDPOINT=up.url,
            K_SERVICE="pets",
            OTEL_EXPORTER_OTLP_HEADERS="x-key=s%20k",
        ) as served:
            served.request(Traceparent=PARENT, Tracestate="v=1")
            spans = fakes.wait_until(lambda: len(s := spans_of(up)) == 3 and s, "three spans")
    server = next(span for span in spans if span["name"] == "graph")
    steps = {span["name"]: span for span in spans if span is not server}
    assert server["parentSpanId"] == "00f067aa0ba902b7"
    assert {span["traceId"] for span in spans} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    assert {span["parentSpanId"] for span in steps.values()} == {server["spanId"]}
    assert steps["root/b"]["status"] == {"code": 2, "message": "status 503"}
    called = next(seen for seen in up.seen if seen.path == "/a")
    assert (
        called.headers["traceparent"]
        == f"00-4bf92f3577b34da6a3ce929d0e0e4736-{steps['root/a']['spanId']}-01"
    )
    assert called.headers["tracestate"] == "v=1"
    export = next(seen for seen in up.seen if seen.path == "/v1/traces")
    assert export.headers["x-key"] == "s k"
    assert "pets" in export.body.decode()


def test_a_trace_that_is_not_sampled_stays_so_and_a_propagated_header_is_not_doubled() -> None:
    with upstream({"/v1/traces": says(b"{}"), "/a": inspect}) as up:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": up.url, "PROPAGATE_HEADERS": "Traceparent"}
        with router(sequence({"serviceUrl": up.url + "/a"}), **env) as served:
            served.request(Traceparent=PARENT[:-2] + "00")
        sent = next(seen for seen in up.seen if seen.path == "/a").headers["traceparent"]
    assert sent.startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")
    assert sent.endswith("-00")
    assert spans_of(up) == []


def test_without_a_collector_a_propagated_traceparent_passes_as_it_is() -> None:
    with (
        upstream(default=inspect) as up,
        router(sequence({"serviceUrl": up.url}), PROPAGATE_HEADERS="Traceparent") as served,
    ):
        assert served.request(Traceparent=PARENT).json["headers"]["traceparent"] == PARENT


def test_a_dead_collector_disturbs_nobody() -> None:
    endpoint = f"http://127.0.0.1:{fakes.free_port()}"
    with (
        upstream() as up,
        router(sequence({"serviceUrl": up.url}), OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as served,
    ):
        assert served.request().status == 200


def test_the_access_log_is_off_until_asked_for_and_holds_no_bodies() -> None:
    with upstream() as up:
        with router(sequence({"serviceUrl": up.url})) as served:
            served.request(body=b'"secret"')
            assert not any(line["logger"] == "router_fn.access" for line in served.log_lines())
        with router(sequence({"serviceUrl": up.url}), ACCESS_LOG="1") as served:
            served.request(body=b'"secret"')
            (line,) = fakes.wait_until(
                lambda: [
                    line for line in served.log_lines() if line["logger"] == "router_fn.access"
                ],
                "the line",
            )
    assert (line["status"], line["bytes_in"]) == (200, 8)
    assert "secret" not in json.dumps(line)


def test_several_workers_share_the_port_and_a_dead_one_is_replaced() -> None:
    with upstream() as up, router(sequence({"serviceUrl": up.url}), WEB_CONCURRENCY="2") as served:

        def workers() -> set[int]:
            with open(f"/proc/{served.process.pid}/task/{served.process.pid}/children") as children:
                return set(map(int, children.read().split()))

        first = fakes.wait_until(lambda: len(w := workers()) == 2 and w, "two workers")
        os.kill(min(first), signal.SIGKILL)
        fakes.wait_until(lambda: len(w := workers()) == 2 and w != first, "a new worker")
        assert all(served.request(body=b'{"n":1}').json == {"n": 1} for _ in range(10))
        served.process.send_signal(signal.SIGTERM)
        assert served.wait() == 0
        assert all({"ts", "level", "unit"} <= set(line) for line in served.log_lines())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_both_loops_serve(loop: str) -> None:
    with (
        upstream() as up,
        router(sequence({"serviceUrl": up.url}, {"serviceUrl": up.url}), EVENT_LOOP=loop) as served,
    ):
        assert served.request(body=b"[1]" * 1).body == b"[1]"
        big = b'"' + b"x" * 3_000_000 + b'"'
        assert served.request(body=big).body == big
