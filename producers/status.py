"""What the watcher is doing, as a small JSON file for `status` and for people."""

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
from producers.folder.pipeline import Counters
from producers.folder.reconcile import Difference
from producers.refused_files import escaped
from producers.skipped import Passed

logger = logging.getLogger(__name__)

PROGRESS_SECONDS: Final = 5.0


class Progress:
    """Says now and then how far a slow scan is."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def tell(self, running: Difference, before: int, published: int) -> None:
        """Log a line, unless the scan is young or the last line is.

        Args:
            running: the scan.
            before: how many pictures were known at its start: the tree is about as large as it
                was, and a first scan has nothing to go by.
            published: how many additions this process has published.
        """
        now = time.monotonic()
        if now - max(self._told, running.started) < PROGRESS_SECONDS:
            return
        self._told = now
        rate = running.pictures / (now - running.started)
        left = max(before - running.pictures, 0) / rate if rate else 0.0
        logger.info(
            "compared %d pictures so far (%.0f/s%s), %d published",
            running.pictures,
            rate,
            f", about {left:.0f} s left" if left else "",
            published,
        )


def _nothing() -> None:
    return None


@dataclass
class Status:
    """The present state of affairs; numbers count pictures."""

    place: str
    attached: bool = False
    root_missing: str = ""
    unreachable: str = ""
    waiting: int = 0
    held: int = 0
    held_reason: str = ""
    overflows: int = 0
    poll_seconds: float = 0.0
    last_reconcile: datetime | None = None
    counters: Counters = field(default_factory=Counters)
    passed: Passed = field(default_factory=Passed)
    known: Callable[[], int] = lambda: 0
    told: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when something is to be known before the next regular writing."""
    scanning: Callable[[], Difference | None] = _nothing
    at_work: Callable[[], int] = int
    """How much is being compared, looked at or published now; not what has to settle first."""
    steps: Callable[[], object] = _nothing
    """Differs from its former value whenever something of that was done."""

    def reconciled(self) -> None:
        """A comparison of the whole folder has ended."""
        self.last_reconcile = datetime.now(UTC)
        self.told.set()

    @property
    def state(self) -> str:
        """In two words, how it is."""
        if self.root_missing:
            return "folder missing"
        if self.unreachable:
            return "not reachable"
        return "removals held back" if self.held else "watching"

    def as_dict(self) -> dict[str, object]:
        """The status in plain types."""
        running = self.scanning()
        return {
            "place": self.place,
            "state": self.state,
            "problem": self.root_missing or self.unreachable or self.held_reason,
            "known": self.known(),
            "waiting": self.waiting,
            "held_removals": self.held,
            "scanned": running.pictures if running is not None else None,
            "last_reconcile": self.last_reconcile.isoformat() if self.last_reconcile else None,
            "poll_seconds": self.poll_seconds,
            "dropped_event_bursts": self.overflows,
            "published": self.counters.added,
            "removed": self.counters.removed,
            "refused": self.counters.refused,
            "unreadable": len(self.counters.unreadable),
            "skipped": self.passed.counts(),
        }


def write(path: Path, main: Status, sources: Mapping[str, Status]) -> None:
    """Replace the file, so that a reader never sees half of it: the main folder's state on top."""
    told = {
        "written_at": datetime.now(UTC).isoformat(),
        **main.as_dict(),
        "sources": {name: status.as_dict() for name, status in sources.items()},
    }
    _replace(path, told)


class SkippedFile:
    """Writes what was passed over by name into a file beside the status, where it changed.

    There may be very many names, so the file is not written more often than in a twentieth of the
    time, unless somebody waits for it.
    """

    def __init__(self, status_file: Path) -> None:
        self._path = skipped_file(status_file)
        self._versions: object = None
        self._due = 0.0

    def write(self, sources: Mapping[str, Passed], *, now: bool) -> None:
        """Replace the file; the main folder's name is empty. Blocks: call it in a thread."""
        versions = {name: passed.version for name, passed in sources.items()}
        started = time.monotonic()
        if versions == self._versions or (started < self._due and not now):
            return
        told = {
            name: {
                "counts": passed.counts(),
                "names": {
                    reason: [path if path.isascii() else escaped(path) for path in paths]
                    for reason, paths in passed.names().items()
                },
            }
            for name, passed in sources.items()
        }
        _replace(self._path, {"written_at": datetime.now(UTC).isoformat(), "sources": told})
        self._versions = versions
        self._due = time.monotonic() + 20 * (time.monotonic() - started)


def _replace(path: Path, told: Mapping[str, object]) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)
