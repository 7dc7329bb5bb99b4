"""The memory that this process may still take: the machine's, or less in a control group.

This file uses the standard library alone and the syntax of Python 3.9: see `preflight`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class Hierarchy(NamedTuple):
    """Where a version of control groups keeps its numbers."""

    root: Path
    limit: str
    usage: str
    reclaimable: str
    """The number in `memory.stat` that counts as usage, but is given back when memory is short."""


def hierarchies(root: Path = Path("/sys/fs/cgroup")) -> dict[str, Hierarchy]:
    """Controllers in a line of /proc/self/cgroup -> the hierarchy that the line is of."""
    second = Hierarchy(root, "memory.max", "memory.current", "inactive_file")
    first = Hierarchy(
        root / "memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    )
    return {"": second, "memory": first}


def available(
    meminfo: Path = Path("/proc/meminfo"),
    groups: Path = Path("/proc/self/cgroup"),
    root: Path = Path("/sys/fs/cgroup"),
) -> int | None:
    """Bytes; None if it is not known."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        found = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None
    return min([found, *_left_in_groups(groups, root)])


def _left_in_groups(groups: Path, root: Path) -> Iterator[int]:
    """What each group that this process is in, up to the root, leaves for it."""
    known = hierarchies(root)
    try:
        lines = [line.split(":", 2) for line in groups.read_text().splitlines()]
    except OSError:
        return
    for line in lines:
        if len(line) != 3:
            continue
        for controller in line[1].split(","):
            if controller not in known:
                continue
            hierarchy = known[controller]
            group = PurePosixPath(line[2].lstrip("/"))
            # In a container, the group's path may be the one outside of it, and its files are in
            # the root.
            for each in dict.fromkeys([group, *group.parents, PurePosixPath()]):
                left = _left(hierarchy, hierarchy.root / each)
                if left is not None:
                    yield left


def _left(hierarchy: Hierarchy, folder: Path) -> int | None:
    try:
        limit = int((folder / hierarchy.limit).read_text())
        usage = int((folder / hierarchy.usage).read_text())
        numbers = dict(
            line.split(" ", 1) for line in (folder / "memory.stat").read_text().splitlines()
        )
        usage -= int(numbers.get(hierarchy.reclaimable, 0))
    except (OSError, ValueError):
        return None  # No such group, or no limit, which is the word `max`.
    return max(0, limit - max(0, usage))
