"""The gateway of a running engine: hosts, proxying, framing, statuses, upgrades. One engine for
all."""

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes_engine import Engine, running, service, until

TIMEOUTS = {"timeoutSeconds": 1}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    objects = [
        service("echo"),
        service("slow-start", env={"START_DELAY": "0.4"}),
        service("short", spec=TIMEOUTS),
        service("late-head", spec={"timeoutSeconds": 20, "responseStartTimeoutSeconds": 1}),
        service("idle", spec={"timeoutSeconds": 20, "idleTimeoutSeconds": 1}),
        service("never", env={"NEVER_LISTEN": "1"}, spec=TIMEOUTS),
        service("broken", command=["python", "-c", "raise SystemExit('no model here')"]),
        service("missing", command=["/no/such/program"]),
        service("single", spec={"containerConcurrency": 1}, annotations={"max-scale": "1"}),
        service("crasher"),
    ]
    with running(tmp_path_factory.mktemp("engine"), *objects) as engine:
        yield engine


@pytest.mark.parametrize(
    "host",
    [
        "echo.default.svc.cluster.local",
        "echo.default.svc",
        "echo.default",
        "echo.default.localhost",
        "echo.default.example.com",
        "ECHO.Default.Example.com:8080",
        "echo.default.svc.cluster.local.",
    ],
)
def test_a_service_answers_to_all_its_hosts(engine: Engine, host: str) -> None:
    assert engine.call("echo", host=host).status == 200


def test_unknown_host_is_404_and_says_what_there_is(engine: Engine) -> None:
    answer = engine.call("nope")
    assert answer.status == 404
    assert "echo.default.svc.cluster.local" in answer.json["error"]


def test_what_a_container_gets(engine: Engine) -> None:
    env = engine.call("echo").json["env"]
    assert (env["K_SERVICE"], env["K_CONFIGURATION"]) == ("echo", "echo")
    assert env["K_REVISION"] == "echo-00001"
    assert env["http_proxy"] == env["HTTP_PROXY"] == f"http://127.0.0.1:{engine.port}"
    assert "127.0.0.1" in env["no_proxy"]
    assert Path(env["TMPDIR"]).is_dir()


def test_headers_for_the_container(engine: Engine) -> None:
    headers = engine.call(
        "echo",
        headers={
            "X-Forwarded-For": "10.1.2.3",
            "Connection": "keep-alive, x-hop",
            "X-Hop": "1",
            "Knative-Serving-Revision": "echo-00001",
            "X-Mine": "stays",
        },
    ).json["headers"]
    assert headers["host"] == "echo.default.svc.cluster.local"
    assert headers["x-forwarded-for"] == "10.1.2.3, 127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["forwarded"] == "for=127.0.0.1;proto=http"
    assert headers["k-proxy-request"] == "activator"
    assert headers["x-mine"] == "stays"
    assert headers["traceparent"].startswith("00-")
    assert not {"x-hop", "knative-serving-revision", "connection"} & headers.keys()


def test_traceparent_of_the_caller_is_kept(engine: Engine) -> None:
    given = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    headers = engine.call("echo", headers={"traceparent": given}).json["headers"]
    assert headers["traceparent"] == given


def test_cold_start_waits_for_the_container(engine: Engine) -> None:
    answer = engine.call("slow-start")
    assert answer.status == 200
    assert answer.took_s >= 0.4


def test_absolute_form_makes_the_gateway_a_proxy(engine: Engine) -> None:
    request = (
        b"GET http://echo.default.svc.cluster.local/echo?a=b HTTP/1.1\r\nHost: ignored\r\n\r\n"
    )
    status, body = raw(engine, request)
    assert status == 200
    assert json.loads(body)["options"] == {"a": "b"}


def test_proxy_for_hosts_that_are_not_ours(engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        target = f"http://127.0.0.1:{port}/x"
        with socket.create_connection(("127.0.0.1", engine.port)) as client:
            client.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            connection, _ = other.accept()
            with connection:
                head = connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
            assert head.startswith(b"GET /x HTTP/1.1\r\nHost: 127.0.0.1")
            assert client.recv(4096).endswith(b"hi")


def test_connect_only_to_services(engine: Engine) -> None:
    assert (
        raw(engine, b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n")[0] == 403
    )
    with socket.create_connection(("127.0.0.1", engine.port), timeout=10) as client:
        client.sendall(b"CONNECT echo.default.svc.cluster.local:80 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        client.sendall(b"GET /status?code=204 HTTP/1.1\r\nHost: echo.default\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 204")


def test_bodies_with_length_and_in_chunks(engine: Engine) -> None:
    body = bytes(range(256)) * 4000
    assert engine.call("echo", method="POST", body=body).json["bytes"] == len(body)
    chunked = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    head = b"POST /echo HTTP/1.1\r\nHost: echo.default\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert json.loads(raw(engine, head + chunked)[1])["body"] == "hello world"


def test_large_answers_pass(engine: Engine) -> None:
    assert len(engine.call("echo", "/big?n=5000000").body) == 5_000_000


def test_head_has_no_body_and_the_connection_lives_on(engine: Engine) -> None:
    with socket.create_connection(("127.0.0.1", engine.port), timeout=10) as client:
        for _ in range(3):
            client.sendall(b"HEAD /big?n=1000 HTTP/1.1\r\nHost: echo.default\r\n\r\n")
            head = receive(client, b"\r\n\r\n")
            assert b"content-length: 1000" in head.lower()
            assert head.endswith(b"\r\n\r\n")


def test_streaming_arrives_as_it_is_written(engine: Engine) -> None:
    with socket.create_connection(("127.0.0.1", engine.port), timeout=10) as client:
        client.sendall(b"GET /stream?n=3&s=0.2 HTTP/1.1\r\nHost: echo.default\r\n\r\n")
        assert b"chunk 0" in (first := receive(client, b"chunk 0"))
        assert b"chunk 2" not in first
        receive(client, b"0\r\n\r\n")


def test_pipelined_requests_are_answered_in_order(engine: Engine) -> None:
    request = b"GET /status?code=%d HTTP/1.1\r\nHost: echo.default\r\n\r\n"
    with socket.create_connection(("127.0.0.1", engine.port), timeout=10) as client:
        client.sendall(request % 201 + request % 202 + request % 203)
        data = receive(client, b"203 Non-Authoritative Information")
    positions = [data.index(b"HTTP/1.1 %d" % code) for code in (201, 202, 203)]
    assert positions == sorted(positions)


def test_http10_gets_an_answer_that_ends_with_the_connection(engine: Engine) -> None:
    status, body = raw(engine, b"GET /stream?n=2 HTTP/1.0\r\nHost: echo.default\r\n\r\n")
    assert status == 200
    assert body == b"chunk 0chunk 1"


def test_expect_continue(engine: Engine) -> None:
    with socket.create_connection(("127.0.0.1", engine.port), timeout=10) as client:
        client.sendall(
            b"POST /echo HTTP/1.1\r\nHost: echo.default\r\nContent-Length: 2\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert receive(client, b"\r\n\r\n").startswith(b"HTTP/1.1 100 Continue")
        client.sendall(b"ok")
        assert b'"body": "ok"' in receive(client, b'"cwd"')


def test_websocket_upgrade_becomes_a_pipe(engine: Engine) -> None:
    with socket.create_connection(("127.0.0.1", engine.port), timeout=10) as client:
        client.sendall(
            b"GET /ws HTTP/1.1\r\nHost: echo.default\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\n\r\n"
        )
        head = receive(client, b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101")
        assert b"upgrade: websocket" in head.lower()
        client.sendall(b"\x81\x00ping")
        assert receive(client, b"ping") == b"echo:\x81\x00ping"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"HEAD /status?code=201 HTTP/1.1\r\nHost: echo.default\r\n\r\nnonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: echo.default\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: echo.default\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: bad host:99999\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: echo.default\r\n\r\n",
        b"GET https://echo.default.svc/ HTTP/1.1\r\nHost: echo.default\r\n\r\n",
    ],
    ids=[
        "garbage",
        "no-host",
        "garbage-behind",
        "tls",
        "two-hosts",
        "smuggling",
        "negative",
        "port",
        "huge-head",
        "https",
    ],
)
def test_bad_requests_are_refused_and_closed(engine: Engine, request_bytes: bytes) -> None:
    with socket.create_connection(("127.0.0.1", engine.port), timeout=10) as client:
        client.sendall(request_bytes)
        data = b""
        try:
            while block := client.recv(65536):
                data += block
        except ConnectionResetError:
            pass
    assert b"HTTP/1.1 40" in data
    assert b"HTTP/1.1 200" not in data


def test_timeout_counts_from_arrival_and_covers_the_cold_start(engine: Engine) -> None:
    answer = engine.call("never")
    assert answer.status == 504
    assert 0.9 < answer.took_s < 3
    assert "waiting for a pod" in answer.json["error"]


def test_total_timeout_before_the_answer_is_504(engine: Engine) -> None:
    engine.call("short")
    answer = engine.call("short", "/sleep?s=5")
    assert answer.status == 504
    assert answer.took_s < 3


def test_total_timeout_in_the_middle_appends_its_message(engine: Engine) -> None:
    engine.call("short")
    answer = engine.call("short", "/stream?n=100&s=0.1")
    assert answer.status == 200
    assert answer.body.startswith(b"chunk 0")
    assert b"timeout" in answer.body


def test_response_start_timeout(engine: Engine) -> None:
    engine.call("late-head")
    assert engine.call("late-head", "/sleep?s=5").status == 504
    assert engine.call("late-head", "/stream?n=15&s=0.1").body.endswith(b"chunk 4")


def test_idle_timeout(engine: Engine) -> None:
    engine.call("idle")
    assert engine.call("idle", "/sleep?s=5").status == 504
    assert engine.call("idle", "/stream?n=12&s=0.15").body.endswith(b"chunk 1")


def test_container_that_fails_shows_its_log(engine: Engine) -> None:
    answer = engine.call("broken")
    assert answer.status == 503
    assert "exited with code 1" in answer.json["error"]
    assert "no model here" in answer.json["error"]
    assert answer.headers["retry-after"] == "1"
    assert answer.took_s < 10


def test_program_that_does_not_exist_is_named(engine: Engine) -> None:
    answer = engine.call("missing")
    assert answer.status == 503
    assert "/no/such/program" in answer.json["error"]


def test_crash_during_a_request_is_502_and_the_pod_comes_back(engine: Engine) -> None:
    assert engine.call("crasher").status == 200
    answer = engine.call("crasher", "/crash")
    assert answer.status == 502
    assert "pod crasher-" in answer.json["error"]
    until(lambda: engine.call("crasher").status == 200, 20)


def test_answer_that_breaks_off_breaks_the_client_off(engine: Engine) -> None:
    with socket.create_connection(("127.0.0.1", engine.port), timeout=10) as client:
        client.sendall(b"GET /break HTTP/1.1\r\nHost: echo.default\r\n\r\n")
        data = b""
        try:
            while block := client.recv(4096):
                data += block
        except ConnectionResetError:
            pass
    assert len(data.partition(b"\r\n\r\n")[2]) < 100


def test_one_at_a_time_with_concurrency_one(engine: Engine) -> None:
    engine.call("single")
    sockets = [socket.create_connection(("127.0.0.1", engine.port), timeout=10) for _ in range(3)]
    try:
        for client in sockets:
            client.sendall(b"GET /sleep?s=0.2 HTTP/1.1\r\nHost: single.default\r\n\r\n")
        until(lambda: engine.service("single")["revisions"][0]["queued"] == 2, 5, 0.005)
        assert all(receive(client, b'"cwd"').startswith(b"HTTP/1.1 200") for client in sockets)
    finally:
        for client in sockets:
            client.close()


def test_probes_do_not_wake_a_service(engine: Engine) -> None:
    headers = {"K-Network-Probe": "queue"}
    before = engine.service("idle")["revisions"][0]["requests"]
    engine.call("idle", "/", headers=headers)
    assert engine.call("idle", "/", headers={"K-Network-Probe": "wrong"}).status == 400
    probe = engine.call("idle", "/", headers={"K-Network-Probe": "probe", "K-Network-Hash": "abc"})
    assert probe.headers["k-network-hash"] == "abc"
    assert engine.service("idle")["revisions"][0]["requests"] == before


def test_recent_requests_tell_where_the_time_went(engine: Engine) -> None:
    engine.call("slow-start", "/echo?traced=1")
    requests = engine.admin("requests")["requests"]
    cold = [item for item in requests if item["service"] == "default/slow-start" and "cold" in item]
    assert cold[-1]["waited_ms"] >= 400
    assert cold[-1]["cold"]["ready_ms"] >= 400
    assert cold[-1]["entry"] is True


def test_admin_api_refuses_foreign_pages(engine: Engine) -> None:
    assert engine.call("", "/_turnout/api/status", host="evil.example.org").status == 404
    answer = engine.call("", "/_turnout/api/stop", host="localhost", method="POST", body=b"{}")
    assert answer.status == 403


def test_connections_stay_open_after_the_gateways_own_answers(engine: Engine) -> None:
    with socket.create_connection(("127.0.0.1", engine.port), timeout=10) as client:
        for _ in range(3):
            client.sendall(b"GET / HTTP/1.1\r\nHost: nope.default\r\n\r\n")
            assert receive(client, b'"status": 404}').startswith(b"HTTP/1.1 404")


def test_client_that_hangs_up_frees_its_pod(engine: Engine) -> None:
    engine.call("single")
    with socket.create_connection(("127.0.0.1", engine.port), timeout=10) as client:
        client.sendall(b"GET /sleep?s=60 HTTP/1.1\r\nHost: single.default\r\n\r\n")
        until(lambda: engine.service("single")["revisions"][0]["concurrency"] == 1)
    until(lambda: engine.service("single")["revisions"][0]["concurrency"] == 0, 5)
    assert engine.call("single").status == 200
    recent = engine.admin("requests")["requests"]
    assert any(item["status"] == 499 for item in recent)


def test_early_answer_reaches_a_client_that_is_still_sending(engine: Engine) -> None:
    answer = engine.call("nope", method="POST", body=b"x" * 800_000)
    assert answer.status == 404
    assert answer.headers["connection"] == "close"


def raw(engine: Engine, request: bytes) -> tuple[int, bytes]:
    """Send bytes, read until the connection is closed or the answer is complete; (status, body)."""
    with socket.create_connection(("127.0.0.1", engine.port), timeout=15) as client:
        client.sendall(request)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        return answer.status, answer.read()


def receive(client: socket.socket, until_seen: bytes) -> bytes:
    """Read until the bytes have been seen."""
    data = b""
    while until_seen not in data:
        block = client.recv(65536)
        assert block, data
        data += block
    return data


def test_switched_connections_push_back(engine: Engine) -> None:
    """Neither side's bytes pile up in the engine when the other does not read."""
    with socket.create_connection(("127.0.0.1", engine.port), timeout=10) as client:
        client.sendall(
            b"GET /ws HTTP/1.1\r\nHost: echo.default\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\n\r\n"
        )
        receive(client, b"\r\n\r\n")
        client.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 200_000_000:
                sent += client.send(b"x" * 65536)
        assert sent < 50_000_000
        client.settimeout(10)
        assert client.recv(5) == b"echo:"
