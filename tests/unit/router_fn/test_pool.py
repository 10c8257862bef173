"""The pool at its edges, with a loop of our own and real loopback sockets closed at bad moments."""

import asyncio
import contextlib
import socket
import struct
from typing import Any

import pytest

from router_fn.errors import UpstreamError
from router_fn.pool import Pool, PoolLimits
from router_fn.upstream import UpstreamConnection
from router_fn.urls import parse_url


class Caller:
    """An outgoing call that notes what happens to it."""

    inflates = False

    def __init__(self) -> None:
        self.cancelled = False
        self.told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def transmit(self, connection: UpstreamConnection) -> None:
        connection.begin(self, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"")

    def replied(self, status: int, body: bytes, head: Any) -> None:
        self.told.set_result((status, body))

    def failed(self, error: UpstreamError) -> None:
        self.told.set_result(error)

    def unsent(self) -> None:
        self.told.set_result("unsent")

    def wants_stream(self, head: Any) -> bool:
        return False

    def stream_data(self, data: bytes) -> None: ...

    def stream_end(self) -> None: ...


async def finish(server: asyncio.Server, pool: Pool, closing: list[asyncio.StreamWriter]) -> None:
    """Nothing stays open, on either side."""
    server.close()
    await pool.close()
    for writer in closing:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def test_a_connection_that_dies_before_it_is_used_fails_its_call_instead_of_losing_it() -> None:
    class Stillborn(UpstreamConnection):
        """As if the peer's reset had been read before the dialler ran on."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.connection_lost(ConnectionResetError())

    async def run() -> Any:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr("router_fn.pool.UpstreamConnection", Stillborn)
            pool = Pool()
            pool.start()
            origin = pool.origin(parse_url(f"http://127.0.0.1:{listener.getsockname()[1]}/"))
            call = Caller()
            origin.send(call)
            told = await asyncio.wait_for(call.told, 5)
            assert not origin.connections
            await pool.close()
            return told

    told = asyncio.run(run())
    assert isinstance(told, UpstreamError)
    assert told.retryable


def test_resets_at_every_moment_answer_every_call() -> None:
    closing: list[asyncio.StreamWriter] = []

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        closing.append(writer)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()  # a reset, at once

    async def run() -> list[Any]:
        server = await asyncio.start_server(reset, "127.0.0.1", 0)
        pool = Pool(PoolLimits(max_connections=5))
        pool.start()
        origin = pool.origin(parse_url(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))
        calls = [Caller() for _ in range(100)]
        for call in calls:
            origin.send(call)
        told = await asyncio.wait_for(asyncio.gather(*(call.told for call in calls)), 10)
        assert not origin.waiting
        await finish(server, pool, closing)
        return told

    assert all(isinstance(one, UpstreamError) for one in asyncio.run(run()))


def test_calls_beyond_the_limit_wait_their_turn_and_cancelled_ones_are_passed_over() -> None:
    closing: list[asyncio.StreamWriter] = []

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        closing.append(writer)
        while (await reader.read(1000)) != b"":
            await asyncio.sleep(0.01)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(slow, "127.0.0.1", 0)
        pool = Pool(PoolLimits(max_connections=2))
        pool.start()
        origin = pool.origin(parse_url(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))
        calls = [Caller() for _ in range(20)]
        for call in calls:
            origin.send(call)
        calls[10].cancelled = True
        others = [call.told for call in calls if call is not calls[10]]
        assert await asyncio.wait_for(asyncio.gather(*others), 10) == [(200, b"{}")] * 19
        assert not calls[10].told.done()
        assert len(origin.connections) == len(origin.idle) == 2
        await finish(server, pool, closing)

    asyncio.run(run())
