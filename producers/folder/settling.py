"""Paths that something happened to, until each has been quiet long enough to be looked at."""

from __future__ import annotations

import heapq
from collections.abc import Container
from dataclasses import dataclass
from typing import Final

from producers.folder.tree import FileStat

PATIENCE_SECONDS: Final = 30.0
"""A file that is open for writing but unchanged for this long is published as it is."""


@dataclass(slots=True)
class Waiting:
    """One path: when to look, what was seen, and whether a writer seems to have it open."""

    due: float
    maybe_open: bool = False
    seen: FileStat | None = None
    unchanged_since: float = 0.0


class Settling:
    """A queue by due time in which each path stands once. Times are `time.monotonic()` seconds."""

    def __init__(self, quiet_seconds: float) -> None:
        self.quiet_seconds = quiet_seconds
        self._waiting: dict[str, Waiting] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def touch(
        self,
        image_id: str,
        now: float,
        *,
        writing: bool | None = None,
        seen: FileStat | None = None,
    ) -> None:
        """Something happened to this path: look at it when it has been quiet.

        Args:
            image_id: the path.
            now: the present.
            writing: True if it was written to, False if it was closed or moved; None: unknown.
            seen: its size and time at the moment, where somebody looked.
        """
        waiting = self._waiting.get(image_id)
        if waiting is None:
            waiting = self._waiting[image_id] = Waiting(due=0.0, unchanged_since=now)
        if writing is not None:
            waiting.maybe_open = writing
        if seen is None or seen != waiting.seen:
            waiting.unchanged_since = now
        waiting.seen = seen
        self._schedule(image_id, waiting, now + self.quiet_seconds)

    def again(self, image_id: str, waiting: Waiting, seen: FileStat, now: float) -> None:
        """It was looked at and is not complete: put it back, unless an event already has."""
        if image_id in self._waiting:
            return
        if seen != waiting.seen:
            waiting.seen, waiting.unchanged_since = seen, now
        self._waiting[image_id] = waiting
        self._schedule(image_id, waiting, now + max(self.quiet_seconds, 0.05))

    def take_due(
        self, now: float, limit: int, busy: Container[str] = ()
    ) -> list[tuple[str, Waiting]]:
        """Remove and return at most `limit` paths that are due, the longest waiting first.

        Those in `busy` are left where they are.
        """
        taken: list[tuple[str, Waiting]] = []
        left: list[tuple[float, str]] = []
        while self._heap and len(taken) < limit and self._heap[0][0] <= now:
            due, image_id = heapq.heappop(self._heap)
            waiting = self._waiting.get(image_id)
            if waiting is None or waiting.due != due:
                continue  # it was touched again and stands further back
            if image_id in busy:
                left.append((due, image_id))
                continue
            del self._waiting[image_id]
            taken.append((image_id, waiting))
        for entry in left:
            heapq.heappush(self._heap, entry)
        return taken

    def next_due(self) -> float | None:
        """When the next path is due; None if none waits."""
        while self._heap:
            due, image_id = self._heap[0]
            waiting = self._waiting.get(image_id)
            if waiting is not None and waiting.due == due:
                return due
            heapq.heappop(self._heap)
        return None

    def _schedule(self, image_id: str, waiting: Waiting, due: float) -> None:
        waiting.due = due
        heapq.heappush(self._heap, (due, image_id))
        # Paths that are touched over and over leave stale entries behind: bound them.
        if len(self._heap) > 64 + 4 * len(self._waiting):
            self._heap = [(entry.due, key) for key, entry in self._waiting.items()]
            heapq.heapify(self._heap)
