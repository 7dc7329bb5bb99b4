"""Work that is done once for all callers that request its result at the same time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class _Run(Generic[T]):
    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.waiting = 0


class SingleFlight(Generic[K, T]):
    """Runs by key: a caller that requests a key whose run is in flight waits for that run.

    A caller that is cancelled does not cancel the run for the others. A run without callers is
    cancelled, unless runs are always finished.
    """

    def __init__(self, *, finish: bool = False) -> None:
        """With `finish`, a run is finished even if no caller waits for it any more."""
        self._finish = finish
        self._runs: dict[K, _Run[T]] = {}
        self._tasks: set[asyncio.Task[T]] = set()

    async def get(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        """The result of this key's run, which is started with `work` if none is in flight."""
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = self._begin(key, work)
        run.waiting += 1
        try:
            return await asyncio.shield(run.task)
        finally:
            run.waiting -= 1
            if not run.waiting and not run.task.done() and not self._finish:
                # The next caller must not get a cancelled run.
                self._forget(key, run)
                run.task.cancel()

    def _begin(self, key: K, work: Callable[[], Awaitable[T]]) -> _Run[T]:
        async def result() -> T:
            return await work()

        task = asyncio.create_task(result())
        run = _Run(task)
        self._tasks.add(task)

        def ended(task: asyncio.Task[T]) -> None:
            self._tasks.discard(task)
            self._forget(key, run)
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.debug("a shared run failed", exc_info=error)

        task.add_done_callback(ended)
        return run

    def _forget(self, key: K, run: _Run[T]) -> None:
        if self._runs.get(key) is run:
            del self._runs[key]
