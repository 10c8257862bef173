"""Heads: what is accepted, what it means, and that a remembered head is the same head."""

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.wire.http1_head import (
    NO_LENGTH,
    BadHead,
    HeadCache,
    RequestHead,
    parse_request_head,
    parse_response_head,
)


def request(*fields: bytes, line: bytes = b"POST /x HTTP/1.1", host: bool = True) -> bytes:
    return b"\r\n".join([line, *([b"Host: h"] if host else []), *fields, b"", b""])


def test_a_request_head_says_what_it_says() -> None:
    head = parse_request_head(request(b"X-A:  1 \t", b"x-a:2", b"Content-Length: 12", b"Empty:"))
    assert (head.method, head.target, head.minor) == (b"POST", b"/x", 1)
    assert head.headers == [
        (b"Host", b"h"),
        (b"X-A", b"1"),
        (b"x-a", b"2"),
        (b"Content-Length", b"12"),
        (b"Empty", b""),
    ]
    assert (head.length, head.chunked, head.keep_alive, head.plain) == (12, False, True, True)


@pytest.mark.parametrize(
    ("fields", "line", "keep_alive"),
    [
        ((), b"GET / HTTP/1.1", True),
        ((b"Connection: close",), b"GET / HTTP/1.1", False),
        ((b"Connection: upgrade, CLOSE",), b"GET / HTTP/1.1", False),
        ((), b"GET / HTTP/1.0", False),
        ((b"Connection: Keep-Alive",), b"GET / HTTP/1.0", True),
    ],
)
def test_keep_alive(fields: tuple[bytes, ...], line: bytes, keep_alive: bool) -> None:
    assert parse_request_head(request(*fields, line=line)).keep_alive is keep_alive


def test_chunked_and_expectation() -> None:
    head = parse_request_head(request(b"Transfer-Encoding: Chunked", b"Expect: 100-Continue"))
    assert (head.length, head.chunked, head.expect_continue) == (NO_LENGTH, True, True)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(b"Content-Length: 1", b"Content-Length: 1"), 400),
        (request(b"Content-Length: 1", b"Transfer-Encoding: chunked"), 400),
        (request(b"Content-Length: \xb2"), 400),
        (request(b"Content-Length: "), 400),
        (request(b"Content-Length: 1_0"), 400),
        (request(b"Transfer-Encoding: identity"), 501),
        (request(b"Transfer-Encoding: chunked, chunked"), 501),
        (request(b"Transfer-Encoding : chunked"), 400),
        (request(b" X: 1"), 400),
        (request(b"X\x00: 1"), 400),
        (request(b": 1"), 400),
        (request(b"X"), 400),
        (request(b"X: \x7f"), 400),
        (request(host=False), 400),
        (request(b"Host: again"), 400),
        (request(line=b"POST  /x HTTP/1.1"), 400),
        (request(line=b"POST /x y HTTP/1.1"), 400),
        (request(line=b"P\xc3\x96ST /x HTTP/1.1"), 400),
        (request(line=b"POST /x http/1.1"), 400),
        (request(line=b"POST /x HTTP/1.2"), 505),
        (request(line=b"POST /x HTTP/3.0"), 505),
        (request(line=b"CONNECT x:1 HTTP/1.1"), 501),
        (request(b"Expect: 200-ok"), 417),
        (b"\r\n\r\n", 400),
    ],
)
def test_refused(data: bytes, status: int) -> None:
    with pytest.raises(BadHead) as caught:
        parse_request_head(data)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("lines", "length", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", 5, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n", 5, True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", NO_LENGTH, True),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            NO_LENGTH,
            False,
        ),
        (b"HTTP/1.1 200 OK\r\n", NO_LENGTH, False),
        (b"HTTP/1.1 204 No Content\r\n", 0, True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n", 0, True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n", 5, False),
        (b"HTTP/1.1 200\r\nConnection: close\r\nContent-Length: 0\r\n", 0, False),
    ],
)
def test_a_response_head_says_where_its_body_ends(
    lines: bytes, length: int, keep_alive: bool
) -> None:
    head = parse_response_head(lines + b"\r\n")
    assert (head.length, head.keep_alive) == (length, keep_alive)


@pytest.mark.parametrize(
    "lines",
    [
        b"HTTP/1.1 20 OK\r\n",
        b"HTTP/2 200 OK\r\n",
        b"HTTP/1.1 200 OK\nX: y\r\n",
        b"hello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n",
    ],
)
def test_a_response_head_that_cannot_be_trusted_is_refused(lines: bytes) -> None:
    with pytest.raises(BadHead):
        parse_response_head(lines + b"\r\n")


def test_the_cache_forgets_everything_rather_than_grow() -> None:
    cache: HeadCache[RequestHead] = HeadCache()
    head = parse_request_head(request())
    for number in range(HeadCache.MAX_HEADS + 1):
        cache.put(b"%d" % number, head)
    assert len(cache.heads) == 1
    cache.put(b"x" * (HeadCache.MAX_HEAD_BYTES + 1), head)
    assert len(cache.heads) == 1


# --- against an independent parser
# -------------------------------------------------------------------

_NAMES = st.sampled_from(
    [
        b"X-A",
        b"Host",
        b"Content-Length",
        b"Transfer-Encoding",
        b"Connection",
        b"Expect",
        b"x",
        b"X B",
        b"",
    ]
)
_VALUES = st.sampled_from(
    [
        b"1",
        b"chunked",
        b"close",
        b"",
        b"h",
        b"1, 1",
        b"\xff",
        b"a\tb",
        b"\x01",
        b"100-continue",
        b"+1",
    ]
)
_FIELDS = st.lists(
    st.tuples(_NAMES, st.sampled_from([b":", b": ", b" :", b":\t"]), _VALUES), max_size=5
)
_LINES = st.sampled_from(
    [
        b"GET / HTTP/1.1",
        b"POST /a?b HTTP/1.0",
        b"PUT * HTTP/1.1",
        b"G\x00 / HTTP/1.1",
        b"GET /\x80 HTTP/1.1",
    ]
)
_ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"])


class Oracle:
    """httptools (llhttp), asked about a head alone."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.url = b""
        self.complete = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.complete = True


@settings(max_examples=400, deadline=None)
@given(_LINES, _FIELDS, st.booleans(), _ENDS)
def test_whatever_we_accept_an_independent_parser_reads_the_same(
    line: bytes, fields: list[tuple[bytes, bytes, bytes]], host: bool, end: bytes
) -> None:
    lines = [line, *([b"Host: h"] if host else []), *(b"".join(field) for field in fields)]
    data = end.join(lines) + end + end
    try:
        head = parse_request_head(data)
    except BadHead:
        return
    if not head.target.isascii():
        return  # llhttp refuses those; Go, whose router we replace, does not
    oracle = Oracle(data)
    assert oracle.complete
    assert oracle.parser.get_method() == head.method
    assert oracle.url == head.target
    assert [(name, value.strip(b" \t")) for name, value in oracle.headers] == head.headers
    assert oracle.parser.should_keep_alive() == head.keep_alive


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_noise_never_raises_anything_else(data: bytes) -> None:
    for parse in (parse_request_head, parse_response_head):
        try:
            parse(data)
        except BadHead:
            continue
        # hypothesis also tries the literals of our own source: some of those are heads
        assert data.endswith(b"\r\n\r\n")


def test_a_hostile_head_takes_linear_time() -> None:
    import time

    def seconds(count: int) -> float:
        data = request(*[b"a:" + b"\t" * 50] * count, b"!" * count)
        began = time.perf_counter()
        with pytest.raises(BadHead):
            parse_request_head(data)
        return time.perf_counter() - began

    small = min(seconds(500) for _ in range(5))
    large = min(seconds(8000) for _ in range(5))
    assert large < small * 16 * 8
