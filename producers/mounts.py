"""File systems mounted below a watched folder: each can vanish by itself, with its pictures."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_TABLE: Final = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class Mounts:
    """What is mounted below a folder now.

    `points` are POSIX paths below it. Not device numbers, which another boot gives to others.
    """

    points: frozenset[str] = frozenset()

    def of(self, path: str) -> str | None:
        """The innermost mount point that the path is, or lies below; None for the folder's own."""
        if not self.points:
            return None
        while path:
            if path in self.points:
                return path
            path = path.rpartition("/")[0]
        return None


@dataclass(frozen=True, slots=True)
class MountTable:
    """The part of the system's mount table that concerns a folder (proc_pid_mountinfo(5)).

    `entries` tell one mount from another at the same place; a mount or an unmount inside the tree
    raises no event of the files that come or go with it.
    """

    entries: frozenset[str]
    mounts: Mounts

    @classmethod
    def read(cls, root: Path) -> Self:
        """The table as it is now. Blocks."""
        try:
            lines = _TABLE.read_bytes().splitlines()
        except FileNotFoundError:
            return cls(frozenset(), Mounts())
        folder = os.fsencode(root)
        inside = folder.rstrip(b"/") + b"/"
        entries, points = set(), set()
        for line in lines:
            fields = line.split(b" ", 5)
            place = unescaped(fields[4])
            if place == folder or place.startswith(inside):
                entries.add(os.fsdecode(fields[0] + b" " + place))
            if place.startswith(inside):
                points.add(os.fsdecode(place[len(inside) :]))
        return cls(frozenset(entries), Mounts(frozenset(points)))


def unescaped(place: bytes) -> bytes:
    r"""A path of the mount table, in which white space and backslashes are octal (`\040`)."""
    first, *others = place.split(b"\\")
    return first + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in others)
