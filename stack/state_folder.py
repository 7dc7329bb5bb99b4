"""The folder that holds all that a stack stores: whose it is, and how it is emptied.

`clean` deletes whole folders, so it must be sure that they are ours. A folder is marked before
anything is put into it, only if it is empty or an earlier version has used it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stack.errors import StackError

MARKER: Final = ".image-search-state"
_TEXT: Final = "This folder is managed by image-search; `make clean` deletes what it made here.\n"
MADE: Final = (
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
"""All that is ever made directly in it."""
_EVIDENCE: Final = "run/lock"
"""Every launcher makes it, also that of a version without the marker."""
DEFAULT: Final = Path(__file__).resolve().parents[1] / ".stack"
_MOUNTS: Final = Path("/proc/self/mountinfo")


def claim(state: Path) -> None:
    """Make the folder, and mark it as ours.

    Raises:
        StackError: it holds something that is not ours.
    """
    state.mkdir(parents=True, exist_ok=True)
    if (state / MARKER).exists():
        return
    held = sorted(path.name for path in state.iterdir())
    if held and not _is_ours(state):
        raise StackError(
            f"STATE_DIR {state} holds {_some(held)}, which image-search did not put there; "
            "name a folder that is empty or does not exist"
        )
    (state / MARKER).write_text(_TEXT)


def empty(state: Path, sources: Sequence[Path]) -> list[str]:
    """Delete all that was made in the folder, and the folder itself if nothing else is in it.

    Returns:
        What was left, as it is not ours.

    Raises:
        StackError: the folder is not ours, or lies in a source of pictures, or holds one, or holds
            a mounted file system; nothing was deleted. Or something could not be deleted.
    """
    if not state.exists():
        return []
    if not (state / MARKER).exists():
        raise StackError(
            f"{state} was not made by image-search, or by a version that left no mark in it, so "
            "nothing in it is deleted; `up` marks a folder of such a version"
        )
    for source in sources:
        if source.is_relative_to(state) or state.is_relative_to(source):
            raise StackError(
                f"the state {state} and the pictures {source} lie in one another, so nothing is "
                "deleted; move one of them"
            )
    for mount in _mounts_below(state):
        raise StackError(f"a file system is mounted at {mount}, so nothing is deleted; unmount it")
    for name in MADE:
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
            # Of a link, the link alone: where it leads to was made by somebody else.
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StackError(f"{path} could not be deleted: {error}") from error


def _is_ours(state: Path) -> bool:
    """Whether a folder without the marker holds what a launcher leaves and, as anybody may have a
    folder `logs` or a file `models.json`, nothing else.

    Into the default one also a gateway or a consumer writes that is started by itself.
    """
    known = (state / _EVIDENCE).is_file() or state.resolve() == DEFAULT
    return known and {path.name for path in state.iterdir()} <= {*MADE}


def _mounts_below(folder: Path) -> list[str]:
    """Places below the folder, or the folder itself, where a file system is mounted."""
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    places = [_unescaped(line.split(b" ", 5)[4]) for line in lines]
    return sorted(place for place in places if Path(place).is_relative_to(folder))


def _unescaped(place: bytes) -> str:
    r"""A path of mountinfo: white space and backslashes are in octal there (`\040`)."""
    parts = place.split(b"\\")
    text = parts[0] + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in parts[1:])
    return os.fsdecode(text)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
