"""Waiting out a short outage, so that a server's restart costs a search time and not its answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from adapters.errors import Unavailable

T = TypeVar("T")

PAUSE_SECONDS: Final = 0.5
"""Attempts are this far apart at most; half of it on average, so that they do not come at once."""


class Patience:
    """Repeats what meets an outage until the outage, not the request, is `seconds` old.

    So whoever asks during a restart is answered late, and whoever asks while a server is down for
    good is told so at once. Two failures belong to one outage if less than `seconds` lie between.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = self._last = float("-inf")

    async def __call__(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What the attempt answers.

        Raises:
            Unavailable: as the attempt did, when the outage has lasted too long.
        """
        while True:
            try:
                return await attempt()
            except Unavailable:
                if self._lasting() >= self._seconds:
                    raise
            await asyncio.sleep(random.uniform(0, PAUSE_SECONDS))  # noqa: S311  # no secret

    def _lasting(self) -> float:
        """For how many seconds the outage that was met just now has been known."""
        now = time.monotonic()
        if now - self._last > self._seconds:
            self._began = now
        self._last = now
        return now - self._began
