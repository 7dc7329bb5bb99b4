"""File systems mounted below a watched folder; each can be unmounted together with its images."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Self

_TABLE: Final = Path("/proc/self/mountinfo")
_ON_DEMAND: Final = b"autofs"
"""Marks a path where a file system is mounted on access; holds no files itself."""


@dataclass(frozen=True, slots=True)
class Mounts:
    """The mount points below a folder, and elsewhere.

    Identified by path, as device numbers change between boots. `points` are POSIX paths relative to
    `root`; `elsewhere` are absolute paths of mounts that are neither below it nor contain it.
    """

    root: str = ""
    points: frozenset[str] = frozenset()
    elsewhere: frozenset[str] = frozenset()

    def has(self, mount: str) -> bool:
        """Whether something is mounted at a mount point that `of` or `of_real` returned."""
        return mount in (self.elsewhere if mount.startswith("/") else self.points)

    def of(self, path: str) -> str | None:
        """The innermost mount point at or above the path; None for the folder's own file system."""
        return _innermost(self.points, path) if self.points else None

    def of_real(self, real: str) -> str | None:
        """As `of`, for an absolute path without links."""
        inside = f"{self.root.rstrip('/')}/"
        if f"{real}/".startswith(inside):
            return self.of(real[len(inside) :])
        return _innermost(self.elsewhere, real)


def _innermost(points: frozenset[str], path: str) -> str | None:
    while path:
        if path in points:
            return path
        path = path.rpartition("/")[0]
    return None


class _Row(NamedTuple):
    number: bytes
    parent: bytes
    mount_point: bytes
    kind: bytes
    identity: str


@dataclass(frozen=True, slots=True)
class MountTable:
    """The part of the system's mount table that concerns a folder (proc_pid_mountinfo(5)).

    `entries` distinguish different mounts at the same path, as mounting raises no file events. A
    mount's number is not enough: the next mount may get it again. None if the system has no such
    table.
    """

    entries: frozenset[str] | None
    mounts: Mounts = field(compare=False)

    @classmethod
    def has(cls, root: Path, mount: str) -> bool:
        """Whether something is mounted at `mount` now; see `Mounts.has`. Blocks.

        Unlike `ismount`, the table also shows bind mounts within one file system.
        """
        table = cls.read(root)
        return os.path.ismount(root / mount) if table.entries is None else table.mounts.has(mount)

    @classmethod
    def read(cls, root: Path) -> Self:
        """The table as it is now. Blocks."""
        try:
            rows = [_row(line) for line in _TABLE.read_bytes().splitlines()]
        except FileNotFoundError:
            return cls(None, Mounts(str(root)))
        folder = os.fsencode(root)
        inside = folder.rstrip(b"/") + b"/"
        entries = frozenset(
            row.identity
            for row in rows
            if row.mount_point == folder or row.mount_point.startswith(inside)
        )
        points, elsewhere = set(), set()
        for row in _visible(rows):
            if row.kind == _ON_DEMAND:
                continue
            if row.mount_point.startswith(inside):
                points.add(os.fsdecode(row.mount_point[len(inside) :]))
            elif not inside.startswith(row.mount_point.rstrip(b"/") + b"/"):
                elsewhere.add(os.fsdecode(row.mount_point))
        return cls(entries, Mounts(str(root), frozenset(points), frozenset(elsewhere)))


def _row(line: bytes) -> _Row:
    before, _, after = line.partition(b" - ")
    number, parent, device, within, mount_point = before.split(b" ", 5)[:5]
    kind, source = after.split(b" ", 2)[:2]
    identity = os.fsdecode(b" ".join((number, parent, device, within, mount_point, kind, source)))
    return _Row(number, parent, unescape(mount_point), kind, identity)


def _visible(rows: list[_Row]) -> list[_Row]:
    """The mounts that are not hidden below another mount."""
    by_number = {row.number: row for row in rows}
    mount_points: dict[bytes, set[bytes]] = {}
    for row in rows:
        mount_points.setdefault(row.parent, set()).add(row.mount_point)

    def is_covered(row: _Row) -> bool:
        above, siblings = row.mount_point.rpartition(b"/")[0], mount_points[row.parent]
        while above:
            if above in siblings:
                return True
            above = above.rpartition(b"/")[0]
        return False

    found = []
    for row in rows:
        line, here = [row.number], row
        while not is_covered(here):
            parent = by_number.get(here.parent)
            if parent is None or parent.number in line:
                found.append(row)
                break
            line.append(parent.number)
            here = parent
    return found


def unescape(mount_point: bytes) -> bytes:
    r"""The path of a mount point in the table, with its octal escapes (`\040`) decoded."""
    first, *others = mount_point.split(b"\\")
    return first + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in others)
