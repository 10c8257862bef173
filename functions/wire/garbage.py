"""Python's collector in programs that serve: what is there after the start stays."""

import gc

_YOUNG_OBJECTS = 10_000
"""Objects made, less those gone again, between two looks of the collector. Requests and events
leave no cycles: at Python's 700 it looks at those under way, and finds nothing, every time."""


def started() -> None:
    """From now on the collector looks seldom, and never at what is there already."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)
