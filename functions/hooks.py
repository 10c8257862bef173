"""User hooks: found once by name, called with as many arguments as they take.

How many arguments a hook takes is read from its signature once, never found out by calling it and
catching TypeError (which runs user code twice when its own code raises one).
"""

import inspect
import types
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


def positional_capacity(hook: Callable[..., Any], *kinds: type) -> int:
    """How many positional arguments `hook` accepts; a large number for *args. With `kinds`, those
    from the first whose default is of no such type on are the hook's own."""
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
            if kinds and _is_own(parameter, *kinds):
                break
            count += 1
    return count


Stage = Callable[[Any, dict[str, str], dict[str, str], Any], Any]
"""A hook of KServe's spelling, called (payload, headers, response headers, context)."""

_NAMED = {"headers": 1, "response_headers": 2, "context": 3}
"""Parameters that get their value by name where they do not stand in their place."""


def stage(hook: Callable[..., Any]) -> tuple[Stage, bool]:
    """(`hook`, callable with all four arguments of a `Stage`; whether it uses the context).

    It gets as many of the first three as it takes by position, up to a parameter whose default
    says that it is the hook's own; those called `headers`, `response_headers` and `context` get
    theirs wherever they stand.
    """
    try:
        parameters = inspect.signature(hook).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature: KServe's plain form
        return lambda payload, headers, answer, context: hook(payload), False
    count = 0
    by_name: list[tuple[str, int]] = []
    in_order = True
    for parameter in parameters:
        at = _NAMED.get(parameter.name)
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            count = 3 if in_order else count
            in_order = False
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        elif (
            in_order
            and count < 3
            and at in (None, count)
            and parameter.kind is not inspect.Parameter.KEYWORD_ONLY
            and not _is_own(parameter, dict)
        ):
            count += 1
        else:
            in_order = False
            if at is not None:
                if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
                    raise LoadFailed(
                        f"{hook.__name__}: `{parameter.name}` must not be positional-only"
                    )
                by_name.append((parameter.name, at))
    if not by_name:

        def plain(payload: Any, headers: dict[str, str], answer: dict[str, str], _: Any) -> Any:
            return hook(*(payload, headers, answer)[:count])

        return plain, False

    def call(*arguments: Any) -> Any:
        return hook(*arguments[:count], **{name: arguments[at] for name, at in by_name})

    return call, any(name == "context" for name, _ in by_name)


def _is_own(parameter: inspect.Parameter, *kinds: type) -> bool:
    """Its default is a value that ours could not stand for: `scale=255`."""
    default = parameter.default
    if default is inspect.Parameter.empty or default is None:
        return False
    return not isinstance(default, kinds)


def trimmed(hook: Callable[..., Any], *kinds: type) -> Callable[..., Any]:
    """`hook`, callable with any number of positional arguments: surplus ones are dropped, and
    (with `kinds`) those for parameters of its own."""
    capacity = positional_capacity(hook, *kinds)
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
    if not inspect.isclass(factory) or not any(map(_lost_its_base, factory.__mro__)):
        return factory
    from .public import Model

    if issubclass(factory, Model):
        return factory
    members = {"__module__": factory.__module__, "__qualname__": factory.__qualname__}
    made: Callable[..., Any] = types.new_class(
        factory.__name__, (factory, Model), exec_body=lambda namespace: namespace.update(members)
    )
    return made


def _lost_its_base(cls: type) -> bool:
    """It has none and calls it."""
    codes = [getattr(member, "__code__", None) for member in vars(cls).values()]
    return cls.__bases__ == (object,) and any(
        code is not None and "super" in code.co_names for code in codes
    )


def _places(factory: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]) -> set[str]:
    """Names that can be given by keyword; through `**kwargs`, those of the next class's
    constructor, which they are for."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = {name for name, parameter in parameters.items() if parameter.kind not in variable}
    for cls in getattr(factory, "__mro__", ()):
        own = vars(cls).get("__init__")
        if inspect.isfunction(own):
            found |= {n for n, p in inspect.signature(own).parameters.items()
                      if p.kind not in variable}  # fmt: skip
            if not takes_any_keyword(own):
                break
    return found - {"self"}


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
    places = _places(factory, parameters)
    arguments = {name: value for name, value in offered.items() if name in places}
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
