"""The hop over HTTP/1.1 against real sockets: what is sent, what comes back, what goes wrong."""

import asyncio
import socket
import time
import types
from typing import Any

import numpy as np
import orjson
import pytest

from functions.errors import (
    BadHookResult,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
)
from functions.inference import InferRequest, Tensor
from functions.model import Call
from functions.predictor import Predictor, client, documents, pool, target
from functions.predictor.connection import Broken, Connection
from tests.fakes_predictor import (
    V2_ANSWER,
    Request,
    Scripted,
    ask,
    predictor,
    raw,
    says,
    scripted,
)

V1 = {"instances": [[1.0, 2.0]]}


def tensors(*shape: int, dtype: str = "f4") -> InferRequest:
    size = int(np.prod(shape))
    return InferRequest("m", [Tensor("x", data=np.arange(size, dtype=dtype).reshape(shape))], "7")


def echo(request: Request) -> bytes:
    """A V2 predictor with the binary extension that answers with the tensors it got."""
    length = int(request.headers.get("inference-header-content-length", len(request.body)))
    document = orjson.loads(request.body[:length])
    answer = {"id": document["id"], "model_name": "m", "outputs": document["inputs"]}
    text = orjson.dumps(answer)
    return says(
        text + request.body[length:],
        content_type="application/octet-stream",
        Inference_Header_Content_Length=str(len(text)),
    )


def fails(expected: type[UpstreamError], *words: str, run: Any) -> UpstreamError:
    with pytest.raises(expected) as caught:
        asyncio.run(run)
    for word in words:
        assert word in str(caught.value)
    return caught.value


# --- what travels


@pytest.mark.parametrize("shape", [(2,), (3, 224, 224), (0, 4)])
def test_binary_tensors_survive_the_way_there_and_back(shape: tuple[int, ...]) -> None:
    async def run() -> None:
        async with scripted(echo) as behind:
            hop = predictor(behind.host)
            sent = tensors(*shape)
            for _ in range(3):  # large ones on a connection that is kept
                answer = await ask(hop, sent)
                assert answer.outputs[0].as_numpy().tobytes() == sent.inputs[0].raw()
                assert answer.outputs[0].shape == list(shape)
            assert behind.connections == 1
            hop.close()

    asyncio.run(run())


def test_a_predictor_without_binary_tensors_is_asked_in_json_and_remembered() -> None:
    def script(request: Request) -> bytes:
        if "inference-header-content-length" in request.headers:
            return says({"error": "what is this?"}, 400)
        assert orjson.loads(request.body)["inputs"][0]["data"] == [0.0, 1.0]
        return says(V2_ANSWER)

    async def run() -> None:
        async with scripted(script) as behind:
            hop = predictor(behind.host)
            for _ in range(3):
                answer = await ask(hop, tensors(2))
                assert answer.outputs[0].as_numpy().tolist() == [1.0, 2.0]
            kinds = [request.headers["content-type"] for request in behind.requests]
            assert kinds == ["application/octet-stream", *["application/json"] * 3]
            with pytest.raises(UpstreamStatus, match="what is this"):
                await ask(behind.host, tensors(2, dtype="f2"))  # FP16 has no JSON form
            answer = await ask(behind.host, tensors(2), predictor_binary=False)
            assert behind.requests[-1].headers["content-type"] == "application/json"
            hop.close()

    asyncio.run(run())


def test_an_error_of_a_predictor_known_to_take_binary_tensors_is_asked_once() -> None:
    answers = [echo, lambda request: says({"error": "bad shape"}, 400)]

    async def run() -> None:
        async with scripted(lambda request: answers.pop(0)(request)) as behind:
            hop = predictor(behind.host)
            await ask(hop, tensors(2))
            with pytest.raises(UpstreamStatus, match="bad shape"):
                await ask(hop, tensors(2))
            assert len(behind.requests) == 2
            hop.close()

    asyncio.run(run())


def test_a_predictor_that_speaks_only_v1_gets_v1() -> None:
    def script(request: Request) -> bytes:
        if request.target == "/v1/models/m:predict":
            return says({"predictions": orjson.loads(request.body)["instances"]})
        return says({"error": "not found"}, 404)

    async def run() -> None:
        async with scripted(script) as behind:
            hop = predictor(behind.host)
            for _ in range(2):
                assert await ask(hop, tensors(1, 2)) == {"predictions": [[0.0, 1.0]]}
            assert [r.target for r in behind.requests] == [
                "/v2/models/m/infer", "/v2", "/v1/models/m:predict", "/v1/models/m:predict",
            ]  # fmt: skip
            with pytest.raises(UpstreamStatus):
                await ask(behind.host, tensors(2), predictor_protocol="v2")
            hop.close()

    asyncio.run(run())


def test_headers_that_travel_and_those_that_do_not() -> None:
    headers = {
        "x-request-id": "r1", "traceparent": "00-a-b-01", "b3": "1", "x-b3-traceid": "t",
        "authorization": "Bearer x", "x-tenant": "one", "x-team-blue": "2", "x-other": "no",
        "host": "elsewhere", "content-length": "3", "cookie": "c", "x-team-evil": "a\r\nX-Evil: 1",
    }  # fmt: skip

    async def run() -> None:
        async with scripted(lambda request: says({"predictions": []})) as behind:
            await ask(behind.host, V1, headers, predictor_headers=("x-tenant", "x-team-*"))
            sent = behind.requests[0].headers
            for name in ("x-request-id", "traceparent", "b3", "x-b3-traceid", "authorization"):
                assert sent[name] == headers[name]
            assert (sent["x-tenant"], sent["x-team-blue"]) == ("one", "2")
            assert not {"x-other", "cookie", "x-evil"} & set(sent)
            assert sent["x-team-evil"] == "a X-Evil: 1"
            assert sent["host"] == behind.host

    asyncio.run(run())


# --- the predictor's own errors


@pytest.mark.parametrize("status", [400, 401, 404, 409, 429, 500, 503, 504])
def test_a_predictors_error_is_passed_on_as_it_is(status: int) -> None:
    async def run() -> None:
        answer = says(b'{"error":"its own words"}', status, retry_after="7",
                      X_RateLimit_Left="0", keep_alive="timeout=5", set_cookie="a=b")  # fmt: skip
        async with scripted(lambda request: answer) as behind:
            await ask(behind.host, V1)

    error = fails(UpstreamStatus, "its own words", run=run())
    assert isinstance(error, UpstreamStatus)
    assert (error.http_status(), error.body) == (status, b'{"error":"its own words"}')
    assert error.content_type == "application/json"
    assert error.response_headers() == {"retry-after": "7", "x-ratelimit-left": "0"}


def test_a_redirect_is_no_answer() -> None:
    async def run() -> None:
        answer = says(b"", 302, location="https://login/")
        async with scripted(lambda request: answer) as behind:
            await ask(behind.host, V1)

    error = fails(UpstreamError, "redirect to https://login/", run=run())
    assert error.http_status() == 502


# --- garbage


@pytest.mark.parametrize(
    ("spoken", "words"),
    [
        (None, "closed the connection without an answer"),
        (b"\0\0\x12\4\0\0\0\0\0", "sent garbage: its answer is HTTP/2"),
        (b"SSH-2.0-x", "its answer is no HTTP/1"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "an answer before it was asked"),
    ],
)
def test_a_server_that_closes_or_speaks_first(spoken: bytes | None, words: str) -> None:
    """Between the connection and the first request: nobody waits for an answer then."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        lost = types.SimpleNamespace(lost=lambda connection: None)
        here, there = socket.socketpair()
        _, connection = await loop.create_connection(
            lambda: Connection(lost, 4096),  # type: ignore[arg-type]
            sock=here,
        )
        if spoken is None:
            there.close()
        else:
            there.sendall(spoken)
        while connection.alive:
            await asyncio.sleep(0)
        there.close()
        await connection.exchange(b"GET / HTTP/1.1\r\n\r\n", [])

    with pytest.raises(Broken, match=words):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed the connection without an answer"),
        (b"hello\r\n\r\n", "no HTTP/1"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "its answer is TLS"),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\0" * 18, "its answer is HTTP/2"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "in the middle of its answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "in the middle of its answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "chunk"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\n1", "gzip"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "protocol switch"),
        (b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n", "600 is no HTTP status"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n<html/>", "no JSON ('<html/>')"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n", "an answer of more than"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" + b"1" * 5000, "an answer of more than"),
    ],
)
def test_garbage_is_502_and_says_what_it_was(answer: bytes, words: str) -> None:
    async def run() -> None:
        async with raw(answer) as host:
            await ask(host, V1, max_body_bytes=4096)

    error = fails(UpstreamError, words, "the predictor at http://127.0.0.1:", run=run())
    assert error.http_status() == 502


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b'{"predictions": [1]}', 'no V2 response (\'{"predictions": [1]}\'): it has no "outputs"'),
        (b"[1]", "no V2 response"),
        (b'{"outputs": [{"name": "y"}]}', "no V2 response"),
        (V2_ANSWER.replace(b'"shape":[2]', b'"shape":[3]'), "no V2 response"),
        (V2_ANSWER.replace(b"2.0]", b'"x"]'), "broken tensor"),
    ],
)
def test_an_answer_of_another_protocol_is_502(answer: bytes, words: str) -> None:
    async def run() -> None:
        async with scripted(lambda request: says(answer)) as behind:
            found = await ask(behind.host, tensors(2))
            found.outputs[0].as_numpy()

    error = fails(UpstreamError, words, run=run())
    assert error.http_status() == 502


def test_answers_in_every_framing() -> None:
    body = b'{"predictions": [' + b"1," * 70000 + b"1]}"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked += b"".join(
        b"%x\r\n%s\r\n" % (len(piece), piece)
        for piece in (body[at : at + 9999] for at in range(0, len(body), 9999))
    )
    answers = [
        says(body),
        b"HTTP/1.1 100 Continue\r\n\r\n" + says(body),
        chunked + b"0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n" + body,
    ]

    async def run() -> None:
        for answer in answers:
            async with raw(answer) as host:
                assert len((await ask(host, V1))["predictions"]) == 70001

    asyncio.run(run())


# --- what hooks return


@pytest.mark.parametrize(
    ("payload", "protocol", "words"),
    [
        (7, "v1", "returned int"),
        ({"instances": [object()]}, "v1", "cannot be written as JSON"),
        ("text", "v2", "returned str"),
        ({"inputs": [{"name": 3}]}, "v2", "no V2 request"),
        ({"something": 1}, "v2", "no V2 request"),
        ({"inputs": [{"name": "x", "data": np.ones(2), "shape": [3]}]}, "v2", "reshape"),
        ({"inputs": [{"name": "x", "datatype": "FP9", "data": np.ones(2)}]}, "v2", "FP9"),
        ({"inputs": [{"datatype": "FP32", "data": np.ones(2)}]}, "grpc-v2", 'needs "name"'),
        ({"instances": [{"a": 1}]}, "v2", "make no tensor .* dict is neither"),
        ({"instances": [[1], [1, 2]]}, "grpc-v2", "make no tensor"),
        (InferRequest("m", tensors(1).inputs * 2), "v1", "several tensors"),
    ],
)
def test_what_cannot_be_sent_is_the_hooks_fault(payload: Any, protocol: str, words: str) -> None:
    with pytest.raises(BadHookResult, match=words) as caught:
        asyncio.run(ask("127.0.0.1:1", payload, predictor_protocol=protocol))
    assert caught.value.http_status() == 500


def test_v1_rows_become_one_tensor() -> None:
    for payload in ({"instances": [[1.0], [2.0]]}, {"inputs": [[1.0], [2.0]]}):
        (tensor,) = documents.infer_request(payload, "m").inputs
        assert (tensor.name, tensor.shape, tensor.datatype) == ("input-0", [2, 1], "FP64")


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": np.ones(2)},
        {"name": "x", "data": np.ones((1, 2), "f4")},
        {"name": "x", "datatype": "FP32", "data": [[1.0, 1.0]]},
        Tensor("x", [1, 2], "FP32", [1.0, 1.0]),
    ],
    ids=str,
)
def test_documents_of_code_hold_arrays(entry: Any) -> None:
    """A class without an SDK writes a V2 document; its arrays travel as binary data."""
    document = {"id": "7", "inputs": [entry]}
    assert documents.is_v2(document)
    request = documents.infer_request(document, "m")
    (tensor,) = request.inputs
    assert (tensor.name, tensor.datatype, tensor.shape) == ("x", "FP32", [1, 2])
    assert tensor.as_numpy().tolist() == [[1.0, 1.0]]
    assert (request.id, request.model_name) == ("7", "m")
    _, binary = documents.encode_request(request, binary=True)
    assert [len(piece) for piece in binary] == [8]


# --- connections and time


def test_down_wrong_host_and_wrong_settings() -> None:
    error = fails(
        UpstreamError, "http://127.0.0.1:1", "connection refused", run=ask("127.0.0.1:1", V1)
    )
    assert error.http_status() == 502
    error = fails(UpstreamError, "'no.such.host.invalid'", "cannot be resolved",
                  run=ask("no.such.host.invalid", V1, predictor_wake_s=60.0))  # fmt: skip
    for text in ("ftp://x", "http://", "a b", "http://x:99999", "http://u@h", ""):
        with pytest.raises(ValueError, match="host"):
            target.parse(text)


def test_a_slow_predictor_is_504_within_the_callers_time() -> None:
    async def never(request: Request) -> bytes:
        await asyncio.sleep(60)
        return b""

    async def run(**options: Any) -> None:
        async with scripted(never) as behind:
            await ask(behind.host, V1, **options)

    error = fails(UpstreamTimeout, "did not answer within 0.2 s", run=run(predictor_timeout_s=0.2))
    assert error.http_status() == 504
    for headers in (
        {"x-envoy-expected-rq-timeout-ms": "200"},
        {"grpc-timeout": "200m"},
        {"grpc-timeout": "9S", "x-envoy-expected-rq-timeout-ms": "200"},
    ):
        fails(UpstreamTimeout, "left of the caller's time", run=run(headers=headers))
    fails(UpstreamTimeout, "within 0 s", run=ask("127.0.0.1:1", V1, deadline=time.monotonic() - 1))


def test_the_time_that_is_left_travels_on() -> None:
    async def run() -> None:
        async with scripted(lambda request: says({})) as behind:
            await ask(behind.host, V1, {"x-envoy-expected-rq-timeout-ms": "30000"})
            await ask(behind.host, V1)
            told = [r.headers.get("x-envoy-expected-rq-timeout-ms") for r in behind.requests]
            assert told[0] is not None
            assert 20000 < int(told[0]) <= 30000
            assert told[1] is None

    asyncio.run(run())


@pytest.mark.parametrize(
    "headers",
    [{"grpc-timeout": "soon"}, {"grpc-timeout": "5"}, {"x-envoy-expected-rq-timeout-ms": "-1"}],
)
def test_odd_deadlines_are_no_deadlines(headers: dict[str, str]) -> None:
    assert Predictor.deadline_of(headers) == 0.0


def test_a_predictor_that_wakes_up_is_waited_for() -> None:
    async def run() -> None:
        behind = Scripted(lambda request: says({"predictions": [1]}))
        await behind.start()
        port = behind.port
        await behind.stop()
        asking = asyncio.create_task(ask(f"127.0.0.1:{port}", V1, predictor_wake_s=30.0))
        await asyncio.sleep(0.2)
        assert not asking.done()
        await behind.start(port)
        assert await asking == {"predictions": [1]}
        await behind.stop()

        answers = [says({}, 503), says({}, 503), says({"predictions": [2]})]
        async with scripted(lambda request: answers.pop(0)) as waking:
            assert await ask(waking.host, V1, predictor_wake_s=30.0) == {"predictions": [2]}

    asyncio.run(run())


def test_a_503_of_a_predictor_that_is_awake_means_overload() -> None:
    answers = [says({}), *[says({"error": "busy"}, 503)] * 9]

    async def run() -> None:
        async with scripted(lambda request: answers.pop(0)) as behind:
            hop = predictor(behind.host, predictor_wake_s=30.0, predictor_retries=2)
            await ask(hop, V1)
            with pytest.raises(UpstreamStatus, match="busy"):
                await ask(hop, V1)
            assert len(behind.requests) == 1 + 3
            hop.close()

    asyncio.run(run())


def test_a_predictor_that_stays_away_is_not_waited_for_by_everybody() -> None:
    async def run() -> None:
        hop = predictor("127.0.0.1:1", predictor_wake_s=0.3)
        with pytest.raises(UpstreamError, match="refused"):
            await ask(hop, V1)
        before = time.monotonic()
        hop.settings = hop.settings.__class__(predictor_host="127.0.0.1:1", predictor_retries=0)
        for _ in range(20):
            with pytest.raises(UpstreamError, match="refused"):
                await ask(hop, V1)
        assert time.monotonic() - before < 9, "each of them waited as long as the first"

    asyncio.run(run())


def test_retrying_ends_before_the_deadline_with_the_cause() -> None:
    fails(
        UpstreamError,
        "connection refused",
        run=ask("127.0.0.1:1", V1, {"grpc-timeout": "1500m"}, predictor_wake_s=60.0),
    )


def test_a_kept_connection_that_has_gone_is_replaced() -> None:
    async def run() -> None:
        count = 0

        def script(request: Request) -> bytes | None:
            nonlocal count
            count += 1
            # The second request on a connection finds it closed, as after a keep-alive time-out.
            return says({"n": count}) if count != 2 else None

        async with scripted(script) as behind:
            hop = predictor(behind.host)
            assert await ask(hop, V1) == {"n": 1}
            assert await ask(hop, V1) == {"n": 3}
            assert behind.connections == 2
            hop.close()

    asyncio.run(run())


def test_a_connection_closed_midway_is_not_asked_again() -> None:
    async def run() -> None:
        async with scripted(lambda request: None) as behind:
            with pytest.raises(UpstreamError, match="without an answer"):
                await ask(behind.host, V1, predictor_retries=3)
            assert len(behind.requests) == 1

    asyncio.run(run())


def test_64_requests_are_under_way_at_once_and_connections_are_kept() -> None:
    async def run() -> None:
        everybody = asyncio.Event()

        async def script(request: Request) -> bytes:
            if behind.at_once >= 64:
                everybody.set()
            await asyncio.wait_for(everybody.wait(), 30)
            return says({"predictions": []})

        async with scripted(script) as behind:
            hop = predictor(behind.host)
            for _ in range(2):
                await asyncio.gather(*(ask(hop, V1) for _ in range(64)))
            assert (behind.peak, behind.connections) == (64, 64)
            hop.close()

    asyncio.run(run())


def test_more_calls_than_connections_wait_in_order_and_given_up_ones_make_room() -> None:
    async def run() -> None:
        async def script(request: Request) -> bytes:
            await asyncio.sleep(0.01)
            return says({"predictions": []})

        async with scripted(script) as behind:
            hop = predictor(behind.host, predictor_connections=2)
            await asyncio.gather(*(ask(hop, V1) for _ in range(12)))
            assert (behind.peak, behind.connections) == (2, 2)
            tasks = [asyncio.create_task(ask(hop, V1)) for _ in range(12)]
            await asyncio.sleep(0.015)
            for task in tasks[::3]:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert sum(answer == {"predictions": []} for answer in done) >= 8
            assert await ask(hop, V1) == {"predictions": []}, "a place was lost"
            hop.close()

    asyncio.run(run())


def test_idle_connections_are_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with scripted(lambda request: says({})) as behind:
            hop = predictor(behind.host)
            await ask(hop, V1)
            monkeypatch.setattr(pool, "IDLE_S", -1.0)
            await ask(hop, V1)
            assert behind.connections == 2
            hop.close()

    asyncio.run(run())


def test_waking_ahead_pokes_once_and_only_what_may_sleep() -> None:
    async def run() -> None:
        async with scripted(lambda request: says({})) as behind:
            hop = predictor(behind.host)
            hop.wake(Call({}))
            hop.wake(Call({}))
            while hop._poking is not None:
                await asyncio.sleep(0.005)
            assert [request.target for request in behind.requests] == ["/v2/health/live"]
            hop.wake(Call({}))  # it has just answered
            assert hop._poking is None
            hop._awake_at -= client.AWAKE_S + 1
            hop.wake(Call({}))
            assert hop._poking is not None
            await ask(hop, V1)
            hop.close()
        dead = predictor("127.0.0.1:1")
        dead.wake(Call({}))
        while dead._poking is not None:
            await asyncio.sleep(0.005)

    asyncio.run(run())


# --- proxies


def test_an_http_proxy_gets_whole_urls() -> None:
    async def run() -> None:
        async with scripted(lambda request: says({"predictions": []})) as proxy:
            environ = {
                "http_proxy": f"http://{proxy.host}",
                "no_proxy": "direct.example,10.0.0.0/8",
            }
            await ask("m.default.svc.cluster.local", V1, environ=environ)
            assert proxy.requests[0].target == (
                "http://m.default.svc.cluster.local/v1/models/m:predict"
            )
            assert proxy.requests[0].headers["host"] == "m.default.svc.cluster.local"
            for host, through in (
                ("direct.example", False), ("a.direct.example:81", False), ("10.1.2.3", False),
                ("localhost:9", False), ("127.0.0.1:9", False), ("other.example", True),
            ):  # fmt: skip
                assert (target.parse(host, environ=environ).proxy is not None) is through, host

    asyncio.run(run())
