"""Identifies the watched folder, to notice when another folder takes its place."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from imaging.sources.mounts import MountTable
from producers.folder.tree import RootGone


@dataclass(frozen=True, slots=True)
class RootIdentity:
    """Device and inode of the root, and the file systems mounted at it or below it."""

    device: int
    inode: int
    table: MountTable


def identify_root(root: Path) -> RootIdentity:
    """Identify the folder that is at the path now. Blocks: call it in a thread.

    Raises:
        RootGone: it is missing, not a folder, or cannot be read.
    """
    try:
        with os.scandir(root):
            status = root.stat()
    except OSError as error:
        raise RootGone(f"{root}: {error.strerror or error}") from error
    return RootIdentity(status.st_dev, status.st_ino, MountTable.read(root))
