"""Processes of a process's own, while there is work that it cannot or should not do itself."""

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

from imaging.sandbox.child_process import live_with_the_parent

P = TypeVar("P")
R = TypeVar("R")
logger = logging.getLogger(__name__)

CORES: Final = os.cpu_count() or 1
IDLE_SECONDS: Final = 10.0


def collect_garbage_seldom() -> None:
    """Let many objects come to be before those among them that only refer to each other are sought.

    What is known of a million pictures is millions of small objects that live on and are in no
    cycle; to go through the new ones after every 700, as CPython does, takes a third of the time.
    """
    gc.set_threshold(100_000, 20, 20)


class HelperDied(Exception):
    """The process that did the work ended before the work did; perhaps it was killed."""


class Helpers:
    """A pool of processes that starts when it is first used and ends when it has had nothing to do.

    Use from one event loop.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ProcessPoolExecutor | None = None
        self._used = 0.0
        self._at_work = 0

    @property
    def count(self) -> int:
        """How many there are at most."""
        return self._count

    async def run(self, work: Callable[[P], R], part: P) -> R:
        """`work(part)` in one of the processes; both must be picklable.

        Raises:
            HelperDied: the process is gone; the next call starts another one.
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
            raise HelperDied("a helper process died") from error
        finally:
            self._at_work -= 1
            self._used = time.monotonic()
            asyncio.get_running_loop().call_later(IDLE_SECONDS + 1, self._rest)

    async def run_surely(self, work: Callable[[P], R], part: P) -> R:
        """`run`, and in a thread of this process should the helper die."""
        try:
            return await self.run(work, part)
        except HelperDied as error:
            logger.warning("%s; doing its work again", error)
            return await asyncio.to_thread(work, part)

    def _rest(self) -> None:
        if not self._at_work and time.monotonic() - self._used > IDLE_SECONDS:
            self.close()

    def close(self) -> None:
        """End the processes; they start again when they are needed."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def shares(items: Sequence[P], count: int, *, least: int) -> list[Sequence[P]]:
    """`items` in order, in at most `count` parts of about the same size, none below `least`."""
    share = max(least, -(-len(items) // count))
    return [items[start : start + share] for start in range(0, len(items), share)]


def _begin() -> None:
    live_with_the_parent()
    collect_garbage_seldom()
