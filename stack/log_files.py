"""Log files of bounded size: the newest lines in `name.log`, older ones in `name.log.1` and so on.

The processes write to their log files directly, so that none is blocked when the launcher dies. A
file that has grown too large is therefore copied and truncated in place; all writers append.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import count
from pathlib import Path


def _older(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")


def rotate(log: Path, *, keep: int) -> None:
    """Move the content to `name.log.1`, and shift the older files; `keep` of them are kept."""
    for number in range(keep, 1, -1):
        if _older(log, number - 1).exists():
            _older(log, number - 1).replace(_older(log, number))
    for number in count(keep + 1):
        if not _older(log, number).exists():
            break
        _older(log, number).unlink()
    with log.open("r+b") as source, _older(log, 1).open("wb") as copy:
        # Lines written during the copy are copied too, except in the last few microseconds.
        while piece := source.read(1 << 20):
            copy.write(piece)
        os.ftruncate(source.fileno(), 0)


def rotate_large(folder: Path, max_bytes: int, *, keep: int) -> list[Path]:
    """Rotate the log files larger than `max_bytes`; returns those that were rotated."""
    large = [log for log in sorted(folder.glob("*.log")) if log.stat().st_size > max_bytes]
    for log in large:
        rotate(log, keep=keep)
    return large


def last_lines(log: Path, lines: int) -> list[str]:
    """The newest `lines` lines, oldest first, also from rotated files."""
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
