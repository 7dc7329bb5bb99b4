"""Schedules the scans of folders."""

from __future__ import annotations

import asyncio
import contextlib
import time


class ScanSchedule:
    """Folders to scan, each with its earliest requested time."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._requested = asyncio.Event()

    def request(self, top: str, delay: float) -> None:
        """Schedule a scan of a folder ("" is the root) in `delay` seconds, or earlier."""
        due = time.monotonic() + delay
        self._due[top] = min(self._due.get(top, due), due)
        self._requested.set()

    def take(self) -> list[str]:
        """Folders to scan now. A folder below another one is part of that one's scan."""
        now = time.monotonic()
        due = {top for top, when in self._due.items() if when <= now}
        for top in due:
            del self._due[top]
        return [top for top in sorted(due) if not any(above in due for above in _above(top))]

    async def wait(self) -> None:
        """Wait until a scan may be due."""
        self._requested.clear()
        next_due = min(self._due.values(), default=None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(
                None if next_due is None else max(next_due - time.monotonic(), 0.0)
            ):
                await self._requested.wait()


def _above(directory: str) -> list[str]:
    parts = directory.split("/") if directory else []
    return ["/".join(parts[:count]) for count in range(len(parts))]
