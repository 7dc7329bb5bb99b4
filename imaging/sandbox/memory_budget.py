"""A bound on the memory that several pieces of work take at once."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress


class MemoryHold:
    """Bytes taken from a budget. To give them back twice does no harm."""

    __slots__ = ("_budget", "bytes")

    def __init__(self, budget: MemoryBudget, held: int) -> None:
        self._budget: MemoryBudget | None = budget
        self.bytes = held

    def give_back(self) -> None:
        """Let somebody else have them."""
        budget, self._budget = self._budget, None
        if budget is not None:
            budget.end(self)

    def __enter__(self) -> MemoryHold:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()


class MemoryBudget:
    """Lets work in, in order, as long as what it needs together fits. Use from one event loop.

    A need above the whole budget is let in alone, so nothing waits for ever.
    """

    def __init__(self, limit: int) -> None:
        """`limit` in bytes."""
        self._limit = limit
        self._waiting: deque[tuple[int, asyncio.Future[MemoryHold]]] = deque()
        self.used = 0

    async def take(self, needed: int) -> MemoryHold:
        """Wait until `needed` bytes fit; whoever gets the hold gives it back."""
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
                with suppress(ValueError):  # It was passed over already.
                    self._waiting.remove((share, turn))
                self._let_in()
            raise

    def end(self, hold: MemoryHold) -> None:
        """Called by the hold when it is given back."""
        self.used -= hold.bytes
        self._let_in()

    def _held(self, share: int) -> MemoryHold:
        self.used += share
        return MemoryHold(self, share)

    def _let_in(self) -> None:
        while self._waiting:
            share, turn = self._waiting[0]
            if self.used + share > self._limit:
                return
            self._waiting.popleft()
            if not turn.done():
                turn.set_result(self._held(share))
