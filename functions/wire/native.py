"""Compiled twins: C where every request passes, with the Python it stands for kept beside it.

A module of the hot path (`functions.wire.http1_core`, `router_fn.fibers` ...) is plain Python and
ends in `native.take(...)`, which replaces its classes by those of the extension module of the same
names, if there is one and it may be used (PEP 399). Nothing else knows of it: with no compiler at
installation, or with TURNOUT_NATIVE=0, the Python runs, and does the same (the tests run over
both).

An extension knows the checksum of the source it was made of. Where the source lies beside it (a
checkout) and has changed since, the extension is stale and not used; `make install` makes it anew.
"""

import importlib
import os.path
import zlib
from typing import Any, Final

from functions.wire import settings

_outcomes: Final[dict[str, str]] = {}
"""Extension module -> why it is not used; empty when it is."""


def take(namespace: dict[str, Any], module: str, names: tuple[str, ...]) -> bool:
    """Put `names` of the extension `module` into `namespace`, if it may be; returns whether."""
    extension: Any = None
    if not settings.NATIVE:
        reason = "switched off by TURNOUT_NATIVE=0"
    else:
        try:
            extension = importlib.import_module(module)
        except ImportError as error:
            reason = "not built" if isinstance(error, ModuleNotFoundError) else str(error)
        else:
            reason = _staleness(extension)
    _outcomes[module] = reason
    if not reason:
        namespace.update((name, getattr(extension, name)) for name in names)
    return not reason


def _staleness(extension: Any) -> str:
    folder = os.path.dirname(extension.__file__)  # not pathlib: a start from zero counts imports
    found = 0
    for source in extension.SOURCES.split():
        try:
            with open(os.path.join(folder, source), "rb") as text:
                found = zlib.crc32(text.read(), found)
        except OSError:
            return ""  # installed without its source: there is nothing it could lag behind
    return "" if found == extension.CHECKSUM else "older than its source: run `make install`"


def describe() -> str:
    """One line for the log: which implementation of the hot path runs, and why."""
    reasons = sorted({reason for reason in _outcomes.values() if reason})
    if not reasons:
        return "hot path: native"
    which = "pure Python" if all(_outcomes.values()) else "partly native"
    return f"hot path: {which} ({'; '.join(reasons)})"
