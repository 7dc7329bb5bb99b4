"""Remove images from a collection whose files are gone and that the log does not know.

A log that was lost and refilled by the watcher holds no removals of files that had disappeared
before, so the files themselves are checked. Images that the log knows are left alone: their removal
is the watcher's decision, which it may be holding back because a disk is away. A mistake here is
harmless: if the file comes back, the watcher publishes it as a new image.
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
from consumers.indexing.roots import root_problem
from imaging.sources.settings import SourceSettings
from imaging.sources.source import Source
from imaging.sources.storage import disk_errors, file_system, storage_errors
from schemas.codec import InvalidEvent, decode_image_change
from schemas.events import ImageAdded
from schemas.topics import IMAGES

logger = logging.getLogger(__name__)

BATCH_IDS: Final = 1000
CONCURRENT_REQUESTS: Final = 32
"""Concurrent requests to a bucket."""
MAX_MISSING_SHARE: Final = 0.5
"""If more than this share of the images is gone, a disk or a part of it is assumed to be missing,
and nothing is removed."""


class Orphans:
    """Finds the orphans of one collection and removes them."""

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
        self.checked = 0
        """Images and records checked so far; it shows the watchdog that there is progress."""

    async def remove(self) -> int:
        """Delete the orphans from the collection; returns how many there were.

        Raises:
            Unavailable: Weaviate, Kafka or a storage of images cannot be reached now.
        """
        gone: list[str] = []
        ids: list[str] = []
        total = 0
        async for image_id, _ in self._index.stored(self._collection):
            ids.append(image_id)
            if len(ids) == BATCH_IDS:
                gone += await self._gone(ids)
                total, ids = total + len(ids), []
        gone += await self._gone(ids)
        total += len(ids)
        if len(gone) > MAX_MISSING_SHARE * total:
            logger.error(
                "the files of %d of %d pictures in %s are missing, which is implausible: nothing "
                "is removed. If they are really gone: ./image-search index audit --repair",
                len(gone),
                total,
                self._collection.name,
            )
            return 0
        unknown = await self._unknown(gone)
        removed = 0
        for start in range(0, len(unknown), BATCH_IDS):
            # Check again: the scan took a while, and files may have come back.
            still = await self._gone(unknown[start : start + BATCH_IDS])
            await self._index.delete(self._collection, still)
            removed += len(still)
        if removed:
            logger.warning(
                "the log was refilled: removed %d pictures whose files are gone", removed
            )
        return removed

    async def _unknown(self, ids: Sequence[str]) -> list[str]:
        """Those whose newest record in the log is not an addition."""
        wanted = set(ids)
        known: set[str] = set()
        if not wanted:
            return []
        async for record in self._log.read_all(IMAGES):
            self.checked += 1
            image_id = (record.key or b"").decode(errors="replace")
            if image_id not in wanted:
                continue
            try:
                change = decode_image_change(record.key, record.value)
            except InvalidEvent:
                continue
            (known.add if isinstance(change, ImageAdded) else known.discard)(image_id)
        return [image_id for image_id in ids if image_id not in known]

    async def _gone(self, ids: Sequence[str]) -> list[str]:
        """Those whose files are missing although their root is there."""
        found: list[str] = []
        by_source: dict[Source, list[str]] = {}
        for image_id in ids:
            by_source.setdefault(self._source(image_id), []).append(image_id)
        for source, theirs in by_source.items():
            problem = await asyncio.to_thread(root_problem, source.uri_prefix)
            if problem is None:
                check = _gone_locally if source.is_local else _gone_from_bucket
                found += await asyncio.to_thread(check, source, theirs)
            else:
                logger.warning("cannot check which pictures are gone: %s", problem)
        self.checked += len(ids)
        return found

    def _source(self, image_id: str) -> Source:
        return next((s for s in self._named if image_id.startswith(s.prefix)), self._main)


def _path(source: Source, image_id: str) -> str:
    return image_id.removeprefix(source.prefix) if source.name else image_id


def _gone_locally(source: Source, ids: Sequence[str]) -> list[str]:
    return [each for each in ids if _is_gone(source.folder, _path(source, each))]


def _is_gone(root: Path, path: str) -> bool:
    """Whether a file is missing; False if unknown, as below an empty folder, which may be the mount
    point of a disk that is away."""
    try:
        with disk_errors(path):
            try:
                os.lstat(root / path)
            except (FileNotFoundError, NotADirectoryError):
                return not _is_empty(_nearest(root / path))
    except OSError as error:
        logger.warning("cannot check whether %s is gone: %s", path, error)
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
        with storage_errors(uri):
            return bool(system.exists(path))

    with ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool:
        there = list(pool.map(is_there, ids))
    return [image_id for image_id, found in zip(ids, there, strict=True) if not found]
