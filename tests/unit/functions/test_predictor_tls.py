"""TLS to the predictor, over REST and gRPC: who is trusted, and what a mismatch says."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from functions.errors import LoadFailed, UpstreamError
from tests.fakes_predictor import ask, predictor, raw, says, scripted
from tests.unit.functions.test_predictor_grpc import serving, tensors

PROTOCOLS = ("v1", "v2", "grpc-v2")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return str(file)


@asynccontextmanager
async def behind(protocol: str, authority: trustme.CA, name: str) -> AsyncIterator[str]:
    """A predictor whose certificate is for `name`. Its port."""
    certificate = authority.issue_cert(name)
    if protocol == "grpc-v2":
        credentials = grpc.ssl_server_credentials(
            [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
        )
        async with serving(credentials=credentials) as host:
            yield host.rpartition(":")[2]
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    output = {"name": "y", "shape": [1], "datatype": "INT8", "data": [1]}
    answer = says({"model_name": "m", "outputs": [output]})
    async with scripted(lambda request: answer, context) as server:
        yield str(server.port)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_predictor_of_an_authority_that_is_given_is_trusted(
    protocol: str, authority: trustme.CA, ca_file: str
) -> None:
    async def run() -> None:
        async with behind(protocol, authority, "localhost") as port:
            options: dict[str, Any] = {"predictor_protocol": protocol, "predictor_ca_file": ca_file}
            assert await ask(f"https://localhost:{port}", tensors(2), **options)
            assert await ask(f"localhost:{port}", tensors(2), predictor_use_ssl=True, **options)

    asyncio.run(run())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_strangers_are_not_trusted_unless_told_so(protocol: str, authority: trustme.CA) -> None:
    async def run() -> None:
        async with behind(protocol, authority, "localhost") as port:
            to = f"https://localhost:{port}"
            with pytest.raises(UpstreamError, match="certificate is not accepted") as caught:
                await ask(to, tensors(2), predictor_protocol=protocol)
            assert "--predictor-ca-file" in str(caught.value)
            assert caught.value.http_status() == 502
            assert await ask(to, tensors(2), predictor_protocol=protocol, predictor_verify=False)

    asyncio.run(run())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_name_is_checked(protocol: str, authority: trustme.CA, ca_file: str) -> None:
    async def run() -> None:
        async with behind(protocol, authority, "elsewhere.example") as port:
            with pytest.raises(UpstreamError, match=r"localhost.*mismatch") as caught:
                await ask(
                    f"https://localhost:{port}", tensors(2),
                    predictor_protocol=protocol, predictor_ca_file=ca_file,
                )  # fmt: skip
            assert "--predictor-ca-file" not in str(caught.value)

    asyncio.run(run())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tls_to_a_plain_port_and_plain_to_a_tls_port(
    protocol: str, authority: trustme.CA, ca_file: str
) -> None:
    async def run() -> None:
        async with raw(says({}, 400)) as plain:
            with pytest.raises(UpstreamError, match="does not speak TLS on this port") as caught:
                await ask(f"https://{plain}", tensors(2), predictor_protocol=protocol)
            assert caught.value.http_status() == 502
        async with behind(protocol, authority, "localhost") as port:
            with pytest.raises(UpstreamError, match=r"closed|TLS|garbage|reset"):
                await ask(f"localhost:{port}", tensors(2), predictor_protocol=protocol)

    asyncio.run(run())


def test_an_http_1_port_with_tls_is_no_grpc_port(authority: trustme.CA, ca_file: str) -> None:
    async def run() -> None:
        async with behind("v1", authority, "localhost") as port:
            with pytest.raises(UpstreamError, match="does not offer HTTP/2"):
                await ask(
                    f"https://localhost:{port}", tensors(2),
                    predictor_protocol="grpc-v2", predictor_ca_file=ca_file,
                )  # fmt: skip

    asyncio.run(run())


def test_a_ca_file_that_is_none_is_found_at_load(tmp_path: Path) -> None:
    for content in (None, "no certificate"):
        file = tmp_path / "ca.pem"
        if content is not None:
            file.write_text(content)
        with pytest.raises(LoadFailed, match="--predictor-ca-file"):
            predictor("https://h", predictor_ca_file=str(file))


@pytest.mark.parametrize("protocol", ["v1", "grpc-v2"])
def test_a_proxy_tunnels_tls_and_grpc(protocol: str, authority: trustme.CA, ca_file: str) -> None:
    """CONNECT, then the predictor's own certificate."""
    asked: list[bytes] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def run() -> None:
        async with behind(protocol, authority, "predictor.example") as port:

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
                far = await asyncio.open_connection("127.0.0.1", int(port))
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await asyncio.gather(pump(reader, far[1]), pump(far[0], writer))
                for end in (far[1], writer):
                    end.close()

            proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
            place = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
            assert await ask(
                "https://predictor.example", tensors(2), predictor_protocol=protocol,
                predictor_ca_file=ca_file, environ={"https_proxy": place},
            )  # fmt: skip
            assert asked == [b"CONNECT predictor.example:443 HTTP/1.1"]
            proxy.close()
            await asyncio.sleep(0.05)

    asyncio.run(run())
    asyncio.run(refused())


async def refused() -> None:
    async with scripted(lambda request: says({}, 403)) as proxy:
        with pytest.raises(UpstreamError, match=r"the proxy 127.* refused a tunnel \(403\)"):
            await ask("https://h", tensors(2), environ={"https_proxy": f"http://{proxy.host}"})
