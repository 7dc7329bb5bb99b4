"""Stopping a stack, and deleting what it stored."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from stack import state_folder
from stack.record import RecordFile
from stack.record import stop as stop_recorded
from stack.settings import StackSettings


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What `clean` deleted, and what it left."""

    deleted: int
    """Bytes that the state folder took and no longer takes on its disk."""
    left: list[Path]
    """What is in the state folder without being the stack's."""


def down(settings: StackSettings) -> list[str]:
    """Stop the stack of this state folder; see `stack.record.stop`."""
    return stop_recorded(RecordFile(settings.run))


def clean(settings: StackSettings) -> Cleaned:
    """Stop the stack and delete everything it stored; the cache and the images stay.

    Raises:
        StackError: see `stack.state_folder.empty`.
    """
    down(settings)
    before = disk_bytes(settings.state)
    names = state_folder.empty(settings.state, settings.image_folders)
    deleted = before - disk_bytes(settings.state)
    return Cleaned(deleted=deleted, left=[settings.state / name for name in names])


def disk_bytes(*folders: Path) -> int:
    """What folders take on their disks: a file with several names counts once.

    What cannot be read counts as nothing.
    """
    sizes: dict[tuple[int, int], int] = {}
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for path in (parent, *(f"{parent}/{name}" for name in names)):
                try:
                    found = os.lstat(path)
                except OSError:
                    continue  # It was deleted meanwhile.
                sizes[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(sizes.values())
