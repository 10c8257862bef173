"""A connection through a proxy's tunnel outlives what opened it."""

import asyncio
import gc

from functions.predictor import dialling
from functions.predictor.target import Target


class Peer(asyncio.Protocol):
    def __init__(self) -> None:
        self.received = b""
        self.lost = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


class Proxy(Peer):
    """Answers CONNECT, then echoes."""

    opened = False

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        self.received += data
        if not self.opened and self.received.endswith(b"\r\n\r\n"):
            self.opened = True
            data = b"HTTP/1.1 200 Connection established\r\n\r\n"
        if self.opened:
            self.transport.write(data)


async def through_a_tunnel() -> tuple[bool, bytes]:
    proxy = Proxy()
    server = await asyncio.get_running_loop().create_server(lambda: proxy, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    target = Target(scheme="http", host="m.test", port=80, path="", proxy=("127.0.0.1", port))
    peer = await dialling.connect(target, Peer, None, tunnel=True)
    gc.collect()
    assert peer.transport is not None
    peer.transport.write(b"ping")
    for _ in range(500):
        if peer.received or peer.lost:
            break
        await asyncio.sleep(0.01)
    found = peer.lost, peer.received
    peer.transport.close()
    while not proxy.lost:
        await asyncio.sleep(0.01)
    server.close()
    return found


def test_it_stays_open() -> None:
    assert asyncio.run(through_a_tunnel()) == (False, b"ping")
