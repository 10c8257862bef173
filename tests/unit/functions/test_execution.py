"""Where calls run, time limits, and batching, on a real event loop without sockets."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from functions.batching import Batcher
from functions.engine import Engine
from functions.errors import ModelTimeout, Overloaded
from functions.execution import INLINE_BODY_BYTES, INLINE_LIMIT_S, Runner
from functions.front import V1Codec
from functions.metrics import ModelMetrics
from functions.model import Call, Item, JoinableModel
from functions.repository import Repository
from functions.settings import Settings
from tests.fakes_functions import until


def collect(into: list[Any]) -> Any:
    return lambda result, error: into.append((result, error))


def test_results_and_exceptions_come_back_on_the_loop() -> None:
    async def run() -> None:
        runner = Runner("m", threads=2, inline=False, timeout_s=10)
        seen: list[Any] = []
        where: list[int] = []

        def done(result: Any, error: Any) -> None:
            where.append(threading.get_ident())
            seen.append((result, type(error)))

        runner.submit(lambda: 1, (), done)
        runner.submit(lambda: 1 / 0, (), done)
        await until(lambda: len(seen) == 2)
        assert sorted(seen, key=str) == sorted(
            [(1, type(None)), (None, ZeroDivisionError)], key=str
        )
        assert set(where) == {threading.get_ident()}
        assert runner.in_flight == 0
        runner.close()

    asyncio.run(run())


def test_inline_is_for_short_calls_with_small_bodies() -> None:
    async def run() -> None:
        runner = Runner("m", threads=1, inline=True, timeout_s=0)
        assert runner.inline_for(10)
        assert not runner.inline_for(INLINE_BODY_BYTES + 1)
        runner.measured(INLINE_LIMIT_S * 1000)
        assert runner.inline_for(10)  # one outlier does not count for more than a few calls
        runner.measured(INLINE_LIMIT_S * 1000)
        assert not runner.inline_for(10)
        for _ in range(10):
            runner.measured(INLINE_LIMIT_S / 10)
        assert runner.inline_for(10)
        assert not Runner("m", threads=1, inline=False, timeout_s=0).inline_for(1)

    asyncio.run(run())


def test_a_call_over_its_time_is_given_up_and_the_model_wedged() -> None:
    async def run() -> None:
        runner = Runner("m", threads=1, inline=False, timeout_s=0.05)
        gate, seen = threading.Event(), []
        runner.submit(gate.wait, (20,), collect(seen))
        runner.submit(lambda: "never started", (), collect(seen))
        await until(lambda: len(seen) == 2)
        assert all(isinstance(error, ModelTimeout) for _, error in seen)
        assert runner.wedged
        gate.set()
        await until(lambda: not runner.wedged)
        assert runner.in_flight == 0
        assert len(seen) == 2
        runner.close()

    asyncio.run(run())


def test_too_many_waiting_calls_are_refused() -> None:
    async def run() -> None:
        runner = Runner("m", threads=1, inline=False, timeout_s=0, max_waiting=1)
        gate, seen = threading.Event(), []
        runner.submit(gate.wait, (20,), collect(seen))
        with pytest.raises(Overloaded):
            runner.submit(gate.wait, (20,), collect(seen))
        gate.set()
        await until(lambda: seen)
        runner.close()

    asyncio.run(run())


def test_async_calls_have_the_same_time_limit() -> None:
    async def run() -> None:
        runner = Runner("m", threads=1, inline=False, timeout_s=0.02)
        seen: list[Any] = []
        runner.spawn(asyncio.sleep(20), collect(seen))
        await until(lambda: seen)
        assert isinstance(seen[0][1], ModelTimeout)

    asyncio.run(run())


class Doubler(JoinableModel):
    """Doubles numbers; a negative one breaks the whole call."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def run(self, items: list[Item]) -> None:
        self.sizes.append(sum(item.count for item in items))
        for item in items:
            if any(x < 0 for x in item.data):
                raise ValueError("negative")
        for item in items:
            item.output = [2 * x for x in item.data]

    def answer(self, item: Item) -> Any:
        return item.output


def item(*numbers: int, key: Any = "k") -> Item:
    return Item("predict", None, Call({}), count=len(numbers), key=key, data=list(numbers))


@pytest.mark.parametrize("inline", [True, False])
def test_what_arrives_in_one_turn_is_one_call_and_faults_stay_apart(inline: bool) -> None:
    async def run() -> None:
        model = Doubler()
        runner = Runner("m", threads=1, inline=inline, timeout_s=10)
        batcher = Batcher(model, runner, max_size=4, max_latency_s=5, metrics=ModelMetrics())
        seen: dict[str, Any] = {}

        def add(name: str, one: Item) -> None:
            batcher.add(
                one, 10, model.answer, lambda r, e: seen.update({name: (r, type(e).__name__)})
            )

        add("a", item(1, 2))
        add("b", item(-1))
        add("c", item(5))
        add("other", item(7, key="other"))
        add("alone", item(9, key=None))
        await until(lambda: len(seen) == 5)
        assert seen == {
            "a": ([2, 4], "NoneType"),
            "b": (None, "ValueError"),
            "c": ([10], "NoneType"),
            "other": ([14], "NoneType"),
            "alone": ([18], "NoneType"),
        }
        assert sorted(model.sizes) == [
            1,
            1,
            1,
            1,
            2,
            4,
        ]  # one joined call of 4, then each of its parts alone
        runner.close()

    asyncio.run(run())


def test_while_a_batch_runs_the_next_one_gathers() -> None:
    async def run() -> None:
        gate = threading.Event()

        class Gated(Doubler):
            def run(self, items: list[Item]) -> None:
                super().run(items)
                gate.wait(20)

        model = Gated()
        runner = Runner("m", threads=1, inline=False, timeout_s=10)
        batcher = Batcher(model, runner, max_size=100, max_latency_s=30, metrics=ModelMetrics())
        seen: list[Any] = []
        batcher.add(item(1), 10, model.answer, collect(seen))
        await until(lambda: model.sizes == [1])
        for n in range(5):
            batcher.add(item(n), 10, model.answer, collect(seen))
            await asyncio.sleep(0)
        gate.set()
        await until(lambda: len(seen) == 6)
        assert model.sizes == [1, 5]
        runner.close()

    asyncio.run(run())


def test_a_model_that_times_its_stages_itself_is_believed() -> None:
    async def run() -> None:
        class Timed(Doubler):
            def run(self, items: list[Item]) -> None:
                super().run(items)
                items[0].call.timings["explain"] = 3.0

        model, seen = Timed(), []
        runner = Runner("m", threads=1, inline=True, timeout_s=10)
        batcher = Batcher(model, runner, max_size=4, max_latency_s=5, metrics=ModelMetrics())
        first, second = item(1), item(2)
        for one in (first, second):
            batcher.add(one, 10, model.answer, collect(seen))
        await until(lambda: len(seen) == 2)
        assert set(first.call.timings) == {"queue", "explain"}
        assert set(second.call.timings) == {"queue", "predict"}

    asyncio.run(run())


def test_a_batch_never_exceeds_its_limit() -> None:
    async def run() -> None:
        model = Doubler()
        runner = Runner("m", threads=1, inline=True, timeout_s=10)
        batcher = Batcher(model, runner, max_size=4, max_latency_s=5, metrics=ModelMetrics())
        seen: list[Any] = []
        for _ in range(5):
            batcher.add(item(1, 1, 1), 10, model.answer, collect(seen))
        batcher.add(item(*range(9)), 10, model.answer, collect(seen))
        await until(lambda: len(seen) == 6)
        assert model.sizes.count(9) == 1  # a request larger than the limit is its own batch
        assert max(size for size in model.sizes if size != 9) <= 4

    asyncio.run(run())


def test_a_request_waiting_to_be_joined_survives_its_models_unloading(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "def predict(body):\n    return {'predictions': [2 * x for x in body['instances']]}\n"
    )

    async def run() -> None:
        arguments = ["--model-dir", str(tmp_path), "--max-batch-size", "8"]
        repository = Repository(Settings.from_env({}, arguments))
        await repository.load_all()
        entry, seen = repository.ready_entry("model"), []
        codec = V1Codec(repository.settings)
        route = SimpleNamespace(model="model", version="", verb="predict", headers={}, is_json=True)
        large = b'{"instances": [4]}' + b" " * INLINE_BODY_BYTES  # decoded beside the loop
        for body in (b'{"instances": [3]}', large):
            Engine(repository).execute(
                entry, codec, route, body, len(body), Call({}), collect(seen)
            )
        repository.unload("model")
        await until(lambda: len(seen) == 2)
        assert sorted(answer.body for answer, _ in seen) == [
            b'{"predictions":[6]}', b'{"predictions":[8]}',
        ]  # fmt: skip
        repository.close()

    asyncio.run(run())
