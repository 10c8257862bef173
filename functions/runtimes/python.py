"""The `python` runtime: a user's class or module with KServe's or Seldon's hooks, no SDK needed.

KServe's order is preprocess -> predict | explain -> postprocess (spec "Model API"); hooks get
`(payload, headers[, response_headers])`, as many of these as they take. Seldon's hooks get
`(X, names[, meta])`. Which spelling a class uses is read from its signatures once, at load.
"""

import asyncio
import inspect
import logging
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from functions import hooks, loader
from functions.errors import LoadFailed, NotSupported
from functions.model import Call, Item, JoinableModel, ModelInfo, ServedModel

if TYPE_CHECKING:
    from functions.inference import InferRequest, InferResponse
    from functions.settings import Settings

logger = logging.getLogger(__name__)

Hook = Callable[..., Any]

_KSERVE_STAGES = ("preprocess", "predict", "postprocess", "explain")


class KServeHooks(JoinableModel):
    """A user object whose hooks are spelled as KServe spells them.

    With batching on, whole requests are joined before `preprocess` and split after `postprocess`,
    as KServe's agent does it: V1 by `instances` and `predictions`, V2 along the first dimension.
    """

    def __init__(self, target: Any, *, predict: Hook | None = None, threads: int = 1) -> None:
        """`predict` stands in when the object has none (a transformer's call to its predictor)."""
        self.target = target
        self.threads = threads
        self.info = ModelInfo(platform="python")
        found = {stage: hooks.find(target, stage) for stage in _KSERVE_STAGES}
        if found["predict"] is None:
            found["predict"] = predict
        self._async = {
            name for name, hook in found.items() if hook is not None and hooks.is_async(hook)
        }
        self._hooks: dict[str, Hook] = {
            name: hooks.trimmed(hook) for name, hook in found.items() if hook is not None
        }
        self.is_async = bool(self._async)
        self.batches = not self.is_async

    def v1(self, verb: str, payload: Any, call: Call) -> Any:
        if self.is_async:
            return self._run_async(verb, payload, call)
        return self._run(verb, payload, call)

    def v2(self, request: "InferRequest", call: Call) -> Any:
        if self.is_async:
            return self._infer_async(request, call)
        return _to_response(self._run("predict", request, call), request)

    async def _infer_async(self, request: "InferRequest", call: Call) -> "InferResponse":
        return _to_response(await self._run_async("predict", request, call), request)

    # --- joined calls --------------------------------------------------------------------------

    def prepare(self, kind: str, payload: Any, call: Call) -> Item:
        if kind == "infer":
            from functions import tensors

            count, key = tensors.join_key(payload)
            return Item(kind, payload, call, count=count, key=key, data=payload)
        rows = payload.get("instances") if type(payload) is dict and len(payload) == 1 else None
        if kind == "predict" and type(rows) is list and rows:
            return Item(kind, payload, call, count=len(rows), key="instances", data=payload)
        return Item(kind, payload, call, count=1, key=None, data=payload)

    def run(self, items: list[Item]) -> None:
        if len(items) == 1:
            item = items[0]
            if item.kind == "infer":
                item.output = self.v2(item.payload, item.call)
            else:
                item.output = self.v1(item.kind, item.payload, item.call)
            return
        call = items[0].call
        if items[0].kind == "infer":
            from functions import tensors

            joined = self.v2(tensors.join_requests([item.payload for item in items]), call)
            requests = [item.payload for item in items]
            for item, part in zip(items, tensors.split_response(joined, requests), strict=True):
                item.output = part
            return
        rows = [row for item in items for row in item.payload["instances"]]
        result = self.v1("predict", {"instances": rows}, call)
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

    def answer(self, item: Item) -> Any:
        return item.output

    # --- one call ------------------------------------------------------------------------------

    def _plan(self, verb: str) -> list[tuple[str, Hook]]:
        """The hooks to run for a verb, in order. Raises NotSupported when the main one is
        missing."""
        main = self._hooks.get(verb)
        if main is None:
            raise NotSupported(f"this model has no {verb} method")
        before = self._hooks.get("preprocess")
        after = self._hooks.get("postprocess")
        plan = [("preprocess", before)] if before else []
        plan.append((verb, main))
        if after:
            plan.append(("postprocess", after))
        return plan

    def _run(self, verb: str, payload: Any, call: Call) -> Any:
        for stage, hook in self._plan(verb):
            since = time.perf_counter()
            payload = hook(payload, call.headers, call.response_headers)
            call.spent(stage, since)
            if inspect.isawaitable(payload):
                raise LoadFailed(
                    f"{stage} returned an awaitable but is no coroutine function: declare it"
                    " `async def`"
                )
        return payload

    async def _run_async(self, verb: str, payload: Any, call: Call) -> Any:
        """Async hooks run on the event loop; sync ones beside it, so they never block it."""
        for stage, hook in self._plan(verb):
            since = time.perf_counter()
            if stage in self._async:
                payload = await hook(payload, call.headers, call.response_headers)
            else:
                payload = await asyncio.to_thread(
                    hook, payload, call.headers, call.response_headers
                )
            call.spent(stage, since)
        return payload

    def close(self) -> None:
        stop = hooks.find(self.target, "stop")
        if stop is not None and not hooks.is_async(stop):
            hooks.trimmed(stop)()


def _to_response(result: Any, request: "InferRequest") -> "InferResponse":
    from functions import tensors  # numpy: only when V2 is used

    return tensors.to_response(result, request)


def is_seldon(target: Any) -> bool:
    """Seldon's spelling: one of its own hooks, or a predict whose second argument is the names."""
    own = (
        "predict_raw",
        "transform_input",
        "transform_output",
        "transform_input_raw",
        "transform_output_raw",
        "route",
        "route_raw",
        "aggregate",
        "aggregate_raw",
        "send_feedback",
        "send_feedback_raw",
        "health_status",
        "init_metadata",
    )
    if any(callable(getattr(target, name, None)) for name in own):
        return True
    predict = getattr(target, "predict", None)
    if not callable(predict):
        return False
    try:
        names = list(inspect.signature(predict).parameters)
    except (TypeError, ValueError):
        return False
    return len(names) > 1 and ("name" in names[1] or "meta" in names)


def build(
    name: str, directory: Path, settings: "Settings", predict: Hook | None = None
) -> ServedModel:
    """Find the user's code, construct it with its parameters, call `load` and wrap its hooks.

    Raises LoadFailed (or whatever user code raises) when it cannot serve.
    """
    reference = settings.model_class
    if predict is None and settings.predictor_host:
        from functions.upstream import Predictor  # requests

        predict = Predictor(name, settings)
    if not reference and settings.predictor_host and not settings.model_dir:
        return KServeHooks(object(), predict=predict, threads=settings.threads or 16)
    found: Any = (
        loader.load_object(reference, directory)
        if reference
        else loader.pick_model(loader.load_file(loader.find_python_file(directory)))
    )
    target = instantiate(found, name, directory, dict(settings.param))
    threads = settings.threads or int(getattr(target, "threads", 0) or 0) or 4
    if is_seldon(target):
        from .seldon import SeldonHooks  # numpy

        return SeldonHooks(target, threads=threads)
    return KServeHooks(target, predict=predict, threads=threads)


def instantiate(found: Any, name: str, directory: Path, params: dict[str, Any]) -> Any:
    """Construct (classes only) and load."""
    offered = {
        "name": name,
        "model_name": name,
        "model_dir": str(directory),
        "model_uri": str(directory),
    }
    if isinstance(found, ModuleType) or not callable(found):
        if params:
            raise LoadFailed(f"--param is given, but {found!r} is no class that could take it")
        target = found
    else:
        target = hooks.construct(found, offered, params)
    load = hooks.find(target, "load")
    if load is not None:
        loaded = hooks.trimmed(load)(str(directory))
        if inspect.isawaitable(loaded):
            loaded = asyncio.run(_await(loaded))
        if loaded is False:
            raise LoadFailed(f"{type(target).__name__}.load() returned False")
    return target


async def _await(awaitable: Any) -> Any:
    return await awaitable
