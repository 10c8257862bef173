"""Adaptive batching: requests that are there at the same time share one model call.

The batcher never makes a request wait while the model is idle. Whatever has arrived by the end of
one turn of the event loop runs at once; requests that arrive while a batch runs are gathered, and
run when it is done, when they fill `max_size`, or when the oldest has waited `max_latency_s`,
whichever comes first. So under light load a batch is one request, and under heavy load its size
follows the load.

Only requests whose items have equal keys (same tensors, types and trailing dimensions) are joined.
When a joined call fails, each of its requests is run alone: one bad instance does not fail its
neighbours. A request that nobody waits for any more leaves its batch, as long as that has not
begun.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from .errors import ClientGone
from .execution import Done, Job, Runner
from .model import Item, JoinableModel

if TYPE_CHECKING:
    from .metrics import ModelMetrics

Finish = Callable[[Item], Any]
"""Item with output -> its answer; runs where the batch ran."""


class _Waiting:
    """One request in a group."""

    __slots__ = ("added_at", "answer", "body_bytes", "done", "error", "finish", "group", "item")

    def __init__(self, item: Item, body_bytes: int, finish: Finish, done: Done) -> None:
        self.item = item
        self.body_bytes = body_bytes
        self.finish = finish
        self.done = done
        self.added_at = time.perf_counter()
        self.answer: Any = None
        self.error: BaseException | None = None
        self.group: _Group | None = None


class _Group:
    """Requests with equal keys: waiting to be joined, then one batch."""

    __slots__ = ("begun", "count", "job", "key", "timer", "waiting")

    def __init__(self, key: Any = None) -> None:
        self.key = key
        self.waiting: list[_Waiting] = []
        self.count = 0
        self.timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self.job: Job | None = None
        """Its call, waiting for a thread or on one."""
        self.begun = False

    def add(self, waiting: _Waiting) -> None:
        waiting.group = self
        self.waiting.append(waiting)
        self.count += waiting.item.count

    def end(self, error: BaseException | None = None) -> None:
        """Hand out the answers, or this one fault."""
        for one in self.waiting:
            one.group = None  # no cycle, which only the garbage collector would find
            one.done(one.answer, error or one.error)


class Batcher:
    """Joins the requests of one model. All methods run on the loop, except `_execute`."""

    def __init__(
        self,
        model: JoinableModel,
        runner: Runner,
        *,
        max_size: int,
        max_latency_s: float,
        metrics: "ModelMetrics",
    ) -> None:
        self._model = model
        self._runner = runner
        self._max_size = max_size
        self._max_latency_s = max_latency_s
        self._metrics = metrics
        self._groups: dict[Any, _Group] = {}
        self._running = 0

    def add(self, item: Item, body_bytes: int, finish: Finish, done: Done) -> None:
        """Queue one prepared request. `done(answer, error)` is called on the loop."""
        waiting = _Waiting(item, body_bytes, finish, done)
        item.call.give_up = partial(self._leave, waiting)
        if item.key is None or item.count >= self._max_size:
            alone = _Group()
            alone.add(waiting)
            self._start(alone)
            return
        key = (item.kind == "infer", item.key)
        group = self._groups.get(key)
        if group is not None and group.count + item.count > self._max_size:
            self._flush(key)
            group = None
        if group is None:
            group = self._groups[key] = _Group(key)
            loop = self._runner.loop
            if self._running < self._runner.threads:
                group.timer = loop.call_soon(self._flush, key)
            else:
                group.timer = loop.call_later(self._max_latency_s, self._flush, key)
        group.add(waiting)
        if group.count >= self._max_size:
            self._flush(key)

    def _flush(self, key: Any) -> None:
        group = self._groups.pop(key, None)
        if group is None:
            return
        if group.timer is not None:
            group.timer.cancel()
        self._start(group)

    def _leave(self, one: _Waiting) -> None:
        """Nobody waits for this one; its neighbours stay."""
        group = one.group
        if group is None or group.begun:
            return
        # Should its thread begin at this moment, it is computed all the same, for nobody.
        one.group = None
        group.waiting.remove(one)
        group.count -= one.item.count
        if not group.waiting:
            if group.job is not None:
                self._runner.drop(group.job)
            elif self._groups.pop(group.key, None) is not None and group.timer is not None:
                group.timer.cancel()
        one.done(None, ClientGone())

    def _start(self, group: _Group) -> None:
        waiting = group.waiting
        self._metrics.batches.observe(group.count)
        if self._runner.inline_for(max(w.body_bytes for w in waiting)):
            group.begun = True
            since = time.perf_counter()
            self._execute(waiting)
            # What matters for inline execution is how long the loop was held.
            self._runner.measured(time.perf_counter() - since)
            group.end()
            return
        self._running += 1

        def run() -> None:
            group.begun = True
            since = time.perf_counter()
            self._execute(list(waiting))
            self._runner.measured(time.perf_counter() - since)

        def done(_: Any, error: BaseException | None) -> None:
            self._running -= 1
            group.end(error)
            if self._groups and self._running < self._runner.threads:
                self._flush(next(iter(self._groups)))

        try:
            group.job = self._runner.submit(run, (), done)
        except Exception as error:  # every request of the batch gets its answer
            self._running -= 1
            group.end(error)

    def _execute(self, waiting: list[_Waiting]) -> None:
        """Run one batch; never raises. On the loop or on a model thread."""
        if not waiting:  # all have left
            return
        started = time.perf_counter()
        for one in waiting:
            one.item.call.timings["queue"] = started - one.added_at
        items = [one.item for one in waiting]
        try:
            self._model.run(items)
        except BaseException as error:  # sys.exit in user code, too
            if len(items) == 1:
                items[0].error = error
            else:
                for item in items:
                    self._run_alone(item)
        spent = time.perf_counter() - started
        for one in waiting:
            timings = one.item.call.timings
            if "predict" not in timings and "explain" not in timings:  # the model did not say
                timings["predict"] = spent
            if one.item.error is not None:
                one.error = one.item.error
                continue
            try:
                one.answer = one.finish(one.item)
            except Exception as error:
                one.error = error

    def _run_alone(self, item: Item) -> None:
        try:
            self._model.run([item])
        except BaseException as error:
            item.error = error
