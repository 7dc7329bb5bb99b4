"""How many items to send to a server at once, adapted to its response times."""

from __future__ import annotations

from typing import Final

NEAR: Final = 0.75
"""Share of the deadline above which an answer counts as too slow."""
EASY: Final = 0.5
"""Share of the deadline below which a batch counts as easy, and more could be sent."""


PATIENCE: Final = 256
"""Maximum number of consecutive easy batches that are needed to retry a size that failed."""


class BatchSize:
    """The size of batches: halved if a batch is too slow, raised by one after easy batches.

    This is TCP's rule, additive increase and multiplicative decrease: the size settles just below
    the server's limit and follows it when it changes. A size that failed is tried again less and
    less often, because each attempt may take a whole deadline.
    """

    def __init__(self, most: int, *, deadline: float) -> None:
        """At most `most` items at once; a batch should take less than `deadline` seconds."""
        self._most = most
        self._deadline = deadline
        self._failed: int | None = None
        self._easy = 0
        self._needed = 1
        self.items = most
        """How many items to send at once now."""

    def too_slow(self, items: int) -> None:
        """A batch of `items` was not answered in time."""
        self._failed = items
        self._needed = min(2 * self._needed, PATIENCE)
        self._easy = 0
        self.items = max(1, min(self.items, items // 2))

    def took(self, items: int, seconds: float) -> None:
        """A batch of `items` was answered after `seconds`."""
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
