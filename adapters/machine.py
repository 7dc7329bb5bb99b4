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


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
