"""Spreads looks at files over threads, and over helper processes while there are very many."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from producers.folder.hashing import Candidate, Examiner, Finding
from producers.helper_processes import CORES, Helpers, shares
from producers.rules import Rules

THREADS: Final = min(4, CORES)
MANY: Final = 256
"""So many at once go to processes: between system calls on small files, threads would mostly wait
for one another, and for the event loop, to get the interpreter's lock."""
THREAD_PART: Final = 16
PROCESS_PART: Final = 128
"""Looked at in one go; small, so that there is progress to be seen where files are large."""
STREAK: Final = 1
"""Only after so many batches of that size, as starting processes costs more than a few batches."""


class Examination:
    """Looks at many paths at once."""

    def __init__(self, examiner: Examiner, helpers: Helpers) -> None:
        self._examiner = examiner
        self._helpers = helpers
        self._streak = 0
        self.looked_at = 0
        """Paths, since the start."""

    async def examine(self, candidates: Sequence[Candidate], rules: Rules) -> list[Finding]:
        """One finding per candidate, in their order."""
        self._streak = self._streak + 1 if len(candidates) >= MANY else 0
        look = partial(self._examiner.examine, rules=rules)
        if self._streak > STREAK and CORES > 1:
            at_once, size = self._helpers.count, PROCESS_PART
            run = partial(self._helpers.run_surely, look)
        else:
            at_once, size = THREADS, THREAD_PART
            run = partial(asyncio.to_thread, look)
        turns = asyncio.Semaphore(at_once)

        async def one(part: Sequence[Candidate]) -> list[Finding]:
            async with turns:
                findings = await run(part)
            self.looked_at += len(part)
            return findings

        count = max(1, -(-len(candidates) // size))
        parts = await asyncio.gather(*(one(part) for part in shares(candidates, count, least=size)))
        return [finding for part in parts for finding in part]
