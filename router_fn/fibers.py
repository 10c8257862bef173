"""Coroutines without an event loop's tasks: what drives the graph engine.

A request on the hot path crosses a handful of waiting points. An asyncio task and a future for each
would cost more than the work between them, so the engine's coroutines are driven directly: whoever
brings a value (`Wait.resolve`) runs the coroutine on to its next waiting point, in the same call.

* A `Wait` is a value that comes later: resolved, failed or cancelled exactly once; at most one
  listener.
* A `Fiber` is a coroutine being driven. It is itself a `Wait`, so fibers can be awaited and raced.

No I/O, no clock, no asyncio: tests drive fibers with plain function calls. Invariants: a coroutine
awaits only `Wait`s; nothing here is thread-safe; cancelling a fiber cancels what it waits for, then
closes its coroutine (`finally` blocks run, and must not await).

`Wait` and `Fiber` have a twin in C (`_hot.c`; see `functions.wire.native`).
"""

from collections.abc import Coroutine, Generator, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from functions.wire import native

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_PENDING, _DONE, _FAILED, _CANCELLED = range(4)


class Listener(Protocol):
    """Whoever waits: called once, when the value or the error is there."""

    def resume(self, wait: "Wait[Any]", /) -> None: ...


class Wait(Generic[T]):
    """A value that comes later. Await it in a fiber, or attach a listener."""

    # Class-level defaults: making one costs nothing but the object.
    _state = _PENDING
    _listener: Listener | None = None
    _value: object = None

    @property
    def pending(self) -> bool:
        return self._state == _PENDING

    @property
    def is_error(self) -> bool:
        return self._state == _FAILED

    @property
    def error(self) -> BaseException:
        return cast("BaseException", self._value)

    def result(self) -> T:
        """The value, or its error raised."""
        if self._state == _FAILED:
            raise cast("BaseException", self._value)
        return cast("T", self._value)

    def attach(self, listener: Listener, /) -> None:
        """Tell `listener` when the value is there; at once, if it already is."""
        if self._state == _PENDING:
            self._listener = listener
        else:
            listener.resume(self)

    def detach(self) -> None:
        self._listener = None

    def resolve(self, value: T) -> None:
        if self._state == _PENDING:
            self._state = _DONE
            self._value = value
            listener = self._listener
            if listener is not None:
                self._listener = None  # it may hold us: no cycle for the collector to find
                listener.resume(self)

    def fail(self, error: BaseException) -> None:
        if self._state == _PENDING:
            self._state = _FAILED
            self._value = error
            listener = self._listener
            if listener is not None:
                self._listener = None
                listener.resume(self)

    def cancel(self) -> None:
        """Nobody wants the value any more. Subclasses release what produces it."""
        if self._state == _PENDING:
            self._state = _CANCELLED
            self._listener = None

    def __await__(self) -> Generator["Wait[T]", None, T]:
        if self._state == _PENDING:
            yield self
        if self._state == _FAILED:
            raise cast("BaseException", self._value)
        return cast("T", self._value)


class Fiber(Wait[T]):
    """A coroutine being driven from value to value. Runs up to its first waiting point when
    made."""

    _waiting: Wait[Any] | None = None

    def __init__(self, coroutine: Coroutine[Any, Any, T], /) -> None:
        self._coroutine = coroutine
        self.resume(None)

    def resume(self, wait: Wait[Any] | None) -> None:
        """The awaited value is there: run on. An error is raised inside, by `Wait.__await__`."""
        self._waiting = None
        try:
            waiting = self._coroutine.send(None)
        except StopIteration as stop:
            self.resolve(stop.value)
        except Exception as error:
            # Owned here on behalf of whoever awaits this fiber; re-raised there.
            self.fail(error)
        else:
            self._waiting = waiting
            waiting.attach(self)

    def cancel(self) -> None:
        if self._state == _PENDING:
            super().cancel()
            waiting, self._waiting = self._waiting, None
            if waiting is not None:
                waiting.detach()
                waiting.cancel()
                self._coroutine.close()


if not TYPE_CHECKING:
    native.take(globals(), "router_fn._hot", ("Wait", "Fiber"))


class FirstOf(Wait[int]):
    """Resolves with the index of the first of several waits to be through, well or not."""

    def __init__(self, waits: Sequence[Wait[Any]]) -> None:
        self._waits = waits
        for wait in waits:
            wait.attach(self)

    def resume(self, wait: Wait[Any]) -> None:
        for index, one in enumerate(self._waits):
            if one is wait:
                self.resolve(index)
                return

    def cancel(self) -> None:
        super().cancel()
        for wait in self._waits:
            wait.detach()
            wait.cancel()


def cancel_all(waits: Sequence[Wait[Any]]) -> None:
    """Give up every wait that is still pending."""
    for wait in waits:
        if wait.pending:
            wait.detach()
            wait.cancel()
