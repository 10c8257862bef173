"""KServe's behaviour over HTTP, in a table of our own: what a request sends upstream and what comes
back."""

import gzip
import http.client
import socket
from typing import Any

import pytest

from tests import fakes_router as fakes
from tests.fakes_router import echo, graph, in_turn, inspect, node, router, says, sequence, upstream


@pytest.fixture(scope="module")
def passed() -> Any:
    """A one-step graph whose upstream echoes."""
    with upstream() as up, router(sequence({"serviceUrl": up.url + "/a"})) as served:
        yield served, up


TYPES: list[tuple[bytes, str | None]] = [
    (b'{"a": 1 , "b":1.0}', "application/json"),
    (b'"s"', "application/json"),
    (b"null", "application/json"),
    (b" 12 ", "application/json"),
    (b"-1.5e-3", "application/json"),
    (b'"\xff"', "application/json"),
    (b'"\\ud800"', "application/json"),
    (b"[" * 2000 + b"]" * 2000, "application/json"),
    (b"NaN", "text/plain; charset=utf-8"),
    (b"{'a':1}", "text/plain; charset=utf-8"),
    (b"01", "text/plain; charset=utf-8"),
    (b'{"a":1}x', "text/plain; charset=utf-8"),
    ("hello wörld".encode(), "text/plain; charset=utf-8"),
    (b"<html><body>", "text/html; charset=utf-8"),
    (b"<?xml version=", "text/xml; charset=utf-8"),
    (b"\x89PNG\r\n\x1a\n....", "image/png"),
    (gzip.compress(b"x", mtime=0), "application/x-gzip"),
    (b"\x00\x01\x02", "application/octet-stream"),
    (b"", None),
]


@pytest.mark.parametrize(("body", "media_type"), TYPES, ids=[repr(row[0][:20]) for row in TYPES])
def test_bodies_pass_unchanged_and_get_their_type_by_content(
    passed: Any, body: bytes, media_type: str | None
) -> None:
    served, up = passed
    answer = served.request(body=body)
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers.get("content-type") == media_type
    assert up.seen[-1].body == body


@pytest.mark.parametrize(
    "cut",
    [
        b"Content-Length: 99\r\n\r\n" + b'{"a": 1}',
        b"Transfer-Encoding: chunked\r\n\r\n8\r\n" + b'{"a": 1}',
    ],
)
def test_a_body_that_ends_early_is_run_as_far_as_it_came(passed: Any, cut: bytes) -> None:
    served, up = passed
    with served.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + cut)
        sock.shutdown(socket.SHUT_WR)
        answer = http.client.HTTPResponse(sock)
        answer.begin()  # reads over interim answers
        assert (answer.status, answer.read()) == (200, b'{"a": 1}')
    assert up.seen[-1].body == b'{"a": 1}'


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "BREW"])
@pytest.mark.parametrize(
    "path", ["/", "/v1/models/x:predict", "/readyz/", "//a", "/a/../b?c=d", "*", "http://other/x"]
)
def test_every_method_and_path_is_a_post_to_the_graph(passed: Any, method: str, path: str) -> None:
    served, up = passed
    answer = served.request(method, path, b'{"m":1}')
    assert answer.status == 200
    assert answer.body == (b"" if method == "HEAD" else b'{"m":1}')
    assert (up.seen[-1].method, up.seen[-1].path) == ("POST", "/a")


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
@pytest.mark.parametrize("path", ["/readyz", "/readyz?verbose=1", "/ready%7A", "http://h/readyz"])
def test_readiness_does_not_run_the_graph(passed: Any, method: str, path: str) -> None:
    served, up = passed
    before = len(up.seen)
    answer = served.request(method, path)
    assert (answer.status, answer.body, "content-type" in answer.headers) == (200, b"", False)
    assert len(up.seen) == before


def test_the_outgoing_head_is_ours_alone() -> None:
    with (
        upstream(default=inspect) as up,
        router(sequence({"serviceUrl": up.url + "/p?q=%2F&r"})) as served,
    ):
        seen = served.request(
            Authorization="Bearer x", X_Request_Id="1", Content_Type="text/weird"
        ).json
    assert seen["path"] == "/p?q=%2F&r"
    assert seen["headers"] == {
        "host": up.url.removeprefix("http://"),
        "user-agent": "turnout-router",
        "accept-encoding": "gzip",
        "content-type": "application/json",
        "content-length": "2",
    }


HEADERS: list[tuple[str, dict[str, str], set[str]]] = [
    ("X-A", {"X-A": "1", "x-ab": "2", "My-X-A": "3", "X-B": "4"}, {"x-a", "x-ab", "my-x-a"}),
    ("^X-A$", {"X-A": "1", "X-Ab": "2"}, {"x-a"}),
    ("authorization,x-b", {"Authorization": "1", "X-B": "2"}, set()),
    ("(?i)x-b", {"X-B": "2"}, {"x-b"}),
    ("Test-Header-[0-9,Auth*", {"Authorization": "1", "Test-Header-1": "2"}, {"authorization"}),
    ("^X-[[:alpha:]]+$,Y-(?!Secret)", {"X-Abc": "1", "X-1": "2", "Y-Open": "3"}, {"x-abc"}),
    ("", {"Authorization": "1"}, set()),
    ("X-B,,X-C", {"Authorization": "1", "X-B": "2", "X-C": "3"}, {"x-b", "x-c"}),
    (".*", {"Te": "trailers", "Upgrade": "h2c", "Proxy-Authorization": "x", "X-A": "1"}, {"x-a"}),
]


@pytest.mark.parametrize(
    ("patterns", "sent", "forwarded"), HEADERS, ids=[row[0] or "empty" for row in HEADERS]
)
def test_headers_are_forwarded_by_go_patterns_on_canonical_names(
    patterns: str, sent: dict[str, str], forwarded: set[str]
) -> None:
    with (
        upstream(default=inspect) as up,
        router(sequence({"serviceUrl": up.url}), PROPAGATE_HEADERS=patterns) as served,
    ):
        seen = served.request(
            **{name.replace("-", "_"): value for name, value in sent.items()}
        ).json["headers"]
    assert {name.lower() for name in sent} & set(seen) == forwarded
    assert all(
        seen[name.lower()] == value for name, value in sent.items() if name.lower() in forwarded
    )
    assert seen["host"] == up.url.removeprefix("http://")
    assert seen["content-length"] == "2"


def test_a_forwarded_content_type_replaces_the_default_and_repeated_headers_stay_repeated() -> None:
    with (  # noqa: SIM117
        upstream(default=inspect) as up,
        router(sequence({"serviceUrl": up.url}), PROPAGATE_HEADERS="Content-Type,X-M") as served,
    ):
        with served.connect() as client:
            client.sendall(
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: text/weird\r\nX-M: 1\r\nX-m: 2\r"
                b"\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
            )
            answer = fakes.recv_all(client)
    assert b'"content-type": "text/weird"' in answer
    assert b'"x-m": "1, 2"' in answer


class TestRedirects:
    @pytest.mark.parametrize(
        ("status", "method", "body"),
        [
            (301, "GET", ""),
            (302, "GET", ""),
            (303, "GET", ""),
            (307, "POST", "{}"),
            (308, "POST", "{}"),
        ],
    )
    def test_followed_as_go_does(self, status: int, method: str, body: str) -> None:
        with upstream({"/a": says(b"", status=status, Location="/b?x=1"), "/b": inspect}) as up:  # noqa: SIM117
            with router(sequence({"serviceUrl": up.url + "/a"})) as served:
                seen = served.request().json
        assert (seen["method"], seen["path"], seen["body"]) == (method, "/b?x=1", body)

    def test_nine_are_followed_the_tenth_is_an_error(self) -> None:
        routes = {f"/{i}": says(b"", status=307, Location=f"/{i + 1}") for i in range(12)}
        for last, status in ((9, 200), (10, 500)):
            with (
                upstream({**routes, f"/{last}": echo}) as up,
                router(sequence({"serviceUrl": up.url + "/0"})) as served,
            ):
                assert served.request().status == status

    def test_secrets_do_not_follow_to_another_host(self) -> None:
        with upstream(default=inspect) as other, upstream() as up:
            up.routes["/a"] = says(
                b"", status=307, Location=other.url.replace("127.0.0.1", "localhost")
            )
            with router(
                sequence({"serviceUrl": up.url + "/a"}), PROPAGATE_HEADERS="Authorization,X-A"
            ) as served:
                seen = served.request(Authorization="Bearer x", X_A="1").json["headers"]
        assert "authorization" not in seen
        assert seen["x-a"] == "1"

    @pytest.mark.parametrize("status", [300, 301, 304, 307])
    def test_without_location_it_is_an_answer(self, status: int) -> None:
        with (
            upstream({"/a": says(b"", status=status)}) as up,
            router(sequence({"serviceUrl": up.url + "/a"})) as served,
        ):
            assert served.request().status == status


def test_statuses_pass_and_upstream_headers_do_not() -> None:
    with (
        upstream(
            {
                "/a": in_turn(
                    *(
                        says(b"{}", status=s, X_Up="1", Set_Cookie="a=b")
                        for s in (200, 201, 299, 400, 404, 500, 503)
                    )
                )
            }
        ) as up,
        router(sequence({"serviceUrl": up.url + "/a"})) as served,
    ):
        answers = [served.request() for _ in range(7)]
    assert [answer.status for answer in answers] == [200, 201, 299, 400, 404, 500, 503]
    assert all({"x-up", "set-cookie"}.isdisjoint(answer.headers) for answer in answers)


@pytest.mark.parametrize(
    "url",
    [
        "http://single-1.default.{$your-domain}/switch",
        "/just/a/path",
        "ftp://x/y",
        "http://",
        "https://127.0.0.1:1/x",
    ],
)
def test_a_url_that_cannot_be_called_fails_only_the_requests_that_get_there(url: str) -> None:
    with upstream() as up:
        switch = node(
            "Switch",
            {"serviceUrl": url, "condition": "bad"},
            {"serviceUrl": up.url, "condition": "good"},
        )
        with router(graph(switch)) as served:
            assert served.request(body=b'{"good":1}').status == 200
            answer = served.request(body=b'{"bad":1}')
    assert answer.status == 500
    assert answer.json["error"] == "Failed to process request"


def test_connections_to_upstreams_are_reused() -> None:
    with upstream() as up, router(sequence(*[{"serviceUrl": up.url}] * 3)) as served:
        for _ in range(20):
            served.request()
        assert up.accepted == 1


def test_an_upstream_that_closes_idle_connections_costs_no_request() -> None:
    def once(talk: fakes.Conversation) -> None:
        talk.answer(b"{}")
        talk.close()

    with upstream(default=once) as up, router(sequence({"serviceUrl": up.url})) as served:
        for _ in range(20):
            assert served.request().status == 200
            fakes.wait_until(lambda: not up.open, "the upstream has closed")
