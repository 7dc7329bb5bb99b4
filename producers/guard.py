"""Holds back removals of an unmounted or emptied folder, so that they do not empty the index."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from typing import Final

from imaging.sources.mounts import Mounts
from producers.known_image import KnownImage
from producers.log.known_images import KnownImages

logger = logging.getLogger(__name__)

MINIMUM: Final = 20
"""Fewer removals at once than this are never held back because of their share."""
WINDOW_SECONDS: Final = 60.0
"""Removals within this time count as one."""


class RemovalGuard:
    """Admits removals, unless they are too large a share of the known images.

    An image whose content is known under another path was renamed, and does not count.

    Args:
        share: the share of the known images, 0 to 1, that may be removed at once.
        allow: admit every removal.
        location: name of the folder or disk, for log messages.
    """

    def __init__(self, share: float, *, allow: bool, location: str = "the folder") -> None:
        self._location = location
        self._share = share
        self._allow = allow
        self._recent: deque[tuple[float, bytes | None]] = deque()
        self._confirmed = False
        self.held = 0
        """Number of removals held back at present."""
        self.reason = ""

    def confirm(self) -> None:
        """Admit mass removals until `unconfirm`; called when a person has confirmed them."""
        self._confirmed = True

    def unconfirm(self) -> None:
        """End the confirmation, after the scan that used it."""
        self._confirmed = False

    def admits(
        self,
        missing: Collection[str],
        state: KnownImages,
        now: float,
        *,
        known: int,
        emptied: bool = False,
    ) -> bool:
        """Whether these may be published as removed.

        Args:
            missing: paths that are known and no longer exist.
            state: the known images, these included.
            now: `time.monotonic()`.
            known: number of known images at the same location.
            emptied: a folder that was just attached holds no image at all, as if its disk were not
                mounted. Then no removal is admitted, however few images are missing.
        """
        if self._allow or self._confirmed or not missing:
            return True
        while self._recent and self._recent[0][0] < now - WINDOW_SECONDS:
            self._recent.popleft()
        known += len(self._recent)
        if emptied:
            return self.hold(
                len(missing),
                f"{self._location} holds no picture, but {known} are known: is its disk mounted?",
            )
        if not self._too_many(len(missing) + len(self._recent), known):
            return True
        lost = self._without_renamed(missing, state)
        if not self._too_many(lost, known):
            return True
        return self.hold(
            len(missing),
            f"{lost} of {known} pictures of {self._location} are missing at once, more than "
            f"{self._share:.0%}: is a disk missing?",
        )

    def count(self, removed: Iterable[bytes | None], now: float) -> None:
        """Record that images with these contents (SHA-256) were published as removed."""
        self._recent.extend((now, sha256) for sha256 in removed)

    def release(self) -> None:
        """Hold nothing back any more: the images are there again, or the removal was confirmed."""
        if self.held:
            logger.info("no removals are held back any more")
        self.held, self.reason = 0, ""

    def _too_many(self, removals: int, known: int) -> bool:
        return removals >= MINIMUM and removals > self._share * known

    def _without_renamed(self, missing: Collection[str], state: KnownImages) -> int:
        gone = set(missing)
        contents = [known.sha256 if (known := state.get(i)) is not None else None for i in gone]
        remaining = {
            known.sha256 for i in state if i not in gone and (known := state.get(i)) is not None
        }
        lost = sum(sha256 is None or sha256 not in remaining for sha256 in contents)
        # An image that was just renamed, and is now missing under its new name, counts once.
        elsewhere = remaining.union(contents)
        return lost + sum(sha256 not in elsewhere for _, sha256 in self._recent)

    def hold(self, held: int, reason: str) -> bool:
        """Hold these back and log the reason once. Returns False."""
        if reason != self.reason:
            logger.error(
                "REMOVALS HELD BACK: %s Nothing is removed from the index until they are back or "
                "the removal is confirmed with --allow-mass-removal (ALLOW_MASS_REMOVAL=true).",
                reason,
            )
        self.held, self.reason = held, reason
        return False


class RemovalGuards:
    """One guard for the root and one for each mount point below it.

    When a disk is unmounted, all of its images are missing, however small their share of all.
    Removals below a mount point are therefore admitted only while something is mounted there, and
    each mount point is judged like a folder of its own.
    """

    def __init__(self, share: float, *, allow: bool, mounts: Callable[[], Mounts]) -> None:
        """`mounts` returns what is mounted now; the others are as for `RemovalGuard`."""
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
        """Why they are held back; empty if none are."""
        return " ".join(guard.reason for guard in self._guards.values() if guard.reason)

    @property
    def needs_another_scan(self) -> bool:
        """Whether only another scan can show that held removals may be released.

        A mount below the root is found in the mount table when it returns. A mount that is reached
        through a link is in the table, too, but is not looked up there.
        """
        return any(
            guard.held and (mount is None or mount.startswith("/") or mount not in self._away)
            for mount, guard in self._guards.items()
        )

    def confirm(self) -> None:
        """Admit every removal until `unconfirm`; called when a person has confirmed them."""
        self._confirmed = True
        for guard in self._guards.values():
            guard.confirm()

    def unconfirm(self) -> None:
        """End the confirmation, after the scan that used it."""
        self._confirmed = False
        for guard in self._guards.values():
            guard.unconfirm()

    def admitted(
        self,
        missing: Iterable[str],
        state: KnownImages,
        now: float,
        *,
        present: Mapping[str | None, int] | None = None,
        whole: bool = False,
    ) -> list[str]:
        """Those of `missing` that may be published as removed. `reason` says why others may not.

        Args:
            missing: paths that are known and no longer exist.
            state: the known images, these included.
            now: `time.monotonic()`.
            present: number of images found on each mount, if the root was just attached to; else
                None.
            whole: `missing` is complete, so nothing else is held back any more.
        """
        groups: dict[str | None, list[str]] = {}
        for path in missing:
            known = state.get(path)
            groups.setdefault(known.mount if known else None, []).append(path)
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
                    len(group), f"nothing is mounted at {mount}, where {count} pictures were."
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

    def count(self, removed: Iterable[KnownImage | None], now: float) -> None:
        """Record that these were published as removed."""
        contents: dict[str | None, list[bytes | None]] = {}
        for known in removed:
            if known is not None:
                contents.setdefault(known.mount, []).append(known.sha256)
        for mount, hashes in contents.items():
            self._guard(mount).count(hashes, now)

    def release(self, but: Container[str | None] = ()) -> None:
        """Release what was held back, except at the mounts in `but`."""
        for mount, guard in self._guards.items():
            if mount not in but:
                guard.release()

    def _guard(self, mount: str | None) -> RemovalGuard:
        guard = self._guards.get(mount)
        if guard is None:
            guard = RemovalGuard(self._share, allow=self._allow, location=mount or "the folder")
            if self._confirmed:
                guard.confirm()
            self._guards[mount] = guard
        return guard
