"""What the C library does with memory that model calls give back.

A model call takes megabytes for its intermediate tensors and frees them at its end. glibc returns
such memory to the system at once, and the next call faults it in again page by page: 3,500 faults
and a seventh of the CPU time for one photograph through EfficientNet-Lite0.
"""

_OVERHEAD = 65536
"""More than glibc adds to a block; its limits are meant for both together."""


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
