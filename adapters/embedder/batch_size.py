"""How much to ask of a server at once, learnt from the time that it takes."""

from __future__ import annotations

from typing import Final

NEAR: Final = 0.75
"""Share of the deadline above which an answer came only just in time."""
EASY: Final = 0.5
"""Share of the deadline below which more could be asked for."""


PATIENCE: Final = 256
"""Most easy batches in a row that are waited for before a size that failed is tried again."""


class BatchSize:
    """Halved when a batch is too slow, and grown by one when batches of that size are easy.

    The rule of TCP (additive increase, multiplicative decrease): it settles just below what is too
    much, wherever that is, and follows when it changes. A size that failed is tried again more and
    more seldom, as each try may cost a whole deadline.
    """

    def __init__(self, most: int, *, deadline: float) -> None:
        """At most `most` items at once; a batch should take less than `deadline` seconds."""
        self._most = most
        self._deadline = deadline
        self._failed: int | None = None
        self._easy = 0
        self._needed = 1
        self.items = most
        """How many to send at once now."""

    def too_slow(self, items: int) -> None:
        """A batch of so many was not answered in time."""
        self._failed = items
        self._needed = min(2 * self._needed, PATIENCE)
        self._easy = 0
        self.items = max(1, min(self.items, items // 2))

    def took(self, items: int, seconds: float) -> None:
        """A batch of so many was answered within `seconds`."""
        if seconds > NEAR * self._deadline:
            self.too_slow(items)
        elif items >= self.items and seconds < EASY * self._deadline:
            if self._failed is not None and items >= self._failed:
                self._failed, self._needed = None, 1
            self._easy += 1
            if self._easy >= self._needed_to_grow():
                self._easy = 0
                self.items = min(self._most, self.items + 1)

    def _needed_to_grow(self) -> int:
        is_risky = self._failed is not None and self.items + 1 >= self._failed
        return self._needed if is_risky else 1
