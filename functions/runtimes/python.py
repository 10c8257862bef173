"""The `python` runtime: a user's class or module with KServe's or Seldon's hooks, no SDK needed.

KServe's hooks get `(payload, headers[, response_headers])`, as many of these as they take, and the
request's context under that name (spec "Model API"; `kserve_hooks`). Seldon's hooks get
`(X, names[, meta])`. Which spelling a class uses is read from its signatures once, at load.
"""

import asyncio
import inspect
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from functions import hooks, loader
from functions.errors import LoadFailed
from functions.model import ServedModel

from . import kserve_compat
from .kserve_hooks import KServeHooks

if TYPE_CHECKING:
    from functions.settings import Settings

THREADS = 4
"""Calls of a model's sync hooks at once, unless the class or --threads says otherwise."""

BLOCKING_THREADS = 64
"""The same for a transformer with a sync `predict` of its own, which mostly waits for others."""


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


def build(name: str, directory: Path, settings: "Settings") -> ServedModel:
    """Find the user's code, construct it with its parameters, call `load` and wrap its hooks.

    Raises LoadFailed (or whatever user code raises) when it cannot serve.
    """
    reference = settings.model_class
    predictor = None
    if settings.predictor_host:
        from functions.predictor import Predictor

        predictor = Predictor(name, settings)
        if not reference and not settings.model_dir and directory == Path():
            return KServeHooks(object(), name=name, predictor=predictor)
    with kserve_compat.command_line(name, str(directory), settings):
        found: Any = (
            loader.load_object(reference, directory)
            if reference
            else loader.pick_model(loader.load_file(loader.find_python_file(directory)))
        )
        target = instantiate(found, name, directory, settings)
    wanted = settings.threads or int(getattr(target, "threads", 0) or 0)
    if is_seldon(target):
        if predictor is not None:
            raise LoadFailed(
                f"{type(target).__name__} is spelled as Seldon spells it and would never ask the"
                " predictor of --predictor-host: name its hooks preprocess and postprocess, or"
                " make both nodes of a SeldonDeployment"
            )
        from .seldon import SeldonHooks  # numpy

        # As Seldon's wrapper (GUNICORN_THREADS=1): `tags` and `metrics` speak of the call before.
        return SeldonHooks(target, threads=wanted or 1)
    own_predict = predictor is not None and hooks.find(target, "predict") is not None
    default = BLOCKING_THREADS if own_predict else THREADS
    return KServeHooks(target, name=name, predictor=predictor, threads=wanted or default)


def instantiate(found: Any, name: str, directory: Path, settings: "Settings") -> Any:
    """Construct (classes only) and load."""
    params = dict(settings.param)
    if isinstance(found, ModuleType) or not callable(found):
        if params:
            raise LoadFailed(f"--param is given, but {found!r} is no class that could take it")
        target = found
    else:
        offered = _offered(found, name, directory, settings)
        if _is_seldon(
            settings
        ):  # a `name` with a default is the class's own there, not the model's
            offered = {
                key: value
                for key, value in offered.items()
                if key not in ("name", "model_name") or hooks.requires(found, key)
            }
        target = hooks.construct(found, offered, params)
    load = hooks.find(target, "load")
    if load is not None:
        # Seldon's contract is load() without arguments: one that could be left out stays out.
        bare = _is_seldon(settings) and not hooks.requires(load)
        loaded = load() if bare else hooks.trimmed(load, str)(str(directory))
        if inspect.isawaitable(loaded):
            loaded = asyncio.run(_await(loaded))
        if loaded is False:
            raise LoadFailed(f"{type(target).__name__}.load() returned False")
    return target


def _is_seldon(settings: "Settings") -> bool:
    """Whether Seldon's contract is all that is spoken."""
    return set(settings.protocol) <= {"seldon", "grpc-seldon"}


def _offered(found: Any, name: str, directory: Path, settings: "Settings") -> dict[str, Any]:
    """What a constructor may ask for by the names of its parameters."""
    offered: dict[str, Any] = {
        "name": name,
        "model_name": name,
        "model_dir": str(directory),
        "model_uri": str(directory),
    }
    if settings.predictor_host:
        flags = kserve_compat.flags(name, settings)
        offered |= {
            **flags,
            "args": SimpleNamespace(**flags, model_dir=str(directory), **dict(settings.param)),
            "use_ssl": settings.predictor_use_ssl,
        }
        if hooks.takes_keyword(found, "predictor_config"):
            offered["predictor_config"] = kserve_compat.predictor_config(settings)
    return offered


async def _await(awaitable: Any) -> Any:
    return await awaitable
