"""Queries to the event lake: bounded in number, shared by callers, and cancelled with them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from analytics.engine import CancellationToken, QueryCancelled, QueryLimits
from gateway.single_flight import SingleFlight

if TYPE_CHECKING:
    from analytics.lake import Lake

logger = logging.getLogger(__name__)

T = TypeVar("T")

CONCURRENT: Final = 2
"""Queries that run at the same time."""
INTERRUPT_SECONDS: Final = 0.05
"""Pause between interruptions of a query that has not ended yet."""


class LakeQueries:
    """Runs queries in threads of their own."""

    def __init__(self, lake_url: str, limits: QueryLimits) -> None:
        """`limits` hold for each of the `CONCURRENT` queries."""
        self._lake_url = lake_url
        self._limits = limits
        self._slots = asyncio.Semaphore(CONCURRENT)
        # Threads of its own: the default ones read image files for other requests.
        self._threads = ThreadPoolExecutor(CONCURRENT, thread_name_prefix="analytics")
        self._shared: SingleFlight[Hashable, Any] = SingleFlight()

    async def result(
        self, key: Hashable, query: Callable[[Lake, QueryLimits, CancellationToken], T]
    ) -> T:
        """The result; callers that use the same key at the same time share one run.

        When the last of them is cancelled, the query is interrupted.

        Raises:
            Unavailable: the lake is empty, cannot be read, or the bounds do not suffice.
        """
        return cast(T, await self._shared.get(key, lambda: self._answer(query)))

    async def _answer(self, query: Callable[[Lake, QueryLimits, CancellationToken], T]) -> T:
        async with self._slots:
            return await self._in_thread(query)

    async def _in_thread(self, query: Callable[[Lake, QueryLimits, CancellationToken], T]) -> T:
        """Run the query; returns or raises only after the thread has finished."""
        cancellation = CancellationToken()
        work = asyncio.get_running_loop().run_in_executor(
            self._threads, self._run, query, cancellation
        )
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            while not work.done():
                cancellation.cancel()
                # A second cancellation has no effect: the thread must finish first.
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([work], timeout=INTERRUPT_SECONDS)
            if (error := work.exception()) is not None and not isinstance(error, QueryCancelled):
                logger.warning("a query of the lake failed after it was cancelled", exc_info=error)
            raise
        return work.result()

    def _run(
        self,
        query: Callable[[Lake, QueryLimits, CancellationToken], T],
        cancellation: CancellationToken,
    ) -> T:
        # Arrow and DuckDB are imported with the first query, in its thread: a gateway that nobody
        # asks for figures takes less memory without them.
        from analytics.lake import Lake

        return query(Lake(self._lake_url), self._limits, cancellation)
