"""The watcher's status files, for other processes on the machine."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

STALE_SECONDS: Final = 60.0
"""A status older than this is from a watcher that has stopped: it is written every half second."""


def skipped_file(status_file: Path) -> Path:
    """The file with the names of skipped files, beside the watcher's status."""
    return status_file.with_name(f"{status_file.stem}-skipped.json")


@dataclass(frozen=True, slots=True)
class Skipped:
    """What was skipped in all sources: counts and paths, by reason.

    Paths have the form of image ids; the path of a folder ends with a slash. If there are very many
    with one reason, not all paths are listed.
    """

    counts: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)


def skipped_counts(status_file: Path) -> dict[str, int] | None:
    """The number of skipped files, by reason; None if it is not known. Blocks.

    It is not known until the watcher has compared every source since its start, nor if the watcher
    has not written its status for a while.
    """
    counts: Counter[str] = Counter()
    try:
        status = json.loads(status_file.read_text(encoding="utf-8"))
        age = (datetime.now(UTC) - datetime.fromisoformat(status["written_at"])).total_seconds()
        if age > STALE_SECONDS:
            return None
        for each in (status, *status["sources"].values()):
            if each["last_reconcile"] is None:
                return None
            counts.update({str(reason): int(count) for reason, count in each["skipped"].items()})
    # The file may be of an earlier version, or no status at all.
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return dict(counts)


def skipped(status_file: Path) -> Skipped | None:
    """What was skipped, with names; None if the watcher has not written it. Blocks."""
    try:
        listed: Any = json.loads(skipped_file(status_file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    found = Skipped()
    for source, each in listed["sources"].items():
        prefix = f"{source}/" if source else ""
        found.counts.update(each["counts"])
        for reason, paths in each["names"].items():
            found.names.setdefault(reason, []).extend(prefix + path for path in paths)
    return found
