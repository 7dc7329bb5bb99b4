"""Spreads looks at files over threads, and over helper processes while there are very many."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from adapters.helpers import CORES, Helpers, shares
from producers.hashing import Candidate, Examiner, Finding
from producers.rules import Rules

THREADS: Final = min(4, CORES)
MANY: Final = 256
"""So many at once go to processes: between system calls on small files, threads would mostly wait
for one another, and for the event loop, to get the interpreter's lock."""
STREAK: Final = 1
"""Only after so many batches of that size, as starting processes costs more than a few batches."""


class Examination:
    """Looks at many paths at once."""

    def __init__(self, examiner: Examiner, helpers: Helpers) -> None:
        self._examiner = examiner
        self._helpers = helpers
        self._streak = 0

    async def examine(self, candidates: Sequence[Candidate], rules: Rules) -> list[Finding]:
        """One finding per candidate, in their order."""
        self._streak = self._streak + 1 if len(candidates) >= MANY else 0
        look = partial(self._examiner.examine, rules=rules)
        if self._streak > STREAK and CORES > 1:
            parts = await asyncio.gather(
                *(
                    self._helpers.run_surely(look, part)
                    for part in shares(candidates, self._helpers.count, least=MANY // 2)
                )
            )
        else:
            parts = await asyncio.gather(
                *(asyncio.to_thread(look, part) for part in shares(candidates, THREADS, least=16))
            )
        return [finding for part in parts for finding in part]
