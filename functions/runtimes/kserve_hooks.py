"""A user's object with hooks in KServe's spelling: preprocess -> predict | explain -> postprocess.

Without a predictor behind it and with sync hooks only, one request is one call on a model thread.
Otherwise the request is a task on the event loop: async hooks and the hop to the predictor run
there, sync hooks on the model's threads. So a request that waits for its predictor holds no thread.
"""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from functions import context, hooks
from functions.errors import (
    BadHookResult,
    InvalidRequest,
    LoadFailed,
    ModelNotReady,
    NotSupported,
)
from functions.health import Health
from functions.model import Call, Item, JoinableModel, ModelInfo, TensorSpec
from functions.wire import v2

from . import kserve_compat

if TYPE_CHECKING:
    from functions.inference import InferRequest, InferResponse
    from functions.predictor import Predictor

Hook = Callable[..., Any]

STAGES = ("preprocess", "predict", "postprocess", "explain")

OF_THE_BASE = ("validate",)
"""Hooks of KServe's base class with names that other classes use for other things."""


class KServeHooks(JoinableModel):
    """A user object whose hooks are spelled as KServe spells them.

    With batching on, whole requests are joined before `preprocess` and split after `postprocess`,
    as KServe's agent does it: V1 by `instances` and `predictions`, V2 along the first dimension.
    """

    def __init__(
        self,
        target: Any,
        *,
        name: str = "model",
        predictor: "Predictor | None" = None,
        threads: int = 1,
    ) -> None:
        """`predictor` is called when the object has no `predict` of its own. `target.inline` true
        says that its sync hooks are quick enough for the event loop."""
        self.target = target
        self.name = name
        self.predictor = predictor
        self.threads = threads
        self.info = ModelInfo(platform="python")
        self.health = self._health = Health(target, name)
        self._kserve = kserve_compat.is_kserve_model(target)
        extends = self._kserve or _extends_ours(target)
        names = STAGES + OF_THE_BASE if extends else STAGES
        found = {stage: hooks.find(target, stage) for stage in names}
        self._async = {
            name for name, hook in found.items() if hook is not None and hooks.is_async(hook)
        }
        staged = {name: hooks.stage(hook) for name, hook in found.items() if hook is not None}
        self._hooks = {name: hook for name, (hook, _) in staged.items()}
        self._remote = predictor is not None and "predict" not in self._hooks
        self._on_loop = bool(getattr(target, "inline", False))
        self._uses_context = extends or any(uses for _, uses in staged.values())
        if extends:
            self.info.inputs = _declared(target, "get_input_types")
            self.info.outputs = _declared(target, "get_output_types")
        self.is_async = bool(self._async) or predictor is not None
        if self._kserve and predictor is not None:
            kserve_compat.adopt(target)

    def v1(self, verb: str, payload: Any, call: Call) -> Any:
        if self.is_async:
            return self._predict_async(verb, payload, call)
        return _to_document(self._run(verb, payload, call))

    async def _predict_async(self, verb: str, payload: Any, call: Call) -> Any:
        return _to_document(await self._run_async(verb, payload, call))

    def v2(self, request: "InferRequest", call: Call) -> Any:
        if self.is_async:
            return self._infer_async(request, call)
        return self._to_response(self._run("infer", request, call), request)

    async def _infer_async(self, request: "InferRequest", call: Call) -> "InferResponse":
        return self._to_response(await self._run_async("infer", request, call), request)

    # --- joined calls --------------------------------------------------------------------------

    def prepare(self, kind: str, payload: Any, call: Call) -> Item:
        if kind == "infer":
            from functions import joining

            count, key = joining.join_key(payload)
            return Item(kind, payload, call, count=count, key=key, data=payload)
        rows = payload.get("instances") if type(payload) is dict and len(payload) == 1 else None
        if kind == "predict" and type(rows) is list and rows:
            return Item(kind, payload, call, count=len(rows), key="instances", data=payload)
        return Item(kind, payload, call, count=1, key=None, data=payload)

    def run(self, items: list[Item]) -> None:
        """On a model thread."""
        items[0].call.holds_thread = True
        if len(items) == 1:
            item = items[0]
            if item.kind == "infer":
                item.output = self._wait(self.v2(item.payload, item.call))
            else:
                item.output = self._wait(self.v1(item.kind, item.payload, item.call))
            return
        call = items[0].call
        if items[0].kind == "infer":
            from functions import joining

            requests = [item.payload for item in items]
            joined = self._wait(self.v2(joining.join_requests(requests), call))
            for item, part in zip(items, joining.split_response(joined, requests), strict=True):
                item.output = part
            return
        rows = [row for item in items for row in item.payload["instances"]]
        result = self._wait(self.v1("predict", {"instances": rows}, call))
        predictions = result.get("predictions") if isinstance(result, dict) else None
        if (
            predictions is None
            or not hasattr(predictions, "__len__")
            or len(predictions) != len(rows)
        ):
            raise NotSupported(
                "the model does not answer one prediction an instance: turn batching off"
            )
        at = 0
        for item in items:
            item.output = {**result, "predictions": predictions[at : at + item.count]}
            at += item.count

    def _wait(self, result: Any) -> Any:
        """The result of a call, which of an async model is a coroutine for the event loop."""
        if not self.is_async:
            return result
        assert self.runner is not None
        return asyncio.run_coroutine_threadsafe(result, self.runner.loop).result()

    def answer(self, item: Item) -> Any:
        return item.output

    # --- one call ------------------------------------------------------------------------------

    def _plan(self, verb: str) -> list[str]:
        """The stages of a verb, in order. Raises NotSupported when the main one is missing,
        ModelNotReady while the object says so."""
        if not self._health.is_ready:
            raise ModelNotReady(self.name, self._health.reason)
        main = "explain" if verb == "explain" else "predict"
        if main not in self._hooks and not (main == "predict" and self._remote):
            hint = "" if main == "explain" else ", and no --predictor-host is given"
            raise NotSupported(f"model {self.name} has no {main} method{hint}")
        order = ("preprocess", "validate", main, "postprocess")
        return [stage for stage in order if stage in self._hooks or stage == main]

    def _enter(self, verb: str, call: Call) -> Any:
        """The request's context, if anybody looks at it."""
        if not self._uses_context:
            return None
        loop = self.runner.loop if self.runner is not None else None
        remote: context.Remote | None = self.predictor
        if self._kserve and remote is not None:
            remote = kserve_compat.answering(remote)
        call.context = context.Context(call, self.name, verb, remote, loop)
        return call.context

    def _run(self, verb: str, payload: Any, call: Call) -> Any:
        given = self._enter(verb, call)
        for stage in self._plan(verb):
            since = time.perf_counter()
            call.stage = stage
            if self._kserve:
                payload = kserve_compat.to_kserve(payload)
            result = self._hooks[stage](payload, call.headers, call.response_headers, given)
            if stage in OF_THE_BASE:
                payload = payload if result is None else result
                continue
            payload = result
            call.spent(stage, since)
            self._check_result(stage, payload)
        return payload

    async def _run_async(self, verb: str, payload: Any, call: Call) -> Any:
        plan = self._plan(verb)
        predictor = self.predictor
        if predictor is not None:
            if not call.deadline:
                call.deadline = predictor.deadline_of(call.headers)
            if self._remote and plan[0] == "preprocess":
                predictor.wake(call)
        given = self._enter(verb, call)
        sent = payload
        if given is not None:
            context.enter(given)
            if predictor is not None and self._kserve:
                kserve_compat.enter(predictor.settings)
        for stage in plan:
            since = time.perf_counter()
            call.stage = stage
            hook = self._hooks.get(stage)
            if hook is None:
                assert predictor is not None
                payload = await self._ask(predictor, payload, call, touched=payload is not sent)
                call.spent(stage, since)
                continue
            if self._kserve:
                payload = kserve_compat.to_kserve(payload)
            arguments = (payload, call.headers, call.response_headers, given)
            if stage in self._async:
                result = await _guarded(hook(*arguments))
            elif self._on_loop:
                result = hook(*arguments)
            else:
                result = await self._on_a_thread(hook, arguments, call)
            if inspect.isawaitable(result):  # of a decorator around an async hook, for example
                result = await _guarded(result)
            if stage in OF_THE_BASE:
                payload = payload if result is None else result
                continue
            payload = result
            call.spent(stage, since)
            self._check_result(stage, payload)
        return payload

    async def _on_a_thread(self, hook: Hook, arguments: tuple[Any, ...], call: Call) -> Any:
        """What a sync hook returns."""
        try:
            if self.runner is not None and not call.holds_thread:
                return await self.runner.offload(hook, arguments)
            return await asyncio.to_thread(hook, *arguments)
        except asyncio.CancelledError:
            if call.context is not None:
                context.leave(call.context)
            raise

    async def _ask(self, predictor: "Predictor", payload: Any, call: Call, *, touched: bool) -> Any:
        """What cannot be sent is the fault of whoever made it: `preprocess`, or the client."""
        try:
            return await predictor(payload, call)
        except BadHookResult as exc:
            if touched:
                raise
            got = str(exc).replace("preprocess returned", "got", 1)
            raise InvalidRequest(f"the predictor cannot be asked this: {got}") from exc
        except InvalidRequest as exc:
            if not touched:
                raise
            raise BadHookResult(f"preprocess returned what cannot be sent: {exc}") from exc

    def _check_result(self, stage: str, payload: Any) -> None:
        if payload is None:
            raise BadHookResult(
                f"{stage} of model {self.name} returned None: does it lack a return?"
            )
        if inspect.isawaitable(payload):
            if inspect.iscoroutine(payload):
                payload.close()
            raise BadHookResult(
                f"{stage} of model {self.name} returned an awaitable but is no coroutine function:"
                " declare it `async def`"
            )

    def _to_response(self, result: Any, request: "InferRequest") -> "InferResponse":
        from functions import results  # numpy: only when V2 is used

        try:
            response = results.to_response(result, request)
            for tensor in response.outputs:
                results.check_output(tensor, request)
            return response
        except (TypeError, ValueError) as exc:
            last = "postprocess" if "postprocess" in self._hooks else "predict"
            raise BadHookResult(
                f"{last} of model {self.name} returned {type(result).__name__}, of which no V2"
                f" answer can be made: {exc}"
            ) from exc

    def close(self) -> None:
        stop = hooks.find(self.target, "stop")
        if stop is not None and not hooks.is_async(stop):
            hooks.trimmed(stop)()
        if self.predictor is not None:
            self.predictor.close()


async def _guarded(awaitable: Any) -> Any:
    """An event loop would take a hook's SystemExit for its own and stop."""
    try:
        return await awaitable
    except (SystemExit, KeyboardInterrupt) as exc:
        raise RuntimeError(f"{type(exc).__name__} from a hook: {exc}") from exc


def _declared(target: Any, hook: str) -> tuple[TensorSpec, ...]:
    """The tensors of a model's metadata, as KServe's classes declare them: dicts with name,
    datatype and shape. Raises LoadFailed."""
    declare = hooks.find(target, hook)
    if declare is None:
        return ()
    try:
        return tuple(
            TensorSpec(
                name=str(entry["name"]),
                datatype=v2.check_datatype(str(entry["datatype"]), hook),
                shape=tuple(int(size) for size in entry["shape"]),
            )
            for entry in declare()
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise LoadFailed(
            f"{hook}() of {type(target).__name__} must return dicts with name, datatype and shape:"
            f" {type(exc).__name__}: {exc}"
        ) from exc


def _extends_ours(target: Any) -> bool:
    return any(cls.__module__ == "functions.public" for cls in type(target).__mro__)


def _to_document(result: Any) -> Any:
    """A V1 answer: a V2 predictor's tensors as `predictions`, anything else as it is.

    One tensor: its rows. Several: a dict a row when all have as many rows, as TensorFlow Serving
    writes it, else a dict of tensors.
    """
    outputs = getattr(result, "outputs", None)
    if not isinstance(outputs, list) or isinstance(result, dict):
        return result
    arrays = {tensor.name: tensor.as_numpy() for tensor in outputs}
    if len(arrays) == 1:
        return {"predictions": next(iter(arrays.values()))}
    lengths = {array.shape[0] if array.ndim else -1 for array in arrays.values()}
    if len(lengths) == 1 and -1 not in lengths:
        rows = [
            dict(zip(arrays, row, strict=True))
            for row in zip(*(array.tolist() for array in arrays.values()), strict=True)
        ]
        return {"predictions": rows}
    return {"predictions": arrays}
