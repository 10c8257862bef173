"""Model and transformer servers: the code between a listening socket and a user's model.

Importing this package loads nothing: the router's image carries only this file and `wire/`. The
public names (`Model`, `Transformer`, `InferRequest`, ..., `serve`) are imported when they are first
used.
"""

from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Model": "functions.public",
    "Transformer": "functions.public",
    "serve": "functions.public",
    "Context": "functions.context",
    "InferRequest": "functions.inference",
    "InferResponse": "functions.inference",
    "InferInput": "functions.inference",
    "InferOutput": "functions.inference",
    "InvalidRequest": "functions.errors",
    "FunctionsError": "functions.errors",
}

__all__ = sorted(_PUBLIC)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """PEP 562: public names on demand."""
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(module), name)
