"""A limit on the memory that concurrent tasks take together."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress


class MemoryHold:
    """Bytes taken from a budget. Returning them twice is harmless."""

    __slots__ = ("_budget", "bytes")

    def __init__(self, budget: MemoryBudget, held: int) -> None:
        self._budget: MemoryBudget | None = budget
        self.bytes = held

    def give_back(self) -> None:
        """Return the bytes to the budget."""
        budget, self._budget = self._budget, None
        if budget is not None:
            budget.end(self)

    def __enter__(self) -> MemoryHold:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()


class MemoryBudget:
    """Admits tasks in order, as long as they fit together. Use from one event loop.

    A task that needs more than the whole budget is admitted alone, so nothing waits for ever.
    """

    def __init__(self, limit: int) -> None:
        """`limit` in bytes."""
        self._limit = limit
        self._waiting: deque[tuple[int, asyncio.Future[MemoryHold]]] = deque()
        self.used = 0

    async def take(self, needed: int) -> MemoryHold:
        """Wait until `needed` bytes fit. The caller must call `give_back`."""
        share = min(needed, self._limit)
        if not self._waiting and self.used + share <= self._limit:
            return self._held(share)
        turn: asyncio.Future[MemoryHold] = asyncio.get_running_loop().create_future()
        self._waiting.append((share, turn))
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                turn.result().give_back()
            else:
                with suppress(ValueError):  # It was removed already.
                    self._waiting.remove((share, turn))
                self._admit()
            raise

    def end(self, hold: MemoryHold) -> None:
        """Called by the hold when it is given back."""
        self.used -= hold.bytes
        self._admit()

    def _held(self, share: int) -> MemoryHold:
        self.used += share
        return MemoryHold(self, share)

    def _admit(self) -> None:
        while self._waiting:
            share, turn = self._waiting[0]
            if self.used + share > self._limit:
                return
            self._waiting.popleft()
            if not turn.done():
                turn.set_result(self._held(share))
