"""Whether the disks have room for a further model."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SpaceNeeded:
    """What will be written below a folder; the folder need not exist."""

    folder: Path
    size: int
    """Bytes."""
    reserve: float = 0.0
    """Share of the file system that must stay free, 0 to 1."""


def lack_of_space(needs: Iterable[SpaceNeeded]) -> str:
    """What is lacking, as a sentence; empty if there is room for everything.

    Folders on the same file system share its free space.
    """
    by_device: dict[int, list[SpaceNeeded]] = {}
    for need in needs:
        place = _existing(need.folder)
        by_device.setdefault(place.stat().st_dev, []).append(need)
    for shared in by_device.values():
        folder = _existing(shared[0].folder)
        usage = shutil.disk_usage(folder)
        wanted = sum(need.size for need in shared)
        reserve = int(max(need.reserve for need in shared) * usage.total)
        if usage.free < wanted + reserve:
            kept = f", and {reserve / 1e9:.1f} GB that have to stay free" if reserve else ""
            return (
                f"the disk of {folder} has {usage.free / 1e9:.1f} GB left; "
                f"needed are {wanted / 1e9:.1f} GB{kept}: free some space"
            )
    return ""


def _existing(folder: Path) -> Path:
    """The nearest folder above that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder
