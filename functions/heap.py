"""Memory of the process: what the C library keeps, and when Python looks for garbage.

A model call takes megabytes for its intermediate tensors and frees them at its end. glibc returns
such memory to the system at once, and the next call faults it in again page by page: 3,500 faults
and a seventh of the CPU time for one photograph through EfficientNet-Lite0.

A model library is hundreds of thousands of objects, made at once and there to stay. Python's
collector goes through them again and again while they come (8 % of the time of loading a
scikit-learn model, to find a thousand objects), and later in the middle of requests.
"""

import contextlib
import gc
from collections.abc import Iterator

_OVERHEAD = 65536
"""More than glibc adds to a block; its limits are meant for both together."""

_NEW_OBJECTS = 250_000
"""While loading, the collector runs after this many; Python's default is 700."""

_unloaded = False
"""Since the last loading; what went must not be set aside again."""


def keep(megabytes: int) -> None:
    """From now on, keep up to this much freed memory (64 MB at most) at the end of each thread's
    heap.

    glibc learns from the blocks that a program frees (mallopt(3), M_MMAP_THRESHOLD): once a block
    of N bytes (32 MB at most) came back, blocks up to N are taken from the heap, which is trimmed
    when 2 N are free at its end. So one block is taken, never touched, and freed. Unlike a call of
    mallopt this needs no ctypes, is nothing to other C libraries, and where
    MALLOC_TRIM_THRESHOLD_ and its like are set glibc does not learn: they win.
    """
    size = (megabytes << 20) // 2 - _OVERHEAD
    if size > 0:
        bytes(size)


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Around the loading of a model: look for garbage seldom, and never again among what is there
    at the end (see `unloading`). What user code sets meanwhile stays as it is."""
    global _unloaded
    if _unloaded:
        gc.collect()
        _unloaded = False
    before = gc.get_threshold()
    seldom = (_NEW_OBJECTS, *before[1:])
    if 0 < before[0] < _NEW_OBJECTS:
        gc.set_threshold(*seldom)
    try:
        yield
        gc.freeze()
    finally:
        if gc.get_threshold() == seldom:
            gc.set_threshold(*before)


def unloading() -> None:
    """A model goes, so there may be garbage among the objects that `loading` has set aside."""
    global _unloaded
    _unloaded = True
    gc.unfreeze()
