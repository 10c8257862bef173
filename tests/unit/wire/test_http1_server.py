"""The server over a fake transport: no sockets, no loop, time by hand."""

import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.wire.http1 import Exchange, Limits, Server, http_date
from functions.wire.http1_connection import Connection


class FakeTransport:
    def __init__(self) -> None:
        self.out = b""
        self.closed = self.aborted = self.eof = False
        self.reading = True

    def write(self, data: bytes) -> None:
        self.out += data

    def writelines(self, pieces: list[bytes]) -> None:
        self.out += b"".join(pieces)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Client:
    """One connection to a server whose handler is a function, or answers later."""

    def __init__(self, handler: Any = None, server: Server | None = None, **limits: Any) -> None:
        self.exchanges: list[Exchange] = []
        self.server = server or Server(handler or self.later, Limits(**limits))
        self.transport = FakeTransport()
        self.connection = Connection(self.server)
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]

    def later(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def send(self, data: bytes) -> "Client":
        self.connection.data_received(data)
        return self

    @property
    def out(self) -> bytes:
        """What was written, without the dates."""
        return re.sub(rb"Date: [^\r]*\r\n", b"", self.transport.out)

    def pass_time(self, seconds: float) -> None:
        self.server.now += seconds
        self.connection.tick(self.server.now)


def echo(exchange: Exchange) -> None:
    exchange.respond(200, b"%b %b " % (exchange.head.method, exchange.head.target) + exchange.body)


def post(body: bytes = b"", *fields: bytes) -> bytes:
    lines = [b"POST / HTTP/1.1", b"Host: h", *fields, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"


def answer(body: bytes) -> bytes:
    return ANSWER % (len(body), body)


def test_a_request_in_one_packet_and_its_answer() -> None:
    assert Client(echo).send(post(b"{}")).out == answer(b"POST / {}")


def test_a_second_request_with_the_same_head_is_not_the_first_one() -> None:
    client = Client(echo).send(post(b"one")).send(post(b"two"))
    assert client.out == answer(b"POST / one") + answer(b"POST / two")


def test_pipelined_requests_wait_for_each_other() -> None:
    client = Client().send(post(b"1") + post(b"2") + post(b"3"))
    assert len(client.exchanges) == 1
    for index in range(3):
        client.exchanges[index].respond(200, client.exchanges[index].body)
    assert client.out == answer(b"1") + answer(b"2") + answer(b"3")
    assert client.server.in_flight == 0


def test_reading_pauses_when_a_client_sends_ahead_without_end() -> None:
    client = Client(max_head_bytes=1024).send(post()).send(b"x" * 2000)
    assert not client.transport.reading
    client.exchanges[0].respond(200)
    assert client.transport.reading or client.transport.eof


def test_head_has_a_length_but_no_body() -> None:
    out = (
        Client(lambda exchange: exchange.respond(200, b"abc", b"text/plain"))
        .send(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
        .out
    )
    assert out == b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\n"


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_body(status: int) -> None:
    out = Client(lambda exchange: exchange.respond(status, b"never")).send(post()).out
    assert b"never" not in out
    assert b"Content-Length" not in out


def test_http_1_0_is_answered_and_closed_unless_it_asks_to_stay() -> None:
    client = Client(echo).send(b"GET / HTTP/1.0\r\n\r\n")
    assert b"Connection: close" in client.out
    assert client.transport.closed
    client = Client(echo).send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert b"Connection: keep-alive" in client.out
    assert not client.transport.closed


def test_expect_continue_is_granted_only_while_the_body_is_awaited() -> None:
    head = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    client = Client(echo).send(head)
    assert client.out == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"{}")
    assert client.out.endswith(answer(b"POST / {}"))
    assert b"100 Continue" not in Client(echo).send(head + b"{}").out
    assert b"100 Continue" not in Client(echo, max_body_bytes=1).send(head).out


def test_a_stream_is_chunked_for_1_1_and_ends_with_the_connection_for_1_0() -> None:
    def stream(exchange: Exchange) -> None:
        exchange.start(200, b"text/event-stream")
        for piece in (b"a", b"", b"bc"):
            exchange.send(piece)
        exchange.finish()

    out = Client(stream).send(post()).out
    assert out.endswith(b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n")
    old = Client(stream).send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert old.out.endswith(b"\r\n\r\nabc")
    assert old.transport.closed


def test_answering_twice_or_too_late_does_nothing() -> None:
    client = Client().send(post())
    client.exchanges[0].respond(200, b"once")
    client.exchanges[0].respond(200, b"twice")
    assert client.out == answer(b"once")
    client.send(post())
    client.connection.connection_lost(None)
    client.exchanges[1].respond(200, b"late")
    assert client.out == answer(b"once")
    assert client.server.in_flight == 0


def test_the_handler_is_told_once_when_the_client_is_gone() -> None:
    client = Client().send(post())
    told: list[int] = []
    client.exchanges[0].on_abort = lambda: told.append(1)
    client.connection.connection_lost(ConnectionResetError())
    client.connection.connection_lost(None)
    assert told == [1]


def test_a_handler_that_raises_is_500_and_the_next_request_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = iter([ValueError("boom"), None])

    def handler(exchange: Exchange) -> None:
        error = next(calls)
        if error:
            raise error
        echo(exchange)

    client = Client(handler).send(post()).send(post(b"x"))
    assert client.out.startswith(b"HTTP/1.1 500")
    assert client.out.endswith(answer(b"POST / x"))
    assert "boom" in caplog.text


def test_a_half_closed_client_is_answered_then_closed() -> None:
    client = Client().send(post())
    assert client.connection.eof_received()
    assert b"100 Continue" in client.out  # the probe that a gone client answers with a reset
    client.exchanges[0].respond(200, b"x")
    assert client.out.endswith(answer(b"x"))
    assert client.transport.closed


def test_a_body_that_ends_early_closes_the_connection() -> None:
    client = Client().send(post(b"{}")[:-1])
    assert not client.connection.eof_received()
    assert not client.exchanges


def test_no_probe_disturbs_a_stream() -> None:
    client = Client().send(post())
    client.exchanges[0].start(200)
    client.connection.eof_received()
    client.pass_time(1)
    assert b"100 Continue" not in client.out


def test_a_refused_client_is_neither_served_nor_waited_for() -> None:
    client = Client(echo).send(post(b"{}")).send(b"BAD\r\n\r\n")
    refusal = client.out
    assert refusal.endswith(b'{"error":"the request head is malformed"}')
    for _ in range(30):
        client.send(post(b"{}"))
        client.pass_time(0.1)
    assert client.out == refusal
    assert client.transport.aborted


class TestTime:
    def test_a_request_must_arrive_in_time(self) -> None:
        client = Client(read_timeout_s=5).send(b"POST / HT")
        client.pass_time(4)
        client.send(b"TP/1.1\r\n")
        client.pass_time(2)
        assert client.out.startswith(b"HTTP/1.1 408")

    def test_idle_connections_are_closed_without_a_word(self) -> None:
        client = Client(echo, idle_timeout_s=5)
        client.pass_time(6)
        assert (client.out, client.transport.closed) == (b"", True)

    def test_an_answer_must_come_in_time(self) -> None:
        client = Client(response_timeout_s=5).send(post())
        client.pass_time(6)
        assert (client.out, client.transport.aborted) == (b"", True)

    def test_a_stream_only_has_to_move(self) -> None:
        client = Client(response_timeout_s=5).send(post())
        client.exchanges[0].start(200)
        for _ in range(4):
            client.pass_time(4)
            client.exchanges[0].send(b"x")
        assert not client.transport.closed
        client.pass_time(6)
        assert client.transport.aborted

    def test_an_answer_must_be_read_in_time(self) -> None:
        client = Client(write_timeout_s=5).send(post())
        client.connection.pause_writing()
        client.pass_time(6)
        assert client.transport.aborted

    def test_nothing_new_is_served_while_answers_are_not_read(self) -> None:
        client = Client()
        client.connection.pause_writing()
        client.send(post(b"1") + post(b"2"))
        served = len(client.exchanges)
        client.connection.resume_writing()
        assert served == 0
        assert len(client.exchanges) == 1


def test_too_many_connections_are_turned_away() -> None:
    server = Server(echo, Limits(max_connections=1))
    first, second = Client(server=server), Client(server=server)
    assert second.out.startswith(b"HTTP/1.1 503")
    second.connection.connection_lost(None)
    assert first.send(post(b"x")).out == answer(b"POST / x")
    assert Client(server=server).out.startswith(b"HTTP/1.1 503")


def test_dates_are_the_standards() -> None:
    assert http_date(784111777) == b"Sun, 06 Nov 1994 08:49:37 GMT"


# --- the same bytes mean the same, however they arrive
# -------------------------------------------------

_GOOD = [
    post(b'{"a": 1}'),
    post(b""),
    b"GET /x?y HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\r\n" + post(b"z"),
    b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\n"
    b"d\r\n0\r\nT: 1\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
    post(b"\r\n\r\nPOST / HTTP/1.1\r\n\r\n"),
]
_BAD = [
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"junk\r\n\r\n",
    b"GET / HTTP/1.1\nHost: h\n\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"\x00\x01\x02\x03\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 999999\r\n\r\n",
    b"G" * 3000,
]


def _play(data: bytes, cuts: list[int], warm: bool) -> bytes:
    client = Client(echo, max_head_bytes=2048, max_body_bytes=1000)
    if warm:  # heads remembered from earlier requests must change nothing
        for good in _GOOD:
            Client(server=client.server).send(good)
    at = 0
    for cut in [*sorted(cuts), len(data)]:
        if cut > at:
            client.send(data[at:cut])
            at = cut
    return client.out


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(_GOOD), max_size=4),
    st.one_of(st.just(b""), st.sampled_from(_BAD), st.binary(max_size=30)),
    st.data(),
)
def test_packet_boundaries_and_memory_change_nothing(
    good: list[bytes], bad: bytes, data: st.DataObject
) -> None:
    stream = b"".join(good) + bad
    cuts = data.draw(st.lists(st.integers(0, max(len(stream), 1)), max_size=12))
    whole = _play(stream, [], warm=False)
    assert _play(stream, cuts, warm=False) == whole
    assert _play(stream, cuts, warm=True) == whole
    assert _play(stream, list(range(len(stream))), warm=True) == whole
    assert whole.count(b"HTTP/1.1 200") >= len(good)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(_GOOD + _BAD), min_size=1, max_size=3), st.integers(0, 2**32))
def test_mutated_streams_never_break_the_server(parts: list[bytes], seed: int) -> None:
    chance = random.Random(seed)
    stream = bytearray(b"".join(parts))
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(stream))
        match chance.randrange(3):
            case 0:
                stream[at] = chance.randrange(256)
            case 1:
                del stream[at : at + chance.randrange(1, 9)]
            case _:
                stream[at:at] = chance.choice([b"\r\n", b"\n", b" ", b"\0", b":", b"0\r\n\r\n"])
        if not stream:
            stream = bytearray(b"x")
    out = _play(bytes(stream), [chance.randrange(len(stream)) for _ in range(4)], warm=True)
    statuses = {int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3})", out)}
    assert statuses <= {100, 200, 400, 413, 414, 417, 431, 501, 505}


@pytest.mark.parametrize("method", [b"POST", b"HEAD"])
def test_an_answer_in_several_buffers_reads_like_one(method: bytes) -> None:
    request = b"%s / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n" % method
    whole, parts = Client(), Client()
    for client in (whole, parts):
        for _ in range(2):
            client.send(request)
            exchange = client.exchanges.pop()
            if client is whole:
                exchange.respond(200, b"abcdef", b"a/b", b"X: y\r\n")
            else:
                exchange.respond_pieces(200, [b"abc", memoryview(b"def")], b"a/b", b"X: y\r\n")
            exchange.respond(200, b"again")
    assert parts.out == whole.out
    assert whole.out.count(b"HTTP/1.1 200") == 2
    assert parts.server.in_flight == 0
    parts.connection.connection_lost(None)
    parts.connection.writelines([b"nobody is there"])
