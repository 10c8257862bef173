"""Fetches model artifacts: any source, as fast as the wire, never half a model.

    python -m storage_initializer SRC DEST [SRC DEST ...]
    storage_initializer.fetch("s3://models/cats", "/mnt/models")

Nothing is imported before it is asked for.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .destinations import Report
    from .errors import StorageError
    from .fetching import fetch, is_complete

__all__ = ["Report", "StorageError", "fetch", "is_complete"]


def __getattr__(name: str) -> object:
    if name == "StorageError":
        from .errors import StorageError

        return StorageError
    if name in ("Report", "fetch", "is_complete"):
        import importlib

        module = importlib.import_module(".fetching", __name__)
        value: object = getattr(module, name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
