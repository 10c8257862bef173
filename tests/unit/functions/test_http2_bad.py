"""Clients of the gRPC port that break HTTP/2, or only strain it: each gets its GOAWAY."""

import asyncio
import random
from collections.abc import Callable

import h2.events
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.http2 import frames
from functions.http2.frames import frame, head
from functions.http2.headers import literal
from functions.http2.server import Limits, Method, ServerConnection
from tests.fakes_http2 import Client, Transport, echo_server, frames_of, message, receive

START = frames.PREFACE + frames.settings({})

BLOCK = b"\x83\x86" + b"".join([
    literal(b":path", b"/p.S/Echo"), literal(b":authority", b"a"), literal(b"te", b"trailers"),
    literal(b"content-type", b"application/grpc"),
])  # fmt: skip

OPEN = frame(1, 4, 1, BLOCK)
CALL = OPEN + frame(0, 1, 1, message(b"abc"))
HELD = frame(1, 4, 1, BLOCK.replace(b"Echo", b"Hold")) + frame(0, 1, 1, message(b"x"))
"""A call that is not answered."""


def spoken(data: bytes, limits: Limits | None = None, step: int = 1 << 20) -> Transport:
    """A connection that was sent this."""
    transport = Transport()

    async def run() -> None:
        connection = ServerConnection(echo_server(limits, Hold=Method(lambda call, data: None)))
        connection.connection_made(transport)  # type: ignore[arg-type]
        for at in range(0, len(data), step):
            if transport.closing:
                break
            receive(connection, data[at : at + step])
        connection.connection_lost(None)

    asyncio.run(run())
    return transport


def said(transport: Transport) -> int | None:
    """The code of the GOAWAY, if there was one."""
    codes = [
        int.from_bytes(payload[4:8], "big")
        for kind, _, _, payload in frames_of(bytes(transport.written))
        if kind == frames.GOAWAY
    ]
    return codes[-1] if codes else None


def resets(transport: Transport) -> list[int]:
    return [
        int.from_bytes(payload, "big")
        for kind, _, _, payload in frames_of(bytes(transport.written))
        if kind == frames.RST_STREAM
    ]


BAD = {
    "HTTP/1": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 1),
    "no settings": (frames.PREFACE + frame(6, 0, 0, bytes(8)), 1),
    "data first": (frames.PREFACE + frame(0, 0, 1, b"x"), 1),
    "settings acknowledged first": (frames.PREFACE + frames.SETTINGS_ACK, 1),
    "settings on a stream": (START + frame(4, 0, 1, b""), 1),
    "settings of 5 bytes": (START + frame(4, 0, 0, bytes(5)), 6),
    "acknowledgement with settings": (START + frame(4, 1, 0, bytes(6)), 6),
    "window setting": (START + frames.settings({4: 2**31}), 3),
    "frame size setting": (START + frames.settings({5: 100}), 1),
    "frame size setting, large": (START + frames.settings({5: 1 << 24}), 1),
    "push setting": (START + frames.settings({2: 2}), 1),
    "ping of 7 bytes": (START + frame(6, 0, 0, bytes(7)), 6),
    "ping on a stream": (START + frame(6, 0, 1, bytes(8)), 1),
    "goaway on a stream": (START + frame(7, 0, 1, bytes(8)), 1),
    "short goaway": (START + frame(7, 0, 0, bytes(7)), 6),
    "data on stream 0": (START + frame(0, 0, 0, b"x"), 1),
    "headers on stream 0": (START + frame(1, 4, 0, BLOCK), 1),
    "reset of stream 0": (START + frame(3, 0, 0, bytes(4)), 1),
    "priority of 4 bytes": (START + frame(2, 0, 1, bytes(4)), 6),
    "reset of 3 bytes": (START + CALL + frame(3, 0, 1, bytes(3)), 6),
    "reset of an idle stream": (START + frame(3, 0, 1, bytes(4)), 1),
    "window of an idle stream": (START + frames.window_update(1, 1), 1),
    "data of an idle stream": (START + frame(0, 0, 1, b"x"), 1),
    "window update of 0": (START + frames.window_update(0, 0), 1),
    "window overflow": (START + frames.window_update(0, 2**31 - 1), 3),
    "window update of 3 bytes": (START + frame(8, 0, 0, bytes(3)), 6),
    "even stream": (START + frame(1, 4, 2, BLOCK), 1),
    "push": (START + OPEN + frame(5, 4, 1, bytes(4)), 1),
    "continuation of nothing": (START + frame(9, 4, 1, b"\x83"), 1),
    "continuation of another": (START + frame(1, 0, 1, b"\x83") + frame(9, 4, 3, b"\x86"), 1),
    "headers cut by a ping": (START + frame(1, 0, 1, b"\x83") + frame(6, 0, 0, bytes(8)), 1),
    "headers cut by data": (START + frame(1, 0, 1, b"\x83") + frame(0, 0, 1, b"x"), 1),
    "padding": (START + OPEN + frame(0, 8, 1, b"\x05abc"), 1),
    "padding without its length": (START + OPEN + frame(0, 8, 1, b""), 1),
    "padding of headers": (START + frame(1, 0xC, 1, b"\x09\x83"), 1),
    "priority that is cut off": (START + frame(1, 0x24, 1, b"\0\0"), 1),
    "header block": (START + frame(1, 4, 1, b"\xff\xff\xff"), 9),
    "frame of 5 MiB": (START + OPEN + head(0, 0, 1, 5 << 20), 6),
    "headers of 100 kB": (START + head(1, 4, 1, 100_000), 6),
    "unknown frame of 100 kB": (START + head(99, 4, 1, 100_000), 6),
    "second headers": (START + OPEN + OPEN, 1),
    "data after the end": (START + HELD + frame(0, 0, 1, b"more"), 5),
    "headers after the end": (START + HELD + OPEN, 5),
}  # fmt: skip


@pytest.mark.parametrize(("data", "code"), BAD.values(), ids=list(BAD))
@pytest.mark.parametrize("step", [1, 1000])
def test_broken_protocol_ends_the_connection(data: bytes, code: int, step: int) -> None:
    transport = spoken(data, step=step)
    assert said(transport) == code
    assert transport.closing


@pytest.mark.parametrize(
    "change",
    [
        (b":path", b":nonsense"),
        (b"content-type", b"Content-Type"),
        (literal(b"te", b"trailers"), literal(b"te", b"gzip")),
        (literal(b"te", b"trailers"), literal(b"connection", b"close")),
        (b"\x83", b"\x83\x83"),
        (b"\x83\x86", b"\x86"),
        (b"\x83\x86", b"\x83"),
        (b"\x83\x86", literal(b"x", b"y") + b"\x83\x86"),
    ],
)
def test_malformed_requests_are_reset(change: tuple[bytes, bytes]) -> None:
    block = BLOCK.replace(*change)
    assert block != BLOCK
    if change[0] == b":path":
        block = block.replace(b"\x05:nonsense", b"\x09:nonsense")
    transport = spoken(START + frame(1, 5, 1, block) + frame(1, 4, 3, BLOCK) + CALL[-17:])
    assert resets(transport)[0] == frames.PROTOCOL_ERROR
    assert said(transport) is None


FLOODS: dict[str, Callable[[int], bytes]] = {
    "pings": lambda n: frame(6, 0, 0, bytes(8)) * n,
    "settings": lambda n: frames.settings({3: 1}) * n,
    "priorities": lambda n: frame(2, 0, 1, bytes(5)) * n,
    "empty data": lambda n: OPEN + frame(0, 0, 1, b"") * n,
    "empty continuations": lambda n: frame(1, 0, 1, BLOCK) + frame(9, 0, 1, b"") * n,
    "window updates": lambda n: frames.window_update(0, 1) * n,
    "windows of what is answered": lambda n: (
        frame(1, 5, 1, BLOCK.replace(b"Echo", b"None")) + frames.window_update(1, 5000) * n
    ),
    "unknown frames": lambda n: frame(77, 0, 0, b"") * n,
    "rapid resets": lambda n: b"".join(
        frame(1, 4, 2 * i + 1, BLOCK) + frame(3, 0, 2 * i + 1, b"\0\0\0\x08") for i in range(n)
    ),
    "resets of what is answered": lambda n: b"".join(
        frame(1, 5, 2 * i + 1, BLOCK) + frame(1, 5, 2 * i + 1, BLOCK) for i in range(n)
    ),
    "headers without end": lambda n: frame(1, 0, 1, BLOCK) + frame(9, 0, 1, BLOCK) * n,
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=list(FLOODS))
def test_floods(flood: Callable[[int], bytes]) -> None:
    limits = Limits(max_idle_frames_per_s=1000)
    assert said(spoken(START + flood(50), limits)) is None
    transport = spoken(START + flood(3000), limits)
    assert said(transport) == frames.ENHANCE_YOUR_CALM
    assert transport.closing


def test_clients_that_open_windows_bit_by_bit_are_no_flood() -> None:
    """Go's opens them for every 4 KiB it has read."""

    async def run() -> None:
        client = Client(echo_server(Limits(max_idle_frames_per_s=100)))
        client.consume = False
        body = bytes(3_000_000)
        stream = client.ask(message(body))
        updates = 0
        while client.status(stream) is None and updates < 3000:
            updates += 2
            client.h2.increment_flow_control_window(4096)
            client.h2.increment_flow_control_window(4096, stream)
            client.exchange()
        assert client.data(stream) == message(body)
        assert updates > 1000
        assert not client.of(h2.events.ConnectionTerminated)

    asyncio.run(run())


@given(st.integers(1, 40), st.binary(max_size=50))
@settings(max_examples=100, deadline=None)
def test_calls_cut_anywhere_are_answered_alike(step: int, body: bytes) -> None:
    call = (
        OPEN + frame(0, 0, 1, message(body)[:3]) + frame(0, 9, 1, b"\2" + message(body)[3:] + b"..")
    )
    assert bytes(spoken(START + call, step=step).written) == bytes(spoken(START + call).written)


@given(st.binary(max_size=300), st.integers(1, 60))
@settings(max_examples=150, deadline=None)
def test_any_bytes_end_the_connection_or_wait_for_more(data: bytes, step: int) -> None:
    transport = spoken(START + data, step=step)
    assert transport.closing == (said(transport) is not None)


@given(st.integers(), st.integers(0, 6))
@settings(max_examples=150, deadline=None)
def test_damaged_conversations(seed: int, damages: int) -> None:
    """Frames that are nearly right, in any order, with bytes changed."""
    chance = random.Random(seed)
    parts = [
        CALL, OPEN, frame(1, 4, 3, BLOCK), frame(0, 1, 3, message(b"x")), frame(6, 0, 0, bytes(8)),
        frames.settings({4: chance.choice([0, 10, 1 << 20]), 5: 16384}), frames.SETTINGS_ACK,
        frames.window_update(0, 100), frames.window_update(1, 100), frames.reset(1, 8),
        frame(1, 0, 5, BLOCK[:9]) + frame(9, 4, 5, BLOCK[9:]), frame(2, 0, 1, bytes(5)),
        frame(0, 8, 3, b"\3abc\0\0\0"), frame(7, 0, 0, bytes(8)),
    ]  # fmt: skip
    chance.shuffle(parts)
    data = bytearray(START + b"".join(parts[: chance.randrange(len(parts))]))
    for _ in range(damages):
        data[chance.randrange(len(START) // 2, len(data))] = chance.randrange(256)
    transport = spoken(bytes(data), step=chance.choice([1, 7, 1000]))
    if said(transport) is not None:
        assert transport.closing


def test_others_are_served_while_one_misbehaves() -> None:
    async def run() -> None:
        server = echo_server()
        good = Client(server)
        for data, _ in BAD.values():
            transport = Transport()
            bad = ServerConnection(server)
            bad.connection_made(transport)  # type: ignore[arg-type]
            receive(bad, data)
            bad.connection_lost(None)
            stream = good.ask(message(b"still here"))
            assert good.data(stream) == message(b"still here")
        assert not good.of(h2.events.ConnectionTerminated)
        assert server.unfinished == 0
        assert server.connections == {good.connection}

    asyncio.run(run())
