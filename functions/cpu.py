"""How much CPU this container may use: the cgroup quota, not the number of the machine's cores.

Numeric libraries start one thread a core; in a container with a quota of one CPU on a machine with
64 cores that means 64 threads taking turns. KServe reads cgroup v1 only; both versions are read
here. No I/O at import.
"""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .settings import Settings

CGROUP_ROOT = Path("/sys/fs/cgroup")


def quota_cpus(
    root: Path = CGROUP_ROOT, self_cgroup: Path = Path("/proc/self/cgroup")
) -> float | None:
    """The CPU quota in cores, or None when there is none or it cannot be read.

    cgroup v2: `cpu.max` is "QUOTA PERIOD" or "max PERIOD" (kernel docs, cgroup-v2, "CPU Interface
    Files"); every level up to the root limits, so the smallest counts. cgroup v1:
    `cpu.cfs_quota_us` (-1 is none) and `cpu.cfs_period_us`.
    """
    found: list[float] = []
    for directory in _directories(root, self_cgroup):
        quota = _read_v2(directory / "cpu.max")
        if quota is None:
            quota = _read_v1(directory)
        if quota is not None:
            found.append(quota)
    return min(found) if found else None


def _directories(root: Path, self_cgroup: Path) -> list[Path]:
    """The directories whose limits apply, in v2 (one tree) and v1 (`cpu` or `cpu,cpuacct`)."""
    directories = [root, root / "cpu", root / "cpu,cpuacct"]
    try:
        lines = self_cgroup.read_text(encoding="utf-8").splitlines()
    except OSError:
        return directories
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        base = root if not controllers else root / controllers
        if controllers and "cpu" not in controllers.split(","):
            continue
        parts = Path(path.lstrip("/")).parts
        if ".." in parts:
            continue
        directories.extend(base.joinpath(*parts[: depth + 1]) for depth in range(len(parts)))
    return directories


def _read_v2(file: Path) -> float | None:
    try:
        quota, period = file.read_text(encoding="ascii").split()[:2]
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _read_v1(directory: Path) -> float | None:
    try:
        quota = int((directory / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period = int((directory / "cpu.cfs_period_us").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None


def library_threads(settings: "Settings") -> int:
    """Threads for one call of a numeric library: the override, else this process's share of the
    quota.

    OMP_NUM_THREADS counts as a quota: an engine without cgroups sets it in place of one.
    """
    if settings.cpu_threads:
        return settings.cpu_threads
    usable = usable_cpus()
    declared = settings.environ.get("OMP_NUM_THREADS", "")
    if declared.isdecimal() and int(declared) > 0:
        usable = min(usable, int(declared))
    return max(1, usable // settings.workers)


def usable_cpus(quota: float | None = None) -> int:
    """Threads worth starting: the smaller of the affinity mask and the quota rounded up, at least
    1."""
    affinity = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    limit = quota_cpus() if quota is None else quota
    return max(1, affinity if limit is None else min(affinity, math.ceil(limit)))
