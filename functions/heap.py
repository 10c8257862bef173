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
from collections.abc import Iterator, Mapping

_LEARNED_MB = 64
"""As much as glibc brings itself to keep."""

_OVERHEAD = 65536
"""More than glibc adds to a block; its limits are meant for both together."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Parameters of mallopt(3), from glibc's malloc.h."""

_NEW_OBJECTS = 250_000
"""While loading, the collector runs after this many; Python's default is 700."""

_unloaded = False
"""Since the last loading; what went must not be set aside again."""


def keep(megabytes: int, environ: Mapping[str, str]) -> None:
    """From now on, keep up to this much freed memory at the end of each thread's heap.

    Up to 64 MB glibc learns it from the blocks that a program frees (mallopt(3),
    M_MMAP_THRESHOLD): once a block of N bytes (32 MB at most) came back, blocks up to N are taken
    from the heap, which is trimmed when 2 N are free at its end. So one block is taken, never
    touched, and freed. Unlike a call of mallopt this needs no ctypes, is nothing to other C
    libraries, and where MALLOC_TRIM_THRESHOLD_ and its like are set glibc does not learn: they win.

    Beyond that (blocks above 32 MB, as batches of pictures make them) it has to be told that blocks
    of any size come from the heap; `environ` is looked at first.
    """
    if megabytes > _LEARNED_MB:
        _tell(megabytes, environ)
        return
    size = (megabytes << 20) // 2 - _OVERHEAD
    if size > 0:
        bytes(size)


def _tell(megabytes: int, environ: Mapping[str, str]) -> None:
    if any(name.startswith("MALLOC_") and name.endswith("_") for name in environ):
        return
    if "glibc.malloc." in environ.get("GLIBC_TUNABLES", ""):
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's; musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, min(megabytes << 20, (1 << 31) - 1))


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
