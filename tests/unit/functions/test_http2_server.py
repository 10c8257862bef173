"""The gRPC port's HTTP/2, against `h2` as a client: calls, windows, what ends a call early."""

import asyncio
import gzip
import struct
import time
import zlib
from collections.abc import Callable
from typing import Any

import h2.events
import h2.settings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.grpc_status import Status
from functions.http2 import frames, headers
from functions.http2.call import ServerCall
from functions.http2.server import Limits, Method, Server
from tests.fakes_http2 import Client, echo_server, frames_of, message, receive


def in_loop(test: Callable[..., None]) -> None:
    async def run() -> None:
        test()

    asyncio.run(run())


@pytest.mark.parametrize("size", [0, 1, 5, 40_000, 3_000_000])
def test_an_echo(size: int) -> None:
    def test() -> None:
        client = Client(server := echo_server())
        stream = client.ask(message(bytes(size)))
        assert client.data(stream) == message(bytes(size))
        assert client.trailers(stream) == {
            ":status": "200", "content-type": "application/grpc", "grpc-status": "0",
            "grpc-accept-encoding": "identity, deflate, gzip",
        }  # fmt: skip
        assert server.unfinished == 0
        assert not client.connection.streams

    in_loop(test)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_windows_and_frames_of_every_size(data: Any) -> None:
    """Answers of several streams come through a client's window, whatever it is and becomes."""

    def test() -> None:
        first = data.draw(st.integers(0, 3000))
        client = Client(echo_server(), {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: first})
        client.consume = False
        bodies = data.draw(st.lists(st.binary(max_size=6000), min_size=1, max_size=4))
        streams = [client.ask(message(body)) for body in bodies]
        for _ in range(data.draw(st.integers(0, 3))):
            client.h2.update_settings({
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: data.draw(st.integers(0, 9000)),
                h2.settings.SettingCodes.MAX_FRAME_SIZE: data.draw(st.integers(16384, 40000)),
            })  # fmt: skip
            client.exchange()
        for stream in streams:
            if client.status(stream) is None:
                client.h2.increment_flow_control_window(20_000, stream)
                client.exchange()
        for stream, body in zip(streams, bodies, strict=True):
            assert client.data(stream) == message(body)
            assert client.status(stream) == 0

    in_loop(test)


def test_a_large_answer_waits_for_the_connections_window() -> None:
    def test() -> None:
        client = Client(
            echo_server(), {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW}
        )
        client.consume = False
        big, small = client.ask(message(bytes(200_000))), client.ask(message(b"x"))
        assert len(client.data(big)) == 65_535
        assert client.status(big) is None
        assert client.status(small) is None
        client.h2.increment_flow_control_window(1_000_000)
        client.exchange()
        assert client.data(big) == message(bytes(200_000))
        assert client.data(small) == message(b"x")

    in_loop(test)


def test_a_reader_that_is_slow_holds_up_only_so_much() -> None:
    def test() -> None:
        limits = Limits(max_unread_bytes=300_000)
        client = Client(
            echo_server(limits), {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW}
        )
        client.consume = False
        streams = [client.ask(message(bytes(200_000))) for _ in range(5)]
        codes = [client.status(stream) for stream in streams]
        assert codes == [None, None, *[Status.RESOURCE_EXHAUSTED] * 3]
        client.connection.pause_writing()
        client.h2.increment_flow_control_window(2_000_000)
        client.exchange()
        assert sum(len(client.data(stream)) for stream in streams) == 65_535
        client.connection.resume_writing()
        client.exchange()
        assert [client.status(stream) for stream in streams[:2]] == [0, 0]

    in_loop(test)


def test_a_client_that_reads_nothing_is_not_read_from() -> None:
    def test() -> None:
        client = Client(echo_server())
        client.connection.pause_writing()
        calls = 0
        while client.transport.reading and calls < 200_000:
            stream = 2 * calls + 1
            block = b"".join(headers.literal(name.encode(), value.encode())
                             for name, value in client.headers("/p.S/No"))  # fmt: skip
            receive(client.connection, frames.frame(frames.HEADERS, 5, stream, block))
            calls += 1
        assert len(client.transport.written) < 5 << 20
        assert not client.transport.closing
        client.transport.take()
        client.connection.resume_writing()
        assert client.transport.reading

    in_loop(test)


def test_padding_priorities_continuations_and_pings() -> None:
    def test() -> None:
        client = Client(echo_server())
        stream = client.h2.get_next_available_stream_id()
        many = [(f"x-{number}", "v" * 100) for number in range(300)]  # several CONTINUATIONs
        client.h2.send_headers(
            stream, [*client.headers(), *many], priority_weight=7, priority_depends_on=0
        )
        for part in (b"\0", b"\0\0\0", b"\3a", b"bc"):
            client.h2.send_data(stream, part, pad_length=len(part) * 50)
            client.h2.prioritize(stream, weight=3)
        client.h2.send_data(stream, b"", end_stream=True, pad_length=200)
        client.h2.ping(b"12345678")
        client.exchange()
        assert client.data(stream) == message(b"abc")
        assert client.of(h2.events.PingAckReceived)

    in_loop(test)


def recorded() -> tuple[Method, list[tuple[ServerCall, bytes]]]:
    calls: list[tuple[ServerCall, bytes]] = []
    return Method(lambda call, data: calls.append((call, bytes(data)))), calls


def test_metadata_deadlines_and_words() -> None:
    def test() -> None:
        method, calls = recorded()
        client = Client(echo_server(Hold=method))
        fields = {"x_mine": "abc", "data_bin": "AAE=", "grpc_timeout": "2S", "user_agent": "u"}
        stream = client.ask(message(b"m"), "/p.S/Hold", **fields)
        ((call, data),) = calls
        assert (call.metadata(), data) == ({"x-mine": "abc", "user-agent": "u"}, b"m")
        assert 1.5 < call.deadline - time.monotonic() <= 2
        call.initial.append(("mine", "back"))
        call.fail(Status.ABORTED, "50 % of\nä")
        call.respond([b"too late"])
        client.exchange()
        trailers = client.trailers(stream)
        assert (trailers["grpc-status"], trailers["mine"]) == ("10", "back")
        assert trailers["grpc-message"] == "50 %25 of%0A%C3%A4"
        assert client.data(stream) == b""

    in_loop(test)


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [("1H", 3600), ("3M", 180), ("250m", 0.25), ("5u", 5e-6), ("99999999n", 0.1)],
)
def test_units_of_deadlines(timeout: str, seconds: float) -> None:
    def test() -> None:
        method, calls = recorded()
        client = Client(echo_server(Hold=method))
        client.ask(message(b""), "/p.S/Hold", grpc_timeout=timeout)
        assert calls[0][0].head.timeout_s == pytest.approx(seconds, rel=0.01)

    in_loop(test)


def test_a_deadline_that_passes() -> None:
    def test() -> None:
        method, calls = recorded()
        client = Client(echo_server(Hold=method))
        stream = client.ask(message(b""), "/p.S/Hold", grpc_timeout="10m")
        gone: list[int] = []
        calls[0][0].on_cancel = lambda: gone.append(1)
        client.connection.tick(time.monotonic() + 0.02)
        client.exchange()
        assert client.status(stream) == Status.DEADLINE_EXCEEDED
        assert (gone, client.connection.at_work) == ([1], 1)
        calls[0][0].respond([b"late"])
        assert client.connection.at_work == 0

    in_loop(test)


def test_a_reset_cancels_and_what_goes_on_still_counts() -> None:
    def test() -> None:
        method, calls = recorded()
        client = Client(echo_server(Limits(max_streams=2), Hold=method))
        streams = [client.ask(message(b""), "/p.S/Hold") for _ in range(2)]
        gone: list[int] = []
        for call, _ in calls:
            call.on_cancel = lambda: gone.append(1)
        for stream in streams:
            client.h2.reset_stream(stream)
        client.exchange()
        assert (gone, client.connection.at_work) == ([1, 1], 2)
        waiting = [client.ask(message(b"%d" % number)) for number in range(2)]
        assert [client.status(stream) for stream in waiting] == [None, None]
        calls[0][0].respond([b"late"])
        client.exchange()
        assert [client.data(stream) for stream in waiting] == [message(b"0"), message(b"1")]
        calls[1][0].fail(Status.INTERNAL, "late")
        assert (client.connection.at_work, client.connection.streams) == (0, {})

    in_loop(test)


def test_calls_that_wait_may_be_given_up() -> None:
    def test() -> None:
        method, calls = recorded()
        client = Client(echo_server(Limits(max_streams=500), Hold=method))
        for _ in range(500):
            client.h2.reset_stream(client.ask(message(b""), "/p.S/Hold"))
        client.exchange()
        waiting = [client.ask(message(b"x")) for _ in range(500)]
        client.h2.reset_stream(waiting[0])
        client.exchange()
        for call, _ in calls:
            call.respond([b""])
        client.exchange()
        assert [client.status(stream) for stream in waiting] == [None] + [0] * 499
        assert (client.connection.at_work, client.connection.streams) == (0, {})

    in_loop(test)


def test_more_streams_than_announced_are_refused() -> None:
    def test() -> None:
        method, _ = recorded()
        client = Client(echo_server(Limits(max_streams=2), Hold=method))
        for _ in range(2):
            client.ask(message(b""), "/p.S/Hold")
        block = b"".join(headers.literal(name.encode(), value.encode())
                         for name, value in client.headers())  # fmt: skip
        receive(client.connection, frames.frame(frames.HEADERS, 5, 99, block))
        assert frames_of(client.transport.take()) == [
            (frames.RST_STREAM, 0, 99, frames.REFUSED_STREAM.to_bytes(4, "big"))
        ]

    in_loop(test)


@pytest.mark.parametrize(
    ("body", "fields", "status", "words"),
    [
        (message(b"a") + message(b"b"), {}, Status.UNIMPLEMENTED, "more than one message"),
        (b"", {}, Status.UNIMPLEMENTED, "without its message"),
        (message(b"abc")[:6], {}, Status.INTERNAL, "cut off"),
        (b"\0\0", {}, Status.INTERNAL, "cut off"),
        (message(bytes(5000)), {}, Status.RESOURCE_EXHAUSTED, "5000 vs. 4000"),
        (b"\0\xff\xff\xff\xff", {}, Status.RESOURCE_EXHAUSTED, "4294967295 vs. 4000"),
        (message(b"x", packed=1), {}, Status.INTERNAL, "without its encoding"),
        (message(b"x", packed=7), {}, Status.INTERNAL, "without its encoding"),
        (message(b"x", packed=1), {"grpc_encoding": "br"}, Status.UNIMPLEMENTED, "'br'"),
        (message(b"x"), {"grpc_timeout": "soon"}, Status.INTERNAL, "'soon'"),
        (message(b"x"), {"x": "y" * 30_000}, Status.RESOURCE_EXHAUSTED, "metadata"),
    ],
)
def test_what_is_refused(body: bytes, fields: dict[str, str], status: int, words: str) -> None:
    def test() -> None:
        server = echo_server(Limits(max_message_bytes=4000, max_metadata_bytes=20_000))
        client = Client(server)
        stream = client.ask(body, **fields)
        assert client.status(stream) == status
        assert words in client.trailers(stream)["grpc-message"]
        assert client.data(client.ask(message(b"next"))) == message(b"next")
        assert (server.unfinished, client.connection.streams) == (0, {})

    in_loop(test)


def test_an_unknown_method_and_what_is_no_grpc() -> None:
    def test() -> None:
        client = Client(echo_server())
        assert client.status(client.ask(message(b"x"), "/p.S/No")) == Status.UNIMPLEMENTED
        for change, status in ((("content-type", "text/json"), "415"), ((":method", "GET"), "405")):
            fields = [change if name == change[0] else (name, value)
                      for name, value in client.headers()]  # fmt: skip
            stream = client.h2.get_next_available_stream_id()
            client.h2.send_headers(stream, fields, end_stream=True)
            client.exchange()
            assert client.trailers(stream)[":status"] == status

    in_loop(test)


def test_unfinished_requests_of_all_clients_are_limited() -> None:
    def test() -> None:
        server = echo_server(Limits(max_message_bytes=61_000, max_unfinished_bytes=50_000))
        clients = [Client(server) for _ in range(3)]
        for client in clients:
            stream = client.h2.get_next_available_stream_id()
            client.h2.send_headers(stream, client.headers())
            client.h2.send_data(stream, message(bytes(60_000))[:16_384])
            client.h2.send_data(stream, bytes(4000))
            client.exchange()
        assert [client.status(1) for client in clients] == [None, None, Status.RESOURCE_EXHAUSTED]
        for client in clients:
            client.connection.connection_lost(None)
        assert server.unfinished == 0

    in_loop(test)


@pytest.mark.parametrize(
    ("packed", "encoding", "status"),
    [
        (gzip.compress(b"abc" * 1000, mtime=0), "gzip", 0),
        (zlib.compress(b"abc" * 1000), "deflate", 0),
        (gzip.compress(bytes(10_000_000), mtime=0), "gzip", Status.RESOURCE_EXHAUSTED),
        (gzip.compress(b"abc", mtime=0)[:-3], "gzip", Status.INTERNAL),
        (gzip.compress(b"abc", mtime=0) + b"more", "gzip", Status.INTERNAL),
        (b"garbage", "deflate", Status.INTERNAL),
    ],
)
def test_compressed_requests(packed: bytes, encoding: str, status: int) -> None:
    async def run() -> None:
        client = Client(echo_server(Limits(max_message_bytes=1_000_000)))
        stream = client.ask(message(packed, packed=1), grpc_encoding=encoding)
        end = time.monotonic() + 20
        while client.status(stream) is None and time.monotonic() < end:
            await asyncio.sleep(0.01)
            client.exchange()
        assert client.status(stream) == status
        if not status:
            assert client.data(stream) == message(b"abc" * 1000)

    asyncio.run(run())


def test_a_stream_of_messages() -> None:
    def test() -> None:
        stream_of = Method(lambda call, data: call.send([data, b"!"]), is_stream=True)
        client = Client(echo_server(Talk=stream_of))
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, client.headers("/p.S/Talk"))
        sent = message(b"a") + message(b"") + message(b"c" * 100)
        for at in range(0, len(sent), 7):
            client.h2.send_data(stream, sent[at : at + 7])
            client.exchange()
        answered = message(b"a!") + message(b"!") + message(b"c" * 100 + b"!")
        assert client.data(stream) == answered
        assert client.status(stream) is None
        client.h2.end_stream(stream)
        client.exchange()
        assert client.status(stream) == 0
        cut = client.ask(message(b"abc")[:-1], "/p.S/Talk")
        assert client.status(cut) == Status.INTERNAL
        left = client.h2.get_next_available_stream_id()
        client.h2.send_headers(left, client.headers("/p.S/Talk"))
        client.h2.send_data(left, message(b"a"))
        client.h2.reset_stream(left)
        client.exchange()
        assert (client.connection.at_work, client.connection.streams) == (0, {})

    in_loop(test)


def test_a_method_that_raises() -> None:
    def broken(call: ServerCall, data: memoryview) -> None:
        raise RuntimeError("secret")

    def test() -> None:
        client = Client(echo_server(Broken=Method(broken)))
        stream = client.ask(message(b"x"), "/p.S/Broken")
        assert client.status(stream) == Status.INTERNAL
        assert "secret" not in client.trailers(stream)["grpc-message"]

    in_loop(test)


def test_draining() -> None:
    async def run() -> None:
        method, calls = recorded()
        server = echo_server(Hold=method)
        client, idle = Client(server), Client(server)
        client.ask(message(b"x"), "/p.S/Hold")
        draining = asyncio.ensure_future(server.drain(30))
        await asyncio.sleep(0)
        told = frames_of(client.transport.take())
        assert [(kind, payload[:8]) for kind, _, _, payload in told] == [
            (frames.GOAWAY, struct.pack(">II", frames.MAX_WINDOW, frames.NO_ERROR)),
            (frames.PING, told[1][3]),
        ]
        # A call that was on its way when the server said so is still answered.
        late = client.h2.get_next_available_stream_id()
        client.h2.send_headers(late, client.headers())
        client.h2.send_data(late, message(b"late"), end_stream=True)
        pong = frames.frame(frames.PING, frames.ACK, 0, told[1][3])
        receive(client.connection, client.h2.data_to_send() + pong)
        answered = frames_of(client.transport.take())
        assert (frames.DATA, 0, late, message(b"late")) in answered
        kind, _, _, payload = answered[-1]
        assert (kind, payload[:8]) == (frames.GOAWAY, struct.pack(">II", late, frames.NO_ERROR))
        receive(client.connection, frames.frame(frames.HEADERS, 5, late + 2, b"\x83"))
        assert not client.transport.take()  # the client knows that nobody looks at this one
        receive(idle.connection, pong)
        assert idle.transport.closing
        assert not client.transport.closing
        calls[0][0].respond([b"done"])
        assert (frames.DATA, 0, 1, message(b"done")) in frames_of(client.transport.take())
        await asyncio.sleep(0)
        assert client.transport.closing
        for each in (client, idle):
            each.connection.connection_lost(None)
        assert await asyncio.wait_for(draining, 20)

    asyncio.run(run())


def test_a_drain_that_takes_too_long() -> None:
    async def run() -> None:
        method, _ = recorded()
        server = echo_server(Hold=method)
        client = Client(server)
        client.ask(message(b"x"), "/p.S/Hold")
        assert not await server.drain(0.05)
        trailers = frames_of(client.transport.take())[-1]
        assert trailers[:3] == (frames.HEADERS, 5, 1)
        assert headers.literal(b"grpc-status", b"14") in trailers[3]
        assert client.transport.aborted

    asyncio.run(run())


def test_more_connections_than_allowed() -> None:
    def test() -> None:
        server = echo_server(Limits(max_connections=1))
        client = Client(server)
        assert Client(server).transport.closing
        assert client.data(client.ask(message(b"x"))) == message(b"x")

    in_loop(test)


@pytest.mark.parametrize(
    ("begin", "limit"),
    [
        (b"", {"greeting_timeout_s": 5.0}),
        (frames.PREFACE[:7], {"greeting_timeout_s": 5.0}),
        (frames.PREFACE + frames.settings({}) + b"\0\0\5\1", {"frame_timeout_s": 5.0}),
        (frames.PREFACE + frames.settings({}) + frames.frame(1, 0, 1, b"\x83"),
         {"frame_timeout_s": 5.0}),
    ],
)  # fmt: skip
def test_clients_that_never_finish(begin: bytes, limit: dict[str, float]) -> None:
    def test() -> None:
        from functions.http2.server import ServerConnection
        from tests.fakes_http2 import Transport

        connection, transport = ServerConnection(Server({}, Limits(**limit))), Transport()  # type: ignore[arg-type]
        connection.connection_made(transport)  # type: ignore[arg-type]
        receive(connection, begin)
        now = time.monotonic()
        connection.tick(now)
        connection.tick(now + 4)
        assert not transport.closing
        connection.tick(now + 5.5)
        assert transport.aborted

    in_loop(test)


def test_a_request_that_never_ends_and_answers_that_are_never_read() -> None:
    def test() -> None:
        server = echo_server(Limits(read_timeout_s=5.0, write_timeout_s=9.0))
        client = Client(server, {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10})
        client.consume = False
        half = client.h2.get_next_available_stream_id()
        client.h2.send_headers(half, client.headers())
        client.h2.send_data(half, message(b"abc")[:-1])
        unread = client.ask(message(bytes(100)))
        now = time.monotonic()
        client.connection.tick(now + 6)
        client.exchange()
        assert client.status(half) == Status.DEADLINE_EXCEEDED
        assert client.status(unread) is None
        client.connection.tick(now + 30)
        assert client.transport.aborted

    in_loop(test)
