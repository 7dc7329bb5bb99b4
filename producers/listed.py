"""Keeps `images` equal to a bucket, or whatever else fsspec knows, by listing it now and then."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

from adapters.errors import Unavailable
from adapters.event_log import EventLog, Message
from adapters.settings import WatcherSettings
from adapters.sources import Source
from adapters.storage import file_system, open_uri, reaching
from producers.announce import addition, removal
from producers.dead_letters import DeadLetters
from producers.guard import RemovalGuard
from producers.hashing import CHUNK_BYTES, Finding, Gone, Present, TooLarge, Unreadable
from producers.rules import Rules
from producers.state import State
from producers.status import Status
from producers.tree import UNKNOWN, FileStat, Known, to_microseconds
from producers.vanished import Vanished
from producers.writer import Writer
from schemas.events import now

T = TypeVar("T")
logger = logging.getLogger(__name__)

AT_ONCE: Final = 16
"""Objects read at the same time: the time goes into waiting for the server."""
BATCH: Final = 256

_SIZE_KEYS: Final = ("size", "Size")
_TIME_KEYS: Final = ("LastModified", "mtime", "last_modified", "updated", "created")
_TAG_KEYS: Final = ("ETag", "etag", "md5Hash", "content_md5")


@dataclass(slots=True)
class Listed:
    """One listing: path -> size and time, and the tag the server keeps of the content, if any."""

    files: dict[str, FileStat] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


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
        self._rules = Rules(settings.ignore_patterns, hidden=settings.include_hidden)
        self._guard = RemovalGuard(settings.mass_removal_share, allow=settings.allow_mass_removal)
        self._dead_letters = DeadLetters(log)
        self._vanished = Vanished(log, settings.images_sources, source.prefix)
        self._writer = Writer(
            log, lambda key, reason: self._dead_letters.report(key, "Rejected", reason)
        )
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix=f"list-{source.name}")
        self._tags: dict[str, str] = {}
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
        self.status.steps = lambda: (self._looked_at, self._writer.written)
        self._state = state
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
        listed = await self._in_thread(self._list)
        # Nobody else touches the state of this source meanwhile.
        changed, missing = await self._in_thread(self._differences, listed)
        for start in range(0, len(changed), BATCH):
            self.status.waiting = len(changed) - start
            await self._publish(changed[start : start + BATCH], listed)
        self.status.waiting = 0
        # New names are published before the old ones go, so that a rename is never a gap.
        await self._writer.flushed()
        self._just_attached = not await self._remove(missing)
        await self._publish_again(listed)
        self._tags = {path: tag for path, tag in listed.tags.items() if path not in self._unread}

    async def _publish_again(self, listed: Listed) -> None:
        """Publish again what indexing did not find, and what is listed now as it was then."""
        left = await self._vanished.settle(self._state)
        paths = [path for path in dict.fromkeys(left) if path in listed.files]
        for path in paths:
            self._state.put(path, UNKNOWN)
        for start in range(0, len(paths), BATCH):
            await self._publish(paths[start : start + BATCH], listed)
        await self._writer.flushed()
        await self._vanished.again(paths, self._state)

    def _differences(self, listed: Listed) -> tuple[list[str], list[str]]:
        """What is new or differs, and what is known and not listed. Blocks, for seconds where there
        are millions."""
        changed = [path for path in listed.files if self._differs(path, listed)]
        missing = [path for path in self._state if path not in listed.files]
        return changed, missing

    @property
    def _unread(self) -> set[str]:
        return self.status.counters.unreadable

    def _list(self) -> Listed:
        system, root = file_system(self._source.url)
        root = root.rstrip("/")
        listed = Listed()
        with reaching(f"list {self._source.url}"):
            try:
                for path, info in _walk(system, root):
                    self._looked_at += 1
                    name = path[path.index(root) + len(root) :].lstrip("/")
                    if name and self._rules.takes(name):
                        listed.files[name] = _stat(info)
                        if tag := _first(info, _TAG_KEYS):
                            listed.tags[name] = str(tag)
            except FileNotFoundError:
                # A folder of a bucket that holds nothing is not there at all; a bucket is.
                container = root.partition("/")[0]
                if container == root or not system.exists(container):
                    raise
        return listed

    def _differs(self, path: str, listed: Listed) -> bool:
        known = self._state.get(path)
        if known is None or known.sha256 is None or not known.uri_is_current:
            return True
        if path in self._unread or known.stat != listed.files[path]:
            return True
        tag = listed.tags.get(path)
        return tag is not None and self._tags.get(path, tag) != tag

    async def _publish(self, paths: Sequence[str], listed: Listed) -> None:
        """Publish what these are now; one that cannot be read is left for the next listing.

        Raises:
            Unavailable: none of several can be read, so the fault is not theirs.
        """
        counters = self.status.counters
        found = await asyncio.gather(
            *(self._in_thread(self._look, path, listed.files[path]) for path in paths),
        )
        failures = [finding for finding in found if isinstance(finding, Unreadable)]
        if len(failures) == len(found) > 1:
            raise Unavailable(failures[0].reason)
        moment = now()
        messages: list[Message] = []
        for finding in found:
            path = finding.image_id
            if not isinstance(finding, Unreadable):
                counters.unreadable.discard(path)
            match finding:
                case Present():
                    messages += self._addition(finding, moment)
                case TooLarge():
                    await self._refuse(path, finding.reason)
                case Unreadable():
                    if path not in counters.unreadable:
                        logger.warning("cannot read %s: %s", path, finding.reason)
                    counters.unreadable.add(path)
                case _:  # gone since it was listed: the next listing tells
                    pass
        counters.added += len(messages)
        await self._writer.write(messages)

    def _look(self, path: str, stat: FileStat) -> Finding:
        self._looked_at += 1
        limit = self._settings.max_image_bytes
        if stat.size > limit:
            return TooLarge(path, f"{stat.size} bytes are more than {limit}")
        uri = self._source.uri(path)
        digest = hashlib.sha256()
        size = 0
        try:
            with open_uri(uri) as file, reaching(uri):
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
                    size += len(chunk)
        except FileNotFoundError:
            return Gone(path)
        except Unavailable as error:
            return Unreadable(path, str(error))
        # Of an object replaced since it was listed this is the new content with the old time, so
        # that the next listing finds a difference and looks again.
        return Present(path, digest.digest(), FileStat(size, stat.modified_us))

    def _addition(self, found: Present, moment: datetime) -> list[Message]:
        known = self._state.get(found.image_id)
        self._state.put(found.image_id, Known(found.sha256, found.stat))
        if known is not None and known.sha256 == found.sha256 and known.uri_is_current:
            self.status.counters.unchanged += 1
            return []
        uri = self._source.uri(found.image_id)
        image_id = self.id_prefix + found.image_id
        return [Message(image_id, addition(image_id, uri, found.sha256, found.stat, moment))]

    async def _refuse(self, path: str, reason: str) -> None:
        self.status.counters.refused += 1
        await self._dead_letters.report(self.id_prefix + path, "TooLarge", reason)
        if self._state.get(path) is not None:
            self._state.remove(path)
            await self._writer.write([removal(self.id_prefix + path)])

    async def _remove(self, missing: Sequence[str]) -> bool:
        """Publish that these are gone; False if that is held back.

        A listing comes in pages and is no snapshot: of a bucket that is being emptied it may lack a
        few names only. So it is listed once more, what is missing then tells how many are going,
        and what both listings lack is gone.
        """
        emptied = False
        judged = missing
        if missing:
            files = (await self._in_thread(self._list)).files
            emptied = self._just_attached and not files
            judged, missing = await self._in_thread(self._still_missing, files, missing)
        confirmed, self._confirmed = self._confirmed, False
        if confirmed:
            self._guard.confirm()
        moment = time.monotonic()
        admitted = await self._in_thread(
            partial(
                self._guard.admits,
                judged,
                self._state,
                moment,
                known=len(self._state),
                emptied=emptied,
            )
        )
        self._guard.unconfirm()
        if admitted:
            self._guard.release()
            known = [self._state.get(path) for path in missing]
            self._guard.count([each.sha256 for each in known if each is not None], moment)
            for path in missing:
                self._state.remove(path)
                self._unread.discard(path)
            for start in range(0, len(missing), BATCH):
                part = missing[start : start + BATCH]
                await self._writer.write([removal(self.id_prefix + path) for path in part])
            await self._writer.flushed()
            self.status.counters.removed += len(missing)
        self.status.held, self.status.held_reason = self._guard.held, self._guard.reason
        return admitted

    def _still_missing(
        self, files: Container[str], missing: Sequence[str]
    ) -> tuple[list[str], list[str]]:
        """All that this listing lacks, and what of `missing` it lacks too. Blocks."""
        judged = [path for path in self._state if path not in files]
        return judged, [path for path in missing if path not in files]

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)


def _walk(system: Any, root: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each file's path and what the listing tells of it, one folder in memory at a time."""
    system.invalidate_cache()
    for folder, _, files in system.walk(root, detail=True, on_error="raise"):
        for name, info in files.items():
            yield f"{folder}/{name}", info


def _first(info: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((info[key] for key in keys if info.get(key) is not None), None)


def _stat(info: Mapping[str, Any]) -> FileStat:
    moment = _first(info, _TIME_KEYS)
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if isinstance(moment, datetime):
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        modified_us = to_microseconds(aware)
    else:
        modified_us = int(float(moment or 0) * 1e6)
    return FileStat(int(_first(info, _SIZE_KEYS) or 0), modified_us)
