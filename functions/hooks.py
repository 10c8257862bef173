"""User hooks: found once by name, called with as many arguments as they take.

How many arguments a hook takes is read from its signature once, never found out by calling it and
catching TypeError (which runs user code twice when its own code raises one).
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from .errors import LoadFailed


def find(target: Any, name: str) -> Callable[..., Any] | None:
    """The hook, or None when absent. Base classes of SDKs that only raise NotImplementedError are
    absent."""
    hook = getattr(target, name, None)
    if not callable(hook):
        return None
    owner = _defining_module(hook)
    if owner.split(".", 1)[0] in {"kserve", "seldon_core"}:
        return None
    found: Callable[..., Any] = hook
    return found


def _defining_module(hook: Callable[..., Any]) -> str:
    return getattr(inspect.unwrap(hook), "__module__", "") or ""


def positional_capacity(hook: Callable[..., Any]) -> int:
    """How many positional arguments `hook` accepts; a large number for *args."""
    try:
        parameters = inspect.signature(hook).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature: KServe's plain form
        return 1
    count = 0
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            return 1000
        if parameter.kind in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        ):
            count += 1
    return count


def trimmed(hook: Callable[..., Any]) -> Callable[..., Any]:
    """`hook`, callable with any number of positional arguments: surplus ones are dropped."""
    capacity = positional_capacity(hook)
    if capacity >= 1000:
        return hook

    def call(*arguments: Any) -> Any:
        return hook(*arguments[:capacity])

    return call


def takes_keyword(hook: Callable[..., Any], name: str) -> bool:
    """The hook names this parameter."""
    try:
        return name in inspect.signature(hook).parameters
    except (TypeError, ValueError):
        return False


def is_async(hook: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(
        getattr(hook, "__call__", None)  # noqa: B004 - an object with an async __call__
    )


def construct(
    factory: Callable[..., Any], offered: Mapping[str, Any], wanted: Mapping[str, Any]
) -> Any:
    """Call a user's class: `offered` where its signature has the name, all of `wanted`
    (parameters).

    Raises LoadFailed when a parameter has no place or a required argument nothing to fill it.
    """
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return factory(**wanted)
    parameters = signature.parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    arguments = {name: value for name, value in offered.items() if name in parameters}
    label = getattr(factory, "__name__", "the model class")
    for name, value in wanted.items():
        if name not in parameters and not takes_any:
            known = ", ".join(parameters) or "none"
            raise LoadFailed(f"{label} takes no parameter {name!r} (its parameters: {known})")
        arguments[name] = value
    missing = [
        p.name
        for p in parameters.values()
        if p.default is inspect.Parameter.empty
        and p.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        and p.name not in arguments
    ]
    if missing:
        raise LoadFailed(
            f"{label} needs {', '.join(missing)}: give each with --param {missing[0]}=VALUE"
        )
    return factory(**arguments)
