"""Memory that calls give back and take again: counted in page faults of a process of its own."""

import os
import platform
import subprocess
import sys

import pytest

# Four blocks at once, as a network's intermediate tensors: together more than glibc keeps after it
# saw blocks of that size.
PROGRAM = """
import os, resource, sys, threading
from functions import heap

def call():
    blocks = [bytearray(int(sys.argv[2]) << 20) for _ in range(4)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def measure():
    for _ in range(3):
        call()
    before = faults()
    for _ in range(5):
        call()
    print((faults() - before) // 5)

heap.keep(int(sys.argv[1]), os.environ)
thread = threading.Thread(target=measure)
thread.start()
thread.join()
measure()
"""

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="this C library is not glibc"
)


def faults_per_call(megabytes: int, block_mb: int = 8, **variables: str) -> list[int]:
    """On a thread, and on the main one."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environ.pop("GLIBC_TUNABLES", None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(megabytes), str(block_mb)],
        env={**environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(line) for line in done.stdout.split()]


def test_the_memory_of_a_call_is_there_for_the_next_one() -> None:
    given_back = faults_per_call(0)
    kept = faults_per_call(64)
    # 32 MB are 8,192 pages (512 where the system makes them huge).
    assert max(kept) < min(given_back) / 4, (kept, given_back)


def test_blocks_of_any_size_are_kept_when_asked_for() -> None:
    given_back = faults_per_call(64, block_mb=40)
    kept = faults_per_call(256, block_mb=40)
    # A thread's own heap has 64 MB: there, one block of four comes and goes.
    assert max(kept) < min(given_back) / 3, (kept, given_back)


@pytest.mark.parametrize(
    "told",
    [
        {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072:glibc.malloc.mmap_threshold=131072"},
    ],
    ids=["variables", "tunables"],
)
@pytest.mark.parametrize("megabytes", [64, 256])
def test_what_the_user_told_the_c_library_wins(megabytes: int, told: dict[str, str]) -> None:
    kept = faults_per_call(megabytes, **told)
    assert min(kept) > max(faults_per_call(megabytes)) * 4
