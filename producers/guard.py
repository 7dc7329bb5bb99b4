"""Keeps an unmounted or emptied folder from emptying the index."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from typing import Final

from imaging.sources.mounts import Mounts
from producers.folder.tree import Known
from producers.known_images import State

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
        place: what the pictures lie in, for people.
    """

    def __init__(self, share: float, *, allow: bool, place: str = "the folder") -> None:
        self._place = place
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
        self,
        missing: Collection[str],
        state: State,
        now: float,
        *,
        known: int,
        emptied: bool = False,
    ) -> bool:
        """Whether these may be published as removed.

        Args:
            missing: ids that are known and no longer there.
            state: what is known, with these still in it.
            now: `time.monotonic()`.
            known: how many pictures are known where these were.
            emptied: a folder just attached to holds no picture at all, which is how a disk that is
                not mounted looks: then no number of removals is small enough.
        """
        if self._allow or self._confirmed or not missing:
            return True
        while self._recent and self._recent[0][0] < now - WINDOW_SECONDS:
            self._recent.popleft()
        known += len(self._recent)
        if emptied:
            return self.hold(
                len(missing),
                f"{self._place} holds no picture, but {known} are known: is its disk mounted?",
            )
        if not self._too_many(len(missing) + len(self._recent), known):
            return True
        lost = self._without_renamed(missing, state)
        if not self._too_many(lost, known):
            return True
        return self.hold(
            len(missing),
            f"{lost} of {known} pictures of {self._place} are gone at once, more than "
            f"{self._share:.0%}: is a disk missing?",
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

    def hold(self, held: int, reason: str) -> bool:
        """Remember it and say so, once; False."""
        if reason != self.reason:
            logger.error(
                "REMOVALS HELD BACK: %s Nothing is removed from the index until they are back or "
                "the removal is confirmed with --allow-mass-removal (ALLOW_MASS_REMOVAL=true).",
                reason,
            )
        self.held, self.reason = held, reason
        return False


class Guards:
    """A guard for the root and one for each mount point below it.

    A disk that is not mounted takes all of its pictures along, however few of all pictures they
    are. So what lay below a mount point is removed only while something is mounted there, and by
    the rules for a folder of its own.
    """

    def __init__(self, share: float, *, allow: bool, mounts: Callable[[], Mounts]) -> None:
        """`mounts` tells what is mounted now; the others as for `RemovalGuard`."""
        self._share = share
        self._allow = allow
        self._mounts = mounts
        self._guards: dict[str | None, RemovalGuard] = {None: RemovalGuard(share, allow=allow)}
        self._away: set[str | None] = set()
        self._confirmed = False

    @property
    def held(self) -> int:
        """How many removals are held back at present."""
        return sum(guard.held for guard in self._guards.values())

    @property
    def reason(self) -> str:
        """Why they are; empty if none is."""
        return " ".join(guard.reason for guard in self._guards.values() if guard.reason)

    @property
    def only_a_look_tells(self) -> bool:
        """Whether some are held back whose end only another comparison can show.

        A mount below the root shows in the mount table; one that a link leads to does, but is not
        looked for there.
        """
        return any(
            guard.held and (mount is None or mount.startswith("/") or mount not in self._away)
            for mount, guard in self._guards.items()
        )

    def confirm(self) -> None:
        """Let every removal pass until `unconfirm` (a person said so)."""
        self._confirmed = True
        for guard in self._guards.values():
            guard.confirm()

    def unconfirm(self) -> None:
        """The scan that was to use the confirmation is over."""
        self._confirmed = False
        for guard in self._guards.values():
            guard.unconfirm()

    def admitted(
        self,
        missing: Iterable[str],
        state: State,
        now: float,
        *,
        present: Mapping[str | None, int] | None = None,
        whole: bool = False,
    ) -> list[str]:
        """Of these, which may be published as removed; why others may not is in `reason`.

        Args:
            missing: ids that are known and no longer there.
            state: what is known, with these still in it.
            now: `time.monotonic()`.
            present: where the root was just attached to, with all that is mounted below it: how
                many pictures were met on each mount.
            whole: these are all that is missing, so that nothing else is held back any more.
        """
        groups: dict[str | None, list[str]] = {}
        for image_id in missing:
            known = state.get(image_id)
            groups.setdefault(known.mount if known else None, []).append(image_id)
        mounts = self._mounts()
        free = self._allow or self._confirmed
        if whole:
            self.release(but=groups)
        admitted: list[str] = []
        for mount, group in groups.items():
            guard = self._guard(mount)
            count = state.count(mount)
            self._away.discard(mount)
            if mount is not None and not free and not mounts.has(mount):
                self._away.add(mount)
                guard.hold(
                    len(group), f"nothing is mounted at {mount}, where {count} pictures lay."
                )
            elif guard.admits(
                group,
                state,
                now,
                known=count,
                emptied=present is not None and not present.get(mount),
            ):
                admitted += group
                if whole:
                    guard.release()
        return admitted

    def count(self, removed: Iterable[Known | None], now: float) -> None:
        """These, as they were known, were published as removed."""
        contents: dict[str | None, list[bytes | None]] = {}
        for known in removed:
            if known is not None:
                contents.setdefault(known.mount, []).append(known.sha256)
        for mount, hashes in contents.items():
            self._guard(mount).count(hashes, now)

    def release(self, but: Container[str | None] = ()) -> None:
        """Nothing is missing of what was held back, `but` at these mounts; or it was confirmed."""
        for mount, guard in self._guards.items():
            if mount not in but:
                guard.release()

    def _guard(self, mount: str | None) -> RemovalGuard:
        guard = self._guards.get(mount)
        if guard is None:
            guard = RemovalGuard(self._share, allow=self._allow, place=mount or "the folder")
            if self._confirmed:
                guard.confirm()
            self._guards[mount] = guard
        return guard
