"""Bad input from every side: clients, upstreams, configuration. A defined answer each, and the
process lives on."""

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests import fakes_router as fakes
from tests.fakes_router import after, echo, graph, node, router, says, sequence, upstream

OK = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


def status_of(answer: bytes) -> int:
    return int(answer[9:12]) if answer else 0


REFUSED: list[tuple[str, bytes, int]] = [
    (
        "both lengths",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r"
        b"\n0\r\n\r\n",
        400,
    ),
    (
        "two lengths",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        400,
    ),
    (
        "the same length twice",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        400,
    ),
    ("a length list", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2, 2\r\n\r\n{}", 400),
    ("a signed length", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\n{}", 400),
    ("a negative length", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    ("a hexadecimal length", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x2\r\n\r\n{}", 400),
    (
        "a huge length",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
        400,
    ),
    (
        "another coding",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        501,
    ),
    (
        "a disguised coding",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
        400,
    ),
    (
        "chunked twice",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: "
        b"chunked\r\n\r\n",
        400,
    ),
    ("chunked in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (
        "a blank before the colon",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 2\r\n\r\n{}",
        400,
    ),
    ("a folded line", b"POST / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n b\r\n\r\n", 400),
    ("bare line feeds", b"POST / HTTP/1.1\nHost: x\nContent-Length: 2\n\n{}", 400),
    ("a lone carriage return", b"POST / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", 400),
    ("a NUL in a value", b"POST / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", 400),
    ("no host", b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400),
    ("two hosts", b"POST / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    ("a host with a blank", b"POST / HTTP/1.1\r\nHost: x y\r\n\r\n", 400),
    ("another version", b"POST / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    ("HTTP/0.9", b"GET /\r\n\r\n", 400),
    ("a tunnel", b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
    ("another expectation", b"POST / HTTP/1.1\r\nHost: x\r\nExpect: a miracle\r\n\r\n", 417),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ("a long target", b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    ("a long head", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70000 + b"\r\n\r\n", 431),
    ("many fields", b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 20000 + b"\r\n", 431),
    (
        "a bad chunk size",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        400,
    ),
    (
        "a chunk size overflow",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n",
        400,
    ),
    (
        "a chunk that overruns",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        400,
    ),
    (
        "a bare line feed after a chunk size",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\nab\r\n0\r\n\r\n",
        400,
    ),
    (
        "a trailer that is none",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nno colon\r\n\r\n",
        400,
    ),
    (
        "a declared body above the limit",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000001\r\n\r\n",
        413,
    ),
    (
        "a chunked body above the limit",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2dc6c0\r\n"
        + b"x" * 3000000,
        413,
    ),
]


@pytest.fixture(scope="module")
def served() -> Any:
    with (
        upstream() as up,
        router(sequence({"serviceUrl": up.url}), MAX_BODY_BYTES="1000000") as process,
    ):
        process.up = up  # type: ignore[attr-defined]
        yield process


@pytest.mark.parametrize(
    ("data", "status"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_is_no_proper_request_is_refused_and_never_reaches_the_graph(
    served: Any, data: bytes, status: int
) -> None:
    before = len(served.up.seen)
    with served.connect() as client:
        client.settimeout(5)
        # A proper request behind it must not be served: nobody knows where it begins.
        client.sendall(data + OK)
        answer = fakes.recv_all(client)
    assert status_of(answer) == status
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close" in answer
    assert len(served.up.seen) == before


def test_an_announced_body_above_the_limit_is_refused_before_it_is_sent(served: Any) -> None:
    with served.connect() as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2000000\r\n\r\n"
        )
        assert client.recv(1000).startswith(b"HTTP/1.1 413")


def test_pipelined_requests_are_answered_in_order(served: Any) -> None:
    bodies = [b'{"n":%d}' % n for n in range(20)]
    with served.connect() as client:
        client.sendall(
            b"".join(
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(b), b)
                for b in bodies
            )
        )
        client.shutdown(socket.SHUT_WR)
        answers = fakes.recv_all(client)
    places = [answers.index(body) for body in bodies]
    assert places == sorted(places)


def test_one_byte_at_a_time_is_still_a_request(served: Any) -> None:
    data = (
        b"\r\nPOST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\n[1,"
        b"\r\n2\r\n2]\r\n0\r\nT: x\r\n\r\n"
    )
    with served.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for index in range(len(data)):
            client.sendall(data[index : index + 1])
        assert client.recv(1000).endswith(b"[1,2]")


def test_http_1_0_gets_its_answer_and_the_connection_is_closed(served: Any) -> None:
    with served.connect() as client:
        client.sendall(b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
        assert fakes.recv_all(client).endswith(b"\r\n\r\n{}")


@pytest.mark.parametrize(
    "body",
    [b"[" * 200_000, b'{"a":' * 100_000, b"\xff\xfe", b'"\\ud800"', b"1e999999", b"-" * 1000],
)
def test_hostile_bodies_pass_through_a_sequence_and_match_no_condition(
    served: Any, body: bytes
) -> None:
    assert served.request(body=body).body == body
    spec = graph(node("Switch", {"serviceUrl": served.up.url, "condition": "[@this].#(a.b.c==1)"}))
    with router(spec) as switch:
        assert switch.request(body=body).status == 404


def test_slow_clients_are_cut_off() -> None:
    with upstream() as up:
        spec = sequence({"serviceUrl": up.url}) | {
            "routerTimeouts": {"serverRead": 1, "serverIdle": 1}
        }
        with (
            router(spec) as served,
            served.connect() as loris,
            served.connect() as idle,
            served.connect() as body,
        ):
            loris.sendall(b"POST / HTTP/1.1\r\nHo")
            body.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            began = time.monotonic()
            while time.monotonic() - began < 6:  # keeps dripping, which must not help
                try:
                    body.sendall(b"x")
                    time.sleep(0.1)
                except OSError:
                    break
            assert time.monotonic() - began < 5  # 1 s, and the grace to read the refusal
            assert fakes.recv_all(loris).startswith(b"HTTP/1.1 408")
            assert fakes.recv_all(idle) == b""


def test_a_graph_that_takes_longer_than_server_write_ends_without_an_answer() -> None:
    with upstream({"/slow": after(3, echo)}) as up:
        spec = sequence({"serviceUrl": up.url + "/slow"}) | {"routerTimeouts": {"serverWrite": 1}}
        with router(spec) as served, served.connect() as client:
            client.sendall(OK)
            assert fakes.recv_all(client) == b""


HUGE = 100 << 20


def flood(talk: fakes.Conversation) -> None:
    talk.raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % HUGE)
    piece = b"x" * (1 << 20)
    for _ in range(100):
        talk.raw(piece)


def flood_in_chunks(talk: fakes.Conversation) -> None:
    talk.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    piece = b"%x\r\n%b\r\n" % (1 << 20, b"x" * (1 << 20))
    for _ in range(100):
        talk.raw(piece)
    talk.raw(b"0\r\n\r\n")


def bomb(talk: fakes.Conversation) -> None:
    import zlib

    packer = zlib.compressobj(9, wbits=31)
    piece = b"".join(packer.compress(bytes(1 << 20)) for _ in range(100)) + packer.flush()
    talk.answer(piece, Content_Encoding="gzip")


def raw(data: bytes) -> fakes.Behaviour:
    def play(talk: fakes.Conversation) -> None:
        talk.raw(data)
        talk.close()

    return play


BROKEN: list[tuple[str, fakes.Behaviour, str]] = [
    ("nothing", lambda talk: talk.close(), "without an answer"),
    ("noise", raw(b"\x00\x01\x02 hello\r\n\r\n"), "garbage"),
    ("endless noise", raw(b"x" * 200_000), "garbage"),
    ("half a head", raw(b"HTTP/1.1 200 OK\r\nContent-Le"), "middle"),
    ("half a body", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}"), "middle"),
    ("half a chunk", raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"), "middle"),
    (
        "a bad chunk",
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        "garbage",
    ),
    (
        "two lengths",
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
        "garbage",
    ),
    ("a protocol switch", raw(b"HTTP/1.1 101 Switching\r\n\r\n"), "garbage"),
    ("bad gzip", says(b"not gzip at all", Content_Encoding="gzip"), "garbage"),
    (
        "cut gzip",
        says(__import__("gzip").compress(b"x" * 10000)[:30], Content_Encoding="gzip"),
        "garbage",
    ),
    ("100 MB", flood, "more than"),
    ("100 MB in chunks", flood_in_chunks, "more than"),
    ("a gzip bomb", bomb, "more than"),
]


@pytest.mark.parametrize("steps", [1, 2], ids=["one step", "engine"])
def test_broken_upstreams_are_500_with_a_reason_and_bounded_memory(steps: int) -> None:
    with upstream({f"/{i}": row[1] for i, row in enumerate(BROKEN)}) as up:
        branches = [
            {"serviceUrl": f"{up.url}/{i}", "condition": f"[@this].#(n=={i})"}
            for i in range(len(BROKEN))
        ]
        spec = graph(node("Switch", *branches))
        if steps == 1:
            for index, (name, _, reason) in enumerate(BROKEN[:5]):
                with router(sequence({"serviceUrl": f"{up.url}/{index}"})) as served:
                    answer = served.request()
                    assert (answer.status, reason in answer.json["cause"]) == (500, True), name
            return
        with router(spec, MAX_RESPONSE_BYTES=str(8 << 20)) as served:
            for index, (name, _, reason) in enumerate(BROKEN):
                answer = served.request(body=b'{"n":%d}' % index)
                assert answer.status == 500, name
                assert reason in answer.json["cause"], (name, answer.json)
            statm = Path(f"/proc/{served.process.pid}/statm").read_text()
            rss = int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")
            assert rss < 100 << 20


def test_odd_but_proper_answers_are_understood() -> None:
    routes = {
        "/close": raw(b"HTTP/1.0 200 OK\r\n\r\n[1, 2]"),
        "/interim": raw(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r"
            b"\nContent-Length: 2\r\n\r\n{}"
        ),
        "/extra": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n"),
        "/noreason": raw(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}"),
        "/empty": raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
    }
    wanted = {
        "/close": b"[1, 2]",
        "/interim": b"{}",
        "/extra": b"{}",
        "/noreason": b"{}",
        "/empty": b"",
    }
    with upstream(routes) as up:
        for path, body in wanted.items():
            with router(sequence({"serviceUrl": up.url + path})) as served:
                assert served.request().body == body, path


class TestConfiguration:
    def refusal(self, spec: Any, *arguments: str, **env: str) -> str:
        process = fakes.RouterProcess(spec, *arguments, **env)
        try:
            assert process.wait() == 2
            return "\n".join(line["message"] for line in process.log_lines())
        finally:
            process.stop()

    def test_every_problem_of_a_graph_is_named_at_once(self) -> None:
        spec = graph(
            node(
                "Sequence",
                {"name": "a", "nodeName": "nowhere"},
                {"name": "a", "serviceUrl": "http://x", "nodeName": "loop"},
                {"name": "b"},
                {"serviceUrl": "http://x", "conditon": "y"},
                {"serviceUrl": "http://x", "condition": "$[?("},
            ),
            loop=node("Switch", {"nodeName": "loop2", "default": True}),
            loop2=node("Ensemble", {"nodeName": "loop"}, combiner="majority"),
            split=node("Splitter", {"serviceUrl": "http://x", "weight": 10}),
        )
        log = self.refusal(spec)
        for text in (
            "nodes.root.steps[0].nodeName",
            "'nowhere'",
            "two steps called 'a'",
            "more than one target",
            "has no target",
            "did you mean condition",
            "nodes.root.steps[4].condition",
            "loop -> loop2 -> loop",
            "majority",
            "sum of weights is 10",
        ):
            assert text in log, text

    def test_settings_are_checked_together(self) -> None:
        log = self.refusal(
            sequence(), PORT="http", MAX_BODY_BYTES="-1", WEB_CONCURRENCY="many", ACCESS_LOG="maybe"
        )
        for name in (
            "PORT='http'",
            "MAX_BODY_BYTES='-1'",
            "WEB_CONCURRENCY='many'",
            "ACCESS_LOG='maybe'",
        ):
            assert name in log

    @pytest.mark.parametrize(
        "text", ["", "{", "[1]", '"x"', "[" * 100_000, '{"nodes": []}', '{"nodes": {"root": 1}}']
    )
    def test_what_is_no_graph_is_refused(self, text: str) -> None:
        assert self.refusal(text)

    def test_check_validates_and_leaves(self) -> None:
        process = fakes.RouterProcess(sequence({"serviceUrl": "http://x"}), "--check")
        assert process.wait() == 0
        process.stop()

    def test_strict_refuses_what_otherwise_only_warns(self) -> None:
        spec = graph(node("Sequence", {"serviceUrl": "http://x"}), unused=node("Sequence"))
        assert "unreachable" in self.refusal(spec, "--check", "--strict")

    def test_a_busy_port_is_a_clear_failure(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            process = fakes.RouterProcess(sequence(), PORT=str(taken.getsockname()[1]))
            assert process.wait() == 1
            assert "cannot listen on port" in process.log()
            process.stop()


class TestDrain:
    def test_readiness_fails_while_requests_still_finish(self) -> None:
        with upstream({"/slow": after(0.8, echo)}) as up:
            served = fakes.RouterProcess(
                sequence({"serviceUrl": up.url + "/slow"}), DRAIN_DELAY_SECONDS="0.5"
            )
            try:
                served.wait_ready()
                with served.connect() as client:
                    client.sendall(OK)
                    fakes.wait_until(lambda: up.seen, "a request is under way")
                    served.process.send_signal(signal.SIGTERM)
                    answer = fakes.wait_until(
                        lambda: (a := served.request("GET", "/readyz")).status == 503 and a,
                        "readiness is 503",
                    )
                    assert answer.body == b"shutting down\n"
                    assert fakes.recv_all(client).endswith(b"{}")
                assert served.wait() == 0
            finally:
                served.stop()

    def test_a_request_that_never_ends_is_cut_off_in_time(self) -> None:
        with upstream({"/never": lambda talk: talk.client_gone(30)}) as up:
            served = fakes.RouterProcess(
                sequence({"serviceUrl": up.url + "/never"}), DRAIN_TIMEOUT_SECONDS="0.3"
            )
            try:
                served.wait_ready()
                with served.connect() as client:
                    client.sendall(OK)
                    fakes.wait_until(lambda: up.seen, "a request is under way")
                    began = time.monotonic()
                    served.process.send_signal(signal.SIGTERM)
                    assert served.wait() == 0
                    assert time.monotonic() - began < 3
            finally:
                served.stop()


def test_logs_are_json_lines_with_the_common_keys() -> None:
    with router(sequence({"serviceUrl": "http://127.0.0.1:1"})) as served:
        lines = served.log_lines()
    assert {"ts", "level", "unit", "logger", "message"} <= set(lines[0])
    assert json.dumps(lines[0])
