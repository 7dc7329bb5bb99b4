"""Examines files in threads, or in helper processes if there are very many."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from adapters.helper_processes import CORES, HelperPool, split
from producers.folder.hashing import Candidate, Examiner, Finding
from producers.rules import Rules

THREADS: Final = min(4, CORES)
MANY: Final = 256
"""Batches of this size go to processes. With small files, threads would mostly wait for the
interpreter's lock."""
THREAD_PART: Final = 16
PROCESS_PART: Final = 128
"""Files examined per call; small, so that progress is visible if files are large."""
STREAK: Final = 1
"""Processes are used after this many large batches: starting them costs more than a few batches."""


class ParallelExaminer:
    """Examines many paths concurrently."""

    def __init__(self, examiner: Examiner, helpers: HelperPool) -> None:
        self._examiner = examiner
        self._helpers = helpers
        self._streak = 0
        self.examined = 0
        """Number of paths examined since the start."""

    async def examine(self, candidates: Sequence[Candidate], rules: Rules) -> list[Finding]:
        """One finding per candidate, in the same order."""
        self._streak = self._streak + 1 if len(candidates) >= MANY else 0
        examine = partial(self._examiner.examine, rules=rules)
        if self._streak > STREAK and CORES > 1:
            at_once, size = self._helpers.count, PROCESS_PART
            call = partial(self._helpers.run_or_fall_back, examine)
        else:
            at_once, size = THREADS, THREAD_PART
            call = partial(asyncio.to_thread, examine)
        slots = asyncio.Semaphore(at_once)

        async def one(part: Sequence[Candidate]) -> list[Finding]:
            async with slots:
                findings = await call(part)
            self.examined += len(part)
            return findings

        count = max(1, -(-len(candidates) // size))
        parts = await asyncio.gather(*(one(part) for part in split(candidates, count, least=size)))
        return [finding for part in parts for finding in part]
