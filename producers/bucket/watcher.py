"""Keeps `images` in step with a bucket, or another store of fsspec, by listing it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

from adapters.errors import Unavailable
from adapters.log.port import EventLog, Message
from imaging.media_types import HEAD_BYTES, sniff_media_type
from imaging.sources.source import Source
from imaging.sources.storage import first_bytes, open_uri, storage_errors
from producers.bucket.listing import BATCH, BucketListing, ListedObject
from producers.bucket.non_images import NonImageCache
from producers.content_hash import CHUNK_BYTES, ContentHash
from producers.events import addition, removal
from producers.folder.hashing import (
    Finding,
    Gone,
    NotAnImage,
    Present,
    TooLarge,
    Unreadable,
    skip_of,
)
from producers.guard import RemovalGuard
from producers.known_image import KnownImage, ListedStat
from producers.log.known_images import KnownImages
from producers.log.refused_files import RefusalReporter
from producers.log.vanished_letters import VanishedLetters
from producers.log.writer import ChangeWriter
from producers.paths import is_utf8
from producers.rules import Rules
from producers.settings import WatcherSettings
from producers.skipped import SkipReason
from producers.status import Status
from schemas.events import now

T = TypeVar("T")
logger = logging.getLogger(__name__)

CONCURRENT_READS: Final = 16
"""Objects read at the same time; most of the time is spent waiting for the server."""


class BucketWatcher:
    """Lists one source until cancelled.

    Objects are compared by size and modification time, and by the server's content tag if both the
    last listing and this one have it: most servers' times are in seconds, and two writes within a
    second may have the same size.

    Args:
        settings: listing interval and name rules, among others.
        log: where `images` and `images.dlq` are.
        source: the bucket or store.
    """

    def __init__(self, settings: WatcherSettings, log: EventLog, source: Source) -> None:
        self._settings = settings
        self._source = source
        self._rules = Rules(
            settings.ignore_patterns,
            hidden=settings.include_hidden,
            defaults=settings.ignore_defaults,
        )
        self._guard = RemovalGuard(settings.mass_removal_share, allow=settings.allow_mass_removal)
        self._refusals = RefusalReporter(log)
        self._vanished = VanishedLetters(log, settings.images_sources, source.prefix)
        self._writer = ChangeWriter(
            log, lambda key, reason: self._refusals.report(key, "Rejected", reason)
        )
        self._pool = ThreadPoolExecutor(CONCURRENT_READS, thread_name_prefix=f"list-{source.name}")
        status_file = settings.status_file
        self._non_images = NonImageCache(status_file, source) if status_file else None
        self._requested = asyncio.Event()
        self._confirmed = False
        self._just_attached = True
        self._comparing = False
        self._examined = 0
        self.id_prefix = source.prefix
        self.uri_prefix = source.uri_prefix
        self.status = Status(source.url, poll_seconds=settings.list_seconds)

    def request_scan(self, *, confirm_removals: bool = False) -> None:
        """List soon; with `confirm_removals`, admit mass removals once."""
        self._confirmed = self._confirmed or confirm_removals
        self._requested.set()

    async def run(self, state: KnownImages) -> None:
        """Run until cancelled. `state` holds the known images of this source."""
        self.status.known = lambda: len(state)
        self.status.at_work = lambda: int(self._comparing)
        self.status.steps = lambda: (
            self._listing.examined,
            self._examined,
            self._writer.written,
        )
        self._state = state
        self._listing = BucketListing(self._source, self._rules, state, self.status.skipped)
        if self._non_images is not None:
            await self._in_thread(self._non_images.load, self.status.skipped)
        logger.info("listing %s every %g s", self._source.url, self._settings.list_seconds)
        try:
            while True:
                self._requested.clear()
                started = time.monotonic()
                self._comparing = True
                try:
                    await self._compare()
                except (Unavailable, FileNotFoundError) as error:
                    self._mark_unreachable(str(error))
                else:
                    if self._non_images is not None:
                        await self._in_thread(self._non_images.save, self.status.skipped)
                    self.status.unreachable = ""
                    self.status.last_reconcile = datetime.now(UTC)
                self._comparing = False
                # At most half of the time is spent listing.
                pause = max(self._settings.list_seconds, time.monotonic() - started)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._requested.wait()
        finally:
            await self._writer.close()
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _mark_unreachable(self, reason: str) -> None:
        if reason != self.status.unreachable:
            logger.error(
                "CANNOT READ %s: %s. Nothing is removed from the index; retrying.",
                self._source.url,
                reason,
            )
        self.status.unreachable = reason
        self._just_attached = True

    async def _compare(self) -> None:
        listing, missing = self._listing, list[str]()
        again = set(await self._vanished.settle(self._state))
        changes = listing.changes(again, self._unreadable_paths, missing)
        published: list[str] = []
        while (batch := await self._in_thread(next, changes, None)) is not None:
            self.status.waiting = len(batch)
            published += await self._publish(batch, again)
        self.status.waiting = 0
        # Additions are published before removals, so that a renamed image is never missing.
        await self._writer.flush()
        await self._vanished.settle_published(published, self._state)
        self._just_attached = not await self._remove(missing)

    @property
    def _unreadable_paths(self) -> set[str]:
        return self.status.counters.unreadable

    async def _publish(
        self, batch: Sequence[tuple[str, ListedObject]], again: Container[str]
    ) -> list[str]:
        """Publish these objects as they are now. Unreadable ones are left for the next listing.

        Returns:
            The paths of `again` that exist.

        Raises:
            Unavailable: none of several can be read, so the cause is not a single object.
        """
        counters = self.status.counters
        found = await asyncio.gather(
            *(self._in_thread(self._examine, path, listed) for path, listed in batch),
        )
        failures = [finding for finding in found if isinstance(finding, Unreadable)]
        if len(failures) == len(found) > 1:
            raise Unavailable(failures[0].reason)
        self.status.skipped.record(map(skip_of, found))
        moment = now()
        messages: list[Message] = []
        published: list[str] = []
        for finding, (path, listed) in zip(found, batch, strict=True):
            if not isinstance(finding, Unreadable):
                counters.unreadable.discard(path)
                self._listing.remember_tag(path, listed)
            match finding:
                case Present():
                    messages += self._addition(finding, moment, republish=path in again)
                    if path in again:
                        published.append(path)
                case TooLarge():
                    await self._refuse(path, "TooLarge", finding.reason)
                case Unreadable():
                    if path not in counters.unreadable:
                        logger.warning("cannot read %s: %s", path, finding.reason)
                    counters.unreadable.add(path)
                case NotAnImage(reason=SkipReason.NAME_NOT_UTF8):
                    await self._refuse(path, "InvalidName", "the name is not UTF-8")
                case NotAnImage():
                    await self._remove_former(path)
                case _:  # deleted since it was listed; the next listing shows it
                    pass
        counters.added += len(messages)
        await self._writer.write(messages)
        return published

    def _examine(self, path: str, listed: ListedObject) -> Finding:
        self._examined += 1
        try:
            return self._read_object(path, listed)
        except FileNotFoundError:
            return Gone(path)
        except Unavailable as error:
            return Unreadable(path, str(error))

    def _read_object(self, path: str, listed: ListedObject) -> Finding:
        limit = self._settings.max_image_bytes
        if not is_utf8(path):
            return NotAnImage(path, listed.content, SkipReason.NAME_NOT_UTF8)
        uri = self._source.uri(path)
        directory, _, name = path.rpartition("/")
        if self._rules.judge(directory, name) is SkipReason.UNSURE and (
            listed.size == 0 or sniff_media_type(first_bytes(uri, HEAD_BYTES)) is None
        ):
            return NotAnImage(path, listed.content)
        if listed.size is not None and listed.size > limit:
            reason = f"{listed.size} bytes are more than {limit}"
            return TooLarge(path, reason, listed.content)
        content = ContentHash()
        with open_uri(uri) as file, storage_errors(uri):
            while chunk := file.read(CHUNK_BYTES):
                content.update(chunk)
                if content.size > limit:
                    reason = f"it has more than {limit} bytes"
                    return TooLarge(path, reason, listed.content)
        # If the object was replaced since it was listed, this is the new content with the old
        # time. The next listing then finds a difference and reads it again.
        stat = ListedStat(content.size, listed.modified_us)
        return Present(path, content.sha256(), stat, None, content.media_type(path))

    def _addition(self, found: Present, moment: datetime, *, republish: bool) -> list[Message]:
        known = self._state.get(found.path)
        self._state.put(found.path, KnownImage(found.sha256, found.stat))
        is_known = known is not None and known.sha256 == found.sha256 and known.uri_is_current
        if is_known and not republish:
            self.status.counters.unchanged += 1
            return []
        uri = self._source.uri(found.path)
        image_id = self.id_prefix + found.path
        event = addition(
            image_id, uri, found.sha256, found.stat, moment, media_type=found.media_type
        )
        return [Message(image_id, event)]

    async def _refuse(self, path: str, error_class: str, reason: str) -> None:
        self.status.counters.refused += 1
        await self._refusals.report(self.id_prefix + path, error_class, reason)
        await self._remove_former(path)

    async def _remove_former(self, path: str) -> None:
        """Publish the removal of the image that was published under this path before."""
        if self._state.get(path) is not None:
            self._state.remove(path)
            await self._writer.write([removal(self.id_prefix + path)])

    async def _remove(self, missing: Sequence[str]) -> bool:
        """Publish the removal of these; False if it is held back.

        A listing comes in pages and is not a snapshot: if the bucket is being emptied, it may lack
        only a few names. The bucket is therefore listed once more. The guard judges all that the
        second listing lacks; only images that both listings lack are removed.
        """
        left_out, missing = await self._in_thread(self._rules.split_system_paths, missing)
        await self._publish_removals(left_out)
        emptied = False
        judged: list[str] = []
        if missing:
            judged, count = await self._in_thread(self._listing.missing)
            emptied = self._just_attached and not count
            missing = await self._in_thread(_intersection, missing, judged)
        confirmed, self._confirmed = self._confirmed, False
        if confirmed:
            self._guard.confirm()
        moment = time.monotonic()
        admits = partial(self._guard.admits, known=len(self._state), emptied=emptied)
        admitted = await self._in_thread(admits, judged, self._state, moment)
        self._guard.unconfirm()
        if admitted:
            self._guard.release()
            known = [self._state.get(path) for path in missing]
            self._guard.count([each.sha256 for each in known if each is not None], moment)
            await self._publish_removals(missing)
        self.status.held, self.status.held_reason = self._guard.held, self._guard.reason
        return admitted

    async def _publish_removals(self, paths: Sequence[str]) -> None:
        for start in range(0, len(paths), BATCH):
            part = paths[start : start + BATCH]
            for path in part:
                self._state.remove(path)
                self._listing.forget(path)
                self._unreadable_paths.discard(path)
            await self._writer.write([removal(self.id_prefix + path) for path in part])
            self.status.counters.removed += len(part)
        await self._writer.flush()

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)


def _intersection(some: Iterable[str], others: Iterable[str]) -> list[str]:
    """The paths in both. Blocks, for seconds if there are millions."""
    return list(set(others).intersection(some))
