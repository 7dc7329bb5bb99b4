"""Which folder stands at the watched path, so that another one in its place is noticed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from producers.tree import RootGone

_MOUNTS: Final = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class Identity:
    """Device and inode of the root, and the file systems mounted at it or below it."""

    device: int
    inode: int
    mounts: frozenset[str]


def identify(root: Path) -> Identity:
    """What stands at the path now. Blocks: call it in a thread.

    Raises:
        RootGone: it is missing, no folder, or cannot be read.
    """
    try:
        with os.scandir(root):
            status = root.stat()
    except OSError as error:
        raise RootGone(f"{root}: {error.strerror or error}") from error
    return Identity(status.st_dev, status.st_ino, _mounts(str(root)))


def _mounts(root: str) -> frozenset[str]:
    """Mount id and place of each file system below the root (proc_pid_mountinfo(5)).

    A mount or an unmount inside the tree raises no event of the files that come or go with it.
    """
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except FileNotFoundError:
        return frozenset()
    # Spaces and the like in a place are written in octal, and so they are in what we look for.
    escaped = root.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011")
    place = os.fsencode(escaped.replace("\n", "\\012"))
    inside = set()
    for line in lines:
        fields = line.split(b" ", 5)
        if fields[4] == place or fields[4].startswith(place.rstrip(b"/") + b"/"):
            inside.add(os.fsdecode(fields[0] + b" " + fields[4]))
    return frozenset(inside)
