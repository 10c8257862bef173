"""Both outgoing clients against a server that answers byte by byte as told."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from events.errors import DeliveryFailed
from events.http import Answer, Client, ProxySettings
from events.http_async import AsyncClient

Post = Callable[[str, dict[str, str], bytes, float], Answer]


class Script:
    """A server: each connection gets the next list of raw answers, one for each request on it."""

    def __init__(self, *connections: list[bytes]) -> None:
        self.requests: list[bytes] = []
        self._connections = list(connections)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/sink"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        for answers in self._connections:
            with contextlib.suppress(OSError):
                client, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(client, answers), daemon=True).start()

    def _serve(self, client: socket.socket, answers: list[bytes]) -> None:
        with client, contextlib.suppress(OSError):
            for answer in answers:
                self.requests.append(self._read(client))
                for piece in answer.split(b"|"):  # each piece in a segment of its own
                    client.sendall(piece)
                    time.sleep(0.005)

    def _read(self, client: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < 4:
            more = client.recv(65536)
            if not more:
                raise OSError("closed")
            data += more
        return data

    def close(self) -> None:
        self._socket.close()


@contextmanager
def script(*connections: list[bytes]) -> Iterator[Script]:
    server = Script(*connections)
    try:
        yield server
    finally:
        server.close()


def run(kind: str, use: Callable[[Post], None], proxies: ProxySettings | None = None) -> None:
    """Call `use` with a blocking `post` of either client; connections live for the whole of it."""
    if kind == "threads":
        client = Client(proxies)
        use(client.post)
        client.close()
        return
    with asyncio.Runner() as runner:
        loop_client = AsyncClient(proxies)

        def post(url: str, headers: dict[str, str], body: bytes, timeout_s: float) -> Answer:
            return runner.run(loop_client.post(url, headers, body, timeout_s))

        try:
            use(post)
        finally:
            runner.run(loop_client.close())


KINDS = pytest.mark.parametrize("kind", ["threads", "loop"])
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\n\r\nok"


@KINDS
@pytest.mark.parametrize(
    ("raw", "status", "body"),
    [
        (OK, 200, b"ok"),
        (b"HT|TP/1.1 202 Acc|epted\r\nContent-Le|ngth: 2\r\n\r|\no|k", 202, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no|\r\n1\r\nk\r\n0\r\n\r\n",
            200,
            b"ok",
        ),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\no|k", 200, b"ok"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: 3\r\n\r\n", 503, b""),
        (b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n", 302, b""),
    ],
)
def test_answers(kind: str, raw: bytes, status: int, body: bytes) -> None:
    with script([raw]) as server:

        def use(post: Post) -> None:
            answer = post(server.url, {"X-B": "2"}, b"body", 5)
            assert (answer.status, answer.body) == (status, body)
            assert all(name == name.lower() for name in answer.headers)

        run(kind, use)
        (request,) = server.requests
        assert request.startswith(b"POST /sink HTTP/1.1\r\n")
        assert b"X-B: 2\r\n" in request
        assert request.endswith(b"\r\n\r\nbody")


@KINDS
@pytest.mark.parametrize(
    "raw",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b"nonsense\r\n\r\n"],
)
def test_broken_answers_are_failed_deliveries(kind: str, raw: bytes) -> None:
    with script([raw], [raw]) as server:

        def use(post: Post) -> None:
            with pytest.raises(DeliveryFailed):
                post(server.url, {}, b"body", 5)

        run(kind, use)


@KINDS
def test_silence_is_a_failed_delivery_in_time(kind: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"

    def use(post: Post) -> None:
        started = time.monotonic()
        with pytest.raises(DeliveryFailed, match="did not answer"):
            post(url, {}, b"body", 0.2)
        assert time.monotonic() - started < 5

    with listener:
        run(kind, use)


@KINDS
def test_nobody_there_is_a_failed_delivery(kind: str) -> None:
    def use(post: Post) -> None:
        with pytest.raises(DeliveryFailed):
            post("http://127.0.0.1:9/", {}, b"body", 2)

    run(kind, use)


@KINDS
def test_connections_are_kept_and_replaced_when_the_other_side_closed_them(kind: str) -> None:
    with script([OK, OK], [OK]) as server:

        def use(post: Post) -> None:
            for _ in range(3):
                assert post(server.url, {}, b"body", 5).status == 200
                time.sleep(0.05)  # the server's close has to arrive

        run(kind, use)
        assert len(server.requests) == 3


@KINDS
def test_a_proxy_gets_the_whole_url_unless_the_host_is_excepted(kind: str) -> None:
    with script([OK]) as proxy, script([OK]) as direct:
        origin = proxy.url.removesuffix("/sink")
        settings = ProxySettings(http=origin, no="127.0.0.1,.example")

        def use(post: Post) -> None:
            assert (
                post("http://sink.default.svc.cluster.local/in?x=1", {}, b"body", 5).status == 200
            )
            assert post(direct.url, {}, b"body", 5).status == 200

        run(kind, use, settings)
        assert proxy.requests[0].startswith(
            b"POST http://sink.default.svc.cluster.local/in?x=1 HTTP/1.1\r\n"
        )
        assert b"Host: sink.default.svc.cluster.local\r\n" in proxy.requests[0]
        assert direct.requests[0].startswith(b"POST /sink ")
