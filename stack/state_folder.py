"""The state folder, which holds everything a stack stores: claiming and emptying it.

`clean` deletes whole folders, so it must be certain that they are ours. Therefore a folder is
marked before anything is written to it, and only if it is empty or was used by an earlier version.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stack.errors import StackError

MARKER: Final = ".image-search-state"
_MARKER_TEXT: Final = (
    "This folder is managed by image-search; `make clean` deletes what it made here.\n"
)
OWN_ENTRIES: Final = (
    "kafka",
    "weaviate",
    "triton",
    "lake",
    "logs",
    "run",
    "thumbnails",
    "jwt.secret",
    "models.json",
    "models.json.before",
    "models.json.lock",
    "models.json.part",
    "models.part",
)
"""Everything that is ever created directly in it."""
_LAUNCHER_LOCK: Final = "run/lock"
"""Created by every launcher, including those of versions without the marker."""
DEFAULT: Final = Path(__file__).resolve().parents[1] / ".stack"
_MOUNTS: Final = Path("/proc/self/mountinfo")


def claim(state: Path) -> None:
    """Create the folder, and mark it as ours.

    Raises:
        StackError: it contains something that is not ours.
    """
    state.mkdir(parents=True, exist_ok=True)
    if (state / MARKER).exists():
        return
    entries = sorted(path.name for path in state.iterdir())
    if entries and not _is_ours(state):
        raise StackError(
            f"STATE_DIR {state} contains {_some(entries)}, which image-search did not create; "
            "use a folder that is empty or does not exist"
        )
    (state / MARKER).write_text(_MARKER_TEXT)


def empty(state: Path, sources: Sequence[Path]) -> list[str]:
    """Delete everything created in the folder, and the folder itself if nothing else is in it.

    Returns:
        The names that are left in the folder, because they are not ours.

    Raises:
        StackError: the folder is not ours, lies within a source of images, or contains one or a
            mounted file system: then nothing was deleted. Or something could not be deleted.
    """
    if not state.exists():
        return []
    if not (state / MARKER).exists():
        raise StackError(
            f"{state} was not created by image-search, or by a version that did not mark it, so "
            "nothing in it is deleted; `up` marks a folder of such a version"
        )
    for source in sources:
        if source.is_relative_to(state) or state.is_relative_to(source):
            raise StackError(
                f"the state folder {state} and the picture folder {source} overlap, so nothing is "
                "deleted; move one of them"
            )
    for mount in _mounts_below(state):
        raise StackError(f"a file system is mounted at {mount}, so nothing is deleted; unmount it")
    for name in OWN_ENTRIES:
        _delete(state / name)
    left = sorted(path.name for path in state.iterdir() if path.name != MARKER)
    if not left:
        (state / MARKER).unlink(missing_ok=True)
        state.rmdir()
    return left


def _delete(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            # Of a symbolic link, only the link itself: its target is not ours.
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StackError(f"{path} could not be deleted: {error}") from error


def _is_ours(state: Path) -> bool:
    """Whether a folder without the marker holds what a launcher creates, and nothing else.

    Names like `logs` or `models.json` alone prove nothing, so the launcher's lock file is required,
    except in the default folder: a gateway or consumer started on its own writes there too.
    """
    known = (state / _LAUNCHER_LOCK).is_file() or state.resolve() == DEFAULT
    return known and {path.name for path in state.iterdir()} <= {*OWN_ENTRIES}


def _mounts_below(folder: Path) -> list[str]:
    """Mount points below the folder, including the folder itself."""
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    mounts = [_unescaped(line.split(b" ", 5)[4]) for line in lines]
    return sorted(mount for mount in mounts if Path(mount).is_relative_to(folder))


def _unescaped(path: bytes) -> str:
    r"""A path from mountinfo, where white space and backslashes are escaped in octal (`\040`)."""
    parts = path.split(b"\\")
    text = parts[0] + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in parts[1:])
    return os.fsdecode(text)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
