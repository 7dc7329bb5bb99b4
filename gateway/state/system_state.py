"""How many images are indexed, waiting and failed; and the open dead letters with their reasons."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.index.port import Collection, ImageIndex
from adapters.log.port import EventLog
from adapters.watcher_status import skipped_counts
from gateway.search.service import Search
from gateway.single_flight import SingleFlight
from gateway.state.open_dead_letters import FailureReason, NewestOpenLetters, OpenLetter
from gateway.ttl_cache import TtlCache
from models.adoption_status import AdoptionFile, AdoptionStatus

Backlog = Callable[[Collection], Awaitable[int]]
"""How many records of the topic `images` a collection's indexers have not read yet."""


@dataclass(frozen=True, slots=True)
class StateSnapshot:
    """The state of the system at one moment."""

    collection: Collection
    images: int
    """Images in the collection that answers searches."""
    waiting: int | None
    """An upper bound of the changes that are not indexed yet; None if it is not known."""
    failed: int
    """Images with an open dead letter."""
    skipped: Mapping[str, int] | None
    """Reason -> files and folders that the watcher skipped for it; None if it is not known."""
    adoption: AdoptionStatus | None
    """The automatic change to a better model; None if there is none, or it is no news."""


@dataclass(frozen=True, slots=True)
class LetterPage:
    """Some of the open dead letters, newest first, and how many there are in all."""

    total: int
    letters: Sequence[tuple[OpenLetter, FailureReason]]


@dataclass(frozen=True, slots=True)
class _Failed:
    letters: Sequence[OpenLetter]
    ids: Container[str]


class SystemState:
    """Reads the state from the index, the log and the watcher's status file."""

    def __init__(
        self,
        search: Search,
        index: ImageIndex,
        log: EventLog,
        backlog: Backlog | None,
        *,
        watcher_status_file: Path | None = None,
        adoption_status_file: Path | None = None,
    ) -> None:
        """Without a `backlog`, `waiting` is not known."""
        self._watcher = watcher_status_file
        self._adoption = adoption_status_file
        self._search = search
        self._index = index
        self._backlog = backlog
        self._open = NewestOpenLetters(log)
        self._pages: SingleFlight[tuple[int, int], LetterPage] = SingleFlight()
        self._failed = TtlCache(self._read_failed)
        self._snapshot = TtlCache(self._read_snapshot)

    async def snapshot(self) -> StateSnapshot:
        """The state of the system, which may be some seconds old.

        Raises:
            Unavailable: a server does not answer.
        """
        return await self._snapshot.get()

    async def letters(self, limit: int, skip: int = 0) -> LetterPage:
        """At most `limit` open letters, newest first, after the newest `skip`.

        Raises:
            Unavailable: the log does not answer.
        """
        return await self._pages.get((limit, skip), lambda: self._page(limit, skip))

    async def failed_images(self) -> Container[str]:
        """Ids of the images with an open letter, which may be some seconds old.

        Raises:
            Unavailable: the log does not answer.
        """
        return (await self._failed.get()).ids

    async def _page(self, limit: int, skip: int) -> LetterPage:
        letters = (await self._failed.get()).letters
        return LetterPage(len(letters), await self._open.with_reasons(letters[skip : skip + limit]))

    async def _read_failed(self) -> _Failed:
        letters = await self._open.current()
        return _Failed(letters, frozenset(each.image_id for each in letters))

    async def _read_snapshot(self) -> StateSnapshot:
        collection = await self._search.active()
        images, failed = await asyncio.gather(self._index.count(collection), self._failed.get())
        skipped = await asyncio.to_thread(skipped_counts, self._watcher) if self._watcher else None
        return StateSnapshot(
            collection,
            images,
            waiting=await self._backlog(collection) if self._backlog else None,
            failed=len(failed.letters),
            skipped=skipped,
            adoption=await asyncio.to_thread(_adoption, self._adoption, collection.model_name),
        )


def _adoption(file: Path | None, active: str) -> AdoptionStatus | None:
    status = AdoptionFile(file).read() if file is not None else None
    return status if status is not None and status.is_news_for(active) else None
