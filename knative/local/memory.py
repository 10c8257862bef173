"""What processes use of the memory, and pods that use more than their limit.

A cgroup would kill a container at its limit at once. Here the engine looks every few seconds:
resident memory first (cheap), and only above the limit the proportional share (pages shared with
other processes are divided by their number), which is what decides.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from . import spec
from .errors import PodFailed
from .pods import Pod

_PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1024 * 1024


def descendants(pids: Iterable[int], proc: Path = Path("/proc")) -> list[int]:
    """The processes and everything they started that is still their child."""
    found = list(pids)
    for pid in found:
        try:
            children = (proc / f"{pid}/task/{pid}/children").read_text().split()
        except OSError:
            continue
        found.extend(int(child) for child in children)
    return found


def resident_bytes(pids: Iterable[int], proc: Path = Path("/proc")) -> int:
    """Resident memory of processes; shared pages count once per process."""
    total = 0
    for pid in pids:
        try:
            total += int((proc / f"{pid}/statm").read_text().split()[1]) * _PAGE
        except (OSError, IndexError, ValueError):
            continue
    return total


def proportional_bytes(pids: Iterable[int], proc: Path = Path("/proc")) -> int:
    """Proportional set size: shared pages are divided among those who share them."""
    total = 0
    for pid in pids:
        try:
            lines = (proc / f"{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def limit_bytes(template: spec.Template) -> int:
    """Memory limit of a whole pod; 0 when any container has none."""
    limits = [container.resources.memory_limit for container in template.containers]
    return sum(limits) if all(limits) else 0


def enforce(pods: Iterable[Pod]) -> None:
    """Condemn pods above their limit."""
    for pod in pods:
        limit = limit_bytes(pod.template)
        if not limit or not pod.ready:
            continue
        pids = descendants(pod.containers.process_ids())
        if resident_bytes(pids) <= limit or (used := proportional_bytes(pids)) <= limit:
            continue
        message = f"uses {used // MIB} MiB of memory; its limit is {limit // MIB} MiB"
        pod.condemn(PodFailed("OOMKilled", message, pod.log_tail()))
