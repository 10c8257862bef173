"""Carrying out one request against one model, for every protocol: decode -> model -> encode.

Where the work happens is decided here: on the loop, on a model thread, as a task, or in a batch. A
protocol gives a `Codec` and a `done` callback; it gets the encoded answer or the exception, on the
loop.
"""

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from . import answers
from .errors import FunctionsError, Overloaded
from .execution import INLINE_BODY_BYTES, Done, Runner
from .model import Call, Item, ServedModel

if TYPE_CHECKING:
    from .repository import Entry, Repository
    from .settings import Settings


IN_PLACE_BODY_BYTES = 16 << 20
"""What is pointed at may still have to be copied for the answer: not more of it on the loop."""


class Codec:
    """One protocol's way from bytes (or a message) to a model and back.

    `route` is the protocol's own description of the request's head; it has at least `model`,
    `version` and `verb`.
    """

    name = ""
    """Label of the metrics."""
    joins = True
    """Whether requests of this protocol may be joined into one call of the model."""

    def __init__(self, settings: "Settings") -> None:
        self.settings = settings

    def reads_in_place(self, body: Any, route: Any) -> bool:
        """Decoding this body is hardly more than pointing at its parts."""
        return False

    def writes_in_place(self, result: Any, call: Call) -> bool:
        """Nor is encoding this result."""
        return False

    def refuse(self, error: FunctionsError) -> Any:
        """The answer to a request that failed; the flat `{"error": ...}` unless a protocol
        differs."""
        return answers.from_error(error)

    def decode(self, body: Any, route: Any, call: Call) -> Any:
        raise NotImplementedError

    def apply(self, model: ServedModel, route: Any, payload: Any, call: Call) -> Any:
        raise NotImplementedError

    def encode(self, result: Any, route: Any, call: Call) -> Any:
        raise NotImplementedError


class Engine:
    """Executes requests; counts them and refuses those over the limit."""

    def __init__(self, repository: "Repository") -> None:
        self.repository = repository
        self.max_in_flight = repository.settings.max_concurrency
        self.in_flight = 0

    def is_inline(self, entry: "Entry", size: int) -> bool:
        """May this request be answered on the loop, at once? Raises Overloaded."""
        if self.max_in_flight and self.in_flight >= self.max_in_flight:
            raise Overloaded(f"{self.in_flight} requests are in progress")
        model, runner = entry.model, entry.runner
        assert model is not None
        assert runner is not None
        return entry.batcher is None and not model.is_async and runner.inline_for(size)

    @staticmethod
    def answer(entry: "Entry", codec: Codec, route: Any, body: Any, call: Call) -> Any:
        """The answer, on the loop. Raises what the model raises."""
        model: Any = entry.model
        since = time.perf_counter()
        payload = codec.decode(body, route, call)
        encoded = codec.encode(codec.apply(model, route, payload, call), route, call)
        assert entry.runner is not None
        entry.runner.measured(time.perf_counter() - since)
        return encoded

    def execute(
        self, entry: "Entry", codec: Codec, route: Any, body: Any, size: int, call: Call, done: Done
    ) -> None:
        """Answer one request; `size` is its number of bytes. Raises Overloaded.

        `done(answer, None)` or `done(None, exception)` is called on the loop, perhaps before this
        returns. After `call.abandon()` that is soon, with ClientGone, unless a thread is at work.
        """
        model, runner, batcher = entry.model, entry.runner, entry.batcher
        assert model is not None
        assert runner is not None
        if self.is_inline(entry, size):
            try:
                answer = self.answer(entry, codec, route, body, call)
            except Exception as error:  # the request is owned here
                done(None, error)
                return
            done(answer, None)
            return
        self.in_flight += 1

        def finished(answer: Any, error: BaseException | None) -> None:
            self.in_flight -= 1
            call.give_up = None
            done(answer, error)

        def work() -> Any:
            payload = codec.decode(body, route, call)
            return codec.encode(codec.apply(model, route, payload, call), route, call)

        if batcher is not None and codec.joins:
            self._join(entry, codec, route, body, size, call, finished)
            return
        try:
            if model.is_async:
                task = runner.spawn(_work_async(model, body, size, route, call, codec), finished)
                call.give_up = partial(runner.cancel, task)
            else:
                queued = time.perf_counter()

                def timed() -> Any:
                    since = time.perf_counter()
                    call.timings["queue"] = since - queued
                    answer = work()
                    runner.measured(time.perf_counter() - since)
                    return answer

                job = runner.submit(timed, (), finished)
                call.give_up = partial(runner.drop, job)
        except FunctionsError:
            self.in_flight -= 1
            raise

    @staticmethod
    def _join(
        entry: "Entry", codec: Codec, route: Any, body: Any, size: int, call: Call, done: Done
    ) -> None:
        """Hand a request to the batcher; large bodies are decoded off the loop first."""
        model: Any = entry.model
        batcher, runner = entry.batcher, entry.runner
        assert batcher is not None
        assert isinstance(runner, Runner)
        runner.held += 1  # the model may be replaced meanwhile: it stays for this request

        def release(answer: Any, error: BaseException | None) -> None:
            runner.held -= 1
            done(answer, error)

        def prepare() -> Item:
            payload = codec.decode(body, route, call)
            item: Item = model.prepare(route.verb, payload, call)
            return item

        def finish(item: Item) -> Any:
            return codec.encode(model.answer(item), route, call)

        def add(item: Any, error: BaseException | None) -> None:
            if error is not None:
                release(None, error)
                return
            try:
                batcher.add(item, size, finish, release)
            except FunctionsError as refused:
                release(None, refused)

        if size > INLINE_BODY_BYTES:
            task = runner.beside(prepare, add)
            call.give_up = partial(runner.cancel, task)
            return
        try:
            item = prepare()
        except Exception as error:  # the request is owned here
            release(None, error)
            return
        add(item, None)


async def _work_async(
    model: ServedModel, body: Any, size: int, route: Any, call: Call, codec: Codec
) -> Any:
    """Large bodies are decoded, and answers to them encoded, beside the loop; unless that is only
    to point at them."""
    is_small, is_huge = size <= INLINE_BODY_BYTES, size > IN_PLACE_BODY_BYTES
    if is_small or (not is_huge and codec.reads_in_place(body, route)):
        payload = codec.decode(body, route, call)
    else:
        payload = await asyncio.to_thread(codec.decode, body, route, call)
    result = await codec.apply(model, route, payload, call)
    if is_small or (not is_huge and codec.writes_in_place(result, call)):
        return codec.encode(result, route, call)
    return await asyncio.to_thread(codec.encode, result, route, call)
