"""V1 over HTTP against a user's class: answers, failure table, events, streams, isolation of
user code."""

import base64
import gzip
import json
import os
import socket
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes_functions import Server, serving, wait_until, write_model

MODEL = """
import os, sys, time

class Told(Exception):
    status_code = 418

class Torchy(Exception):
    def __init__(self, message, error_code):
        super().__init__(message)
        self.message, self.error_code = message, error_code

class Anything:
    def predict(self, payload, headers=None, response_headers=None):
        if isinstance(payload, bytes):
            return {"bytes": len(payload)}
        if not isinstance(payload, dict):
            return {"got": payload}
        do = payload.get("do")
        if do == "headers":
            response_headers["x-extra"] = "1"
            return {"seen": headers.get("x-mine")}
        if do == "text":
            return "plain text"
        if do == "raw":
            return b"\\x00\\x01"
        if do == "array":
            import numpy
            return numpy.arange(3)
        if do == "stream":
            return (f"piece {n}\\n" for n in range(3))
        if do == "broken stream":
            def pieces():
                yield "one"
                raise RuntimeError("half-way")
            return pieces()
        if do == "told":
            raise Told("short and stout")
        if do == "torchy":
            raise Torchy("no picture", 422)
        if do == "base64":
            import base64
            return {"n": len(base64.b64decode("a", validate=True))}
        if do == "bug":
            raise ValueError("secret of the model")
        if do == "exit":
            sys.exit(3)
        if do == "print":
            print("said by the model")
            return {"predictions": []}
        if do == "fork":
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            return {"predictions": ["forked"]}
        if do == "sleep":
            time.sleep(payload["s"])
            return {"predictions": ["slept"]}
        if do == "unserializable":
            return {"predictions": [object()]}
        if do == "pid":
            return {"pid": os.getpid()}
        return {"predictions": payload["instances"]}

    def explain(self, payload, headers):
        return {"explanations": payload["instances"]}
"""

PREDICT = "/v1/models/m:predict"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = write_model(tmp_path_factory.mktemp("v1"), MODEL)
    with serving(
        "--model_name",
        "m",
        f"--model_dir={directory}",
        "--runtime",
        "python",
        "--max-body-bytes",
        "1Mi",
        "--timeout-s",
        "20",
    ) as running:
        yield running


def test_lists_and_status(server: Server) -> None:
    assert server.get("/v1/models").body == b'{"models":["m"]}'
    assert server.get("/v1/models/m").body == b'{"name":"m","ready":true}'
    assert server.get("/v1/models/other").status == 404
    assert server.get("/").body == b'{"status":"alive"}'
    assert server.get("/readyz").status == server.get("/livez").status == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/ld+json",
        "",
        "application/x-www-form-urlencoded",
    ],
)
def test_json_is_read_whatever_the_type_says_about_it(server: Server, content_type: str) -> None:
    headers = {"content-type": content_type} if content_type else {}
    reply = server.post(PREDICT, b'{"instances": [1, 2.5]}', headers)
    assert (reply.status, reply.body) == (200, b'{"predictions":[1,2.5]}')
    assert reply.headers["content-type"] == "application/json"


def test_other_types_reach_the_model_as_bytes(server: Server) -> None:
    reply = server.post(PREDICT, b"\xff\xd8\xff", {"content-type": "image/jpeg"})
    assert reply.json() == {"bytes": 3}


FAILURES = [
    ("not json", b'{"instances": [', 400, "Unrecognized request format"),
    ("empty body", b"", 400, "Unrecognized request format"),
    ("NaN literal", b'{"instances": [NaN]}', 400, "Unrecognized request format"),
    ("trailing text", b'{"instances": []} x', 400, "Unrecognized request format"),
    ("instances no list", b'{"instances": 3}', 400, 'Expected "instances" to be a list'),
    ("no instances", b'{"something": 1}', 400, 'the body needs "instances"'),
    ("own status", b'{"do": "told"}', 418, "short and stout"),
    ("torchserve's exception", b'{"do": "torchy"}', 422, "no picture"),
    ("base64", b'{"do": "base64"}', 400, "Error: "),
]


@pytest.mark.parametrize(
    ("body", "status", "text"), [f[1:] for f in FAILURES], ids=[f[0] for f in FAILURES]
)
def test_failures_have_their_status_and_say_why(
    server: Server, body: bytes, status: int, text: str
) -> None:
    reply = server.post(PREDICT, body, {"content-type": "application/json"})
    assert (reply.status, text in reply.error) == (status, True), reply.body


def test_unknown_model_path_and_method(server: Server) -> None:
    assert server.post("/v1/models/other:predict", {}).status == 404
    assert (
        server.post("/v1/models/other:predict", {}).error == "Model with name other does not exist."
    )
    assert server.get(PREDICT).status == 404
    assert server.post("/v1/models/m:dance", {}).status == 404
    assert server.get("/nowhere").status == 404
    assert server.request("DELETE", "/v1/models").status == 405


def test_a_body_over_the_limit_is_refused(server: Server) -> None:
    assert server.post(PREDICT, b"[" + b"1," * (1 << 20) + b"1]").status == 413


def test_a_claimed_gigabyte_is_refused_before_it_is_sent(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(
            b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n"
        )
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def raw_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


ONE = b'{"instances": [1]}'


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", gzip.compress(ONE, mtime=0), 200),
        ("GZIP", gzip.compress(ONE[:5], mtime=0) + gzip.compress(ONE[5:], mtime=0), 200),
        ("deflate", zlib.compress(ONE), 200),
        ("deflate", raw_deflate(ONE), 200),
        ("identity", ONE, 200),
        ("deflate, gzip", gzip.compress(zlib.compress(ONE), mtime=0), 200),
        ("gzip", gzip.compress(ONE, mtime=0)[:-9], 400),
        ("gzip", ONE, 400),
        ("gzip", gzip.compress(b"[" + b"1," * (1 << 20) + b"1]", mtime=0), 413),
        ("br", ONE, 415),
    ],
)
def test_compressed_bodies(server: Server, encoding: str, body: bytes, status: int) -> None:
    headers = {"content-encoding": encoding, "content-type": "application/json"}
    reply = server.post(PREDICT, body, headers)
    assert reply.status == status, reply.body
    if status == 200:
        assert reply.json() == {"predictions": [1]}


def test_exceptions_are_hidden_behind_a_correlation_id(server: Server) -> None:
    reply = server.post(PREDICT, {"do": "bug"})
    assert reply.status == 500
    assert "secret" not in reply.error
    (record,) = wait_until(
        lambda: [r for r in server.logged("correlation_id") if r["correlation_id"] in reply.error],
        "the log line",
    )
    assert "secret of the model" in record["exception"]


def test_user_code_cannot_end_the_server(server: Server) -> None:
    assert server.post(PREDICT, {"do": "exit"}).status == 500
    assert server.post(PREDICT, {"do": "unserializable"}).status == 500
    assert server.post(PREDICT, {"do": "fork"}).json() == {"predictions": ["forked"]}
    assert server.post(PREDICT, {"do": "print"}).status == 200
    assert server.post(PREDICT, {"instances": [1]}).status == 200


def test_results_of_every_kind(server: Server) -> None:
    text = server.post(PREDICT, {"do": "text"})
    assert (text.body, text.headers["content-type"]) == (b"plain text", "text/plain; charset=utf-8")
    raw = server.post(PREDICT, {"do": "raw"})
    assert (raw.body, raw.headers["content-type"]) == (b"\x00\x01", "application/octet-stream")
    assert server.post(PREDICT, {"do": "array"}).body == b'{"predictions":[0,1,2]}'
    stream = server.post(PREDICT, {"do": "stream"})
    assert stream.body == b"piece 0\npiece 1\npiece 2\n"
    extra = server.post(PREDICT, {"do": "headers"}, {"X-Mine": "abc"})
    assert (extra.json(), extra.headers["x-extra"]) == ({"seen": "abc"}, "1")


def test_a_stream_that_breaks_is_seen_as_cut(server: Server) -> None:
    with pytest.raises(Exception, match=r"IncompleteRead|reset|closed|line"):
        server.post(PREDICT, {"do": "broken stream"})


def test_explain_takes_the_place_of_predict(server: Server) -> None:
    assert server.post("/v1/models/m:explain", {"instances": [7]}).json() == {"explanations": [7]}


def test_health_answers_while_a_model_call_runs(server: Server) -> None:
    slow = threading.Thread(target=server.post, args=(PREDICT, {"do": "sleep", "s": 2}))
    slow.start()
    assert server.get("/readyz", timeout=1.0).status == 200
    assert server.get("/v1/models", timeout=1.5).status == 200
    slow.join()


def test_binary_cloudevents_come_back_as_binary(server: Server) -> None:
    event = {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-source": "/s",
        "ce-type": "t",
        "content-type": "application/json",
    }
    reply = server.post(PREDICT, b'{"instances": [1]}', event)
    assert reply.json() == {"predictions": [1]}
    assert reply.headers["ce-type"] == "io.kserve.inference.response"
    assert reply.headers["ce-source"] == "io.kserve.inference.m"
    assert reply.headers["ce-specversion"] == "1.0"
    assert reply.headers["ce-id"] not in ("", "1")
    wrong = server.post(PREDICT, b"{}", {**event, "ce-specversion": "9"})
    assert (wrong.status, wrong.error[:12]) == (400, "Cloud Event ")


@pytest.mark.parametrize(
    "content_type", ["application/cloudevents+json", "application/cloudevents+json; charset=utf-8"]
)
def test_structured_cloudevents_come_back_structured(server: Server, content_type: str) -> None:
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "/s",
        "type": "t",
        "data": {"instances": [1]},
    }
    reply = server.post(PREDICT, json.dumps(event).encode(), {"content-type": content_type})
    assert reply.headers["content-type"] == "application/cloudevents+json"
    assert reply.json()["data"] == {"predictions": [1]}
    encoded = {**event, "data_base64": "AAE="}
    del encoded["data"]
    assert server.post(
        PREDICT, json.dumps(encoded).encode(), {"content-type": content_type}
    ).json()["data"] == {"bytes": 2}
    as_json = {**encoded, "data_base64": base64.b64encode(b'{"instances": [2]}').decode()}
    reply = server.post(PREDICT, json.dumps(as_json).encode(), {"content-type": content_type})
    assert reply.json()["data"] == {"predictions": [2]}
    del encoded["data_base64"]
    dataless = server.post(PREDICT, json.dumps(encoded).encode(), {"content-type": content_type})
    assert dataless.headers["content-type"] == "application/cloudevents+json"
    for lacking in ("id", "source", "type", "specversion"):
        partial = {key: value for key, value in event.items() if key != lacking}
        bad = server.post(PREDICT, json.dumps(partial).encode(), {"content-type": content_type})
        assert (bad.status, bad.error[:12], lacking in bad.error) == (400, "Cloud Event ", True)
    text = {**event, "data": {"do": "text"}}
    reply = server.post(PREDICT, json.dumps(text).encode(), {"content-type": content_type})
    assert reply.json()["datacontenttype"] == "text/plain; charset=utf-8"
    assert base64.b64decode(reply.json()["data_base64"]) == b"plain text"


def test_events_in_a_batch_are_refused(server: Server) -> None:
    batch = {"content-type": "application/cloudevents-batch+json"}
    reply = server.post(PREDICT, b"[]", batch)
    assert (reply.status, "batches" in reply.error) == (415, True)


def test_pages_and_documents(server: Server) -> None:
    assert b"Turnout model server" in server.get("/docs").body
    document = server.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert "/v1/models/{model}:predict" in document["paths"]
    assert b"turnout_requests_total" in server.get("/metrics").body


def test_pipelined_and_split_requests_are_answered_in_order(server: Server) -> None:
    head = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n"
    one = head + b'{"instances":[%d]}'
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        data = one % 1 + one % 2
        client.sendall(data[:70])
        client.sendall(data[70:])
        seen = b""
        while seen.count(b"predictions") < 2:
            piece = client.recv(4096)
            assert piece
            seen += piece
    assert seen.index(b"[1]") < seen.index(b"[2]")


def test_the_model_process_is_the_same_all_along(server: Server) -> None:
    assert server.post(PREDICT, {"do": "pid"}).json()["pid"] in server.children()
    assert os.path.exists(f"/proc/{server.process.pid}")


def test_model_time_limit_answers_504_and_a_wedged_worker_is_replaced(tmp_path: Path) -> None:
    directory = write_model(tmp_path, MODEL)
    with serving(
        "--model-name", "m", "--model-dir", str(directory), "--timeout-s", "0.3", "--threads", "1"
    ) as slow:
        (before,) = slow.children()
        reply = slow.post(PREDICT, {"do": "sleep", "s": 600})
        assert (reply.status, "did not answer within 0.3 s" in reply.error) == (504, True)
        wait_until(lambda: slow.children() not in ([before], []), "a new worker")
        slow.wait_ready()
        assert slow.post(PREDICT, {"instances": [1]}).status == 200
