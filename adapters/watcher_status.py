"""What the watcher says of itself in files, for whoever else runs on the machine."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

STALE_SECONDS: Final = 60.0
"""A watcher that runs writes its status every half second."""


def skipped_file(status_file: Path) -> Path:
    """Where the names of what was passed over are, beside the watcher's status."""
    return status_file.with_name(f"{status_file.stem}-skipped.json")


@dataclass(frozen=True, slots=True)
class Skipped:
    """What was passed over in all sources: counts, and paths as image ids would be, by reason.

    Of very many of one reason not all paths are there; the path of a folder ends with a slash.
    """

    counts: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)


def skipped_counts(status_file: Path) -> dict[str, int] | None:
    """How much was passed over, by reason; None where that is not known. Blocks.

    So it is where the watcher has not compared every source since its start, or has not written
    for a while.
    """
    counts: Counter[str] = Counter()
    try:
        told = json.loads(status_file.read_text(encoding="utf-8"))
        age = (datetime.now(UTC) - datetime.fromisoformat(told["written_at"])).total_seconds()
        if age > STALE_SECONDS:
            return None
        for each in (told, *told["sources"].values()):
            if each["last_reconcile"] is None:
                return None
            counts.update({str(reason): int(count) for reason, count in each["skipped"].items()})
    # What is there may be of a former version, or no status at all.
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return dict(counts)


def skipped(status_file: Path) -> Skipped | None:
    """What was passed over, with names; None where the watcher has not said. Blocks."""
    try:
        told: Any = json.loads(skipped_file(status_file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    found = Skipped()
    for source, each in told["sources"].items():
        prefix = f"{source}/" if source else ""
        found.counts.update(each["counts"])
        for reason, paths in each["names"].items():
            found.names.setdefault(reason, []).extend(prefix + path for path in paths)
    return found
