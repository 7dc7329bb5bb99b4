"""Holds changed paths until each has been unchanged long enough to be examined."""

from __future__ import annotations

import heapq
from collections.abc import Container
from dataclasses import dataclass
from typing import Final

from producers.known_image import FileStat

PATIENCE_SECONDS: Final = 30.0
"""A file that is open for writing but unchanged for this long is published as it is."""


@dataclass(slots=True)
class Waiting:
    """One path: when to examine it, what was seen, and whether a writer may have it open."""

    due: float
    maybe_open: bool = False
    seen: FileStat | None = None
    unchanged_since: float = 0.0


class Settling:
    """A queue of paths by due time, each at most once. Times are seconds of `time.monotonic()`."""

    def __init__(self, quiet_seconds: float) -> None:
        self.quiet_seconds = quiet_seconds
        self._waiting: dict[str, Waiting] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def touch(
        self,
        path: str,
        now: float,
        *,
        writing: bool | None = None,
        seen: FileStat | None = None,
    ) -> None:
        """Note a change of this path: examine it once it has been unchanged for a while.

        Args:
            path: relative to the root.
            now: the present time.
            writing: True if it was written to, False if it was closed or moved, None if unknown.
            seen: its present size and time, if known.
        """
        waiting = self._waiting.get(path)
        if waiting is None:
            waiting = self._waiting[path] = Waiting(due=0.0, unchanged_since=now)
        if writing is not None:
            waiting.maybe_open = writing
        if seen is None or seen != waiting.seen:
            waiting.unchanged_since = now
        waiting.seen = seen
        self._schedule(path, waiting, now + self.quiet_seconds)

    def again(self, path: str, waiting: Waiting, seen: FileStat, now: float) -> None:
        """Put back a path that is not complete, unless an event already has."""
        if path in self._waiting:
            return
        if seen != waiting.seen:
            waiting.seen, waiting.unchanged_since = seen, now
        self._waiting[path] = waiting
        self._schedule(path, waiting, now + max(self.quiet_seconds, 0.05))

    def take_due(
        self, now: float, limit: int, busy: Container[str] = ()
    ) -> list[tuple[str, Waiting]]:
        """Remove and return at most `limit` paths that are due, the longest waiting first.

        Paths in `busy` stay in the queue.
        """
        taken: list[tuple[str, Waiting]] = []
        left: list[tuple[float, str]] = []
        while self._heap and len(taken) < limit and self._heap[0][0] <= now:
            due, path = heapq.heappop(self._heap)
            waiting = self._waiting.get(path)
            if waiting is None or waiting.due != due:
                continue  # changed again, and due later
            if path in busy:
                left.append((due, path))
                continue
            del self._waiting[path]
            taken.append((path, waiting))
        for entry in left:
            heapq.heappush(self._heap, entry)
        return taken

    def next_due(self) -> float | None:
        """When the next path is due; None if the queue is empty."""
        while self._heap:
            due, path = self._heap[0]
            waiting = self._waiting.get(path)
            if waiting is not None and waiting.due == due:
                return due
            heapq.heappop(self._heap)
        return None

    def _schedule(self, path: str, waiting: Waiting, due: float) -> None:
        waiting.due = due
        heapq.heappush(self._heap, (due, path))
        # Paths that change repeatedly leave stale entries; limit their number.
        if len(self._heap) > 64 + 4 * len(self._waiting):
            self._heap = [(entry.due, key) for key, entry in self._waiting.items()]
            heapq.heapify(self._heap)
