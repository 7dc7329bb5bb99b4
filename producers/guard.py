"""Keeps an unmounted or emptied folder from emptying the index."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Iterable
from typing import Final

from producers.state import State

logger = logging.getLogger(__name__)

MINIMUM: Final = 20
"""So few removals at once are never held back for their share alone."""
WINDOW_SECONDS: Final = 60.0
"""Removals within this time count as one."""


class RemovalGuard:
    """Admits removals, unless they are too large a share of what is known.

    A picture whose content is known under another id was renamed, and does not count.

    Args:
        share: of the known pictures, 0 to 1, which may vanish at once.
        allow: everything is confirmed beforehand.
    """

    def __init__(self, share: float, *, allow: bool) -> None:
        self._share = share
        self._allow = allow
        self._recent: deque[tuple[float, bytes | None]] = deque()
        self._confirmed = False
        self.held = 0
        """How many removals are held back at present."""
        self.reason = ""

    def confirm(self) -> None:
        """Let mass removals pass until `unconfirm` (a person said so)."""
        self._confirmed = True

    def unconfirm(self) -> None:
        """The scan that was to use the confirmation is over."""
        self._confirmed = False

    def admits(
        self, missing: Collection[str], state: State, now: float, *, emptied: bool = False
    ) -> bool:
        """Whether these may be published as removed.

        Args:
            missing: ids that are known and no longer there.
            state: what is known, with these still in it.
            now: `time.monotonic()`.
            emptied: a folder just attached to holds no picture at all, which is how a disk that is
                not mounted looks: then no number of removals is small enough.
        """
        if self._allow or self._confirmed or not missing:
            return True
        while self._recent and self._recent[0][0] < now - WINDOW_SECONDS:
            self._recent.popleft()
        known = len(state) + len(self._recent)
        if emptied:
            return self._hold(
                len(missing),
                f"the folder holds no picture, but {known} are known: is its disk mounted?",
            )
        if not self._too_many(len(missing) + len(self._recent), known):
            return True
        lost = self._without_renamed(missing, state)
        if not self._too_many(lost, known):
            return True
        return self._hold(
            len(missing),
            f"{lost} of {known} pictures are gone at once, more than {self._share:.0%}: "
            "is a disk missing?",
        )

    def count(self, removed: Iterable[bytes | None], now: float) -> None:
        """Pictures of these contents (SHA-256) were published as removed."""
        self._recent.extend((now, sha256) for sha256 in removed)

    def release(self) -> None:
        """What was held back is back, or was confirmed."""
        if self.held:
            logger.info("no removals are held back any more")
        self.held, self.reason = 0, ""

    def _too_many(self, removals: int, known: int) -> bool:
        return removals >= MINIMUM and removals > self._share * known

    def _without_renamed(self, missing: Collection[str], state: State) -> int:
        gone = set(missing)
        contents = [known.sha256 if (known := state.get(i)) is not None else None for i in gone]
        remaining = {
            known.sha256 for i in state if i not in gone and (known := state.get(i)) is not None
        }
        lost = sum(sha256 is None or sha256 not in remaining for sha256 in contents)
        # One that was renamed a moment ago and is now gone by its new name counts once.
        elsewhere = remaining.union(contents)
        return lost + sum(sha256 not in elsewhere for _, sha256 in self._recent)

    def _hold(self, held: int, reason: str) -> bool:
        if reason != self.reason:
            logger.error(
                "REMOVALS HELD BACK: %s Nothing is removed from the index until they are back or "
                "the removal is confirmed with --allow-mass-removal (ALLOW_MASS_REMOVAL=true).",
                reason,
            )
        self.held, self.reason = held, reason
        return False
