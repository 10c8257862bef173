"""Is there room on this machine for one more pod? A scheduler's sense, for one machine. Pure.

The first pod of a revision always starts if memory is there: a service that cannot run at all
helps nobody, and models ask for whole CPUs they use for milliseconds. Further pods count their CPU
requests against a multiple of the CPUs. What does not fit is shown as a pending pod would be, and
tried again.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    cpus: int
    memory_available: int
    """Bytes that could be used without swapping."""


def read_machine(meminfo: Path = Path("/proc/meminfo")) -> Machine:
    """What this machine has now."""
    available = 0
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    except OSError:
        available = 1 << 62  # unknown: do not stand in the way
    return Machine(cpus=len(os.sched_getaffinity(0)), memory_available=available)


def requested(template: spec.Template) -> tuple[int, int]:
    """(millicores, bytes) that one pod asks for; init containers count if they ask for more."""
    cpu = sum(container.resources.cpu_request_m for container in template.containers)
    memory = sum(container.resources.memory_request for container in template.containers)
    for container in template.init_containers:
        cpu = max(cpu, container.resources.cpu_request_m)
        memory = max(memory, container.resources.memory_request)
    return cpu, memory


def admit(
    template: spec.Template,
    machine: Machine,
    *,
    own_pods: int,
    running: Iterable[spec.Template],
    starting: Iterable[spec.Template],
    cpu_overcommit: float,
    memory_reserve: int,
) -> str:
    """Why one more pod has to wait; empty when it may start.

    `running`: templates of all pods of this engine. `starting`: of those that have not grown into
    their memory yet, so that their requests still have to be set aside.
    """
    cpu, memory = requested(template)
    promised = sum(requested(other)[1] for other in starting)
    free = machine.memory_available - memory_reserve - promised
    if memory > free:
        return f"Insufficient memory: asks for {_mib(memory)}, {_mib(max(0, free))} free"
    if own_pods == 0:
        return ""
    budget = int(machine.cpus * 1000 * cpu_overcommit)
    used = sum(requested(other)[0] for other in running)
    if cpu and used + cpu > budget:
        return (
            f"Insufficient cpu: {used + cpu}m of {budget}m "
            f"({machine.cpus} CPUs x {cpu_overcommit:g})"
        )
    return ""


def _mib(size: int) -> str:
    return f"{size // (1024 * 1024)} MiB"
