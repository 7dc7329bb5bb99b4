"""Pictures that a collection holds and nobody has any more, where the log cannot tell of them.

A log that lost everything knows nothing of what was removed before it was told everything again,
so the files themselves are looked at. What the log knows is left alone: to remove it is for the
watcher to tell, who may be holding that back as a disk is away. So nothing is lost by it: what is
taken out wrongly, as its file comes back, is published by the watcher as a new picture.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from adapters.index.port import Collection, ImageIndex
from adapters.log.port import EventLog
from consumers.indexing.roots import place_problem
from imaging.sources.settings import SourceSettings
from imaging.sources.source import Source
from imaging.sources.storage import file_system, on_disk, reaching
from schemas.codec import InvalidEvent, decode_image_change
from schemas.events import ImageAdded
from schemas.topics import IMAGES

logger = logging.getLogger(__name__)

AT_ONCE: Final = 1000
REQUESTS: Final = 32
"""Objects of a bucket that are asked for at the same time."""
MOST: Final = 0.5
"""The share of the pictures beyond which it is the disk that is gone, or a part of it."""


class Orphans:
    """Looks for them in one collection and removes them."""

    def __init__(
        self,
        index: ImageIndex,
        collection: Collection,
        settings: SourceSettings,
        log: EventLog,
    ) -> None:
        self._index = index
        self._log = log
        self._collection = collection
        self._main = Source("", settings.images_dir.resolve().as_uri())
        self._named = settings.images_sources
        self.looked_at = 0
        """Pictures and records; it grows for as long as there is progress."""

    async def remove(self) -> int:
        """Take out of the collection what is gone; returns how many pictures that were.

        Raises:
            Unavailable: Weaviate, Kafka or a place of pictures cannot be reached now.
        """
        gone: list[str] = []
        ids: list[str] = []
        total = 0
        async for image_id, _ in self._index.stored(self._collection):
            ids.append(image_id)
            if len(ids) == AT_ONCE:
                gone += await self._gone(ids)
                total, ids = total + len(ids), []
        gone += await self._gone(ids)
        total += len(ids)
        if len(gone) > MOST * total:
            logger.error(
                "%d of %d pictures in %s are gone, too many to be true: they stay. If it is true: "
                "./image-search index audit --repair",
                len(gone),
                total,
                self._collection.name,
            )
            return 0
        unknown = await self._unknown(gone)
        removed = 0
        for start in range(0, len(unknown), AT_ONCE):
            # They are looked at once more, as that first took a while.
            still = await self._gone(unknown[start : start + AT_ONCE])
            await self._index.delete(self._collection, still)
            removed += len(still)
        if removed:
            logger.warning("the log was told anew: removed %d pictures that are gone", removed)
        return removed

    async def _unknown(self, ids: Sequence[str]) -> list[str]:
        """Those that the log does not know as pictures that are there."""
        asked = set(ids)
        known: set[str] = set()
        if not asked:
            return []
        async for record in self._log.read_all(IMAGES):
            self.looked_at += 1
            image_id = (record.key or b"").decode(errors="replace")
            if image_id not in asked:
                continue
            try:
                change = decode_image_change(record.key, record.value)
            except InvalidEvent:
                continue
            (known.add if isinstance(change, ImageAdded) else known.discard)(image_id)
        return [image_id for image_id in ids if image_id not in known]

    async def _gone(self, ids: Sequence[str]) -> list[str]:
        """Those whose files are not there, though their places are."""
        found: list[str] = []
        by_source: dict[Source, list[str]] = {}
        for image_id in ids:
            by_source.setdefault(self._source(image_id), []).append(image_id)
        for source, theirs in by_source.items():
            problem = await asyncio.to_thread(place_problem, source.uri_prefix)
            if problem is None:
                look = _gone_locally if source.is_local else _gone_from_bucket
                found += await asyncio.to_thread(look, source, theirs)
            else:
                logger.warning("not known whether pictures are gone: %s", problem)
        self.looked_at += len(ids)
        return found

    def _source(self, image_id: str) -> Source:
        return next((s for s in self._named if image_id.startswith(s.prefix)), self._main)


def _path(source: Source, image_id: str) -> str:
    return image_id.removeprefix(source.prefix) if source.name else image_id


def _gone_locally(source: Source, ids: Sequence[str]) -> list[str]:
    return [each for each in ids if _is_gone(source.folder, _path(source, each))]


def _is_gone(root: Path, path: str) -> bool:
    """Whether a file is not there; no where that is not known, as below an empty folder, at which
    a disk may have been mounted."""
    try:
        with on_disk(path):
            try:
                os.lstat(root / path)
            except (FileNotFoundError, NotADirectoryError):
                return not _is_empty(_nearest(root / path))
    except OSError as error:
        logger.warning("not known whether %s is gone: %s", path, error)
    return False


def _nearest(path: Path) -> Path:
    return next(folder for folder in path.parents if folder.is_dir())


def _is_empty(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def _gone_from_bucket(source: Source, ids: Sequence[str]) -> list[str]:
    def is_there(image_id: str) -> bool:
        uri = source.uri(_path(source, image_id))
        system, path = file_system(uri)
        with reaching(uri):
            return bool(system.exists(path))

    with ThreadPoolExecutor(REQUESTS) as pool:
        there = list(pool.map(is_there, ids))
    return [image_id for image_id, found in zip(ids, there, strict=True) if not found]
