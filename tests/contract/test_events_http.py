"""Both outgoing clients against a server that answers byte by byte as told."""

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from events.errors import DeliveryFailed, Refused
from events.http import Answer, Client, ProxySettings, split_url
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


@KINDS
def test_a_header_value_cannot_smuggle_a_second_header(kind: str) -> None:
    def use(post: Post) -> None:
        for value in ("a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b"):
            with pytest.raises(Refused):
                post("http://127.0.0.1:9/", {"X-A": value}, b"", 1)

    run(kind, use)


@KINDS
def test_text_beyond_ascii_travels_as_utf_8(kind: str) -> None:
    with script([OK]) as server:
        run(kind, lambda post: post(server.url + "/ü b?q=€", {"X-A": "€"}, b"body", 5) and None)
        assert server.requests[0].startswith(b"POST /sink/%C3%BC%20b?q=%E2%82%AC HTTP/1.1\r\n")
        assert "X-A: €\r\n".encode() in server.requests[0]


@KINDS
@pytest.mark.parametrize(
    "answer",
    [
        OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 20",
    ],
)
def test_bytes_behind_an_answer_are_nobodys_answer(kind: str, answer: bytes) -> None:
    with script([answer, OK], [OK]) as server:

        def use(post: Post) -> None:
            assert post(server.url, {}, b"body", 5).body in (b"ok", b"")
            assert post(server.url, {}, b"body", 5).body == b"ok"

        run(kind, use)


def test_an_answer_longer_than_allowed_is_not_read_to_its_end() -> None:
    from events.http_answer import AnswerTooLong

    long = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n" + b"x" * 32 + b"\r\n"
    with script([long], [chunked]) as server:
        client = Client()
        for size in (1_000_000, 32):
            with pytest.raises(AnswerTooLong) as error:
                client.request("POST", *split_url(server.url), {}, b"body", 5, most=10)
            assert error.value.size == size


def test_a_refusal_before_the_whole_body_was_sent_is_still_the_answer() -> None:
    """A server that says 413 and hangs up must not look like one that is away."""
    listener = socket.create_server(("127.0.0.1", 0))
    answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            client.recv(1024)
            client.sendall(answer)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass

    threading.Thread(target=serve, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    with listener:
        assert Client().post(url, {}, b"x" * 4_000_000, 10).status == 413


# --- TLS ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, its key in the same file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


class TlsScript(Script):
    """The same over TLS; `through`: a CONNECT is answered first, in the clear."""

    def __init__(self, certificate: Path, *connections: list[bytes], through: bool = False) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._through = through
        self.asked = b""
        super().__init__(*connections)
        self.url = self.url.replace("http:", "https:")

    def _serve(self, client: socket.socket, answers: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            if self._through:
                while b"\r\n\r\n" not in self.asked:
                    self.asked += client.recv(4096)
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            super()._serve(self._context.wrap_socket(client, server_side=True), answers)
        client.close()


@KINDS
def test_tls_is_spoken_and_certificates_are_checked(
    kind: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = TlsScript(certificate, [OK, OK], [OK], [OK])
    with contextlib.closing(server):

        def refused(post: Post) -> None:
            with pytest.raises(DeliveryFailed, match="cannot be reached"):
                post(server.url, {}, b"body", 5)

        def taken(post: Post) -> None:
            assert [post(server.url, {}, b"body", 5).body for _ in range(2)] == [b"ok", b"ok"]

        server._connections.insert(0, [])
        run(kind, refused)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        run(kind, taken)


@KINDS
def test_certificates_of_the_cluster_are_trusted_as_well(kind: str, certificate: Path) -> None:
    """K_CA_CERTS of a SinkBinding."""
    pem = certificate.read_text()
    certs = pem[pem.index("-----BEGIN CERTIFICATE") :]
    server = TlsScript(certificate, [OK])
    with contextlib.closing(server):
        if kind == "threads":
            client = Client(ca_certs=certs)
            assert client.post(server.url, {}, b"body", 5).body == b"ok"
            client.close()
            return
        with asyncio.Runner() as runner:
            loop_client = AsyncClient(ca_certs=certs)
            assert runner.run(loop_client.post(server.url, {}, b"body", 5)).body == b"ok"
            runner.run(loop_client.close())


def test_tls_goes_through_a_proxy_by_a_tunnel(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server = TlsScript(certificate, [OK], through=True)
    with contextlib.closing(server):
        port = server.url.rpartition(":")[2].partition("/")[0]
        proxies = ProxySettings(https=f"http://me:secret@127.0.0.1:{port}")
        answer = Client(proxies).post("https://127.0.0.1:4443/in", {}, b"body", 5)
    assert answer.body == b"ok"
    assert server.asked.startswith(b"CONNECT 127.0.0.1:4443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n" in server.asked
    assert server.requests[0].startswith(b"POST /in HTTP/1.1\r\n")
    assert b"Proxy-Authorization" not in server.requests[0]
