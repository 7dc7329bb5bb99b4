"""Keeps `images` equal to a bucket, or whatever else fsspec knows, by listing it now and then."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

from adapters.errors import Unavailable
from adapters.event_log import EventLog, Message
from adapters.media_types import HEAD_BYTES, content_type, sniff_media_type
from adapters.settings import WatcherSettings
from adapters.sources import Source
from adapters.storage import first_bytes, open_uri, reaching
from producers.announce import addition, removal
from producers.dead_letters import DeadLetters
from producers.guard import RemovalGuard
from producers.hashing import (
    CHUNK_BYTES,
    Finding,
    Gone,
    NoPicture,
    Present,
    TooLarge,
    Unreadable,
    look_of,
)
from producers.listing import BATCH, Listing, Stated
from producers.passed import Reason
from producers.remembered import Remembered
from producers.rules import Rules
from producers.state import State
from producers.status import Status
from producers.tree import Known, ListedStat, is_utf8
from producers.vanished import Vanished
from producers.writer import Writer
from schemas.events import now

T = TypeVar("T")
logger = logging.getLogger(__name__)

AT_ONCE: Final = 16
"""Objects read at the same time: the time goes into waiting for the server."""


class ListedSource:
    """Lists one source until cancelled.

    What is compared is size and modification time, and the server's tag of the content where this
    listing and the one before had it: two writes within a second, which is as fine as the times of
    most servers are, may be of one size.

    Args:
        settings: how often it is listed, and which names are taken.
        log: where `images` and `images.dlq` are.
        source: what is listed.
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
        self._dead_letters = DeadLetters(log)
        self._vanished = Vanished(log, settings.images_sources, source.prefix)
        self._writer = Writer(
            log, lambda key, reason: self._dead_letters.report(key, "Rejected", reason)
        )
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix=f"list-{source.name}")
        status_file = settings.status_file
        self._remembered = Remembered(status_file, source) if status_file else None
        self._asked = asyncio.Event()
        self._confirmed = False
        self._just_attached = True
        self._comparing = False
        self._looked_at = 0
        self.id_prefix = source.prefix
        self.uri_prefix = source.uri_prefix
        self.status = Status(source.url, poll_seconds=settings.list_seconds)

    def request_scan(self, *, confirm_removals: bool = False) -> None:
        """List soon; once, let mass removals pass."""
        self._confirmed = self._confirmed or confirm_removals
        self._asked.set()

    async def run(self, state: State) -> None:
        """Work until cancelled. `state` is what is known of this source."""
        self.status.known = lambda: len(state)
        self.status.at_work = lambda: int(self._comparing)
        self.status.steps = lambda: (
            self._listing.looked_at,
            self._looked_at,
            self._writer.written,
        )
        self._state = state
        self._listing = Listing(self._source, self._rules, state, self.status.passed)
        if self._remembered is not None:
            await self._in_thread(self._remembered.load, self.status.passed)
        logger.info("listing %s every %g s", self._source.url, self._settings.list_seconds)
        try:
            while True:
                self._asked.clear()
                started = time.monotonic()
                self._comparing = True
                try:
                    await self._compare()
                except (Unavailable, FileNotFoundError) as error:
                    self._cannot_be_read(str(error))
                else:
                    if self._remembered is not None:
                        await self._in_thread(self._remembered.save, self.status.passed)
                    self.status.unreachable = ""
                    self.status.last_reconcile = datetime.now(UTC)
                self._comparing = False
                # At most half of the time is spent listing.
                pause = max(self._settings.list_seconds, time.monotonic() - started)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._asked.wait()
        finally:
            await self._writer.close()
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _cannot_be_read(self, reason: str) -> None:
        if reason != self.status.unreachable:
            logger.error(
                "CANNOT READ %s: %s. Nothing is removed from the index; trying again.",
                self._source.url,
                reason,
            )
        self.status.unreachable = reason
        self._just_attached = True

    async def _compare(self) -> None:
        listing, missing = self._listing, list[str]()
        again = set(await self._vanished.settle(self._state))
        changes = listing.changes(again, self._unread, missing)
        published: list[str] = []
        while (batch := await self._in_thread(next, changes, None)) is not None:
            self.status.waiting = len(batch)
            published += await self._publish(batch, again)
        self.status.waiting = 0
        # New names are published before the old ones go, so that a rename is never a gap.
        await self._writer.flushed()
        await self._vanished.again(published, self._state)
        self._just_attached = not await self._remove(missing)

    @property
    def _unread(self) -> set[str]:
        return self.status.counters.unreadable

    async def _publish(
        self, batch: Sequence[tuple[str, Stated]], again: Container[str]
    ) -> list[str]:
        """Publish what these are now; one that cannot be read is left for the next listing.

        Returns:
            Those of `again` that were there.

        Raises:
            Unavailable: none of several can be read, so the fault is not theirs.
        """
        counters = self.status.counters
        found = await asyncio.gather(
            *(self._in_thread(self._look, path, stated) for path, stated in batch),
        )
        failures = [finding for finding in found if isinstance(finding, Unreadable)]
        if len(failures) == len(found) > 1:
            raise Unavailable(failures[0].reason)
        self.status.passed.looked(map(look_of, found))
        moment = now()
        messages: list[Message] = []
        published: list[str] = []
        for finding, (path, stated) in zip(found, batch, strict=True):
            if not isinstance(finding, Unreadable):
                counters.unreadable.discard(path)
                self._listing.read(path, stated)
            match finding:
                case Present():
                    messages += self._addition(finding, moment, anyhow=path in again)
                    if path in again:
                        published.append(path)
                case TooLarge():
                    await self._refuse(path, "TooLarge", finding.reason)
                case Unreadable():
                    if path not in counters.unreadable:
                        logger.warning("cannot read %s: %s", path, finding.reason)
                    counters.unreadable.add(path)
                case NoPicture(reason=Reason.NAME_NOT_UTF8):
                    await self._refuse(path, "InvalidName", "the name is not UTF-8")
                case NoPicture():
                    await self._no_more(path)
                case _:  # gone since it was listed: the next listing tells
                    pass
        counters.added += len(messages)
        await self._writer.write(messages)
        return published

    def _look(self, path: str, stated: Stated) -> Finding:
        self._looked_at += 1
        try:
            return self._looked(path, stated)
        except FileNotFoundError:
            return Gone(path)
        except Unavailable as error:
            return Unreadable(path, str(error))

    def _looked(self, path: str, stated: Stated) -> Finding:
        limit = self._settings.max_image_bytes
        if not is_utf8(path):
            return NoPicture(path, stated.content, Reason.NAME_NOT_UTF8)
        uri = self._source.uri(path)
        directory, _, name = path.rpartition("/")
        if self._rules.judge(directory, name) is Reason.UNSURE and (
            stated.size == 0 or sniff_media_type(first_bytes(uri, HEAD_BYTES)) is None
        ):
            return NoPicture(path, stated.content)
        if stated.size is not None and stated.size > limit:
            reason = f"{stated.size} bytes are more than {limit}"
            return TooLarge(path, reason, stated.content)
        digest = hashlib.sha256()
        size, head = 0, b""
        with open_uri(uri) as file, reaching(uri):
            while chunk := file.read(CHUNK_BYTES):
                head = head or chunk[:HEAD_BYTES]
                digest.update(chunk)
                size += len(chunk)
                if size > limit:
                    reason = f"it has more than {limit} bytes"
                    return TooLarge(path, reason, stated.content)
        # Of an object replaced since it was listed this is the new content with the old time, so
        # that the next listing finds a difference and looks again.
        stat = ListedStat(size, stated.modified_us)
        return Present(path, digest.digest(), stat, None, content_type(head, path))

    def _addition(self, found: Present, moment: datetime, *, anyhow: bool) -> list[Message]:
        known = self._state.get(found.image_id)
        self._state.put(found.image_id, Known(found.sha256, found.stat))
        is_known = known is not None and known.sha256 == found.sha256 and known.uri_is_current
        if is_known and not anyhow:
            self.status.counters.unchanged += 1
            return []
        uri = self._source.uri(found.image_id)
        image_id = self.id_prefix + found.image_id
        event = addition(
            image_id, uri, found.sha256, found.stat, moment, media_type=found.media_type
        )
        return [Message(image_id, event)]

    async def _refuse(self, path: str, error_class: str, reason: str) -> None:
        self.status.counters.refused += 1
        await self._dead_letters.report(self.id_prefix + path, error_class, reason)
        await self._no_more(path)

    async def _no_more(self, path: str) -> None:
        """What was published under this name before is there no more."""
        if self._state.get(path) is not None:
            self._state.remove(path)
            await self._writer.write([removal(self.id_prefix + path)])

    async def _remove(self, missing: Sequence[str]) -> bool:
        """Publish that these are gone; False if that is held back.

        A listing comes in pages and is no snapshot: of a bucket that is being emptied it may lack a
        few names only. So it is listed once more, what is missing then tells how many are going,
        and what both listings lack is gone.
        """
        left_out, missing = await self._in_thread(self._rules.parted, missing)
        await self._publish_removals(left_out)
        emptied = False
        judged: list[str] = []
        if missing:
            judged, count = await self._in_thread(self._listing.missing)
            emptied = self._just_attached and not count
            missing = await self._in_thread(_both, missing, judged)
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
                self._unread.discard(path)
            await self._writer.write([removal(self.id_prefix + path) for path in part])
            self.status.counters.removed += len(part)
        await self._writer.flushed()

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)


def _both(some: Iterable[str], others: Iterable[str]) -> list[str]:
    """Those of `some` that are among the others. Blocks, for seconds where there are millions."""
    return list(set(others).intersection(some))
