"""S3 notifications become CloudEvents, CloudEvents become inferences, answers become effects.

Three programs share this package: `python -m events adapter` (notifications in over HTTP),
`python -m events sqs` (notifications polled from SQS) and `python -m events sink` (CloudEvents in,
a graph or service called, the result filed and answered for).

Public names are resolved on use, so that importing `events` costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from events.filters import match
    from events.sink import Sink
    from events.spec import SinkSpec

__all__ = ["Sink", "SinkSpec", "match"]

_HOMES = {"match": "events.filters", "Sink": "events.sink", "SinkSpec": "events.spec"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
