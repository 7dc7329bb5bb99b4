"""The memory and cores that this process may use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")


def machine_memory(limit_file: Path = CGROUP_LIMIT) -> int:
    """Bytes of memory of this machine, or of this container if its limit is lower."""
    import psutil  # Here, because most commands need no more than the settings of this module.

    total = int(psutil.virtual_memory().total)
    try:
        limit = limit_file.read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdecimal() else total


def available_memory(cgroup: Path = CGROUP_LIMIT.parent) -> int:
    """Bytes of memory that can be taken now without swapping, also within this container's limit.

    Of a container's memory, pages that cache files and were not used lately count as free.
    """
    import psutil

    available = int(psutil.virtual_memory().available)
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return max(0, min(available, limit - used + int(stat["inactive_file"])))
    except (OSError, ValueError, KeyError):  # No container, no limit ("max"), or another layout.
        return available


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
