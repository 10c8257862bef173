"""Where a model call runs: on the event loop, as a task, or on the model's own threads.

* Sync user code runs on the model's threads, so that it never blocks a health check.
* Async user code runs as a task on the loop.
* Library code of short, measured duration (`ServedModel.inline`) runs on the loop itself: handing a
  0.2 ms call to a thread and back costs about as much again, and the interpreter lock would be
  contended. As soon as the measured duration passes `INLINE_LIMIT_S`, calls go to the threads.

A call that passes its time limit is answered with 504 while its thread is still busy; when every
thread is stuck like this the model is `wedged`, and the process asks to be replaced.

A call whose client has gone ends where that can be done: one that waits for a thread is dropped, a
task is cancelled. What runs on a thread comes back as ever.
"""

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from . import forks
from .errors import ClientGone, FunctionsError, ModelTimeout, Overloaded

logger = logging.getLogger(__name__)

INLINE_LIMIT_S = 0.002
"""A call longer than this does not run on the loop: health checks wait at most about this long."""

INLINE_BODY_BYTES = 65536
"""Nor does one with a larger body, whose decoding alone would take milliseconds."""

Future = asyncio.Future[Any]

Done = Callable[[Any, BaseException | None], None]
"""Called on the loop, once: (result, None) or (None, the exception)."""


class Job:
    """One call: `function(*arguments)`, then `done` on the loop."""

    __slots__ = (
        "arguments",
        "counted",
        "deadline",
        "done",
        "error",
        "finished",
        "function",
        "queued_at",
        "result",
    )

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], done: Done
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.done = done
        self.queued_at = time.perf_counter()
        self.deadline = 0.0
        self.result: Any = None
        self.error: BaseException | None = None
        self.finished = False
        self.counted = 1
        """Its share of `Runner.in_flight`."""

    def release(self) -> None:
        """Keep nothing alive: it may stand in line for its time limit for a while."""
        self.function = self.done = _released
        self.arguments = ()
        self.result = self.error = None


def _released(*_: Any) -> None:
    """What is left of a call that is over."""


class Runner:
    """Runs the calls of one model. All methods are for the loop's thread, except `_work`."""

    def __init__(
        self,
        name: str,
        *,
        threads: int,
        inline: bool,
        timeout_s: float,
        max_waiting: int = 0,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.name = name
        self.threads = max(1, threads)
        self.timeout_s = timeout_s
        self.max_waiting = max_waiting
        self.loop = loop or asyncio.get_running_loop()
        self.in_flight = 0
        self.held = 0
        """Requests that are on their way to a call: being decoded, or waiting to be joined."""
        self._inline = inline
        self._inline_s = 0.0
        self._queue: deque[Job] = deque()
        # A count of calls to take: a semaphore in C, where `threading`'s is Python.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._started = 0
        self._stuck = 0
        self._closing = False
        self._finished: deque[Job] = deque()
        self._scheduled = False
        self._pending: deque[Job] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- choosing ------------------------------------------------------------------------------

    def inline_for(self, body_bytes: int) -> bool:
        """May a call with this much input run on the loop right now?"""
        return self._inline and body_bytes <= INLINE_BODY_BYTES and self._inline_s < INLINE_LIMIT_S

    def measured(self, seconds: float) -> None:
        """Feed the duration of a call, wherever it ran: a moving average.

        The first calls of a library are slow (imports, caches); after a few quick ones on the
        threads the model is back on the loop. Also called on model threads: the last writer wins,
        which is fine.
        """
        # One outlier (a preempted process) must not count for more than a few calls.
        self._inline_s += (min(seconds, 4 * INLINE_LIMIT_S) - self._inline_s) * 0.2

    @property
    def is_idle(self) -> bool:
        """Nobody waits for an answer, no call is under way: it may be closed."""
        return not self.in_flight and not self.held

    @property
    def wedged(self) -> bool:
        """Every thread is busy with a call that has already been given up."""
        return self._stuck >= self.threads

    # --- threads -------------------------------------------------------------------------------

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...], done: Done) -> Job:
        """Run on a model thread. Raises Overloaded when too many calls wait already."""
        if self.max_waiting and self.in_flight >= self.max_waiting:
            raise Overloaded(f"{self.in_flight} requests are waiting for model {self.name}")
        job = Job(function, arguments, done)
        self._enqueue(job)
        return job

    def drop(self, job: Job) -> None:
        """Nobody waits for this call: unless a thread has it already, it is over (ClientGone)."""
        if self._take_back(job):
            job.finished = True
            self.in_flight -= job.counted
            job.done(None, ClientGone())
            job.release()

    def _take_back(self, job: Job) -> bool:
        """Take a call out of the queue; False when a thread was quicker. (One of the two gets it:
        jobs are compared by identity, so this is one step for the interpreter's lock.)"""
        try:
            self._queue.remove(job)
        except ValueError:
            return False
        return True

    async def offload(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Run a sync part of a `spawn`ed call on a model thread, and wait for its result.

        The call is counted already, so this is not refused. The time limit holds for it too.
        """
        future: Future = self.loop.create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if future.done():
                return  # the call was given up
            if error is None:
                future.set_result(result)
            elif isinstance(error, Exception) and not isinstance(error, StopIteration):
                future.set_exception(error)
            else:  # an event loop would take these for its own
                wrapped = RuntimeError(f"{type(error).__name__} from a hook: {error}")
                wrapped.__cause__ = error
                future.set_exception(wrapped)

        job = Job(function, arguments, done)
        job.counted = 0
        self._enqueue(job)
        try:
            return await future
        except asyncio.CancelledError:
            self.drop(job)
            raise

    def _enqueue(self, job: Job) -> None:
        self.in_flight += job.counted
        if self.timeout_s:
            job.deadline = self.loop.time() + self.timeout_s
            self._pending.append(job)
            if self._timer is None:
                self._timer = self.loop.call_later(min(0.1, self.timeout_s), self._expire)
        self._queue.append(job)
        wanted = self._stuck + max(self.in_flight, len(self._queue))
        if self._started < min(self.threads, wanted):
            self._start_thread()
        self._wake.put(None)

    def beside(self, function: Callable[[], Any], done: Done) -> "asyncio.Task[None]":
        """Run on a thread that is not the model's: decoding beside a call that is under way."""

        async def run() -> None:
            result: Any = None
            error: BaseException | None = None
            try:
                result = await asyncio.to_thread(function)
            except asyncio.CancelledError:
                if self._closing:
                    raise
                error = ClientGone()
            except Exception as exc:  # the request is owned here
                error = exc
            done(result, error)

        return self._keep(run())

    def _start_thread(self) -> None:
        self._started += 1
        thread = threading.Thread(
            target=self._work, name=f"model-{self.name}-{self._started}", daemon=True
        )
        thread.start()

    def _work(self) -> None:
        while True:
            self._wake.get()
            if self._closing:
                return
            try:
                job = self._queue.popleft()
            except IndexError:
                continue
            try:
                job.result = job.function(*job.arguments)
            except BaseException as exc:
                job.error = exc
            forks.end_if_child()
            self._finished.append(job)
            if not self._scheduled:
                self._scheduled = True
                try:
                    self.loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop is closed: the process is on its way out
                    return

    def _deliver(self) -> None:
        """On the loop: hand out everything that finished since the last time."""
        self._scheduled = False
        while self._finished:
            job = self._finished.popleft()
            self.in_flight -= job.counted
            if job.finished:
                self._stuck -= 1
                logger.warning("a call of model %s came back after its time limit", self.name)
                continue
            job.finished = True
            job.done(job.result, job.error)
            job.release()

    def _expire(self) -> None:
        """Give up calls whose time is over. Time limits are equal, so the oldest come first."""
        self._timer = None
        now = self.loop.time()
        pending = self._pending
        while pending and (pending[0].finished or pending[0].deadline <= now):
            job = pending.popleft()
            if job.finished:
                continue
            job.finished = True
            if self._take_back(job):
                self.in_flight -= job.counted
            else:
                self._stuck += 1
            logger.error("model %s did not answer within %g s", self.name, self.timeout_s)
            job.done(None, ModelTimeout(self.name, self.timeout_s))
        if pending:
            wait = max(0.001, min(0.1, pending[0].deadline - now))
            self._timer = self.loop.call_later(wait, self._expire)

    # --- tasks ---------------------------------------------------------------------------------

    def spawn(self, awaitable: Awaitable[Any], done: Done) -> "asyncio.Task[None]":
        """Run async user code as a task, under the same time limit."""
        if self.max_waiting and self.in_flight >= self.max_waiting:
            if asyncio.iscoroutine(awaitable):
                awaitable.close()
            raise Overloaded(f"{self.in_flight} requests are waiting for model {self.name}")
        self.in_flight += 1
        return self._keep(self._run(awaitable, done))

    def cancel(self, task: "asyncio.Task[None]") -> None:
        """Nobody waits for this task of ours: it ends as soon as its code lets it (ClientGone)."""
        # Behind its first step, which is due: what never begins could not say that it ended.
        self.loop.call_soon(task.cancel)

    def _keep(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """A task that is held on to until it ends."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, awaitable: Awaitable[Any], done: Done) -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            async with asyncio.timeout(self.timeout_s or None) as limit:
                result = await awaitable
        except TimeoutError as exc:
            error = ModelTimeout(self.name, self.timeout_s) if limit.expired() else exc
        except asyncio.CancelledError as exc:
            if self._closing:
                raise
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                error = ClientGone()
            else:
                error = RuntimeError("a hook was cancelled: something that it waited for was")
                error.__cause__ = exc
        except BaseException as exc:  # the request is owned here; `faults.classify` decides
            error = exc
        finally:
            self.in_flight -= 1
        forks.end_if_child()
        done(result, error)

    def close(self) -> None:
        """Stop the threads once they are idle; waiting calls are answered as given up."""
        self._closing = True
        for _ in range(self._started):
            self._wake.put(None)
        for task in list(self._tasks):
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        while self._queue:
            job = self._queue.popleft()
            job.finished = True
            self.in_flight -= job.counted
            job.done(None, FunctionsError(f"model {self.name} is being unloaded"))
