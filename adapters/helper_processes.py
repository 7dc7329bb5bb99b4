"""A pool of helper processes, which exist only while there is work for them."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Final, TypeVar

from adapters.child_process import live_with_the_parent

P = TypeVar("P")
R = TypeVar("R")
logger = logging.getLogger(__name__)

CORES: Final = os.cpu_count() or 1
IDLE_SECONDS: Final = 10.0


def collect_garbage_seldom() -> None:
    """Raise the thresholds of Python's cyclic garbage collector.

    A million known images are millions of small, long-lived objects without cycles. With CPython's
    threshold of 700 new objects, collecting would take a third of the time.
    """
    gc.set_threshold(100_000, 20, 20)


class HelperDied(Exception):
    """The helper process ended before its work was done; it may have been killed."""


class HelperPool:
    """A pool of processes that starts on first use and ends when it has been idle.

    Use from one event loop.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ProcessPoolExecutor | None = None
        self._used = 0.0
        self._at_work = 0

    @property
    def count(self) -> int:
        """Maximum number of processes."""
        return self._count

    async def run(self, work: Callable[[P], R], part: P) -> R:
        """`work(part)` in one of the processes; both must be picklable.

        Raises:
            HelperDied: the process ended; the next call starts a new one.
        """
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._count,
                # A fork would copy the threads' locks in whatever state they are.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin,
            )
        pool = self._pool
        self._at_work += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work, part)
        except BrokenProcessPool as error:
            if self._pool is pool:
                self.close()
            raise HelperDied("a helper process ended unexpectedly") from error
        finally:
            self._at_work -= 1
            self._used = time.monotonic()
            asyncio.get_running_loop().call_later(IDLE_SECONDS + 1, self._rest)

    async def run_or_fall_back(self, work: Callable[[P], R], part: P) -> R:
        """As `run`; if the helper dies, the work is done in a thread of this process."""
        try:
            return await self.run(work, part)
        except HelperDied as error:
            logger.warning("%s; repeating its work in a thread", error)
            return await asyncio.to_thread(work, part)

    def _rest(self) -> None:
        if not self._at_work and time.monotonic() - self._used > IDLE_SECONDS:
            self.close()

    def close(self) -> None:
        """End the processes; they start again when needed."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def split(items: Sequence[P], count: int, *, least: int) -> list[Sequence[P]]:
    """`items` in order, in at most `count` parts of about the same size, none below `least`."""
    share = max(least, -(-len(items) // count))
    return [items[start : start + share] for start in range(0, len(items), share)]


def _begin() -> None:
    live_with_the_parent()
    collect_garbage_seldom()
