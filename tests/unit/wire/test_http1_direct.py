"""Large bodies received in place, over real sockets, on both kinds of event loop."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from functions.wire import http1_direct
from functions.wire.http1 import Exchange, Limits, Server
from functions.wire.http1_head import RequestHead

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


def wants_views(head: RequestHead) -> bool:
    return head.target == b"/view"


class Running:
    """A server that answers with a digest of the body, and what it was given."""

    def __init__(self, **limits: Any) -> None:
        self.bodies: list[Any] = []
        self.server = Server(self.handle, Limits(**limits), takes_views=wants_views)

    def handle(self, exchange: Exchange) -> None:
        self.bodies.append(exchange.body)
        exchange.respond(200, b"%d" % len(exchange.body))

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not self.server.ports:
            await self.server.listen("127.0.0.1", 0)
        return await asyncio.open_connection("127.0.0.1", self.server.ports[0])


def request(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def in_loop(loop: str, test: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(asyncio.wait_for(test(), 60))


@pytest.mark.parametrize("loop", list(LOOPS))
@pytest.mark.parametrize("seed", range(4))
def test_bodies_of_every_size_one_after_the_other(loop: str, seed: int) -> None:
    async def test() -> None:
        chance = random.Random(seed)
        running = Running()
        reader, writer = await running.connect()
        sizes = [0, 10, 100_000, 700_000, 3, 2_000_000, 300_000, 5_000_000]
        chance.shuffle(sizes)
        bodies = [chance.randbytes(size) for size in sizes]
        sent = b"".join(request(chance.choice(["/view", "/bytes"]), body) for body in bodies)

        async def send() -> None:
            at = 0
            while at < len(sent):
                step = chance.choice([1000, 70_000, 400_000])
                writer.write(sent[at : at + step])
                at += step
                await writer.drain()

        sending = asyncio.ensure_future(send())
        for body in bodies:
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(len(str(len(body)))) == b"%d" % len(body)
        await sending
        assert [bytes(body) for body in running.bodies] == bodies
        assert running.server.in_flight == 0
        writer.close()
        await running.server.drain(5)

    in_loop(loop, test)


@pytest.mark.parametrize("loop", list(LOOPS))
def test_views_are_read_only_and_only_for_those_who_take_them(loop: str) -> None:
    async def test() -> None:
        running = Running()
        reader, writer = await running.connect()
        for path in ("/view", "/bytes"):
            writer.write(request(path, bytes(200_000))[:150_000])
            await writer.drain()
            await asyncio.sleep(0.05)  # the head arrives with a good part of the body
            writer.write(bytes(len(request(path, bytes(200_000))) - 150_000))
            await reader.readuntil(b"200000")
        view, plain = running.bodies
        assert type(plain) is bytes
        assert bytes(view) == plain
        assert not isinstance(view, memoryview) or view.readonly
        writer.close()
        await running.server.drain(5)

    in_loop(loop, test)


@pytest.mark.parametrize("loop", list(LOOPS))
def test_clients_that_go_away_or_stop_in_the_middle(loop: str) -> None:
    async def test() -> None:
        running = Running(read_timeout_s=0.3)
        _, gone = await running.connect()
        gone.write(request("/view", bytes(600_000))[:400_000])
        await gone.drain()
        gone.close()
        reader, slow = await running.connect()
        slow.write(request("/view", bytes(600_000))[:400_000])
        await slow.drain()
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 408")
        slow.write(bytes(250_000))  # the rest comes too late
        slow.close()
        reader, good = await running.connect()
        good.write(request("/view", bytes(600_000)))
        await reader.readuntil(b"600000")
        assert len(running.bodies) == 1
        good.close()
        await running.server.drain(5)

    in_loop(loop, test)


def test_claims_cost_something() -> None:
    least = http1_direct.LEAST_BYTES
    assert not http1_direct.is_worth_it(1 << 30, 1000)
    assert not http1_direct.is_worth_it(least + 5, 10)
    assert not http1_direct.is_worth_it(100_000 + least - 1, 100_000)
    assert http1_direct.is_worth_it(100_000 + least, 100_000)
