"""How much to ask of a server at once, learnt from the time that it takes."""

from __future__ import annotations

from typing import Final

NEAR: Final = 0.75
"""Share of the deadline above which an answer came only just in time."""
EASY: Final = 0.5
"""Share of the deadline below which more could be asked for."""


class BatchSize:
    """Halved when a batch is too slow, and grown by one when batches of that size are easy.

    The rule of TCP (additive increase, multiplicative decrease): it settles just below what is too
    much, wherever that is, and follows when it changes.
    """

    def __init__(self, most: int, *, deadline: float) -> None:
        """At most `most` items at once; a batch should take less than `deadline` seconds."""
        self._most = most
        self._deadline = deadline
        self.items = most
        """How many to send at once now."""

    def too_slow(self, items: int) -> None:
        """A batch of so many was not answered in time."""
        self.items = max(1, min(self.items, items // 2))

    def took(self, items: int, seconds: float) -> None:
        """A batch of so many was answered within `seconds`."""
        if seconds > NEAR * self._deadline:
            self.too_slow(items)
        elif items >= self.items and seconds < EASY * self._deadline:
            self.items = min(self._most, self.items + 1)
