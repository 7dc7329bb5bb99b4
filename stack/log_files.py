"""Logs of bounded size: the newest lines in `name.log`, older ones in `name.log.1` and so on.

The processes write into their files themselves, so that none is held up when the launcher dies. So
a file that has grown is copied and then emptied, which works as all of them append.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import count
from pathlib import Path


def _older(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")


def rotate(log: Path, *, keep: int) -> None:
    """Move what was logged so far aside, to the newest of `keep` older files."""
    for number in range(keep, 1, -1):
        if _older(log, number - 1).exists():
            _older(log, number - 1).replace(_older(log, number))
    for number in count(keep + 1):
        if not _older(log, number).exists():
            break
        _older(log, number).unlink()
    with log.open("r+b") as source, _older(log, 1).open("wb") as copy:
        # What is written while this copies is copied as well, but for the last few microseconds.
        while piece := source.read(1 << 20):
            copy.write(piece)
        os.ftruncate(source.fileno(), 0)


def rotate_large(folder: Path, max_bytes: int, *, keep: int) -> list[Path]:
    """Rotate the logs of more than `max_bytes`; which they were."""
    large = [log for log in sorted(folder.glob("*.log")) if log.stat().st_size > max_bytes]
    for log in large:
        rotate(log, keep=keep)
    return large


def last_lines(log: Path, lines: int) -> list[str]:
    """The newest lines, over rotations, oldest first."""
    found: list[str] = []
    for file in _newest_first(log):
        found = file.read_text(errors="replace").splitlines() + found
        if len(found) >= lines:
            break
    return found[-lines:]


def _newest_first(log: Path) -> Iterable[Path]:
    yield log
    for number in count(1):
        if not _older(log, number).exists():
            return
        yield _older(log, number)
