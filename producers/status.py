"""The watcher's status as a small JSON file, for the `status` command and for users."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from adapters.watcher_status import skipped_file
from producers.folder.pipeline import ChangeCounters
from producers.folder.reconcile import Difference
from producers.log.refused_files import escape_path
from producers.skipped import SkippedFiles

logger = logging.getLogger(__name__)

PROGRESS_SECONDS: Final = 5.0


class ScanProgressLog:
    """Logs the progress of a slow scan periodically."""

    def __init__(self) -> None:
        self._logged_at = time.monotonic()

    def log_if_due(self, running: Difference, before: int, published: int) -> None:
        """Log a line, unless the scan has just begun or a line was just logged.

        Args:
            running: the scan.
            before: number of images known at its start. The estimate assumes that the tree has
                not changed much; a first scan has no estimate.
            published: number of additions that this process has published.
        """
        now = time.monotonic()
        if now - max(self._logged_at, running.started) < PROGRESS_SECONDS:
            return
        self._logged_at = now
        rate = running.images / (now - running.started)
        left = max(before - running.images, 0) / rate if rate else 0.0
        logger.info(
            "compared %d pictures so far (%.0f/s%s), %d published",
            running.images,
            rate,
            f", about {left:.0f} s left" if left else "",
            published,
        )


def _nothing() -> None:
    return None


@dataclass
class Status:
    """The status of one source; numbers count images.

    `location` is the path of its folder or the URL of its bucket.
    """

    location: str
    attached: bool = False
    root_missing: str = ""
    unreachable: str = ""
    waiting: int = 0
    held: int = 0
    held_reason: str = ""
    overflows: int = 0
    poll_seconds: float = 0.0
    last_reconcile: datetime | None = None
    counters: ChangeCounters = field(default_factory=ChangeCounters)
    skipped: SkippedFiles = field(default_factory=SkippedFiles)
    known: Callable[[], int] = lambda: 0
    write_soon: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the status file is to be written before its next regular time."""
    scanning: Callable[[], Difference | None] = _nothing
    at_work: Callable[[], int] = int
    """How much is being compared, examined or published now, without paths still settling."""
    steps: Callable[[], object] = _nothing
    """Changes with each progress of that work."""

    def reconciled(self) -> None:
        """Record the end of a comparison of the whole folder."""
        self.last_reconcile = datetime.now(UTC)
        self.write_soon.set()

    @property
    def state(self) -> str:
        """The state in a few words."""
        if self.root_missing:
            return "folder missing"
        if self.unreachable:
            return "not reachable"
        return "removals held back" if self.held else "watching"

    def as_dict(self) -> dict[str, object]:
        """The status in plain types."""
        running = self.scanning()
        return {
            "place": self.location,
            "state": self.state,
            "problem": self.root_missing or self.unreachable or self.held_reason,
            "known": self.known(),
            "waiting": self.waiting,
            "held_removals": self.held,
            "scanned": running.images if running is not None else None,
            "last_reconcile": self.last_reconcile.isoformat() if self.last_reconcile else None,
            "poll_seconds": self.poll_seconds,
            "dropped_event_bursts": self.overflows,
            "published": self.counters.added,
            "removed": self.counters.removed,
            "refused": self.counters.refused,
            "unreadable": len(self.counters.unreadable),
            "skipped": self.skipped.counts(),
        }


def write_status(path: Path, main: Status, sources: Mapping[str, Status]) -> None:
    """Replace the file atomically; the main folder's status is at the top level."""
    content = {
        "written_at": datetime.now(UTC).isoformat(),
        **main.as_dict(),
        "sources": {name: status.as_dict() for name, status in sources.items()},
    }
    _replace(path, content)


class SkippedReport:
    """Writes the names of skipped files into a file beside the status, when they change.

    There may be very many names. Writing takes at most a twentieth of the time, except when a
    command waits for the file.
    """

    def __init__(self, status_file: Path) -> None:
        self._path = skipped_file(status_file)
        self._versions: object = None
        self._due = 0.0

    def write(self, sources: Mapping[str, SkippedFiles], *, now: bool) -> None:
        """Replace the file; the main folder's name is empty. Blocks."""
        versions = {name: skipped.version for name, skipped in sources.items()}
        started = time.monotonic()
        if versions == self._versions or (started < self._due and not now):
            return
        content = {
            name: {
                "counts": skipped.counts(),
                "names": {
                    reason: [path if path.isascii() else escape_path(path) for path in paths]
                    for reason, paths in skipped.names().items()
                },
            }
            for name, skipped in sources.items()
        }
        _replace(self._path, {"written_at": datetime.now(UTC).isoformat(), "sources": content})
        self._versions = versions
        self._due = time.monotonic() + 20 * (time.monotonic() - started)


def _replace(path: Path, content: Mapping[str, object]) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)
