"""Clients that go away: what has not begun does not begin, and everything they held is handed
back."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from functions import context, grpc_server, oip
from functions.batching import Batcher
from functions.engine import Engine
from functions.errors import ClientGone
from functions.execution import INLINE_BODY_BYTES, Runner
from functions.front import V1Codec
from functions.metrics import ModelMetrics
from functions.model import Call, Item, JoinableModel
from functions.repository import Entry, Repository
from functions.settings import Settings
from tests.fakes_functions import until
from tests.fakes_http2 import Client, echo_server, message


def collect(into: list[Any]) -> Any:
    return lambda result, error: into.append(type(error) if error is not None else result)


def test_a_queued_call_is_dropped_and_a_running_one_left() -> None:
    async def run() -> None:
        runner = Runner("m", threads=1, inline=False, timeout_s=10)
        gate, began, seen = threading.Event(), threading.Event(), []
        ran: list[str] = []

        def hold() -> str:
            began.set()
            gate.wait(20)
            return "held"

        running = runner.submit(hold, (), collect(seen))
        await asyncio.to_thread(began.wait, 20)
        queued = runner.submit(ran.append, ("queued",), collect(seen))
        later = runner.submit(lambda: "later", (), collect(seen))
        runner.drop(running)
        assert seen == []
        runner.drop(queued)
        runner.drop(queued)
        assert seen == [ClientGone]
        assert runner.in_flight == 2
        assert queued.arguments == ()  # the time limit's list keeps no body
        gate.set()
        await until(lambda: len(seen) == 3)
        assert seen[1:] == ["held", "later"]
        assert ran == []
        runner.drop(later)
        assert len(seen) == 3
        assert runner.in_flight == 0
        runner.close()

    asyncio.run(run())


def test_calls_dropped_while_threads_take_them_are_over_once() -> None:
    async def run() -> None:
        runner = Runner("m", threads=4, inline=False, timeout_s=0)
        seen: list[Any] = []
        count = 2000
        for start in range(0, count, 50):
            jobs = [runner.submit(int, (), collect(seen)) for _ in range(50)]
            for job in jobs[start % 2 :: 2]:
                runner.drop(job)
            await asyncio.sleep(0)
        await until(lambda: len(seen) == count and not runner.in_flight)
        assert set(seen) <= {0, ClientGone}
        runner.close()

    asyncio.run(run())


def test_a_task_is_cancelled_even_before_its_first_step() -> None:
    async def run() -> None:
        runner = Runner("m", threads=1, inline=False, timeout_s=10)
        seen: list[Any] = []
        went: list[str] = []

        async def hook() -> None:
            try:
                await asyncio.sleep(20)
            except asyncio.CancelledError:
                went.append("cancelled")
                raise

        first = runner.spawn(hook(), collect(seen))
        runner.cancel(first)  # in the same turn of the loop
        await until(lambda: seen)
        second = runner.spawn(hook(), collect(seen))
        await asyncio.sleep(0.01)
        runner.cancel(second)
        await until(lambda: len(seen) == 2)
        assert seen == [ClientGone, ClientGone]
        assert went == ["cancelled", "cancelled"]
        assert runner.in_flight == 0

        async def cancels_itself() -> None:
            raise asyncio.CancelledError

        runner.spawn(cancels_itself(), collect(seen))
        await until(lambda: len(seen) == 3)
        assert seen[2] is RuntimeError  # a fault of the hook: its client is still there
        runner.close()

    asyncio.run(run())


def test_a_sync_part_of_a_cancelled_task_leaves_the_queue() -> None:
    async def run() -> None:
        runner = Runner("m", threads=1, inline=False, timeout_s=10)
        gate, began, seen = threading.Event(), threading.Event(), []
        ran: list[int] = []
        runner.submit(lambda: began.set() or gate.wait(20), (), collect(seen))
        await asyncio.to_thread(began.wait, 20)
        task = runner.spawn(runner.offload(ran.append, (1,)), collect(seen))
        await asyncio.sleep(0)
        runner.cancel(task)
        await until(lambda: seen == [ClientGone])
        gate.set()
        await until(lambda: len(seen) == 2)
        assert ran == []
        assert runner.in_flight == 0
        runner.close()

    asyncio.run(run())


class Adder(JoinableModel):
    """Adds one; each call waits for the gate."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.gate = threading.Event()

    def run(self, items: list[Item]) -> None:
        self.calls.append([item.data for item in items])
        self.gate.wait(20)
        for item in items:
            item.output = item.data + 1

    def answer(self, item: Item) -> Any:
        return item.output


def joined(test: Any) -> None:
    """`test(batcher, model, add)` with one thread and batches of up to three; `add(n)` gives the
    call and where its answer will be."""

    async def run() -> None:
        model = Adder()
        runner = Runner("m", threads=1, inline=False, timeout_s=10)
        batcher = Batcher(model, runner, max_size=3, max_latency_s=30, metrics=ModelMetrics())

        def add(number: int) -> tuple[Call, list[Any]]:
            call, seen = Call({}), []
            item = Item("predict", None, call, count=1, key="k", data=number)
            batcher.add(item, 10, model.answer, collect(seen))
            return call, seen

        await test(runner, model, add)
        assert runner.in_flight == 0
        runner.close()

    asyncio.run(run())


def test_a_member_leaves_while_its_batch_gathers() -> None:
    async def test(runner: Runner, model: Adder, add: Any) -> None:
        first = add(0)
        await until(lambda: model.calls == [[0]])
        (call, gone), stays, (last, also_gone) = add(1), add(2), add(3)  # full: submitted
        gathering, (alone, left) = add(4), add(5)
        call.abandon()
        last.abandon()
        alone.abandon()
        assert [gone, also_gone, left] == [[ClientGone]] * 3
        model.gate.set()
        await until(lambda: stays[1] and gathering[1])
        assert (first[1], stays[1], gathering[1]) == ([1], [3], [5])
        assert model.calls == [[0], [2], [4]]
        call.abandon()
        assert gone == [ClientGone]

    joined(test)


def test_a_batch_that_all_have_left_is_not_run_and_a_running_one_is() -> None:
    async def test(runner: Runner, model: Adder, add: Any) -> None:
        running, result = add(0)
        await until(lambda: model.calls == [[0]])
        waiting = [add(n) for n in (1, 2, 3)]
        gathering = add(4)
        for call, _ in [*waiting, gathering]:
            call.abandon()
        assert runner.in_flight == 1
        running.abandon()
        assert result == []
        after = add(5)
        model.gate.set()
        await until(lambda: result and after[1])
        assert (result, after[1]) == ([1], [6])
        assert model.calls == [[0], [5]]

    joined(test)


HOOKS = {
    "sync": ("def predict(body):\n    return body\n", ()),
    "async": (
        "import asyncio\nasync def predict(body):\n    await asyncio.sleep(60)\n", ()
    ),
    "joined": ("def predict(body):\n    return body\n", ("--max-batch-size", "8")),
}  # fmt: skip


@pytest.mark.parametrize("size", [20, INLINE_BODY_BYTES + 20])
@pytest.mark.parametrize("kind", HOOKS)
def test_the_engine_gets_everything_back(tmp_path: Path, kind: str, size: int) -> None:
    source, more = HOOKS[kind]
    (tmp_path / "model.py").write_text(source)

    async def drive(engine: Engine, entry: Entry) -> None:
        codec = V1Codec(engine.repository.settings)
        route = SimpleNamespace(model="model", version="", verb="predict", headers={}, is_json=True)
        body = b'{"instances": [4]}'.ljust(size)
        assert entry.runner is not None
        for turns in range(4):  # given up at once, and a little later
            seen: list[Any] = []
            calls = [Call({}) for _ in range(20)]
            for call in calls:
                engine.execute(entry, codec, route, body, size, call, collect(seen))
            for _ in range(turns):
                await asyncio.sleep(0)
            for call in calls:
                call.abandon()
                call.abandon()
            await until(lambda seen=seen: len(seen) == 20)
            if kind == "async":
                assert set(seen) == {ClientGone}
            await until(lambda: engine.in_flight == 0 and entry.runner.is_idle)
            assert {call.give_up for call in calls} == {None}

    async def run() -> None:
        repository = Repository(Settings.from_env({}, ["--model-dir", str(tmp_path), *more]))
        await repository.load_all()
        await drive(Engine(repository), repository.ready_entry("model"))
        repository.close()

    asyncio.run(run())


def test_a_method_reset_in_the_packet_it_came_in_is_handed_back() -> None:
    async def run() -> None:
        went: list[str] = []

        async def sleep(request: Any) -> Any:
            try:
                await asyncio.sleep(20)
            finally:
                went.append("ended")

        method = grpc_server.coroutine(sleep, oip.ServerLiveRequest)
        client = Client(echo_server(Sleep=method))
        for _ in range(3):
            client.h2.reset_stream(client.ask(message(b""), "/p.S/Sleep"))
        client.exchange()
        assert client.connection.at_work == 3
        await until(lambda: client.connection.at_work == 0)
        assert went == ["ended"] * 3

    asyncio.run(run())


def test_threads_that_ask_the_predictor_are_told() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        asked, cancelled = asyncio.Event(), asyncio.Event()

        async def remote(payload: Any, call: Call, headers: Any) -> Any:
            asked.set()
            try:
                await asyncio.sleep(20)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        given = context.Context(Call({}), "m", "predict", remote, loop)
        waiting = loop.run_in_executor(None, given.predict_blocking, {})
        async with asyncio.timeout(20):
            await asked.wait()
            context.leave(given)
            with pytest.raises(ClientGone):
                await waiting
            await cancelled.wait()
            with pytest.raises(ClientGone):  # and nobody is asked once more
                await loop.run_in_executor(None, given.predict_blocking, {})

    asyncio.run(run())
