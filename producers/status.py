"""What the watcher is doing, as a small JSON file for `status` and for people."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from producers.publish import Counters
from producers.reconcile import Difference


def _nothing() -> None:
    return None


@dataclass
class Status:
    """The present state of affairs; numbers count pictures."""

    folder: Path
    attached: bool = False
    root_missing: str = ""
    waiting: int = 0
    held: int = 0
    held_reason: str = ""
    overflows: int = 0
    poll_seconds: float = 0.0
    last_reconcile: datetime | None = None
    counters: Counters = field(default_factory=Counters)
    known: Callable[[], int] = lambda: 0
    scanning: Callable[[], Difference | None] = _nothing

    def reconciled(self, difference: Difference) -> None:
        """A comparison of the whole folder has ended."""
        del difference
        self.last_reconcile = datetime.now(UTC)

    def as_dict(self) -> dict[str, object]:
        """The status in plain types."""
        running = self.scanning()
        return {
            "folder": str(self.folder),
            "written_at": datetime.now(UTC).isoformat(),
            "state": "folder missing"
            if self.root_missing
            else ("removals held back" if self.held else "watching"),
            "problem": self.root_missing or self.held_reason,
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
        }

    def write(self, path: Path) -> None:
        """Replace the file, so that a reader never sees half of it."""
        draft = path.with_name(f".{path.name}.new")
        draft.write_text(json.dumps(self.as_dict(), indent=2) + "\n", encoding="utf-8")
        draft.replace(path)
