"""Retrying during a short outage: a server's restart delays a search but does not fail it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from adapters.errors import Unavailable

T = TypeVar("T")

PAUSE_SECONDS: Final = 0.5
"""The maximum pause between attempts. It is random, so that attempts are spread out."""


class OutageRetry:
    """Repeats a call that fails until the outage, not the request, has lasted `seconds`.

    So a request during a restart is answered late, and one during a lasting outage fails at once.
    Two failures belong to one outage if less than `seconds` lie between them.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = self._last = float("-inf")

    async def __call__(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of the attempt.

        Raises:
            Unavailable: the attempt's error, once the outage has lasted `seconds`.
        """
        while True:
            try:
                return await attempt()
            except Unavailable:
                if self._outage_seconds() >= self._seconds:
                    raise
            await asyncio.sleep(random.uniform(0, PAUSE_SECONDS))  # noqa: S311  # no secret

    def _outage_seconds(self) -> float:
        """For how many seconds the current outage has lasted; counts this failure."""
        now = time.monotonic()
        if now - self._last > self._seconds:
            self._began = now
        self._last = now
        return now - self._began
