"""Which folders are to be compared, and when."""

from __future__ import annotations

import asyncio
import contextlib
import time


class Schedule:
    """Folders and the earliest time each was asked for."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._asked = asyncio.Event()

    def ask(self, top: str, delay: float) -> None:
        """Have a folder ("" is the root) compared in so many seconds, or before if so asked."""
        due = time.monotonic() + delay
        self._due[top] = min(self._due.get(top, due), due)
        self._asked.set()

    def take(self) -> list[str]:
        """Folders to compare now; one below another is part of that one's comparison."""
        now = time.monotonic()
        due = {top for top, when in self._due.items() if when <= now}
        for top in due:
            del self._due[top]
        return [top for top in sorted(due) if not any(above in due for above in _above(top))]

    async def wait(self) -> None:
        """Return when one may be due."""
        self._asked.clear()
        next_due = min(self._due.values(), default=None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(
                None if next_due is None else max(next_due - time.monotonic(), 0.0)
            ):
                await self._asked.wait()


def _above(directory: str) -> list[str]:
    parts = directory.split("/") if directory else []
    return ["/".join(parts[:count]) for count in range(len(parts))]
