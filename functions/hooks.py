"""User hooks: found once by name, called with as many arguments as they take.

How many arguments a hook takes is read from its signature once, never found out by calling it and
catching TypeError (which runs user code twice when its own code raises one).
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from .errors import LoadFailed

SDKS = frozenset({"kserve", "kfserving", "seldon_core"})
"""Top-level packages whose own methods are no hooks of the user's."""


def find(target: Any, name: str) -> Callable[..., Any] | None:
    """The hook, or None when absent. Base classes of SDKs that only raise NotImplementedError are
    absent."""
    hook = getattr(target, name, None)
    if not callable(hook):
        return None
    owner = _defining_module(hook)
    if owner.split(".", 1)[0] in SDKS or owner == "functions.public":
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


Stage = Callable[[Any, dict[str, str], dict[str, str], Any], Any]
"""A hook of KServe's spelling, called (payload, headers, response headers, context)."""


def stage(hook: Callable[..., Any]) -> tuple[Stage, bool]:
    """(`hook`, callable with all four arguments of a `Stage`; whether it uses the context).

    It gets as many of the first three as it takes by position; a parameter called `context` gets
    the fourth, wherever it stands.
    """
    if not takes_keyword(hook, "context"):
        plain = trimmed(hook)
        return lambda payload, headers, answer, context: plain(payload, headers, answer), False
    parameters = inspect.signature(hook).parameters
    if parameters["context"].kind is inspect.Parameter.POSITIONAL_ONLY:
        raise LoadFailed(f"{hook.__name__}: `context` must not be positional-only")
    capacity = min(positional_capacity(hook), 3)
    by_position = [
        name
        for name, parameter in parameters.items()
        if parameter.kind
        in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    ]
    if "context" in by_position:
        capacity = min(by_position.index("context"), 3)

    def call(payload: Any, headers: dict[str, str], answer: dict[str, str], context: Any) -> Any:
        return hook(*(payload, headers, answer)[:capacity], context=context)

    return call, True


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


def requires(hook: Callable[..., Any], name: str = "") -> bool:
    """The hook cannot be called without this parameter (without a name: without any)."""
    try:
        parameters = inspect.signature(hook).parameters.values()
    except (TypeError, ValueError):
        return False
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return any(
        parameter.default is inspect.Parameter.empty and parameter.kind not in variable
        for parameter in parameters
        if not name or parameter.name == name
    )


def takes_any_keyword(hook: Callable[..., Any]) -> bool:
    """The hook has `**kwargs`."""
    try:
        parameters = inspect.signature(hook).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


def is_async(hook: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(
        getattr(hook, "__call__", None)  # noqa: B004 - an object with an async __call__
    )


def _with_a_base(factory: Callable[..., Any]) -> Callable[..., Any]:
    """`object.__init__` takes no arguments; `functions.Model` takes what SDKs' bases take."""
    if not inspect.isclass(factory) or factory.__bases__ != (object,):
        return factory
    codes = [getattr(member, "__code__", None) for member in vars(factory).values()]
    if not any(code is not None and "super" in code.co_names for code in codes):
        return factory
    from .public import Model

    members = {"__module__": factory.__module__, "__qualname__": factory.__qualname__}
    return type(factory.__name__, (factory, Model), members)


def construct(
    factory: Callable[..., Any], offered: Mapping[str, Any], wanted: Mapping[str, Any]
) -> Any:
    """Call a user's class: `offered` where its signature has the name, all of `wanted`
    (parameters).

    A class without a base that still calls `super().__init__(name)`, as one does whose SDK base was
    taken away, is given a base that takes it.

    Raises LoadFailed when a parameter has no place or a required argument nothing to fill it.
    """
    factory = _with_a_base(factory)
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
