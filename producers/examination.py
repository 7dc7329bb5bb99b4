"""Spreads looks at files over threads, and over processes of its own while there are very many."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Final

from producers.hashing import Candidate, Examiner, Finding
from producers.rules import Rules

logger = logging.getLogger(__name__)

THREADS: Final = min(4, os.cpu_count() or 1)
PROCESSES: Final = min(2, os.cpu_count() or 1)
MANY: Final = 256
"""So many at once go to processes: between system calls on small files, threads would mostly wait
for one another, and for the event loop, to get the interpreter's lock."""
STREAK: Final = 4
"""Only after so many batches of that size, as starting processes costs more than a few batches."""
IDLE_SECONDS: Final = 10.0


class Examination:
    """Looks at many paths at once."""

    def __init__(self, examiner: Examiner) -> None:
        self._examiner = examiner
        self._pool: ProcessPoolExecutor | None = None
        self._streak = 0
        self._used = 0.0

    async def examine(self, candidates: Sequence[Candidate], rules: Rules) -> list[Finding]:
        """One finding per candidate, in their order."""
        self._streak = self._streak + 1 if len(candidates) >= MANY else 0
        if self._streak > STREAK and PROCESSES > 1:
            try:
                return await self._in_processes(candidates, rules)
            except BrokenProcessPool:
                logger.warning("a helper process died; looking at its files again")
                self.close()
        return await self._in_threads(candidates, rules)

    def rest(self) -> None:
        """End processes that have had nothing to do for a while."""
        if self._pool is not None and time.monotonic() - self._used > IDLE_SECONDS:
            self.close()

    def close(self) -> None:
        """End the processes; they start again when they are needed."""
        pool, self._pool, self._streak = self._pool, None, 0
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    async def _in_threads(self, candidates: Sequence[Candidate], rules: Rules) -> list[Finding]:
        parts = await asyncio.gather(
            *(
                asyncio.to_thread(self._examiner.examine, part, rules)
                for part in _parts(candidates, THREADS, least=16)
            )
        )
        return [finding for part in parts for finding in part]

    async def _in_processes(self, candidates: Sequence[Candidate], rules: Rules) -> list[Finding]:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                PROCESSES,
                # A fork would copy the threads' locks in whatever state they are.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_live_with_the_parent,
            )
        loop = asyncio.get_running_loop()
        parts = await asyncio.gather(
            *(
                loop.run_in_executor(self._pool, self._examiner.examine, part, rules)
                for part in _parts(candidates, PROCESSES, least=MANY // 2)
            )
        )
        self._used = time.monotonic()
        return [finding for part in parts for finding in part]


def _parts(candidates: Sequence[Candidate], count: int, *, least: int) -> list[Sequence[Candidate]]:
    share = max(least, -(-len(candidates) // count))
    return [candidates[start : start + share] for start in range(0, len(candidates), share)]


def _live_with_the_parent() -> None:
    """Leave interrupts to the parent, and end when it ends, even by SIGKILL."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("this is no child process")
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
