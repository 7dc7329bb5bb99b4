"""Scans a folder and finds its difference from the known images."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from producers.folder.mount_points import MountPoints
from producers.folder.tree import DirectoryListing, scan_tree
from producers.known_image import FileStat
from producers.log.known_images import KnownImages
from producers.paths import join
from producers.rules import Rules
from producers.skipped import Examined, SkippedFiles, SkipReason

logger = logging.getLogger(__name__)

CHUNK_FILES: Final = 2000
"""Files listed per thread call, before the event loop compares them."""
FRESH_SECONDS: Final = 2.0
"""A file modified this recently may still be written to, so it is examined twice."""

Submit = Callable[[list[str]], Awaitable[None]]
Touch = Callable[[str, FileStat], None]


@dataclass
class Difference:
    """The result of a scan.

    Attributes:
        images: number of images on disk.
        on_mounts: their number on each mount below the root; None is the root's file system.
        changed: number of images that are new or have another size or time.
        missing: known paths below the folder that were not found.
        left_out: the same, for paths that belong to a system (`Rules.is_system_path`).
        unreadable: folders that could not be read; known images below them stay.
        started: `time.monotonic()` at its beginning.
        seconds: duration of the scan and comparison.
    """

    images: int = 0
    on_mounts: Counter[str | None] = field(default_factory=Counter)
    changed: int = 0
    missing: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def summary(self) -> str:
        """A line for the log."""
        return (
            f"compared {self.images} pictures in {self.seconds:.2f} s: "
            f"{self.changed} new or changed, {len(self.missing)} missing"
            + (f", {len(self.left_out)} of ignored names" if self.left_out else "")
        )


class Reconciler:
    """Compares folders with the known images and submits what differs.

    Args:
        root: the watched folder.
        state: the known images.
        submit: called with lists of paths to examine now; may wait.
        touch: called with paths that may still be written to, and their size and time.
        follow: whether symbolic links are followed.
        mounts: finds the mount point of an image; updated with the links that are followed.
        skipped: the skipped files known so far; updated by each scan.
    """

    def __init__(
        self,
        root: Path,
        state: KnownImages,
        *,
        submit: Submit,
        touch: Touch,
        follow: bool,
        mounts: MountPoints,
        always_twice: bool = False,
        skipped: SkippedFiles | None = None,
    ) -> None:
        self._root = root
        self._state = state
        self._submit = submit
        self._touch = touch
        self._follow = follow
        self._mounts = mounts
        self._always_twice = always_twice
        self._skipped = skipped or SkippedFiles()
        self.running: Difference | None = None
        """The scan in progress, for the status."""
        self._folders = 0
        self._compared = 0

    @property
    def at_work(self) -> int:
        """1 while a scan runs, else 0."""
        return int(self.running is not None)

    @property
    def steps(self) -> object:
        """Changes whenever a folder has been compared or a scan has ended."""
        return (self._folders, self._compared)

    async def compare(self, top: str, rules: Rules) -> Difference:
        """Scan `top` ("" is the root), submit new and changed images, and return the difference.

        Raises:
            RootGone: the root is missing or unreadable.
        """
        difference = self.running = Difference()
        listings = scan_tree(self._root, top, rules, follow=self._follow)
        folders = set[str]()
        try:
            while chunk := await asyncio.to_thread(_next_chunk, listings):
                for listing in chunk:
                    await self._compare(listing, difference)
                    if listing.missing:
                        self._skipped.forget_folder(listing.directory)
                    elif not top:
                        folders.add(listing.directory)
            if not top:
                self._skipped.keep_only(folders)
        finally:
            self.running = None
            self._compared += 1
        split = await asyncio.to_thread(rules.split_system_paths, difference.missing)
        difference.left_out, difference.missing = split
        difference.seconds = time.monotonic() - difference.started
        return difference

    async def _compare(self, listing: DirectoryListing, difference: Difference) -> None:
        directory = listing.directory
        self._folders += 1
        if listing.failed is not None:
            logger.warning("cannot read the folder %r: %s", directory, listing.failed)
            difference.unreadable.append(directory)
            self._skipped.record([Examined(f"{directory}/", SkipReason.UNREADABLE)])
        elif listing.missing:
            difference.missing.extend(self._state.below(directory))
        else:
            self._find_missing(listing, difference)
            present = (
                listing.files if not listing.undecodable else {*listing.files, *listing.undecodable}
            )
            self._skipped.record_folder(directory, listing.skipped, present)
        known = self._state.files(directory)
        self._mounts.record(directory, listing.real)
        mount = self._mounts.of_all(directory)
        fresh_us = (time.time() - FRESH_SECONDS) * 1e6
        changed: list[str] = []
        for name, stat in listing.files.items():
            before = known.get(name)
            unsure = before is None and name in listing.unsure
            if unsure and self._skipped.is_skipped(directory, name, stat):
                continue
            on = mount(name)
            if not unsure:
                # Files of unknown kind do not count: an unmounted disk may leave some behind.
                difference.on_mounts[on] += 1
                difference.images += 1
            if (
                before is not None
                and before.stat == stat
                and before.uri_is_current
                and before.mount == on
            ):
                continue
            if self._always_twice or stat.modified_us > fresh_us:
                self._touch(join(directory, name), stat)
            else:
                changed.append(join(directory, name))
            difference.changed += not unsure
        changed.extend(join(directory, name) for name in listing.undecodable)
        await self._submit(changed)

    def _find_missing(self, listing: DirectoryListing, difference: Difference) -> None:
        directory = listing.directory
        difference.missing.extend(
            join(directory, name)
            for name in self._state.files(directory)
            if name not in listing.files
        )
        for name in self._state.folders(directory) - set(listing.directories):
            difference.missing.extend(self._state.below(join(directory, name)))


def _next_chunk(listings: Iterator[DirectoryListing]) -> list[DirectoryListing]:
    chunk: list[DirectoryListing] = []
    files = 0
    for listing in listings:
        chunk.append(listing)
        # A folder counts as ten files, so that a deep empty tree comes in chunks too.
        files += len(listing.files) + 10
        if files >= CHUNK_FILES:
            break
    return chunk
