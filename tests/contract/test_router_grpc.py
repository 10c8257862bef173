"""gRPC both ways: the graph as a V2 service, and ModelInfer steps. Oracle: grpcio's own client and
server."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from router_fn.oip import MESSAGES, SERVICE
from tests import fakes_router as fakes
from tests.fakes_router import inspect, router, says, sequence, upstream

V2_ANSWER = (
    b'{"model_name":"m","outputs":[{"name":"o","shape":[2],"datatype":"FP32","data":[1.5,2.5]}]}'
)


@contextlib.contextmanager
def model(infer: Callable[[Any, Any], Any]) -> Iterator[int]:
    """A gRPC model server on a thread pool; yields its port."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    handler = grpc.unary_unary_rpc_method_handler(
        infer,
        MESSAGES["ModelInferRequest"].FromString,
        MESSAGES["ModelInferResponse"].SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {"ModelInfer": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


def double(request: Any, context: Any) -> Any:
    answer = MESSAGES["ModelInferResponse"](model_name=request.model_name, id=request.id)
    for tensor in request.inputs:
        out = answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        out.contents.fp32_contents.extend(2 * x for x in tensor.contents.fp32_contents)
    return answer


def v2(data: list[float], **more: Any) -> bytes:
    return json.dumps(
        {"inputs": [{"name": "x", "shape": [len(data)], "datatype": "FP32", "data": data}], **more}
    ).encode()


class TestSteps:
    def test_a_grpc_step_takes_and_gives_v2_json(self) -> None:
        with (
            model(double) as port,
            router(sequence({"serviceUrl": f"grpc://127.0.0.1:{port}/iris"})) as served,
        ):
            answer = served.request(body=v2([1.0, 2.5], id="7"))
        assert answer.json == {
            "model_name": "iris",
            "id": "7",
            "outputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [2.0, 5.0]}],
        }

    def test_outputs_feed_the_next_grpc_step(self) -> None:
        with model(double) as port:
            one = {"serviceUrl": f"grpc://127.0.0.1:{port}/iris"}
            with router(
                sequence(one, {**one, "data": "$response", "mapOutputsToInputs": True})
            ) as served:
                assert served.request(body=v2([1.0])).json["outputs"][0]["data"] == [4.0]

    @pytest.mark.parametrize(
        ("code", "status"),
        [
            (grpc.StatusCode.INVALID_ARGUMENT, 400),
            (grpc.StatusCode.NOT_FOUND, 404),
            (grpc.StatusCode.INTERNAL, 500),
        ],
    )
    def test_a_models_error_is_an_answer_with_a_status(self, code: Any, status: int) -> None:
        def fail(request: Any, context: Any) -> Any:
            context.abort(code, "not like this")

        with (
            model(fail) as port,
            router(sequence({"serviceUrl": f"grpc://127.0.0.1:{port}/iris"})) as served,
        ):
            answer = served.request(body=v2([1.0]))
        assert (answer.status, answer.json) == (status, {"error": "not like this"})

    def test_nobody_there_is_an_error_of_the_step(self) -> None:
        url = f"grpc://127.0.0.1:{fakes.free_port()}/iris"
        with router(sequence({"serviceUrl": url, "timeoutSeconds": 5})) as served:
            answer = served.request(body=v2([1.0]))
            assert answer.status == 500
            assert "cannot connect" in answer.json["cause"]
            assert served.request(body=b"text").status == 400


def seldon_stub(protocol: str) -> dict[str, Any]:
    """A SeldonDeployment whose only node is built in."""
    unit = {"name": "stub", "implementation": "SIMPLE_MODEL"}
    return {
        "kind": "SeldonDeployment",
        "name": "d",
        "namespace": "default",
        "protocol": protocol,
        "predictors": [{"name": "p", "graph": unit}],
    }


@contextlib.contextmanager
def front(spec: Any, **env: str) -> Iterator[tuple[fakes.RouterProcess, Callable[..., Any]]]:
    port = fakes.free_port()
    with (
        router(spec, GRPC_PORT=str(port), **env) as served,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):

        def call(method: str, metadata: Any = None, **fields: Any) -> Any:
            invoke = channel.unary_unary(
                f"/{SERVICE}/{method}",
                MESSAGES[f"{method}Request"].SerializeToString,
                MESSAGES[f"{method}Response"].FromString,
            )
            return invoke(MESSAGES[f"{method}Request"](**fields), timeout=20, metadata=metadata)

        yield served, call


class TestFront:
    def test_health_and_metadata(self) -> None:
        with front(sequence({"serviceUrl": "http://127.0.0.1:1"})) as (_, call):
            assert call("ServerLive").live
            assert call("ServerReady").ready
            assert call("ModelReady", name="graph").ready
            assert call("ModelMetadata", name="graph").platform == "turnout_graph"
            assert call("ServerMetadata").name == "turnout-router"

    @pytest.mark.parametrize(
        "spec",
        [
            sequence({"serviceUrl": "http://127.0.0.1:1"}),
            seldon_stub("seldon"),
            seldon_stub("v2"),
            seldon_stub("tensorflow"),
        ],
    )
    def test_probes_are_answered_on_the_only_known_port(self, spec: Any) -> None:
        """As in a Knative Service with an h2c port: PORT is GRPC_PORT, HTTP is elsewhere."""
        port = str(fakes.free_port())
        served = fakes.RouterProcess(spec, PORT=port, GRPC_PORT=port, DRAIN_DELAY_SECONDS="1")
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                check = channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)
                assert check(b"", timeout=fakes.DEADLINE_S, wait_for_ready=True) == b"\x08\x01"
                served.process.terminate()
                fakes.wait_until(
                    lambda: check(b"", timeout=5) == b"\x08\x02", "it says that it leaves"
                )
            assert served.wait() == 0
        finally:
            served.stop()

    def test_infer_runs_the_graph(self) -> None:
        with (
            upstream({"/m": says(V2_ANSWER)}) as up,
            front(sequence({"serviceUrl": up.url + "/m"})) as (_, call),
        ):
            tensor = {
                "name": "x",
                "datatype": "INT64",
                "shape": [2],
                "contents": {"int64_contents": [1, 2**60]},
            }
            answer = call("ModelInfer", model_name="graph", id="9", inputs=[tensor])
        assert list(answer.outputs[0].contents.fp32_contents) == [1.5, 2.5]
        assert answer.id == "9"
        assert up.seen[0].json == {
            "id": "9",
            "inputs": [{"name": "x", "shape": [2], "datatype": "INT64", "data": [1, 2**60]}],
        }

    def test_raw_contents_are_understood(self) -> None:
        import struct

        with (
            upstream({"/m": says(V2_ANSWER)}) as up,
            front(sequence({"serviceUrl": up.url + "/m"})) as (_, call),
        ):
            tensors = [
                {"name": "x", "datatype": "FP16", "shape": [2]},
                {"name": "s", "datatype": "BYTES", "shape": [2]},
            ]
            raw = [struct.pack("<2e", 0.5, -2), b"\x02\x00\x00\x00hi\x00\x00\x00\x00"]
            call("ModelInfer", inputs=tensors, raw_input_contents=raw)
        assert [tensor["data"] for tensor in up.seen[0].json["inputs"]] == [[0.5, -2.0], ["hi", ""]]

    def test_metadata_follows_the_header_rules(self) -> None:
        with upstream({"/m": says(V2_ANSWER)}) as up:  # noqa: SIM117
            with front(sequence({"serviceUrl": up.url + "/m"}), PROPAGATE_HEADERS="X-Tenant") as (
                _,
                call,
            ):
                call("ModelInfer", metadata=[("x-tenant", "t"), ("x-other", "o")])
        assert up.seen[0].headers["x-tenant"] == "t"
        assert "x-other" not in up.seen[0].headers

    @pytest.mark.parametrize(
        ("behaviour", "code"),
        [
            (says(b'{"error":"bad shape"}', status=400), grpc.StatusCode.INVALID_ARGUMENT),
            (says(b"{}", status=503), grpc.StatusCode.UNAVAILABLE),
            (says(b'{"predictions":[1]}'), grpc.StatusCode.INTERNAL),
            (inspect, grpc.StatusCode.INTERNAL),
        ],
    )
    def test_failures_have_the_fitting_code(self, behaviour: fakes.Behaviour, code: Any) -> None:
        with (  # noqa: SIM117
            upstream({"/m": behaviour}) as up,
            front(sequence({"serviceUrl": up.url + "/m"})) as (_, call),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call("ModelInfer")
        assert caught.value.code() is code

    def test_the_concurrency_limit_counts_grpc_and_lets_go_again(self) -> None:
        with upstream({"/m": fakes.after(0.5, says(V2_ANSWER))}) as up:
            spec = sequence({"serviceUrl": up.url + "/m"}) | {"maxConcurrency": 1}
            with front(spec) as (served, call), futures.ThreadPoolExecutor() as pool:
                first = pool.submit(call, "ModelInfer")
                fakes.wait_until(lambda: up.seen, "the first request is under way")
                assert served.request().status == 503
                with pytest.raises(grpc.RpcError):
                    call("ModelInfer")
                first.result()
                assert served.request().status == 200

    def test_a_client_that_gives_up_cancels_the_graph(self) -> None:
        gone: list[bool] = []
        with upstream({"/m": lambda talk: gone.append(talk.client_gone())}) as up:
            spec = sequence({"serviceUrl": up.url + "/m"}, {"serviceUrl": up.url + "/m"})
            port = fakes.free_port()
            with (
                router(spec, GRPC_PORT=str(port)),
                grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
            ):
                invoke = channel.unary_unary(f"/{SERVICE}/ModelInfer", bytes, bytes)
                with pytest.raises(grpc.RpcError):
                    invoke(b"", timeout=0.3)
                fakes.wait_until(lambda: gone, "the upstream call is dropped")


def test_our_schema_is_the_model_servers_schema() -> None:
    """Two units, two copies: fields, numbers and types must be the same."""
    from functions import oip as theirs

    for name, ours in MESSAGES.items():
        other = theirs
        for part in name.split("."):
            other = getattr(other, part)
        fields = lambda message: {  # noqa: E731
            field.name: (field.number, field.type, field.is_repeated)
            for field in message.DESCRIPTOR.fields
        }
        assert fields(ours) == fields(other), name


def test_nothing_of_grpc_is_imported_otherwise() -> None:
    program = (
        "import sys, router_fn.__main__, router_fn.server; sys.exit('grpc' in "
        "sys.modules or 'google.protobuf' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], cwd=fakes.ROOT, check=False).returncode == 0
    )
