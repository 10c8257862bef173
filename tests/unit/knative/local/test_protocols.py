"""The gateway's HTTP/1.1 protocols on scripted transports: any cut of the bytes, any garbage."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knative.local import wire
from knative.local.collect import collect_body
from knative.local.exchange import Exchange
from knative.local.inbound import Inbound
from knative.local.outbound import Outbound, Pool


class Transport:
    """Remembers what was written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False
        self.paused = False

    def write(self, data: bytes) -> None:
        if not self.closed:
            self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def set_write_buffer_limits(self, high: int) -> None:
        """Nothing to limit."""

    def get_extra_info(self, _: str) -> tuple[str, int]:
        return ("10.1.1.1", 1)


class Handler:
    """Answers every request with its method, target and body."""

    max_header_bytes = 4096

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, bytes, bytes]] = []

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request

        def answer(body: bytes) -> None:
            self.seen.append((request.method, request.target, body))
            exchange.respond(200, [], request.target)

        collect_body(exchange, 1 << 20, answer)

    def accepts_connect(self, host: str, port: int) -> bool:
        return host == "ours"

    def opened(self, _: object) -> None:
        """Nothing to remember."""

    closed = opened

    def http2(self, *_: object) -> Any:
        raise AssertionError("not in these tests")


async def settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


def serve(pieces: list[bytes]) -> tuple[Handler, Transport]:
    """Feed pieces to a connection; what was handled and written."""

    async def run() -> tuple[Handler, Transport]:
        handler, transport = Handler(), Transport()
        connection = Inbound(handler, asyncio.get_running_loop())
        connection.connection_made(transport)  # type: ignore[arg-type]
        for piece in pieces:
            if transport.closed:
                break
            connection.data_received(piece)
            await settle()
        connection.connection_lost(None)
        return handler, transport

    return asyncio.run(run())


REQUESTS = (
    b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
    b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
    b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n"
    b"0\r\nTrailer: t\r\n\r\n"
    b"GET http://h:80/d?e HTTP/1.1\r\nHost: other\r\n\r\n"
)
EXPECTED = [
    (b"GET", b"/a", b""),
    (b"POST", b"/b", b"hello"),
    (b"POST", b"/c", b"abcde"),
    (b"GET", b"/d?e", b""),
]


def cut(data: bytes, places: set[int]) -> list[bytes]:
    bounds = [0, *sorted(places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(1, len(REQUESTS) - 1), max_size=40))
def test_requests_are_the_same_however_the_bytes_are_cut(places: set[int]) -> None:
    handler, transport = serve(cut(REQUESTS, places))
    assert handler.seen == EXPECTED
    assert transport.written.count(b"HTTP/1.1 200 OK") == 4
    assert not transport.closed


def test_one_byte_at_a_time() -> None:
    assert serve([bytes([byte]) for byte in REQUESTS])[0].seen == EXPECTED


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(0, len(REQUESTS)))
def test_garbage_is_refused_and_never_an_exception(garbage: bytes, at: int) -> None:
    handler, transport = serve([REQUESTS[:at] + garbage, b"\r\n\r\n"])
    assert len(handler.seen) <= 5 + garbage.count(b"\n")
    assert transport.written.count(b"HTTP/1.1 400") <= 1


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_flipped_bytes_never_turn_into_an_exception(data: st.DataObject) -> None:
    broken = bytearray(REQUESTS)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    serve([bytes(broken)])


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 5,5\r\n",
        b" Content-Length: 5\r\n",
        b"Content-Length : 5\r\n",
        b"X: a\x00b\r\n",
        b"X: a\nGET / HTTP/1.1\n\n",
    ],
)
def test_ambiguous_framing_is_refused(head: bytes) -> None:
    handler, transport = serve([b"POST /x HTTP/1.1\r\nHost: h\r\n" + head + b"\r\nhello"])
    assert handler.seen == []
    assert transport.written.startswith(b"HTTP/1.1 400")
    assert transport.closed


class Client:
    """A Downstream that keeps everything."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: wire.Headers = []
        self.body = b""
        self.ended = self.aborted = False

    def send_head(self, status: int, headers: wire.Headers) -> None:
        self.status, self.headers = status, headers

    def send_body(self, data: bytes) -> None:
        self.body += data

    def send_end(self, _: wire.Headers) -> None:
        self.ended = True

    def can_append(self) -> bool:
        return False

    def abort(self) -> None:
        self.aborted = True

    def pause_request(self) -> None:
        """Not in these tests."""

    resume_request = pause_request

    def switch(self, _: Exchange) -> None:
        """Not in these tests."""


def answer(pieces: list[bytes], *, method: bytes = b"GET", then_close: bool) -> tuple[Client, bool]:
    """Feed a pod's answer; the client's side, and whether the connection was kept for reuse."""

    async def run() -> tuple[Client, bool]:
        loop = asyncio.get_running_loop()
        pool = Pool("127.0.0.1", 1, loop)
        connection, transport, client = Outbound(pool, loop), Transport(), Client()
        connection.connection_made(transport)  # type: ignore[arg-type]
        request = wire.Request(method, b"/", "h", [], b"h")
        exchange = Exchange(request, client, loop)
        connection.begin(exchange, b"GET / HTTP/1.1\r\n\r\n", reused=False)
        exchange.request_end()
        for piece in pieces:
            connection.data_received(piece)
        await settle()
        kept = bool(pool._idle)
        if then_close:
            connection.connection_lost(None)
        return client, kept

    return asyncio.run(run())


LENGTH = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nX-A: b\r\nConnection: X-Drop\r\nX-Drop: 1\r\n\r\n"
    b"0123456789"
)
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"4\r\n0123\r\n6\r\n456789\r\n0\r\nT: u\r\n\r\n"
)
CLOSED = b"HTTP/1.1 200 OK\r\n\r\n0123456789"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([LENGTH, CHUNKED, CLOSED, INTERIM + LENGTH]), st.data())
def test_answers_are_the_same_however_the_bytes_are_cut(data: bytes, draw: st.DataObject) -> None:
    places = draw.draw(st.sets(st.integers(1, len(data) - 1), max_size=20))
    client, kept = answer(cut(data, places), then_close=True)
    assert (client.status, client.body) == (200, b"0123456789")
    assert client.ended
    assert not client.aborted
    assert kept is (data is not CLOSED)
    assert not any(
        name in (b"connection", b"x-drop", b"transfer-encoding") for name, _ in client.headers
    )


@pytest.mark.parametrize("data", [LENGTH[:-3], CHUNKED[:-9]])
def test_answer_that_breaks_off_is_aborted(data: bytes) -> None:
    client, _ = answer([data], then_close=True)
    assert client.aborted
    assert not client.ended


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 2",
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    ],
)
def test_no_answer_is_a_502(data: bytes) -> None:
    client, kept = answer([data] if data else [], then_close=True)
    assert client.status == 502
    assert client.ended
    assert not kept


def test_head_answer_ends_without_its_body() -> None:
    client, kept = answer(
        [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"], method=b"HEAD", then_close=False
    )
    assert client.ended
    assert kept


def timed(limit: Callable[[Exchange], None]) -> Client:
    async def run() -> Client:
        loop = asyncio.get_running_loop()
        client = Client()
        exchange = Exchange(wire.Request(b"GET", b"/", "h", [], b"h"), client, loop)
        limit(exchange)
        while not (client.ended or client.aborted):
            await asyncio.sleep(0.005)
        return client

    return asyncio.run(run())


def test_expired_before_anything_was_written_is_504() -> None:
    assert timed(lambda exchange: exchange.limit(0.02, 0.02, 0)).status == 504
    assert timed(lambda exchange: exchange.limit(5, 0.02, 0)).status == 504
    assert timed(lambda exchange: exchange.limit(5, 5, 0.02)).status == 504


def test_expired_in_the_middle_keeps_its_status_and_is_cut() -> None:
    def begun(exchange: Exchange) -> None:
        exchange.limit(0.03, 0.01, 0)
        exchange.response_head(200, [])
        exchange.response_body(b"part")

    client = timed(begun)
    assert (client.status, client.body, client.aborted) == (200, b"part", True)
