"""How hooks are found and called: arguments, contexts, constructors, the bases of SDKs."""

import abc
import asyncio
import functools
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functions import context, hooks
from functions.errors import (
    BadHookResult,
    ConfigurationError,
    InvalidRequest,
    LoadFailed,
    NotSupported,
)
from functions.inference import InferRequest, InferResponse, Tensor
from functions.model import Call
from functions.predictor import Predictor, target
from functions.predictor.forwarding import Forwarder, added
from functions.public import Model
from functions.runtimes import kserve_compat, python
from functions.runtimes.kserve_hooks import KServeHooks, _to_document
from functions.settings import Settings
from tests.fakes_predictor import says, scripted


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        (lambda payload: (payload,), (1,)),
        (lambda payload, headers: (payload, headers), (1, {"h": "1"})),
        (lambda payload, context: (payload, context), (1, "c")),
        (lambda payload, headers, context: (payload, headers, context), (1, {"h": "1"}, "c")),
        (lambda payload, headers, answer, context: (answer, context), ({"a": "1"}, "c")),
        (lambda payload, *, context: (payload, context), (1, "c")),
        (lambda payload, headers=None, *, context=None: (headers, context), ({"h": "1"}, "c")),
        (lambda *every: every, (1, {"h": "1"}, {"a": "1"})),
        (lambda payload, *, headers: (payload, headers), (1, {"h": "1"})),
        (lambda payload, *, response_headers, headers=None: (response_headers,), ({"a": "1"},)),
        (lambda payload, response_headers: (response_headers,), ({"a": "1"},)),
        (lambda payload, context, headers: (context, headers), ("c", {"h": "1"})),
        (lambda payload, scale=255: (payload, scale), (1, 255)),
        (lambda payload, headers=None, scale=255.0: (headers, scale), ({"h": "1"}, 255.0)),
        (lambda payload, headers={}, *rest: (headers, rest), ({"h": "1"}, ({"a": "1"},))),
        (lambda payload, **options: (payload, options), (1, {})),
        (functools.partial(lambda k, payload: (k, payload), 3), (3, 1)),
        (bool, ()),  # a builtin without a signature
    ],
)
def test_hooks_get_what_they_declare(hook: Any, expected: tuple[Any, ...]) -> None:
    stage, uses = hooks.stage(hook)
    assert stage(1, {"h": "1"}, {"a": "1"}, "c") == (expected if hook is not bool else True)
    assert uses is ("c" in expected)


def test_a_positional_only_context_is_refused() -> None:
    def hook(payload: Any, context: Any, /) -> None: ...

    with pytest.raises(LoadFailed, match="positional-only"):
        hooks.stage(hook)


def test_bases_of_sdks_have_no_hooks_of_the_users() -> None:
    class KFModel:
        def __init__(self, name: str) -> None:
            self.name = name

        async def predict(self, request: Any) -> Any:
            raise NotImplementedError

        def preprocess(self, request: Any) -> Any:
            return request

    for member in (KFModel.predict, KFModel.preprocess):
        member.__module__ = "kfserving.kfmodel"

    class Image(KFModel):
        def __init__(self, name: str, predictor_host: str) -> None:
            super().__init__(name)
            self.predictor_host = predictor_host

        def postprocess(self, result: Any) -> Any:
            return result

    made = hooks.construct(Image, {"name": "m", "predictor_host": "h:1", "other": 2}, {})
    assert (made.name, made.predictor_host) == ("m", "h:1")
    assert hooks.find(made, "predict") is hooks.find(made, "preprocess") is None
    assert hooks.find(made, "postprocess") is not None


def test_a_class_whose_base_was_taken_away_still_calls_it() -> None:
    class Bare:
        def __init__(self, name: str) -> None:
            super().__init__(name, return_response_headers=True)  # type: ignore[call-arg]
            self.ready = True

    class Plain:
        def __init__(self, name: str) -> None:
            self.name = name

    made = hooks.construct(Bare, {"name": "m"}, {})
    assert (made.name, type(made).__name__, isinstance(made, Model)) == ("m", "Bare", True)
    assert not isinstance(hooks.construct(Plain, {"name": "m"}, {}), Model)


def test_a_base_that_was_taken_away_below_another_class() -> None:
    class Common(abc.ABC):  # noqa: B024
        pass

    class Below:
        def __init__(self, name: str) -> None:
            super(Below, self).__init__(name)  # type: ignore[call-arg]  # noqa: UP008

    class T(Below, Common):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)

    made = hooks.construct(T, {"name": "m", "predictor_host": "h"}, {})
    assert (made.name, isinstance(made, T)) == ("m", True)


def test_load_is_given_a_directory_and_nothing_that_is_its_own() -> None:
    class T:
        def load(self, *places: Any) -> None:
            self.places = places

    class Own(T):
        def load(self, timeout: float = 30.0) -> None:  # type: ignore[override]
            self.places = (timeout,)

    class Default(T):
        def load(self, path: str = "/mnt/models") -> None:  # type: ignore[override]
            self.places = (path,)

    for cls, places in ((T, ("/d",)), (Own, (30.0,)), (Default, ("/d",))):
        assert python.instantiate(cls, "m", Path("/d"), Settings()).places == places


def test_constructors_are_offered_what_kserves_are() -> None:
    class Wants:
        def __init__(self, name: str, predictor_config: Any, protocol: str, use_ssl: bool) -> None:
            self.seen = (name, predictor_config.predictor_host, predictor_config.protocol,
                         protocol, use_ssl)  # fmt: skip

    class Flags:
        def __init__(self, args: Any, predictor_request_timeout_seconds: int) -> None:
            self.seen = (args.model_name, args.predictor_host, args.predictor_use_ssl, args.k,
                         predictor_request_timeout_seconds)  # fmt: skip

    class Everything:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.seen = (args, kwargs)

    settings = Settings(predictor_host="h:1", predictor_protocol="v2", predictor_use_ssl=True)
    made = python.instantiate(Wants, "m", Path("/d"), settings)
    assert made.seen == ("m", "h:1", "v2", "v2", True)
    assert python.instantiate(Everything, "m", Path("/d"), settings).seen == ((), {})
    assert kserve_compat.flags("m", settings)["predictor_request_retries"] == 1

    class FlagsAndK(Flags):
        def __init__(self, k: str, **named: Any) -> None:
            super().__init__(**named)

    with_k = Settings(predictor_host="h:1", param=(("k", "v"),))
    made = python.instantiate(FlagsAndK, "m", Path("/d"), with_k)
    assert made.seen == ("m", "h:1", False, "v", 60)


def run(model: KServeHooks, payload: Any, call: Call | None = None) -> Any:
    result = model.v1("predict", payload, call or Call({}))
    return asyncio.run(_await(result)) if asyncio.iscoroutine(result) else result


async def _await(awaitable: Any) -> Any:
    return await awaitable


def test_each_request_has_a_context_of_its_own() -> None:
    class T:
        def preprocess(self, payload: Any, context: context.Context) -> Any:
            assert not context
            context["n"] = payload["n"]
            return payload

        def predict(self, payload: Any) -> Any:
            return {"predictions": []}

        async def postprocess(self, result: Any, context: context.Context) -> Any:
            return {"n": context["n"], "verb": context.verb, "left": context.remaining_s()}

    model = KServeHooks(T(), name="m")
    for n in range(3):
        assert run(model, {"n": n}) == {"n": n, "verb": "predict", "left": float("inf")}


def test_context_without_a_predictor_or_a_loop() -> None:
    given = context.Context(Call({"x-request-id": "r"}, "r"), "m", "predict")
    assert (given.request_id, given.headers) == ("r", {"x-request-id": "r"})
    with pytest.raises(NotSupported, match="--predictor-host"):
        given.predict_blocking({})
    with pytest.raises(NotSupported, match="--predictor-host"):
        asyncio.run(given.predict({}))
    with pytest.raises(LookupError):
        context.current()

    async def blocking() -> None:
        loop = asyncio.get_running_loop()
        mine = context.Context(Call({}), "m", "predict", _await, loop)  # type: ignore[arg-type]
        mine.predict_blocking({})

    with pytest.raises(RuntimeError, match="sync hooks"):
        asyncio.run(blocking())


def test_the_session_sends_the_callers_trace_on_and_keeps_its_deadline() -> None:
    async def main() -> None:
        async with scripted(lambda request: says({"ok": 1})) as other:
            call = Call({"x-request-id": "r", "authorization": "Bearer x", "cookie": "c"})
            given = context.Context(call, "m", "predict")
            session = given.session
            assert given.session is session
            url = f"http://{other.host}/features"
            answer = await asyncio.to_thread(session.get, url)
            assert answer.json() == {"ok": 1}
            sent = other.requests[0].headers
            assert (sent["x-request-id"], sent["authorization"]) == ("r", "Bearer x")
            assert "cookie" not in sent
            call.deadline = 1.0  # long ago
            other.script = lambda request: asyncio.sleep(30, b"")
            import requests

            with pytest.raises(requests.exceptions.Timeout):
                await asyncio.to_thread(session.get, url)
            session.close()

    asyncio.run(main())


def test_answers_for_v1_callers() -> None:
    def answer(**arrays: Any) -> InferResponse:
        return InferResponse("", "m", [Tensor(name, data=a) for name, a in arrays.items()])

    one = _to_document(answer(y=np.array([1, 2])))
    assert one["predictions"].tolist() == [1, 2]
    rows = _to_document(answer(a=np.array([1, 2]), b=np.array([[3], [4]])))
    assert rows == {"predictions": [{"a": 1, "b": [3]}, {"a": 2, "b": [4]}]}
    odd = _to_document(answer(a=np.array([1, 2]), b=np.array([3])))
    assert set(odd["predictions"]) == {"a", "b"}
    assert _to_document({"outputs": [1]}) == {"outputs": [1]}


def test_what_is_missing_and_what_is_wrong() -> None:
    with pytest.raises(NotSupported, match=r"no predict method, and no --predictor-host"):
        run(KServeHooks(object(), name="m"), {})
    with pytest.raises(NotSupported, match=r"no explain method$"):
        KServeHooks(object(), name="m").v1("explain", {}, Call({}))
    for bad in (lambda payload: None, lambda payload: _await(payload)):
        with pytest.raises((BadHookResult, LoadFailed), match="predict"):
            run(KServeHooks(types.SimpleNamespace(predict=bad), name="m"), {})
    model = KServeHooks(types.SimpleNamespace(predict=lambda payload: object()), name="m")
    request = InferRequest("m", [Tensor("x", data=np.zeros(1))])
    with pytest.raises(BadHookResult, match="predict of model m returned object"):
        model.v2(request, Call({}))


def test_kserves_command_line_while_user_code_is_imported() -> None:
    import sys

    before = list(sys.argv)
    settings = Settings(predictor_host="h:1", predictor_protocol="grpc-v2", predictor_timeout_s=5)
    with kserve_compat.command_line("m", "/d", settings):
        for pair in (["--model_name", "m"], ["--predictor_host", "h:1"], ["--protocol", "grpc-v2"]):
            at = sys.argv.index(pair[0])
            assert sys.argv[at : at + 2] == pair
    assert sys.argv == before


def test_code_that_wants_flags_of_its_own_is_told_how(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "import argparse\n"
        "parser = argparse.ArgumentParser()\n"
        "parser.add_argument('--feast_url', required=True)\n"
        "args, _ = parser.parse_known_args()\n"
        "class T:\n"
        "    def __init__(self, feast_url):\n"
        "        self.urls = feast_url, args.feast_url\n"
        "    def preprocess(self, payload): return payload\n"
    )
    with pytest.raises(LoadFailed, match="--param NAME=VALUE"):
        python.build("m", tmp_path, Settings(model_dir=str(tmp_path), predictor_host="h"))
    chosen = Settings(
        model_dir=str(tmp_path), predictor_host="h", param=(("feast_url", "http://f"),)
    )
    built = python.build("m", tmp_path, chosen)
    assert isinstance(built, KServeHooks)
    assert built.target.urls == ("http://f", "http://f")


def test_seldons_spelling_has_no_predictor(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "class T:\n  def transform_input(self, X, names): return X\n"
    )
    with pytest.raises(LoadFailed, match="never ask the predictor"):
        python.build("m", tmp_path, Settings(model_dir=str(tmp_path), predictor_host="h"))


def test_awaitables_of_sync_hooks_are_awaited() -> None:
    """Of a decorator around an async hook, or a sync `predict` that returns `super().predict()`."""

    class T:
        def __init__(self, name: str) -> None:
            super().__init__(name)  # type: ignore[call-arg]

        def preprocess(self, payload: Any) -> Any:
            return _slowly({**payload, "pre": 1})

        def predict(self, payload: Any, headers: Any) -> Any:
            return super().predict(payload, headers)  # type: ignore[misc]

    async def _slowly(value: Any) -> Any:
        await asyncio.sleep(0)
        return value

    async def main() -> None:
        async with scripted(lambda request: says(request.body)) as behind:
            settings = Settings(predictor_host=behind.host)
            made = hooks.construct(T, {"name": "m"}, {})
            model = KServeHooks(made, name="m", predictor=Predictor("m", settings))
            assert await model.v1("predict", {"n": 1}, Call({})) == {"n": 1, "pre": 1}
            model.close()

    asyncio.run(main())


def test_a_request_that_preprocess_made_badly_is_not_the_clients_fault() -> None:
    class T:
        def preprocess(self, payload: Any) -> Any:
            return (
                InferRequest("", [Tensor("x", [3], "FP32", [1.0])]) if payload["bad"] else payload
            )

    hop = Predictor("m", Settings(predictor_host="127.0.0.1:1", predictor_protocol="grpc-v2"))
    model = KServeHooks(T(), name="m", predictor=hop)
    with pytest.raises(BadHookResult, match="preprocess returned what cannot be sent: input 'x'"):
        run(model, {"bad": True})
    with pytest.raises(InvalidRequest, match="asked this: got no V2 request"):
        run(model, {"bad": False})


def test_fields_that_hooks_add() -> None:
    given = {"X-From": "a", "x-n": 3, "Content-Length": "1", "TE": "x"}
    assert added(given) == [("x-from", "a"), ("x-n", "3")]
    for name in ("x y", "", "x:\r\ny", "ü"):
        with pytest.raises(BadHookResult, match="no header name"):
            added({name: "v"})

    async def main() -> None:
        async with scripted(lambda request: says({})) as behind:
            call = Call({"authorization": "callers", "x-request-id": "r"})
            call.context = context.Context(call, "m", "predict")
            call.context.predictor_headers["Authorization"] = "own"
            await Predictor("m", Settings(predictor_host=behind.host))({}, call)
            sent = behind.requests[0]
            assert (sent.headers["authorization"], sent.headers["x-request-id"]) == ("own", "r")
            assert sent.head.lower().count(b"authorization") == 1

    asyncio.run(main())


def test_names_and_prefixes_of_headers() -> None:
    headers = {"X": "never", "x-a": "1", "x-ab": "2", "x-b-1": "3", "host": "h", "te": "t"}
    chosen = Forwarder(("X-A", "x-b-*", "*")).choose(headers)
    assert chosen == [("X", "never"), ("x-a", "1"), ("x-ab", "2"), ("x-b-1", "3")]
    assert Forwarder(("x-a",)).choose(headers) == [("x-a", "1")]


@pytest.mark.parametrize(
    ("flags", "spoken", "served"),
    [
        ([], "auto", ("v1", "v2")),
        (["--protocol", "v2"], "v2", ("v1", "v2")),
        (["--protocol", "grpc-v2"], "grpc-v2", ("v1", "v2", "grpc-v2")),
        (["--protocol", "grpc-v2", "--predictor-protocol", "v1"], "v1", ("grpc-v2",)),
        (["--protocol", "v1,grpc-v2"], "auto", ("v1", "grpc-v2")),
        (["--predictor_protocol", "v2"], "v2", ("v1", "v2")),
    ],
)
def test_kserves_protocol_flag(flags: list[str], spoken: str, served: tuple[str, ...]) -> None:
    settings = Settings.from_env({}, ["--predictor_host", "h", *flags])
    assert (settings.predictor_protocol, settings.protocol) == (spoken, served)
    alone = Settings.from_env({}, ["--model-dir", "/m", "--protocol", "v2"])
    assert (alone.predictor_protocol, alone.protocol) == ("auto", ("v2",))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--predictor-host", "h:99999"], "--predictor-host=h:99999: expected"),
        (["--predictor-host", "h:0"], "port 0"),
        (["--predictor-host", "ftp://h"], "--predictor-host=ftp://h: expected"),
        (["--model-predictor", "b=http://u:p@h"], "--model-predictor=b=http://***@h: expected"),
        (["--predictor-host", "grpc://h", "--predictor-protocol", "v1"], "is gRPC, but"),
        (["--predictor-host", "http://h", "--predictor-use-ssl"], "plain HTTP, but"),
    ],
)
def test_predictors_that_cannot_be_meant(flags: list[str], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({}, ["--model-dir", "/m", *flags])
    (problem,) = caught.value.problems
    assert words in problem
    assert "u:p" not in problem


@pytest.mark.parametrize(
    ("host", "address", "tls", "grpc"),
    [
        ("h", "h:80", False, False),
        (" h:81\n", "h:81", False, False),
        ("::1", "[::1]:80", False, False),
        ("[fe80::2]:9", "[fe80::2]:9", False, False),
        ("https://h/", "h:443", True, False),
        ("GRPC://h:9", "h:9", False, True),
        ("grpcs://h", "h:443", True, True),
        ("dns:///h:9", "h:9", False, True),
    ],
)
def test_how_a_predictor_is_written(host: str, address: str, tls: bool, grpc: bool) -> None:
    where = target.parse(host)
    assert (where.address, where.tls, target.speaks_grpc(host)) == (address, tls, grpc)


def test_flags_that_are_true_or_false_may_stand_alone() -> None:
    assert Settings.from_env({"FUNCTIONS_PREDICTOR_HOST": "h:1\n"}).predictor_host == "h:1"
    for flags, expected in ((["--predictor-use-ssl"], True), (["--predictor_use_ssl=0"], False)):
        settings = Settings.from_env({}, ["--predictor-host", "h", *flags, "--port", "0"])
        assert settings.predictor_use_ssl is expected


def test_a_predictor_that_is_no_address_is_a_failed_load() -> None:
    with pytest.raises(LoadFailed, match="the predictor of model m, 'ftp://x': expected"):
        Predictor("m", Settings(predictor_host="ftp://x"))


def test_the_predictor_is_poked_while_preprocess_runs() -> None:
    async def main() -> None:
        poked = asyncio.Event()

        def script(request: Any) -> bytes:
            if request.method == "GET":
                poked.set()
            return says({"predictions": [1]})

        class T:
            async def preprocess(self, payload: Any) -> Any:
                await asyncio.wait_for(poked.wait(), 30)
                return payload

        async with scripted(script) as behind:
            predictor = Predictor("m", Settings(predictor_host=behind.host))
            model = KServeHooks(T(), name="m", predictor=predictor)
            call = Call({"x-request-id": "r"})
            assert await model.v1("predict", {"instances": [1]}, call) == {"predictions": [1]}
            assert [r.method for r in behind.requests] == ["GET", "POST"]
            assert behind.connections == 1, "the call takes the connection that is warm"
            assert set(call.timings) == {"preprocess", "predict"}
            await model.v1("predict", {"instances": [1]}, Call({}))
            assert len(behind.requests) == 3, "it is awake now"
            model.close()
            await asyncio.sleep(0)

    asyncio.run(main())


def test_hooks_of_the_base_class() -> None:
    class Checked(Model):
        def validate(self, payload: Any) -> Any:
            if "x" not in payload:
                raise KeyError("x")  # and returns nothing: the payload stays

        def predict(self, payload: Any) -> Any:  # type: ignore[override]
            return {"predictions": payload["x"]}

        def get_input_types(self) -> Any:
            return [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]

    served = KServeHooks(Checked())
    call = Call({})
    assert served.v1("predict", {"x": [1]}, call) == {"predictions": [1]}
    assert set(call.timings) == {"predict"}
    with pytest.raises(KeyError):
        served.v1("predict", {}, Call({}))
    assert [spec.to_json() for spec in served.info.inputs] == [
        {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
    ]
    assert served.info.outputs == ()

    class Wrong(Model):
        def get_output_types(self) -> Any:
            return [{"name": "y"}]

    with pytest.raises(LoadFailed, match="Wrong must return dicts"):
        KServeHooks(Wrong())

    class Own:  # without the base, a method called validate is its own affair
        def validate(self, payload: Any) -> Any:
            raise AssertionError

        def predict(self, payload: Any) -> Any:
            return {"predictions": [2]}

    assert KServeHooks(Own()).v1("predict", {}, Call({})) == {"predictions": [2]}
