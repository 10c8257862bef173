"""The hop over gRPC: against grpcio's own server, and against sockets that misbehave."""

import asyncio
import contextlib
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions import oip, protowire
from functions.errors import MissingExtra, UpstreamError, UpstreamStatus, UpstreamTimeout
from functions.http2 import headers
from functions.http2.connection import Scratch
from functions.http2.frames import head
from functions.inference import InferRequest, Tensor
from functions.predictor import grpc_client, http2
from tests.fakes_http2 import receive
from tests.fakes_predictor import ask, predictor, raw, says, scripted

SETTINGS = struct.pack(">BHBBI", 0, 0, 4, 0, 0)
"""An HTTP/2 server's first frame."""

GRPC: dict[str, Any] = {"predictor_protocol": "grpc-v2"}


def tensors(*shape: int) -> InferRequest:
    size = int(np.prod(shape))
    return InferRequest("m", [Tensor("x", data=np.arange(size, dtype="f4").reshape(shape))], "7")


async def echo(request: Any, context: Any) -> Any:
    answer = oip.ModelInferResponse(model_name=request.model_name, id=request.id)
    for tensor in request.inputs:
        answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    answer.raw_output_contents.extend(request.raw_input_contents)
    return answer


@contextlib.asynccontextmanager
async def serving(
    infer: Callable[[Any, Any], Any] = echo,
    credentials: Any = None,
    options: tuple[tuple[str, Any], ...] = (),
) -> AsyncIterator[str]:
    server = grpc.aio.server(
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
                 *options]
    )  # fmt: skip
    handlers = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(
            infer, oip.ModelInferRequest.FromString, oip.ModelInferResponse.SerializeToString
        )
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(oip.SERVICE, handlers),))
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@pytest.mark.parametrize("shape", [(2,), (3, 224, 224), (5, 3, 512, 512), (0, 4)])
def test_tensors_survive_the_way_there_and_back(shape: tuple[int, ...]) -> None:
    async def run() -> None:
        async with serving() as host:
            hop = predictor(host, **GRPC)
            sent = tensors(*shape)
            for _ in range(2):
                answer = await ask(hop, sent)
                assert (answer.id, answer.model_name) == ("7", "m")
                assert answer.outputs[0].as_numpy().tobytes() == sent.inputs[0].raw()
                assert answer.outputs[0].shape == list(shape)
            hop.close()

    asyncio.run(run())


def test_many_large_calls_at_once_share_the_windows() -> None:
    async def run() -> None:
        async with serving(options=(("grpc.max_concurrent_streams", 5),)) as host:
            hop = predictor(host, **GRPC)
            sent = [tensors(n, 3, 100, 100) for n in range(1, 25)]
            answers = await asyncio.gather(*(ask(hop, request) for request in sent))
            for request, answer in zip(sent, answers, strict=True):
                assert answer.outputs[0].as_numpy().tobytes() == request.inputs[0].raw()
            hop.close()

    asyncio.run(run())


def test_typed_contents_parameters_and_metadata() -> None:
    seen: list[dict[str, str]] = []

    async def infer(request: Any, context: Any) -> Any:
        seen.append(dict(context.invocation_metadata()))
        assert 20 < context.time_remaining() <= 30
        assert request.inputs[0].parameters["k"].string_param == "v"
        answer = oip.ModelInferResponse(model_name="m", id="1")
        answer.parameters["p"].int64_param = 3
        output = answer.outputs.add(name="y", datatype="INT32", shape=[2])
        output.contents.int_contents.extend([4, 5])
        return answer

    async def run() -> None:
        async with serving(infer) as host:
            request = tensors(2)
            request.inputs[0].parameters["k"] = "v"
            headers = {"x-request-id": "r", "authorization": "Bearer x", "cookie": "no",
                       "x-b3-traceid": "t\r\nx: y", "grpc-timeout": "30S"}  # fmt: skip
            answer = await ask(host, request, headers, **GRPC)
            assert answer.parameters == {"p": 3}
            assert answer.outputs[0].as_numpy().tolist() == [4, 5]
            assert (seen[0]["x-request-id"], seen[0]["authorization"]) == ("r", "Bearer x")
            assert seen[0]["x-b3-traceid"] == "tx: y"
            assert "cookie" not in seen[0]

    asyncio.run(run())


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.name != "OK"])
def test_a_predictors_code_and_words_are_passed_on(code: grpc.StatusCode) -> None:
    async def infer(request: Any, context: Any) -> Any:
        await context.abort(code, "its own words: ä")

    async def run() -> None:
        async with serving(infer) as host:
            await ask(host, tensors(2), **GRPC)

    with pytest.raises(UpstreamStatus) as caught:
        asyncio.run(run())
    assert (caught.value.grpc_code, caught.value.text) == (code.name, "its own words: ä")
    expected = {"NOT_FOUND": 404, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
                "INVALID_ARGUMENT": 400, "UNIMPLEMENTED": 501, "INTERNAL": 500}  # fmt: skip
    assert caught.value.http_status() == expected.get(code.name, caught.value.http_status())
    assert 400 <= caught.value.http_status() <= 504


def test_an_unknown_method_and_a_cancelled_call() -> None:
    gone = asyncio.Event()

    async def infer(request: Any, context: Any) -> Any:
        try:
            await asyncio.sleep(60)
        finally:
            gone.set()

    async def run() -> None:
        async with serving(infer) as host:
            with pytest.raises(UpstreamTimeout, match=r"grpc://127.*within 0.2 s") as caught:
                await ask(host, tensors(2), predictor_timeout_s=0.2, **GRPC)
            assert caught.value.http_status() == 504
            await asyncio.wait_for(gone.wait(), 30)  # the predictor has been told
            hop = predictor(host, **GRPC)
            assert await hop._linked().grpc.poke([], 5.0) == 501
            hop.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed the connection without an answer: is this a gRPC port?"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks HTTP/1, not gRPC"),
        (b"\x15\x03\x03\x00\x02\x02\x46\0\0\0", "its answer is TLS"),
        (b"220 smtp ready\r\n", "no HTTP/2"),
        (SETTINGS + head(0, 0, 1, 1 << 23), "a frame of"),
        (SETTINGS + head(1, 4, 1, 3) + b"\xff\xff\xff", "garbage"),
        (SETTINGS + head(9, 4, 1, 1) + b"x", "continuation"),
        (SETTINGS + head(1, 5, 1, 1) + b"\x88", "without grpc-status"),
        (SETTINGS + head(1, 4, 1, 1) + b"\x88", "in the middle"),
        (SETTINGS + head(3, 0, 1, 4) + b"\0\0\0\2", "HTTP/2 error 2"),
        (SETTINGS + head(7, 0, 0, 8) + b"\0" * 8, "shutting down"),
    ],
)
def test_garbage_is_502_and_says_what_it_was(answer: bytes, words: str) -> None:
    async def run() -> None:
        greeting = SETTINGS if answer.startswith(SETTINGS) else b""
        async with raw(answer[len(greeting) :], greeting=greeting) as host:
            await ask(host, tensors(2), predictor_timeout_s=20.0, **GRPC)

    with pytest.raises(UpstreamError, match=r"the predictor at grpc://127.0.0.1:") as caught:
        asyncio.run(run())
    assert words in str(caught.value)
    assert caught.value.http_status() == 502


def test_plain_http_answers_on_the_way() -> None:
    """Proxies and gateways answer gRPC calls in plain HTTP when there is nobody behind them."""
    block = b"\x48\x03503"  # :status 503, without a table
    frames = SETTINGS + head(1, 4, 1, len(block)) + block
    frames += head(0, 1, 1, 9) + b"no pods: "

    async def run() -> None:
        async with raw(frames[len(SETTINGS) :], greeting=SETTINGS) as host:
            await ask(host, tensors(2), predictor_timeout_s=20.0, **GRPC)

    with pytest.raises(UpstreamStatus, match="no pods") as caught:
        asyncio.run(run())
    assert (caught.value.http_status(), caught.value.grpc_code) == (503, "UNAVAILABLE")


def test_frames_with_padding_priority_and_continuation() -> None:
    """grpcio's server sends none of these; others may."""
    message = oip.ModelInferResponse(model_name="m", id="1")
    message.outputs.add(name="y", datatype="INT8", shape=[2])
    message.raw_output_contents.append(b"\1\2")
    data = message.SerializeToString()
    body = struct.pack(">BI", 0, len(data)) + data
    trailer = headers.literal(b"grpc-status", b"0")
    frames = b"".join([
        head(1, 0x28, 1, 8) + b"\2" + b"\0" * 5 + b"\0\0",  # no header yet
        head(9, 4, 1, 1) + b"\x88",
        head(0, 0x8, 1, len(body[:9]) + 4) + b"\3" + body[:9] + b"\0\0\0",
        head(0, 0, 1, len(body) - 9) + body[9:],
        head(6, 0, 0, 8) + b"12345678", head(99, 0, 0, 2) + b"??",
        head(1, 1, 1, 4) + trailer[:4], head(9, 4, 1, len(trailer) - 4),
        trailer[4:],
    ])  # fmt: skip

    async def run() -> None:
        async with raw(frames, greeting=SETTINGS) as host:
            answer = await ask(host, tensors(2), predictor_timeout_s=20.0, **GRPC)
            assert answer.outputs[0].as_numpy().tolist() == [1, 2]

    asyncio.run(run())


def test_what_grpc_needs_is_missed_at_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "functions.predictor.grpc_client")
    monkeypatch.delitem(sys.modules, "functions.predictor.http2")
    monkeypatch.delitem(sys.modules, "functions.http2.headers")
    for name in [name for name in sys.modules if name.startswith("hpack.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hpack", None)
    with pytest.raises(MissingExtra, match=r"needs hpack.*turnout\[functions,grpc\]"):
        predictor("h", **GRPC)
    predictor("h", predictor_protocol="v2")


def test_messages_that_are_none() -> None:
    for answer in (b"\xff" * 20, b"\x0a\x05ab", b"\x32\x02ab"):
        with pytest.raises(ValueError, match=r"."):
            grpc_client.decode(memoryview(answer))


def test_rest_on_a_grpc_port_and_grpc_on_a_rest_port() -> None:
    async def run() -> None:
        async with serving() as host:
            with pytest.raises(UpstreamError) as caught:
                await ask(host, {"instances": [1]}, predictor_protocol="v1")
            assert "HTTP/2: a gRPC port wants" in str(caught.value) or "closed" in str(caught.value)
        async with scripted(lambda request: says({}, 400)) as behind:
            with pytest.raises(UpstreamError, match=r"speaks HTTP/1|closed"):
                await ask(behind.host, tensors(2), predictor_timeout_s=5.0, **GRPC)

    asyncio.run(run())


def test_down_and_back_again() -> None:
    async def run() -> None:
        with pytest.raises(UpstreamError, match=r"grpc://127.0.0.1:1 .*connection refused"):
            await ask("127.0.0.1:1", tensors(2), **GRPC)
        async with serving() as host:
            hop = predictor(host, **{**GRPC, "predictor_wake_s": 30.0})
            await ask(hop, tensors(2))
        port = int(host.rpartition(":")[2])
        hop._awake_at -= 100
        asking = asyncio.create_task(ask(hop, tensors(2)))
        await asyncio.sleep(0.2)
        assert not asking.done()
        server = grpc.aio.server()
        method = grpc.unary_unary_rpc_method_handler(
            echo, oip.ModelInferRequest.FromString, oip.ModelInferResponse.SerializeToString
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(oip.SERVICE, {"ModelInfer": method}),)
        )
        assert server.add_insecure_port(f"127.0.0.1:{port}") == port
        await server.start()
        assert (await asking).outputs[0].as_numpy().tolist() == [0.0, 1.0]
        hop.close()
        await server.stop(0)

    asyncio.run(run())


def test_a_silent_port_and_a_connection_that_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(writer)
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if greeting and data.startswith(b"PRI"):
                    writer.write(greeting.pop())
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        connected.remove(writer)

    greeting: list[bytes] = []
    connected: list[asyncio.StreamWriter] = []

    async def run() -> None:
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        monkeypatch.setattr(grpc_client, "CONNECT_S", 0.2)
        with pytest.raises(UpstreamError, match=r"said nothing for 0\.2 s"):
            await ask(host, tensors(2), **GRPC)
        greeting.extend([SETTINGS] * 2)
        hop = predictor(host, predictor_timeout_s=0.3, **GRPC)
        for left in (1, 0):
            with pytest.raises(UpstreamTimeout):
                await ask(hop, tensors(2))
            assert len(greeting) == left, "the next call has a connection of its own"
        hop.close()
        server.close()
        async with asyncio.timeout(30):
            while connected:
                await asyncio.sleep(0.01)

    asyncio.run(run())


def test_64_calls_are_under_way_at_once() -> None:
    async def run() -> None:
        at_once = 0
        everybody = asyncio.Event()

        async def infer(request: Any, context: Any) -> Any:
            nonlocal at_once
            at_once += 1
            if at_once >= 64:
                everybody.set()
            await asyncio.wait_for(everybody.wait(), 30)
            return await echo(request, context)

        async with serving(infer) as host:
            hop = predictor(host, **GRPC)
            await asyncio.gather(*(ask(hop, tensors(2)) for _ in range(64)))
            assert len(hop._linked().grpc._connections) == 1
            hop.close()

    asyncio.run(run())


@given(st.lists(st.binary(max_size=300), max_size=4), st.text(max_size=10))
def test_raw_contents_are_cut_out_exactly(contents: list[bytes], name: str) -> None:
    message = oip.ModelInferResponse(model_name=name, id="1", raw_output_contents=contents)
    head, raws = protowire.cut_fields(memoryview(message.SerializeToString()), 6)
    assert [bytes(raw) for raw in raws] == contents
    del message.raw_output_contents[:]
    assert oip.ModelInferResponse.FromString(head) == message


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        protowire.cut_fields(memoryview(data), 6)


@given(st.binary(max_size=400), st.integers(1, 50))
def test_any_frames_end_the_call_or_wait_for_more(data: bytes, step: int) -> None:
    async def run() -> None:
        connection = http2.Http2(1 << 20, lambda gone: None, Scratch())
        connection.connection_made(_Deaf())  # type: ignore[arg-type]
        call = asyncio.ensure_future(connection.call(b"\x83", [b"x"]))
        await asyncio.sleep(0)
        receive(connection, struct.pack(">BHBBI", 0, 0, 4, 0, 0))
        for at in range(0, len(data), step):
            if connection._transport.is_closing():  # type: ignore[union-attr]
                break
            receive(connection, data[at : at + step])
        connection.connection_lost(None)
        for ended in (call, connection.settled):
            with contextlib.suppress(Exception):
                await ended

    since = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - since < 30


class _Deaf:
    """A transport to nowhere."""

    closing = False

    def write(self, data: bytes) -> None: ...

    def writelines(self, data: list[bytes]) -> None: ...

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close
