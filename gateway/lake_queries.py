"""Questions to the event lake: few at once, each once, and none that nobody waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

from analytics.engine import Bounds, Stop, Stopped
from analytics.lake import Lake
from gateway.single_flight import Shared

logger = logging.getLogger(__name__)

T = TypeVar("T")

CONCURRENT: Final = 2
"""Questions that are worked on at once."""
AGAIN_SECONDS: Final = 0.05
"""After which work that has not ended yet is interrupted again."""


class LakeQuestions:
    """Asks the lake on behalf of requests."""

    def __init__(self, lake_url: str, bounds: Bounds) -> None:
        """`bounds` are those of each of the `CONCURRENT` questions."""
        self._lake_url = lake_url
        self._bounds = bounds
        self._slots = asyncio.Semaphore(CONCURRENT)
        # Its own threads: those of the whole process serve pictures, too.
        self._threads = ThreadPoolExecutor(CONCURRENT, thread_name_prefix="analytics")
        self._shared: Shared[Hashable, Any] = Shared()

    async def ask(self, key: Hashable, question: Callable[[Lake, Bounds, Stop], T]) -> T:
        """The answer; callers that ask for the same key at the same time share one.

        When the last of them is cancelled, the work is interrupted.

        Raises:
            Unavailable: the lake is empty, cannot be read, or the bounds do not suffice.
        """
        return cast(T, await self._shared.get(key, lambda: self._answer(question)))

    async def _answer(self, question: Callable[[Lake, Bounds, Stop], T]) -> T:
        async with self._slots:
            return await self._in_thread(question)

    async def _in_thread(self, question: Callable[[Lake, Bounds, Stop], T]) -> T:
        """Returns or raises once the thread is at its end, and not before."""
        stop = Stop()
        work = asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: question(Lake(self._lake_url), self._bounds, stop)
        )
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            while not work.done():
                stop.now()
                # A second cancellation changes nothing: a thread cannot be left.
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([work], timeout=AGAIN_SECONDS)
            if (error := work.exception()) is not None and not isinstance(error, Stopped):
                logger.warning("a question that was given up had failed", exc_info=error)
            raise
        return work.result()
