"""What a loaded model says of itself: KServe's `ready` and `healthy()`.

`ready` is an attribute that user code may set to false, and back, at any time: the model is not
called meanwhile. A class with a `healthy` of its own answers probes by that instead, as in KServe;
it is asked with a time limit, one question at a time, whose answer all probes share.
"""

import asyncio
import contextlib
import inspect
import logging
from typing import Any

from . import forks, hooks

logger = logging.getLogger(__name__)

_RAISED = "healthy() raised an exception: the log has it"


class Health:
    """One model's word on itself. For the event loop, but for `is_ready`."""

    def __init__(self, target: Any, name: str) -> None:
        """`target`: the user's object, loaded. A `ready` that is still false becomes true, as
        KServe's own `load` makes it; what is computed stays as it is."""
        self._target = target
        self._name = name
        self._hook = hooks.find(target, "healthy")
        self._is_async = self._hook is not None and hooks.is_async(self._hook)
        self._asking: asyncio.Task[tuple[str, BaseException | None]] | None = None
        self.reason = ""
        """Why it was not ready when that was last found out."""
        if getattr(target, "ready", None) is False:
            with contextlib.suppress(AttributeError):
                target.ready = True

    @property
    def is_ready(self) -> bool:
        """False when `ready` says that the model is not to be called. From any thread."""
        if self._hook is not None:
            return True
        try:
            is_ready = getattr(self._target, "ready", True) is not False
        except Exception as exc:  # where it is computed
            self._note("its `ready` raised an exception: the log has it", exc)
            return False
        if is_ready == bool(self.reason):
            self._note("" if is_ready else "its `ready` is false")
        return is_ready

    @property
    def has_hook(self) -> bool:
        """It has to be asked."""
        return self._hook is not None

    async def problem(self, limit_s: float) -> str:
        """Why the model is not ready; nothing when it is. Raises nothing; a reason that is new is
        logged."""
        if self._hook is None:
            return "" if self.is_ready else self.reason
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask())
            self._asking.add_done_callback(self._asked)
        asking = self._asking
        await asyncio.wait({asking}, timeout=limit_s)
        if asking.done() and not asking.cancelled():
            self._note(*asking.result())
        else:
            if self._is_async:
                asking.cancel()  # a thread cannot be stopped: the next probe waits for it, too
            self._note(f"healthy() did not answer within {limit_s:g} s")
        return self.reason

    async def _ask(self) -> tuple[str, BaseException | None]:
        """The reason, and the exception behind it."""
        try:
            if self._is_async:
                result = self._called()
            else:
                result = await asyncio.to_thread(self._called)
            if inspect.isawaitable(result):
                result = await result
            if isinstance(result, _Raised):
                return _RAISED, result.error
            return "" if result else f"healthy() returned {result!r:.40}", None
        except BaseException as exc:  # SystemExit, too: an event loop would stop
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # its time is over
            return _RAISED, exc

    def _called(self) -> Any:
        assert self._hook is not None
        try:
            return self._hook()
        except BaseException as exc:  # some have a meaning of their own for what carries them over
            return _Raised(exc)
        finally:
            forks.end_if_child()

    def _asked(self, task: "asyncio.Task[Any]") -> None:
        if self._asking is task:
            self._asking = None

    def _note(self, reason: str, error: BaseException | None = None) -> None:
        """Log what is new."""
        known, self.reason = self.reason, reason
        if reason == known:
            return
        if reason:
            extra = {"model": self._name}
            logger.warning(
                "model %s is not ready: %s", self._name, reason, exc_info=error, extra=extra
            )
        else:
            logger.info("model %s is ready again", self._name, extra={"model": self._name})


class _Raised:
    """An exception on its way from a thread."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
