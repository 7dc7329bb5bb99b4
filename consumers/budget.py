"""A bound on the memory that pictures take while they are decoded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class MemoryBudget:
    """Lets threads in as long as what they need together fits.

    A need above the whole budget is let in alone, so nothing waits for ever.
    """

    def __init__(self, limit: int) -> None:
        """`limit` in bytes."""
        self._limit = limit
        self._used = 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, needed: int) -> Iterator[None]:
        """Wait until `needed` bytes fit; they are given back at the end of the block."""
        share = min(needed, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._used + share <= self._limit)
            self._used += share
        try:
            yield
        finally:
            with self._changed:
                self._used -= share
                self._changed.notify_all()
