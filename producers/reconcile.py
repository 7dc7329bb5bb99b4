"""The difference between a folder and what is known of it, found by walking."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from producers.mounts import MountPoints
from producers.passed import Look, Passed, Reason
from producers.rules import Rules
from producers.state import State
from producers.tree import FileStat, Listing, join, walk

logger = logging.getLogger(__name__)

CHUNK_FILES: Final = 2000
"""Files listed in a thread before the event loop compares them."""
FRESH_SECONDS: Final = 2.0
"""A file modified so recently may still be written to: it is looked at twice."""

Submit = Callable[[list[str]], Awaitable[None]]
Touch = Callable[[str, FileStat], None]
Undecodable = Callable[[str], None]


@dataclass
class Difference:
    """What a walk found.

    Attributes:
        pictures: how many there are on disk.
        on_mounts: how many of them on each mount below the root; None is the root's own.
        changed: how many of them are new or look different.
        missing: ids that are known below the folder and were not met.
        left_out: the same, of those whose names are some system's own (`Rules.leaves_out`).
        unreadable: folders that could not be read; what is known below them is left alone.
        started: `time.monotonic()` at its beginning.
        seconds: how long the walk and the comparison took.
    """

    pictures: int = 0
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
            f"compared {self.pictures} pictures in {self.seconds:.2f} s: "
            f"{self.changed} new or changed, {len(self.missing)} missing"
            + (f", {len(self.left_out)} of names that are left out now" if self.left_out else "")
        )


class Reconciler:
    """Compares folders with the state and hands on what differs.

    Args:
        root: the watched folder.
        state: what is known.
        submit: told ids to be looked at at once, in small lists; may make us wait.
        touch: told ids that may still be written to, with their present size and time.
        follow: whether symbolic links are followed.
        mounts: below which mount point a picture lies; told of links that were followed.
        passed: what was found to be no picture before; told of what is passed over.
    """

    def __init__(
        self,
        root: Path,
        state: State,
        *,
        submit: Submit,
        touch: Touch,
        follow: bool,
        mounts: MountPoints,
        always_twice: bool = False,
        passed: Passed | None = None,
    ) -> None:
        self._root = root
        self._state = state
        self._submit = submit
        self._touch = touch
        self._follow = follow
        self._mounts = mounts
        self._always_twice = always_twice
        self._passed = passed or Passed()
        self.running: Difference | None = None
        """The walk in progress, for those who show it."""
        self._folders = 0
        self._compared = 0

    @property
    def at_work(self) -> int:
        """1 while something is compared."""
        return int(self.running is not None)

    @property
    def steps(self) -> object:
        """Another value whenever a folder was compared, or a comparison has ended."""
        return (self._folders, self._compared)

    async def compare(self, top: str, rules: Rules) -> Difference:
        """Walk `top` ("" is the root) and hand on what is new or changed; the rest is returned.

        Raises:
            RootGone: the root is missing or unreadable.
        """
        difference = self.running = Difference()
        listings = walk(self._root, top, rules, follow=self._follow)
        folders = set[str]()
        try:
            while chunk := await asyncio.to_thread(_next_chunk, listings):
                for listing in chunk:
                    await self._compare(listing, difference)
                    if listing.missing:
                        self._passed.gone(listing.directory)
                    elif not top:
                        folders.add(listing.directory)
            if not top:
                self._passed.only(folders)
        finally:
            self.running = None
            self._compared += 1
        parted = await asyncio.to_thread(rules.parted, difference.missing)
        difference.left_out, difference.missing = parted
        difference.seconds = time.monotonic() - difference.started
        return difference

    async def _compare(self, listing: Listing, difference: Difference) -> None:
        directory = listing.directory
        self._folders += 1
        if listing.failed is not None:
            logger.warning("cannot read the folder %r: %s", directory, listing.failed)
            difference.unreadable.append(directory)
            self._passed.looked([Look(f"{directory}/", Reason.UNREADABLE)])
        elif listing.missing:
            difference.missing.extend(self._state.below(directory))
        else:
            self._find_missing(listing, difference)
            present = (
                listing.files if not listing.undecodable else {*listing.files, *listing.undecodable}
            )
            self._passed.listed(directory, listing.passed, present)
        known = self._state.files(directory)
        self._mounts.met(directory, listing.real)
        mount = self._mounts.of_all(directory)
        fresh_us = (time.time() - FRESH_SECONDS) * 1e6
        changed: list[str] = []
        for name, stat in listing.files.items():
            before = known.get(name)
            unsure = before is None and name in listing.unsure
            if unsure and self._passed.is_decided(directory, name, stat):
                continue
            on = mount(name)
            if not unsure:
                # A disk that is away may leave a folder behind with a few other files in it.
                difference.on_mounts[on] += 1
                difference.pictures += 1
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

    def _find_missing(self, listing: Listing, difference: Difference) -> None:
        directory = listing.directory
        difference.missing.extend(
            join(directory, name)
            for name in self._state.files(directory)
            if name not in listing.files
        )
        for name in self._state.folders(directory) - set(listing.directories):
            difference.missing.extend(self._state.below(join(directory, name)))


def _next_chunk(listings: Iterator[Listing]) -> list[Listing]:
    chunk: list[Listing] = []
    files = 0
    for listing in listings:
        chunk.append(listing)
        # A folder counts as some files, so that a deep empty tree comes in chunks too.
        files += len(listing.files) + 10
        if files >= CHUNK_FILES:
            break
    return chunk
