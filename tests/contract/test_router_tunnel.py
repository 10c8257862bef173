"""The router and an https upstream behind an http proxy: one tunnel, kept for many requests."""

import contextlib
import http.server
import select
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.fakes_router import router, sequence
from tests.listening import Listener, serving

ANSWER = b'{"predictions":[1]}'
HOST = "model.example"


class _Model(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, format: str, *args: object) -> None: ...


class _Proxy(Listener):
    """Opens tunnels to one place, whatever name is asked for, or refuses with a status."""

    def __init__(self, port: int, status: str = "200 OK") -> None:
        self.asked: list[bytes] = []
        self._target = port
        self._status = status
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        self.asked.append(head.partition(b"\r\n")[0])
        sock.sendall(f"HTTP/1.1 {self._status}\r\n\r\n".encode())
        if not self._status.startswith("2"):
            return
        with socket.create_connection(("127.0.0.1", self._target)) as server:
            while True:
                for one in select.select([sock, server], [], [])[0]:
                    data = one.recv(65536)
                    if not data:
                        return
                    (server if one is sock else sock).sendall(data)


@pytest.fixture
def model(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The port of an https server of `HOST`, and the file with its authority."""
    authority = trustme.CA()
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Model)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server):
        yield server.server_port, file


def test_a_tunnel_is_opened_once_and_stays_open(model: tuple[int, Path]) -> None:
    port, authority = model
    proxy = _Proxy(port)
    spec = sequence({"serviceUrl": f"https://{HOST}/v1/models/m:predict"})
    with (
        contextlib.closing(proxy),
        router(spec, https_proxy=proxy.url, SSL_CERT_FILE=str(authority)) as served,
    ):
        answers = [served.request() for _ in range(50)]
    assert {(answer.status, answer.body) for answer in answers} == {(200, ANSWER)}
    assert proxy.asked == [f"CONNECT {HOST}:443 HTTP/1.1".encode()]


@pytest.mark.parametrize(
    ("status", "cause"), [("403 No", "refused a tunnel: 403"), ("oops", "refused a tunnel: oop")]
)
def test_a_refused_tunnel_is_an_error_that_says_so(
    model: tuple[int, Path], status: str, cause: str
) -> None:
    port, authority = model
    proxy = _Proxy(port, status)
    spec = sequence({"serviceUrl": f"https://{HOST}/"})
    with (
        contextlib.closing(proxy),
        router(spec, https_proxy=proxy.url, SSL_CERT_FILE=str(authority)) as served,
    ):
        answer = served.request()
    assert answer.status == 500
    assert cause in answer.json["cause"]
